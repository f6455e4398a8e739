"""Put frames together, innermost first: the counterpart of `plugin.core.packet.frame`, for tests, examples and probes.

Every builder takes what goes inside as bytes and gives bytes, with lengths and checksums right, so that a frame reads
like the packet: `build_ethernet(a, b, ETHERTYPE_IPV4, build_ipv4(x, y, PROTOCOL_UDP, build_udp(...)))`.
"""

import struct
from ipaddress import IPv4Address

from plugin.core.packet import vxlan
from plugin.core.packet.names import (
    BROADCAST_MAC,
    ECHO_REPLY,
    ECHO_REQUEST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    PROTOCOL_ICMP,
    PROTOCOL_UDP,
    mac_bytes,
)
from plugin.core.packet.sums import internet_checksum, pseudo_sum


def build_ethernet(
    source: str, destination: str, ethertype: int, payload: bytes, *, vlan_id: int | None = None
) -> bytes:
    """An Ethernet frame, not padded; with `vlan_id`, a tagged one."""
    tag = b"" if vlan_id is None else struct.pack("!HH", 0x8100, vlan_id & 0x0FFF)
    return mac_bytes(destination) + mac_bytes(source) + tag + struct.pack("!H", ethertype) + payload


def build_ipv4(  # noqa: PLR0913 - a header has that many fields, and all but four have a default
    source: IPv4Address,
    destination: IPv4Address,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    identification: int = 0,
    dont_fragment: bool = False,
    more_fragments: bool = False,
    fragment_offset: int = 0,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet. `fragment_offset` is in bytes (a multiple of 8); `options` a multiple of 4 bytes, at most 40."""
    assert len(options) % 4 == 0
    assert len(options) <= 40
    assert fragment_offset % 8 == 0
    size = 20 + len(options)
    fragment = dont_fragment << 14 | more_fragments << 13 | fragment_offset // 8
    total = size + len(payload)
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, total, identification, fragment, ttl, protocol, 0)
    head += source.packed + destination.packed + options
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + payload


def build_udp(
    source: IPv4Address, destination: IPv4Address, source_port: int, destination_port: int, payload: bytes
) -> bytes:
    """A UDP datagram with its checksum; the addresses are needed for that only."""
    length = 8 + len(payload)
    head = struct.pack("!HHH", source_port, destination_port, length)
    pseudo = pseudo_sum(source.packed, destination.packed, PROTOCOL_UDP, length)
    # RFC 768: a sum that comes out as 0 is sent as all ones, because 0 says that there is none.
    checksum = internet_checksum(head + b"\0\0" + payload, pseudo) or 0xFFFF
    return head + struct.pack("!H", checksum) + payload


def build_echo(identifier: int, sequence: int, payload: bytes, *, reply: bool = False) -> bytes:
    """An ICMP echo request or reply."""
    kind = ECHO_REPLY if reply else ECHO_REQUEST
    rest = struct.pack("!HH", identifier, sequence) + payload
    return struct.pack("!BBH", kind, 0, internet_checksum(struct.pack("!BBH", kind, 0, 0) + rest)) + rest


def build_arp_frame(
    operation: int, sender_mac: str, sender: IPv4Address, target_mac: str, target: IPv4Address
) -> bytes:
    """A whole ARP frame of 42 bytes: a request (1) is broadcast, a reply (2) goes to the target's MAC."""
    request = operation == 1
    asked = b"\0" * 6 if request else mac_bytes(target_mac)
    message = struct.pack("!HHBBH", 1, ETHERTYPE_IPV4, 6, 4, operation)
    message += mac_bytes(sender_mac) + sender.packed + asked + target.packed
    return build_ethernet(sender_mac, BROADCAST_MAC if request else target_mac, ETHERTYPE_ARP, message)


def build_ping_frame(
    source_mac: str,
    destination_mac: str,
    source: IPv4Address,
    destination: IPv4Address,
    *,
    identifier: int = 1,
    sequence: int = 1,
    payload: bytes = b"",
    reply: bool = False,
) -> bytes:
    """A whole Ethernet frame with an ICMP echo in it, as a pod sends it."""
    echo = build_echo(identifier, sequence, payload, reply=reply)
    packet = build_ipv4(source, destination, PROTOCOL_ICMP, echo, dont_fragment=not reply)
    return build_ethernet(source_mac, destination_mac, ETHERTYPE_IPV4, packet)


def build_vxlan_frame(  # noqa: PLR0913 - two headers' addresses; the rest has defaults
    source_mac: str,
    destination_mac: str,
    source: IPv4Address,
    destination: IPv4Address,
    inner: bytes,
    *,
    vni: int = 1,
    source_port: int = 49152,
    destination_port: int = vxlan.UDP_PORT,
    ttl: int = 64,
) -> bytes:
    """Wrap a frame as a node does: 50 bytes of Ethernet, IPv4, UDP and VXLAN before it."""
    datagram = build_udp(source, destination, source_port, destination_port, vxlan.build_vxlan(vni) + inner)
    packet = build_ipv4(source, destination, PROTOCOL_UDP, datagram, ttl=ttl)
    return build_ethernet(source_mac, destination_mac, ETHERTYPE_IPV4, packet)
