"""Listeners that pass on what they are told: to a second one, within folds of a CI system's log, into a text file."""

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from testbed.lab.progress import Progress
from testbed.machine.files import give_back
from testbed.scenario.results import ScenarioResult, StepResult
from testbed.scenario.runner import Listener
from testbed.topology.steps import Scenario, Step


class Both:
    """Progress of the lab's coming up, for two."""

    def __init__(self, one: Progress, other: Progress) -> None:
        self._all = (one, other)

    def phase(self, title: str, total: int = 0) -> None:
        """See `Progress.phase`."""
        for each in self._all:
            each.phase(title, total)

    def advance_to(self, count: int) -> None:
        """See `Progress.advance_to`."""
        for each in self._all:
            each.advance_to(count)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        for each in self._all:
            each.note(text)


class Folded:
    """Scenarios for a person, each in a fold, and unfolded for those who keep a copy."""

    def __init__(
        self, shown: Listener, copies: tuple[Listener, ...], *, fold: Callable[[str], None], unfold: Callable[[], None]
    ) -> None:
        self._shown = shown
        self._copies = copies
        self._fold = fold
        self._unfold = unfold

    def scenario_started(self, scenario: Scenario, *, number: int, total: int) -> None:
        """A fold begins."""
        self._fold(f"scenario {number} of {total}, {scenario.name}")
        for each in (self._shown, *self._copies):
            each.scenario_started(scenario, number=number, total=total)

    def step_started(self, scenario: Scenario, step: Step, *, number: int) -> None:
        """Passed on."""
        for each in (self._shown, *self._copies):
            each.step_started(scenario, step, number=number)

    def step_ended(self, scenario: Scenario, result: StepResult) -> None:
        """Passed on."""
        for each in (self._shown, *self._copies):
            each.step_ended(scenario, result)

    def scenario_ended(self, result: ScenarioResult) -> None:
        """The fold ends."""
        for each in (self._shown, *self._copies):
            each.scenario_ended(result)
        self._unfold()


class Copy(io.TextIOBase):
    """A text file that takes what is told at once and never raises: a full disk must not end a run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open("w", "")
        give_back(path)

    def write(self, text: str) -> int:
        """Write what the disk takes; the file is never left open, for a run may end in many ways."""
        self._open("a", text)
        return len(text)

    def _open(self, mode: str, text: str) -> None:
        with suppress(OSError), self._path.open(mode, encoding="utf-8", errors="replace") as file:
            file.write(text)
