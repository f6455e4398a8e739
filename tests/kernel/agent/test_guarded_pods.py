"""The guard of a whole agent: in force when ADD answers, gone with the pod, the same after a restart or a loss."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plugin.link import netns, rtnl
from testbed.machine.space import call, run
from tests.support.cluster import Cluster, wait_for
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


def nft_set(cluster: Cluster, number: int, name: str, family: str = "bridge") -> list[Any]:
    text = call(
        cluster.nodes[number],
        lambda: subprocess.check_output(["nft", "-j", "list", "set", family, "weave-guard", name]),
    )
    return next(one["set"] for one in json.loads(text)["nftables"] if "set" in one).get("elem", [])


def entries(cluster: Cluster, number: int = 1) -> list[str]:
    return sorted(
        json.dumps(one)
        for name in ("sources", "macs", "any-mac", "any-address", "promiscuous")
        for one in nft_set(cluster, number, name)
    )


def flags(cluster: Cluster, name: str, number: int = 1) -> tuple[int, int]:
    fd = netns.open_netns(cluster.nodes[number].net)
    try:
        found = Witness(fd).port_flags(name)
    finally:
        os.close(fd)
    return found["LEARNING"], found["LOCKED"]


def test_a_pod_is_guarded_when_add_answers_and_forgotten_when_del_does(cluster: Cluster) -> None:
    cluster.start(1)
    assert entries(cluster) == []
    red, address = cluster.add(1, "redpod")
    (name,) = cluster.pod_links(1)
    assert len(entries(cluster)) == 2
    assert address in entries(cluster)[0]
    assert flags(cluster, name) == (0, 1)
    assert cluster.cni(1, "DEL", red)[0] == 200
    assert entries(cluster) == []


def test_an_add_that_fails_leaves_no_entry(cluster: Cluster) -> None:
    cluster.start(1)
    pod = cluster.space("redpod")
    with cluster.netlink(pod) as inside:
        inside.request(rtnl.veth_add(rtnl.VethEnd(name="eth0"), rtnl.VethEnd(name="far")))
    assert cluster.cni(1, "ADD", pod)[0] != 200
    assert entries(cluster) == []


def test_a_restart_changes_nothing_of_the_guard_and_forgets_pods_that_went_meanwhile(cluster: Cluster) -> None:
    cluster.start(1)
    red, _ = cluster.add(1, "redpod")
    green = cluster.space("greenpod")
    assert cluster.cni(1, "ADD", green, guard={"macs": "any"})[0] == 200
    before = entries(cluster)
    cluster.kill(1)
    assert entries(cluster) == before, "no agent, and the pods are guarded"
    cluster.start(1)
    assert entries(cluster) == before
    cluster.kill(1)
    with cluster.netlink(red) as inside:
        link = inside.link("eth0")
        assert link is not None
        inside.request(rtnl.link_del(link.index))
    cluster.start(1)
    assert len(entries(cluster)) == len(before) - 2
    listed = json.loads(cluster.api(1, "/ps")[1])
    assert [one["guard"] for one in listed if one.get("guard")] == ["guard:macs=any"]


def test_pods_of_an_agent_that_knew_no_guard_are_guarded_from_the_next_start_on(cluster: Cluster) -> None:
    cluster.start(1)
    cluster.add(1, "redpod")
    (name,) = cluster.pod_links(1)
    before = entries(cluster)
    cluster.kill(1)
    node = cluster.nodes[1]
    run(node, ["nft", "flush", "ruleset"], timeout_s=10)
    with cluster.netlink(node) as inside:
        link = inside.link(name)
        assert link is not None
        inside.request(rtnl.port_flags_set(link.index, {"learning": True, "locked": False}))
    cluster.start(1)
    assert entries(cluster) == before
    assert flags(cluster, name) == (0, 1)


def test_a_lost_journal_takes_no_exemption_along(cluster: Cluster) -> None:
    cluster.start(1)
    pod = cluster.space("redpod")
    assert cluster.cni(1, "ADD", pod, guard={"addresses": ["10.40.0.9"], "macs": ["02:00:00:00:00:05"]})[0] == 200
    before = entries(cluster)
    cluster.kill(1)
    (Path(cluster.tmp) / "d1" / "state" / "attachments.journal").unlink()
    cluster.start(1)
    assert entries(cluster) == before
    (listed,) = [one for one in json.loads(cluster.api(1, "/ps")[1]) if "guard" in one]
    assert listed["guard"] == "guard:macs=02:00:00:00:00:05 guard:addresses=10.40.0.9"


def test_reset_leaves_no_table(cluster: Cluster) -> None:
    agent = cluster.start(1)
    cluster.api(1, "/reset", b"{}")
    wait_for(lambda: agent.poll() is not None, "the agent ends")
    assert run(cluster.nodes[1], ["nft", "list", "ruleset"], timeout_s=10).stdout == ""


def test_a_moved_address_and_a_second_mac_are_carried_for_whom_they_are_listed(cluster: Cluster) -> None:
    cluster.start(1)
    green, _ = cluster.add(1, "greenpod")
    red = cluster.space("redpod")
    assert cluster.cni(1, "ADD", red, guard={"addresses": ["10.40.0.9"]})[0] == 200
    ip = shutil.which("ip") or "ip"
    run(red, [ip, "address", "add", "10.40.0.9/12", "dev", "eth0"], timeout_s=10)
    run(green, [ip, "address", "add", "10.40.0.8/12", "dev", "eth0"], timeout_s=10)
    assert cluster.ping(green, "10.40.0.9") == 0
    assert cluster.ping(red, "10.40.0.8") != 0, "green has it, but may not use it"


def test_gc_takes_the_entries_of_all_that_it_removes(cluster: Cluster) -> None:
    cluster.start(1)
    for name in ("redpod", "greenpod", "bluepod"):
        cluster.add(1, name)
    assert len(entries(cluster)) == 6
    nobody = cluster.space("nobodypod")
    status, text = cluster.cni(1, "GC", nobody, **{"cniVersion": "1.1.0", "cni.dev/valid-attachments": []})
    assert status == 200, text
    assert entries(cluster) == []
