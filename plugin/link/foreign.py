"""Things of other software in our way when the agent starts: told apart from what an earlier agent of ours has left.

Nothing here changes anything. What is not ours is never taken over and never deleted: the agent says what it is, and
what to do.
"""

import errno
import socket
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from plugin.core.errors import InputError
from plugin.link import rules
from plugin.link.firewalls import names_in_table
from plugin.link.holders import taken_by
from plugin.link.netlink import Link, Netlink
from plugin.link.nfnetlink import Netfilter
from plugin.link.pods import HOST_PREFIX

_WEAVE_NET_PORTS: Final = frozenset({"vethwe-bridge", "vethwe-pcap"})
"""What Weave Net itself puts into its bridge, which is called `weave` as well (weave, net/bridge.go)."""


def refuse_links(netlink: Netlink, *, bridge: str, macs: Collection[str], overlay: str, vni: int, port: int) -> None:
    """See that the names of our links, and what the overlay needs, are ours or free.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch's name.
        macs: The MACs that a switch of this node has, or had when the state was written.
        overlay: The overlay device's name.
        vni: Its VNI.
        port: Its UDP port.

    Raises:
        InputError: One is somebody else's; the text says whose, as far as that can be seen.
    """
    links = {link.name: link for link in netlink.links()}
    switch = links.get(bridge)
    if switch is not None:
        _refuse_bridge(switch, list(links.values()), netlink.addresses(), macs, overlay)
    _refuse_device(links.get(overlay), switch, vni, port)
    _refuse_port(links.values(), overlay, vni, port)


def _refuse_bridge(
    found: Link,
    links: Collection[Link],
    addresses: Collection[tuple[int, IPv4Interface]],
    macs: Collection[str],
    overlay: str,
) -> None:
    rename = f"ip link set {found.name} down; ip link set {found.name} name other"
    if found.kind != "bridge":
        raise InputError(
            f"{found.name} exists on this node and is a {found.kind or 'plain'} interface, not a bridge",
            hint=f"rename it ({rename}) or remove it (ip link delete {found.name}), or choose another name: bridge",
        )
    ports = sorted(link.name for link in links if link.master == found.index)
    if _WEAVE_NET_PORTS.intersection(ports):
        raise InputError(
            f"{found.name} exists on this node and is the bridge of Weave Net: its ports are {', '.join(ports)}",
            hint="both cannot serve the same pods: remove Weave Net first (its command is: weave reset)",
        )
    is_ours = found.mac in macs or overlay in ports or any(name.startswith(HOST_PREFIX) for name in ports)
    held = [str(interface) for index, interface in addresses if index == found.index]
    # An empty bridge serves nobody: it may be half of what an earlier start has made.
    if not is_ours and (ports or held):
        raise InputError(
            f"{found.name} exists on this node and is a bridge of somebody else: its ports are "
            f"{', '.join(ports) or 'none'}, its addresses {', '.join(held) or 'none'}",
            hint=f"rename it ({rename}), or choose another name for the switch in the agent's configuration: bridge",
        )


def _refuse_device(found: Link | None, switch: Link | None, vni: int, port: int) -> None:
    if found is None:
        return
    if found.kind != "vxlan":
        raise InputError(
            f"{found.name} exists on this node and is a {found.kind or 'plain'} interface, not the overlay's device",
            hint=f"remove it (ip link delete {found.name}), or choose another vxlan_port for the whole cluster",
        )
    is_port = switch is not None and found.master == switch.index
    if not is_port and (found.vxlan_vni, found.vxlan_port) != (vni, port):
        raise InputError(
            f"{found.name} exists on this node and is no port of our switch: a VXLAN device of somebody else, with VNI "
            f"{found.vxlan_vni} on UDP port {found.vxlan_port}",
            hint=f"remove it (ip link delete {found.name}), or choose another vxlan_port for the whole cluster",
        )


def _refuse_port(links: Collection[Link], overlay: str, vni: int, port: int) -> None:
    """VXLAN devices of one port share a socket of the kernel; a process that has the port leaves none for it."""
    sharing = [link for link in links if link.kind == "vxlan" and link.vxlan_port == port]
    for link in sharing:
        if link.name != overlay and link.vxlan_vni == vni:
            raise InputError(
                f"VNI {vni} on UDP port {port} belongs to another device of this node: {link.name}",
                hint="stop the other network, or choose another vni for the whole cluster: ip -d link show type vxlan",
            )
    if any(link.up for link in sharing):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as the kernel will for the device; closed at once
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise InputError(
                f"UDP port {port}, the overlay's, is taken{taken_by('udp', port)}",
                hint="stop that program (ss -lunp lists them), or choose another vxlan_port for the whole cluster",
            ) from error


def has_pods(netlink: Netlink) -> bool:
    """Whether there are links of pods, also of some that no record speaks of: the state was lost."""
    return any(link.name.startswith(HOST_PREFIX) for link in netlink.links())


def refuse_table(netfilter: Netfilter) -> None:
    """See that a table of our name is ours, or empty: it is about to be replaced.

    Raises:
        InputError: It is somebody else's.
    """
    names = names_in_table(netfilter, rules.TABLE)
    if names and names.isdisjoint(rules.MARKS):
        raise InputError(
            f"an nftables table ip {rules.TABLE} exists on this node and is not this agent's: in it are "
            f"{', '.join(sorted(names))}",
            hint=f"rename it where it is made, or remove it if nobody needs it: nft delete table ip {rules.TABLE}",
        )


def leftover_addresses(
    interfaces: Collection[IPv4Interface], earlier: IPv4Network | None, now: IPv4Network
) -> tuple[list[IPv4Interface], list[IPv4Interface]]:
    """The addresses of the switch that do not belong to the pod range: those that we gave it, and those of others.

    Args:
        interfaces: The addresses of the switch.
        earlier: The pod range that the state on the disk was written for, None when nothing is known of one.
        now: The pod range.
    """
    ours, others = [], []
    for interface in interfaces:
        if interface.ip in now and interface.network.prefixlen in {now.prefixlen, 32}:
            continue
        if earlier is not None and interface.ip in earlier and interface.network.prefixlen in {earlier.prefixlen, 32}:
            ours.append(interface)
        else:
            others.append(interface)
    return ours, others


def routes_into(netlink: Netlink, network: IPv4Network, *, except_link: int) -> list[tuple[IPv4Network, str]]:
    """The routes of this node, each with its link's name, that lead some of `network` elsewhere.

    One to a larger network does not: the switch's own route is more specific and wins.
    """
    found = [
        route for route in netlink.routes()
        if route.index != except_link and route.destination.prefixlen >= network.prefixlen
        and route.destination.overlaps(network)
    ]  # fmt: skip
    names = {link.index: link.name for link in netlink.links()} if found else {}
    return [(route.destination, names.get(route.index or 0, "several links")) for route in found]
