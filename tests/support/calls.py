"""Calls between namespaces: a server here, a caller there, and as whom the caller is seen."""

import os
import socket
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from plugin.link import netns, rtnl
from testbed.machine.space import Space, call
from tests.support.cluster import Cluster

TIMEOUT_S = 5.0
OUTSIDE = "198.51.100.1"
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Server:
    """Listens on a port of a space, at every address of it; `stack` closes the socket."""

    def __init__(self, space: Space, protocol: str, port: int, stack: ExitStack) -> None:
        self.protocol, self.port = protocol, port

        def opened() -> socket.socket:
            made = socket.socket(socket.AF_INET, KINDS[protocol])
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("0.0.0.0", port))
            return made

        self.socket = stack.enter_context(call(space, opened))
        self.socket.settimeout(TIMEOUT_S)
        if protocol == "tcp":
            self.socket.listen()

    def visit(self, caller: Space, address: str, source: str = "", port: int = 0) -> str:
        """Call it from another space at `address`, bound to `source`: as whom it sees the caller. Both are answered."""
        port = port or self.port
        if self.protocol == "tcp":
            return self._connect(caller, (address, port), source)
        with call(caller, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(TIMEOUT_S)
            client.bind((source, 0))
            client.sendto(b"to the server", (address, port))
            asked, seen = self.socket.recvfrom(100)
            assert asked == b"to the server"
            self.socket.sendto(b"and back", seen)
            answer, answering = client.recvfrom(100)
            assert (answer, answering) == (b"and back", (address, port)), "the answer comes from who was asked"
            return str(seen[0])

    def _connect(self, caller: Space, at: tuple[str, int], source: str) -> str:
        origin = (source, 0) if source else None
        with call(caller, lambda: socket.create_connection(at, timeout=TIMEOUT_S, source_address=origin)) as client:
            connection, (seen, _) = self.socket.accept()
            with connection:
                client.sendall(b"to the server")
                assert connection.recv(100) == b"to the server"
                connection.sendall(b"and back")
                assert client.recv(100) == b"and back"
                return str(seen)


def outside(cluster: Cluster) -> Space:
    """A host that is the nodes' default gateway and knows no way to pods: only masqueraded traffic gets an answer."""
    space = cluster.space("outside")
    fd = netns.open_netns(space.net)
    with cluster.netlink(cluster.underlay) as underlay, cluster.netlink(space) as inside:
        near = rtnl.VethEnd(name="out", master=10, up=True)
        underlay.request(rtnl.veth_add(near, rtnl.VethEnd(name="eth0", index=2, netns_fd=fd)))
        inside.request(
            rtnl.link_set(1, up=True),
            rtnl.link_set(2, up=True),
            rtnl.address_add(1, IPv4Interface(f"{OUTSIDE}/32")),
            rtnl.address_add(2, IPv4Interface("192.168.56.1/24")),
        )
    os.close(fd)
    for node in cluster.nodes.values():
        with cluster.netlink(node) as inside:
            inside.request(rtnl.route_add(IPv4Network("0.0.0.0/0"), gateway=IPv4Address("192.168.56.1")))
    return space
