"""The kernel's number of a namespace tells whether it lives, whatever becomes of its path and its links."""

import os

import pytest

from plugin.link import netns, nsid, rtnl
from plugin.link.netlink import Netlink
from tests.support.cluster import wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


def test_a_namespace_has_one_number_until_it_ends(netlink: Netlink) -> None:
    with netns.new_netns() as fd:
        number = nsid.ensure_nsid(netlink, fd)
        assert number >= 1 << 30, "far from those that the kernel gives, which mean another one later"
        assert nsid.ensure_nsid(netlink, fd) == number
        assert nsid.ended(netlink, [number]) == set()
    assert nsid.ended(netlink, [number]) == {number}, "from the moment that its last user has gone"


def test_the_numbers_of_two_are_two_and_none_is_used_again(netlink: Netlink) -> None:
    seen = set()
    for _ in range(3):
        with netns.new_netns() as fd:
            seen.add(nsid.ensure_nsid(netlink, fd))
    assert len(seen) == 3
    assert nsid.ended(netlink, seen) == seen


def test_a_descriptor_keeps_it_alive_and_a_deleted_link_does_not_end_it(netlink: Netlink) -> None:
    with netns.new_netns() as fd:
        number = nsid.ensure_nsid(netlink, fd)
        netlink.request(rtnl.veth_add(rtnl.VethEnd(name="near"), rtnl.VethEnd(name="far", netns_fd=fd)))
        near = netlink.link("near")
        assert near is not None
        netlink.request(rtnl.link_del(near.index))
        assert nsid.ended(netlink, [number]) == set()


def test_when_the_link_goes_with_its_namespace_the_number_is_gone_already(netlink: Netlink) -> None:
    with netns.new_netns() as fd:
        number = nsid.ensure_nsid(netlink, fd)
        netlink.request(rtnl.veth_add(rtnl.VethEnd(name="near"), rtnl.VethEnd(name="far", netns_fd=fd)))
    wait_for(lambda: netlink.link("near") is None, "the end of the link")
    assert nsid.ended(netlink, [number]) == {number}


def test_what_is_no_namespace_has_no_number(netlink: Netlink) -> None:
    with open("/dev/null", "rb") as file:  # noqa: PTH123 - a descriptor is all that is wanted
        assert nsid.ensure_nsid(netlink, file.fileno()) == 0
