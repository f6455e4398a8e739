"""Two nodes and who has which MAC and address: refusals by name, one winner everywhere, pods that need not wait."""

import json
import os
from contextlib import contextmanager

import pytest

from plugin.core.membership.switches import bridge_mac
from plugin.link import rtnl
from testbed.machine.space import Space, run
from tests.support.cluster import Cluster, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
MAC, OTHER = "02:aa:00:00:00:05", "02:aa:00:00:00:06"
SOON_S = 5
"""Far less than the half minute that a pod believes in what it has heard last."""


def asking(**what: object) -> dict[str, object]:
    return {"runtimeConfig": what}


def attached(cluster: Cluster, number: int, name: str, **what: object) -> tuple[Space, str]:
    pod = cluster.space(name)
    status, text = cluster.cni(number, "ADD", pod, **asking(**what))
    assert status == 200, text
    return pod, json.loads(text)["ips"][0]["address"].partition("/")[0]


def refused(cluster: Cluster, number: int, name: str, **what: object) -> dict[str, object]:
    status, text = cluster.cni(number, "ADD", cluster.space(name), **asking(**what))
    assert status != 200
    return json.loads(text)


def believes(pod: Space, address: str) -> str:
    """The MAC that a pod has for an address."""
    words = run(pod, ["ip", "neighbour", "show", address], timeout_s=10).stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def told(cluster: Cluster, number: int) -> dict[str, list[dict[str, object]]]:
    return json.loads(cluster.api(number, "/status")[1])


def remote_macs(cluster: Cluster, number: int) -> dict[str, str]:
    return cluster.report(number)["forwarding"]["remote"]


@contextmanager
def cut(cluster: Cluster):
    """The cable of node 2 is out."""
    with cluster.netlink(cluster.underlay) as link:
        cable = next(one.index for one in link.links() if one.name == "n2")
        link.request(rtnl.link_set(cable, up=False))
        try:
            yield
        finally:
            link.request(rtnl.link_set(cable, up=True))


@pytest.mark.parametrize("to", [1, 2], ids=["the same node", "another node"])
def test_pods_reach_an_address_that_came_back_with_another_mac_at_once(cluster: Cluster, to: int) -> None:
    cluster.mesh()
    talkers = [cluster.add(number, f"talker{number}")[0] for number in (1, 2)]
    owner, address = attached(cluster, 1, "greenpod", mac=MAC)
    for talker in talkers:
        wait_for(lambda talker=talker: cluster.ping(talker, address) == 0, "the first answer")
        assert believes(talker, address) == MAC
    assert cluster.cni(1, "DEL", owner)[0] == 200
    attached(cluster, to, "bluepod", mac=OTHER, ips=[address])
    for talker in talkers:
        wait_for(lambda talker=talker: believes(talker, address) == OTHER, "the new pair", SOON_S)
        assert cluster.ping(talker, address) == 0
    for number in (1, 2):  # what the switch answers ARP from, and the node itself sends by
        assert cluster.report(number)["forwarding"]["neighbours"][address] == OTHER


def test_a_mac_is_refused_by_its_holders_name_wherever_the_holder_is(cluster: Cluster) -> None:
    cluster.mesh()
    _, address = attached(cluster, 2, "bluepod", mac=MAC)
    wait_for(lambda: cluster.knows(1, address), "node 1 knows the pod")
    error = refused(cluster, 1, "redpod", mac=MAC)
    assert (error["code"], error["msg"]) == (
        7, f"the MAC address {MAC} is taken: it is that of pod bluepodbluep of node2",
    )  # fmt: skip
    switch = bridge_mac("weave", "node2")
    error = refused(cluster, 1, "rosepod", mac=switch)
    assert (error["code"], error["msg"]) == (7, f"the MAC address {switch} is taken: it is that of the switch of node2")
    assert cluster.held(1) == set()


def test_of_two_that_took_one_mac_while_they_could_not_hear_of_it_one_wins_everywhere(cluster: Cluster) -> None:
    cluster.mesh()
    witnesses = {number: cluster.add(number, f"talker{number}")[0] for number in (1, 2)}
    with cut(cluster):
        pods = {number: attached(cluster, number, f"twin{number}", mac=MAC) for number in (1, 2)}

    def displaced() -> list[int]:
        return [number for number in (1, 2) if '"pod displaced"' in cluster.log(number)]

    wait_for(displaced, "one of them is told", 20)
    (loser,) = displaced()
    winner = 3 - loser
    status, text = cluster.cni(loser, "CHECK", pods[loser][0], **asking(mac=MAC))
    assert (status == 200, json.loads(text)["code"]) == (False, 103)
    assert f"its MAC {MAC} is that of pod twin{winner}twin" in text
    assert cluster.cni(winner, "CHECK", pods[winner][0], **asking(mac=MAC)) == (200, "")
    for number, witness in witnesses.items():
        wait_for(lambda witness=witness: cluster.ping(witness, pods[winner][1]) == 0, "the winner answers", SOON_S)
        assert cluster.ping(witness, pods[loser][1], "-W1") != 0, f"node {number} still lets the loser in"
    assert remote_macs(cluster, loser)[MAC] == f"192.168.56.{10 + winner}"
    assert MAC not in remote_macs(cluster, winner)

    assert [one["object"] for one in told(cluster, loser)["problems"]] == [f"claim twin{loser}twin{loser}tw"]
    assert told(cluster, winner)["problems"] == told(cluster, loser)["repairs"] == [], "nobody mends what is meant so"

    cluster.kill(loser)
    cluster.start(loser)
    wait_for(lambda: remote_macs(cluster, loser).get(MAC), "the same after a restart")
    assert displaced() == [loser], "whose claim is older does not change with it"

    assert cluster.cni(winner, "DEL", pods[winner][0])[0] == 200
    for witness in witnesses.values():
        wait_for(lambda witness=witness: cluster.ping(witness, pods[loser][1]) == 0, "it has its place again", SOON_S)
    assert cluster.cni(loser, "CHECK", pods[loser][0], **asking(mac=MAC)) == (200, "")
    assert told(cluster, loser)["problems"] == []


def test_a_switch_wins_its_mac_from_a_pod_that_asked_for_it_before_the_switch_was_known(cluster: Cluster) -> None:
    cluster.start(1)
    friend, friends = cluster.add(1, "friendpod")
    attached(cluster, 1, "thiefpod", mac=bridge_mac("weave", "node2"))
    cluster.start(2)
    pod, _ = cluster.add(2, "bluepod")
    wait_for(lambda: '"pod displaced"' in cluster.log(1), "the thief is told", 20)
    assert "that of the switch of node2" in cluster.log(1)
    gateway = cluster.report(2)["bridge"]["address"]
    wait_for(lambda: cluster.ping(pod, gateway) == 0, "a pod of node 2 reaches its gateway", SOON_S)
    wait_for(lambda: cluster.ping(pod, friends) == 0, "and a pod of node 1", SOON_S)
    wait_for(lambda: cluster.ping(friend, gateway) == 0, "and that one the switch", SOON_S)
    assert cluster.peer(1)["state"] == cluster.peer(2)["state"] == "established"


def test_pods_that_believe_in_another_gateway_mac_are_put_right_when_the_switch_has_its_address_again(
    cluster: Cluster,
) -> None:
    cluster.start(1)
    pod, _ = cluster.add(1, "redpod")
    gateway = cluster.report(1)["bridge"]["address"]
    assert cluster.ping(pod, gateway) == 0
    command = ["ip", "neighbour", "replace", gateway, "lladdr", OTHER, "dev", "eth0", "nud", "reachable"]
    assert run(pod, command, timeout_s=10).returncode == 0
    for verb in ("/hide", "/expose"):
        assert cluster.api(1, verb, b"{}")[0] == 200
    wait_for(lambda: believes(pod, gateway) == bridge_mac("weave", "node1"), "the switch's own MAC", SOON_S)
