"""Shares of the pod range: equal, disjoint, the same on every node."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.errors import InputError
from plugin.core.ipam import shares
from plugin.core.ipam.shares import Share

RANGE = IPv4Network("10.32.0.0/12")


def parts(network: IPv4Network, count: int) -> list[Share]:
    """The equal parts of a range, by where they begin."""
    cuts = shares.edges(network, count)
    return [Share(IPv4Address(cuts[index]), IPv4Address(cuts[index + 1] - 1)) for index in range(count)]


def test_two_parts_are_the_lower_and_the_upper_half() -> None:
    assert [str(part) for part in parts(RANGE, 2)] == ["10.32.0.0-10.39.255.255", "10.40.0.0-10.47.255.255"]


def test_parts_of_a_large_range_start_at_a_readable_address() -> None:
    assert {int(part.first) % shares.ALIGNMENT for part in parts(RANGE, 3)} == {0}


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
    (share,) = parts(small, 1)
    assert [int(address) & 7 for address in shares.usable(small, share)] == [1, 2, 3, 4, 5, 6]


def test_an_address_of_another_share_is_not_usable() -> None:
    lower, _ = parts(RANGE, 2)
    assert not shares.is_usable(RANGE, lower, IPv4Address("10.40.0.1"))
    assert not shares.is_usable(RANGE, lower, IPv4Address("10.32.1.255"))
    assert shares.is_usable(RANGE, lower, IPv4Address("10.32.1.1"))
