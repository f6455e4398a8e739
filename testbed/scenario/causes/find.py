"""Finds the causes of one failed step: asks, looks, probes, puts what explains most first. Start with `find_causes`.

It has two or three seconds and never raises: a step that failed is told with what was found until then.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from plugin.core.errors import WeaveError
from testbed.lab.paths import UNDERLAY
from testbed.machine.space import Space
from testbed.probes.command import StoppedError
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.causes import agents, facts, filters, losses, objects, programs, trace
from testbed.scenario.causes.facts import Facts
from testbed.scenario.causes.scene import scene_of
from testbed.scenario.causes.trace import Trace
from testbed.scenario.causes.values import Cause, Scene, Weight
from testbed.scenario.causes.way import Way, way_of
from testbed.scenario.members import exec_hint
from testbed.scenario.results import PingEvidence
from testbed.topology.steps import Step

SECONDS: Final = 2.5
"""How long causes are looked for."""

_CAUSES_MAX: Final = 5
_WAYS_MAX: Final = 4
"""So many different ways are probed: of more pairs, each takes one of a few ways between nodes."""

_LOG: Final = logging.getLogger(__name__)
_PROBE_LEAST_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Found:
    """What is told of a failure: causes, the most likely first, and the command that shows the first of them."""

    causes: tuple[str, ...] = ()
    look: str = ""


def find_causes(
    run: Run, step: Step, attempt: Attempt, *, seconds_ago: float, error: BaseException | None = None
) -> Found:
    """Why a step failed, as far as it shows now.

    Args:
        run: The run.
        step: The step.
        attempt: Its last attempt.
        seconds_ago: For how long the step ran.
        error: What kept it from being examined.

    Raises:
        StoppedError: The run was stopped.
    """
    try:
        scene = scene_of(run, step, attempt, began_s=time.time() - seconds_ago, seconds=SECONDS)
    except (WeaveError, OSError):
        return Found()  # it names what is not there: `seen` says so
    _search(scene, error)
    ordered = _ordered(scene)
    if not ordered:
        return Found()
    look = next((_look(scene, one) for one in ordered[:1] if one.look), "")
    return Found(tuple(one.text for one in ordered[:_CAUSES_MAX]), look)


def _search(scene: Scene, error: BaseException | None) -> None:
    """Look everywhere, whatever becomes of one of the looks."""
    ways: list[Way] = []
    answers: dict[str, agents.Answer] = {}

    def plan() -> Iterable[Cause]:
        ways.extend(way_of(scene.lab, pair) for pair in scene.pairs)
        return ()

    def ask() -> Iterable[Cause]:
        answers.update(agents.ask(scene.lab, scene.nodes))
        yield from agents.problems(scene, answers, ways)
        yield from agents.silent(scene, answers)

    for look in (
        lambda: programs.missing_programs(scene, error),
        plan,
        ask,
        lambda: _look_and_probe(scene, ways),
        lambda: programs.limits(scene, _representatives(ways)),
        lambda: programs.foreign_frames(scene),
        lambda: agents.repairs(scene, answers),
        lambda: agents.pairs_in_trouble(scene, answers),
    ):
        _attempt(scene, look)


def _attempt(scene: Scene, look: Callable[[], Iterable[Cause]]) -> None:
    if scene.left_s <= 0:
        return
    try:
        for cause in look():
            _put(scene, cause)
    except StoppedError:
        raise
    except Exception:  # noqa: BLE001 - what is told of a failure must not become one: the others look on
        _LOG.debug("a look for causes failed", exc_info=True)


def _put(scene: Scene, cause: Cause) -> None:
    """Add a cause; one about the same object explains these pairs, too, in the words that came first."""
    for position, known in enumerate(scene.found):
        if known.on == cause.on and cause.thing and cause.thing in {known.thing, *known.thing.split()}:
            merged = replace(known, pairs=known.pairs | cause.pairs, weight=min(known.weight, cause.weight))
            if known.said and not cause.said:
                merged = replace(merged, text=f"{cause.text} ({known.said})", said="", look=cause.look)
            scene.found[position] = merged
            return
    scene.found.append(cause)


def _representatives(ways: Iterable[Way]) -> list[Way]:
    """One way of each kind: what ends on it ends for all pairs that take the same."""
    chosen: dict[object, Way] = {}
    for way in ways:
        chosen.setdefault(way.signature, way)
    return list(chosen.values())[:_WAYS_MAX]


# --- looking and probing ------------------------------------------------------------------------------------------
def _look_and_probe(scene: Scene, every_way: Sequence[Way]) -> Iterable[Cause]:
    seen, gone = _observe_all(scene, every_way)
    yield from gone
    for way in every_way:
        yield from objects.findings(scene.lab, way, seen)
    open_ways = [way for way in _representatives(every_way) if way.pair.source.name in seen and way.places]
    if not open_ways or scene.left_s < _PROBE_LEAST_S:
        return
    before = _read_before(scene, open_ways, seen)
    missing = [place for way in open_ways for place in objects.missing_places(way, seen)]
    traced = trace.trace(scene.run, open_ways, missing, timeout_s=scene.left_s)
    for found in traced:
        yield from _explained(scene, found, before, every_way)


def _observe_all(scene: Scene, ways: Iterable[Way]) -> tuple[dict[str, Facts], list[Cause]]:
    """What each member on these ways has, and the members that are gone."""
    wanted: dict[str, set[str]] = {member.name: set() for member in scene.members}
    for way in ways:
        for place in way.places:
            wanted.setdefault(place.on, set())
        for end, other in ((way.pair.source, way.pair.target), (way.pair.target, way.pair.source)):
            wanted.setdefault(end.name, set()).add(objects.address_of(scene.lab, other, end))
    seen: dict[str, Facts] = {}
    gone: list[Cause] = []
    for name, destinations in wanted.items():
        if scene.left_s <= 0:
            break
        space = scene.lab.space(name)
        try:
            seen[name] = facts.observe(space, sorted(to for to in destinations if to))
        except OSError:
            pairs = frozenset(pair.names for pair in scene.pairs if name in pair.names)
            what = "pod" if name in scene.lab.pods else "member"
            text = f"the network namespace of the {what} {name} is gone ({space.net})"
            gone.append(Cause(text, Weight.KNOWN, name, "namespace", pairs))
    return seen, gone


def _read_before(scene: Scene, ways: Iterable[Way], seen: Mapping[str, Facts]) -> losses.Before:
    names = dict.fromkeys(place.on for way in ways for place in way.places if place.on in seen)
    rules = {}
    for name in names:
        if name != UNDERLAY and scene.left_s > 2 * _PROBE_LEAST_S:
            space = scene.lab.space(name)
            rules[name] = filters.read_rules(scene.run.processes, Space(name, net=space.net))
    return losses.Before(rules=rules, counters={name: seen[name].counters for name in names})


def _explained(scene: Scene, found: Trace, before: losses.Before, every_way: Sequence[Way]) -> Iterable[Cause]:
    pair = found.way.pair
    loss = found.loss
    if found.way.kind == "routed" and pair.source.kind == "pod" and found.arrived_as == pair.source.address:
        node = str(pair.source.node)
        text = (
            f"{node} does not masquerade {pair.source.name}: its requests came to {found.places[-1]} from "
            f"{found.arrived_as}, an address that nobody beyond the pod network can answer"
        )
        pairs = frozenset(way.pair.names for way in every_way if (way.kind, way.pair.source.node) == ("routed", node))
        twin = next((one for one in scene.found if one.on == node and one.thing.startswith("nft")), None)
        yield from _instead(
            scene, twin, Cause(text, Weight.PROVED, node, "masquerade", pairs, ("nft", "list", "table", "ip", "weave"))
        )
        return
    told = losses.explain(scene.run, found, before, scene.found)
    if told is None or loss is None:
        yield from _over(scene, found)
        return
    cause, twin = told
    yield from _instead(scene, twin, replace(cause, pairs=_passing(loss, every_way) | cause.pairs))


def _instead(scene: Scene, twin: Cause | None, cause: Cause) -> Iterable[Cause]:
    """A cause that says what another one says, and more."""
    if twin is None or twin not in scene.found:
        yield cause
        return
    is_told = twin.text in cause.text or cause.thing == "rule"
    text = cause.text if is_told else f"{cause.text} ({twin.said or twin.text})"
    scene.found[scene.found.index(twin)] = replace(cause, text=text, pairs=twin.pairs | cause.pairs)


def _passing(loss: trace.Loss, ways: Iterable[Way]) -> frozenset[tuple[str, str]]:
    """The failing pairs whose way leads over the stretch where packets end."""
    ends = {(place.on, place.ifname) for place in (loss.before, loss.after) if place is not None}
    return frozenset(way.pair.names for way in ways if ends <= {(place.on, place.ifname) for place in way.places})


def _over(scene: Scene, found: Trace) -> Iterable[Cause]:
    pair = found.way.pair
    failed = any(
        one.source == pair.source.name and one.target == pair.target.name and one.result.received < one.result.sent
        for one in scene.evidence
        if isinstance(one, PingEvidence)
    )
    if failed:
        probes = f"{trace.COUNT} of {trace.COUNT} probes of {pair.source.name} to {pair.target.name}"
        text = f"it is over: {probes} got through and back after the step"
        yield Cause(text, Weight.BESIDE, pair.source.name, "over", frozenset({pair.names}))


# --- telling ------------------------------------------------------------------------------------------------------
def _ordered(scene: Scene) -> list[Cause]:
    """What was seen on the way first, and of that what explains most pairs; the order of finding decides the rest."""
    found = scene.found
    if any(one.weight <= Weight.KNOWN and one.pairs for one in found):
        # That agents do not see each other follows from what was found on the way.
        found = [one for one in found if one.thing != "peers"]
    return sorted(
        found, key=lambda one: (one.weight is Weight.BESIDE, one.weight > Weight.PROVED, -len(one.pairs), one.weight)
    )


def _look(scene: Scene, cause: Cause) -> str:
    return exec_hint(scene.lab, cause.on, *cause.look)
