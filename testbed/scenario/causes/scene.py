"""Who is concerned by a failure: the pairs and members that a step names, those that failed where that is known."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from plugin.core.errors import InputError
from testbed.lab.running import Lab
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.causes.values import Pair, Scene
from testbed.scenario.members import Member, exec_members, member, ping_pairs
from testbed.scenario.results import CommandEvidence, IperfEvidence, PingEvidence
from testbed.topology.steps import Step
from testbed.topology.targets import expand

_ICMP_BYTES: Final = 28
_PAIRS_MAX: Final = 500
"""All pairs of 100 pods may fail together; so many say why as well as all."""


def scene_of(run: Run, step: Step, attempt: Attempt, *, began_s: float, seconds: float) -> Scene:
    """The scene of a step that failed.

    Args:
        run: The run.
        step: The step.
        attempt: Its last attempt.
        began_s: When the step began, seconds since the epoch.
        seconds: How long causes may be looked for.

    Raises:
        InputError: The step names what the lab does not have.
    """
    pairs = tuple(islice(_failed(run.lab, step, attempt), _PAIRS_MAX))
    pairs = pairs or tuple(islice(_named(run.lab, step), _PAIRS_MAX))
    ends = [end for pair in pairs for end in (pair.source, pair.target)]
    members = tuple(dict.fromkeys([*ends, *_alone(run.lab, step, attempt)]))
    return Scene(
        run=run,
        step=step,
        evidence=attempt.evidence,
        pairs=pairs,
        members=members,
        nodes=tuple(dict.fromkeys(one.node for one in members if one.node is not None)),
        is_examined=not attempt.error,
        began_s=began_s,
        until_s=run.clock() + seconds,
    )


def _failed(lab: Lab, step: Step, attempt: Attempt) -> Iterator[Pair]:
    """The pairs that the evidence shows failing."""
    size, whole = (step.ping.size, step.ping.df) if step.ping is not None else (56, False)
    for one in attempt.evidence:
        if isinstance(one, PingEvidence) and not one.ok:
            target = member(lab, one.target)
            if target.kind == "node" and one.address != target.address:
                target = member(lab, one.target, own_node=True)
            yield Pair(member(lab, one.source), target, size + _ICMP_BYTES, whole)
        elif isinstance(one, IperfEvidence):
            yield Pair(member(lab, one.source), member(lab, one.target))


def _named(lab: Lab, step: Step) -> Iterator[Pair]:
    """The pairs that the step names: it could not even be tried."""
    if step.ping is not None:
        size, whole = step.ping.size + _ICMP_BYTES, step.ping.df
        with suppress(InputError):  # an end without an address: then it is about its node
            yield from (Pair(source, target, size, whole) for source, target in ping_pairs(lab, step.ping))
    elif (two := step.iperf or step.wire) is not None:
        yield Pair(member(lab, two.from_), member(lab, two.to))


def _alone(lab: Lab, step: Step, attempt: Attempt) -> Iterable[Member]:
    """Members that the step is about one by one."""
    failed = [one.on for one in attempt.evidence if isinstance(one, CommandEvidence) and not one.ok]
    if step.chaos is not None:
        return [member(lab, name) for name in lab.nodes]
    if failed:
        return [member(lab, name) for name in failed if _is_there(lab, name)]
    if step.ping is not None:
        return [member(lab, name) for name in expand(lab.topology, step.ping.from_) if _is_there(lab, name)]
    action = step.exec or step.pod or step.healthy
    return () if action is None else exec_members(lab, action.on)


def _is_there(lab: Lab, name: str) -> bool:
    try:
        member(lab, name)
    except InputError:
        return False
    return True
