"""The ring's laws, against the plainest model there is: a table of (version, owner) by address."""

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.ipam.ring import EPOCH_BITS, Ring
from plugin.core.ipam.shares import Share
from plugin.core.messages.values import NOBODY, Segment

GATE = settings(max_examples=150, deadline=None)
RANGE = IPv4Network("10.0.0.0/26")
FIRST, LAST = int(RANGE.network_address), int(RANGE.broadcast_address)
OWNERS = ["a" * 16, "b" * 16, "c" * 16]
VERSIONS = st.builds(lambda epoch, count: (epoch << EPOCH_BITS) + count, st.integers(0, 2), st.integers(1, 3))

Table = dict[int, tuple[int, str]]


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    """In order, with gaps, not always in the fewest pieces."""
    cuts = sorted(draw(st.sets(st.integers(FIRST, LAST + 1), max_size=12)))
    found = []
    for start, end in pairwise(cuts):
        kind = draw(st.sampled_from([*OWNERS, NOBODY, None]))
        if kind is not None:
            found.append(Segment(start, end - 1, draw(VERSIONS) if kind else 0, kind))
    return found


def ring(*parts: list[Segment]) -> Ring:
    made = Ring(RANGE)
    for part in parts:
        made.merge(part)
    return made


def table(made: Ring) -> Table:
    return {address: (made.version_of(address), made.owner_of(address)) for address in range(FIRST, LAST + 1)}


def said(part: list[Segment] | tuple[Segment, ...]) -> Table:
    return {number: (one.version, one.owner) for one in part for number in range(one.first, one.last + 1)}


def assert_canonical(made: Ring) -> None:
    assert made.segments[0].first == FIRST
    assert made.segments[-1].last == LAST
    for left, right in pairwise(made.segments):
        assert left.last + 1 == right.first
        assert (left.version, left.owner) != (right.version, right.owner)
    assert said(made.segments) == table(made)
    assert made.is_empty == (not made.owners())


@GATE
@given(segments(), segments())
def test_merging_takes_the_later_of_every_address_and_says_what_has_changed(one, other) -> None:
    made = ring(one)
    before = table(made)
    changed = made.merge(other)
    after = before | {number: max(before[number], entry) for number, entry in said(other).items()}
    assert table(made) == after
    assert said(changed) == {number: entry for number, entry in after.items() if entry != before[number]}
    assert_canonical(made)


@GATE
@given(segments(), segments(), segments())
def test_merging_is_commutative_associative_and_idempotent(one, two, three) -> None:
    together = ring(one, two, three)
    assert ring(three, one, two, one).segments == together.segments
    right = ring(two, three)
    assert ring(one, list(right.segments)).segments == together.segments
    assert together.merge(together.segments) == ()


@GATE
@given(segments(), segments())
def test_rings_are_equal_exactly_when_their_fingerprints_are(one, other) -> None:
    left, right = ring(one), ring(other)
    assert (left.fingerprint == right.fingerprint) == (table(left) == table(right))
    left.merge(other)
    right.merge(one)
    assert left.fingerprint == right.fingerprint


@GATE
@given(segments(), segments(), st.sets(st.sampled_from(OWNERS)))
def test_what_a_frozen_owner_has_changes_only_with_a_higher_epoch(one, other, frozen) -> None:
    made = ring(one)
    before = table(made)
    made.merge(other, frozen=frozen)
    for number, entry in said(other).items():
        kept = before[number]
        late = kept[1] in frozen and entry[0] >> EPOCH_BITS <= kept[0] >> EPOCH_BITS
        before[number] = kept if late else max(kept, entry)
    assert table(made) == before
    assert_canonical(made)


@GATE
@given(segments(), segments())
def test_conflicts_are_the_addresses_with_two_owners_at_one_version(one, other) -> None:
    made = ring(one)
    mine = table(made)
    expected = {
        number: entry
        for number, entry in said(other).items()
        if entry[0] == mine[number][0] > 0 and entry[1] != mine[number][1]
    }
    assert said(made.conflicts(other)) == expected


@GATE
@given(segments(), st.sampled_from(OWNERS), st.sampled_from(OWNERS), st.data())
def test_a_gift_moves_exactly_its_addresses_and_wins_everywhere(one, owner, to, data) -> None:
    made, elsewhere = ring(one), ring(one)
    owned = made.owned_by(owner)
    parts = []
    for share in data.draw(st.lists(st.sampled_from(owned), unique=True)) if owned else []:
        first = data.draw(st.integers(int(share.first), int(share.last)))
        parts.append(Share(IPv4Address(first), IPv4Address(data.draw(st.integers(first, int(share.last))))))
    before = table(made)
    new = said(made.grant(owner, to, parts))
    assert new.keys() == {number for part in parts for number in range(int(part.first), int(part.last) + 1)}
    assert all(entry[0] > before[number][0] and entry[1] == to for number, entry in new.items())
    assert table(made) == before | new
    elsewhere.merge([Segment(number, number, *entry) for number, entry in sorted(new.items())])
    assert elsewhere.fingerprint == made.fingerprint
    assert_canonical(made)


@GATE
@given(segments(), st.sampled_from(OWNERS), st.sampled_from(OWNERS))
def test_an_inheritance_is_all_of_the_dead_and_beats_whatever_its_epoch_could_say(one, dead, heir) -> None:
    made = ring(one)
    before = table(made)
    will = made.inherit(dead, heir)
    assert table(made) == before
    assert said(will).keys() == {number for number, entry in before.items() if entry[1] == dead}
    for number, (version, owner) in said(will).items():
        assert owner == heir
        assert version >> EPOCH_BITS == (before[number][0] >> EPOCH_BITS) + 1
    made.merge(will)
    assert table(made) == before | said(will)


@GATE
@given(segments(), st.sampled_from(OWNERS))
def test_compacting_changes_no_owner_lowers_no_version_and_is_done_once(one, owner) -> None:
    made = ring(one)
    before = table(made)
    changed = made.compact(owner)
    after = table(made)
    assert {number: entry[1] for number, entry in after.items()} == {
        number: entry[1] for number, entry in before.items()
    }
    assert all(after[number] >= entry for number, entry in before.items())
    assert said(changed) == {number: entry for number, entry in after.items() if entry != before[number]}
    assert sum(segment.owner == owner for segment in made.segments) == len(made.owned_by(owner))
    assert made.compact(owner) == ()
    assert_canonical(made)


@GATE
@given(st.lists(st.integers(1, 2**64 - 1).map("{:016x}".format), max_size=40), st.integers(8, 29))
def test_the_first_agreement_covers_the_range_once_and_is_fair(members, prefix) -> None:
    network = IPv4Network((10 << 24, prefix))
    made = Ring(network)
    made.merge(made.found(members))
    sizes = made.owners()
    known = list(dict.fromkeys(members))
    assert list(sizes) == known[: network.num_addresses // 4]
    assert sum(sizes.values()) == (network.num_addresses if members else 0)
    assert all(size >= 4 for size in sizes.values())
    assert not sizes or max(sizes.values()) - min(sizes.values()) <= 256
