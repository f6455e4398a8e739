"""Take an Ethernet frame apart, down to the pod's packet inside a VXLAN frame. Decides nothing about it, opens nothing.

Read `dissect` first: it gives a `Packet`, whose `layers` cover every captured byte of the frame in order and without
gaps; a VXLAN frame's cargo is one more Packet under `inner`. What a layer says is in ethernet.py, ip.py, transport.py.

Bad bytes never raise. A frame that contradicts itself ends in a `Malformed` layer that says why; one that was cut by
the capture, or whose rest travels in another IP fragment, ends in `Cut`. Any exception out of `dissect` is a bug.

Understood: Ethernet (and 802.3 lengths), 802.1Q, ARP, IPv4 with options and fragments, IPv6 with the simple extension
headers, ICMP and ICMPv6, UDP, TCP, VXLAN. Everything else is `Payload`.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from plugin.core.packet import vxlan
from plugin.core.packet.ethernet import Arp, Ethernet, Vlan
from plugin.core.packet.ip import IPv4, IPv6, IPv6Extension
from plugin.core.packet.layers import Cut, Layer, Malformed, Payload, Trailer
from plugin.core.packet.names import (
    ECHO_REPLY,
    ECHO_REPLY_V6,
    ECHO_REQUEST,
    ECHO_REQUEST_V6,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_MIN,
    ETHERTYPE_QINQ,
    ETHERTYPE_VLAN,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)
from plugin.core.packet.packet import Packet
from plugin.core.packet.transport import Icmp, Tcp, Udp, Vxlan

_VXLAN_PORTS: Final = frozenset({vxlan.UDP_PORT})


# Tunnels in tunnels, tags on tags: nobody nests deeper, and hostile bytes must not make us recurse. The rest is payload
# (UDP data or an unread EtherType).
NESTING_MAX: Final = 4


def dissect(frame: bytes, *, wire_bytes: int | None = None, vxlan_ports: frozenset[int] = _VXLAN_PORTS) -> "Packet":
    """Take one Ethernet frame apart.

    Args:
        frame: The captured bytes, from the destination MAC on, without the checksum that the network card removes.
        wire_bytes: How long the frame was on the wire, if the capture kept less of it. Default: all was kept.
        vxlan_ports: UDP destination ports whose payload is VXLAN.

    Returns:
        The packet. Bad bytes give a packet that ends in `Malformed` (or `Cut`): nothing is raised for them.

    Raises:
        ValueError: `wire_bytes` is smaller than the frame: a mistake of the caller, not of the frame.
    """
    wire = len(frame) if wire_bytes is None else wire_bytes
    if wire < len(frame):
        raise ValueError(f"a frame of {len(frame)} captured bytes cannot have had {wire} on the wire")
    return _dissect(bytes(frame), 0, len(frame), wire, vxlan_ports, 0)


# -------------------------------------------------------------------------------------------------------------- parsing


_ETHERNET: Final = struct.Struct("!6s6sH")
_VLAN: Final = struct.Struct("!HH")
_ARP: Final = struct.Struct("!HHBBH6sI6sI")
_IPV4: Final = struct.Struct("!BBHHHBBHII")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ICMP: Final = struct.Struct("!BBHI")
_UDP: Final = struct.Struct("!HHHH")
_TCP: Final = struct.Struct("!HHIIHHHH")
_IPV6_FRAGMENT: Final = 44
_EXTENSIONS: Final = frozenset({0, 43, _IPV6_FRAGMENT, 60})


@dataclass(slots=True)
class _Cursor:
    """Where the parser stands. `end` bounds the captured bytes of the current part, `wire_end` what was on the wire."""

    data: bytes
    at: int
    end: int
    wire_end: int
    vxlan_ports: frozenset[int]
    depth: int
    layers: list[Layer]
    inner: Packet | None = None
    fragment: bool = False
    closed: bool = False

    def has(self, size: int, protocol: str) -> bool:
        """Whether `size` bytes are here; if not, ends the packet with the layer that says why."""
        if self.end - self.at >= size:
            return True
        if self.wire_end - self.at >= size or self.fragment:
            reason = "it is in another fragment" if self.fragment else "only the first part of the frame was kept"
            self._close(Cut(self.at, self.end - self.at, protocol, reason))
        else:
            self.malformed(protocol, f"{size} bytes of header are wanted, {self.wire_end - self.at} are left")
        return False

    def narrow(self, size: int, protocol: str, field: str) -> bool:
        """Go on within the next `size` bytes, as a length field says; if there are fewer, ends the packet."""
        end = self.at + size
        # The first fragment holds the header of the whole: its length field may point beyond this frame.
        if size < 0 or (end > self.wire_end and not self.fragment):
            self.malformed(protocol, f"{field}, but {max(0, self.wire_end - self.at)} bytes follow the header")
            return False
        self.wire_end = end
        self.end = min(self.end, end)
        return True

    def malformed(self, protocol: str, reason: str) -> None:
        """End the packet here."""
        self._close(Malformed(self.at, self.end - self.at, protocol, reason))

    def _close(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.at = self.end
        self.closed = True


def _dissect(data: bytes, at: int, end: int, wire_end: int, ports: frozenset[int], depth: int) -> Packet:
    cursor = _Cursor(data, at, end, wire_end, ports, depth, [])
    _ethernet(cursor)
    if not cursor.closed and cursor.wire_end > cursor.at:
        size, wire = cursor.end - cursor.at, cursor.wire_end - cursor.at
        cursor.layers.append(Payload(cursor.at, size, wire))
    if cursor.end < end:
        cursor.layers.append(Trailer(cursor.end, end - cursor.end))
    return Packet(data, at, end - at, wire_end - at, tuple(cursor.layers), cursor.inner)


def _ethernet(c: _Cursor) -> None:
    if not c.has(_ETHERNET.size, "Ethernet"):
        return
    destination, source, ethertype = _ETHERNET.unpack_from(c.data, c.at)
    c.layers.append(Ethernet(c.at, _ETHERNET.size, destination.hex(":"), source.hex(":"), ethertype))
    c.at += _ETHERNET.size
    tags = 0
    while ethertype in {ETHERTYPE_VLAN, ETHERTYPE_QINQ} and tags < NESTING_MAX:
        if not c.has(_VLAN.size, "802.1Q"):
            return
        tag, ethertype = _VLAN.unpack_from(c.data, c.at)
        c.layers.append(Vlan(c.at, _VLAN.size, tag >> 13, bool(tag & 0x1000), tag & 0x0FFF, ethertype))
        c.at += _VLAN.size
        tags += 1
    if ethertype < ETHERTYPE_MIN:
        c.narrow(ethertype, "Ethernet", f"the 802.3 length is {ethertype}")
        return
    parse = _NETWORK.get(ethertype)
    if parse is not None:
        parse(c)


def _arp(c: _Cursor) -> None:
    if not c.has(8, "ARP"):
        return
    # Another hardware or protocol than Ethernet and IPv4 has other sizes: leave it as payload.
    if c.data[c.at : c.at + 6] != b"\x00\x01\x08\x00\x06\x04":
        return
    if not c.has(_ARP.size, "ARP"):
        return
    _, _, _, _, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(c.data, c.at)
    addresses = IPv4Address(sender), IPv4Address(target)
    layer = Arp(c.at, _ARP.size, operation, sender_mac.hex(":"), addresses[0], target_mac.hex(":"), addresses[1])
    c.layers.append(layer)
    c.at += _ARP.size
    c.narrow(0, "ARP", "")  # what follows is padding


def _ipv4(c: _Cursor) -> None:
    layer = _ipv4_header(c)
    if layer is None:
        return
    # 0 stands in frames over 64 KB that the kernel has not cut yet (BIG TCP): they reach to the end of the frame.
    size = layer.total_length - layer.header_bytes
    if layer.total_length and not c.narrow(size, "IPv4", f"the total length is {layer.total_length}"):
        return
    if layer.fragment_offset:
        return  # the header of the next layer is in the first fragment
    c.fragment = layer.more_fragments
    parse = _TRANSPORT.get(layer.protocol)
    if parse is not None:
        parse(c)


def _ipv4_header(c: _Cursor) -> IPv4 | None:
    if not c.has(_IPV4.size, "IPv4"):
        return None
    (first, service, total, ident, fragment, ttl, protocol, checksum, source, target) = _IPV4.unpack_from(c.data, c.at)
    size = (first & 0x0F) * 4
    if first >> 4 != 4:
        c.malformed("IPv4", f"version 4 is wanted, found {first >> 4}")
        return None
    if size < _IPV4.size:
        c.malformed("IPv4", f"a header has at least 20 bytes, this one says {size}")
        return None
    if not c.has(size, "IPv4"):
        return None
    layer = IPv4(
        offset=c.at,
        header_bytes=size,
        dscp=service >> 2,
        ecn=service & 3,
        total_length=total,
        identification=ident,
        dont_fragment=bool(fragment & 0x4000),
        more_fragments=bool(fragment & 0x2000),
        fragment_offset=(fragment & 0x1FFF) * 8,
        ttl=ttl,
        protocol=protocol,
        checksum=checksum,
        source=IPv4Address(source),
        destination=IPv4Address(target),
        options=c.data[c.at + _IPV4.size : c.at + size],
        reserved_flag=bool(fragment & 0x8000),
    )
    c.layers.append(layer)
    c.at += size
    return layer


def _ipv6(c: _Cursor) -> None:
    layer = _ipv6_header(c)
    if layer is None:
        return
    # 0 announces a jumbogram (RFC 2675): it reaches to the end of the frame.
    length = layer.payload_length
    if length and not c.narrow(length, "IPv6", f"the payload length is {length}"):
        return
    following: int | None = layer.next_header
    while following in _EXTENSIONS:
        following = _ipv6_extension(c, following)
    parse = None if following is None else _TRANSPORT.get(following)
    if parse is not None:
        parse(c)


def _ipv6_header(c: _Cursor) -> IPv6 | None:
    if not c.has(_IPV6.size, "IPv6"):
        return None
    first, length, following, hop_limit, source, destination = _IPV6.unpack_from(c.data, c.at)
    if first >> 28 != 6:
        c.malformed("IPv6", f"version 6 is wanted, found {first >> 28}")
        return None
    layer = IPv6(
        offset=c.at,
        header_bytes=_IPV6.size,
        traffic_class=first >> 20 & 0xFF,
        flow_label=first & 0xFFFFF,
        payload_length=length,
        next_header=following,
        hop_limit=hop_limit,
        source=IPv6Address(source),
        destination=IPv6Address(destination),
    )
    c.layers.append(layer)
    c.at += _IPV6.size
    return layer


def _ipv6_extension(c: _Cursor, kind: int) -> int | None:
    """Step over one extension header: the number of the header behind it, or None if that is not here."""
    if not c.has(8, "IPv6 ext"):
        return None
    following = c.data[c.at]
    # A fragment header always has eight bytes; the others count theirs in eights, without the first.
    size = 8 if kind == _IPV6_FRAGMENT else (c.data[c.at + 1] + 1) * 8
    if not c.has(size, "IPv6 ext"):
        return None
    fragment = int.from_bytes(c.data[c.at + 2 : c.at + 4], "big") if kind == _IPV6_FRAGMENT else 0
    c.layers.append(IPv6Extension(c.at, size, kind, following))
    c.at += size
    c.fragment = c.fragment or bool(fragment & 1)
    return None if fragment & 0xFFF8 else following


def _icmp(c: _Cursor) -> None:
    version = 4 if isinstance(c.layers[-1], IPv4) else 6
    if not c.has(_ICMP.size, "ICMP"):
        return
    kind, code, checksum, rest = _ICMP.unpack_from(c.data, c.at)
    echo = kind in ({ECHO_REQUEST, ECHO_REPLY} if version == 4 else {ECHO_REQUEST_V6, ECHO_REPLY_V6})
    numbers = (rest >> 16, rest & 0xFFFF) if echo else (None, None)
    c.layers.append(Icmp(c.at, _ICMP.size, version, kind, code, checksum, rest, *numbers))
    c.at += _ICMP.size


def _udp(c: _Cursor) -> None:
    if not c.has(_UDP.size, "UDP"):
        return
    source, destination, length, checksum = _UDP.unpack_from(c.data, c.at)
    c.layers.append(Udp(c.at, _UDP.size, source, destination, length, checksum))
    c.at += _UDP.size
    if not c.narrow(length - _UDP.size, "UDP", f"the length is {length}"):
        return
    if destination in c.vxlan_ports and c.depth < NESTING_MAX:
        _vxlan(c)


def _vxlan(c: _Cursor) -> None:
    if not c.has(vxlan.VXLAN_BYTES, "VXLAN"):
        return
    header = vxlan.parse_vxlan(c.data, c.at)
    if not header.vni_valid:
        c.malformed("VXLAN", f"the I flag (0x08) must be set, the flags are 0x{header.flags:02x}")
        return
    c.layers.append(
        Vxlan(c.at, vxlan.VXLAN_BYTES, header.flags, header.reserved, header.vni, header.reserved_last),
    )
    c.at += vxlan.VXLAN_BYTES
    c.inner = _dissect(c.data, c.at, c.end, c.wire_end, c.vxlan_ports, c.depth + 1)
    c.at = c.end
    c.closed = True


def _tcp(c: _Cursor) -> None:
    if not c.has(_TCP.size, "TCP"):
        return
    source, destination, sequence, acknowledgement, bits, window, checksum, urgent = _TCP.unpack_from(c.data, c.at)
    size = (bits >> 12) * 4
    if size < _TCP.size:
        c.malformed("TCP", f"a header has at least 20 bytes, this one says {size}")
        return
    if not c.has(size, "TCP"):
        return
    c.layers.append(
        Tcp(
            offset=c.at,
            header_bytes=size,
            source_port=source,
            destination_port=destination,
            sequence=sequence,
            acknowledgement=acknowledgement,
            flags=bits & 0x01FF,
            window=window,
            checksum=checksum,
            urgent=urgent,
            options=c.data[c.at + _TCP.size : c.at + size],
            reserved=bits >> 9 & 7,
        )
    )
    c.at += size


_NETWORK: Final[dict[int, Callable[[_Cursor], None]]] = {
    ETHERTYPE_ARP: _arp,
    ETHERTYPE_IPV4: _ipv4,
    ETHERTYPE_IPV6: _ipv6,
}


_TRANSPORT: Final[dict[int, Callable[[_Cursor], None]]] = {
    PROTOCOL_ICMP: _icmp,
    PROTOCOL_ICMPV6: _icmp,
    PROTOCOL_TCP: _tcp,
    PROTOCOL_UDP: _udp,
}
