"""Firewalls of other software on a node: pods' packets pass where rules are shared, else the node says who stops them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testbed.machine.space import Space, run
from tests.support.calls import OUTSIDE, Server, outside
from tests.support.cluster import Cluster, wait_for
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
    pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="needs iptables"),
]
RULES = ROOT / "tests/golden/firewalls"
WEB = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
USERS_OWN = """
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state established,related accept
    tcp dport 22 accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
"""


def told(node: Space, *program: str, stdin: str = "") -> str:
    done = run(node, list(program), stdin=stdin.encode(), timeout_s=20)
    assert done.returncode == 0, (program, done.stderr)
    return done.stdout


def load(node: Space, name: str, variant: str = "nft") -> None:
    """As the service that owns the file does at its start, and at each of its reloads."""
    if name.endswith(".rules"):
        told(node, f"iptables-{variant}-restore", stdin=(RULES / name).read_text())
    else:
        told(node, "nft", "flush ruleset")
        told(node, "nft", "-f", "-", stdin=(RULES / name).read_text())


def problems(cluster: Cluster, number: int = 1) -> dict[str, dict[str, Any]]:
    """What is wrong now, as `weave status` has it, by the objects' names."""
    return {one["object"]: one for one in cluster.report(number)["problems"]}


def ours(node: Space, variant: str = "nft") -> list[str]:
    listed = told(node, f"iptables-{variant}", "-S").splitlines()
    return [line for line in listed if "weavelab: " in line]


def repaired(cluster: Cluster) -> list[str]:
    """What was mended of our rules, as `weave status` has it."""
    return [one["was"] for one in cluster.report(1)["repairs"] if one["object"].startswith("iptables ")]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_the_accept_rules_follow_the_node_to_another_address(cluster: Cluster) -> None:
    node1 = cluster.nodes[1]
    load(node1, "ufw.rules")
    cluster.start(1, node_address="", uplink="eth0")
    wait_for(lambda: any("192.168.56.11" in rule for rule in ours(node1)), "rules for the address that the node has")
    told(node1, "ip", "address", "add", "192.168.56.50/24", "dev", "eth0")
    told(node1, "ip", "address", "del", "192.168.56.11/24", "dev", "eth0")
    told(node1, "ip", "address", "replace", "192.168.56.50/24", "dev", "eth0")
    wait_for(lambda: any("192.168.56.50" in rule for rule in ours(node1)), "rules for the new one")
    assert not any("192.168.56.11" in rule for rule in ours(node1))


@pytest.mark.parametrize("variant", ["nft", "legacy"])
@pytest.mark.parametrize("name", ["docker.rules", "ufw.rules"])
def test_pods_pass_the_drop_of_docker_and_ufw(cluster: Cluster, stack: ExitStack, name: str, variant: str) -> None:
    node1 = cluster.nodes[1]
    if run(node1, [f"iptables-{variant}", "-S"], timeout_s=10).returncode != 0:
        pytest.skip(f"this kernel has no iptables-{variant}")
    world = outside(cluster)
    load(node1, name, variant)
    cluster.mesh()
    assert ours(node1, variant), "the rules are placed at the start"
    web = cluster.space("webpod")
    assert cluster.cni(1, "ADD", web, runtimeConfig=WEB)[0] == 200
    near, near_address = cluster.add(1, "nearpod")
    far, far_address = cluster.add(2, "farpod")
    wait_for(lambda: cluster.knows(1, far_address), "node1 knows the pod of node2")
    server = Server(web, "tcp", 80, stack)
    outer = Server(world, "tcp", 443, stack)
    placed = ours(node1, variant)
    for reload in (False, True):
        if reload:
            load(node1, name, variant)
            wait_for(lambda: repaired(cluster), "the rules are mended")
            assert ours(node1, variant) == placed
        wait_for(
            lambda: all(cluster.peer(number)["state"] == "established" for number in (1, 2)), "the nodes hear them"
        )
        assert outer.visit(near, OUTSIDE) == "192.168.56.11"
        assert cluster.ping(near, far_address) == cluster.ping(far, near_address) == 0
        assert cluster.ping(near, cluster.results["webpod"]["ips"][0]["address"].partition("/")[0]) == 0
        assert server.visit(cluster.nodes[2], "192.168.56.11", port=8080) == "192.168.56.12"
    wait_for(lambda: problems(cluster) == {}, "all is well")
    for pod in (web, near):
        cluster.cni(1, "DEL", pod)
    assert cluster.api(1, "/reset", b"{}")[0] == 200
    assert ours(node1, variant) == [], "who leaves takes the rules along"


def test_chains_that_stop_nothing_get_no_rules(cluster: Cluster) -> None:
    told(cluster.nodes[1], "iptables-nft", "-A", "FORWARD", "-i", "docker0", "-j", "DROP")
    cluster.start(1)
    assert ours(cluster.nodes[1]) == []
    told(cluster.nodes[1], "iptables-nft", "-P", "FORWARD", "DROP")
    wait_for(lambda: len(ours(cluster.nodes[1])) == 2, "the rules follow")


def test_a_rule_that_stops_everything_is_passed_wherever_it_is_put(cluster: Cluster) -> None:
    world = outside(cluster)
    cluster.start(1)
    pod, _ = cluster.add(1, "redpod")
    for position in ("-A", "-I"):
        told(cluster.nodes[1], "iptables-nft", position, "FORWARD", "-j", "REJECT")
        wait_for(lambda: cluster.ping(pod, OUTSIDE) == 0, f"{position}: the pod reaches the outside")
    assert world.name == "outside"


def test_rules_of_iptables_stay_readable_and_other_rules_stay(cluster: Cluster) -> None:
    load(cluster.nodes[1], "docker.rules")
    before = told(cluster.nodes[1], "iptables-nft", "-S").splitlines()
    cluster.start(1)
    wait_for(lambda: ours(cluster.nodes[1]), "the rules are placed")
    after = told(cluster.nodes[1], "iptables-nft", "-S").splitlines()
    assert [line for line in after if "weavelab: " not in line] == before


def test_a_missing_iptables_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    load(cluster.nodes[1], "docker.rules")
    tools = cluster.tmp / "bin"
    tools.mkdir()
    (tools / "nft").symlink_to(Path(subprocess.check_output(["which", "nft"], text=True).strip()))
    with monkeypatch.context() as changed:
        changed.setenv("PATH", str(tools))
        cluster.start(1)
    wait_for(lambda: len(problems(cluster)) == 2, "both are told")
    assert "wanted iptables-nft" in problems(cluster)["iptables nf_tables"]["cause"]
    stopped = problems(cluster)["forward policy"]["cause"]
    assert "FORWARD of the nftables table ip filter drops what pods" in stopped


def test_firewalld_is_told_by_name_until_it_lets_packets_pass(cluster: Cluster) -> None:
    world = outside(cluster)
    node1 = cluster.nodes[1]
    cluster.start(1)
    pod, _ = cluster.add(1, "redpod")
    assert cluster.ping(pod, OUTSIDE) == 0
    for _ in range(2):  # and a reload of firewalld
        load(node1, "firewalld.nft")
        wait_for(lambda: cluster.ping(pod, OUTSIDE) != 0, "firewalld stops the pod")
        wait_for(lambda: set(problems(cluster)) == {"forward policy", "input policy"}, "both chains are told of")
    forward, taken = problems(cluster)["forward policy"], problems(cluster)["input policy"]
    assert "the chain filter_FWD_public of the nftables table inet firewalld rejects what pods" in forward["cause"]
    assert "what other nodes send to UDP 6783; what other nodes send to TCP 6783;" in taken["cause"]
    assert "--zone=trusted --add-interface=weave" in forward["advice"]
    assert "--add-port=6783/udp --add-port=6783/tcp --add-port=6784/udp" in taken["advice"]
    told(node1, "nft", "-f", "-", stdin=(RULES / "firewalld-advised.nft").read_text())
    wait_for(lambda: problems(cluster) == {}, "what was advised has helped")
    assert world.name == "outside"


def test_a_firewall_of_the_users_own_is_told_with_rules_that_help(cluster: Cluster) -> None:
    world = outside(cluster)
    node1 = cluster.nodes[1]
    told(node1, "nft", "-f", "-", stdin=USERS_OWN)
    cluster.start(1)
    pod, _ = cluster.add(1, "redpod")
    assert cluster.ping(pod, OUTSIDE) != 0
    assert {name: one["cause"].split(" drops ")[0] for name, one in problems(cluster).items()} == {
        f"{chain} policy": f"the chain {chain} of the nftables table inet filter" for chain in ("forward", "input")
    }
    for one in problems(cluster).values():
        assert one["cause"].endswith("by its policy")
        for command in one["advice"].split("for now: ")[1].split("; "):
            told(node1, "nft", command.removeprefix("nft ").strip("'"))
    wait_for(lambda: problems(cluster) == {}, "what was advised has helped")
    assert cluster.ping(pod, OUTSIDE) == 0
    assert world.name == "outside"


def test_a_cut_between_the_nodes_is_told_with_its_true_cause(cluster: Cluster) -> None:
    cluster.mesh()
    told(
        cluster.nodes[2],
        "nft",
        "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
        "add rule inet cut in iifname eth0 drop",
    )
    wait_for(lambda: "input policy" in problems(cluster, 2), "node2 says who stops it")
    cause = problems(cluster, 2)["input policy"]["cause"]
    assert cause.startswith("the chain in of the nftables table inet cut drops what other nodes send to UDP 6783")
    told(cluster.nodes[2], "nft", "delete table inet cut")
    wait_for(lambda: problems(cluster, 2) == {}, "and when it is over")
