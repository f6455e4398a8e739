"""Two that claim the same: which of them stands, what the other is told, and that it stands again."""

from ipaddress import IPv4Address

from plugin.core.forwarding.claims import Claims, Displaced, Located
from plugin.core.messages.values import Endpoint

HERE, ONE, TWO = (IPv4Address(f"192.168.56.{number}") for number in (20, 11, 12))
A, B, C = (IPv4Address(f"10.32.0.{number}") for number in (1, 2, 3))
MAC, OTHER, SWITCH = "02:aa:00:00:00:01", "02:aa:00:00:00:02", "02:00:00:00:00:12"


def claims() -> Claims:
    """Those that the node HERE knows; the switch of TWO has the MAC SWITCH."""
    return Claims(lambda: HERE, lambda node: SWITCH if node == TWO else "")


def test_of_two_with_one_mac_the_later_stands_and_the_earlier_is_nowhere() -> None:
    known = claims()
    early, late = Endpoint(A, MAC, 1, "red"), Endpoint(B, MAC, 2, "blue")
    known.put(early, None)
    known.put(late, ONE)
    assert known.standing(A) is None
    assert known.standing(B) == Located(late, ONE)
    assert known.claimant(A) == Located(early, None), "its address is not free"
    assert known.displaced() == {A: Displaced(early, Located(late, ONE))}
    assert known.displaced()[A].over == f"MAC {MAC}"
    known.drop(B, ONE)
    assert known.standing(A) == Located(early, None)
    assert known.displaced() == {}


def test_of_two_with_one_address_the_later_stands_whatever_their_macs() -> None:
    known = claims()
    mine = Endpoint(A, MAC, 1)
    known.put(mine, None)
    known.put(Endpoint(A, OTHER, 2), ONE)
    assert known.displaced()[A].over == f"address {A}"
    assert known.holder(MAC) == Located(mine, None)


def test_a_switch_keeps_its_mac_whatever_pods_claim_later() -> None:
    known = claims()
    switch = Endpoint(A, SWITCH, 1, "node2/weave")
    known.put(Endpoint(B, SWITCH, 99, "thief"), None)
    known.put(switch, TWO)
    assert known.holder(SWITCH) == Located(switch, TWO)
    assert known.standing(B) is None
    assert known.displaced().keys() == {B}


def test_this_nodes_switch_has_its_mac_before_it_has_an_address() -> None:
    known = Claims(lambda: TWO, lambda node: SWITCH if node == TWO else "")
    known.put(Endpoint(B, SWITCH, 99, "thief"), ONE)
    assert known.standing(B) is None, "an entry for it would lead the node's own frames away"


def test_addresses_of_one_pod_share_its_mac_and_are_no_dispute() -> None:
    known = claims()
    for address in (A, B):
        known.put(Endpoint(address, MAC, 1), ONE)
    assert known.standing(A) == Located(Endpoint(A, MAC, 1), ONE)
    assert known.sharing([MAC]) == {A, B}
    known.put(Endpoint(C, MAC, 5), TWO)
    assert known.standing(A) is known.standing(B) is None, "with the MAC it loses both"
    known.drop(C, TWO)
    known.drop(A, ONE)
    assert known.standing(B) is not None


def test_equal_claims_go_to_the_lower_node_address_also_when_this_node_is_one_of_them() -> None:
    known = claims()
    known.put(Endpoint(A, MAC, 3), None)
    known.put(Endpoint(A, MAC, 3), ONE)
    assert known.standing(A) == Located(Endpoint(A, MAC, 3), ONE)


def test_what_is_dropped_leaves_nothing_behind() -> None:
    known = claims()
    known.put(Endpoint(A, MAC, 1), None)
    known.put(Endpoint(A, OTHER, 2), None)
    known.put(Endpoint(B, OTHER, 3), ONE)
    known.drop(A, None)
    known.drop(A, None)
    known.drop(B, ONE)
    assert (len(known), list(known), known.holder(MAC), known.holder(OTHER)) == (0, [], None, None)
    assert known.displaced() == {}
