"""Things of other software in the way when an agent starts: refused with a sentence, worked round, or told of."""

import json
import os
import socket
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from plugin.link import rtnl
from plugin.link.netlink import Netlink
from testbed.machine.space import call, run
from tests.support.cluster import Cluster, wait_for
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
ON_LOOPBACK = {1: "172.31.0.1", 2: "172.31.0.2"}


def events(cluster: Cluster, event: str, number: int = 1) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in cluster.log(number).splitlines()]
    return [line for line in lines if line["event"] == event]


def troubles(cluster: Cluster, number: int = 1) -> list[dict[str, Any]]:
    """What is wrong now, as `weave status` has it."""
    return list(cluster.report(number)["problems"])


def addresses(cluster: Cluster, name: str = "weave") -> list[str]:
    return list(call(cluster.nodes[1], lambda: Witness().addresses(name)))


def route(cluster: Cluster, text: str, number: int = 1) -> None:
    with cluster.netlink(cluster.nodes[number]) as node:
        node.request(rtnl.route_add(IPv4Network(text), index=2))


# --- routes into the pod range --------------------------------------------------------------------------------------
def test_a_route_to_a_larger_network_is_no_trouble_ever(cluster: Cluster) -> None:
    for text in ("10.0.0.0/8", "0.0.0.0/0"):
        route(cluster, text)
    cluster.mesh()
    pod, _ = cluster.add(1, "redpod")
    _, address = cluster.add(2, "bluepod")
    wait_for(lambda: cluster.ping(pod, address) == 0, "the pods reach each other")
    cluster.kill(1)
    cluster.start(1)
    assert troubles(cluster) == []


@pytest.mark.parametrize("text", ["10.40.0.0/16", "10.32.0.0/12"])
def test_a_route_into_the_range_is_refused_at_a_first_start_only(cluster: Cluster, text: str) -> None:
    route(cluster, text, 2)
    reason = cluster.refusal(2)
    assert f"the pod range 10.32.0.0/12 overlaps with the existing route {text} of this node by eth0" in reason
    cluster.start(1)
    pod, address = cluster.add(1, "redpod")
    other, other_address = cluster.add(1, "greenpod")
    cluster.kill(1)
    if text == "10.32.0.0/12":
        with cluster.netlink(cluster.nodes[1]) as node:
            assert any(found.destination == IPv4Network(text) for found in node.routes()), "the switch's own"
        run(cluster.nodes[1], ["ip", "route", "append", text, "dev", "eth0", "metric", "9"], timeout_s=10)
    else:
        route(cluster, text)
    cluster.start(1)
    (line,) = troubles(cluster)
    assert f"the existing route {text} of this node by eth0" in line["cause"]
    assert cluster.ping(pod, other_address) == cluster.ping(other, address) == 0
    assert cluster.cni(1, "CHECK", pod) == (200, "")
    assert cluster.add(1, "bluepod")[1]


def test_a_route_that_comes_later_is_told_while_it_is_there(cluster: Cluster) -> None:
    cluster.start(1)
    assert troubles(cluster) == []
    route(cluster, "10.40.0.0/16")
    wait_for(lambda: [one["object"] for one in troubles(cluster)] == ["pod range"], "the route is told")
    run(cluster.nodes[1], ["ip", "route", "del", "10.40.0.0/16"], timeout_s=10)
    wait_for(lambda: troubles(cluster) == [], "and no longer")


# --- addresses ------------------------------------------------------------------------------------------------------
def test_a_node_address_on_the_loopback_works_as_on_a_router(cluster: Cluster) -> None:
    for number, address in ON_LOOPBACK.items():
        other = 3 - number
        with cluster.netlink(cluster.nodes[number]) as node:
            node.request(
                rtnl.address_add(1, IPv4Interface(f"{address}/32")),
                rtnl.route_add(
                    IPv4Network(f"{ON_LOOPBACK[other]}/32"), gateway=IPv4Address(f"192.168.56.{10 + other}")
                ),
            )
    cluster.start(1, node_address=ON_LOOPBACK[1], peers=[ON_LOOPBACK[2]], initial_peers=1)
    cluster.start(2, node_address=ON_LOOPBACK[2], peers=[ON_LOOPBACK[1]])
    wait_for(lambda: all(cluster.peer(number)["state"] == "established" for number in (1, 2)), "mesh")
    overlay = cluster.report(1)["overlay"]
    assert (overlay["uplink"], overlay["uplink_mtu"], overlay["mtu"]) == ("eth0", 1500, 1450)
    pod, _ = cluster.add(1, "redpod")
    _, address = cluster.add(2, "bluepod")
    wait_for(lambda: cluster.ping(pod, address, "-Mdo", "-s", str(1450 - 28)) == 0, "full packets between the nodes")


def test_a_node_address_on_the_loopback_that_leads_nowhere_is_refused(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        node.request(rtnl.address_add(1, IPv4Interface("172.31.0.1/32")))
    reason = cluster.refusal(1, node_address="172.31.0.1")
    assert "172.31.0.1 is on the loopback, and no interface leads from there to other nodes" in reason
    cluster.start(1, node_address="172.31.0.1", uplink="eth0")
    assert cluster.report(1)["overlay"]["uplink"] == "eth0"


@pytest.mark.parametrize(
    ("other", "left"),
    [("10.48.0.0/12", "10.48.0.1/12"), ("10.32.0.0/16", "10.32.0.1/16"), ("10.0.0.0/8", "10.0.0.1/8")],
)
def test_the_address_of_an_earlier_range_goes_from_the_switch(cluster: Cluster, other: str, left: str) -> None:
    cluster.start(1)
    assert addresses(cluster) == ["10.32.0.1/12"]
    cluster.kill(1)
    cluster.start(1, range=other)
    assert addresses(cluster) == [left]
    assert [line["address"] for line in events(cluster, "earlier address removed")] == ["10.32.0.1/12"]


def test_an_address_that_somebody_else_gave_the_switch_stays_and_is_told(cluster: Cluster) -> None:
    cluster.start(1)
    with cluster.netlink(cluster.nodes[1]) as node:
        bridge = node.link("weave")
        assert bridge is not None
        node.request(rtnl.address_add(bridge.index, IPv4Interface("172.16.9.1/24")))
    cluster.kill(1)
    cluster.start(1)
    assert sorted(addresses(cluster)) == ["10.32.0.1/12", "172.16.9.1/24"]
    (line,) = troubles(cluster)
    assert "weave has an address outside of the pod range, not from this agent: 172.16.9.1/24" in line["cause"]
    assert line["advice"] == "if nobody needs it: ip address del 172.16.9.1/24 dev weave"


# --- links ----------------------------------------------------------------------------------------------------------
def as_it_is(node: Netlink) -> tuple[object, ...]:
    found = node.link("weave")
    assert found is not None
    return found.index, found.mac, found.mtu, found.up


def test_a_bridge_of_somebody_else_is_not_taken_over(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        node.request(rtnl.bridge_add("weave", index=20), rtnl.address_add(20, IPv4Interface("172.16.9.1/24")))
        before = as_it_is(node)
    reason = cluster.refusal(1)
    assert reason.startswith("weave exists on this node and is a bridge of somebody else: its ports are none, ")
    with cluster.netlink(cluster.nodes[1]) as node:
        assert as_it_is(node) == before
    assert addresses(cluster) == ["172.16.9.1/24"]
    cluster.start(1, bridge="pods")


def test_the_bridge_of_weave_net_is_known_by_its_ports(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        near = rtnl.VethEnd(name="vethwe-bridge", master=20)
        node.request(
            rtnl.bridge_add("weave", index=20), rtnl.veth_add(near, rtnl.VethEnd(name="vethwe-datapath"))
        )  # fmt: skip
    assert "is the bridge of Weave Net: its ports are vethwe-bridge" in cluster.refusal(1)


def test_a_bridge_of_our_own_is_taken_up_under_another_name_of_node_and_cluster(cluster: Cluster) -> None:
    cluster.start(1)
    cluster.kill(1)
    cluster.start(1, name="renamed")
    cluster.kill(1)
    cluster.start(1, cluster="other")


def test_a_link_that_bears_our_overlays_name_is_not_touched(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        node.request(rtnl.veth_add(rtnl.VethEnd(name="vxlan-6784"), rtnl.VethEnd(name="far")))
    assert "vxlan-6784 exists on this node and is a veth interface, not the overlay's device" in cluster.refusal(1)
    with cluster.netlink(cluster.nodes[1]) as node:
        found = node.link("vxlan-6784")
        assert found is not None
        assert found.kind == "veth"
        node.request(
            rtnl.link_del(found.index),
            rtnl.vxlan_add("vxlan-6784", vni=9, local=IPv4Address("192.168.56.11"), port=4789),
        )
    assert "a VXLAN device of somebody else, with VNI 9 on UDP port 4789" in cluster.refusal(1)
    with cluster.netlink(cluster.nodes[1]) as node:
        assert node.link("vxlan-6784") is not None


def test_an_outdated_overlay_of_our_own_is_replaced(cluster: Cluster) -> None:
    cluster.start(1)
    cluster.kill(1)
    cluster.start(1, vni=2)
    assert call(cluster.nodes[1], lambda: Witness().kind_values("vxlan-6784")["IFLA_VXLAN_ID"]) == 2


# --- ports and tables -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "port", "sentence"),
    [
        (socket.SOCK_DGRAM, 6784, "UDP port 6784, the overlay's, is taken by "),
        (socket.SOCK_DGRAM, 6783, "UDP port 6783 on 192.168.56.11 cannot be used: Address already in use by "),
        (socket.SOCK_STREAM, 6783, "TCP port 6783 on 192.168.56.11 cannot be used: Address already in use by "),
    ],
)
def test_a_port_that_a_process_has_is_refused_with_the_process(
    cluster: Cluster, kind: int, port: int, sentence: str
) -> None:
    def occupy() -> socket.socket:
        taken = socket.socket(socket.AF_INET, kind)
        taken.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        return taken

    with call(cluster.nodes[1], occupy):
        reason = cluster.refusal(1)
    assert reason.startswith(sentence), reason
    assert reason.endswith(f"(pid {os.getpid()})")
    cluster.start(1)


def test_a_vni_that_another_device_has_is_refused_with_its_name(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        node.request(rtnl.vxlan_add("foreign", vni=1, local=IPv4Address("192.168.56.11"), port=6784))
    assert cluster.refusal(1) == "VNI 1 on UDP port 6784 belongs to another device of this node: foreign"
    cluster.start(1, vni=2)  # two devices of one port share it


def test_a_table_of_our_name_that_is_not_ours_is_not_replaced(cluster: Cluster) -> None:
    foreign = "add table ip weave; add chain ip weave looms; add rule ip weave looms counter"
    assert run(cluster.nodes[1], ["nft", foreign], timeout_s=10).returncode == 0
    reason = cluster.refusal(1)
    assert reason == "an nftables table ip weave exists on this node and is not this agent's: in it are looms"
    listed = run(cluster.nodes[1], ["nft", "list", "table", "ip", "weave"], timeout_s=10).stdout
    assert "chain looms" in listed
    assert (
        run(cluster.nodes[1], ["nft", "flush table ip weave; delete chain ip weave looms"], timeout_s=10).returncode
        == 0
    )
    cluster.start(1)  # an empty one is nobody's
    cluster.kill(1)
    cluster.start(1)  # and ours is ours
