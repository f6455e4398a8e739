"""The kernel's entries that follow from who is where."""

from ipaddress import IPv4Address

from plugin.core.forwarding.endpoints import Located
from plugin.core.forwarding.forward import Forwarding, affected, changes, narrowed, plan_forwarding
from plugin.core.messages.values import Endpoint

ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
A, B = IPv4Address("10.32.0.1"), IPv4Address("10.32.0.2")
MAC, OTHER = "0a:58:0a:20:00:01", "0a:58:0a:20:00:02"


def at(address: IPv4Address, mac: str, node: IPv4Address | None, stamp: int = 1) -> dict[IPv4Address, Located]:
    return {address: Located(Endpoint(address, mac, stamp), node)}


def test_a_remote_pod_needs_a_node_and_a_neighbour_a_local_one_only_a_neighbour() -> None:
    wanted = plan_forwarding(at(A, MAC, ONE) | at(B, OTHER, None), [ONE, TWO], [])
    assert wanted == Forwarding(frozenset({ONE, TWO}), {MAC: ONE}, {A: MAC, B: OTHER})


def test_the_bridges_own_address_needs_no_neighbour() -> None:
    assert plan_forwarding(at(A, MAC, None), [], [A]).neighbours == {}


def test_a_pod_that_came_here_with_its_mac_is_not_sent_away() -> None:
    assert plan_forwarding(at(A, MAC, ONE) | at(B, MAC, None), [], []).remote == {}


def test_of_two_addresses_with_one_mac_the_later_claim_names_the_node() -> None:
    early, late = at(A, MAC, ONE, stamp=1), at(B, MAC, TWO, stamp=2)
    assert plan_forwarding(early | late, [], []).remote == plan_forwarding(late | early, [], []).remote == {MAC: TWO}


def test_nothing_to_do_is_false() -> None:
    same = Forwarding(frozenset({ONE}), {MAC: ONE}, {A: MAC})
    assert not changes(same, same)


def test_changes_name_what_to_write_and_what_to_remove() -> None:
    found = Forwarding(frozenset({ONE}), {MAC: ONE, OTHER: ONE}, {A: MAC})
    difference = changes(found, Forwarding(frozenset({TWO}), {MAC: TWO}, {B: MAC}))
    assert difference
    assert (difference.flood_add, difference.flood_del) == ((TWO,), (ONE,))
    assert (difference.remote_set, difference.remote_del) == (((MAC, TWO),), (OTHER,))
    assert (difference.neighbour_set, difference.neighbour_del) == (((B, MAC),), (A,))


def test_a_small_change_is_compared_with_the_entries_it_accounts_for() -> None:
    known = Forwarding(frozenset({ONE}), {MAC: ONE, OTHER: TWO}, {A: MAC, B: OTHER})
    assert narrowed(known, {MAC: {A}, OTHER: {B}}, {A}) == Forwarding(frozenset({ONE}), {MAC: ONE}, {A: MAC})
    assert narrowed(known, {MAC: {A, B}}, {A}).remote == {}


def test_an_address_that_shares_its_mac_is_decided_together_with_the_other() -> None:
    known = Forwarding(frozenset(), {MAC: ONE}, {A: MAC})
    assert affected(known, {MAC: {A}}, at(B, MAC, None), {B}) == {A, B}
    assert affected(known, {MAC: {A}}, {}, {A}) == {A}
