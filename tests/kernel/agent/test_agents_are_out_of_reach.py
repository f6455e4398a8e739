"""No pod reaches the overlay's port or an agent of any node, whatever address it uses; strangers may only join."""

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from plugin.core.packet.build import build_ethernet, build_ipv4, build_udp
from plugin.core.packet.names import ETHERTYPE_IPV4, PROTOCOL_UDP
from plugin.core.packet.vxlan import build_vxlan
from plugin.link import netns, rtnl
from testbed.machine.space import Space, call, run
from testbed.probes.capture import Tap, capture
from tests.support.attack import MARKER, Member, Scene, syn, tapped, udp_frame, udp_from
from tests.support.cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
NODES = {1: "192.168.56.11", 2: "192.168.56.12"}
OPEN, CONTROL, OVERLAY = 6785, 6783, 6784
LED_ON = """
table ip led {
  chain prerouting {
    type nat hook prerouting priority -100;
    udp dport 7776 dnat to 192.168.56.12:6784
    udp dport 7777 dnat to 192.168.56.11:6784
    tcp dport 7778 dnat to 192.168.56.12:6783
    udp dport 7779 dnat to 192.168.56.12:6785
  }
}
"""
"""A port of the node leads to an agent, as a Service could whose endpoints somebody has written by hand."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        made = Scene(Cluster(tmp_path_factory.mktemp("scene"), stack))
        run(made.cluster.nodes[1], ["nft", "-f", "-"], stdin=LED_ON.encode(), timeout_s=10)
        yield made


def at(member: Member, address: str) -> Member:
    """Frames to a member, packets to another address."""
    return replace(member, address=IPv4Address(address))


@dataclass(frozen=True)
class Way:
    """How a pod could reach a node: where frames go, which address they name, and at which port instead of the real."""

    name: str
    to: Callable[[Scene], Member]
    udp_port: int = OVERLAY
    refused_by: int = 1


WAYS = [
    Way("its own node's address", lambda s: at(s.switches[1], NODES[1])),
    Way("its gateway", lambda s: s.switches[1]),
    Way("another node's address, masqueraded", lambda s: at(s.switches[1], NODES[2])),
    Way("another node's switch, through the overlay", lambda s: s.switches[2], refused_by=2),
    Way("another node's address by that node's switch", lambda s: at(s.switches[2], NODES[2]), refused_by=2),
    Way("its own node's address by another node's switch", lambda s: at(s.switches[2], NODES[1]), refused_by=2),
    Way("the pod range's broadcast address", lambda s: at(s.everybody, "10.47.255.255")),
    Way("everybody", lambda s: s.everybody),
    Way("all hosts", lambda s: replace(at(s.everybody, "224.0.0.1"), mac="01:00:5e:00:00:01")),
    Way("a port of its node that leads to another node", lambda s: at(s.switches[1], NODES[1]), udp_port=7776),
    Way("a port of its node that leads to itself", lambda s: at(s.switches[1], NODES[1]), udp_port=7777),
    Way("its node's address on all bridges' group", lambda s: replace(at(s.everybody, NODES[1]), mac="01:80:c2:00:00:0e")),
    Way("its node's address on spanning tree's group", lambda s: replace(at(s.everybody, NODES[1]), mac="01:80:c2:00:00:00")),
]  # fmt: skip
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


def injected(scene: Scene) -> bytes:
    """A VXLAN packet whose frame says that it comes from the gateway."""
    gateway, green = scene.switches[1], scene.green
    inner = udp_frame(gateway, green, MARKER)
    return build_vxlan(1) + inner


def delivered(scene: Scene, frames: list[bytes]) -> set[str]:
    """Which pods the frame that is wrapped in `frames` reaches."""
    return scene.seen(frames, unwrapped=True) & {"green", "blue"}


def refusals(scene: Scene, number: int) -> int:
    """How many packets to agents a node has refused to red."""
    kernel = ["nft", "-j", "list", "set", "ip", "weave-guard", "refused"]
    listed = json.loads(run(scene.cluster.nodes[number], kernel, timeout_s=10).stdout)["nftables"]
    elements = next(one["set"] for one in listed if "set" in one).get("elem", [])
    found = {one["elem"]["val"]: one["elem"]["counter"]["packets"] for one in elements}
    return found.get(str(scene.red.address), 0) + (scene.refused().get("bridge", 0) if number == 1 else 0)


@ways
def test_no_pod_puts_a_frame_into_the_overlay(scene: Scene, way: Way) -> None:
    before = refusals(scene, way.refused_by)
    frame = udp_frame(scene.red, way.to(scene), injected(scene), port=way.udp_port)
    with capture([Tap(scene.cluster.nodes[1], "eth0", "underlay")]) as session:
        assert delivered(scene, [frame]) == set()
        session.drain(marker=MARKER)
        outside = [one for one in session.frames if MARKER in one.data and one.packet.inner is None]
    assert outside == [], "nothing leaves the node as if it came from the node"
    assert refusals(scene, way.refused_by) > before


@ways
def test_no_pod_speaks_to_an_agent(scene: Scene, way: Way) -> None:
    if way.udp_port != OVERLAY:
        pytest.skip("leads to the overlay's port")
    rejected = [scene.cluster.report(number)["control"]["rejected"] for number in NODES]
    before = refusals(scene, way.refused_by)
    frames = [udp_frame(scene.red, way.to(scene), MARKER, port=CONTROL, from_port=CONTROL)]
    scene.seen(frames)
    assert refusals(scene, way.refused_by) > before
    assert [scene.cluster.report(number)["control"]["rejected"] for number in NODES] == rejected


@pytest.mark.parametrize("port", [CONTROL, OVERLAY], ids=["control", "API"])
@pytest.mark.parametrize(
    "way", [way for way in WAYS if way.name.startswith(("its own node", "its gateway", "another"))],
    ids=lambda way: way.name,
)  # fmt: skip
def test_no_pod_opens_a_connection_to_an_agent(scene: Scene, way: Way, port: int) -> None:
    with ExitStack() as stack:
        for node in scene.cluster.nodes.values():
            stack.callback(call(node, lambda: socket.create_server(("0.0.0.0", OPEN))).close)
        red, to = scene.red, way.to(scene)
        with capture([Tap(red.space, "eth0", "red")]) as session:
            scene.send(syn(red, to, port, 40000 + port), syn(red, to, OPEN, 40000))
            wait_for(lambda: answered(session.frames, OPEN), "an open port answers")
            session.drain()
            assert not answered(session.frames, port)


def answered(frames: object, port: int) -> bool:
    """Whether a connection was accepted (SYN, ACK) or refused (RST) by a port."""
    flags = [one.packet.tcp for one in frames if one.packet.tcp is not None]  # type: ignore[attr-defined]
    return any(segment.source_port == port for segment in flags)


def test_fragments_bring_nothing_to_an_agent_either(scene: Scene) -> None:
    payload = injected(scene)
    for to in (at(scene.switches[1], NODES[2]), at(scene.switches[1], NODES[1]), scene.switches[2]):
        datagram = build_udp(scene.red.address, to.address, 9, OVERLAY, payload)
        for order in (1, -1):
            pieces = [
                build_ipv4(
                    scene.red.address, to.address, PROTOCOL_UDP, datagram[start : start + 24],
                    fragment_offset=start, more_fragments=start + 24 < len(datagram), identification=70 + order,
                )
                for start in range(0, len(datagram), 24)
            ]  # fmt: skip
            frames = [build_ethernet(scene.red.mac, to.mac, ETHERTYPE_IPV4, piece) for piece in pieces[::order]]
            assert len(frames) > 2
            assert delivered(scene, frames) == set(), to


def test_a_port_that_is_no_agents_is_reached_by_the_same_ways(scene: Scene) -> None:
    with ExitStack() as stack:
        open_ports = {}
        for number, node in scene.cluster.nodes.items():
            opened = call(node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            stack.callback(opened.close)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            opened.bind(("0.0.0.0", OPEN))
            opened.settimeout(10)
            open_ports[number] = opened
        for number, to, port in (
            (1, at(scene.switches[1], NODES[1]), OPEN),
            (1, scene.switches[1], OPEN),
            (2, at(scene.switches[1], NODES[2]), OPEN),
            (2, scene.switches[2], OPEN),
            (2, at(scene.switches[1], NODES[1]), 7779),
        ):
            scene.send(udp_frame(scene.red, to, b"control", port=port))
            assert open_ports[number].recv(100) == b"control", (number, to, port)


# ---- who is no pod


@pytest.fixture(scope="module")
def stranger(scene: Scene) -> Space:
    """A host of the underlay that is no member."""
    cluster = scene.cluster
    space = cluster.space("stranger")
    fd = netns.open_netns(space.net)
    with cluster.netlink(cluster.underlay) as underlay, cluster.netlink(space) as inside:
        near = rtnl.VethEnd(name="n9", master=10, up=True)
        underlay.request(rtnl.veth_add(near, rtnl.VethEnd(name="eth0", index=2, netns_fd=fd)))
        inside.request(rtnl.link_set(2, up=True), rtnl.address_add(2, IPv4Interface("192.168.56.19/24")))
    os.close(fd)
    return space


def test_the_overlay_takes_packets_from_the_nodes_of_members_only(scene: Scene, stranger: Space) -> None:
    with capture(scene.taps) as session:
        udp_from(stranger, (NODES[1], OVERLAY), injected(scene))
        udp_from(scene.cluster.nodes[1], (NODES[1], OVERLAY), injected(scene))  # a program of the node itself
        udp_from(scene.cluster.nodes[1], ("127.0.0.1", OVERLAY), injected(scene))
        # The control: the same from a member's node does arrive, behind the others.
        udp_from(scene.cluster.nodes[2], (NODES[1], OVERLAY), injected(scene).replace(MARKER, b"of a member" * 2))
        wait_for(lambda: "green" in tapped(session, b"of a member"), "a member's packet arrives")
        session.drain(marker=MARKER)
        assert tapped(session, MARKER) == set()
    status = json.loads(scene.cluster.api(1, "/ps")[1]) and json.loads(scene.cluster.api(1, "/status")[1])
    assert status["guard"]["refused"]["stranger"] == 3
    told = scene.events(1, "stranger refused")
    assert {one["address"] for one in told} == {"192.168.56.19", NODES[1], "127.0.0.1"}


def test_a_stranger_may_ask_to_join(scene: Scene, stranger: Space) -> None:
    def ask() -> None:
        socket.create_connection((NODES[1], CONTROL), timeout=10).close()

    call(stranger, ask)
    rejected = scene.cluster.report(1)["control"]["rejected"].get("malformed", 0)

    def speak() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("192.168.56.19", CONTROL))
            client.sendto(b"red is a member", (NODES[1], CONTROL))

    call(stranger, speak)
    wait_for(lambda: scene.cluster.report(1)["control"]["rejected"].get("malformed", 0) > rejected, "it is read")


def test_an_underlay_packet_with_the_source_of_a_pod_reaches_no_agent(scene: Scene, stranger: Space) -> None:
    """As a host could send it whose network does not check sources either."""
    rejected = scene.cluster.report(1)["control"]["rejected"]
    with scene.cluster.netlink(stranger) as inside:
        inside.request(rtnl.address_add(2, IPv4Interface("10.32.50.50/32")))

    def speak() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("10.32.50.50", CONTROL))
            client.sendto(b"red is a member", (NODES[1], CONTROL))

    before = refusals_of(scene, "10.32.50.50")
    call(stranger, speak)
    wait_for(lambda: refusals_of(scene, "10.32.50.50") > before, "it is refused")
    assert scene.cluster.report(1)["control"]["rejected"] == rejected


def refusals_of(scene: Scene, address: str) -> int:
    listed = run(scene.cluster.nodes[1], ["nft", "list", "set", "ip", "weave-guard", "refused"], timeout_s=10).stdout
    return listed.count(address)


def members(cluster: Cluster, number: int) -> set[str]:
    listed = json.loads(
        call(
            cluster.nodes[number],
            lambda: subprocess.check_output(["nft", "-j", "list", "set", "ip", "weave-guard", "members"]),
        )
    )
    return set(next(one["set"] for one in listed["nftables"] if "set" in one).get("elem", []))


def test_who_the_members_are_is_known_again_after_a_restart_though_nobody_tells(cluster: Cluster) -> None:
    cluster.mesh()
    wait_for(lambda: members(cluster, 1) == {NODES[2]} and members(cluster, 2) == {NODES[1]}, "members are known")
    cluster.kill(2)
    cluster.kill(1)
    assert members(cluster, 1) == {NODES[2]}, "no agent, and the pods of both nodes still reach each other"
    cluster.start(1, wait=False)
    wait_for(lambda: cluster.ready(1), "the agent is back")
    assert members(cluster, 1) == {NODES[2]}


def test_a_packet_of_a_pod_that_the_node_itself_leads_on_is_stopped_too(scene: Scene) -> None:
    """IPVS does so: what it sends to the endpoint of a Service is never forwarded, and has the pod's address."""
    gateway = str(scene.switches[1].address)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((gateway, 0))
            with pytest.raises(PermissionError):
                client.sendto(struct.pack("!I", 0), (NODES[2], OVERLAY))

    call(scene.cluster.nodes[1], send)
    assert refusals_of(scene, gateway) == 1
