"""Addresses for attachments: the order in which they are given, claimed and given back."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.allocator import REST_S, AddressTakenError, PoolExhaustedError, ShareAllocator
from plugin.core.shares import Share

SMALL = IPv4Network("10.0.0.0/29")
RED, BLUE, GREEN = (("weave", name, "eth0") for name in ("red", "blue", "green"))


def small() -> ShareAllocator:
    return ShareAllocator(SMALL, Share(SMALL.network_address, SMALL.broadcast_address))


def address(last: int) -> IPv4Address:
    return IPv4Address(f"10.0.0.{last}")


def test_addresses_are_given_lowest_first() -> None:
    allocator = small()
    assert [allocator.allocate(who, now_s=0) for who in (RED, BLUE)] == [address(1), address(2)]


def test_the_same_attachment_gets_the_same_answer() -> None:
    allocator = small()
    assert allocator.allocate(RED, now_s=0) == allocator.allocate(RED, now_s=5)
    assert dict(allocator.held) == {RED: address(1)}


def test_a_freed_address_rests_before_it_is_used_again() -> None:
    allocator = small()
    allocator.allocate(RED, now_s=0)
    allocator.release(RED, now_s=0)
    assert allocator.allocate(BLUE, now_s=REST_S - 1) == address(2)
    assert allocator.allocate(GREEN, now_s=REST_S) == address(1)


def test_a_resting_address_is_better_than_none() -> None:
    allocator = small()
    for number in range(6):
        allocator.allocate(("weave", str(number), "eth0"), now_s=0)
    allocator.release(("weave", "3", "eth0"), now_s=0)
    assert allocator.allocate(RED, now_s=1) == address(4)


def test_a_full_share_is_refused_with_numbers() -> None:
    allocator = small()
    for number in range(allocator.capacity):
        allocator.allocate(("weave", str(number), "eth0"), now_s=0)
    with pytest.raises(PoolExhaustedError, match="6 of 6 are held"):
        allocator.allocate(RED, now_s=0)


def test_a_claimed_address_is_not_given_to_anybody_else() -> None:
    allocator = small()
    allocator.claim(RED, address(1))
    allocator.claim(RED, address(1))
    assert allocator.allocate(BLUE, now_s=0) == address(2)


def test_a_claim_ends_the_rest_of_an_address() -> None:
    allocator = small()
    allocator.allocate(RED, now_s=0)
    allocator.release(RED, now_s=0)
    allocator.claim(BLUE, address(1))
    assert allocator.allocate(GREEN, now_s=REST_S * 2) == address(2)


@pytest.mark.parametrize(
    ("who", "wanted", "sentence"),
    [
        (RED, address(2), "holds 10.0.0.1 already"),
        (BLUE, address(1), "is held by red/eth0 of network weave"),
        (BLUE, address(7), "is not this node's to give"),
        (BLUE, IPv4Address("10.9.9.9"), "is not this node's to give"),
    ],
)
def test_a_claim_that_cannot_be_is_refused(who: tuple[str, str, str], wanted: IPv4Address, sentence: str) -> None:
    allocator = small()
    allocator.allocate(RED, now_s=0)
    with pytest.raises(AddressTakenError, match=sentence):
        allocator.claim(who, wanted)


def test_giving_back_nothing_is_no_error() -> None:
    assert small().release(RED, now_s=0) is None
