"""Laws of sessions: whatever a network and an attacker do with datagrams, each is taken at most once, by whom it is for."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.messages import kinds, wire
from plugin.core.messages.codec import WireError
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.sessions import WINDOW, _Heard
from plugin.core.messages.values import Member
from plugin.core.messages.wire import StrangerError
from tests.support import sealing

GATE = settings(max_examples=100, deadline=None)
KEYS = Keys("lab", IPv4Network("10.32.0.0/12"), "1/6784", "ab" * 32)
MEMBERS = [Member(f"node{n}", f"{n:016x}", IPv4Address("192.168.56.10") + n, 1) for n in range(3)]
RESTARTED = [Member(one.name, one.uid, one.address, 2) for one in MEMBERS]
EVERYBODY = MEMBERS + RESTARTED
WHO = st.sampled_from(EVERYBODY)


@GATE
@given(st.lists(st.tuples(WHO, WHO), max_size=20), st.data())
def test_a_datagram_is_taken_by_its_receiver_once_and_by_nobody_else(told, data) -> None:
    sessions = {one: sealing.sessions(KEYS, one) for one in EVERYBODY}
    sent = []
    for sender, to in told:
        body = wire.body_of(kinds.Seen(len(sent)), sender)
        sent.append((sessions[sender].seal(Kind.SEEN, body, to.session), to))
    taken = []
    # In any order, any number of times, to anybody: sessions are those of a moment, or of an agent started anew.
    for index in data.draw(st.lists(st.integers(0, max(0, len(sent) - 1)), max_size=60)) if sent else []:
        datagram, to = sent[index]
        for receiver in EVERYBODY:
            try:
                sessions[receiver].open(datagram)
            except StrangerError:
                continue
            assert receiver == to
            taken.append(index)
    assert len(set(taken)) == len(taken)


@GATE
@given(st.permutations(range(40)), st.sets(st.integers(0, 39)))
def test_whatever_is_lost_the_rest_arrives_in_any_order(order, lost) -> None:
    one, two = (sealing.sessions(KEYS, member) for member in MEMBERS[:2])
    sent = [one.seal(Kind.SEEN, wire.body_of(kinds.Seen(n), MEMBERS[0]), MEMBERS[1].session) for n in range(len(order))]
    for number in order:
        if number not in lost:
            assert two.open(sent[number]).sealed


@GATE
@given(st.lists(st.integers(1, 4 * WINDOW), max_size=200))
def test_the_window_takes_what_a_set_would_take(numbers) -> None:
    heard, seen = _Heard(b""), set()
    for number in numbers:
        newest = max(seen, default=0)
        expected = number not in seen and newest - number < WINDOW
        assert heard.takes(number) == expected
        if expected:
            seen.add(number)


@GATE
@given(WHO, WHO, st.data())
def test_one_changed_bit_is_found_out(sender, to, data) -> None:
    body = wire.body_of(kinds.Seen(1), sender)
    datagram = bytearray(sealing.sessions(KEYS, sender).seal(Kind.SEEN, body, to.session))
    place = data.draw(st.integers(0, 8 * len(datagram) - 1))
    datagram[place // 8] ^= 1 << place % 8
    try:
        opened = sealing.sessions(KEYS, to).open(bytes(datagram))
    except WireError:
        return
    assert opened.head.kind is Kind.REFUSE
    assert not opened.sealed
