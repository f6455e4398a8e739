"""Who has a MAC or an address is named so that a person finds it."""

import random
from ipaddress import IPv4Address, IPv4Network

from plugin.core.forwarding.endpoints import Table
from plugin.core.membership.switches import bridge_mac
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Endpoint, Member
from plugin.core.node import Node

ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
RED, BLUE, GATEWAY = (IPv4Address(f"10.32.0.{number}") for number in (2, 3, 1))
MAC, OTHER = "02:aa:00:00:00:01", "02:aa:00:00:00:02"


def node_with_a_peer() -> Node:
    me = Member("node1", "1" * 16, ONE, 1)
    node = Node(me=me, keys=Keys("weave", IPv4Network("10.32.0.0/12")), seeds=[], founders=1, chance=random.Random(1))
    node.members.learn(Member("node2", "2" * 16, TWO, 1))
    endpoints = {Endpoint(BLUE, MAC, 1, "shop/blue"), Endpoint(GATEWAY, bridge_mac("weave", "node2"), 1, "node2/weave")}
    node.directory.replace(TWO, Table(1, 1, frozenset(endpoints)))
    node.attach(RED, OTHER, "", now_s=0)
    return node


def test_pods_are_named_with_their_nodes() -> None:
    holders = node_with_a_peer().holders
    assert holders.of_mac(MAC) == holders.of_address(BLUE) == "pod shop/blue of node2"
    assert holders.of_mac(OTHER) == holders.of_address(RED) == "pod 10.32.0.2 of node1"
    assert holders.of_mac("02:aa:00:00:00:03") == holders.of_address(IPv4Address("10.32.0.9")) == ""


def test_a_switch_is_named_by_its_node_also_before_it_has_an_address() -> None:
    node = node_with_a_peer()
    node.members.learn(Member("node3", "3" * 16, IPv4Address("192.168.56.13"), 1))
    assert node.holders.of_address(GATEWAY) == "the switch of node2"
    for name in ("node1", "node2", "node3"):
        assert node.holders.of_mac(bridge_mac("weave", name)) == f"the switch of {name}"
