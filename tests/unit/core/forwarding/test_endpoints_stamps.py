"""A peer's stamp must never leave this agent without room for its own."""

from ipaddress import IPv4Address, IPv4Network

from plugin.core.forwarding.endpoints import Directory, Table
from plugin.core.messages import kinds, wire
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import STAMP_MAX, Endpoint, Member
from tests.support.sealing import decode, encode

KEYS = Keys("weave", IPv4Network("10.32.0.0/12"))
ME = Member("node1", "ab" * 8, IPv4Address("192.168.56.11"), 1)
PEER = IPv4Address("192.168.56.12")


def test_after_the_highest_stamp_of_a_peer_our_next_claim_can_still_be_told() -> None:
    directory = Directory(1, lambda: ME.address, lambda _node: "")
    claim = Endpoint(IPv4Address("10.40.0.2"), "0a:58:0a:28:00:02", STAMP_MAX)
    directory.replace(PEER, Table(1, 1, frozenset({claim})))
    own = directory.put(IPv4Address("10.32.0.2"), "0a:58:0a:20:00:02", "red")
    step = kinds.Step(0, 1, (own,), ())
    received = decode(encode(step, ME, KEYS), KEYS)
    assert isinstance(received, wire.Received)
    assert received.message == step
