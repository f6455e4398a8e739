"""The allocator's corners; its everyday life is in test_ring_allocator.py."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.ipam.allocator import EXPOSE, REST_S, AddressTakenError, PoolExhaustedError, RingAllocator
from plugin.core.ipam.shares import Share

RANGE = IPv4Network("10.32.0.0/16")
RED, BLUE, GREEN = (("weave", name, "eth0") for name in ("red", "blue", "green"))


def share(first: int, last: int) -> Share:
    return Share(RANGE[first], RANGE[last])


def owning(*owned: Share) -> RingAllocator:
    allocator = RingAllocator(RANGE)
    allocator.own(owned)
    return allocator


def subnet(text: str) -> IPv4Network:
    return IPv4Network(text)


def test_nobody_changes_who_holds_what_from_outside() -> None:
    allocator = owning(share(1, 9))
    allocator.allocate(EXPOSE, now_s=0)
    with pytest.raises(TypeError):
        allocator.held[RED] = RANGE[5]  # type: ignore[index]
    assert dict(allocator.held) == {EXPOSE: RANGE[1]}


def test_owning_the_same_again_or_in_another_order_changes_nothing() -> None:
    allocator = owning(share(1, 3), share(10, 12))
    allocator.allocate(RED, now_s=0)
    allocator.release(RED, now_s=0)
    allocator.own([share(10, 12), share(1, 3)])
    assert (allocator.capacity, allocator.free) == (6, 6)
    assert allocator.allocate(BLUE, now_s=1) == RANGE[2]


def test_neighbouring_shares_give_the_same_addresses_as_one() -> None:
    parts, whole = owning(share(1, 3), share(4, 6)), owning(share(1, 6))
    for name in "abcdef":
        who = ("weave", name, "eth0")
        assert parts.allocate(who, now_s=0) == whole.allocate(who, now_s=0)


def test_losing_everything_keeps_who_holds_what() -> None:
    allocator = owning(share(1, 9))
    allocator.allocate(RED, now_s=0)
    allocator.own([])
    assert (allocator.capacity, allocator.free) == (0, 0)
    assert allocator.allocate(RED, now_s=1) == RANGE[1]
    assert allocator.strangers == {RED: RANGE[1]}
    with pytest.raises(PoolExhaustedError, match="0 of 0 are held"):
        allocator.allocate(BLUE, now_s=1)


def test_a_stranger_that_goes_frees_nothing_here() -> None:
    allocator = owning(share(1, 3))
    allocator.claim(RED, RANGE[600], adopt=True)
    assert (allocator.capacity, allocator.free) == (3, 3)
    assert allocator.release(RED, now_s=0) == RANGE[600]
    assert (allocator.capacity, allocator.free) == (3, 3)
    assert allocator.strangers == {}


@pytest.mark.parametrize("address", [RANGE[0], RANGE[255], RANGE[256], RANGE[-1], IPv4Address("10.33.0.1")])
def test_not_even_a_living_pod_is_adopted_with_an_address_that_no_pod_may_have(address: IPv4Address) -> None:
    allocator = owning(share(0, 600))
    with pytest.raises(AddressTakenError, match="is no address for a pod"):
        allocator.claim(RED, address, adopt=True)
    assert allocator.free == allocator.capacity


def test_an_attachment_with_an_address_does_not_adopt_another() -> None:
    allocator = owning(share(1, 3))
    allocator.allocate(RED, now_s=0)
    with pytest.raises(AddressTakenError, match=r"holds 10\.32\.0\.1 already"):
        allocator.claim(RED, RANGE[2], adopt=True)


def test_who_owns_nothing_says_so_when_it_cannot_give() -> None:
    with pytest.raises(AddressTakenError, match="it owns nothing") as raised:
        RingAllocator(RANGE).claim(RED, RANGE[1])
    assert "ask for" in raised.value.hint


def test_of_many_ranges_only_the_first_four_are_named() -> None:
    allocator = owning(*(share(10 * number, 10 * number + 1) for number in range(1, 7)))
    with pytest.raises(AddressTakenError, match=r"10\.32\.0\.40-10\.32\.0\.41, \.\.\.$"):
        allocator.claim(RED, RANGE[600])


def test_an_address_given_back_twice_is_given_back_once() -> None:
    allocator = owning(share(1, 2))
    allocator.allocate(RED, now_s=0)
    assert allocator.release(RED, now_s=0) == RANGE[1]
    assert allocator.release(RED, now_s=REST_S) is None
    assert allocator.allocate(BLUE, now_s=REST_S) == RANGE[1]


def test_in_a_subnet_rested_ones_come_before_fresh_ones_and_those_outside_do_not_count() -> None:
    allocator = owning(share(1, 14))
    within = subnet("10.32.0.8/29")
    for who, number in ((RED, 2), (BLUE, 12)):
        allocator.claim(who, RANGE[number])
        allocator.release(who, now_s=0)
    assert allocator.allocate(GREEN, now_s=REST_S, within=within) == RANGE[12]
    assert allocator.allocate(RED, now_s=REST_S, within=within) == RANGE[9]


def test_in_a_full_subnet_the_longest_resting_address_is_better_than_none() -> None:
    allocator = owning(share(1, 14))
    within = subnet("10.32.0.8/30")
    allocator.claim(GREEN, RANGE[9])
    for number in (3, 10):
        allocator.rest(RANGE[number], now_s=0)
    assert allocator.allocate(RED, now_s=1, within=within) == RANGE[10]


def test_what_was_freed_elsewhere_long_ago_rests_no_more_when_it_becomes_owned() -> None:
    allocator = owning(share(1, 1))
    allocator.rest(RANGE[10], now_s=0)
    allocator.rest(RANGE[20], now_s=REST_S)
    allocator.own([share(10, 11), share(20, 21)])
    assert [allocator.allocate(who, now_s=REST_S) for who in (RED, BLUE, GREEN)] == [RANGE[10], RANGE[11], RANGE[21]]


def test_the_edges_of_a_subnet_are_donated_for_the_whole_range_but_not_for_the_subnet() -> None:
    allocator = owning(share(8, 11))
    assert allocator.donate(now_s=0, within=subnet("10.32.0.8/30")) == (share(10, 10),)
    assert allocator.donate(now_s=0) == (share(10, 11),)


def test_the_last_free_address_is_kept_from_a_subnet_too() -> None:
    allocator = owning(share(8, 11))
    for who, number in ((RED, 8), (BLUE, 10), (GREEN, 11)):
        allocator.claim(who, RANGE[number])
    assert allocator.free == 1
    assert allocator.donate(now_s=0, within=subnet("10.32.0.8/30")) == ()
    assert allocator.donate(now_s=0, exact=RANGE[9]) == (share(9, 9),)


def test_a_strangers_address_is_not_donated_exactly() -> None:
    allocator = owning(share(1, 3))
    allocator.claim(RED, RANGE[600], adopt=True)
    assert allocator.donate(now_s=0, exact=RANGE[600]) == ()


def test_what_was_adopted_before_it_was_owned_is_not_donated() -> None:
    allocator = RingAllocator(RANGE)
    allocator.claim(RED, RANGE[30], adopt=True)
    allocator.own([share(16, 31)])
    assert allocator.donate(now_s=0) == (share(24, 27),)
