"""Seals: what was recorded is worth nothing anywhere else, later, or a second time; what the network does is no harm."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.messages import kinds, sessions, wire
from plugin.core.messages.codec import WireError
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.sessions import ENDED_MAX, SESSIONS_MAX, WINDOW, Sessions
from plugin.core.messages.values import Member
from plugin.core.messages.wire import NUMBER_MAX, StrangerError
from tests.support import sealing

KEYS = Keys("lab", IPv4Network("10.32.0.0/12"), "1/6784", "ab" * 32)
ONE = Member("node1", "1" * 16, IPv4Address("192.168.56.11"), 5)
TWO = Member("node2", "2" * 16, IPv4Address("192.168.56.12"), 7)
THREE = Member("node3", "3" * 16, IPv4Address("192.168.56.13"), 9)


def later(member: Member) -> Member:
    """The same agent after a restart."""
    return Member(member.name, member.uid, member.address, member.life + 1)


def said(sender: Sessions, member: Member, to: Member, version: int = 1) -> bytes:
    return sender.seal(Kind.SEEN, wire.body_of(kinds.Seen(version), member), to.session)


def refused(receiver: Sessions, data: bytes) -> str:
    with pytest.raises(StrangerError) as raised:
        receiver.open(data)
    return raised.value.code


def test_what_was_recorded_is_taken_once() -> None:
    one, two = sealing.sessions(KEYS, ONE), sealing.sessions(KEYS, TWO)
    data = said(one, ONE, TWO)
    assert two.open(data).sealed
    assert refused(two, data) == "replay"


def test_what_was_recorded_is_worth_nothing_to_another_agent() -> None:
    assert refused(sealing.sessions(KEYS, THREE), said(sealing.sessions(KEYS, ONE), ONE, TWO)) == "session"


def test_what_was_recorded_is_worth_nothing_after_a_restart_of_its_receiver() -> None:
    data = said(sealing.sessions(KEYS, ONE), ONE, TWO)
    assert refused(sealing.sessions(KEYS, later(TWO)), data) == "session"


def test_what_was_recorded_is_worth_nothing_to_its_sender() -> None:
    assert refused(sealing.sessions(KEYS, ONE), said(sealing.sessions(KEYS, ONE), ONE, TWO)) == "session"


def test_a_tag_that_was_exchanged_does_not_help() -> None:
    """Who listens on the underlay knows how datagrams for an agent begin, and can make them as far as the agent."""
    one, three = sealing.sessions(KEYS, ONE), sealing.sessions(KEYS, THREE)
    data = bytearray(said(one, ONE, TWO))
    data[wire.TAG_OFFSET : wire.TAG_OFFSET + 4] = three.tag
    assert refused(three, bytes(data)) == "password"


def test_the_name_of_another_sender_does_not_help() -> None:
    one, two = sealing.sessions(KEYS, ONE), sealing.sessions(KEYS, TWO)
    data = bytearray(said(one, ONE, TWO))
    data[12:20] = THREE.session
    assert refused(two, bytes(data)) == "password"


def test_what_an_earlier_life_of_the_sender_said_does_not_count_when_its_session_has_ended() -> None:
    living = {THREE.session}
    two = Sessions(KEYS, TWO.session, lambda: living)
    one = sealing.sessions(KEYS, ONE)
    first, second = said(one, ONE, TWO), said(one, ONE, TWO)
    assert two.open(first).sealed
    # ONE goes; so many others come that room is made.
    for number in range(SESSIONS_MAX + 1):
        member = Member("x", f"{number:016x}", ONE.address, 1)
        assert two.open(said(sealing.sessions(KEYS, member), member, TWO)).sealed
    assert refused(two, first) == "replay"
    assert refused(two, second) == "replay", "a session that has ended does not begin again"


def test_the_sessions_of_members_are_kept_when_room_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    one, two = sealing.sessions(KEYS, ONE, TWO), sealing.sessions(KEYS, TWO, ONE)
    first = said(one, ONE, TWO)
    assert two.open(first).sealed
    for number in range(5):
        member = Member("x", f"{number:016x}", ONE.address, 1)
        two.open(said(sealing.sessions(KEYS, member), member, TWO))
        said(one, ONE, member)
    assert two.open(said(one, ONE, TWO)).sealed
    assert refused(two, first) == "replay"


def test_no_number_is_used_twice_also_when_a_receiver_was_forgotten_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    one, two = sealing.sessions(KEYS, ONE), sealing.sessions(KEYS, TWO, ONE)
    assert two.open(said(one, ONE, TWO)).sealed
    for number in range(5):
        said(one, ONE, Member("x", f"{number:016x}", ONE.address, 1))
    assert two.open(said(one, ONE, TWO)).sealed


def test_an_agent_takes_a_new_life_when_it_can_remember_no_more_ends_or_has_no_number_left() -> None:
    one = sealing.sessions(KEYS, ONE)
    assert not one.worn
    one._ended.update(number.to_bytes(8, "big") for number in range(ENDED_MAX))
    assert one.worn
    one.live(later(ONE).session)
    assert not one.worn
    said(one, later(ONE), TWO)
    one._told[TWO.session].number = NUMBER_MAX - 1
    said(one, later(ONE), TWO)
    assert one.worn


def test_with_a_new_life_all_that_was_recorded_is_void() -> None:
    one, two = sealing.sessions(KEYS, ONE), sealing.sessions(KEYS, TWO)
    data = said(one, ONE, TWO)
    two.live(later(TWO).session)
    assert refused(two, data) == "session"
    assert two.open(said(one, ONE, later(TWO))).sealed


def test_order_loss_and_doubling_do_no_harm() -> None:
    one, two = sealing.sessions(KEYS, ONE), sealing.sessions(KEYS, TWO)
    told = [said(one, ONE, TWO, version) for version in range(WINDOW)]
    assert two.open(told[-1]).sealed
    for data in told[1:-1]:
        assert two.open(data).sealed
    for data in told[1:]:
        assert refused(two, data) == "replay"
    said(one, ONE, TWO)
    assert two.open(said(one, ONE, TWO)).sealed
    assert refused(two, told[0]) == "replay", "too late"


def test_an_exchange_does_not_come_as_a_datagram() -> None:
    for kind in (kind for kind in Kind if kind >= Kind.SYNC):
        data = sealing.sealed(kind, b"{}", ONE, KEYS, to=TWO)
        with pytest.raises(WireError, match="does not come as a datagram"):
            sealing.sessions(KEYS, TWO).open(data)


# --- keys ---------------------------------------------------------------------------------------------------------------
def test_every_part_of_the_keys_counts() -> None:
    network = IPv4Network("10.32.0.0/12")
    others = [
        Keys("lab", network, "1/6784", "cd" * 32),
        Keys("lab", network, "1/6784", "AB" * 32),
        Keys("lab", network, "1/6784", "a word"),
        Keys("lab", network, "1/6784"),
        Keys("home", network, "1/6784", "ab" * 32),
        Keys("lab", IPv4Network("10.0.0.0/8"), "1/6784", "ab" * 32),
        Keys("lab", network, "2/6784", "ab" * 32),
    ]
    made = [keys.key(b"purpose", b"bound") for keys in (KEYS, *others)]
    assert len(set(made)) == len(made)
    assert KEYS.key(b"other", b"bound") != made[0] != KEYS.key(b"purpose", b"other")


def test_what_people_choose_is_stretched_and_random_bytes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stretched: list[bytes] = []

    def scrypt(password: bytes, **_how: object) -> bytes:
        stretched.append(password)
        return bytes(32)

    monkeypatch.setattr("plugin.core.messages.keys.scrypt", scrypt)
    for password in ("", "12" * 32, "correct horse", "12" * 31):
        Keys("test stretching", IPv4Network("10.32.0.0/12"), "1/6784", password)
    assert stretched == [b"correct horse", b"12" * 31]
