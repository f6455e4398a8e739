"""The table of members when nodes get other addresses: who is where, and whose news hold."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from plugin.core.membership.members import Members
from plugin.core.messages.values import Member, MemberState

ME = Member("me", "0" * 16, IPv4Address("192.168.56.10"), 1)
ANN = Member("ann", "a" * 16, IPv4Address("192.168.56.11"), 100)
BOB = Member("bob", "b" * 16, IPv4Address("192.168.56.12"), 200)
FRESH = IPv4Address("192.168.56.50")


def moved(member: Member, address: IPv4Address, **other: object) -> Member:
    return replace(member, address=address, incarnation=member.incarnation + 1, **other)  # type: ignore[arg-type]


@pytest.fixture
def members() -> Members:
    made = Members(ME)
    made.merge([ANN, BOB])
    return made


@pytest.mark.parametrize(
    ("change", "is_move"),
    [
        ({}, True),
        ({"state": MemberState.SUSPECT}, True),
        ({"state": MemberState.LEFT}, False),
        ({"life": 101}, False),
        ({"uid": "c" * 16}, False),
        ({"incarnation": 0}, False),
        ({"address": ANN.address}, False),
        ({"name": "eve"}, False),
    ],
    ids=str,
)
def test_a_move_is_said_in_the_same_life_with_a_later_incarnation(
    members: Members, change: dict[str, object], *, is_move: bool
) -> None:
    record = replace(moved(ANN, FRESH), **change)  # type: ignore[arg-type]
    assert members.has_moved(record) is is_move


def test_a_move_holds_when_it_is_proved(members: Members) -> None:
    before, version = members.digest, members.version
    assert members.learn(moved(ANN, FRESH)) is None
    assert (members.at(ANN.address), members.digest) == (ANN, before)
    assert members.learn(moved(ANN, FRESH), proved=True) == moved(ANN, FRESH)
    assert members.at(FRESH) == moved(ANN, FRESH)
    assert members.at(ANN.address) is None
    assert members.digest != before
    assert members.version > version


def test_the_later_of_two_at_one_address_has_it_and_the_other_stays_until_it_says_where_it_is(members: Members) -> None:
    ann = moved(ANN, BOB.address)
    members.learn(ann, proved=True)
    assert members.at(BOB.address) == ann
    assert members.others["bob"] == BOB
    suspected = replace(BOB, state=MemberState.SUSPECT)
    assert members.learn(suspected) == suspected
    assert members.at(BOB.address) == ann, "news of the other do not give it back"
    bob = moved(BOB, ANN.address)
    members.learn(bob, proved=True)
    assert (members.at(ANN.address), members.at(BOB.address)) == (bob, ann)


def test_who_is_heard_by_nobody_and_has_no_place_is_dropped_everywhere(members: Members) -> None:
    ann, gone = moved(ANN, BOB.address), replace(BOB, state=MemberState.FAILED)
    members.learn(ann, proved=True)
    assert members.learn(gone) == gone
    assert "bob" not in members.others
    assert members.learn(gone) is None, "nor does it come back by others who have not dropped it yet"
    later = Members(ME)
    later.merge([gone, BOB, ann])
    assert later.others == members.others
    assert later.digest == members.digest


def test_who_comes_back_to_an_address_that_is_vacated_has_it_again(members: Members) -> None:
    ann = moved(ANN, BOB.address)
    members.learn(ann, proved=True)
    members.learn(moved(ann, FRESH), proved=True)
    assert members.at(BOB.address) == BOB


def test_this_agent_moves_with_its_next_incarnation_and_tells(members: Members) -> None:
    while members.has_news:
        members.news(5)
    members.move(FRESH)
    assert members.me == moved(ME, FRESH)
    assert moved(ME, FRESH) in members.news(5)


def test_a_rumour_of_this_agent_at_its_former_address_changes_nothing(members: Members) -> None:
    members.move(FRESH)
    members.learn(replace(ME, state=MemberState.FAILED))
    assert members.me == moved(ME, FRESH)
