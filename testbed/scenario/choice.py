"""Which scenarios of a topology run, how often, and what they need: decided before anything is built."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from plugin.core.errors import InputError
from testbed.nearest import hint
from testbed.topology.model import Topology
from testbed.topology.steps import Scenario, Step

ROUNDS_MAX: Final = 1000
"""Of one run; every step of every round is in the reports."""

_WILDCARDS: Final = frozenset("*?[")
_TOOLS: Final[Mapping[str, tuple[str, ...]]] = {
    "ping": ("ping",),
    "wire": ("ping",),
    "iperf": ("iperf3",),
    "chaos": ("ping", "nft"),
}
"""The programs that a kind of step calls; `exec` calls what the file says."""


def choose_scenarios(topology: Topology, words: Sequence[str] = (), tags: Sequence[str] = ()) -> tuple[Scenario, ...]:
    """The scenarios of these names and patterns, in the order asked for, each once; without words all, as in the file.

    Args:
        topology: Whose.
        words: Names, or patterns as a shell has them (`cross-*`).
        tags: Of these only those with one of the tags; all of them when none is given.

    Raises:
        InputError: A name, a pattern or a tag means no scenario, or the topology has none at all.
    """
    known = {scenario.name: scenario for scenario in topology.scenarios}
    if not known:
        raise InputError(
            f"the topology {topology.name} has no scenarios to run",
            hint="add `scenarios:` to its file (docs/guide/scenarios.md)",
        )
    names = dict.fromkeys(name for word in words for name in _meant(topology, word, list(known)))
    chosen = tuple(known[name] for name in names) if words else tuple(known.values())
    if not tags:
        return chosen
    _check_tags(topology, tags)
    tagged = tuple(scenario for scenario in chosen if set(tags) & set(scenario.tags))
    if not tagged:
        raise InputError(
            f"none of {', '.join(scenario.name for scenario in chosen)} has the tag {' or '.join(tags)}",
            hint="`weavelab run --list` shows scenarios with their tags",
        )
    return tagged


def _meant(topology: Topology, word: str, known: Sequence[str]) -> list[str]:
    if word in known:
        return [word]
    if not _WILDCARDS & set(word):
        raise InputError(
            f"the topology {topology.name} has no scenario {word!r}", hint=hint(word, known, there_is="it has:")
        )
    names = [name for name in known if fnmatchcase(name, word)]
    if not names:
        raise InputError(
            f"no scenario of the topology {topology.name} matches {word!r}", hint=hint("", known, there_is="it has:")
        )
    return names


def _check_tags(topology: Topology, tags: Sequence[str]) -> None:
    there = list(dict.fromkeys(tag for scenario in topology.scenarios for tag in scenario.tags))
    for tag in tags:
        if tag not in there:
            raise InputError(
                f"no scenario of the topology {topology.name} has the tag {tag!r}",
                hint=hint(tag, there, there_is="its tags:"),
            )


def rounds(scenarios: Sequence[Scenario], count: int) -> Iterator[tuple[Scenario, ...]]:
    """The scenarios, so many times; with more than one round every name says which: `same-node#2`.

    A report holds each name once, and `#` is in no name that a topology gives.
    """
    if count == 1:
        yield tuple(scenarios)
        return
    for number in range(1, count + 1):
        yield tuple(msgspec.structs.replace(one, name=f"{one.name}#{number}") for one in scenarios)


def tools_of(scenarios: Iterable[Scenario]) -> tuple[str, ...]:
    """The programs that these scenarios call, in alphabetical order."""
    steps = (step for scenario in scenarios for step in scenario.steps)
    return tuple(sorted({tool for step in steps for tool in _TOOLS.get(step.kind, ())}))


def override_chaos(
    scenarios: Sequence[Scenario], *, seed: int | None = None, seconds: int | None = None
) -> tuple[Scenario, ...]:
    """The scenarios with another seed and another duration in every chaos step; None leaves what the file says.

    Raises:
        InputError: There is something to override, but no chaos step.
    """
    given = {key: value for key, value in (("seed", seed), ("seconds", seconds)) if value is not None}
    if given and not any(step.kind == "chaos" for scenario in scenarios for step in scenario.steps):
        raise InputError(
            f"--{' and --'.join(given)} change the chaos steps of a run, and this one has none",
            hint="weavelab run topologies/chaos.yaml, or add a chaos step (docs/guide/scenarios.md)",
        )

    def changed(step: Step) -> Step:
        if step.chaos is None or not given:
            return step
        return msgspec.structs.replace(step, chaos=msgspec.structs.replace(step.chaos, **given))

    return tuple(
        msgspec.structs.replace(scenario, steps=[changed(step) for step in scenario.steps]) for scenario in scenarios
    )
