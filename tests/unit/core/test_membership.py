"""What an agent knows of its peers, event by event."""

from ipaddress import IPv4Address

import pytest

from plugin.core.membership import Peer, PeerState, StaticMembership

ONE, TWO, THREE = (IPv4Address(f"192.168.56.{number}") for number in (11, 12, 13))


def members() -> StaticMembership:
    return StaticMembership("node1", [ONE, TWO, THREE], ONE)


def hear(
    membership: StaticMembership, name: str = "node2", *, incarnation: int = 1, hears_us: bool = True
) -> Peer | None:
    return membership.hear(TWO, name, incarnation, hears_us=hears_us, now_s=0)


def test_this_node_is_not_its_own_peer() -> None:
    assert members().peers == {TWO: Peer(TWO), THREE: Peer(THREE)}


def test_a_peer_that_hears_us_is_established_one_that_does_not_is_pending() -> None:
    membership = members()
    hear(membership, hears_us=False)
    assert membership.peers[TWO].state is PeerState.PENDING
    assert "UDP 6783" in membership.peers[TWO].reason
    hear(membership)
    assert membership.peers[TWO].state is PeerState.ESTABLISHED
    assert membership.peers[TWO].reason == ""


def test_strangers_and_past_lives_are_not_heard() -> None:
    membership = members()
    hear(membership, incarnation=5)
    assert hear(membership, incarnation=4) is None
    assert membership.hear(IPv4Address("1.1.1.1"), "x", 1, hears_us=True, now_s=0) is None
    membership.refuse(IPv4Address("1.1.1.1"), "no")
    assert set(membership.peers) == {TWO, THREE}


@pytest.mark.parametrize(("name", "owner"), [("node1", "this node"), ("node3", str(THREE))])
def test_a_name_that_is_taken_is_refused(name: str, owner: str) -> None:
    membership = members()
    membership.hear(THREE, "node3", 1, hears_us=True, now_s=0)
    assert hear(membership, name) is None
    assert membership.peers[TWO].state is PeerState.REFUSED
    assert owner in membership.peers[TWO].reason


def test_the_name_of_a_failed_peer_is_free_again() -> None:
    membership = members()
    membership.hear(THREE, "node3", 1, hears_us=True, now_s=0)
    membership.silent(now_s=100, timeout_s=5)
    assert hear(membership, "node3") is not None


def test_a_peer_fails_once_after_the_timeout_and_returns_when_heard() -> None:
    membership = members()
    hear(membership)
    assert membership.silent(now_s=5, timeout_s=5) == []
    assert [peer.state for peer in membership.silent(now_s=5.1, timeout_s=5)] == [PeerState.FAILED]
    assert membership.silent(now_s=9, timeout_s=5) == []
    assert hear(membership) is not None
    assert membership.peers[TWO].state is PeerState.ESTABLISHED
