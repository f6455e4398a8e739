"""Starts the nodes' agents and waits until they are what a lab needs: ready, and knowing all peers and all pods.

What an agent says is read from its API (`GET /status`); one that ended instead is reported with the end of its log.
"""

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from plugin.core.errors import CheckError
from testbed.deploy.local import LocalTransport
from testbed.deploy.plan import CONFIG_PATH, DeployPlan
from testbed.deploy.transport import DeployError
from testbed.lab import state
from testbed.lab.agent_api import AgentError, get
from testbed.lab.paths import LabPaths
from testbed.lab.progress import Progress
from testbed.lab.running import Lab, LabNode
from testbed.machine import interrupts, processes
from testbed.machine.processes import ProcessId

ROLE: Final = "agent"
_NURSERY: Final = "plugin.agent.nursery"
_LOG_LINES_SHOWN: Final = 8
_ASK_S: Final = 2.0
_PAUSE_S: Final = 0.02
_LOOK_AT_ALL_EVERY: Final = 25
_ESTABLISHED: Final = "established"


def start(paths: LabPaths, plans: Iterable[DeployPlan]) -> tuple[state.ProcessRecord, ...]:
    """Start the agent of every node; they need not be ready when this returns.

    Raises:
        DeployError: One could not even be started.
    """
    wanted = list(plans)
    if not wanted:
        return ()
    started = []
    with interrupts.postponed(), ExitStack() as stack:
        # Whatever else a plan may start is started as it says.
        nursery = stack.enter_context(_nursery(wanted[0])) if "-m" in wanted[0].agent.argv else None
        for plan in wanted:
            if nursery is None:
                pid = LocalTransport(paths.node_space(plan.node)).start(plan.agent)
            else:
                pid = _raise_agent(nursery, paths, plan)
            process = processes.identify(pid)
            ticks = process.start_ticks if process is not None else 0  # gone again already: the wait reports it
            started.append(state.ProcessRecord(role=ROLE, member=plan.node, pid=pid, start_ticks=ticks))
    return tuple(started)


@contextmanager
def _nursery(plan: DeployPlan) -> Iterator["subprocess.Popen[str]"]:
    """The process that every agent of the lab is forked from (plugin/agent/nursery.py): loading takes longest."""
    argv = [*plan.agent.argv[: plan.agent.argv.index("-m")], "-m", _NURSERY]
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(plan.agent.environment),
        cwd="/",
        start_new_session=True,
    ) as nursery:
        yield nursery


def _raise_agent(nursery: "subprocess.Popen[str]", paths: LabPaths, plan: DeployPlan) -> int:
    space = paths.node_space(plan.node)
    wanted = {
        "net": str(space.net),
        "mnt": str(space.mnt),
        "uts": str(space.uts),
        "config": CONFIG_PATH,
        "log": plan.agent.log,
    }
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    told = ""
    with suppress(BrokenPipeError):
        nursery.stdin.write(json.dumps(wanted) + "\n")
        nursery.stdin.flush()
        told = nursery.stdout.readline().strip()
    if not told.isdigit():
        raise DeployError(
            f"wanted to start the agent of {plan.node}, found: {told or 'the starting process ended'}",
            hint="is the lab still whole (weavelab status), and has the disk space left (df /run)?",
        )
    return int(told)


def await_mesh(lab: Lab, *, deadline_s: float, progress: Progress) -> None:
    """Wait until every agent is ready and has every other as an established peer.

    Raises:
        CheckError: An agent ended, or the deadline passed; the text says who and what was last seen.
    """
    others = len(lab.nodes) - 1

    def missing(status: dict[str, Any]) -> str:
        if not status.get("ready"):
            return "is not ready"
        peers = status.get("peers", [])
        waiting = [f"{peer['address']} {peer['state']}" for peer in peers if peer["state"] != _ESTABLISHED]
        if len(peers) - len(waiting) >= others:
            return ""
        return f"sees {len(peers) - len(waiting)} of {others} peers ({', '.join(waiting[:3]) or 'no more known'})"

    _await(lab, missing, deadline_s=deadline_s, progress=progress)


def await_endpoints(lab: Lab, *, deadline_s: float, progress: Progress) -> None:
    """Wait until every agent knows where every pod and every node's switch is.

    Raises:
        CheckError: As `await_mesh`.
    """
    wanted = len(lab.nodes) + len(lab.pods)  # a node's switch has an address in the pods' network too

    def missing(status: dict[str, Any]) -> str:
        known = int(status.get("endpoints", 0))
        return "" if known >= wanted else f"knows {known} of {wanted} endpoints"

    _await(lab, missing, deadline_s=deadline_s, progress=progress)


def _await(lab: Lab, missing: Callable[[dict[str, Any]], str], *, deadline_s: float, progress: Progress) -> None:
    """Wait for one agent after the other until `missing` finds nothing more.

    All of them have to get there, so the order is no matter; but asking those that are still starting would take the
    processor time from them that they start with.
    """
    until_s = time.monotonic() + deadline_s
    for count, (name, node) in enumerate(lab.nodes.items(), start=1):
        for attempt in itertools.count():
            seen = _look(node, missing)
            if not seen:
                break
            # A dead agent may be why a living one waits.
            _check_alive(lab, [name] if attempt % _LOOK_AT_ALL_EVERY else lab.nodes)
            if time.monotonic() > until_s:
                raise CheckError(
                    f"after {deadline_s:.0f} s the agent of {name} {seen}"
                    + (f"; {len(lab.nodes) - count} more nodes were not asked yet" if count < len(lab.nodes) else ""),
                    hint=_log_hint(node),
                )
            time.sleep(_PAUSE_S)
        progress.advance_to(count)


def _look(node: LabNode, missing: Callable[[dict[str, Any]], str]) -> str:
    try:
        _code, status = get(node.api_socket, "/status", timeout_s=_ASK_S)
    except AgentError:
        return "does not answer"
    return missing(status) if isinstance(status, dict) else f"answers {str(status)[:80]}"


def _check_alive(lab: Lab, waiting: Collection[str]) -> None:
    for record in lab.state.processes:
        if (
            record.role == ROLE
            and record.member in waiting
            and not processes.is_alive(ProcessId(record.pid, record.start_ticks))
        ):
            node = lab.nodes[record.member]
            raise CheckError(
                f"the agent of {record.member} ended instead of becoming ready{_reason(node)}", hint=_log_hint(node)
            )


def log_tail(node: LabNode, lines: int = _LOG_LINES_SHOWN) -> list[str]:
    """The last lines of a node's agent log; empty when it wrote none."""
    try:
        text = node.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def _reason(node: LabNode) -> str:
    """What the agent itself gave as the reason, when its last line is one of its own."""
    for line in reversed(log_tail(node)):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("reason"):
            return f": {entry['reason']}"
    return ""


def _log_hint(node: LabNode) -> str:
    tail = log_tail(node)
    if not tail:
        return f"its log is empty ({node.log})"
    return "the last lines of its log:\n" + "\n".join(f"  {line}" for line in tail)
