"""Exchanges on TCP: a request counts on the connection it was made for, an answer for the request it was asked by."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.messages import kinds, wire
from plugin.core.messages.codec import WireError
from plugin.core.messages.exchange import GREETING, Called, Calling, greeting
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.values import Member
from plugin.core.messages.wire import Opened, StrangerError

KEYS = Keys("lab", IPv4Network("10.32.0.0/12"), "1/6784", "ab" * 32)
GUESS = Keys("lab", IPv4Network("10.32.0.0/12"), "1/6784", "cd" * 32)
OTHER = Keys("home", IPv4Network("10.32.0.0/12"), "1/6784", "ab" * 32)
ONE = Member("node1", "1" * 16, IPv4Address("192.168.56.11"), 5)
TWO = Member("node2", "2" * 16, IPv4Address("192.168.56.12"), 7)
BODY = wire.body_of(kinds.Grant((), 3, ""), ONE)
REFUSAL = wire.body_of(kinds.Refuse("name", "no"), TWO)


def call(number: int = 1, challenge: bytes = b"12345678", keys: Keys = KEYS) -> tuple[Calling, Called, bytes]:
    calling = Calling(keys, ONE.session, number, greeting(TWO.session, challenge))
    return calling, Called(KEYS, TWO.session, challenge), calling.request(Kind.GRANT, BODY)


def code(opens: Calling | Called, data: bytes) -> str:
    with pytest.raises(StrangerError) as raised:
        opens.open(data)
    return raised.value.code


def answered(called: Called, data: bytes, kind: Kind = Kind.GRANT, body: bytes = BODY) -> bytes:
    return called.answer(kind, body, called.open(data).head)


def test_a_request_and_its_answer_are_opened() -> None:
    calling, called, data = call()
    assert called.open(data).body == BODY
    assert calling.open(answered(called, data)).sealed


def test_a_request_counts_on_its_connection_only() -> None:
    _, _, data = call()
    assert code(Called(KEYS, TWO.session, b"87654321"), data) == "password"
    assert code(Called(KEYS, ONE.session, b"12345678"), data) == "password"


def test_an_answer_counts_for_its_request_only() -> None:
    _, called, data = call(number=1)
    old = answered(called, data)
    # Somebody in the middle greets as it did the time before, and plays the answer of that time.
    again, _, _ = call(number=2)
    assert code(again, old) == "replay"
    elsewhere, _, _ = call(number=1, challenge=b"87654321")
    assert code(elsewhere, old) == "password"


def test_a_request_is_no_answer_and_an_answer_no_request() -> None:
    calling, called, data = call()
    assert code(calling, data) == "password"
    assert code(called, answered(called, data)) == "password"


@pytest.mark.parametrize(("keys", "why"), [(GUESS, "password"), (OTHER, "cluster")])
def test_others_are_told_apart(keys: Keys, why: str) -> None:
    _, called, data = call(keys=keys)
    assert code(called, data) == why


@pytest.mark.parametrize("keys", [GUESS, OTHER])
def test_a_refusal_is_heard_by_others_and_not_believed(keys: Keys) -> None:
    calling, called, data = call(keys=keys)
    with pytest.raises(StrangerError) as raised:
        called.open(data)
    told = calling.open(called.answer(Kind.REFUSE, REFUSAL, raised.value.head))
    assert (told.body, told.sealed) == (REFUSAL, False)


def test_a_refusal_of_a_member_is_believed() -> None:
    calling, called, data = call()
    assert calling.open(answered(called, data, Kind.REFUSE, REFUSAL)) == Opened(
        calling.open(answered(called, data, Kind.REFUSE, REFUSAL)).head, REFUSAL, sealed=True
    )


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"", "a greeting has 20 bytes, found 0"),
        (b"SSH-2.0-OpenSSH_9.2p", "it is no agent"),
        (GREETING.pack(b"WV", 2, bytes(8), bytes(8)), "another version of the protocol: wanted 3, found 2"),
    ],
)
def test_who_is_no_agent_is_told_from_one_of_another_version(said: bytes, sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        Calling(KEYS, ONE.session, 1, said)
