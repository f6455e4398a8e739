"""A cluster of five agents, broken and repaired with the commands that users type: joins, cuts, crashes, lost disks."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

NAME = f"five{os.getpid() % 10000}"
NODES = [f"node{number}" for number in range(1, 6)]
TOPOLOGY = f"""
name: {NAME}
network: {{range: 10.32.0.0/24}}
nodes: {{node1: , node2: , node3: , node4: , node5: }}
pods: {{red: {{node: node1}}, green: {{node: node2}}, blue: {{node: node3}}, grey: {{node: node4}}, pink: {{node: node5}}}}
scenarios: [{{name: all, steps: [{{ping: {{from: all-pods, to: all-pods, count: 1}}}}]}}]
"""


def weavelab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "testbed", *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip


def ok(*words: str) -> str:
    done = weavelab(*words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def weave(node: str, *words: str) -> str:
    return ok("exec", "--lab", NAME, node, "--", "weave", *words)


def report(node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(weave(node, "report"))
    return found


def wait_for(holds: Callable[[], Any], what: str, deadline_s: float = 20) -> None:
    end_s = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end_s:
            shown = weavelab("status", NAME)
            raise AssertionError(f"{what} did not come true within {deadline_s:g} s\n{shown.stdout}{shown.stderr}")
        time.sleep(0.1)


def whole() -> bool:
    """Whether every agent is ready, sees every other, and believes the same."""
    done = weavelab("status", NAME, "--format", "json")
    lab = json.loads(done.stdout)["labs"][0]
    return done.returncode == 0 and len(lab["views"]) == 1 and all(len(node["peers"]) == 4 for node in lab["nodes"])


def cut(side: list[str], others: list[str]) -> None:
    """Nothing passes between the two sides."""
    addresses = {name: f"192.168.56.{10 + int(name[-1])}" for name in NODES}
    for here, there in ((side, others), (others, side)):
        blocked = ", ".join(addresses[name] for name in there)
        for node in here:
            ok("exec", "--lab", NAME, node, "--", "nft", (
                "add table ip cut; add chain ip cut in { type filter hook input priority -10; }; "
                f"add rule ip cut in ip saddr {{ {blocked} }} drop"
            ))  # fmt: skip


def mend() -> None:
    for node in NODES:
        weavelab("exec", "--lab", NAME, node, "--", "nft", "delete table ip cut")


@pytest.fixture(scope="module")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("five") / "five.yaml"
    path.write_text(TOPOLOGY)
    ok("up", str(path))
    yield
    ok("down", NAME)


@pytest.fixture(autouse=True)
def _whole_again(_lab: None) -> Iterator[None]:
    wait_for(whole, "the cluster is whole before the test")
    yield
    mend()
    for node in NODES:
        weavelab("agent", "start", node, "--lab", NAME)
    wait_for(whole, "the cluster is whole after the test", 30)
    ok("run", "--lab", NAME)


def test_agents_that_were_told_one_address_find_all_others_and_share_the_range_fairly() -> None:
    targets = {node: weave(node, "status", "targets").split() for node in NODES}
    assert targets == {"node1": []} | {node: ["192.168.56.11"] for node in NODES[1:]}
    found = report("node3")
    assert {peer["name"] for peer in found["peers"]} == set(NODES) - {"node3"}
    counts = {owner["name"]: owner["addresses"] for owner in found["ipam"]["owners"]}
    assert counts.keys() == set(NODES)
    assert max(counts.values()) <= 2 * min(counts.values())
    assert sum(counts.values()) == 256


def test_the_tables_of_weave_are_printed() -> None:
    assert "Service: ipam" in weave("node1", "status")
    assert weave("node1", "status", "connections").count(" established fastdp ") == 4
    assert weave("node1", "status", "peers").count("-> ") == 20
    assert weave("node1", "status", "ipam").count(" IPs (") == 5
    assert "default/pink" in weave("node1", "status", "endpoints")
    assert weave("node1", "ps").startswith("weave:expose ")


def test_a_cluster_that_was_cut_in_two_becomes_one_again() -> None:
    cut(NODES[:3], NODES[3:])
    wait_for(lambda: report("node1")["connections"].get("failed") == 2, "node1 sees that two are gone", 30)
    wait_for(lambda: report("node4")["connections"].get("failed") == 3, "node4 sees that three are gone", 30)
    assert "unreachable!" in weave("node1", "status", "ipam")
    assert weavelab("status", NAME).returncode == 1
    mend()
    wait_for(whole, "all agree again", 20)


def test_a_killed_agent_comes_back_with_everything_it_had() -> None:
    before = report("node2")
    ok("agent", "kill", "node2", "--lab", NAME)
    assert weavelab("exec", "--lab", NAME, "node2", "--", "weave", "status").returncode == 1
    ok("run", "--lab", NAME)  # no agent, and pods of the node still answer
    ok("agent", "start", "node2", "--lab", NAME)
    after = report("node2")
    for key in ("uid", "attachments", "bridge"):
        assert after[key] == before[key], key
    assert after["ipam"]["owned"] == before["ipam"]["owned"]


def test_an_agent_that_lost_its_disk_inherits_from_its_former_self_and_keeps_its_pods() -> None:
    before = report("node3")
    ok("agent", "restart", "node3", "--lose-disk", "--lab", NAME)
    wait_for(whole, "all agree", 30)
    after = report("node3")
    assert after["uid"] != before["uid"]
    assert [one["address"] for one in after["attachments"]] == [one["address"] for one in before["attachments"]]
    assert after["bridge"]["address"] == before["bridge"]["address"]
    assert after["ipam"]["owned"] == before["ipam"]["owned"]
    assert after["ipam"]["epoch"] > before["ipam"]["epoch"]


def test_a_living_peer_is_not_removed_nor_one_whose_pods_may_live() -> None:
    done = weavelab("exec", "--lab", NAME, "node1", "--", "weave", "rmpeer", "node5")
    assert (done.returncode, "node5 answers" in done.stderr) == (1, True)
    ok("agent", "kill", "node5", "--lab", NAME)
    wait_for(lambda: "nobody hears it" in weave("node1", "status", "connections"), "node1 notices", 30)
    done = weavelab("exec", "--lab", NAME, "node1", "--", "weave", "rmpeer", "node5")
    assert (done.returncode, "its pods may be alive" in done.stderr) == (1, True)


def test_an_overlay_that_is_blocked_is_noticed_within_three_seconds_of_traffic() -> None:
    pink = next(one["address"] for one in report("node5")["attachments"])
    pinging = subprocess.Popen(
        [sys.executable, "-m", "testbed", "exec", "--lab", NAME, "red", "--", "ping", "-i0.1", "-c200", pink],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: ".15:6783" in weave("node1", "status", "connections"), "node5 is shown")
        time.sleep(2.0)  # until the traffic has been noticed as such; what is timed begins now
        ok("exec", "--lab", NAME, "node5", "--", "nft", (
            "add table ip cut; add chain ip cut in { type filter hook input priority -10; }; "
            "add rule ip cut in udp dport 6784 drop"
        ))  # fmt: skip
        wait_for(lambda: "is UDP 6784 open" in weave("node1", "status", "connections"), "the reason is shown", 3 + 3)
    finally:
        pinging.kill()
        pinging.wait()
    mend()
    wait_for(lambda: "is UDP 6784 open" not in weave("node1", "status", "connections"), "it works again")


def test_a_hole_for_large_packets_is_told_from_a_blocked_overlay() -> None:
    ok("exec", "--lab", NAME, "node4", "--", "nft", (
        "add table ip cut; add chain ip cut in { type filter hook input priority -10; }; "
        "add rule ip cut in udp dport 6784 ip length > 1400 drop"
    ))  # fmt: skip
    wait_for(lambda: "has a smaller MTU" in weave("node1", "status", "connections"), "the hole is found")
    line = next(one for one in weave("node1", "status", "connections").splitlines() if "(node4)" in one)
    assert " established fastdp " in line
    assert "mtu=100" in line


def test_wrong_words_are_answered_with_what_is_right() -> None:
    for words, text in (
        (["frob"], "unknown command: frob"),
        (["rmpeer", "nobody"], "peers: node1, node2"),
        (["connect", "here"], "wanted IPv4 addresses"),
        (["report", "ipam.frob"], "the report has no ipam.frob"),
        (["status", "frob"], "wrong arguments for status"),
    ):
        done = weavelab("exec", "--lab", NAME, "node1", "--", "weave", *words)
        assert done.returncode == 2, words
        assert text in done.stderr
        assert "hint: " in done.stderr
    assert weavelab("agent", "start", "node1", "--lab", NAME).returncode == 2
    assert weavelab("agent", "kill", "nobody", "--lab", NAME).returncode == 2
