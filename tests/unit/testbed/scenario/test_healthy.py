"""`healthy` steps: what agents say decides, and a failure names what is wrong and where."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.core.errors import InputError
from testbed.lab.agent_api import AgentError
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.steps import healthy
from testbed.topology.load import parse_topology

TEXT = """
name: small
nodes: {node1: , node2: }
pods: {red: {node: node1}}
scenarios: [{name: one, steps: [{healthy: {on: WHOM}}]}]
"""
PROBLEM = {"object": "link vxlan-6784", "cause": "not up; held: exercise 3", "advice": "", "since": ""}


def said(other: str, **more: Any) -> dict[str, Any]:
    return {"ready": True, "problems": [], "peers": [{"name": other, "state": "established", "reason": ""}]} | more


def attempted(monkeypatch: pytest.MonkeyPatch, whom: str = "all-nodes", **answers: Any) -> Attempt:
    topology = parse_topology(TEXT.replace("WHOM", whom), file="small.yaml")
    lab: Any = SimpleNamespace(
        name="small",
        topology=topology,
        nodes={
            name: SimpleNamespace(name=name, api_socket=Path(name), uplink_address="192.0.2.1", uplink_ifname="eth0")
            for name in topology.nodes
        },
        pods={"red": SimpleNamespace(node="node1", address="10.32.0.2", ifname="eth0")},
    )

    def get(socket: Path, path: str, *, timeout_s: float) -> tuple[int, object]:
        assert (path, timeout_s) == ("/status", 2.0)
        answer = answers[socket.name]
        if isinstance(answer, Exception):
            raise answer
        return 200, answer

    monkeypatch.setattr(healthy, "get", get)
    step = topology.scenarios[0].steps[0]
    run = Run(lab=lab)
    assert "know of nothing that is wrong" in healthy.expectation(run, step).replace("knows", "know")
    return healthy.attempt(run, step, 10.0, None)


def test_agents_that_know_of_nothing_wrong_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    found = attempted(monkeypatch, node1=said("node2"), node2=said("node1"))
    assert (found.ok, found.seen, found.concerned) == (True, "nothing is wrong on any of them", ())


def test_a_problem_is_told_with_its_node_object_and_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    found = attempted(monkeypatch, node1=said("node2"), node2=said("node1", problems=[PROBLEM]))
    assert not found.ok
    assert found.seen == "node2: link vxlan-6784: not up; held: exercise 3"
    assert found.concerned == ("node2",)
    assert found.next_command.endswith("exec --lab small node2 -- weave status")
    assert [(one.on, one.ok) for one in found.evidence if hasattr(one, "on")] == [("node1", True), ("node2", False)]


def test_a_peer_that_is_not_seen_an_agent_that_is_not_ready_and_one_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = [{"name": "node2", "state": "failed", "reason": "probes are lost"}]
    found = attempted(monkeypatch, node1=said("node2", ready=False, peers=failed), node2=AgentError("refused"))
    assert found.seen == (
        "node1: its agent is not ready; node1: node2 is failed (probes are lost); "
        "node2: its agent does not answer (refused)"
    )


def test_peers_that_the_step_does_not_name_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempted(monkeypatch, "node1", node1=said("node2", peers=[])).ok


def test_a_pod_has_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="wanted nodes, found red"):
        attempted(monkeypatch, "[node1, red]")
