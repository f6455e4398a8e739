"""One decree an epoch: who must agree, what is promised and accepted, and that no two values are ever decided."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.ipam import synod
from plugin.core.ipam.synod import NO_BALLOT, Quorum, Round, Voted
from plugin.core.messages.values import Ballot, Origin, Seat, Value

ANN, BOB, CAT, DAN, EVE = (digit * 16 for digit in "abcde")
EVERYBODY = (ANN, BOB, CAT, DAN, EVE)


def value(name: str) -> Value:
    return Value((Seat(ANN, name, IPv4Address("192.168.56.11")),), (), ())


RED, BLUE, GREEN = value("red"), value("blue"), value("green")


def attempt(number: int = 1, uid: str = ANN, seats: tuple[str, ...] = EVERYBODY[:3], chosen: Value = RED) -> Round:
    return Round(1, Ballot(number, uid), synod.majority(seats), (), lambda: chosen, 9.0)


# --- quorums ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("seats", "count"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_more_than_half_of_the_seats(seats: int, count: int) -> None:
    quorum = synod.majority(EVERYBODY[:seats])
    assert not quorum.met(EVERYBODY[: count - 1])
    assert quorum.met(EVERYBODY[:count])


def test_who_has_no_seat_does_not_count_and_nobody_counts_twice() -> None:
    quorum = synod.majority([ANN, BOB, CAT])
    assert not quorum.met([ANN, DAN, EVE])
    assert not quorum.met([ANN, ANN])
    assert quorum.missing([ANN, DAN]) == {BOB, CAT}


def test_a_removal_needs_all_who_are_left() -> None:
    quorum = synod.survivors(EVERYBODY, [EVE, DAN])
    assert quorum is not None
    assert not quorum.met([ANN, BOB, EVE])
    assert quorum.met([ANN, BOB, CAT])
    assert quorum.missing([ANN]) == {BOB, CAT}


@pytest.mark.parametrize(
    ("seats", "dead", "possible"),
    [
        (1, 1, False),
        (2, 1, True),
        (2, 2, False),
        (3, 1, True),
        (3, 2, False),
        (4, 2, True),
        (5, 2, True),
        (5, 3, False),
    ],
)
def test_fewer_than_half_cannot_remove_the_others(seats: int, dead: int, *, possible: bool) -> None:
    assert (synod.survivors(EVERYBODY[:seats], EVERYBODY[:dead]) is not None) == possible


def test_who_has_no_seat_cannot_be_missed() -> None:
    assert synod.survivors([ANN, BOB], [EVE]) == Quorum(2, frozenset({ANN, BOB}))


@given(st.integers(1, 5), st.sets(st.sampled_from(EVERYBODY)), st.sets(st.sampled_from(EVERYBODY)), st.data())
def test_two_quorums_have_a_member_in_common(count, dead, some, data) -> None:
    """The dead never speak again, so what any majority agreed to is known to one who is left."""
    seats = EVERYBODY[:count]
    majority = synod.majority(seats)
    others = data.draw(st.sets(st.sampled_from(seats)))
    if majority.met(some) and majority.met(others):
        assert set(some) & others & set(seats)
    left = synod.survivors(seats, dead)
    if left is not None and majority.met(some):
        assert left.of is not None
        assert set(some) & left.of


def test_for_the_first_decree_anybody_counts() -> None:
    quorum = Quorum(2)
    assert not quorum.met([ANN])
    assert quorum.met([ANN, EVE])
    assert quorum.missing([ANN]) == frozenset()


def test_a_recovery_takes_all_who_are_left_however_few() -> None:
    assert synod.everybody_but(EVERYBODY, EVERYBODY[1:]) == Quorum(1, frozenset({ANN}))
    assert not synod.everybody_but(EVERYBODY, EVERYBODY[2:]).met([ANN])


# --- acceptors --------------------------------------------------------------------------------------------------------
def test_a_promise_is_kept_against_lower_ballots_and_not_against_higher_ones() -> None:
    voted = synod.promise(Voted(1), Ballot(5, BOB), ())
    assert voted == Voted(1, Ballot(5, BOB))
    assert synod.promise(voted, Ballot(4, EVE), ()) is None
    assert synod.promise(voted, Ballot(5, ANN), ()) is None
    assert synod.accept(voted, Ballot(4, EVE), RED) is None
    assert synod.promise(voted, Ballot(5, CAT), ()) == Voted(1, Ballot(5, CAT))


def test_a_message_that_comes_twice_gets_the_same_answer() -> None:
    voted = synod.promise(Voted(1), Ballot(5, BOB), (EVE,))
    assert voted is not None
    assert synod.promise(voted, Ballot(5, BOB), (EVE,)) == voted
    accepted = synod.accept(voted, Ballot(5, BOB), RED)
    assert accepted is not None
    assert synod.accept(accepted, Ballot(5, BOB), RED) == accepted


def test_what_was_accepted_is_told_with_the_next_promise() -> None:
    voted = synod.accept(Voted(1), Ballot(5, BOB), RED)
    assert voted == Voted(1, Ballot(5, BOB), Ballot(5, BOB), RED)
    later = synod.promise(voted, Ballot(6, ANN), ())
    assert later == Voted(1, Ballot(6, ANN), Ballot(5, BOB), RED)


def test_a_higher_ballot_is_accepted_without_a_promise_and_binds_like_one() -> None:
    voted = synod.accept(Voted(1, Ballot(5, BOB)), Ballot(6, ANN), BLUE)
    assert voted is not None
    assert voted.promised == Ballot(6, ANN)
    assert synod.promise(voted, Ballot(5, EVE), ()) is None


def test_whose_removal_was_promised_stays_frozen() -> None:
    voted = synod.promise(Voted(1), Ballot(1, ANN), (EVE, DAN))
    assert voted is not None
    voted = synod.promise(voted, Ballot(2, BOB), (CAT, DAN))
    assert voted is not None
    assert voted.frozen == (CAT, DAN, EVE)
    accepted = synod.accept(voted, Ballot(2, BOB), RED)
    assert accepted is not None
    assert accepted.frozen == (CAT, DAN, EVE)
    assert synod.promise(accepted, Ballot(1, ANN), (ANN,)) is None


def test_every_ballot_of_an_agent_is_above_none() -> None:
    assert NO_BALLOT < Ballot(0, "0" * 15 + "1") < Ballot(1, "0" * 16)


# --- proposers --------------------------------------------------------------------------------------------------------
def test_a_proposer_that_nobody_binds_chooses_when_the_quorum_is_there() -> None:
    made = attempt()
    assert not made.on_promise(ANN, None, None)
    assert made.value is None
    assert made.on_promise(BOB, None, None)
    assert made.value == RED
    assert not made.on_promise(CAT, None, None)


def test_a_value_that_may_have_been_decided_is_proposed_again() -> None:
    made = attempt(number=9)
    made.on_promise(ANN, None, None)
    assert made.on_promise(BOB, Ballot(3, CAT), BLUE)
    assert made.value == BLUE


def test_of_several_bound_values_the_one_of_the_highest_ballot_counts() -> None:
    made = attempt(number=9, seats=EVERYBODY)
    made.on_promise(ANN, Ballot(3, EVE), BLUE)
    made.on_promise(BOB, Ballot(4, ANN), GREEN)
    assert made.on_promise(CAT, Ballot(3, CAT), RED)
    assert made.value == GREEN


def test_a_late_promise_does_not_change_what_is_proposed() -> None:
    made = attempt(number=9)
    made.on_promise(ANN, None, None)
    made.on_promise(BOB, None, None)
    assert not made.on_promise(CAT, Ballot(8, CAT), BLUE)
    assert made.value == RED


def test_before_a_recovery_everybody_who_answers_has_said_what_it_knows() -> None:
    made = Round(1, Ballot(1, ANN), synod.everybody_but(EVERYBODY[:3], (BOB, CAT)), (BOB, CAT), lambda: RED, 9.0)
    made.unheard = {DAN, EVE}
    assert not made.on_promise(ANN, None, None)
    assert made.waiting_for({ANN: "ann", DAN: "dan"}) == f"dan, {EVE}"
    assert not made.on_witness(DAN)
    assert made.on_witness(EVE)
    assert made.value == RED
    assert not made.on_witness(EVE), "that is over"


def test_a_recovery_is_bound_by_a_recovery_and_by_no_ordinary_decree() -> None:
    begun = Value((), (), (), (Origin("1" * 16, 4, ()),))
    made = attempt(number=9)
    made.recovering = True
    made.on_promise(ANN, Ballot(5, BOB), GREEN)
    assert made.on_promise(BOB, Ballot(3, CAT), begun)
    assert (made.value, made.bound) == (begun, True)
    fresh = attempt(number=9)
    fresh.recovering = True
    fresh.on_promise(ANN, Ballot(5, BOB), GREEN)
    assert fresh.on_promise(BOB, None, None)
    assert (fresh.value, fresh.bound) == (RED, False)


def test_promises_of_strangers_and_repeated_ones_do_not_complete_the_first_phase() -> None:
    made = attempt()
    assert not any(made.on_promise(uid, None, None) for uid in (ANN, ANN, DAN, EVE))
    assert made.value is None


def test_a_value_is_decided_once_when_the_quorum_has_accepted_it() -> None:
    made = attempt()
    for uid in (ANN, BOB):
        made.on_promise(uid, None, None)
    assert not made.on_accepted(ANN)
    assert not made.on_accepted(EVE)
    assert not made.decided
    assert made.on_accepted(CAT)
    assert made.decided
    assert not made.on_accepted(BOB)


def test_a_refused_proposer_learns_the_highest_ballot_and_the_reasons() -> None:
    made = attempt()
    made.on_refused(BOB, Ballot(7, BOB), "busy")
    made.on_refused(CAT, Ballot(5, EVE), "")
    assert made.highest == Ballot(7, BOB)
    assert made.refusals == {BOB: "busy", CAT: ""}


def test_people_are_told_by_name_who_has_not_agreed() -> None:
    made = attempt()
    assert made.waiting_for({ANN: "node1", BOB: "node2"}) == f"{CAT}, node1, node2"
    made.on_promise(ANN, None, None)
    assert made.waiting_for({BOB: "node2", CAT: "node3"}) == "node2, node3"
    made.on_promise(BOB, None, None)
    made.on_accepted(BOB)
    assert made.waiting_for({ANN: "node1", CAT: "node3"}) == "node1, node3"


def test_of_many_that_have_not_agreed_five_are_named() -> None:
    seats = tuple(f"{number:016x}" for number in range(1, 9))
    names = {uid: f"node{number}" for number, uid in enumerate(seats, 1)}
    assert attempt(seats=seats).waiting_for(names) == "node1, node2, node3, node4, node5 and 3 more"


def test_for_the_first_decree_people_are_told_how_many_are_missing() -> None:
    made = Round(1, Ballot(1, ANN), Quorum(2), (), lambda: RED, 9.0)
    assert made.waiting_for({}) == "2 more"
    made.on_promise(ANN, None, None)
    assert made.waiting_for({}) == "1 more"


# --- the one law ------------------------------------------------------------------------------------------------------
@dataclass
class Assembly:
    """Acceptors, proposers and the messages between them, which arrive in any order, twice or never."""

    seats: tuple[str, ...]
    proposers: int
    voted: dict[str, Voted] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    current: dict[int, Round] = field(default_factory=dict)
    messages: list[tuple[str, int, str, object]] = field(default_factory=list)
    decided: list[Value] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.voted = {uid: Voted(1) for uid in self.seats}

    def propose(self, proposer: int, dead: frozenset[str]) -> None:
        """A new attempt, above all that this proposer has heard of; it begins with a question to everybody."""
        before = self.current.get(proposer)
        number = 1 if before is None else max(before.ballot.number, before.highest.number) + 1
        uid = self.seats[proposer]
        quorum = synod.survivors(self.seats, dead) if dead else synod.majority(self.seats)
        assert quorum is not None
        made = Round(1, Ballot(number, uid), quorum, tuple(dead), lambda: value(f"{uid[0]}{number}"), 9.0)
        self.current[proposer] = made
        self.rounds.append(made)
        index = len(self.rounds) - 1
        self.messages += [("prepare", index, seat, None) for seat in self.seats]

    def deliver(self, place: int, *, again: bool, dead: frozenset[str]) -> None:
        """One message of those under way; the dead neither hear nor speak."""
        if not self.messages:
            return
        place %= len(self.messages)
        kind, index, uid, content = self.messages[place]
        if not again:
            del self.messages[place]
        if uid in dead:
            return
        made = self.rounds[index]
        if kind in {"prepare", "accept"}:
            self._at_acceptor(kind, index, uid, content)
        elif isinstance(content, Ballot):
            made.on_refused(uid, content, "")
        else:
            assert isinstance(content, Voted)
            self._at_proposer(kind, index, uid, content)

    def _at_acceptor(self, kind: str, index: int, uid: str, content: object) -> None:
        made = self.rounds[index]
        if kind == "prepare":
            self._answer("promise", index, uid, synod.promise(self.voted[uid], made.ballot, made.removing))
        else:
            assert isinstance(content, Value)
            self._answer("accepted", index, uid, synod.accept(self.voted[uid], made.ballot, content))

    def _at_proposer(self, kind: str, index: int, uid: str, content: Voted) -> None:
        made = self.rounds[index]
        if kind == "promise":
            if made.on_promise(uid, content.accepted, content.value):
                self.messages += [("accept", index, seat, made.value) for seat in self.seats]
        elif made.on_accepted(uid):
            assert made.value is not None
            self.decided.append(made.value)

    def _answer(self, kind: str, index: int, uid: str, voted: Voted | None) -> None:
        if voted is None:
            self.messages.append(("refused", index, uid, self.voted[uid].promised))
        else:
            assert self.voted[uid].promised <= voted.promised
            self.voted[uid] = voted
            self.messages.append((kind, index, uid, voted))


STEP = st.tuples(st.integers(0, 9), st.integers(0, 10_000), st.booleans())


@settings(max_examples=300, deadline=None)
@given(st.integers(3, 5), st.lists(STEP, min_size=20, max_size=150), st.integers(0, 150), st.integers(0, 2))
def test_at_most_one_value_is_ever_decided(count, steps, death, dying) -> None:
    """At `death` some seats that do not propose die for good; from then on proposals remove them."""
    assembly = Assembly(EVERYBODY[:count], 2)
    seats = assembly.seats
    dead: frozenset[str] = frozenset()
    for number, (action, place, again) in enumerate(steps):
        if number == death:
            dead = frozenset(seats[count - min(dying, count // 2) :])
        if action == 0 or not assembly.messages:
            assembly.propose(place % 2, dead - set(seats[:2]))
        else:
            assembly.deliver(place, again=again and action == 1, dead=dead)
        assert len({repr(chosen) for chosen in assembly.decided}) <= 1


@settings(max_examples=100, deadline=None)
@given(st.integers(3, 5), st.lists(STEP, max_size=100))
def test_whatever_happened_one_undisturbed_attempt_decides_what_was_decided_before(count, steps) -> None:
    assembly = Assembly(EVERYBODY[:count], 2)
    for action, place, again in steps:
        if action == 0 or not assembly.messages:
            assembly.propose(place % 2, frozenset())
        else:
            assembly.deliver(place, again=again, dead=frozenset())
    assembly.messages.clear()
    before = set(map(repr, assembly.decided))
    made = Round(1, Ballot(1000, ANN), synod.majority(assembly.seats), (), lambda: GREEN, 9.0)
    assembly.rounds.append(made)
    assembly.messages = [("prepare", len(assembly.rounds) - 1, seat, None) for seat in assembly.seats]
    while assembly.messages:
        assembly.deliver(0, again=False, dead=frozenset())
    assert made.decided
    assert before <= {repr(made.value)}
