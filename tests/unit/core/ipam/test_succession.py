"""Two rings meet: which of two agents goes over to the other's, and who is refused on both sides."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.core.ipam import succession
from plugin.core.ipam.succession import Meeting, meet
from plugin.core.messages.values import Origin, RingState, Seat, Segment, Value

ANN, BOB, CAT, DAN, EVE = (digit * 16 for digit in "abcde")
OLD, NEW, OTHER = "1" * 16, "2" * 16, "3" * 16


def seat(uid: str) -> Seat:
    return Seat(uid, f"node-{uid[0]}", IPv4Address("192.168.56.10"))


def seats(*uids: str) -> tuple[Seat, ...]:
    return tuple(seat(uid) for uid in uids)


BEFORE = RingState(OLD, 4, seats(ANN, BOB, CAT), (), ())
AFTER = RingState(NEW, 5, seats(ANN), (BOB, CAT), (), (Origin(OLD, 4, seats(BOB, CAT)),))


@pytest.mark.parametrize(
    ("theirs", "whose", "expected"),
    [
        (BEFORE, ANN, Meeting.AHEAD),
        (BEFORE, BOB, Meeting.FORGOTTEN),
        (BEFORE, EVE, Meeting.AHEAD),  # it has no seat in the old ring, so nothing of it is its own
        (RingState(OLD, 5, seats(ANN, BOB, CAT, EVE), (), ()), EVE, Meeting.FORGOTTEN),  # those given up seated it
        (RingState(OLD, 5, seats(ANN, BOB, CAT), (), ()), ANN, Meeting.FORGOTTEN),  # it went on with them
        (RingState(OTHER, 9, seats(ANN), (), ()), ANN, Meeting.APART),
        (RingState(OTHER, 5, seats(BOB), (ANN, CAT), (), AFTER.origins), BOB, Meeting.APART),  # both were recovered
    ],
)
def test_each_side_sees_the_same_meeting(theirs: RingState, whose: str, expected: Meeting) -> None:
    mirrored = {Meeting.AHEAD: Meeting.TAKE, Meeting.FORGOTTEN: Meeting.LOST}
    assert meet(AFTER, ANN, theirs, whose) is expected
    assert meet(theirs, whose, AFTER, ANN) is mirrored.get(expected, expected)


def test_only_who_is_refused_is_given_a_reason_and_told_what_to_do() -> None:
    for meeting in Meeting:
        sentence = succession.sentence(meeting, OLD, NEW)
        assert bool(sentence) == (meeting in {Meeting.LOST, Meeting.FORGOTTEN})
        assert not sentence or "weave reset" in sentence


def test_a_ring_that_was_recovered_twice_is_known_by_all_that_it_came_from() -> None:
    again = RingState(OTHER, 9, seats(ANN, DAN), (BOB, CAT), (), (*AFTER.origins, Origin(NEW, 8, seats(EVE))))
    assert meet(RingState(NEW, 8, seats(ANN, DAN, EVE), (), ()), DAN, again, ANN) is Meeting.TAKE
    assert meet(RingState(NEW, 8, seats(ANN, DAN, EVE), (), ()), EVE, again, ANN) is Meeting.LOST
    assert meet(BEFORE, BOB, again, ANN) is Meeting.LOST


SEGMENTS = st.lists(
    st.builds(Segment, st.integers(0, 9), st.integers(10, 19), st.integers(1, 9), st.just(ANN)), max_size=2
)
VALUES = st.builds(
    lambda uids, segments, epoch: Value(
        seats(*sorted(uids)),
        tuple(sorted({ANN, BOB, CAT, DAN} - uids)),
        tuple(segments),
        (Origin(OLD, epoch, seats(*sorted({ANN, BOB, CAT, DAN} - uids))),),
    ),
    st.sets(st.sampled_from([ANN, BOB, CAT, DAN]), min_size=1),
    SEGMENTS,
    st.integers(1, 3),
)


@given(VALUES, VALUES)
def test_two_decrees_begin_rings_of_the_same_name_only_when_they_are_the_same(one: Value, other: Value) -> None:
    assert (succession.name_of(one) == succession.name_of(other)) == (one == other)
    assert len(succession.name_of(one)) == 16
