"""A captured frame in one line, by the names of who speaks: `red > blue ICMP echo request, in VXLAN node1 > node2`.

And which frames somebody wants to see. Pure: a packet and names in, text or a verdict out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from plugin.core.packet.ethernet import Arp
from plugin.core.packet.packet import Packet

Kind = Literal["arp", "icmp", "tcp", "udp"]
KINDS: Final[tuple[Kind, ...]] = ("arp", "icmp", "tcp", "udp")

Names = Mapping[str, str]
"""Who has an address or a MAC."""

_NOBODY: Final = IPv4Address(0)
_EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"


def frame_line(packet: Packet, names: Names) -> str:
    """The frame in one line: who to whom, what, and in which envelope."""
    inner = packet.innermost
    text = _sentence(inner, names)
    if inner is not packet:
        text += f", in VXLAN {_who_to_whom(packet, names)}"
    return text


def ends(packet: Packet) -> tuple[str, ...]:
    """The addresses that a packet (not the one inside it) is from and to; of a question of ARP, who asks for whom."""
    if packet.arp is not None:
        return str(packet.arp.sender_address), str(packet.arp.target_address)
    header = packet.ipv4 or packet.ipv6
    return () if header is None else (str(header.source), str(header.destination))


def _sentence(packet: Packet, names: Names) -> str:
    if packet.malformed is not None:
        return f"{_who_to_whom(packet, names)} {packet.malformed.summary}"
    if packet.arp is not None:
        return _arp(packet.arp, names)
    what = next((layer.summary for layer in (packet.icmp, packet.tcp, packet.udp) if layer is not None), "")
    return f"{_who_to_whom(packet, names)} {what or _unnamed(packet)}"


def _unnamed(packet: Packet) -> str:
    """What a packet is that carries nothing we know the header of."""
    if packet.ipv4 is not None and packet.ipv4.fragment_offset:
        return f"IPv4 fragment at byte {packet.ipv4.fragment_offset}"
    if packet.ipv4 is not None:
        return f"IPv4 protocol {packet.ipv4.protocol}"
    if packet.ipv6 is not None:
        return "IPv6"
    return "" if packet.ethernet is None else packet.ethernet.summary.partition(", ")[2]


def _arp(arp: Arp, names: Names) -> str:
    sender, target = _name(arp.sender_address, names), _name(arp.target_address, names)
    if arp.operation == 1 and arp.sender_address == _NOBODY:  # RFC 5227: a probe, before the address is taken
        return f"ARP does anybody have {target}? asks {_name(arp.sender_mac, names)}"
    if arp.operation == 1 and arp.sender_address == arp.target_address:
        return f"ARP {sender} tells everybody: at {arp.sender_mac}"
    if arp.operation == 1:
        return f"ARP who has {target}? asks {sender}"
    if arp.operation == 2:
        return f"ARP {sender} tells {target}: at {arp.sender_mac}"
    return arp.summary


def _who_to_whom(packet: Packet, names: Names) -> str:
    header = packet.ipv4 or packet.ipv6
    if header is not None:
        return f"{_name(header.source, names)} > {_name(header.destination, names)}"
    frame = packet.ethernet
    return "" if frame is None else f"{_name(frame.source, names)} > {_name(frame.destination, names)}"


def _name(one: "IPv4Address | IPv6Address | str", names: Names) -> str:
    text = str(one)
    return "everybody" if text in {_EVERYBODY, "255.255.255.255"} else names.get(text, text)


# ------------------------------------------------------------------------------------------------------------- choosing


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames somebody wants to see; every condition that is given has to hold.

    Attributes:
        kinds: One of these: what the innermost packet is.
        vxlan: Only frames with an envelope.
        hosts: Each of these takes part, as one end of the packet or of its envelope; each by all of its addresses.
        ports: One of these is a port of the innermost packet, or of the envelope.
    """

    kinds: frozenset[Kind] = frozenset()
    vxlan: bool = False
    hosts: tuple[frozenset[str], ...] = ()
    ports: frozenset[int] = frozenset()

    def takes(self, packet: Packet) -> bool:
        """Whether it is one of those."""
        inner = packet.innermost
        if self.vxlan and packet.vxlan is None:
            return False
        if self.kinds and not any(getattr(inner, kind) is not None for kind in self.kinds):
            return False
        there = {*ends(packet), *ends(inner)}
        if not all(host & there for host in self.hosts):
            return False
        return not self.ports or bool(self.ports & {*_ports(packet), *_ports(inner)})


def _ports(packet: Packet) -> tuple[int, ...]:
    header = packet.tcp or packet.udp
    return () if header is None else (header.source_port, header.destination_port)
