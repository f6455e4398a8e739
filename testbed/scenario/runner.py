"""Run the scenarios of a lab: every step in order, each with its expectation, its deadline and its evidence.

Read `run_scenarios` downwards. What a kind of step does is in a file of its own in steps/; this file decides when to
try again, when to give up, and what a failure takes with it. It prints nothing: whoever wants to see progress passes a
`Listener`.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from plugin.core.errors import WeaveError
from testbed.probes.command import StoppedError
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.causes.find import Found, find_causes
from testbed.scenario.results import REPETITION, ScenarioResult, Status, StepResult, worst
from testbed.scenario.state import states_of
from testbed.scenario.steps import chaos, exec, healthy, iperf, ping, pod, wire  # noqa: A004 - the kind of step is called so
from testbed.topology.steps import Scenario, Step

PAUSE_S: Final = 0.1
"""Between two attempts at a step: an agent needs milliseconds, and a busy loop would take them from it."""


class Listener(Protocol):
    """Who is told about progress, in the order things happen."""

    def scenario_started(self, scenario: Scenario, *, number: int, total: int) -> None:
        """A scenario begins."""

    def step_started(self, scenario: Scenario, step: Step, *, number: int) -> None:
        """A step of it begins."""

    def step_ended(self, scenario: Scenario, result: StepResult) -> None:
        """That step has its verdict."""

    def scenario_ended(self, result: ScenarioResult) -> None:
        """All of its steps have theirs."""


class Silent:
    """A listener that does nothing."""

    def scenario_started(self, scenario: Scenario, *, number: int, total: int) -> None: ...  # noqa: D102
    def step_started(self, scenario: Scenario, step: Step, *, number: int) -> None: ...  # noqa: D102
    def step_ended(self, scenario: Scenario, result: StepResult) -> None: ...  # noqa: D102
    def scenario_ended(self, result: ScenarioResult) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of step is done.

    Attributes:
        expectation: The expectation as a sentence; refuses a step that this lab cannot answer.
        attempt: Tries once: (run, step, deadline on the run's clock, the attempt before).
        extra_seconds: What the deadline grows by, beside `within_s`.
    """

    expectation: Callable[[Run, Step], str]
    attempt: Callable[[Run, Step, float, Attempt | None], Attempt]
    extra_seconds: Callable[[Step], float] = lambda _: 0.0


KINDS: Final = {
    "ping": Kind(ping.expectation, ping.attempt),
    "iperf": Kind(iperf.expectation, iperf.attempt, iperf.extra_seconds),
    "wire": Kind(wire.expectation, wire.attempt),
    "exec": Kind(exec.expectation, exec.attempt),
    "pod": Kind(pod.expectation, pod.attempt, pod.extra_seconds),
    "healthy": Kind(healthy.expectation, healthy.attempt),
    "chaos": Kind(chaos.expectation, chaos.attempt, chaos.extra_seconds),
}


def run_scenarios(
    run: Run,
    scenarios: Iterable[Scenario],
    *,
    listener: Listener | None = None,
    fail_fast: bool = False,
    results: list[ScenarioResult] | None = None,
    why_interrupted: Callable[[], str] = lambda: "interrupted",
) -> list[ScenarioResult]:
    """Run scenarios in order.

    Args:
        run: The lab and what the steps share.
        scenarios: What to run.
        listener: Who is told about progress.
        fail_fast: Skip every step after the first that does not hold.
        results: Where results are put as they come, so that they survive an interruption.
        why_interrupted: Says in a few words what an interruption meant.

    Raises:
        KeyboardInterrupt: The run was interrupted; `results` is complete, unfinished steps being `skip`.
    """
    todo = tuple(scenarios)
    found = [] if results is None else results
    teller = listener or Silent()
    stopping = ""
    interruption: KeyboardInterrupt | None = None
    for number, scenario in enumerate(todo, 1):
        teller.scenario_started(scenario, number=number, total=len(todo))
        started_at, started_s = now_utc(), run.clock()
        steps: list[StepResult] = []
        for index, step in enumerate(scenario.steps, 1):
            if stopping:
                result = skipped(step, stopping)
            else:
                teller.step_started(scenario, step, number=index)
                try:
                    result = run_step(run, step)
                except (KeyboardInterrupt, StoppedError) as stop:
                    run.processes.stop()
                    interruption = stop if isinstance(stop, KeyboardInterrupt) else KeyboardInterrupt()
                    stopping = why_interrupted()
                    result = skipped(step, stopping)
                if fail_fast and result.status in {Status.FAIL, Status.ERROR}:
                    stopping = "an earlier step failed and --fail-fast was given"
            steps.append(result)
            teller.step_ended(scenario, result)
        ended = ScenarioResult(
            name=scenario.name,
            description=scenario.description,
            status=worst(step.status for step in steps),
            seconds=round(run.clock() - started_s, 3),
            started=started_at,
            repetition=int(scenario.name.partition(REPETITION)[2] or 1),
            steps=tuple(steps),
        )
        found.append(ended)
        teller.scenario_ended(ended)
    if interruption is not None:
        raise interruption
    return found


def run_step(run: Run, step: Step) -> StepResult:
    """One step: tried until it holds, its deadline passes, or another try would prove nothing.

    Raises:
        StoppedError: The run was stopped.
    """
    kind = KINDS[step.kind]
    started_s = run.clock()
    deadline_s = started_s + step.within_s + kind.extra_seconds(step)
    expected = ""
    attempts = 0
    last: Attempt | None = None
    problem: WeaveError | OSError | None = None
    try:
        expected = kind.expectation(run, step)
        while True:
            attempts += 1
            began_s = run.clock()
            last = kind.attempt(run, step, deadline_s, last)
            # Another attempt takes as long as this one did; one that the deadline cuts off would say less than this.
            next_ends_s = run.clock() + PAUSE_S + (run.clock() - began_s)
            if last.ok or last.final or next_ends_s > deadline_s:
                break
            run.processes.wait(PAUSE_S)
    except StoppedError:
        raise
    except (WeaveError, OSError) as error:
        problem, last = error, _unexamined(error)
    seconds = round(run.clock() - started_s, 3)
    found = Found() if last.ok else find_causes(run, step, last, seconds_ago=seconds, error=problem)
    states = () if last.ok else states_of(run, last.concerned)
    return StepResult(
        name=step.title,
        kind=step.kind,
        status=Status.PASS if last.ok else Status.ERROR if last.error else Status.FAIL,
        seconds=seconds,
        expected=expected or f"{step.title} holds",
        seen=last.seen,
        attempts=attempts,
        seed=None if step.chaos is None else step.chaos.seed,
        evidence=last.evidence,
        causes=found.causes,
        states=states,
        next_command="" if last.ok else found.look or last.next_command,
    )


def skipped(step: Step, reason: str) -> StepResult:
    """A step that was not examined, and why."""
    return StepResult(
        name=step.title, kind=step.kind, status=Status.SKIP, expected=f"{step.title} holds", seen=f"not run: {reason}"
    )


def now_utc() -> str:
    """The time as reports write it: UTC, ISO 8601, whole seconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _unexamined(error: WeaveError | OSError) -> Attempt:
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        text = f"could not be examined: {error.filename} was not found"
    else:
        text = f"could not be examined: {error}"
    if isinstance(error, WeaveError) and error.hint:
        text += f" ({error.hint})"
    return Attempt(ok=False, error=True, seen=text)
