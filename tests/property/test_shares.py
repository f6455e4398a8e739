"""Laws of shares: what is cut, what may be given away and how much that is."""

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.ipam import shares
from plugin.core.ipam.shares import Share

GATE = settings(max_examples=80, deadline=None)


@st.composite
def networks(draw: st.DrawFn, longest: int = 29) -> IPv4Network:
    prefix = draw(st.integers(8 if longest == 29 else 20, 29))
    return IPv4Network((draw(st.integers(0, 2**prefix - 1)) << (32 - prefix), prefix))


@GATE
@given(networks(), st.integers(1, 20))
def test_parts_cover_the_range_once_and_are_fair(network, count) -> None:
    # Every node needs two addresses, and those at the edges of the range or ending in .0 and .255 are never given.
    count = min(count, max(1, network.num_addresses // 6))
    cuts = shares.edges(network, count)
    in_order = [Share(IPv4Address(first), IPv4Address(behind - 1)) for first, behind in pairwise(cuts)]
    assert in_order[0].first == network.network_address
    assert in_order[-1].last == network.broadcast_address
    assert all(int(left.last) + 1 == int(right.first) for left, right in pairwise(in_order))
    sizes = [share.size for share in in_order]
    assert max(sizes) - min(sizes) <= shares.ALIGNMENT
    assert all(shares.count_usable(network, share) >= 2 for share in in_order)


@GATE
@given(networks(longest=20), st.data())
def test_the_count_of_usable_addresses_is_the_length_of_their_list(network, data) -> None:
    size = network.num_addresses
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    share = Share(network[first], network[last])
    listed = list(shares.usable(network, share))
    assert shares.count_usable(network, share) == len(listed)
    assert all(shares.is_usable(network, share, address) for address in listed)
    left_out = {address for address in (share.first, share.last) if address not in listed}
    assert not any(shares.is_usable(network, share, address) for address in left_out)


@GATE
@given(networks(), st.data())
def test_edges_cut_the_range_into_equal_parts_at_readable_addresses(network, data) -> None:
    size = network.num_addresses
    count = data.draw(st.integers(1, min(size, 3000)))
    cuts = shares.edges(network, count)
    assert len(cuts) == count + 1
    assert (cuts[0], cuts[-1]) == (int(network.network_address), int(network.broadcast_address) + 1)
    sizes = [right - left for left, right in pairwise(cuts)]
    assert min(sizes) >= 1
    large = size // count >= 16 * shares.ALIGNMENT
    assert max(sizes) - min(sizes) <= (shares.ALIGNMENT if large else 1)
    assert not large or all(cut % shares.ALIGNMENT == 0 for cut in cuts)
