"""What follows from a node's interfaces, addresses and routes: its address, its MTU, and what is wrong, in sentences."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from plugin.core.errors import InputError
from plugin.core.forwarding.uplink import (
    TROUBLES,
    Plan,
    Seen,
    SeenLink,
    SeenRoute,
    Uplink,
    Wanted,
    first_uplink,
    plan_uplink,
)

ME, NEXT, TWO, FAR = (IPv4Address(text) for text in ("192.168.56.11", "192.168.56.50", "192.168.56.12", "172.20.0.9"))
LO, ETH0, ETH1 = SeenLink(1, "lo", 65536, loopback=True), SeenLink(2, "eth0", 1500), SeenLink(3, "eth1", 9000)
RANGE = IPv4Network("10.32.0.0/12")
FOLLOWING, FIXED = Wanted(RANGE, uplink="eth0"), Wanted(RANGE, ME)
NODES = (TWO, FAR)
BEFORE = Uplink(ME, "eth0", 2, 1500, outside=True)


def seen(*links: SeenLink, at: dict[int, tuple[str, ...]] | None = None, **other: Any) -> Seen:
    """A node with eth0 at 192.168.56.11, a default route, and routes to both other nodes, unless said otherwise."""
    addresses = {2: ("192.168.56.11/24",)} if at is None else at
    route = SeenRoute((2,), source=ME)
    return Seen(
        links={link.index: link for link in (LO, *(links or (ETH0,)))},
        addresses=tuple((index, IPv4Interface(text)) for index, texts in addresses.items() for text in texts),
        **({"default": route, "routes": dict.fromkeys(NODES, route)} | other),
    )


def planned(what: Seen, wanted: Wanted = FOLLOWING, before: Uplink = BEFORE) -> Plan:
    plan = plan_uplink(what, wanted, before, NODES)
    assert {trouble.name for trouble in plan.troubles} <= set(TROUBLES)
    return plan


def test_a_node_where_all_is_well_has_no_trouble_and_stays_as_it_is() -> None:
    plan = planned(seen())
    assert (plan.uplink, plan.pod_mtu_bytes, plan.troubles, plan.own_cause(TWO)) == (BEFORE, 1450, (), "")


# --- the address ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("at", "address"),
    [
        ({2: ("192.168.56.50/24",)}, NEXT),
        ({2: ("172.20.0.4/16",)}, IPv4Address("172.20.0.4")),
        ({2: ("192.168.56.50/24", "192.168.56.11/24")}, ME),
        ({2: ("169.254.7.7/16", "192.168.56.50/24")}, NEXT),
        ({2: ("10.33.0.1/24", "192.168.56.50/24")}, NEXT),
        ({3: ("192.168.56.11/24",)}, ME),
        ({1: ("192.168.56.11/32",)}, ME),
    ],
    ids=["other", "other subnet", "kept beside a new one", "no link-local", "no pod's", "on another link", "on lo"],
)
def test_the_uplinks_address_is_followed_and_kept_for_as_long_as_the_node_has_it(
    at: dict[int, tuple[str, ...]], address: IPv4Address
) -> None:
    assert planned(seen(ETH0, ETH1, at=at)).uplink.address == address


def test_the_address_of_a_renamed_uplink_is_followed_all_the_same() -> None:
    plan = planned(seen(replace(ETH0, name="ens3"), at={2: ("192.168.56.50/24",)}))
    assert (plan.uplink.address, plan.uplink.name) == (NEXT, "ens3")


def test_a_configured_address_is_never_another() -> None:
    plan = planned(seen(at={2: ("192.168.56.50/24",)}), FIXED)
    assert plan.uplink.address == ME
    (trouble,) = plan.troubles
    assert (trouble.name, trouble.cuts) == ("node address", True)
    assert trouble.cause == "the node address 192.168.56.11 is on no interface of this node: eth0 has 192.168.56.50"
    assert "leave node_address out" in trouble.advice


@pytest.mark.parametrize(
    ("wanted", "other", "address", "name"),
    [
        (FIXED, {}, ME, "eth0"),
        (FOLLOWING, {}, ME, "eth0"),
        (Wanted(RANGE), {}, ME, "eth0"),
        (Wanted(RANGE), {"routes": {}}, ME, "eth0"),
        (Wanted(RANGE), {"routes": {TWO: SeenRoute((3,))}}, IPv4Address("10.9.0.1"), "eth1"),
        (Wanted(RANGE, uplink="eth1"), {}, IPv4Address("10.9.0.1"), "eth1"),
    ],
    ids=["configured", "its uplink", "the way to the nodes", "the default route", "another way", "another uplink"],
)
def test_a_starting_agent_finds_its_address(wanted: Wanted, other: Any, address: IPv4Address, name: str) -> None:
    what = seen(ETH0, ETH1, at={2: ("192.168.56.11/24",), 3: ("10.9.0.1/24",)}, **other)
    uplink = first_uplink(what, wanted, NODES)
    assert (uplink.address, uplink.name) == (address, name)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Wanted(RANGE, NEXT), "the node address 192.168.56.50 is on no interface of this node; its addresses are: 192"),
        (Wanted(RANGE, ME, "eth1"), "the node address 192.168.56.11 was expected on eth1, found on eth0"),
        (Wanted(RANGE, uplink="eth1"), "the uplink eth1 has no IPv4 address, or is not there; the addresses of this"),
        (Wanted(RANGE), "no address of this node leads to other nodes; its addresses are: 192.168.56.11"),
    ],
    ids=["no such address", "elsewhere", "no such uplink", "no way"],
)
def test_a_starting_agent_without_an_address_says_what_there_is(wanted: Wanted, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        first_uplink(seen(default=None, routes={}), wanted, NODES)
    assert sentence in raised.value.message
    assert raised.value.hint


ON_LO = {1: ("172.31.0.1/32",), 2: ("192.168.56.11/24",), 3: ("192.168.57.11/24",)}
ROUTER = IPv4Address("172.31.0.1")


@pytest.mark.parametrize(
    ("uplink", "routes", "name"),
    [
        ("", {TWO: SeenRoute((3,))}, "eth1"),
        ("", {TWO: SeenRoute((3,)), FAR: SeenRoute((3, 2))}, "eth0"),
        ("", {}, "eth0"),
        ("eth1", {}, "eth1"),
    ],
    ids=["the way to the nodes", "the narrower of two ways", "the default route", "the one that is named"],
)
@pytest.mark.parametrize("loopback", [LO, SeenLink(1, "dummy0", 1500, loopback=True)], ids=["lo", "dummy"])
def test_the_uplink_of_a_node_whose_address_is_on_its_loopback_leads_to_the_others(
    uplink: str, routes: dict[IPv4Address, SeenRoute], name: str, loopback: SeenLink
) -> None:
    what, wanted = seen(ETH0, ETH1, loopback, at=ON_LO, routes=routes), Wanted(RANGE, ROUTER, uplink)
    found = first_uplink(what, wanted, NODES)
    assert (found.address, found.name, found.loopback) == (ROUTER, name, True)
    plan = plan_uplink(what, wanted, found, tuple(routes))
    assert (plan.uplink.address, plan.uplink.name, plan.troubles) == (ROUTER, name, ())
    assert plan.uplink.mtu_bytes == {"eth0": 1500, "eth1": 9000}[name]


def test_an_address_on_the_loopback_from_which_nothing_leads_to_others_is_refused() -> None:
    what = seen(ETH0, at=ON_LO, routes={}, default=None)
    for uplink in ("", "eth9"):
        with pytest.raises(InputError, match=r"172.31.0.1 is on the loopback, and no interface leads from there"):
            first_uplink(what, Wanted(RANGE, ROUTER, uplink), NODES)


def test_the_uplink_towards_the_others_follows_the_routes() -> None:
    wanted, other = Wanted(RANGE, ROUTER), seen(ETH0, ETH1, at=ON_LO, routes={TWO: SeenRoute((3,))})
    found = first_uplink(seen(ETH0, ETH1, at=ON_LO), wanted, NODES)
    assert (found.name, plan_uplink(other, wanted, found, (TWO,)).uplink.name) == ("eth0", "eth1")


# --- what is wrong ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("what", "name", "cause", "cuts"),
    [
        (seen(ETH1, at={}), "uplink", "the uplink eth0 is gone, and with it the node address 192.168.56.11", True),
        (seen(replace(ETH0, up=False)), "uplink", "the uplink eth0 is down", True),
        (seen(replace(ETH0, carrier=False)), "uplink", "the uplink eth0 has no carrier", True),
        (seen(at={}), "uplink", "the uplink eth0 has no IPv4 address", True),
        (seen(replace(ETH0, name="ens3")), "uplink", "the uplink eth0 is called ens3 now", False),
        (
            seen(ETH0, ETH1, at={3: ("192.168.56.11/24",)}),
            "uplink",
            "the node address 192.168.56.11 is on eth1, and was expected on eth0",
            False,
        ),
        (
            seen(default=None),
            "default route",
            "the default route of this node is gone: pods do not reach the outside",
            False,
        ),
        (seen(routes={TWO: SeenRoute((2,))}), "routes", "no route of this node leads to 172.20.0.9", False),
    ],
    ids=["gone", "down", "no carrier", "no address", "renamed", "moved", "no default route", "no route"],
)
def test_what_is_wrong_is_told_with_its_cause_and_advice(what: Seen, name: str, cause: str, *, cuts: bool) -> None:
    (trouble,) = planned(what).troubles
    assert (trouble.name, trouble.cause, trouble.cuts) == (name, cause, cuts)
    assert trouble.advice


def test_an_address_that_went_to_lo_is_told_and_one_that_always_was_there_is_not() -> None:
    on_lo = seen(at={1: ("192.168.56.11/32",)})
    (trouble,) = planned(on_lo, FIXED).troubles
    assert "is on lo, where no other node reaches it by itself" in trouble.cause
    start = first_uplink(on_lo, FIXED, NODES)
    plan = planned(on_lo, FIXED, start)
    assert (plan.troubles, plan.pod_mtu_bytes) == ((), 1450), "the MTU is that of the routes, not of lo"


def test_a_default_route_that_never_was_is_not_missed() -> None:
    assert planned(seen(default=None), before=replace(BEFORE, outside=False)).troubles == ()
    again = planned(seen(), before=replace(BEFORE, outside=False))
    assert [trouble.name for trouble in planned(seen(default=None), before=again.uplink).troubles] == ["default route"]


def test_an_uplink_that_is_down_is_the_only_thing_that_is_told() -> None:
    plan = planned(seen(replace(ETH0, up=False), default=None, routes={}))
    assert [trouble.name for trouble in plan.troubles] == ["uplink"]
    assert plan.own_cause(TWO) == plan.own_cause(NEXT) == "the uplink eth0 is down"


def test_a_node_without_a_route_is_the_cause_for_that_one_only() -> None:
    plan = planned(seen(routes={TWO: SeenRoute((2,))}))
    assert plan.own_cause(FAR) == "this node has no route to 172.20.0.9"
    assert plan.own_cause(TWO) == ""


# --- the MTU ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("links", "routes", "uplink_mtu"),
    [
        ((ETH0,), {TWO: SeenRoute((2,)), FAR: SeenRoute((2,))}, 1500),
        ((replace(ETH0, mtu_bytes=1400),), {TWO: SeenRoute((2,))}, 1400),
        ((ETH0,), {TWO: SeenRoute((2,)), FAR: SeenRoute((2,), 1280)}, 1280),
        ((replace(ETH0, mtu_bytes=9000),), {TWO: SeenRoute((2,), 8000)}, 8000),
        ((ETH0, ETH1), {TWO: SeenRoute((3,))}, 9000),
        ((ETH0, ETH1), {TWO: SeenRoute((3, 2))}, 1500),
        ((ETH0,), {TWO: SeenRoute((1,)), FAR: SeenRoute((2,))}, 1500),
    ],
    ids=["link", "smaller link", "route", "larger", "by another link than the address's", "two ways", "itself"],
)
def test_the_mtu_is_the_lowest_of_the_routes(links: Any, routes: Any, uplink_mtu: int) -> None:
    plan = plan_uplink(seen(*links, routes=routes), FOLLOWING, BEFORE, tuple(routes))
    assert (plan.uplink.mtu_bytes, plan.pod_mtu_bytes) == (uplink_mtu, uplink_mtu - 50)


def test_without_a_way_the_mtu_stays_and_a_node_alone_has_its_links() -> None:
    assert planned(seen(replace(ETH0, mtu_bytes=1400, up=False), routes={})).pod_mtu_bytes == 1450
    alone = plan_uplink(seen(replace(ETH0, mtu_bytes=1400)), FOLLOWING, BEFORE, ())
    assert alone.pod_mtu_bytes == 1350
    on_lo = seen(replace(ETH0, mtu_bytes=1400), at={1: ("192.168.56.11/32",)})
    assert plan_uplink(on_lo, FIXED, BEFORE, ()).pod_mtu_bytes == 1350, "that of the default route"


def test_a_configured_mtu_is_kept_and_contradicted_when_it_does_not_fit() -> None:
    narrow = seen(replace(ETH0, mtu_bytes=1400))
    plan = planned(narrow, replace(FOLLOWING, mtu_bytes=1450))
    assert plan.pod_mtu_bytes == 1450
    (trouble,) = plan.troubles
    assert (trouble.name, trouble.cause) == (
        "mtu",
        "pods have the configured MTU of 1450 bytes, and the way to other nodes carries 1350",
    )
    fits = planned(narrow, replace(FOLLOWING, mtu_bytes=1300))
    assert (fits.pod_mtu_bytes, fits.troubles) == (1300, ())


def test_a_way_that_becomes_too_narrow_for_pods_changes_nothing_and_is_told() -> None:
    narrow = seen(replace(ETH0, mtu_bytes=500))
    plan = planned(narrow)
    assert (plan.pod_mtu_bytes, plan.uplink.mtu_bytes) == (1450, 1500)
    (trouble,) = plan.troubles
    assert "too narrow" in trouble.cause
    with pytest.raises(InputError, match="at least 626 bytes"):
        planned(narrow, before=first_uplink(narrow, FOLLOWING, NODES))
