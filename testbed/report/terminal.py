"""The report in the terminal: progress while the run works, a table a scenario, failures in detail, a line of summary.

On a terminal: rich tables and a spinner. In a pipe: one plain line a step as soon as it is known, no colour, no boxes,
so that a CI log grows while the run works and `grep FAIL` finds what it should. `testbed.cli.run` imports this
module inside its function: rich costs 60 ms that `weavelab --help` must not pay.
"""

import sys
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from testbed.machine import screen
from testbed.machine.printable import one_line, printable
from testbed.scenario.results import (
    CommandEvidence,
    Counts,
    MemberState,
    RunResult,
    ScenarioResult,
    Status,
    StepResult,
)
from testbed.scenario.state import IN_SHORT
from testbed.topology.steps import Scenario, Step

_WIDE_COLUMNS: Final = 110
"""From here on, expectation and sight stand side by side; below, one under the other."""

_CAUSES_MAX: Final = 4
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
        self._claims: set[str] = set()

    @property
    def _live(self) -> bool:
        return self.console.is_terminal

    def phase(self, text: str) -> AbstractContextManager[object]:
        """Say what is going on beside the scenarios: a spinner on a terminal, one line in a pipe."""
        if self._live:
            return self.console.status(Text(one_line(text)))
        self.console.print(Text(one_line(text)))
        return ExitStack()

    def scenario_started(self, scenario: Scenario, *, number: int, total: int) -> None:
        """A scenario begins."""
        self._where = f"scenario {number} of {total}, {scenario.name}"
        if self._live:
            self._status = self.console.status(Text(one_line(self._where)))
            self._spinner.enter_context(self._status)
        else:
            self.console.print(Text(one_line(f"{self._where}: {scenario.description}".rstrip(": "))))

    def step_started(self, scenario: Scenario, step: Step, *, number: int) -> None:
        """A step of it begins."""
        if self._live and self._status is not None:
            where = f"{self._where}: step {number} of {len(scenario.steps)}, {step.title}"
            self._status.update(Text(one_line(where)))

    def step_ended(self, scenario: Scenario, result: StepResult) -> None:  # noqa: ARG002 - a listener's shape
        """That step has its verdict."""
        if not self._live:
            self.console.print(Text(plain_line(result) + self._why(result)))

    def _why(self, result: StepResult) -> str:
        """The cause of a step that does not hold, once a run: a log that grows is read while it does."""
        if not result.causes:
            return ""
        claim = _claim(result.causes[0])
        is_told = claim in self._claims
        self._claims.add(claim)
        return "; the same cause" if is_told else f"; cause: {one_line(claim)}"

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
    return f"  {step.status.upper():5}  {one_line(step.name)}  ({step.seconds:.1f} s)  {one_line(step.seen)}"


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
        expected, seen = Text(printable(step.expected), style=screen.ASIDE), Text(printable(step.seen))
        told: list[RenderableType] = [expected, seen] if wide else [Group(expected, seen)]
        table.add_row(Text(one_line(step.name)), *told, _verdict(step.status), f"{step.seconds:.1f} s")
    title = Text.assemble((one_line(result.name), screen.TITLE), "  ", (one_line(result.description), ""))
    return Group(title, table)


class _Told:
    """What has been told already, so that nothing is told twice: causes, and the states of members."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._members: set[str] = set()

    def same_as(self, scenario: ScenarioResult, step: StepResult) -> str:
        """The failure that was told with the same cause; empty for the first of them."""
        if not step.causes:
            return ""
        here = f"{scenario.name} / {step.name}"
        first = self._causes.setdefault(_claim(step.causes[0]), here)
        return "" if first == here else first

    def states(self, step: StepResult) -> list[tuple[str, str]]:
        """A line for each member that was not told of yet."""
        fresh = [state for state in step.states if state.name not in self._members]
        self._members |= {state.name for state in fresh}
        return [(state.name, line) for state in fresh if (line := _in_short(state))]


def _claim(cause: str) -> str:
    """What a cause says, without the evidence behind it, of which numbers differ from step to step."""
    return cause.partition("; ")[0]


def _in_short(state: MemberState) -> str:
    return next((one.text for one in state.observations if one.title == IN_SHORT), "")


def _facts(step: StepResult, told: _Told) -> list[tuple[str, str]]:
    facts = [("expected", step.expected), ("seen", step.seen)]
    if step.attempts > 1:
        facts.append(("attempts", f"{step.attempts} in {step.seconds:.1f} s"))
    facts += [("also" if number == 0 else "", cause) for number, cause in enumerate(step.causes[1:_CAUSES_MAX])]
    facts += told.states(step)
    if step.next_command:
        facts.append(("look further", step.next_command))
    return [(printable(label), printable(text)) for label, text in facts]


def _done(step: StepResult) -> list[str]:
    """What a `chaos` step did: its failure says nothing without it."""
    for item in step.evidence:
        if step.kind == "chaos" and isinstance(item, CommandEvidence):
            done = printable(item.stdout).splitlines()
            fewer = [f"… {len(done) - _CHAOS_LINES_MAX} earlier lines"] if len(done) > _CHAOS_LINES_MAX else []
            return [*fewer, *done[-_CHAOS_LINES_MAX:]]
    return []


def _headline(scenario: ScenarioResult, step: StepResult, same: str) -> str:
    """Which step, and why it does not hold: `cross-node / ping red -> blue: node2 drops ...`."""
    why = f"the same cause as of {same}" if same else step.causes[0] if step.causes else ""
    return one_line(f"{scenario.name} / {step.name}" + (f": {why}" if why else ""))


def _failure_panel(scenario: ScenarioResult, step: StepResult, told: _Told) -> RenderableType:
    """What helps with a step that does not hold, for a terminal; short when its cause has been told."""
    same = told.same_as(scenario, step)
    heading = Text.assemble(_verdict(step.status), f"  {_headline(scenario, step, same)}")
    if same:
        return Group(heading, Padding(Text(one_line(step.seen), style=screen.ASIDE), (0, 0, 0, 6)))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=screen.ASIDE)
    grid.add_column(overflow="fold")
    for label, text in _facts(step, told):
        grid.add_row(label, Text(text, style=screen.TITLE if label == "look further" else ""))
    parts: list[RenderableType] = [heading, grid]
    if done := _done(step):
        parts += [
            Text("\nwhat was done", style=screen.TITLE),
            Padding(Text("\n".join(done), style=screen.ASIDE), (0, 0, 0, 2)),
        ]
    return Panel(Group(*parts), border_style=_STYLES[step.status], box=box.ROUNDED)


def _failure_lines(scenario: ScenarioResult, step: StepResult, told: _Told) -> list[str]:
    """The same as plain text."""
    same = told.same_as(scenario, step)
    first = f"{step.status.upper()}  {_headline(scenario, step, same)}"
    if same:
        return [first, f"  {'seen':12}  {one_line(step.seen)}"]
    lines = ["", first]
    for label, text in _facts(step, told):
        lines += [
            f"  {label if number == 0 else '':12}  {line}" for number, line in enumerate(text.splitlines() or [""])
        ]
    if done := _done(step):
        lines += ["", "  what was done", *(f"    {line}" for line in done)]
    return lines


def print_summary(console: Console, result: RunResult, *, kept: bool) -> None:
    """What stands at the end: failures in detail, what went wrong beside them, and the line that counts."""
    told = _Told()
    failed = [
        (scenario, step)
        for scenario in result.scenarios
        for step in scenario.steps
        if step.status in {Status.FAIL, Status.ERROR}
    ]
    for scenario, step in failed:
        if console.is_terminal:
            console.print(_failure_panel(scenario, step, told))
        else:
            console.print(Text("\n".join(_failure_lines(scenario, step, told))))
    if any(step.next_command for _, step in failed) and not kept:
        how = "to look further, run again with --keep first: the lab has been taken down"
        console.print(Text(how, style=screen.ASIDE))
    if result.problem is not None:
        console.print(Text.assemble(("error: ", screen.BAD), printable(result.problem.message)))
        if result.problem.hint:
            console.print(Text.assemble(("hint: ", screen.TITLE), printable(result.problem.hint)))
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
