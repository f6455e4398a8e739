"""Verdicts in the words and marks that reports share: one of each, so that no colour is needed to tell them apart."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from testbed.scenario.results import RunResult, ScenarioResult, Status, StepResult

MARKS: Final[Mapping[Status, str]] = {
    Status.PASS: "✓",
    Status.FAIL: "✗",
    Status.ERROR: "!",
    Status.SKIP: "–",  # noqa: RUF001 - a dash, as wide as the others
}

WORDS: Final[Mapping[Status, str]] = {
    Status.PASS: "holds",
    Status.FAIL: "fails",
    Status.ERROR: "not examined",
    Status.SKIP: "not run",
}
"""Of one step, scenario or run; short, for a label."""

_COUNTED: Final = {
    Status.FAIL: ("fails", "fail"),
    Status.ERROR: ("could not be examined", "could not be examined"),
    Status.SKIP: ("was not run", "were not run"),
    Status.PASS: ("holds", "hold"),
}
"""One step, several steps; in the order in which they are told."""


def headline(result: RunResult) -> str:
    """The verdict in one sentence, with the number of every kind of verdict."""
    counts = result.counts
    if result.problem is not None and counts.steps == 0:
        return "The lab did not come up"
    if result.status is Status.PASS:
        return f"All {counts.steps} steps hold" if counts.steps != 1 else "The one step holds"
    others = [
        f"{number} {words}"
        for number, words in (
            (counts.failed, "fails" if counts.failed == 1 else "fail"),
            (counts.errors, "could not be examined"),
            (counts.skipped, "not run"),
        )
        if number
    ]
    return ("Interrupted: " if result.interrupted else "") + ", ".join(
        [f"{counts.passed} of {counts.steps} steps hold", *others]
    )


def tally(steps: Iterable[StepResult]) -> str:
    """Steps by verdict in words: ``1 fails, 5 hold``; what does not hold stands first."""
    found = Counter(step.status for step in steps)
    return ", ".join(
        f"{found[status]} {words[found[status] > 1]}" for status, words in _COUNTED.items() if found[status]
    )


def reason(step: StepResult) -> str:
    """Why a step does not hold, in one sentence: its most likely cause, or what was seen when none is known."""
    return step.causes[0] if step.causes else step.seen


def failures(result: RunResult) -> list[tuple[ScenarioResult, int, StepResult]]:
    """Every step that does not hold or could not be examined, with its scenario and its place there, from 0."""
    return [
        (scenario, index, step)
        for scenario in result.scenarios
        for index, step in enumerate(scenario.steps)
        if step.status in {Status.FAIL, Status.ERROR}
    ]


def duration(seconds: float) -> str:
    """``0.43 s``, ``12.3 s``, ``2 min 5 s``."""
    if seconds >= 120:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
