"""Chaos: the plan is a pure function of seed and time, the judgement of what was observed, and options change steps."""

from ipaddress import IPv4Address
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from plugin.core.errors import InputError
from testbed.faults.cuts import table_text
from testbed.faults.judge import Facts, judge, twice
from testbed.faults.plan import AGENT_FAULTS, GAP_S, SETTLE_S, Fault, plan_faults
from testbed.faults.pods import free_names
from testbed.scenario.choice import override_chaos
from testbed.topology.load import parse_topology
from testbed.topology.steps import FAULT_KINDS, FaultKind

NODES = ["node1", "node2", "node3"]
SEEDS = range(40)


def plan(
    seed: int, seconds: float = 120, kinds: tuple[FaultKind, ...] = FAULT_KINDS, nodes: list[str] = NODES
) -> tuple[Fault, ...]:
    return plan_faults(seed, seconds=seconds, nodes=nodes, kinds=kinds, pods=4)


# ---------------------------------------------------------------------------------------------------------------- plan


def test_the_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_longer_plan_begins_with_the_shorter_one(seed: int) -> None:
    shorter = plan(seed, 20)
    assert shorter
    assert plan(seed, 200)[: len(shorter)] == shorter
    assert all(fault.at_s < 20 for fault in shorter)


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_come_in_order_and_not_all_at_once(seed: int) -> None:
    assert all(later.at_s - former.at_s >= GAP_S[0] - 0.001 for former, later in pairwise(plan(seed)))


def test_every_fault_happens_and_everywhere() -> None:
    faults = plan(1, 600)
    assert {(fault.kind, fault.node) for fault in faults} == {(kind, node) for kind in FAULT_KINDS for node in NODES}
    assert {fault.pod for fault in faults} == set(range(4))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_disk_is_lost_only_while_all_others_are_up_and_reachable(seed: int) -> None:
    faults = [fault for fault in plan(seed, 300) if fault.kind != "pod-churn"]
    losses = [fault for fault in faults if fault.kind == "lose-disk"]
    assert losses
    for loss in losses:
        for other in faults:
            if other is not loss:
                assert other.ends_s + SETTLE_S <= loss.at_s or other.at_s >= loss.ends_s + SETTLE_S, (loss, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_has_one_fault_of_a_kind_at_a_time(seed: int) -> None:
    until_s: dict[tuple[str, str], float] = {}
    for fault in plan(seed, 300):
        kind = "agent" if fault.kind in AGENT_FAULTS else fault.kind
        assert until_s.get((kind, fault.node), 0) <= fault.at_s
        until_s[kind, fault.node] = fault.ends_s


def test_only_the_kinds_that_were_asked_for_and_that_the_lab_has_nodes_for_are_planned() -> None:
    assert {fault.kind for fault in plan(1, kinds=("cut-node", "pod-churn"))} == {"cut-node", "pod-churn"}
    assert {fault.kind for fault in plan(1, 300, nodes=["node1"])} == {"kill-agent", "lose-disk", "pod-churn"}
    assert plan(1, kinds=("cut-node",), nodes=["node1"]) == ()


# ----------------------------------------------------------------------------------------------------------- judgement


def node(name: str, **changes: Any) -> dict[str, Any]:
    peers = [
        {"name": other, "address": "192.0.2.1", "state": "established", "reason": ""}
        for other in NODES
        if other != name
    ]
    found = {
        "name": name,
        "ready": True,
        "agent": {"alive": True, "answers": True},
        "peers": peers,
        "digest": "same",
        "ipam": {"held": 2, "owners": [{"addresses": 100}, {"addresses": 156}]},
    }
    return found | changes


def facts(*nodes: dict[str, Any], **changes: Any) -> Facts:
    by_name = {name: node(name) for name in NODES} | {one["name"]: one for one in nodes}
    whole = Facts(
        lab={"range": "10.32.0.0/24", "nodes": list(by_name.values())},
        addresses={"red": "10.32.0.2", "blue": "10.32.0.3", "the switch of node1": "10.32.0.1"},
        given={"red": "10.32.0.2", "blue": "10.32.0.3"},
        held=dict.fromkeys(NODES, 2),
    )
    return Facts(**{key: changes.get(key, getattr(whole, key)) for key in Facts.__slots__})


def test_a_whole_lab_has_no_problem() -> None:
    assert judge(facts()) == ()


def peers(state: str) -> list[dict[str, str]]:
    return [{"name": "node1", "address": "192.0.2.1", "state": state, "reason": "nobody hears it"}]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (facts(node("node2", ready=False, agent={"alive": False, "answers": False})), "the agent of node2 does not run"),
        (facts(node("node2", ready=False, agent={"alive": True, "answers": False})), "the agent of node2 does not answer"),
        (facts(node("node2", ready=False)), "the agent of node2 is not ready"),
        (facts(node("node3", peers=peers("failed"))), "node3 sees node1 as failed (nobody hears it)"),
        (facts(node("node3", peers=peers("established"))), "node3 does not know node2"),
        (facts(node("node3", digest="other")), "2 views of the cluster: node1, node2 | node3"),
        (facts(addresses={"red": "10.32.0.2", "blue": "10.32.0.2"}), "10.32.0.2 is held by red and blue"),
        (facts(addresses={"red": "10.32.0.2", "blue": ""}), "blue was given 10.32.0.3 and has none"),
        (facts(node("node1", ipam={"held": 2, "owners": [{"addresses": 255}]})), "node1 knows owners of 255 of 256 addresses"),
        (facts(node("node1", ipam={"held": 2, "owners": None})), "node1 knows owners of 0 of 256 addresses"),
        (facts(held={"node1": 1}), "the agent of node1 holds 2 addresses, wanted 1"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_said(found: Facts, problem: str) -> None:
    assert problem in judge(found)


def test_of_many_troubled_pairs_some_are_named_and_the_others_counted() -> None:
    lost = [node(name, peers=[]) for name in NODES]
    assert judge(facts(*lost))[-1] == "3 more pairs are in trouble"


def test_an_address_that_somebody_has_is_noticed_at_the_add() -> None:
    living = {"red": "10.32.0.2", "churn1": "10.32.0.9"}
    assert twice(living, "churn2", "10.32.0.2") == "churn2 was given 10.32.0.2, which red has"
    assert twice(living, "churn1", "10.32.0.9") == ""
    assert twice(living, "churn2", "10.32.0.3") == ""


# ------------------------------------------------------------------------------------------------------ cuts and steps


def test_a_cut_works_in_both_directions() -> None:
    text = table_text("cut-node", [IPv4Address("192.168.56.12"), IPv4Address("192.168.56.13")])
    assert "hook input priority -10" in text
    assert "ip saddr { 192.168.56.12, 192.168.56.13 } drop" in text
    assert "ip daddr { 192.168.56.12, 192.168.56.13 } drop" in text
    assert table_text("cut-overlay", []).count("udp dport 6784 drop") == 2


TOPOLOGY = """
name: small
nodes: {node1: , node2: }
pods: {red: {node: node1}, churn2: {node: node2}}
scenarios:
  - {name: one, steps: [{chaos: {}}, {ping: {from: red, to: churn2}}]}
  - {name: two, steps: [{ping: {from: red, to: churn2}}]}
"""


def test_options_change_the_chaos_steps_of_a_run() -> None:
    scenarios = parse_topology(TOPOLOGY, file="small.yaml").scenarios
    changed = override_chaos(scenarios, seed=7, seconds=3600)
    assert changed[0].steps[0].title == "chaos for 3600 s, seed 7"
    assert changed[0].steps[1] == scenarios[0].steps[1]
    assert override_chaos(scenarios) == tuple(scenarios)
    assert override_chaos(scenarios, seed=0)[0].steps[0].title == "chaos for 20 s, seed 0"


def test_options_that_change_nothing_are_refused() -> None:
    (_, two) = parse_topology(TOPOLOGY, file="small.yaml").scenarios
    with pytest.raises(InputError, match="--seed and --seconds change the chaos steps"):
        override_chaos([two], seed=7, seconds=5)


def test_pods_that_come_bear_names_that_are_free() -> None:
    lab: Any = msgspec.defstruct("Lab", ["topology", "paths"])
    pins = msgspec.defstruct("Paths", ["pins"])
    from pathlib import Path

    topology = parse_topology(TOPOLOGY, file="small.yaml")
    assert free_names(lab(topology, pins(Path("/nowhere"))), 3) == ("churn1", "churn3", "churn4")
