"""Laws of shares and of the allocator's count."""

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core import shares
from plugin.core.allocator import ShareAllocator
from plugin.core.shares import Share

GATE = settings(max_examples=80, deadline=None)
MEMBERS = st.lists(st.integers(1, 2**32 - 1).map(IPv4Address), min_size=1, max_size=20, unique=True)


@st.composite
def networks(draw: st.DrawFn, longest: int = 29) -> IPv4Network:
    prefix = draw(st.integers(8 if longest == 29 else 20, 29))
    return IPv4Network((draw(st.integers(0, 2**prefix - 1)) << (32 - prefix), prefix))


@GATE
@given(networks(), MEMBERS, st.randoms(use_true_random=False))
def test_shares_cover_the_range_once_and_are_fair_in_any_order(network, members, rng) -> None:
    # Every node needs two addresses, and those at the edges of the range or ending in .0 and .255 are never given.
    members = members[: max(1, network.num_addresses // 6)]
    split = shares.split(network, members)
    in_order = sorted(split.values(), key=lambda share: share.first)
    assert in_order[0].first == network.network_address
    assert in_order[-1].last == network.broadcast_address
    assert all(int(left.last) + 1 == int(right.first) for left, right in pairwise(in_order))
    sizes = [share.size for share in in_order]
    assert max(sizes) - min(sizes) <= shares.ALIGNMENT
    assert all(shares.count_usable(network, share) >= 2 for share in in_order)
    rng.shuffle(members)
    assert shares.split(network, members) == split


@GATE
@given(networks(longest=20), st.data())
def test_the_count_of_usable_addresses_is_the_length_of_their_list(network, data) -> None:
    size = network.num_addresses
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    share = Share(network[first], network[last])
    listed = list(shares.usable(network, share))
    assert ShareAllocator(network, share).capacity == len(listed)
    assert all(shares.is_usable(network, share, address) for address in listed)
