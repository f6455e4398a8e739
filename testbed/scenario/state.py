"""The state of nodes and pods at the moment a step failed: read at once, before a repair or the tear-down hides it."""

import json
from typing import Final

from plugin.core.errors import WeaveError
from testbed.probes.command import StoppedError
from testbed.scenario.attempt import Run
from testbed.scenario.results import MemberState, Observation

MEMBERS_MAX: Final = 6
"""All pairs of a large lab may fail together; the first few say why."""

COMMAND_S: Final = 3.0
_TEXT_MAX: Final = 16 * 1024

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
    if is_node:
        observations.append(Observation(title="agent /status", text=_agent_status(run, name)))
    commands = _EVERYWHERE + (_ON_NODES if is_node else ())
    observations += [Observation(title=" ".join(argv), text=_output(run, name, argv)) for argv in commands]
    return MemberState(name=name, observations=tuple(observations))


def _agent_status(run: Run, name: str) -> str:
    try:
        return json.dumps(run.lab.nodes[name].api_get("/status"), indent=2)[:_TEXT_MAX]
    except (OSError, ValueError, WeaveError) as error:
        return f"the agent did not answer: {error}"


def _output(run: Run, name: str, argv: tuple[str, ...]) -> str:
    try:
        completed = run.processes.run(run.lab.space(name), argv, timeout_s=COMMAND_S)
    except StoppedError:
        raise
    except (OSError, WeaveError) as error:
        return f"could not be read: {error}"
    return (completed.stdout + completed.stderr)[:_TEXT_MAX].rstrip() or "(nothing)"
