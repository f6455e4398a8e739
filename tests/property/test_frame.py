"""Laws of the dissector: no bytes make it raise, its layers tile the frame, its fields say what the bytes say."""

from ipaddress import IPv4Address

from hypothesis import example, given
from hypothesis import strategies as st

from plugin.core.packet.build import build_ping_frame, build_vxlan_frame
from plugin.core.packet.checksum import Checksum, checksum_of
from plugin.core.packet.frame import dissect
from plugin.core.packet.layers import Cut, Malformed
from plugin.core.packet.packet import Packet
from testbed.probes.packet_view import COLUMNS, describe, render, render_hex

macs = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)

# Bytes that get past the first headers, so that the deep ones are met too.
PREFIXES = [
    b"",
    bytes(12) + b"\x08\x00\x45",
    bytes(12) + b"\x86\xdd\x60",
    bytes(12) + b"\x81\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04",
    bytes(12) + bytes.fromhex("08004500000000000000401100000a2000010a280001"),
    bytes(12) + bytes.fromhex("08004500000000002000401100000a2000010a280001c0001a8000800000"),
    bytes(12) + bytes.fromhex("08004500000000000000400600000a2000010a280001"),
    bytes(12) + bytes.fromhex("86dd6000000000000040") + bytes(32),
    bytes(12) + bytes.fromhex("86dd6000000000002c40") + bytes(32),
]

# Found by hypothesis: the inner IPv4 header ends where UDP says, its ICMP header is absent, and one byte of padding follows.
INNER_TOO_SHORT = (
    bytes(12)
    + bytes.fromhex("0800 4500004e00000000 40117a990000000300000004 c0001a80003213f3 0800000000000100")
    + bytes(12)
    + bytes.fromhex("0800 4500001c00004000 40013adf0000000100000002 08")
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Arbitrary bytes, bytes behind a plausible header, and real frames with a few bytes changed or gone."""
    if draw(st.booleans()):
        return draw(st.sampled_from(PREFIXES)) + draw(st.binary(max_size=200))
    inner = build_ping_frame(
        draw(macs), draw(macs), IPv4Address(1), IPv4Address(2), payload=draw(st.binary(max_size=64))
    )
    if draw(st.booleans()):
        inner = build_vxlan_frame(draw(macs), draw(macs), IPv4Address(3), IPv4Address(4), inner)
    frame = bytearray(inner)
    for _ in range(draw(st.integers(0, 3))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))])


def owners(packet: Packet) -> list[Packet]:
    return [packet] if packet.inner is None else [packet, *owners(packet.inner)]


@given(frames(), st.integers(0, 3000))
@example(b"", 0)
@example(INNER_TOO_SHORT, 7)
def test_any_bytes_give_a_packet_whose_layers_cover_them_once_and_in_order(frame: bytes, missing: int) -> None:
    packet = dissect(frame, wire_bytes=len(frame) + missing)
    at = 0
    for layer in packet.all_layers:
        assert layer.offset == at
        at += layer.header_bytes
    assert at == len(frame) == packet.captured_bytes
    for owner in owners(packet):
        assert owner.captured_bytes >= 0
        assert [layer for layer in owner.layers[:-2] if isinstance(layer, Malformed | Cut)] == []
        for layer in owner.layers:
            assert (checksum_of(owner, layer) is None) or isinstance(checksum_of(owner, layer), Checksum)


@given(frames())
def test_a_field_lies_in_its_layer_and_says_what_its_bytes_say(frame: bytes) -> None:
    for layer in dissect(frame).all_layers:
        for field in layer.fields:
            assert layer.offset <= field.offset
            assert field.offset + field.width <= layer.offset + layer.header_bytes
            raw = int.from_bytes(frame[field.offset : field.offset + field.width], "big")
            if isinstance(field.value, int):
                mask = field.mask or (1 << 8 * field.width) - 1
                shift = (mask & -mask).bit_length() - 1
                assert field.value == (raw & mask) >> shift


@given(frames(), st.integers(0, 100))
def test_any_bytes_can_be_shown_within_eighty_columns(frame: bytes, missing: int) -> None:
    packet = dissect(frame, wire_bytes=len(frame) + missing)
    assert "".join(layer["hex"] for layer in describe(packet)["layers"]) == frame.hex()
    for text in (render(packet, explain=True, fields=True), render_hex(packet)):
        assert max(map(len, text.plain.splitlines()), default=0) <= COLUMNS
    assert packet.summary


@given(macs, macs, addresses, addresses, st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=100))
def test_a_built_ping_is_read_back(
    source: str, target: str, a: IPv4Address, b: IPv4Address, identifier: int, sequence: int, payload: bytes
) -> None:
    packet = dissect(build_ping_frame(source, target, a, b, identifier=identifier, sequence=sequence, payload=payload))
    assert (packet.ethernet.source, packet.ethernet.destination) == (source, target)
    assert (packet.ipv4.source, packet.ipv4.destination) == (a, b)
    assert (packet.icmp.identifier, packet.icmp.sequence, packet.payload) == (identifier, sequence, payload)
    assert checksum_of(packet, packet.ipv4) is checksum_of(packet, packet.icmp) is Checksum.GOOD


@given(st.integers(1, 2**24 - 1), addresses, addresses, st.binary(min_size=14, max_size=200))
def test_an_envelope_is_fifty_bytes_and_carries_any_frame_unchanged(
    vni: int, a: IPv4Address, b: IPv4Address, inner: bytes
) -> None:
    frame = build_vxlan_frame("02:00:00:00:00:01", "02:00:00:00:00:02", a, b, inner, vni=vni)
    packet = dissect(frame)
    assert packet.vxlan.vni == vni
    assert (packet.wire_bytes, packet.inner.wire_bytes) == (len(inner) + 50, len(inner))
    assert frame[packet.inner.offset :] == inner
    assert checksum_of(packet, packet.udp) is Checksum.GOOD
