"""Addresses out of ranges that come and go: what is given, kept, rested and donated."""

from ipaddress import IPv4Address, IPv4Network
from time import process_time

import pytest

from plugin.core.ipam.allocator import REST_S, AddressTakenError, PoolExhaustedError, RingAllocator
from plugin.core.ipam.shares import Share

RANGE = IPv4Network("10.32.0.0/16")
SMALL = IPv4Network("10.0.0.0/29")
RED, BLUE, GREEN = (("weave", name, "eth0") for name in ("red", "blue", "green"))


def share(first: int, last: int) -> Share:
    return Share(RANGE[first], RANGE[last])


def owning(*owned: Share, network: IPv4Network = RANGE) -> RingAllocator:
    allocator = RingAllocator(network)
    allocator.own(owned)
    return allocator


def small() -> RingAllocator:
    return owning(Share(SMALL[0], SMALL[7]), network=SMALL)


def fill(allocator: RingAllocator, count: int, *, name: str = "pod", now_s: float = 0) -> list[IPv4Address]:
    return [allocator.allocate(("weave", f"{name}{number}", "eth0"), now_s=now_s) for number in range(count)]


# --- what is owned ----------------------------------------------------------------------------------------------------
def test_an_allocator_that_owns_nothing_has_nothing_to_give() -> None:
    allocator = RingAllocator(RANGE)
    assert (allocator.capacity, allocator.free, allocator.shares) == (0, 0, ())
    with pytest.raises(PoolExhaustedError, match="0 of 0 are held"):
        allocator.allocate(RED, now_s=0)
    assert allocator.donate(now_s=0) == ()


def test_the_capacity_counts_usable_addresses_of_all_shares() -> None:
    allocator = owning(share(256 * 2, 256 * 3 - 1), share(0, 255))
    assert allocator.capacity == 2 * 254
    assert allocator.shares == (share(0, 255), share(512, 767))
    fill(allocator, 3)
    assert allocator.free == 2 * 254 - 3


def test_what_is_owned_later_replaces_what_was_owned_before() -> None:
    allocator = owning(share(1, 9))
    allocator.own([share(20, 29)])
    assert allocator.allocate(RED, now_s=0) == RANGE[20]
    assert not allocator.owns(RANGE[1])


def test_a_pod_keeps_its_address_when_the_range_is_owned_no_more() -> None:
    allocator = owning(share(1, 9))
    fill(allocator, 1)
    allocator.own([share(20, 29)])
    assert allocator.strangers == {("weave", "pod0", "eth0"): RANGE[1]}
    assert allocator.free == 10
    allocator.own([share(1, 2)])
    assert allocator.strangers == {}
    assert allocator.free == 1


def test_overlapping_shares_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="counted twice"):
        owning(share(1, 9), share(9, 20))


# --- allocate ---------------------------------------------------------------------------------------------------------
def test_addresses_are_given_lowest_first_over_all_shares() -> None:
    allocator = owning(share(100, 101), share(1, 2))
    assert fill(allocator, 4) == [RANGE[1], RANGE[2], RANGE[100], RANGE[101]]


def test_the_same_attachment_gets_the_same_answer_wherever_it_asks_for_another() -> None:
    allocator = owning(share(1, 600))
    first = allocator.allocate(RED, now_s=0)
    assert allocator.allocate(RED, now_s=5, within=IPv4Network("10.32.1.0/24")) == first
    assert dict(allocator.held) == {RED: first}


def test_rested_addresses_come_first_then_fresh_ones_then_the_longest_resting() -> None:
    allocator = owning(share(1, 4))
    fill(allocator, 3)
    allocator.release(("weave", "pod1", "eth0"), now_s=0)
    allocator.release(("weave", "pod0", "eth0"), now_s=REST_S - 1)
    assert allocator.allocate(RED, now_s=REST_S) == RANGE[2]
    assert allocator.allocate(BLUE, now_s=REST_S) == RANGE[4]
    assert allocator.allocate(GREEN, now_s=REST_S) == RANGE[1]


def test_a_subnet_is_served_from_its_own_addresses_without_its_first_and_last() -> None:
    allocator = owning(share(0, 1023))
    within = IPv4Network("10.32.1.8/30")
    assert [str(allocator.allocate(who, now_s=0, within=within)) for who in (RED, BLUE)] == ["10.32.1.9", "10.32.1.10"]
    with pytest.raises(PoolExhaustedError, match=r"no address is left inside 10\.32\.1\.8/30"):
        allocator.allocate(GREEN, now_s=0, within=within)
    assert allocator.allocate(GREEN, now_s=0) == RANGE[1]


def test_a_subnet_that_is_owned_in_part_or_not_at_all_gives_what_there_is() -> None:
    allocator = owning(share(0, 10))
    assert allocator.allocate(RED, now_s=0, within=IPv4Network("10.32.0.8/29")) == RANGE[9]
    with pytest.raises(PoolExhaustedError):
        allocator.allocate(BLUE, now_s=0, within=IPv4Network("10.32.9.0/24"))


def test_an_address_below_others_is_fresh_again_when_it_comes_back() -> None:
    allocator = owning(share(1, 10))
    fill(allocator, 5)
    allocator.release(("weave", "pod2", "eth0"), now_s=0)
    allocator.own([share(1, 2), share(4, 10)])
    allocator.rest(RANGE[300], now_s=REST_S)
    allocator.own([share(1, 10)])
    assert allocator.allocate(RED, now_s=REST_S) == RANGE[3]


def test_a_full_allocator_is_refused_with_numbers() -> None:
    allocator = small()
    fill(allocator, allocator.capacity)
    with pytest.raises(PoolExhaustedError, match="6 of 6 are held"):
        allocator.allocate(RED, now_s=0)


def test_a_million_addresses_are_not_walked_through() -> None:
    network = IPv4Network("10.32.0.0/12")
    allocator = owning(Share(network[0], network[-1]), network=network)
    started_s = process_time()
    fill(allocator, 2000)
    for number in range(100):
        allocator.allocate(("weave", f"far{number}", "eth0"), now_s=0, within=IPv4Network("10.47.0.0/16"))
        allocator.donate(now_s=0)
    # Each donation sorts what is held, some milliseconds; counting to a million once would take longer than all this.
    assert process_time() - started_s < 3.0


# --- claim ------------------------------------------------------------------------------------------------------------
def test_a_claimed_address_is_not_given_to_anybody_else() -> None:
    allocator = small()
    allocator.claim(RED, SMALL[1])
    allocator.claim(RED, SMALL[1])
    assert allocator.allocate(BLUE, now_s=0) == SMALL[2]


def test_a_claim_ends_the_rest_of_an_address() -> None:
    allocator = small()
    allocator.allocate(RED, now_s=0)
    allocator.release(RED, now_s=0)
    allocator.claim(BLUE, SMALL[1])
    assert allocator.allocate(GREEN, now_s=REST_S * 2) == SMALL[2]


@pytest.mark.parametrize(
    ("who", "wanted", "sentence"),
    [
        (RED, RANGE[2], r"holds 10\.32\.0\.1 already"),
        (BLUE, RANGE[1], "is held by red/eth0 of network weave"),
        (BLUE, RANGE[255], "is no address for a pod"),
        (BLUE, IPv4Address("10.9.9.9"), "is no address for a pod"),
        (BLUE, RANGE[600], r"is not this node's to give: it owns 10\.32\.0\.0-10\.32\.1\.243"),
    ],
)
def test_a_claim_that_cannot_be_is_refused(who: tuple[str, str, str], wanted: IPv4Address, sentence: str) -> None:
    allocator = owning(share(0, 499))
    allocator.allocate(RED, now_s=0)
    with pytest.raises(AddressTakenError, match=sentence):
        allocator.claim(who, wanted)
    assert dict(allocator.held) == {RED: RANGE[1]}


def test_a_living_pod_is_adopted_with_an_address_that_is_not_owned() -> None:
    allocator = RingAllocator(RANGE)
    allocator.claim(RED, RANGE[7], adopt=True)
    assert allocator.strangers == {RED: RANGE[7]}
    assert (allocator.capacity, allocator.free) == (0, 0)
    with pytest.raises(AddressTakenError, match="is held by red"):
        allocator.claim(BLUE, RANGE[7], adopt=True)


def test_an_adopted_address_that_is_owned_later_is_not_given_again() -> None:
    allocator = RingAllocator(RANGE)
    allocator.claim(RED, RANGE[1], adopt=True)
    allocator.own([share(1, 2)])
    assert allocator.allocate(BLUE, now_s=0) == RANGE[2]
    assert allocator.free == 0


# --- rest -------------------------------------------------------------------------------------------------------------
def test_giving_back_nothing_is_no_error() -> None:
    assert small().release(RED, now_s=0) is None


def test_an_address_freed_while_no_agent_looked_rests_like_any_other() -> None:
    allocator = owning(share(1, 3))
    allocator.rest(RANGE[1], now_s=0)
    assert allocator.allocate(RED, now_s=REST_S - 1) == RANGE[2]
    assert allocator.allocate(BLUE, now_s=REST_S) == RANGE[1]


def test_an_address_that_is_held_does_not_rest() -> None:
    allocator = owning(share(1, 2))
    allocator.allocate(RED, now_s=0)
    allocator.rest(RANGE[1], now_s=0)
    assert allocator.allocate(BLUE, now_s=REST_S) == RANGE[2]


def test_an_address_freed_again_rests_again() -> None:
    allocator = owning(share(1, 3))
    allocator.rest(RANGE[1], now_s=0)
    allocator.rest(RANGE[1], now_s=REST_S - 1)
    assert allocator.allocate(RED, now_s=REST_S) == RANGE[2]


def test_a_strangers_address_goes_on_resting_when_it_becomes_owned() -> None:
    allocator = RingAllocator(RANGE)
    allocator.claim(RED, RANGE[1], adopt=True)
    allocator.release(RED, now_s=0)
    allocator.own([share(1, 3)])
    assert allocator.allocate(BLUE, now_s=1) == RANGE[2]
    assert allocator.allocate(GREEN, now_s=REST_S) == RANGE[1]


def test_an_address_that_goes_and_returns_goes_on_resting() -> None:
    allocator = owning(share(1, 3))
    allocator.allocate(RED, now_s=0)
    allocator.release(RED, now_s=0)
    allocator.own([share(2, 3)])
    allocator.own([share(1, 3)])
    assert allocator.allocate(BLUE, now_s=1) == RANGE[2]


# --- donate -----------------------------------------------------------------------------------------------------------
def test_half_of_what_is_free_is_donated_as_one_aligned_block_from_the_top() -> None:
    allocator = owning(share(0, 1023))
    assert allocator.donate(now_s=0) == (share(768, 1023),)
    assert allocator.shares == (share(0, 1023),)


def test_a_donation_avoids_what_is_held() -> None:
    allocator = owning(share(0, 63))
    allocator.claim(RED, RANGE[50])
    assert allocator.donate(now_s=0) == (share(32, 47),)


def test_the_last_free_address_is_kept() -> None:
    allocator = owning(share(1, 2))
    assert allocator.donate(now_s=0) == (share(2, 2),)
    allocator.allocate(RED, now_s=0)
    assert allocator.free == 1
    assert allocator.donate(now_s=0) == ()


def test_what_rests_is_donated_only_when_there_is_nothing_else() -> None:
    allocator = owning(share(1, 3))
    fill(allocator, 3)
    for number in (0, 1):
        allocator.release(("weave", f"pod{number}", "eth0"), now_s=0)
    allocator.own([share(1, 4)])
    assert allocator.donate(now_s=1) == (share(4, 4),)
    allocator.claim(RED, RANGE[4])
    assert allocator.donate(now_s=1) == (share(2, 2),)


@pytest.mark.parametrize("edge", [255, 511])
def test_an_address_that_nobody_may_have_is_not_donated_alone(edge: int) -> None:
    allocator = owning(share(10, 10), share(edge - 1, edge + 1))
    assert allocator.free == 2
    assert allocator.donate(now_s=0) == (share(edge - 1, edge - 1),)


def test_the_edges_of_the_range_are_not_donated_alone() -> None:
    allocator = small()
    for number in (1, 2, 3, 4):
        allocator.claim(("weave", str(number), "eth0"), SMALL[number])
    assert allocator.donate(now_s=0) == (Share(SMALL[6], SMALL[6]),)


def test_an_exact_address_is_donated_when_it_is_free_even_if_it_rests_or_is_the_last() -> None:
    allocator = owning(share(1, 2))
    fill(allocator, 2)
    assert allocator.donate(now_s=0, exact=RANGE[1]) == ()
    allocator.release(("weave", "pod0", "eth0"), now_s=0)
    assert allocator.donate(now_s=0, exact=RANGE[1]) == (share(1, 1),)


@pytest.mark.parametrize("number", [0, 255, 700])
def test_an_exact_address_that_is_unusable_or_not_owned_is_not_donated(number: int) -> None:
    assert owning(share(0, 500)).donate(now_s=0, exact=RANGE[number]) == ()


def test_a_donation_for_a_subnet_is_at_most_half_of_what_is_free_there_without_its_edges() -> None:
    allocator = owning(share(0, 1023))
    assert allocator.donate(now_s=0, within=IPv4Network("10.32.1.64/28")) == (share(256 + 72, 256 + 75),)
    assert allocator.donate(now_s=0, within=IPv4Network("10.32.1.64/30")) == (share(256 + 66, 256 + 66),)
    assert allocator.donate(now_s=0, within=IPv4Network("10.32.99.0/24")) == ()
