"""One captured frame, seen as a part of a probe: whose echo it is, in which headers, and whether it is between the two.

wire.py judges sightings; here a frame is only read. Nothing is decided about what should have been seen.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address

from plugin.core.packet import vxlan
from plugin.core.packet.frame import dissect
from plugin.core.packet.ip import IPv4
from plugin.core.packet.packet import Packet
from plugin.core.packet.transport import Icmp
from testbed.probes.capture import CapturedFrame


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One end of the probe. `mac` is the pod's own, lower case."""

    name: str
    address: IPv4Address
    mac: str
    node: str


@dataclass(frozen=True, slots=True)
class WireFacts:
    """What was done, and how the network is meant to be.

    Attributes:
        sender: The pod that pinged.
        target: The pod that was pinged.
        uplinks: Address of every node's uplink, by the node's name.
        watched: Names of the nodes whose uplinks were captured (`Capture.taps`).
        marker: Bytes that the ping's payload carries and nothing else does.
        count: Echo requests sent.
        answered: Echo replies that the sender counted: without them an empty uplink proves nothing.
        frames_lost: Frames that the capture could not keep (`Capture.lost`).
        vni: The network's VXLAN identifier.
        port: UDP port of its VXLAN.
    """

    sender: PodFacts
    target: PodFacts
    uplinks: Mapping[str, IPv4Address]
    watched: Collection[str]
    marker: bytes
    count: int
    answered: int
    frames_lost: int = 0
    vni: int = 1
    port: int = vxlan.UDP_PORT


# ------------------------------------------------------------------------------------------------------------ one frame


class Sighting:
    """One captured frame, seen with the probe in mind. `packet` is read with the right VXLAN ports."""

    def __init__(self, frame: CapturedFrame, facts: WireFacts) -> None:
        self.frame = frame
        self.facts = facts
        self.is_marked = facts.marker in frame.data
        self.packet = _read(frame, facts, marked=self.is_marked)

    @cached_property
    def is_tunnelled(self) -> bool:
        """Whether it is VXLAN and the pair is inside, on whatever port; or a later fragment of an envelope."""
        outer = self.outer
        return self.packet.inner is not None or (
            outer is not None and outer.fragment_offset > 0 and self.is_between_uplinks
        )

    @cached_property
    def levels(self) -> tuple[Packet, ...]:
        """The frame, and the frames inside it."""
        levels = [self.packet]
        while levels[-1].inner is not None:
            levels.append(levels[-1].inner)
        return tuple(levels)

    @property
    def outer(self) -> IPv4 | None:
        """The IP header that crosses the underlay."""
        return self.packet.ipv4

    @cached_property
    def echo(self) -> str:
        """`request`, `reply`, or empty if the innermost packet is no echo of the probe."""
        icmp = self.packet.innermost.icmp
        if icmp is None or not self.is_marked:
            return ""
        return _echo_word(icmp)

    @cached_property
    def number(self) -> tuple[int, int]:
        """The echo's identifier and sequence number; asked of echoes only."""
        icmp = self.packet.innermost.icmp
        assert icmp is not None, "asked of echoes only"
        return icmp.identifier or 0, icmp.sequence or 0

    @cached_property
    def is_between_uplinks(self) -> bool:
        """Whether it goes from one of the two pods' nodes to the other."""
        ends = {self.facts.uplinks.get(pod.node) for pod in (self.facts.sender, self.facts.target)}
        return self.outer is not None and {self.outer.source, self.outer.destination} == ends

    @cached_property
    def pairs_addresses(self) -> bool:
        """Whether it goes between the two pods' addresses, in whatever headers."""
        wanted = {self.facts.sender.address, self.facts.target.address}
        return any(p.ipv4 is not None and {p.ipv4.source, p.ipv4.destination} == wanted for p in self.levels)

    @cached_property
    def pairs_macs(self) -> bool:
        """Whether it goes between the two pods' MACs, in whatever headers."""
        wanted = {self.facts.sender.mac.lower(), self.facts.target.mac.lower()}
        found = (p.ethernet for p in self.levels)
        return any(e is not None and {e.source, e.destination} == wanted for e in found)

    @cached_property
    def pairs_arp(self) -> bool:
        """Whether it is ARP of one of the pods about the other."""
        wanted = {self.facts.sender.address, self.facts.target.address}
        return any(p.arp is not None and {p.arp.sender_address, p.arp.target_address} == wanted for p in self.levels)

    @cached_property
    def is_pair(self) -> bool:
        """Whether it belongs to the two pods at all."""
        return self.pairs_addresses or self.pairs_macs or self.pairs_arp

    @cached_property
    def is_one_only(self) -> bool:
        """Whether it has to do with one of the pods, but not with the probe."""
        macs = {self.facts.sender.mac.lower(), self.facts.target.mac.lower()}
        pods = {self.facts.sender.address, self.facts.target.address}
        if self.is_marked or self.is_pair:
            return False
        return any(
            (p.ethernet is not None and {p.ethernet.source, p.ethernet.destination} & macs)
            or (p.ipv4 is not None and {p.ipv4.source, p.ipv4.destination} & pods)
            for p in self.levels
        )

    @property
    def what(self) -> str:
        """Its innermost kind, for notes."""
        inner = self.packet.innermost
        if inner.arp is not None:
            return "ARP"
        return inner.icmp.kind if inner.icmp is not None else "other packets"

    def outer_addresses(self) -> str:
        """Who to whom, on the underlay."""
        return _between(self.outer)

    def outer_port(self) -> str:
        """The destination port on the underlay."""
        return "no UDP" if self.packet.udp is None else str(self.packet.udp.destination_port)

    def vni(self) -> str:
        """The VXLAN identifier."""
        return "no VXLAN" if self.packet.vxlan is None else str(self.packet.vxlan.vni)

    def inner_addresses(self) -> str:
        """Who to whom, within."""
        return _between(self.packet.innermost.ipv4)

    def inner_macs(self) -> str:
        """Whose MAC to whose, within."""
        ethernet = self.packet.innermost.ethernet
        return "no Ethernet" if ethernet is None else f"{ethernet.source} > {ethernet.destination}"

    def overhead(self) -> str:
        """What the frame has beyond what the pod sent: the inner IP packet and its Ethernet header."""
        inner = self.packet.innermost.ipv4
        if inner is None:
            return "no inner IPv4"
        # Not from the outer UDP length, which grows with whatever was put in: from what the pod's own header says.
        return f"{self.frame.wire_bytes - vxlan.ETHERNET_BYTES - inner.total_length} bytes"


def _read(frame: CapturedFrame, facts: WireFacts, *, marked: bool) -> Packet:
    """Take the frame apart with the network's port; a marked one also where VXLAN is on a wrong port."""
    packet = frame.packet if facts.port == vxlan.UDP_PORT else _dissect(frame, facts.port)
    udp = packet.udp
    if packet.inner is not None or udp is None or not marked:
        return packet
    other = _dissect(frame, udp.destination_port)
    return packet if other.inner is None or other.innermost.ipv4 is None else other


def _dissect(frame: CapturedFrame, port: int) -> Packet:
    return dissect(frame.data, wire_bytes=frame.wire_bytes, vxlan_ports=frozenset({port}))


def _echo_word(icmp: Icmp) -> str:
    if icmp.is_request:
        return "request"
    return "reply" if icmp.is_reply else ""


def _between(ip: IPv4 | None) -> str:
    return "no IPv4" if ip is None else f"{ip.source} > {ip.destination}"
