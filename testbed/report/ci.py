"""What GitHub Actions and GitLab CI understand in a job's log: folds, annotations, the job's summary.

Only where their environment is seen, nothing elsewhere. Lines that such a system would obey are written by this module
alone: text from the lab is escaped, and while text of several lines is shown, GitHub is told to obey nothing.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from plugin.core.errors import WeaveError, said_by
from testbed.report.summary import job_summary
from testbed.report.words import failures, reason
from testbed.scenario.results import RunResult, StepResult
from testbed.topology.load import TopologyError

_ANNOTATIONS_MAX: Final = 10
"""GitHub shows ten errors of one step of a job; if there are more, the last says how many."""

_TEXT_MAX: Final = 1_500


def log_of(environment: Mapping[str, str], write: Callable[[str], object]) -> "Log":
    """The log of the CI system that this environment is of; one that writes nothing when it is of none."""
    if environment.get("GITHUB_ACTIONS") == "true":
        return GitHub(environment, write)
    if environment.get("GITLAB_CI") == "true":
        return GitLab(write)
    return Log()


class Log:
    """A log that nobody but people read: each method does nothing. The systems have their own below."""

    def fold(self, title: str) -> None:
        """What follows can be folded away, under this title."""

    def unfold(self) -> None:
        """The fold ends."""

    @contextmanager
    def verbatim(self) -> Iterator[None]:
        """A block in which text is shown that the system must not obey."""
        yield

    def conclude(self, result: RunResult, lines: Mapping[tuple[str, int], int]) -> list[str]:  # noqa: ARG002 - for all kinds
        """Say what does not hold, in the system's own way.

        Args:
            result: The run.
            lines: Where steps are written, by scenario and place (`testbed.topology.places`).

        Returns:
            What could not be said, a sentence each.
        """
        return []

    def refuse(self, error: WeaveError) -> None:
        """Say why there was no run at all."""


class GitHub(Log):
    """GitHub Actions: workflow commands, which are lines that begin with `::`, and the job's summary in a file."""

    def __init__(self, environment: Mapping[str, str], write: Callable[[str], object]) -> None:
        self._workspace = environment.get("GITHUB_WORKSPACE", "")
        self._summary = environment.get("GITHUB_STEP_SUMMARY", "")
        self._write = write

    def fold(self, title: str) -> None:
        """A group."""
        self._write(f"::group::{_data(title)}\n")

    def unfold(self) -> None:
        """Its end."""
        self._write("::endgroup::\n")

    @contextmanager
    def verbatim(self) -> Iterator[None]:
        """No command is obeyed until the one that nobody else can know."""
        token = secrets.token_hex(16)
        self._write(f"::stop-commands::{token}\n")
        try:
            yield
        finally:
            self._write(f"::{token}::\n")

    def conclude(self, result: RunResult, lines: Mapping[tuple[str, int], int]) -> list[str]:
        """An annotation for each step that does not hold, at its line; the summary of the job."""
        file = _relative(result.topology_file, self._workspace)
        room = _ANNOTATIONS_MAX - (result.problem is not None)
        if result.problem is not None:
            text = "\n".join(filter(None, (result.problem.message, result.problem.hint)))
            self._annotate(text, title=f"lab {result.lab}", file=file)
        found = failures(result)
        shown = found if len(found) <= room else found[: room - 1]
        for scenario, index, step in shown:
            line = lines.get((scenario.plain_name, index)) if file else None
            self._annotate(_told(step), title=f"{scenario.name} / {step.name}", file=file, line=line)
        if len(found) > len(shown):
            self._annotate("the report has all of them", title=f"{len(found) - len(shown)} more steps do not hold")
        return self._summarise(result)

    def refuse(self, error: WeaveError) -> None:
        """An annotation; for a topology one a problem, at its line."""
        if not isinstance(error, TopologyError):
            self._annotate("\n".join(filter(None, (error.message, error.hint))), title="weavelab did not run")
            return
        file = _relative(error.file, self._workspace)
        for mark, message in error.problems[:_ANNOTATIONS_MAX]:
            line = mark.line if mark is not None and file else None
            self._annotate(message, title="the topology is wrong", file=file, line=line)

    def _annotate(self, text: str, *, title: str, file: str = "", line: int | None = None) -> None:
        properties = {"file": file, "line": "" if line is None else str(line), "title": title}
        told = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
        self._write(f"::error {told}::{_data(text[:_TEXT_MAX])}\n")

    def _summarise(self, result: RunResult) -> list[str]:
        if not self._summary:
            return []
        try:
            with Path(self._summary).open("a", encoding="utf-8", errors="replace") as file:
                file.write(job_summary(result) + "\n")
        except OSError as error:
            return [f"the summary of the job, {self._summary}, could not be written: {said_by(error, path=False)}"]
        return []


class GitLab(Log):
    """GitLab CI: sections of the log. What does not hold it takes from the JUnit report among the job's artifacts.

    It obeys sections only; they begin with a control character, which text of the lab is shown without.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.time) -> None:
        self._write = write
        self._clock = clock
        self._number = 0

    def fold(self, title: str) -> None:
        """A section, folded: what does not hold is told in detail after all of them."""
        self._number += 1
        words = " ".join(title.split())
        self._write(
            f"\x1b[0Ksection_start:{self._clock():.0f}:weavelab_{self._number}[collapsed=true]\r\x1b[0K{words}\n"
        )

    def unfold(self) -> None:
        """Its end."""
        self._write(f"\x1b[0Ksection_end:{self._clock():.0f}:weavelab_{self._number}\r\x1b[0K\n")


def _told(step: StepResult) -> str:
    facts = {"expected": step.expected, "seen": step.seen if step.causes else "", "look further": step.next_command}
    return "\n".join([reason(step), *(f"{name}: {text}" for name, text in facts.items() if text)])


def _relative(file: str, workspace: str) -> str:
    """The file as GitHub names it, from the workspace; empty when it is not in there."""
    if not file or not Path(file).is_file():
        return ""
    path = os.path.relpath(Path(file).resolve(), Path(workspace).resolve() if workspace else Path.cwd())
    return "" if path.startswith("..") else path


def _data(text: str) -> str:
    """The text of a workflow command, which is one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A value among the properties of a workflow command, which commas part and a colon ends."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
