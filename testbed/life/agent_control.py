"""Ends and starts single agents of a running lab, as a crash or a repair on a real node would.

Pods are not touched: what becomes of them while no agent runs is what there is to see.
"""

import contextlib
import os
import shutil
import time
from typing import Final

import msgspec

from plugin.core.errors import CheckError, InputError
from testbed.deploy.local import LocalTransport
from testbed.deploy.plan import agent_service_of
from testbed.lab import state
from testbed.lab.agent_api import AgentError, get
from testbed.lab.running import Lab, LabNode
from testbed.life.agents import ROLE, log_tail
from testbed.machine import processes
from testbed.machine.processes import ProcessId
from testbed.machine.space import call
from testbed.nearest import hint

READY_S: Final = 30.0
_END_S: Final = 5.0
_ENDING_S: Final = 2.0
_PAUSE_S: Final = 0.05
_STATE_DIRECTORY: Final = "/var/lib/weave"


def find(lab: Lab, node: str) -> ProcessId | None:
    """The agent of a node that runs now, or None."""
    try:
        _code, said = get(_node(lab, node).api_socket, "/status", timeout_s=2.0)
    except AgentError:
        said = None
    if isinstance(said, dict) and isinstance(said.get("pid"), int):
        return processes.identify(said["pid"])
    for record in lab.state.processes:
        known = ProcessId(record.pid, record.start_ticks)
        if (record.role, record.member) == (ROLE, node) and processes.is_alive(known):
            return known
    return None


def stop(lab: Lab, node: str, *, kill: bool = False) -> None:
    """End the agent of a node: as a service manager does, or by `kill` as a crash does.

    Raises:
        InputError: The lab has no such node, or no agent runs there.
        CheckError: It does not end.
    """
    running = find(lab, node)
    if running is None:
        raise InputError(f"no agent runs on {node}", hint=f"weavelab agent start {node}")
    if processes.end([running], grace_s=_END_S, kill=kill):
        raise CheckError(f"the agent of {node} cannot be ended", hint="it hangs in the kernel (state D in `ps`)")


def start(lab: Lab, node: str, *, wait: bool = True, lose_disk: bool = False) -> None:
    """Start the agent of a node.

    Args:
        lab: The lab.
        node: Which node.
        wait: Return when it is ready.
        lose_disk: Remove all that it has written down before: it will be another agent.

    Raises:
        InputError: The lab has no such node, or an agent runs there.
        CheckError: It does not become ready; the text says what it last wrote.
    """
    target = _node(lab, node)
    if _goes_on(lab, node):
        raise InputError(f"an agent runs on {node} already", hint=f"weavelab agent kill {node}")
    if lose_disk:
        call(target.space, _wipe)
    pid = LocalTransport(target.space).start(agent_service_of())
    process = processes.identify(pid)
    _remember(lab, node, pid, 0 if process is None else process.start_ticks)
    if wait:
        _await_ready(target, pid)


def _goes_on(lab: Lab, node: str) -> bool:
    """Whether an agent runs, and is not just ending: `weave reset` returns when it has said good-bye, not later."""
    until_s = time.monotonic() + _ENDING_S
    while (running := find(lab, node)) is not None and time.monotonic() < until_s:
        with contextlib.suppress(AgentError):
            get(_node(lab, node).api_socket, "/status", timeout_s=2.0)
            return True
        time.sleep(_PAUSE_S)
    return running is not None


def _wipe() -> None:
    for entry in os.scandir(_STATE_DIRECTORY):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)  # noqa: PTH108 - the entry is at hand


def _await_ready(node: LabNode, pid: int) -> None:
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s:
        with contextlib.suppress(AgentError):
            code, _said = get(node.api_socket, "/status", timeout_s=2.0)
            if code == 200:
                return
        with contextlib.suppress(ChildProcessError):
            ended, _status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
        time.sleep(_PAUSE_S)
    tail = "\n".join(f"  {line}" for line in log_tail(node))
    raise CheckError(f"the agent of {node.name} does not become ready", hint=f"the last lines of its log:\n{tail}")


def _remember(lab: Lab, node: str, pid: int, ticks: int) -> None:
    """So that `down` ends it, whatever becomes of this command."""
    with state.locked(lab.paths, wait_s=10.0):
        found = state.read(lab.paths)
        if found is not None:
            others = tuple(record for record in found.processes if record.member != node or record.role != ROLE)
            mine = state.ProcessRecord(role=ROLE, member=node, pid=pid, start_ticks=ticks)
            state.write(lab.paths, msgspec.structs.replace(found, processes=(*others, mine)))


def _node(lab: Lab, name: str) -> LabNode:
    if name not in lab.nodes:
        raise InputError(f"lab {lab.name} has no node named {name}", hint=hint(name, lab.nodes, there_is="its nodes:"))
    return lab.nodes[name]
