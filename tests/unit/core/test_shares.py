"""Shares of the pod range: equal, disjoint, the same on every node."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core import shares
from plugin.core.errors import InputError
from plugin.core.shares import Share

RANGE = IPv4Network("10.32.0.0/12")
ONE, TWO, THREE = (IPv4Address(f"192.168.56.{number}") for number in (11, 12, 13))


def test_two_nodes_get_the_lower_and_the_upper_half() -> None:
    halves = shares.split(RANGE, [TWO, ONE])
    assert str(halves[ONE]) == "10.32.0.0-10.39.255.255"
    assert str(halves[TWO]) == "10.40.0.0-10.47.255.255"


def test_shares_of_a_large_range_start_at_a_readable_address() -> None:
    assert {int(share.first) % shares.ALIGNMENT for share in shares.split(RANGE, [ONE, TWO, THREE]).values()} == {0}


def test_a_member_named_twice_counts_once() -> None:
    assert shares.split(RANGE, [ONE, ONE, TWO]) == shares.split(RANGE, [ONE, TWO])


def test_a_range_without_members_is_refused() -> None:
    with pytest.raises(InputError, match="at least one member"):
        shares.split(RANGE, [])


def test_more_nodes_than_the_range_can_serve_are_refused() -> None:
    members = [IPv4Address(number) for number in range(1, 6)]
    with pytest.raises(InputError, match="too few for 5 nodes"):
        shares.split(IPv4Network("10.0.0.0/29"), members)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pods", "must be an IPv4 network"),
        ("10.32.0.1/12", "must be an IPv4 network"),
        ("fd00::/64", "must be an IPv4 network"),
        ("10.0.0.0/30", "between /8 and /29"),
        ("0.0.0.0/7", "between /8 and /29"),
    ],
)
def test_a_range_that_cannot_be_one_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        shares.parse_range(text)


def test_the_default_range_is_read() -> None:
    assert shares.parse_range("10.32.0.0/12") == RANGE


def test_addresses_that_look_like_network_and_broadcast_are_left_out_of_large_ranges() -> None:
    share = Share(IPv4Address("10.32.0.254"), IPv4Address("10.32.1.1"))
    assert [str(address) for address in shares.usable(RANGE, share)] == ["10.32.0.254", "10.32.1.1"]


def test_a_small_range_loses_only_its_two_edges() -> None:
    small = IPv4Network("10.0.0.0/29")
    share = shares.split(small, [ONE])[ONE]
    assert [int(address) & 7 for address in shares.usable(small, share)] == [1, 2, 3, 4, 5, 6]


def test_an_address_of_another_share_is_not_usable() -> None:
    halves = shares.split(RANGE, [ONE, TWO])
    assert not shares.is_usable(RANGE, halves[ONE], IPv4Address("10.40.0.1"))
    assert not shares.is_usable(RANGE, halves[ONE], IPv4Address("10.32.1.255"))
    assert shares.is_usable(RANGE, halves[ONE], IPv4Address("10.32.1.1"))


def test_the_seed_tells_clusters_ranges_and_members_apart() -> None:
    seeds = {
        shares.seed(RANGE, [ONE, TWO], "a"),
        shares.seed(RANGE, [ONE, TWO], "b"),
        shares.seed(RANGE, [ONE], "a"),
        shares.seed(IPv4Network("10.0.0.0/8"), [ONE, TWO], "a"),
    }
    assert len(seeds) == 4
    assert shares.seed(RANGE, [TWO, ONE, ONE], "a") in seeds
