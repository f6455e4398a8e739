"""`healthy` steps: the agents of these nodes are ready, see each other, and know of nothing that is wrong.

What is wrong is what `weave status` shows first: each with its cause and what to do (plugin/core/upkeep/ledger.py).
"""

from collections.abc import Iterator
from typing import Any

from plugin.core.errors import InputError
from testbed.lab.agent_api import AgentError, get
from testbed.lab.running import LabNode
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.members import concerned, exec_hint, exec_members
from testbed.scenario.results import CommandEvidence
from testbed.topology.steps import Healthy, Step

_SHOWN_MAX = 3


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence.

    Raises:
        InputError: It names what is no node.
    """
    names = _nodes(run, step)
    who = f"the agent of {names[0]} is" if len(names) == 1 else f"the agents of {', '.join(names)} are"
    return f"{who} ready, see each other, and know of nothing that is wrong"


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:  # noqa: ARG001 - one shape for all kinds
    """Ask every agent, and judge."""
    names = _nodes(run, step)
    wrong = {name: list(_problems(run.lab.nodes[name], names)) for name in names}
    evidence = tuple(
        CommandEvidence(
            on=name,
            command="weave status",
            ok=not problems,
            problem="; ".join(problems),
            ended="nothing is wrong" if not problems else f"{len(problems)} wrong",
            stdout="",
            stderr="",
            seconds=0.0,
        )
        for name, problems in wrong.items()
    )
    ill = [name for name, problems in wrong.items() if problems]
    return Attempt(
        ok=not ill,
        seen=_seen(wrong),
        evidence=evidence,
        concerned=concerned(*exec_members(run.lab, ill)) if ill else (),
        next_command=exec_hint(run.lab, ill[0], "weave", "status") if ill else "",
    )


def _nodes(run: Run, step: Step) -> list[str]:
    action = _action(step)
    members = exec_members(run.lab, action.on)
    strangers = [member.name for member in members if member.kind != "node"]
    if strangers:
        raise InputError(f"wanted nodes, found {', '.join(strangers)}", hint="healthy asks agents: name nodes")
    return [member.name for member in members]


def _problems(node: LabNode, names: list[str]) -> Iterator[str]:
    """What is wrong, as the node's own agent says, a clause each."""
    try:
        _code, answer = get(node.api_socket, "/status", timeout_s=2.0)
    except AgentError as error:
        yield f"its agent does not answer ({error})"
        return
    status: dict[str, Any] = answer if isinstance(answer, dict) else {}
    for problem in status.get("problems", []):
        yield f"{problem['object']}: {problem['cause']}"
    if not status.get("ready"):
        yield "its agent is not ready"
    peers = {peer["name"]: peer for peer in status.get("peers", [])}
    for name in names:
        if name != node.name and peers.get(name, {}).get("state") != "established":
            peer = peers.get(name, {"state": "not known", "reason": ""})
            yield f"{name} is {peer['state']}" + (f" ({peer['reason']})" if peer["reason"] else "")


def _seen(wrong: dict[str, list[str]]) -> str:
    lines = [f"{name}: {problem}" for name, problems in wrong.items() for problem in problems]
    if not lines:
        return "nothing is wrong on any of them" if len(wrong) > 1 else "nothing is wrong"
    more = f"; and {len(lines) - _SHOWN_MAX} more" if len(lines) > _SHOWN_MAX else ""
    return "; ".join(lines[:_SHOWN_MAX]) + more


def _action(step: Step) -> Healthy:
    assert step.healthy is not None
    return step.healthy
