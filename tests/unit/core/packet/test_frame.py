"""Frames built by `plugin.core.packet.build` are read back; wrong ones end where and why they should."""

import re
from ipaddress import IPv4Address

import pytest

from plugin.core.packet.build import (
    build_arp_frame,
    build_echo,
    build_ethernet,
    build_ipv4,
    build_ping_frame,
    build_udp,
    build_vxlan_frame,
)
from plugin.core.packet.checksum import Checksum, checksum_of
from plugin.core.packet.frame import NESTING_MAX, dissect
from plugin.core.packet.layers import Cut, Malformed, Payload, Trailer
from plugin.core.packet.names import (
    BROADCAST_MAC,
    ETHERTYPE_IPV4,
    PROTOCOL_ICMP,
    PROTOCOL_UDP,
    FrameError,
    is_group_mac,
    mac_bytes,
    mac_text,
)
from plugin.core.packet.packet import Packet
from plugin.core.packet.sums import internet_checksum

POD_A, POD_B = IPv4Address("10.32.0.1"), IPv4Address("10.40.0.1")
NODE_A, NODE_B = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
MAC_A, MAC_B, MAC_1, MAC_2 = (f"02:00:00:00:00:{n:02x}" for n in (0xA, 0xB, 1, 2))

PING = build_ping_frame(MAC_A, MAC_B, POD_A, POD_B, identifier=7, sequence=3, payload=bytes(range(56)))
VXLAN = build_vxlan_frame(MAC_1, MAC_2, NODE_A, NODE_B, PING, vni=5)


def udp_frame(data: bytes, *, port: int = 53) -> bytes:
    return build_ethernet(
        MAC_A, MAC_B, ETHERTYPE_IPV4, build_ipv4(POD_A, POD_B, PROTOCOL_UDP, build_udp(POD_A, POD_B, 40000, port, data))
    )


def patched(frame: bytes, offset: int, new: bytes) -> bytes:
    return frame[:offset] + new + frame[offset + len(new) :]


def last(packet: Packet) -> object:
    return packet.all_layers[-1]


def test_a_ping_is_read_down_to_its_data() -> None:
    packet = dissect(PING)
    assert (packet.ethernet.source, packet.ethernet.destination) == (MAC_A, MAC_B)
    assert (packet.ipv4.source, packet.ipv4.destination, packet.ipv4.ttl) == (POD_A, POD_B, 64)
    assert packet.ipv4.dont_fragment
    assert (packet.icmp.is_request, packet.icmp.identifier, packet.icmp.sequence) == (True, 7, 3)
    assert packet.payload == bytes(range(56))
    assert (packet.inner, packet.udp, packet.tcp, packet.arp, packet.vxlan, packet.malformed) == (None,) * 6


def test_vxlan_gives_the_pods_packet_inside_the_nodes() -> None:
    packet = dissect(VXLAN)
    assert (packet.ipv4.source, packet.ipv4.destination) == (NODE_A, NODE_B)
    assert (packet.udp.destination_port, packet.vxlan.vni) == (6784, 5)
    assert packet.inner.ipv4.source == POD_A
    assert packet.innermost is packet.inner
    assert (packet.wire_bytes, packet.inner.wire_bytes, packet.inner.offset) == (148, 98, 50)
    assert [(layer.name, layer.offset, layer.header_bytes) for layer in packet.all_layers] == [
        ("Ethernet", 0, 14),
        ("IPv4", 14, 20),
        ("UDP", 34, 8),
        ("VXLAN", 42, 8),
        ("Ethernet", 50, 14),
        ("IPv4", 64, 20),
        ("ICMP", 84, 8),
        ("payload", 92, 56),
    ]


def test_vxlan_on_a_port_that_was_not_named_is_data() -> None:
    assert dissect(VXLAN, vxlan_ports=frozenset({4789})).inner is None
    assert len(dissect(VXLAN, vxlan_ports=frozenset({4789})).payload) == 106


def test_a_tunnel_in_a_tunnel_is_followed_and_endless_nesting_is_not() -> None:
    frame = PING
    for _ in range(NESTING_MAX + 2):
        frame = build_vxlan_frame(MAC_1, MAC_2, NODE_A, NODE_B, frame)
    packet, depth = dissect(frame), 0
    while packet.inner is not None:
        packet, depth = packet.inner, depth + 1
    assert depth == NESTING_MAX
    assert isinstance(last(packet), Payload)


def test_an_arp_request_asks_everybody_and_padding_is_told_apart() -> None:
    packet = dissect(build_arp_frame(1, MAC_A, POD_A, MAC_B, POD_B) + bytes(18))
    assert packet.ethernet.destination == BROADCAST_MAC
    assert (packet.arp.sender_address, packet.arp.target_address) == (POD_A, POD_B)
    assert packet.arp.target_mac == "00:00:00:00:00:00"
    assert packet.summary == "ARP who has 10.40.0.1 tell 10.32.0.1"
    assert last(packet) == Trailer(42, 18)


def test_a_vlan_tag_moves_everything_by_four_bytes() -> None:
    packet = dissect(build_ethernet(MAC_A, MAC_B, ETHERTYPE_IPV4, PING[14:], vlan_id=42))
    assert packet.vlan.vlan_id == 42
    assert packet.ipv4.offset == 18
    assert packet.icmp.sequence == 3


def test_ip_options_count_as_header() -> None:
    ip = build_ipv4(POD_A, POD_B, PROTOCOL_ICMP, build_echo(1, 1, b"x"), options=bytes(8))
    packet = dissect(build_ethernet(MAC_A, MAC_B, ETHERTYPE_IPV4, ip))
    assert (packet.ipv4.header_bytes, packet.ipv4.options) == (28, bytes(8))
    assert packet.icmp.offset == 42


def test_a_first_fragment_shows_its_header_and_a_later_one_only_data() -> None:
    datagram = build_udp(NODE_A, NODE_B, 1, 6784, VXLAN[42:])
    first = build_ipv4(NODE_A, NODE_B, PROTOCOL_UDP, datagram[:80], more_fragments=True)
    later = build_ipv4(NODE_A, NODE_B, PROTOCOL_UDP, datagram[80:], fragment_offset=80)
    one, two = (dissect(build_ethernet(MAC_1, MAC_2, ETHERTYPE_IPV4, part)) for part in (first, later))
    assert one.malformed is None
    assert one.inner.ipv4.destination == POD_B
    assert one.inner.truncated
    assert (two.udp, two.inner, len(two.payload)) == (None, None, len(datagram) - 80)


def test_a_header_in_another_fragment_is_cut_not_malformed() -> None:
    first = build_ipv4(NODE_A, NODE_B, PROTOCOL_UDP, bytes(4), more_fragments=True)
    found = last(dissect(build_ethernet(MAC_1, MAC_2, ETHERTYPE_IPV4, first)))
    assert isinstance(found, Cut)
    assert "another fragment" in found.reason


@pytest.mark.parametrize("kept", range(len(VXLAN)))
def test_a_cut_frame_keeps_its_sizes_and_is_never_called_malformed(kept: int) -> None:
    packet = dissect(VXLAN[:kept], wire_bytes=len(VXLAN))
    assert packet.truncated
    assert packet.malformed is None
    assert packet.wire_bytes == len(VXLAN)
    if packet.inner is not None:
        assert packet.inner.wire_bytes == len(PING)


@pytest.mark.parametrize("kept", [*range(14), *range(15, 142)])
def test_a_frame_that_really_was_that_short_is_malformed(kept: int) -> None:
    assert dissect(VXLAN[:kept]).malformed is not None


@pytest.mark.parametrize(
    ("frame", "protocol", "reason"),
    [
        (b"", "Ethernet", "14 bytes of header are wanted, 0 are left"),
        (patched(PING, 14, b"\x55"), "IPv4", "version 4 is wanted, found 5"),
        (patched(PING, 14, b"\x44"), "IPv4", "at least 20 bytes, this one says 16"),
        (patched(PING, 16, b"\x00\x13"), "IPv4", "the total length is 19"),
        (patched(PING, 16, b"\x05\xdc"), "IPv4", "the total length is 1500, but 64 bytes follow"),
        (patched(udp_frame(b"hello"), 38, b"\x00\x07"), "UDP", "the length is 7"),
        (patched(udp_frame(b"hello"), 38, b"\x00\xff"), "UDP", "the length is 255, but 5 bytes follow"),
        (patched(VXLAN, 42, b"\x00"), "VXLAN", r"the I flag \(0x08\) must be set, the flags are 0x00"),
        (patched(VXLAN, 64, b"\x99"), "IPv4", "version 4 is wanted, found 9"),
        (udp_frame(b"short", port=6784), "VXLAN", "8 bytes of header are wanted, 5 are left"),
        (patched(patched(PING, 23, b"\x06"), 46, b"\x10"), "TCP", "at least 20 bytes, this one says 4"),
        (patched(PING, 12, b"\x86\xdd"), "IPv6", "version 6 is wanted, found 4"),
    ],
)
def test_a_wrong_frame_ends_in_the_reason(frame: bytes, protocol: str, reason: str) -> None:
    found = dissect(frame).malformed
    assert isinstance(found, Malformed)
    assert found.protocol == protocol
    assert re.search(reason, found.reason)


def test_a_total_length_of_zero_reaches_to_the_end_as_in_frames_not_yet_cut_by_the_kernel() -> None:
    packet = dissect(patched(PING, 16, b"\x00\x00"))
    assert packet.malformed is None
    assert len(packet.payload) == 56


def test_a_wire_length_below_the_captured_one_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="148 captured bytes cannot have had 100"):
        dissect(VXLAN, wire_bytes=100)


def test_the_summary_reads_from_the_outside_in() -> None:
    assert dissect(VXLAN).summary == (
        "192.168.56.11 > 192.168.56.12, UDP 49152 > 6784, VXLAN VNI 5"
        " [ 10.32.0.1 > 10.40.0.1, ICMP echo request, id 7, seq 3 ]"
    )


def test_right_checksums_are_good_and_one_flipped_bit_is_bad() -> None:
    packet = dissect(VXLAN)
    assert checksum_of(packet, packet.ipv4) is Checksum.GOOD
    assert checksum_of(packet, packet.udp) is Checksum.GOOD
    assert checksum_of(packet.inner, packet.inner.icmp) is Checksum.GOOD
    assert checksum_of(packet, packet.ethernet) is None
    wrong = dissect(patched(VXLAN, len(VXLAN) - 1, b"\xff"))
    assert checksum_of(wrong, wrong.udp) is Checksum.BAD
    assert checksum_of(wrong.inner, wrong.inner.icmp) is Checksum.BAD
    lower = dissect(patched(VXLAN, 22, b"\x3f"))
    assert checksum_of(lower, lower.ipv4) is Checksum.BAD


def test_a_udp_checksum_may_be_absent_offloaded_or_out_of_reach() -> None:
    absent = dissect(patched(VXLAN, 40, b"\0\0"))
    assert checksum_of(absent, absent.udp) is Checksum.ABSENT
    pseudo = NODE_A.packed + NODE_B.packed + bytes([0, 17]) + (114).to_bytes(2, "big")
    offloaded = dissect(patched(VXLAN, 40, (internet_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")))
    assert checksum_of(offloaded, offloaded.udp) is Checksum.OFFLOADED
    cut = dissect(VXLAN[:100], wire_bytes=len(VXLAN))
    assert checksum_of(cut, cut.udp) is Checksum.UNKNOWN


def test_the_checksum_example_of_rfc_1071_comes_out() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF
    assert internet_checksum(b"\x01") == 0xFEFF


@pytest.mark.parametrize("text", ["02:00:c0:a8:38:0b", "02:00:C0:A8:38:0B", "2:0:c0:a8:38:b", " 02:00:c0:a8:38:0b\n"])
def test_a_mac_address_is_read_in_all_its_spellings(text: str) -> None:
    assert mac_text(mac_bytes(text)) == "02:00:c0:a8:38:0b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:c0:a8:38",
        "02:00:c0:a8:38:0b:00",
        "02-00-c0-a8-38-0b",
        "g2:00:c0:a8:38:0b",
        "002:0:0:0:0:0",
        "+2:0:0:0:0:0",
    ],
)
def test_a_text_that_is_no_mac_address_is_refused(text: str) -> None:
    with pytest.raises(FrameError, match="a MAC address like"):
        mac_bytes(text)


def test_group_addresses_are_known() -> None:
    assert is_group_mac(BROADCAST_MAC)
    assert is_group_mac("33:33:00:00:00:16")
    assert not is_group_mac(MAC_A)
