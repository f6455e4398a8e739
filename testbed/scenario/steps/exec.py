"""`exec` steps: a command inside members of the lab, its exit code and its output."""

import re
from typing import Final

import msgspec

from testbed.machine.printable import one_line
from testbed.machine.space import Completed
from testbed.probes.command import describe_end, exec_argv
from testbed.scenario.attempt import Attempt, Run, in_parallel
from testbed.scenario.members import Member, concerned, exec_hint, exec_members, space_of, value_of
from testbed.scenario.results import CommandEvidence
from testbed.topology.placeholders import SELF, Placeholder, fill
from testbed.topology.steps import Exec, Step

_OUTPUT_KEPT_MAX: Final = 64 * 1024
SHOWN_MAX: Final = 80


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence."""
    on = exec_members(run.lab, _action(step).on)
    action = _filled(run, _action(step), on[0] if len(on) == 1 else None)
    who = on[0].name if len(on) == 1 else f"each of {', '.join(end.name for end in on)}"
    text = f"on {who}: `{_command_text(action)}` exits with {action.exit_code}"
    if action.stdout_contains is not None:
        text += f", prints {action.stdout_contains!r}"
    if action.stdout_matches is not None:
        text += f", prints what matches {action.stdout_matches!r}"
    return text


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:  # noqa: ARG001 - one shape for all kinds
    """Run the command on every member, side by side, and judge; each has all the time that is left now."""
    timeout_s = deadline_s - run.clock()
    on = exec_members(run.lab, _action(step).on)
    actions = [_filled(run, _action(step), end) for end in on]
    completed = in_parallel(
        run,
        lambda job: _run(run, job[0], exec_argv(job[1].command), timeout_s=timeout_s),
        zip(on, actions, strict=True),
    )
    evidence = [_evidence(*one) for one in zip(on, actions, completed, strict=True)]
    failed = [(end, action) for end, action, item in zip(on, actions, evidence, strict=True) if not item.ok]
    return Attempt(
        ok=not failed,
        seen=_seen(evidence),
        evidence=tuple(evidence),
        concerned=concerned(*(end for end, _ in failed)),
        next_command=exec_hint(run.lab, failed[0][0].name, *exec_argv(failed[0][1].command)) if failed else "",
    )


def _filled(run: Run, action: Exec, on: Member | None) -> Exec:
    """The step with the values of this lab, as `on` sees them; with None, `{self...}` stays: it is each one's own.

    Raises:
        InputError: The lab does not have a value (any more).
    """

    def value(found: Placeholder) -> str:
        if found.who == SELF:
            return str(found) if on is None else value_of(run.lab, Placeholder(on.name, found.what))
        return value_of(run.lab, found)

    def text(given: str) -> str:
        return fill(given, value)

    command, contains, matches = action.command, action.stdout_contains, action.stdout_matches
    return msgspec.structs.replace(
        action,
        command=text(command) if isinstance(command, str) else [text(word) for word in command],
        stdout_contains=None if contains is None else text(contains),
        stdout_matches=None if matches is None else fill(matches, lambda found: re.escape(value(found))),
    )


def _run(run: Run, end: Member, argv: list[str], *, timeout_s: float) -> Completed:
    if end.kind == "pod" and run.lab.topology.kubelet == "containerd":
        from testbed.kubelet.pod_exec import run_in_container  # noqa: PLC0415 - gRPC is loaded only by labs that use it

        return run_in_container(run.lab, run.lab.pods[end.name], argv, timeout_s=timeout_s, ending=run.processes.ending)
    return run.processes.run(space_of(run.lab, end), argv, timeout_s=timeout_s)


def _evidence(end: Member, action: Exec, completed: Completed) -> CommandEvidence:
    problem = judge(action, completed)
    return CommandEvidence(
        on=end.name,
        command=_command_text(action),
        ok=not problem,
        problem=problem,
        ended=describe_end(completed),
        stdout=completed.stdout[-_OUTPUT_KEPT_MAX:],
        stderr=completed.stderr[-_OUTPUT_KEPT_MAX:],
        seconds=round(completed.seconds, 3),
    )


def judge(action: Exec, completed: Completed) -> str:
    """What does not hold, as a clause; the empty string when all of it holds."""
    if completed.timed_out or completed.returncode != action.exit_code:
        last = completed.stderr.strip().splitlines()[-1:] or completed.stdout.strip().splitlines()[-1:]
        return describe_end(completed) + (f": {_short(last[0])}" if last else "")
    if action.stdout_contains is not None and action.stdout_contains not in completed.stdout:
        return f"printed {_short(completed.stdout)!r}"
    if action.stdout_matches is not None and not re.search(action.stdout_matches, completed.stdout, re.MULTILINE):
        return f"printed {_short(completed.stdout)!r}"
    return ""


def _seen(evidence: list[CommandEvidence]) -> str:
    failed = [item for item in evidence if not item.ok]
    if len(evidence) == 1:
        only = evidence[0]
        shown = _short(only.stdout)
        return only.problem or (f"{only.ended}, printed {shown!r}" if shown else only.ended)
    if failed:
        return f"{len(failed)} of {len(evidence)} fail: " + "; ".join(
            f"{item.on}: {item.problem}" for item in failed[:3]
        )
    return f"all {len(evidence)} do"


def _short(text: str) -> str:
    # What a command printed goes to a person's terminal: its escape sequences are shown there, not obeyed.
    flat = one_line(text)
    return flat if len(flat) <= SHOWN_MAX else f"{flat[: SHOWN_MAX - 1]}…"


def _command_text(action: Exec) -> str:
    return action.command if isinstance(action.command, str) else " ".join(action.command)


def _action(step: Step) -> Exec:
    assert step.exec is not None
    return step.exec
