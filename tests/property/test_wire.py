"""Laws of the control protocol's bytes."""

import json
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core import wire
from plugin.core.endpoints import STAMP_MAX, Endpoint

GATE = settings(max_examples=150, deadline=None)
SEED = "ab" * 8
COUNTER = st.integers(0, 2**63 - 1)
ADDRESS = st.integers(0, 2**32 - 1).map(IPv4Address)
MAC = st.binary(min_size=6, max_size=6).filter(lambda mac: not mac[0] & 1 and any(mac)).map(lambda mac: mac.hex(":"))
PLAIN = st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\')
ENDPOINT = st.builds(Endpoint, ADDRESS, MAC, st.integers(0, STAMP_MAX), st.text(PLAIN, max_size=40))
ENDPOINTS = st.lists(ENDPOINT, max_size=12).map(tuple)
MESSAGE = st.one_of(
    st.builds(wire.Hello, st.text(PLAIN, max_size=63), COUNTER, COUNTER, st.booleans()),
    st.builds(wire.Pull, COUNTER),
    st.integers(1, 512).flatmap(
        lambda parts: st.builds(wire.TablePart, COUNTER, COUNTER, st.integers(0, parts - 1), st.just(parts), ENDPOINTS)
    ),
    # a step is one change: what the node sends has one endpoint or one that is gone
    st.builds(wire.Step, COUNTER, COUNTER, COUNTER, ENDPOINTS, st.just(())),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=11), inner, max_size=5),
    max_leaves=15,
)
FIELD = st.sampled_from(["name", "incarnation", "version", "heard", "part", "parts", "endpoints", "base", "gone"])


def decodes_or_refuses(data: bytes) -> None:
    try:
        message = wire.decode(data)
    except wire.WireError as error:
        assert len(error.message) < 300  # noqa: PT017 - either outcome is right, none other is
    else:
        assert isinstance(message, wire.Hello | wire.Pull | wire.TablePart | wire.Step)


@GATE
@given(MESSAGE)
def test_decoding_undoes_encoding_within_one_datagram(message) -> None:
    data = wire.encode(message, SEED)
    assert len(data) <= wire.DATAGRAM_BYTES_MAX
    assert wire.decode(data) == message


def test_twelve_longest_entries_fit_one_datagram() -> None:
    longest = Endpoint(IPv4Address("255.255.255.255"), "fe:ff:ff:ff:ff:ff", STAMP_MAX, "x" * 90)
    top = 2**63 - 1
    for message in (wire.TablePart(top, top, 511, 512, (longest,) * 12), wire.Step(top, top, top, (longest,) * 12, ())):
        assert len(wire.encode(message, SEED)) <= wire.DATAGRAM_BYTES_MAX


@GATE
@given(st.binary(max_size=2000))
def test_any_bytes_decode_or_are_refused(data) -> None:
    decodes_or_refuses(data)
    decodes_or_refuses(wire.HEADER.pack(b"WV", 1, data[0] % 6 if data else 0, bytes(8)) + data[:1388])


@GATE
@given(st.integers(0, 5), JSON | st.dictionaries(FIELD, JSON))
def test_any_json_decodes_or_is_refused(kind, body) -> None:
    decodes_or_refuses(wire.HEADER.pack(b"WV", 1, kind, bytes(8)) + json.dumps(body).encode())


@GATE
@given(MESSAGE, st.integers(0, 1399), st.integers(0, 255))
def test_a_damaged_datagram_decodes_or_is_refused(message, place, value) -> None:
    data = bytearray(wire.encode(message, SEED))
    data[place % len(data)] = value
    decodes_or_refuses(bytes(data))
