"""Why a command or a transfer failed: the program is not there, a limit is set on the way, the machine is busy."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from testbed.machine.space import Space
from testbed.scenario.causes.values import Cause, Pair, Scene, Weight
from testbed.scenario.causes.way import Way
from testbed.scenario.results import CaptureEvidence, CommandEvidence, IperfEvidence, PingEvidence

_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
_MISSING: Final = re.compile(
    r"(?:^|: )([^\s:]+): (?:command )?not found|\"([^\s\"]+)\": executable file not found", re.MULTILINE
)
_REFUSED: Final = re.compile(r"(?:^|: )(?P<name>[^\s:]+): (?P<why>Permission denied|Exec format error)", re.MULTILINE)
_PLAIN: Final = frozenset({"noqueue", "fq_codel", "pfifo_fast", "mq", "pfifo", "fq"})
"""Queueing disciplines that a kernel gives by itself; ingress hooks are filters' anchors."""

_TC_S: Final = 1.0
_BUSY: Final = 1.5
"""More runnable threads a processor than this, and a measurement says more of the machine than of the network."""


def missing_programs(scene: Scene, error: BaseException | None) -> Iterator[Cause]:
    """Programs that an `exec` step wanted and did not find."""
    if isinstance(error, FileNotFoundError | PermissionError) and scene.step.exec is not None:
        name = str(error.filename or "")
        on = scene.members[0].name if scene.members else ""
        if name and name == scene.step.exec.command[0]:
            word = "is not executable" if isinstance(error, PermissionError) else "is not there"
            yield Cause(
                f"the program {name} {word} on {_who(scene)}", Weight.KNOWN, on, "program", look=("ls", "-l", name)
            )
    for one in scene.evidence:
        if not isinstance(one, CommandEvidence) or one.ok:
            continue
        missing = _MISSING.search(one.stderr) if one.ended == f"exit code {_NOT_FOUND}" else None
        refused = _REFUSED.search(one.stderr) if one.ended == f"exit code {_NOT_EXECUTABLE}" else None
        if missing is not None:
            name = next(word for word in missing.groups() if word)
            text = f"the program {name} is not there on {one.on}: exit code {_NOT_FOUND}"
            yield Cause(text, Weight.KNOWN, one.on, "program", look=("sh", "-c", f"command -v {name}; echo $PATH"))
        elif refused is not None:
            text = f"{refused['name']} cannot be executed on {one.on}: {refused['why']}"
            yield Cause(text, Weight.KNOWN, one.on, "program", look=("ls", "-l", refused["name"]))
        elif one.ended.startswith("killed at its deadline"):
            text = f"the command on {one.on} did not end within {one.seconds:.1f} s, and was killed"
            yield Cause(text, Weight.KNOWN, one.on, "deadline")


def _who(scene: Scene) -> str:
    return " and ".join(member.name for member in scene.members[:3])


def limits(scene: Scene, ways: Iterable[Way]) -> Iterator[Cause]:
    """What makes a transfer slow that gets through: limits on the way, a busy machine."""
    measured = [one for one in scene.evidence if isinstance(one, IperfEvidence) and not one.result.error]
    if not measured:
        return
    known = set()
    for way in ways:
        yield from _configured(scene, way.pair)
        for place in way.places:
            if (place.on, place.ifname) not in known:
                known.add((place.on, place.ifname))
                yield from _queues(scene, way, place.on, place.ifname)
    runnable, processors = os.getloadavg()[0], os.cpu_count() or 1
    if runnable > _BUSY * processors:
        text = f"likely: the machine is busy, {runnable:.1f} threads want to run on {processors} processors"
        yield Cause(text, Weight.LIKELY, measured[0].source, "load", frozenset(pair.names for pair in scene.pairs))


def _configured(scene: Scene, pair: Pair) -> Iterator[Cause]:
    for end, direction in ((pair.source, "egress"), (pair.target, "ingress")):
        spec = scene.lab.topology.pods.get(end.name)
        rate = None if spec is None else getattr(spec.bandwidth, direction)
        if rate is not None:
            text = f"{end.name}'s {direction} is limited to {rate}bit/s by the topology"
            yield Cause(text, Weight.LIKELY, end.name, "limit", frozenset({pair.names}))


def _queues(scene: Scene, way: Way, on: str, ifname: str) -> Iterator[Cause]:
    space = Space(on, net=scene.lab.space(on).net)
    argv = ["tc", "-s", "-j", "qdisc", "show", "dev", ifname]
    if scene.left_s <= 0:
        return
    done = scene.run.processes.run(space, argv, timeout_s=_TC_S)
    for one in _parsed(done.stdout):
        kind = one.get("kind", "")
        if kind in _PLAIN or kind in {"ingress", "clsact"}:
            continue
        rate = (one.get("options") or {}).get("rate")
        at = f" of {8 * rate / 1e6:g} Mbit/s" if isinstance(rate, int) else ""
        dropped = f"; it has dropped {one['drops']} packets" if one.get("drops") else ""
        text = f"{ifname} of {on} has a queue `{kind}`{at} on the way of {way.pair.source.name}'s packets{dropped}"
        look = ("tc", "-s", "qdisc", "show", "dev", ifname)
        yield Cause(text, Weight.KNOWN, on, f"limit {ifname}", frozenset({way.pair.names}), look)


def _parsed(text: str) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)]


def foreign_frames(scene: Scene) -> Iterator[Cause]:
    """What a `wire` step saw and should not have: the first check that does not hold, where it was seen."""
    for one in scene.evidence:
        if not isinstance(one, CaptureEvidence):
            continue
        failed = [check for check in one.checks if not check.holds]
        places = [place for place in one.places if place.probe_frames]
        if not failed or not places or not _answered(scene):
            continue
        where = ", ".join(f"{place.probe_frames} on {place.ifname} of {place.node}" for place in places)
        text = f"{failed[0].name}: wanted {failed[0].wanted}, found {failed[0].found}; frames of the probe: {where}"
        pairs = frozenset(pair.names for pair in scene.pairs)
        yield Cause(text, Weight.LIKELY, places[0].node, "frames", pairs, ("bridge", "fdb", "show"))


def _answered(scene: Scene) -> bool:
    return all(one.ok for one in scene.evidence if isinstance(one, PingEvidence))
