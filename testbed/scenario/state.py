"""The state of nodes and pods at the moment a step failed: read at once, before a repair or the tear-down hides it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from plugin.core.errors import WeaveError, said_by
from testbed.probes.command import StoppedError
from testbed.scenario.attempt import Run
from testbed.scenario.results import MemberState, Observation

MEMBERS_MAX: Final = 6
"""All pairs of a large lab may fail together; the first few say why."""

COMMAND_S: Final = 3.0
_TEXT_MAX: Final = 16 * 1024

IN_SHORT: Final = "in short"
"""The title of the observation that says in one line what matters of the others."""

_PEERS_NAMED_MAX: Final = 3

_EVERYWHERE: Final = (("ip", "-br", "address"), ("ip", "route"), ("ip", "neigh"))
_ON_NODES: Final = (("bridge", "fdb", "show"), ("ip", "-br", "link"))


def states_of(run: Run, names: tuple[str, ...]) -> tuple[MemberState, ...]:
    """What each member says about itself. What cannot be read is part of the answer; nothing is raised but a stop.

    Raises:
        StoppedError: The run was stopped.
    """
    return tuple(_state(run, name) for name in names[:MEMBERS_MAX])


def _state(run: Run, name: str) -> MemberState:
    observations = []
    is_node = name in run.lab.nodes
    status = _agent_status(run, name) if is_node else {}
    if is_node:
        text = status if isinstance(status, str) else json.dumps(status, indent=2)[:_TEXT_MAX]
        observations.append(Observation(title="agent /status", text=text))
    commands = _EVERYWHERE + (_ON_NODES if is_node else ())
    observations += [Observation(title=" ".join(argv), text=_output(run, name, argv)) for argv in commands]
    texts = {one.title: one.text for one in observations}
    short = _node_in_short(status) if is_node else _member_in_short(texts["ip -br address"], texts["ip route"])
    return MemberState(name=name, observations=(Observation(title=IN_SHORT, text=short), *observations))


def _agent_status(run: Run, name: str) -> dict[str, Any] | str:
    try:
        said = run.lab.nodes[name].api_get("/status")
    except (OSError, ValueError, WeaveError) as error:
        return f"the agent did not answer: {said_by(error)}"
    return said if isinstance(said, dict) else f"the agent answered {said!r:.200}"


def _node_in_short(status: Mapping[str, Any] | str) -> str:
    """What matters of an agent's word: ready or not, whom it does not see, what is wrong and held."""
    if isinstance(status, str):
        return status
    parts = ["agent ready" if status.get("ready") else "agent not ready"]
    peers = status.get("peers", [])
    troubled = [f"{one['name'] or one['address']} {one['state']}" for one in peers if one["state"] != "established"]
    if troubled:
        more = f" and {len(troubled) - _PEERS_NAMED_MAX} more" if len(troubled) > _PEERS_NAMED_MAX else ""
        parts.append(f"sees {', '.join(troubled[:_PEERS_NAMED_MAX])}{more}")
    else:
        parts.append(f"sees all of {len(peers)} peers" if peers else "sees no peer")
    parts += [f"wrong: {one['object']} ({one['cause']})" for one in status.get("problems", [])]
    parts += [f"held: {one['object']}" for one in status.get("held", [])]
    return "; ".join(parts)


def _member_in_short(addresses: str, routes: str) -> str:
    """What matters of a pod or host without an agent: its interfaces, and by which it leaves."""
    links = [" ".join(line.split()) for line in addresses.splitlines() if not line.startswith("lo ")]
    default = next((line for line in routes.splitlines() if line.startswith("default ")), "no default route")
    return "; ".join([*links, " ".join(default.split())])


def _output(run: Run, name: str, argv: tuple[str, ...]) -> str:
    try:
        completed = run.processes.run(run.lab.space(name), argv, timeout_s=COMMAND_S)
    except StoppedError:
        raise
    except (OSError, WeaveError) as error:
        return f"could not be read: {said_by(error)}"
    return (completed.stdout + completed.stderr)[:_TEXT_MAX].rstrip() or "(nothing)"
