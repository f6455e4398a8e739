"""The ring: who owns which part of the range, what may be merged into it, and how it changes hands."""

from ipaddress import IPv4Address, IPv4Network
from time import process_time

import pytest

from plugin.core.ipam.ring import EPOCH_BITS, Ring, RingError
from plugin.core.ipam.shares import Share
from plugin.core.messages.values import NOBODY, VERSION_MAX, Segment

RANGE = IPv4Network("10.32.0.0/24")
START = int(RANGE.network_address)
EPOCH = 1 << EPOCH_BITS
ANN, BOB, EVE = (digit * 16 for digit in "abe")


def segment(first: int, last: int, version: int, owner: str) -> Segment:
    return Segment(START + first, START + last, version, owner)


def share(first: int, last: int) -> Share:
    return Share(RANGE[first], RANGE[last])


def ring(*segments: Segment) -> Ring:
    made = Ring(RANGE)
    made.merge(segments)
    return made


def test_a_segment_is_shown_by_its_first_and_last_address() -> None:
    whole = segment(0, 255, 1, ANN)
    assert str(whole) == "10.32.0.0-10.32.0.255"
    assert whole.size == 256
    assert RANGE[255] in whole
    assert START + 256 not in whole


def test_at_first_nobody_owns_anything() -> None:
    empty = Ring(RANGE)
    assert empty.is_empty
    assert empty.segments == (segment(0, 255, 0, NOBODY),)
    assert empty.owners() == {}
    assert empty.network == RANGE


def test_neighbours_of_one_owner_and_version_are_one_segment() -> None:
    made = ring(segment(0, 9, 1, ANN), segment(10, 19, 1, ANN))
    assert made.segments == (segment(0, 19, 1, ANN), segment(20, 255, 0, NOBODY))
    assert not made.is_empty


def test_neighbours_of_one_owner_are_one_share_whatever_their_versions() -> None:
    made = ring(segment(0, 9, 1, ANN), segment(10, 19, 2, ANN), segment(30, 39, 1, ANN))
    assert made.owned_by(ANN) == (share(0, 19), share(30, 39))
    assert made.owners() == {ANN: 30}


def test_outside_the_range_nobody_owns_anything() -> None:
    made = ring(segment(0, 255, 3, ANN))
    for stranger in (IPv4Address("10.31.255.255"), IPv4Address("10.32.1.0")):
        assert made.owner_of(stranger) == NOBODY
        assert made.version_of(stranger) == 0


def test_the_higher_version_wins_and_only_what_has_changed_is_returned() -> None:
    made = ring(segment(0, 99, 5, ANN))
    assert made.merge([segment(50, 120, 4, BOB)]) == (segment(100, 120, 4, BOB),)
    assert made.merge([segment(50, 59, 6, BOB)]) == (segment(50, 59, 6, BOB),)
    assert made.segments == (
        segment(0, 49, 5, ANN),
        segment(50, 59, 6, BOB),
        segment(60, 99, 5, ANN),
        segment(100, 120, 4, BOB),
        segment(121, 255, 0, NOBODY),
    )


def test_what_is_known_already_changes_nothing() -> None:
    made = ring(segment(0, 99, 5, ANN))
    before = made.fingerprint
    assert made.merge(made.segments) == ()
    assert made.merge([]) == ()
    assert made.fingerprint == before


def test_a_change_changes_the_fingerprint_and_the_way_back_is_no_other_ring() -> None:
    made = ring(segment(0, 99, 5, ANN))
    before = made.fingerprint
    made.merge([segment(7, 7, 6, BOB)])
    assert made.fingerprint != before
    assert made.fingerprint == ring(*made.segments).fingerprint
    assert 0 <= made.fingerprint < 1 << 64


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ([segment(-1, 9, 1, ANN)], "not inside the pod range"),
        ([segment(250, 256, 1, ANN)], "not inside the pod range"),
        ([segment(9, 8, 1, ANN)], "not inside the pod range"),
        ([segment(10, 19, 1, ANN), segment(0, 9, 1, ANN)], "begins before 10.32.0.20"),
        ([segment(0, 9, 1, ANN), segment(9, 19, 1, BOB)], "begins before 10.32.0.10"),
        ([segment(0, 9, 1, "ann")], "16 hex digits, found 'ann'"),
        ([segment(0, 9, 1, "A" * 16)], "16 hex digits"),
        ([segment(0, 9, 1, ANN + "\n")], "16 hex digits"),
        ([segment(0, 9, -1, ANN)], "has version -1"),
        ([segment(0, 9, VERSION_MAX + 1, ANN)], "has version"),
        ([segment(0, 9, 0, ANN)], f"of {ANN} has version 0"),
        ([segment(0, 9, 1, NOBODY)], "of nobody has version 1"),
    ],
)
def test_segments_that_cannot_be_are_refused_and_change_nothing(wrong: list[Segment], sentence: str) -> None:
    made = ring(segment(0, 99, 5, ANN))
    before = made.segments
    with pytest.raises(RingError, match=sentence):
        made.merge(wrong)
    assert made.segments == before


def test_a_good_segment_before_a_bad_one_changes_nothing_either() -> None:
    made = Ring(RANGE)
    with pytest.raises(RingError):
        made.merge([segment(0, 9, 1, ANN), segment(250, 256, 1, ANN)])
    assert made.is_empty


def test_gifts_of_a_frozen_owner_count_no_more_but_a_higher_epoch_does() -> None:
    made = ring(segment(0, 99, 5, ANN))
    assert made.merge([segment(0, 9, 6, BOB)], frozen={ANN}) == ()
    assert made.merge([segment(100, 109, 1, BOB)], frozen={ANN}) == (segment(100, 109, 1, BOB),)
    assert made.merge([segment(0, 9, EPOCH, BOB)], frozen={ANN}) == (segment(0, 9, EPOCH, BOB),)


def test_two_owners_at_one_version_are_reported_where_they_overlap() -> None:
    made = ring(segment(0, 99, 5, ANN), segment(100, 199, 7, BOB))
    assert made.conflicts([segment(90, 110, 5, EVE)]) == (segment(90, 99, 5, EVE),)
    assert made.conflicts([segment(0, 99, 5, ANN), segment(100, 199, 8, EVE), segment(200, 255, 0, NOBODY)]) == ()


def test_a_gift_raises_the_version_of_every_part() -> None:
    made = ring(segment(0, 9, 1, ANN), segment(10, 19, 4, ANN), segment(20, 29, 2, ANN))
    given = made.grant(ANN, BOB, [share(25, 26), share(5, 12)])
    assert given == (segment(5, 12, 5, BOB), segment(25, 26, 3, BOB))
    assert made.owned_by(BOB) == (share(5, 12), share(25, 26))
    assert made.owned_by(ANN) == (share(0, 4), share(13, 24), share(27, 29))


@pytest.mark.parametrize(
    "part", [share(5, 12), share(200, 210), Share(IPv4Address("10.33.0.0"), IPv4Address("10.33.0.1"))]
)
def test_nobody_can_give_what_it_does_not_own(part: Share) -> None:
    made = ring(segment(0, 9, 1, ANN), segment(10, 19, 1, BOB))
    before = made.segments
    with pytest.raises(AssertionError):
        made.grant(ANN, EVE, [share(0, 1), part])
    assert made.segments == before


def test_an_heir_gets_everything_at_the_next_epoch_and_the_ring_is_not_changed_by_asking() -> None:
    made = ring(segment(0, 9, 7, ANN), segment(10, 19, 1, BOB), segment(20, 29, 3 * EPOCH + 8, ANN))
    before = made.segments
    assert made.inherit(ANN, EVE) == (segment(0, 9, EPOCH, EVE), segment(20, 29, 4 * EPOCH, EVE))
    assert made.segments == before


def test_a_late_gift_of_the_dead_loses_against_the_heir() -> None:
    late, made = ring(segment(0, 99, 5, ANN)), ring(segment(0, 99, 5, ANN))
    gift = late.grant(ANN, BOB, [share(0, 9)])
    made.merge(made.inherit(ANN, EVE))
    assert made.merge(gift) == ()
    assert made.owned_by(EVE) == (share(0, 99),)


def test_neighbours_with_different_versions_become_one_by_their_owners_hand() -> None:
    made = ring(segment(0, 9, 1, ANN), segment(10, 19, EPOCH, ANN), segment(20, 29, 9, BOB), segment(40, 49, 3, ANN))
    assert made.compact(ANN) == (segment(0, 19, EPOCH + 1, ANN),)
    assert made.compact(ANN) == ()
    assert made.segments[0] == segment(0, 19, EPOCH + 1, ANN)


def test_the_first_agreement_gives_equal_shares_in_the_order_of_the_members() -> None:
    made = Ring(RANGE)
    first = made.found([BOB, ANN, BOB])
    assert first == (segment(0, 127, 1, BOB), segment(128, 255, 1, ANN))
    assert made.is_empty


def test_shares_of_a_large_range_start_at_a_readable_address() -> None:
    large = Ring(IPv4Network("10.32.0.0/12"))
    assert [str(part) for part in large.found([ANN, BOB, EVE])] == [
        "10.32.0.0-10.37.84.255",
        "10.37.85.0-10.42.169.255",
        "10.42.170.0-10.47.255.255",
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_only_as_many_members_get_a_share_as_can_have_four_addresses(count: int) -> None:
    small = Ring(IPv4Network("10.0.0.0/29"))
    first = small.found([f"{number:016x}" for number in range(1, count + 1)])
    assert len(first) == min(count, 2)
    assert all(part.size >= 4 for part in first)
    assert sum(part.size for part in first) == (8 if count else 0)
    small.merge(first)


def test_a_ring_of_five_thousand_segments_is_quick_to_merge() -> None:
    large = Ring(IPv4Network("10.32.0.0/12"))
    base = int(large.network.network_address)
    large.merge(Segment(base + 200 * n, base + 200 * n + 199, 1, (ANN, BOB)[n % 2]) for n in range(5000))
    started_s = process_time()
    assert large.merge(large.segments) == ()
    equal_s = process_time() - started_s
    for number in range(1000):
        large.merge([Segment(base + 200 * number + 7, base + 200 * number + 8, 2, EVE)])
    deltas_s = process_time() - started_s - equal_s
    assert len(large.segments) == 7001
    # Ten times what they take on an idle machine: a list walked once for every segment takes a hundred times as much.
    assert equal_s < 0.1
    assert deltas_s < 0.5
