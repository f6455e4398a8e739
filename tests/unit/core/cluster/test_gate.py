"""What becomes of bytes of anybody: members are heard, others are told why not, and nobody can make an agent busy."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.membership.members import PeerState
from plugin.core.messages import kinds, values, wire
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.values import Member
from plugin.core.node import Node
from plugin.core.outbox import Call, PeerChanged, Send
from tests.support import sealing

RANGE = IPv4Network("10.32.0.0/12")
KEYS = Keys("lab", RANGE, "1/6784", "ab" * 32)
GUESS = Keys("lab", RANGE, "1/6784", "cd" * 32)
OTHER = Keys("home", RANGE, "1/6784", "ab" * 32)
ONE = Member("node1", "1" * 16, IPv4Address("192.168.56.11"), 5)
TWO = Member("node2", "2" * 16, IPv4Address("192.168.56.12"), 7)
POD = IPv4Address("10.32.0.2")
EVIL = Member("evil", "6" * 16, POD, 1)
STATE = values.RingState("", 0, (), (), ())
BRIEF = values.Brief(0, 0, 0, 0)
NOW_S = 100.0


def agent(me: Member = ONE, keys: Keys = KEYS, seeds: tuple[IPv4Address, ...] = ()) -> Node:
    return Node(me=me, keys=keys, seeds=seeds, founders=1, chance=random.Random(1))


def sync(*members: Member) -> kinds.Sync:
    return kinds.Sync(members, (), (), (), (), STATE, pods=False)


def joined(*members: Member, node: Node | None = None) -> Node:
    """An agent that these have joined by an exchange each."""
    node = node or agent()
    for member in members:
        data = sealing.encode(sync(member), member, KEYS, to=node.me)
        assert node.on_request(data, sealing.CHALLENGE, member.address, now_s=NOW_S) is not None
    node.effects()
    return node


def asks(node: Node, sender: Member, source: IPv4Address, keys: Keys = KEYS) -> wire.Received:
    """What `sender` is answered when it wants to join from `source`."""
    calling, data = sealing.asked(sync(sender), sender, keys, node.me)
    answer = node.on_request(data, sealing.CHALLENGE, source, now_s=NOW_S)
    assert answer is not None
    received = wire.parse(calling.open(answer))
    assert isinstance(received, wire.Received)
    return received


def sent(node: Node) -> list[Send]:
    return [effect for effect in node.effects() if isinstance(effect, Send)]


def ping(sender: Member, to: Member, keys: Keys = KEYS) -> bytes:
    return sealing.encode(kinds.Ping(1, BRIEF), sender, keys, to)


# --- restarts -----------------------------------------------------------------------------------------------------------
def test_who_speaks_to_an_earlier_life_is_told_of_the_new_one_and_greets_it() -> None:
    two = joined(ONE, node=agent(TWO))
    reborn = agent(replace(ONE, life=ONE.life + 1))  # it has lost its disk and knows nobody
    reborn.on_datagram(ping(TWO, ONE), TWO.address, now_s=NOW_S)
    assert reborn.members.others == {}, "what was for another life is not believed"
    assert reborn.counters.rejected["other session"] == 1
    (hello,) = sent(reborn)
    assert (hello.to, hello.data[3]) == (TWO.address, Kind.HELLO)
    two.on_datagram(hello.data, ONE.address, now_s=NOW_S)
    assert two.members.others["node1"].life == ONE.life + 1
    two.on_timer(now_s=NOW_S + 1)
    for effect in sent(two):
        reborn.on_datagram(effect.data, TWO.address, now_s=NOW_S + 1)
    assert "node2" in reborn.members.others


def test_a_hello_of_a_life_that_seems_earlier_leads_to_an_exchange_in_which_it_contradicts() -> None:
    """Its clock was set back and its disk is new: only when it hears of itself it can take a later life."""
    two = joined(replace(ONE, life=1000), node=agent(TWO))
    hello = sealing.encode(kinds.Hello(), ONE, KEYS, to=TWO)
    two.on_datagram(hello, ONE.address, now_s=NOW_S)
    assert [effect.to for effect in two.effects() if isinstance(effect, Call)] == [ONE.address]


def test_nobody_answers_a_hello_or_a_refusal_that_is_not_for_it() -> None:
    node = agent()
    for message in (kinds.Hello(), kinds.Refuse("name", "no")):
        node.on_datagram(sealing.encode(message, TWO, KEYS, to=replace(ONE, life=1)), TWO.address, now_s=NOW_S)
    assert sent(node) == []


def test_what_was_recorded_before_a_restart_changes_nothing_after_it() -> None:
    recorded = ping(TWO, ONE)
    request = sealing.encode(sync(TWO), TWO, KEYS, to=ONE)
    node = agent(replace(ONE, life=ONE.life + 1))
    node.on_datagram(recorded, TWO.address, now_s=NOW_S)
    node.on_request(request, b"another!", TWO.address, now_s=NOW_S)
    assert node.members.others == {}


def test_what_was_recorded_changes_nothing_a_second_time() -> None:
    node = joined(TWO)
    recorded = sealing.encode(kinds.Step(0, 1, (), ()), TWO, KEYS, to=ONE)
    node.on_datagram(recorded, TWO.address, now_s=NOW_S)
    node.effects()
    node.on_datagram(recorded, TWO.address, now_s=NOW_S)
    assert sent(node) == []
    assert node.counters.rejected["replayed"] == 1


def test_an_agent_whose_sessions_are_used_up_lives_on_in_a_new_life() -> None:
    node = joined(TWO)
    before = node.tag
    node._outbox.sessions._ended.update(number.to_bytes(8, "big") for number in range(1 << 16))
    node.on_timer(now_s=NOW_S + 1)
    assert node.me.life == ONE.life + 1
    assert node.directory.own.incarnation == node.me.life
    assert node.tag != before


# --- pods and other places where no agent is ----------------------------------------------------------------------------
def routes(address: IPv4Address) -> IPv4Address | None:
    """Of node1: an underlay, pods with addresses of their own behind the switch, and no default route."""
    if address in IPv4Network("10.244.0.0/16"):
        return IPv4Address("10.32.0.1")
    return ONE.address if address in IPv4Network("192.168.0.0/16") else None


@pytest.mark.parametrize(
    ("sender", "source", "reason"),
    [
        (EVIL, POD, "the address 10.32.0.2 is in the pod range 10.32.0.0/12"),
        (EVIL, TWO.address, "the address 10.32.0.2 is in the pod range 10.32.0.0/12"),
        (replace(EVIL, address=TWO.address), POD, "the address 10.32.0.2 is in the pod range 10.32.0.0/12"),
        (replace(EVIL, address=ONE.address + 9), TWO.address, "its messages come from 192.168.56.12"),
        (replace(EVIL, address=IPv4Address("203.0.113.9")), IPv4Address("203.0.113.9"), "no route of this node leads"),
        (replace(EVIL, address=IPv4Address("10.244.0.9")), IPv4Address("10.244.0.9"), "leads to the pods' switch"),
    ],
    ids=["a pod", "a pod's address", "from a pod", "another address", "no route", "behind the switch"],
)
def test_who_is_on_no_node_is_refused_and_both_sides_say_why(sender: Member, source: IPv4Address, reason: str) -> None:
    node = agent()
    node.believe_routes(routes)
    told = asks(node, sender, source)
    assert isinstance(told.message, kinds.Refuse)
    assert reason in told.message.reason
    assert reason in node.peers[source].reason
    assert node.peers[source].state is PeerState.REFUSED
    node.on_datagram(ping(sender, ONE), source, now_s=NOW_S)
    assert node.members.others == {}
    assert node.counters.rejected["no node"] == 2
    theirs = agent(sender, seeds=(ONE.address,))
    for refusal in sent(node):
        theirs.on_datagram(refusal.data, ONE.address, now_s=NOW_S)
    assert reason in theirs.peers[ONE.address].reason


def test_a_member_in_the_pod_range_is_not_taken_in_by_hearsay() -> None:
    node = agent()
    node.on_request(sealing.encode(sync(EVIL), TWO, KEYS, to=ONE), sealing.CHALLENGE, TWO.address, now_s=NOW_S)
    assert set(node.members.others) == {"node2"}
    news = sealing.encode(kinds.Ping(1, BRIEF, news=(EVIL,)), TWO, KEYS, to=ONE)
    node.on_datagram(news, TWO.address, now_s=NOW_S)
    assert set(node.members.others) == {"node2"}
    assert POD not in node.destinations


def test_what_a_member_relays_is_heard() -> None:
    node = joined(TWO)
    three = Member("node3", "3" * 16, ONE.address + 2, 1)
    node.on_datagram(ping(three, ONE), TWO.address, now_s=NOW_S)
    assert "node3" in node.members.others


# --- answers ------------------------------------------------------------------------------------------------------------
def test_the_answer_of_another_time_is_no_answer() -> None:
    """Somebody in the middle greets as a member once did, and plays what it answered then."""
    asking, answering = agent(seeds=(TWO.address,)), agent(TWO)
    asking.on_timer(now_s=NOW_S)
    (first,) = (effect for effect in asking.effects() if isinstance(effect, Call))
    said = answering.greeting(sealing.CHALLENGE)
    request = asking.on_greeting(first.token, said)
    answer = answering.on_request(request, sealing.CHALLENGE, ONE.address, now_s=NOW_S)
    assert answer is not None
    asking.on_no_answer(first.token, "timed out", now_s=NOW_S)
    asking.on_timer(now_s=NOW_S + 1)
    (second,) = (effect for effect in asking.effects() if isinstance(effect, Call))
    asking.on_greeting(second.token, said)
    asking.on_answer(second.token, answer, TWO.address, now_s=NOW_S + 1)
    assert asking.members.others == {}
    assert "to something else" in asking.seeds[TWO.address]


# --- anybody ------------------------------------------------------------------------------------------------------------
def test_a_stranger_that_joins_without_the_password_gets_a_reason_and_no_state() -> None:
    node = joined(TWO)
    told = asks(node, replace(EVIL, address=IPv4Address("192.168.56.66")), IPv4Address("192.168.56.66"), GUESS)
    assert isinstance(told.message, kinds.Refuse)
    assert (told.sealed, told.message.reason) == (False, "its password is another one")
    assert node.counters.rejected["other password"] == 1


@pytest.mark.parametrize("keys", [GUESS, OTHER, KEYS])
def test_what_is_sent_in_a_members_name_does_not_make_it_look_refused(keys: Keys) -> None:
    node = joined(TWO, node=agent(seeds=(TWO.address,)))
    node.on_datagram(ping(TWO, ONE), TWO.address, now_s=NOW_S)
    forged = [
        ping(TWO, replace(ONE, life=1), keys),
        sealing.encode(kinds.Refuse("name", "go away"), TWO, keys, to=replace(ONE, life=1)),
        b"rubbish",
    ]
    for data in forged:
        node.on_datagram(data, TWO.address, now_s=NOW_S + 1)
    assert node.peers[TWO.address].state is PeerState.ESTABLISHED
    assert node.council.refused == ""


def test_a_flood_from_many_addresses_is_answered_seldom_and_remembered_little() -> None:
    node = joined(TWO)
    for number in range(3000):
        source = IPv4Address("172.16.0.0") + number
        member = replace(EVIL, address=source)
        for data in (ping(member, replace(ONE, life=1), GUESS), ping(member, ONE, OTHER), b"rubbish"):
            node.on_datagram(data, source, now_s=NOW_S + number / 3000)
    assert len(sent(node)) <= 128
    assert len(node.peers) <= 65
    assert node.counters.rejected["other session"] == node.counters.rejected["other cluster"] == 3000
    assert node.members.others.keys() == {"node2"}


def test_a_flood_from_one_address_is_answered_once_a_second() -> None:
    node = agent()
    for number in range(1000):
        node.on_datagram(ping(TWO, replace(ONE, life=1), GUESS), TWO.address, now_s=NOW_S + number / 1000)
    assert len(sent(node)) == 1


def test_a_refusal_that_is_repeated_is_logged_once() -> None:
    node = agent()
    logged = 0
    for number in range(50):
        asks(node, replace(EVIL, address=TWO.address), TWO.address, GUESS)
        node.on_timer(now_s=NOW_S + number)
        logged += sum(isinstance(effect, PeerChanged) for effect in node.effects())
    assert logged == 1


def test_a_member_that_says_it_has_moved_into_the_pod_range_is_refused_and_stays_where_it_is() -> None:
    node = joined(TWO)
    moved = replace(TWO, address=POD, incarnation=1)
    answer = asks(node, moved, POD).message
    assert isinstance(answer, kinds.Refuse)
    assert node.members.others[TWO.name].address == TWO.address


def test_a_vote_of_another_agent_than_was_asked_is_none() -> None:
    node = joined(TWO)
    heard: list[object] = []
    promise = kinds.Promise(
        epoch=1, granted=True, promised=values.Ballot(1, ""), accepted=None, value=None, reason="", state=STATE
    )
    for sender in (TWO, replace(TWO, name="node3", uid="3" * 16)):
        node._outbox.call(TWO.address, sync(), lambda _who, answer: heard.append(answer), heard.append)
        (call,) = (effect for effect in node.effects() if isinstance(effect, Call))
        node._outbox.answered(call.token, sender, promise)
    assert heard == [promise, "node3 answers there"]
