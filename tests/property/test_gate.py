"""Fuzz of port 6783, from a member's address and a stranger's, with and without the password: an agent goes on.

Whoever does not know the password changes nothing; who does may say anything, and what is no message changes nothing.
"""

import json
import random
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.messages import kinds, values, wire
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Member
from plugin.core.node import Node
from plugin.core.outbox import Send
from tests.property.test_wire import FIELDS, JSON, KIND, MESSAGE
from tests.support import sealing
from tests.support.sealing import CHALLENGE

GATE = settings(max_examples=200, deadline=None)
RANGE = IPv4Network("10.32.0.0/12")
KEYS = Keys("lab", RANGE, "1/6784", "ab" * 32)
GUESS = Keys("lab", RANGE, "1/6784", "cd" * 32)
ONE = Member("node1", "1" * 16, IPv4Address("192.168.56.11"), 5)
TWO = Member("node2", "2" * 16, IPv4Address("192.168.56.12"), 7)
STRANGER = Member("evil", "6" * 16, IPv4Address("192.168.56.66"), 1)
SOURCE = st.sampled_from([TWO.address, STRANGER.address, IPv4Address("10.32.0.2"), ONE.address])
WHO = st.sampled_from([TWO, STRANGER])
NOW_S = 100.0


def cluster() -> Node:
    """node1 of a cluster of two."""
    node = Node(me=ONE, keys=KEYS, seeds=[TWO.address], founders=0, chance=random.Random(1))
    sync = kinds.Sync((TWO,), (), (), (), (), values.RingState("", 0, (), (), ()), pods=False)
    assert node.on_request(sealing.encode(sync, TWO, KEYS, ONE), CHALLENGE, TWO.address, now_s=NOW_S)
    node.effects()
    return node


def take(node: Node, data: bytes, source: IPv4Address) -> None:
    """It comes in every way there is."""
    before = len(sends(node))
    node.on_datagram(data, source, now_s=NOW_S)
    assert len(sends(node)) - before <= 64
    node.on_request(data, CHALLENGE, source, now_s=NOW_S)
    node.on_timer(now_s=NOW_S + 1)
    node.effects()


def sends(node: Node) -> list[Send]:
    return [effect for effect in node.effects() if isinstance(effect, Send)]


def is_as_it_was(node: Node) -> bool:
    return dict(node.members.others) == {TWO.name: TWO} and not node.council.refused and not node.located()


@GATE
@given(st.binary(max_size=200), SOURCE)
def test_bytes_that_nobody_sealed_change_nothing(data, source) -> None:
    node = cluster()
    for piece in (data, wire.MAGIC + bytes([wire.VERSION]) + data, node.greeting(CHALLENGE) + data):
        take(node, piece, source)
    assert is_as_it_was(node)


@GATE
@given(MESSAGE, WHO, SOURCE)
def test_a_message_with_another_password_changes_nothing(message, who, source) -> None:
    node = cluster()
    take(node, sealing.encode(message, who, GUESS, to=ONE), source)
    assert is_as_it_was(node)


@GATE
@given(MESSAGE, WHO, SOURCE, st.integers(0, 1 << 20))
def test_a_forged_message_with_a_tag_that_was_listened_to_changes_nothing(message, who, source, number) -> None:
    node = cluster()
    head = wire.Head(message.KIND, KEYS.mark, node.tag, who.session, number, b"")
    take(node, wire.sealed(head, wire.body_of(message, who), b"guess"), source)
    assert is_as_it_was(node)


@GATE
@given(KIND, JSON | st.dictionaries(st.sampled_from(FIELDS), JSON), WHO, SOURCE)
def test_anything_that_a_member_seals_is_refused_or_is_a_message(kind, body, who, source) -> None:
    node = cluster()
    take(node, sealing.sealed(kind, json.dumps(body).encode(), who, KEYS, to=ONE), source)
    assert TWO.name in node.members.others


@GATE
@given(MESSAGE, WHO, SOURCE)
def test_any_message_of_a_member_leaves_the_agent_running(message, who, source) -> None:
    node = cluster()
    take(node, sealing.encode(message, who, KEYS, to=ONE), source)
    assert node.me.name == "node1"
