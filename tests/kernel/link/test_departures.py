"""Deleting many pod links in one go, and hearing which are gone before the call returns."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv4Address

import pytest

from plugin.link import netns, pods, rtnl
from plugin.link.departures import Departures
from plugin.link.netlink import Netlink
from tests.support.node import bridge, pod_link
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
DEADLINE_S = 20


@pytest.fixture
def attached(netlink: Netlink) -> Iterator[list[str]]:
    """Five pods on the switch."""
    with ExitStack() as stack:
        for number in range(5):
            sandbox = stack.enter_context(netns.new_netns())
            link = pod_link(IPv4Address(f"10.32.0.{10 + number}"), host_ifname=f"vethwepl{number}")
            pods.attach(netlink, bridge(netlink), sandbox, link)
        yield [f"vethwepl{number}" for number in range(5)]


def heard(departures: Departures, count: int) -> list[str]:
    names: list[str] = []
    end_s = time.monotonic() + DEADLINE_S
    while len(names) < count and time.monotonic() < end_s:
        names += departures.receive()
    return names


@pytest.mark.parametrize("count", [1, 2, 5])
def test_links_go_together_and_each_is_heard_of_once(netlink: Netlink, attached: list[str], count: int) -> None:
    with closing(Departures()) as departures:
        assert pods.detach_together(netlink, attached[:count]) == {}
        assert sorted(heard(departures, count)) == attached[:count]
        assert departures.receive() == [], "leaving the bridge is no departure"
    assert set(Witness().links()) & set(attached) == set(attached[count:])


def test_what_is_heard_of_is_gone_for_everybody(netlink: Netlink, attached: list[str]) -> None:
    with closing(Departures()) as departures, Netlink() as other:
        call = threading.Thread(target=pods.detach_together, args=(netlink, attached[:1]))
        call.start()
        assert heard(departures, 1) == attached[:1]
        assert other.link(attached[0]) is None
        assert other.link(attached[1]) is not None
        call.join()


def test_absent_links_are_no_refusal_and_keep_nobody_back(netlink: Netlink, attached: list[str]) -> None:
    assert pods.detach_together(netlink, []) == {}
    assert pods.detach_together(netlink, ["nobody"]) == {}
    assert pods.detach_together(netlink, ["nobody", *attached, "neither"]) == {}
    assert set(Witness().links()) & set(attached) == set()


def test_links_of_somebody_elses_group_stay(netlink: Netlink, attached: list[str]) -> None:
    netlink.request(rtnl.veth_add(rtnl.VethEnd(name="mine"), rtnl.VethEnd(name="far")))
    mine = netlink.link("mine")
    assert mine is not None
    netlink.request(rtnl.link_group_set(mine.index, 7))
    assert pods.detach_together(netlink, attached) == {}
    assert {"mine", "far"} <= set(Witness().links())


def test_a_link_that_cannot_be_deleted_refuses_for_its_own_name(netlink: Netlink) -> None:
    assert set(pods.detach_together(netlink, ["lo"])) == {"lo"}


def test_other_messages_are_not_even_delivered(netlink: Netlink) -> None:
    with closing(Departures()) as departures:
        netlink.request(rtnl.veth_add(rtnl.VethEnd(name="mine"), rtnl.VethEnd(name="far")))
        with pytest.raises(BlockingIOError):
            departures._socket.recv(1)


def test_a_link_is_found_by_its_name_and_a_name_that_cannot_be_is_nobodys(netlink: Netlink) -> None:
    found = netlink.link("lo")
    assert found is not None
    assert (found.index, found.name) == (1, "lo")
    assert netlink.links() == [found]
    assert netlink.link("nobody") is None
    assert netlink.link("x" * 40) is None
