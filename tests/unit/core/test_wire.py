"""Datagrams between agents: their form and every rule that they can break."""

import json
from ipaddress import IPv4Address

import pytest

from plugin.core import wire
from plugin.core.endpoints import Endpoint

SEED = "00112233445566ff"
POD = Endpoint(IPv4Address("10.32.0.1"), "0a:58:0a:20:00:01", 7, "default/red")
ENTRY = ["10.32.0.1", "0a:58:0a:20:00:01", 7, "default/red"]


def datagram(kind: int, body: object) -> bytes:
    return wire.HEADER.pack(b"WV", 1, kind, bytes.fromhex(SEED)) + json.dumps(body).encode()


def table(**other: object) -> dict[str, object]:
    return {"incarnation": 1, "version": 1, "part": 0, "parts": 1, "endpoints": [ENTRY]} | other


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello("node1", 5, 6, heard=True),
        wire.Pull(3),
        wire.TablePart(1, 2, 0, 1, (POD,)),
        wire.Step(1, 2, 3, (POD,), (IPv4Address("10.32.0.9"),)),
    ],
)
def test_every_message_comes_back_as_it_was(message: wire.Message) -> None:
    data = wire.encode(message, SEED)
    assert wire.decode(data) == message
    assert wire.peek_seed(data) == SEED


def test_labels_are_cut_and_cleaned() -> None:
    long = Endpoint(POD.address, POD.mac, 1, 'é"\\\n' + "x" * 90)
    decoded = wire.decode(wire.encode(wire.TablePart(1, 1, 0, 1, (long,)), SEED))
    assert isinstance(decoded, wire.TablePart)
    assert decoded.endpoints[0].label == "?" + "x" * 36


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"WV", "at least 12 bytes, found 2"),
        (b"W" * 1401, "at most 1400 bytes, found 1401"),
        (b"XX" + bytes(10), "starts with b'WV'"),
        (b"WV\x02" + bytes(9), "version 1, found 2"),
        (b"WV\x01\x01" + bytes(8) + b"{", "no JSON"),
        (b"WV\x01\x01" + bytes(8) + b"[" * 1300, "no JSON"),
        (datagram(1, []), "must be a JSON object"),
        (datagram(9, {}), "kind 9 is unknown"),
        (datagram(1, {"name": 1}), "name must be printable"),
        (datagram(1, {"name": "x" * 64}), "at most 63 bytes"),
        (datagram(1, {"name": "x", "incarnation": True}), "incarnation must be a whole number"),
        (datagram(1, {"name": "x", "incarnation": 1, "version": 1, "heard": 1}), "heard must be true or false"),
        (datagram(2, {"incarnation": -1}), "whole number from 0"),
        (datagram(2, {"incarnation": 1 << 63}), "whole number from 0"),
        (datagram(3, table(parts=513)), "parts must be"),
        (datagram(3, table(part=1)), "part must be a whole number from 0 to 0"),
        (datagram(3, table(endpoints={})), "list of at most 12"),
        (datagram(3, table(endpoints=[ENTRY] * 13)), "list of at most 12"),
        (datagram(3, table(endpoints=[ENTRY[:3]])), "must be [address, mac, stamp, label]"),
        (datagram(3, table(endpoints=[[1, *ENTRY[1:]]])), "an address must be text"),
        (datagram(3, table(endpoints=[["::1", *ENTRY[1:]]])), "an address must be IPv4"),
        (datagram(3, table(endpoints=[[ENTRY[0], "0A:58:0a:20:00:01", 7, ""]])), "lower-case hex"),
        (datagram(3, table(endpoints=[[ENTRY[0], 7, 7, ""]])), "lower-case hex"),
        (datagram(3, table(endpoints=[[ENTRY[0], "01:58:0a:20:00:01", 7, ""]])), "unicast"),
        (datagram(3, table(endpoints=[[ENTRY[0], "00:00:00:00:00:00", 7, ""]])), "unicast"),
    ],
)
def test_what_is_no_message_is_refused_with_the_rule_it_breaks(data: bytes, sentence: str) -> None:
    with pytest.raises(wire.WireError) as raised:
        wire.decode(data)
    assert sentence in raised.value.message
