"""A pod with every capability pretends to be somebody else, in every way that a frame has. None arrives, each is counted.

The same frames of a pod that is exempt do arrive: so the taps see, and the exemption exempts.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from plugin.core.packet.build import build_arp_frame, build_ethernet, build_ipv4, build_udp
from plugin.core.packet.names import (
    BROADCAST_MAC,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    PROTOCOL_UDP,
    mac_bytes,
)
from plugin.core.packet.sums import internet_checksum
from plugin.link import netns
from tests.support.attack import MARKER, Member, Scene, udp_frame
from tests.support.cluster import Cluster
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
STRANGE_MAC = "02:00:00:00:00:77"
GROUP = "01:80:c2:00:00:0"
ROUTER_ADVERTISEMENT = bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8)
LINK_LOCAL, ALL_NODES = bytes.fromhex("fe80" + "0" * 27 + "2"), bytes.fromhex("ff02" + "0" * 27 + "1")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(Cluster(tmp_path_factory.mktemp("scene"), stack))


@pytest.fixture(scope="module")
def exempt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path_factory.mktemp("exempt"), stack)
        yield Scene(cluster, guard={"promiscuous": True})


def arp(scene: Scene, *, sender_mac: str = "", sender: Member | None = None, kind: int = 1) -> list[bytes]:
    """An answer for everybody, and one for the pod on the same node; MARKER is the padding behind it."""
    mac = sender_mac or scene.red.mac
    address = (sender or scene.red).address
    frames = []
    for to in (scene.everybody, scene.green):
        frame = build_arp_frame(2, mac, address, to.mac, to.address)
        head = struct.pack("!HHBBH", kind, ETHERTYPE_IPV4, 6, 4, 2)
        frames.append(mac_bytes(to.mac) + mac_bytes(scene.red.mac) + frame[12:14] + head + frame[22:] + MARKER)
    return frames


def ipv6(scene: Scene, next_header: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 255) + LINK_LOCAL + ALL_NODES
    return build_ethernet(scene.red.mac, "33:33:00:00:00:01", ETHERTYPE_IPV6, head + payload)


def advertisement(scene: Scene) -> bytes:
    message = ROUTER_ADVERTISEMENT + MARKER
    pseudo = LINK_LOCAL + ALL_NODES + struct.pack("!II", len(message), 58)
    checksum = internet_checksum(pseudo + message + b"\0" * (len(message) % 2))
    return ipv6(scene, 58, message[:2] + struct.pack("!H", checksum) + message[4:])


def udp(scene: Scene, **said: str | int) -> list[bytes]:
    """To the pod of the same node, to that of the other one, to the switch, and to all."""
    receivers = (scene.green, scene.blue, scene.switches[1], scene.everybody)
    return [udp_frame(scene.red, to, MARKER, **said) for to in receivers]  # type: ignore[arg-type]


def behind_tags(scene: Scene, *tags: tuple[int, int]) -> list[bytes]:
    """A packet in the name of another pod, behind VLAN tags of these types and numbers."""
    packet = udp_frame(scene.red, scene.green, MARKER, address=str(scene.blue.address))[12:]
    for kind, number in reversed(tags):
        packet = struct.pack("!HH", kind, number) + packet
    return [mac_bytes(to.mac) + mac_bytes(scene.red.mac) + packet for to in (scene.green, scene.everybody)]


def later_fragment(scene: Scene) -> list[bytes]:
    packet = build_ipv4(scene.blue.address, scene.green.address, PROTOCOL_UDP, MARKER + bytes(4), fragment_offset=64)
    return [build_ethernet(scene.red.mac, scene.green.mac, ETHERTYPE_IPV4, packet)]


@dataclass(frozen=True)
class Attack:
    """What is sent, why it is refused, and whether a switch without our rules would carry it."""

    name: str
    reason: str
    frames: Callable[[Scene], list[bytes]]
    carried: bool = True


ATTACKS = [
    Attack("the MAC of a pod of the same node", "mac", lambda s: udp(s, mac=s.green.mac)),
    Attack("the MAC of a pod of another node", "mac", lambda s: udp(s, mac=s.blue.mac)),
    Attack("the MAC of the switch", "mac", lambda s: udp(s, mac=s.switches[1].mac)),
    Attack("the MAC of another node's switch", "mac", lambda s: udp(s, mac=s.switches[2].mac)),
    Attack("a MAC that nobody has", "mac", lambda s: udp(s, mac=STRANGE_MAC)),
    Attack("the address of a pod of the same node", "address", lambda s: udp(s, address=str(s.green.address))),
    Attack("the address of a pod of another node", "address", lambda s: udp(s, address=str(s.blue.address))),
    Attack("the address of the gateway", "address", lambda s: udp(s, address=str(s.switches[1].address))),
    Attack("the address of another gateway", "address", lambda s: udp(s, address=str(s.switches[2].address))),
    Attack("a member's address", "address", lambda s: udp(s, address="192.168.56.12"), carried=False),
    Attack("an address of the world outside", "address", lambda s: udp(s, address="198.51.100.1")),
    Attack("an address of the pod range that nobody has", "address", lambda s: udp(s, address="10.32.99.99")),
    Attack("no address", "address", lambda s: udp(s, address="0.0.0.0")),
    Attack("the address of loopback", "address", lambda s: udp(s, address="127.0.0.1"), carried=False),
    Attack("everybody's address", "address", lambda s: udp(s, address="255.255.255.255")),
    Attack("another pod's address on a later fragment", "address", later_fragment, carried=False),
    Attack("ARP: the gateway is at my MAC", "arp", lambda s: arp(s, sender=s.switches[1])),
    Attack("ARP: a neighbour is at my MAC", "arp", lambda s: arp(s, sender=s.green)),
    Attack("ARP: a pod of another node is at my MAC", "arp", lambda s: arp(s, sender=s.blue)),
    Attack("ARP: I am at another MAC", "arp", lambda s: arp(s, sender_mac=STRANGE_MAC)),
    Attack("ARP: I am at my neighbour's MAC", "arp", lambda s: arp(s, sender_mac=s.green.mac)),
    Attack("ARP of another kind of network", "arp", lambda s: arp(s, kind=6)),
    Attack("a router advertisement", "router", lambda s: [advertisement(s)]),
    Attack("other IPv6", "ipv6", lambda s: [ipv6(s, PROTOCOL_UDP, bytes(8) + MARKER)]),
    Attack("an answer of a DHCP server", "dhcp", lambda s: udp(s, from_port=67, port=68)),
    Attack("an answer of a DHCP server by another port", "dhcp", lambda s: udp(s, from_port=6767, port=68)),
    Attack("a frame of spanning tree", "bridge", lambda s: [
        build_ethernet(s.red.mac, GROUP + "0", 3 + 35 + len(MARKER), b"\x42\x42\x03" + bytes(35) + MARKER)
    ]),
    Attack("a frame for the nearest provider bridge", "bridge", lambda s: [
        build_ethernet(s.red.mac, GROUP + "8", 0x88CC, bytes(46) + MARKER)
    ], carried=False),
    Attack("LLDP, which a bridge gives to nobody else and asks no rule about", "", lambda s: [
        build_ethernet(mac, GROUP + "e", 0x88CC, bytes(46) + MARKER) for mac in (s.red.mac, s.green.mac)
    ], carried=False),
    Attack("a packet with a neighbour's address in LLDP's group", "bridge", lambda s: [
        build_ethernet(s.red.mac, GROUP + "e", ETHERTYPE_IPV4, udp_frame(
            s.red, s.switches[1], MARKER, address=str(s.green.address))[14:])
    ], carried=False),
    Attack("a packet behind a tag 0", "address", lambda s: behind_tags(s, (0x8100, 0))),
    Attack("a packet behind a tag", "address", lambda s: behind_tags(s, (0x8100, 7))),
    Attack("a packet behind two tags", "protocol", lambda s: behind_tags(s, (0x88A8, 0), (0x8100, 0))),
    Attack("something that is no protocol at all", "protocol", lambda s: [
        build_ethernet(s.red.mac, to.mac, 0x88B5, bytes(46) + MARKER) for to in (s.green, s.blue, s.everybody)
    ]),
]  # fmt: skip
named = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


@named
def test_what_a_pod_pretends_arrives_nowhere_and_is_counted(scene: Scene, attack: Attack) -> None:
    before = scene.refused()
    frames = attack.frames(scene)
    assert scene.seen(frames) == set()
    after = scene.refused()
    grown = {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}
    assert grown == ({attack.reason: len(frames)} if attack.reason else {})


@named
def test_the_same_of_a_pod_that_is_exempt_arrives(exempt: Scene, attack: Attack) -> None:
    if not attack.carried:
        assert exempt.seen(attack.frames(exempt)) == set(), "nobody may, or fragments are put together first"
        return
    before = exempt.refused().get(attack.reason, 0)
    assert exempt.seen(attack.frames(exempt)) != set()
    # What bridges say to each other reaches other ports, but not the node.
    assert exempt.refused().get(attack.reason, 0) - before == (1 if attack.reason == "bridge" else 0)


def where(scene: Scene, number: int) -> dict[str, set[str]]:
    """The MACs of the pod network and the ports of a node's switch that they are behind."""
    fd = netns.open_netns(scene.cluster.nodes[number].net)
    try:
        witness = Witness(fd)
        found: dict[str, set[str]] = {}
        for name in (*scene.cluster.pod_links(number), "vxlan-6784"):
            for entry in witness.fdb(name):
                if entry["master"] is not None:
                    found.setdefault(entry["mac"], set()).add(name)
        return found
    finally:
        os.close(fd)


@pytest.mark.parametrize("who", ["scene", "exempt"])
def test_no_frame_moves_a_mac_of_the_pod_network_to_another_port(request: pytest.FixtureRequest, who: str) -> None:
    scene: Scene = request.getfixturevalue(who)
    members = (scene.green, scene.blue, scene.switches[1], scene.switches[2])
    before = where(scene, 1)
    frames = [frame for member in members for frame in udp(scene, mac=member.mac)]
    frames += [build_ethernet(one.mac, GROUP + "e", 0x88CC, bytes(46) + MARKER) for one in members]
    scene.seen(frames)
    after = where(scene, 1)
    assert {one.mac: after.get(one.mac) for one in members} == {one.mac: before.get(one.mac) for one in members}
    assert after[scene.green.mac] != after[scene.red.mac]
    if who == "scene":  # else ARP has told everybody lies by now
        for pod in (scene.green, scene.blue):
            assert scene.cluster.ping(scene.red.space, str(pod.address)) == 0


def test_what_pods_are_meant_to_say_passes(scene: Scene) -> None:
    red, green, switch = scene.red, scene.green, scene.switches[1]
    before = scene.refused()
    for address in (green.address, scene.blue.address, switch.address, scene.switches[2].address):
        assert scene.cluster.ping(red.space, str(address)) == 0, address
    for node in scene.cluster.nodes.values():
        assert scene.cluster.ping(node, str(red.address)) == 0, "as kubelet asks"
    asks = build_arp_frame(1, red.mac, IPv4Address("0.0.0.0"), BROADCAST_MAC, IPv4Address("10.32.77.7"))
    discover = build_udp(IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255"), 68, 67, MARKER)
    packet = build_ipv4(IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255"), PROTOCOL_UDP, discover)
    announces = build_arp_frame(2, red.mac, red.address, BROADCAST_MAC, red.address)
    for frame in (
        asks + MARKER,
        announces + MARKER,
        build_ethernet(red.mac, BROADCAST_MAC, ETHERTYPE_IPV4, packet),
        udp_frame(red, green, MARKER, port=6784),  # what pods send to each other is their own affair
    ):
        assert "green" in scene.seen([frame])
    assert scene.refused() == before


def test_the_attack_is_told_with_the_pods_name_and_not_for_every_frame(scene: Scene) -> None:
    for _ in range(3):
        scene.seen(udp(scene, mac=STRANGE_MAC))
        scene.refused()  # the agent looks
    told = [one for one in scene.events(1, "pod refused") if one["reason"].startswith("the source MAC")]
    assert len(told) == 1, "at once, and then once a minute at most"
    assert told[0]["pod"] == "redpodredpod"
    assert told[0]["interface"] in scene.cluster.pod_links(1)
    assert told[0]["frames"] > 0
    assert scene.events(2, "pod refused") == []
    text = scene.cluster.api(1, "/metrics")[1]
    assert 'weave_guard_refused_frames_total{pod="redpodredpod",' in text


def test_an_arp_frame_that_is_cut_off_is_refused(scene: Scene) -> None:
    short = [
        build_ethernet(scene.red.mac, scene.green.mac, kind, b"") for kind in (ETHERTYPE_ARP, ETHERTYPE_IPV4)
    ]  # fmt: skip
    before = scene.refused()
    scene.seen(short)
    after = scene.refused()
    assert after["arp"] - before.get("arp", 0) == 1
    assert after["address"] - before.get("address", 0) == 1
