"""Says of a captured packet whether its internet checksums are right.

On a veth pair a wrong checksum is usually no fault. The sending kernel leaves the work to a network card that does not
exist, and the packet crosses the machine with only the sum of the pseudo-header in the field; the receiving kernel
knows and does not look. `Checksum.OFFLOADED` recognises that value, so that nobody is told to hunt for corruption.
"""

from enum import StrEnum

from plugin.core.packet.ip import IPv4, IPv6, IPv6Extension
from plugin.core.packet.layers import Layer
from plugin.core.packet.names import PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP
from plugin.core.packet.packet import Packet
from plugin.core.packet.sums import internet_checksum, pseudo_sum
from plugin.core.packet.transport import Icmp, Tcp, Udp


class Checksum(StrEnum):
    """What a checksum field turned out to be; the value is the word for people."""

    GOOD = "good"
    BAD = "bad"
    ABSENT = "not computed"  # UDP over IPv4 may send 0
    OFFLOADED = "left to the network card"
    UNKNOWN = "cannot be told"  # the packet is cut or a fragment


def checksum_of(packet: Packet, layer: Layer) -> Checksum | None:
    """Judge the checksum in one of the packet's own layers; None if that layer has none."""
    if isinstance(layer, IPv4):
        return Checksum.BAD if internet_checksum(packet.bytes_of(layer)) else Checksum.GOOD
    if isinstance(layer, Udp | Tcp | Icmp):
        return _transport(packet, layer)
    return None


def _transport(packet: Packet, layer: Udp | Tcp | Icmp) -> Checksum:
    if isinstance(layer, Udp) and layer.checksum == 0 and packet.ipv4 is not None:
        return Checksum.ABSENT
    body = _transport_bytes(packet, layer)
    if body is None:
        return Checksum.UNKNOWN
    pseudo = _pseudo(packet, layer, len(body))
    if internet_checksum(body, pseudo) == 0:
        return Checksum.GOOD
    return Checksum.OFFLOADED if pseudo and layer.checksum == pseudo else Checksum.BAD


def _transport_bytes(packet: Packet, layer: Udp | Tcp | Icmp) -> bytes | None:
    """The whole transport segment, or None if it is not all here."""
    ip = packet.ipv4 or packet.ipv6
    assert ip is not None, "a transport layer stands behind an IP header"
    end = packet.offset + packet.wire_bytes
    if isinstance(layer, Udp):
        end = layer.offset + layer.length
    elif isinstance(ip, IPv4) and ip.total_length:
        end = ip.offset + ip.total_length
    elif isinstance(ip, IPv6) and ip.payload_length:
        end = ip.offset + ip.header_bytes + ip.payload_length
    fragment = (ip.is_fragment if isinstance(ip, IPv4) else False) or any(
        isinstance(part, IPv6Extension) and part.kind == 44 for part in packet.layers
    )
    if fragment or end > packet.offset + packet.captured_bytes:
        return None
    return packet.data[layer.offset : end]


def _pseudo(packet: Packet, layer: Udp | Tcp | Icmp, length: int) -> int:
    ip = packet.ipv4 or packet.ipv6
    assert ip is not None
    if isinstance(layer, Icmp) and layer.version == 4:
        return 0
    protocol = {Udp: PROTOCOL_UDP, Tcp: PROTOCOL_TCP, Icmp: PROTOCOL_ICMPV6}[type(layer)]
    return pseudo_sum(ip.source.packed, ip.destination.packed, protocol, length)
