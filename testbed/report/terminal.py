"""The report in the terminal: progress while the run works, a table a scenario, failures in detail, a line of summary.

On a terminal: rich tables and a spinner. In a pipe: one plain line a step as soon as it is known, no colour, no boxes,
so that a CI log grows while the run works and `grep FAIL` finds what it should. `testbed.cli.run` imports this
module inside its function: rich costs 60 ms that `weavelab --help` must not pay.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from testbed.machine import screen
from testbed.scenario.results import CommandEvidence, Counts, RunResult, ScenarioResult, Status, StepResult
from testbed.topology.steps import Scenario, Step

_WIDE_COLUMNS: Final = 110
"""From here on, expectation and sight stand side by side; below, one under the other."""

_STATE_LINES_MAX: Final = 12
_CHAOS_LINES_MAX: Final = 400
"""Of what a chaos step did, the end is shown; all of it is in the other reports."""

_STYLES: Final = {
    Status.PASS: screen.GOOD,
    Status.FAIL: screen.BAD,
    Status.ERROR: screen.BROKEN,
    Status.SKIP: screen.WAITING,
}


def make_console(stream: TextIO) -> Console:
    """A console for `stream`; see `testbed.machine.screen`."""
    return screen.make_console(stream)


class TerminalListener:
    """Tells a person about a run as it goes; `testbed.scenario.runner.Listener`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console(sys.stdout)
        self._spinner = ExitStack()
        self._status: Any = None
        self._where = ""

    @property
    def _live(self) -> bool:
        return self.console.is_terminal

    def phase(self, text: str) -> AbstractContextManager[object]:
        """Say what is going on beside the scenarios: a spinner on a terminal, one line in a pipe."""
        if self._live:
            return self.console.status(Text(text))
        self.console.print(Text(text))
        return ExitStack()

    def scenario_started(self, scenario: Scenario, *, number: int, total: int) -> None:
        """A scenario begins."""
        self._where = f"scenario {number} of {total}, {scenario.name}"
        if self._live:
            self._status = self.console.status(Text(self._where))
            self._spinner.enter_context(self._status)
        else:
            self.console.print(Text(f"{self._where}: {scenario.description}".rstrip(": ")))

    def step_started(self, scenario: Scenario, step: Step, *, number: int) -> None:
        """A step of it begins."""
        if self._live and self._status is not None:
            self._status.update(Text(f"{self._where}: step {number} of {len(scenario.steps)}, {step.title}"))

    def step_ended(self, scenario: Scenario, result: StepResult) -> None:  # noqa: ARG002 - a listener's shape
        """That step has its verdict."""
        if not self._live:
            self.console.print(Text(plain_line(result)))

    def scenario_ended(self, result: ScenarioResult) -> None:
        """All of its steps have theirs."""
        self.close()
        if self._live:
            self.console.print(_scenario_table(result, wide=self.console.width >= _WIDE_COLUMNS))

    def close(self) -> None:
        """Take the spinner away."""
        self._spinner.close()
        self._status = None


def plain_line(step: StepResult) -> str:
    """A step in one line of plain text: ``  PASS  ping red -> green  (0.4 s)  3 of 3 answered``."""
    return f"  {step.status.upper():5}  {step.name}  ({step.seconds:.1f} s)  {' '.join(step.seen.split())}"


def _scenario_table(result: ScenarioResult, *, wide: bool) -> RenderableType:
    """The steps of a scenario as a table with its name above."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("step", ratio=3, overflow="fold")
    if wide:
        table.add_column("expected", ratio=4, overflow="fold", style=screen.ASIDE)
        table.add_column("seen", ratio=4, overflow="fold")
    else:
        table.add_column("expected / seen", ratio=6, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for step in result.steps:
        expected, seen = Text(step.expected, style=screen.ASIDE), Text(step.seen)
        told: list[RenderableType] = [expected, seen] if wide else [Group(expected, seen)]
        table.add_row(Text(step.name), *told, _verdict(step.status), f"{step.seconds:.1f} s")
    title = Text.assemble((result.name, screen.TITLE), "  ", (result.description, ""))
    return Group(title, table)


def _facts(step: StepResult, *, kept: bool) -> list[tuple[str, str]]:
    facts = [("expected", step.expected), ("seen", step.seen)]
    if step.attempts > 1:
        facts.append(("attempts", f"{step.attempts} in {step.seconds:.1f} s"))
    if step.next_command:
        facts.append(("look further", step.next_command))
        if not kept:
            facts.append(("", "(the lab has been taken down: run again with --keep first)"))
    return facts


def _observations(step: StepResult) -> Iterator[tuple[str, list[str]]]:
    for item in step.evidence:
        if step.kind == "chaos" and isinstance(item, CommandEvidence):
            done = item.stdout.splitlines()
            fewer = [f"… {len(done) - _CHAOS_LINES_MAX} earlier lines"] if len(done) > _CHAOS_LINES_MAX else []
            yield "what was done", [*fewer, *done[-_CHAOS_LINES_MAX:]]
    for state in step.states:
        for observation in state.observations:
            lines = observation.text.splitlines()
            more = [f"… {len(lines) - _STATE_LINES_MAX} more lines"] if len(lines) > _STATE_LINES_MAX else []
            yield f"{state.name}: {observation.title}", [*lines[:_STATE_LINES_MAX], *more]


def _failure_panel(scenario: ScenarioResult, step: StepResult, *, kept: bool) -> RenderableType:
    """Everything that helps with a step that does not hold, for a terminal."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=screen.ASIDE)
    grid.add_column(overflow="fold")
    for label, text in _facts(step, kept=kept):
        grid.add_row(label, Text(text, style=screen.TITLE if label == "look further" else ""))
    parts: list[RenderableType] = [grid]
    for title, lines in _observations(step):
        parts += [
            Text(f"\n{title}", style=screen.TITLE),
            Padding(Text("\n".join(lines), style=screen.ASIDE), (0, 0, 0, 2)),
        ]
    heading = Text.assemble(_verdict(step.status), f"  {scenario.name} / {step.name} ")
    return Panel(Group(*parts), title=heading, title_align="left", border_style=_STYLES[step.status], box=box.ROUNDED)


def _failure_lines(scenario: ScenarioResult, step: StepResult, *, kept: bool) -> list[str]:
    """The same as plain text."""
    lines = ["", f"{step.status.upper()}  {scenario.name} / {step.name}"]
    lines += [f"  {label:12}  {text}" for label, text in _facts(step, kept=kept)]
    for title, observed in _observations(step):
        lines += ["", f"  {title}", *(f"    {line}" for line in observed)]
    return lines


def print_summary(console: Console, result: RunResult, *, kept: bool) -> None:
    """What stands at the end: failures in detail, what went wrong beside them, and the line that counts."""
    for scenario in result.scenarios:
        for step in scenario.steps:
            if step.status not in {Status.FAIL, Status.ERROR}:
                continue
            if console.is_terminal:
                console.print(_failure_panel(scenario, step, kept=kept))
            else:
                console.print(Text("\n".join(_failure_lines(scenario, step, kept=kept))))
    if result.problem is not None:
        console.print(Text.assemble(("error: ", screen.BAD), result.problem.message))
        if result.problem.hint:
            console.print(Text.assemble(("hint: ", screen.TITLE), result.problem.hint))
    console.print(summary_line(result.counts, result.seconds, interrupted=result.interrupted))


def summary_line(counts: Counts, seconds: float, *, interrupted: bool = False) -> Text:
    """``12 steps: 12 passed in 7.3 s``."""
    parts = [
        (counts.passed, "passed", _STYLES[Status.PASS]),
        (counts.failed, "failed", _STYLES[Status.FAIL]),
        (counts.errors, "could not be examined", _STYLES[Status.ERROR]),
        (counts.skipped, "not run", _STYLES[Status.SKIP]),
    ]
    text = Text(f"{counts.steps} step{'' if counts.steps == 1 else 's'}: ", style=screen.TITLE)
    shown = [(f"{number} {word}", style) for number, word, style in parts if number] or [("none run", screen.WAITING)]
    for index, (words, style) in enumerate(shown):
        text.append(", " if index else "")
        text.append(words, style=style)
    text.append(f" in {seconds:.1f} s")
    if interrupted:
        text.append(" (interrupted)", style=_STYLES[Status.SKIP])
    return text


def _verdict(status: Status) -> Text:
    return Text(status.upper(), style=_STYLES[status])
