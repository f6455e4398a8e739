"""What surrounds the reports of one run: its artifacts folder, and the CI system that it runs under.

`testbed.cli.session` calls it at five moments: before anything happens, while it happens, before the lab goes away,
when the result is known, and at the end. Where neither is there, each of them does nothing.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

from plugin.core.errors import WeaveError
from testbed.cli.listeners import Both, Copy, Folded
from testbed.cli.reports import Reports, Written
from testbed.lab.progress import Lines, Progress
from testbed.lab.running import Lab
from testbed.report.artifacts import Artifacts
from testbed.report.ci import log_of
from testbed.report.terminal import TerminalListener, make_console, print_summary
from testbed.scenario.results import RunResult
from testbed.scenario.runner import Listener
from testbed.topology.model import Topology
from testbed.topology.places import step_lines


class Publication:
    """See the module's docstring; its methods in the order of a run.

    Args:
        reports: What was asked for.
        topology: What runs.
        topology_file: Where it was read from; empty for a lab that is up already.
        stream: Where the run is told.
    """

    def __init__(self, reports: Reports, topology: Topology, topology_file: str, *, stream: TextIO) -> None:
        self._reports = reports
        self._text = _read(topology_file)
        self._stream = stream
        self._log = log_of(os.environ, self._tell)
        self._artifacts: Artifacts | None = None
        self._copy: TerminalListener | None = None
        if reports.artifacts is not None:
            self._artifacts = Artifacts(reports.artifacts)
            self._artifacts.begin(["weavelab", *sys.argv[1:]], topology, self._text)
            self._copy = TerminalListener(make_console(cast("TextIO", Copy(self._artifacts.terminal))))

    @contextmanager
    def progress(self, shown: Progress) -> Iterator[Progress]:
        """Who is told of the lab's coming up: `shown`, and the copy among the artifacts."""
        if self._copy is None:
            yield shown
            return
        with Lines(self._copy.console.file.write) as copied:
            yield Both(shown, copied)

    def listener(self, shown: Listener) -> Listener:
        """Who is told of scenarios: `shown` within folds, and the copy."""
        copies = () if self._copy is None else (self._copy,)
        return Folded(shown, copies, fold=self._log.fold, unfold=self._log.unfold)

    def gather(self, lab: Lab) -> None:
        """Take along what goes away with the lab."""
        if self._artifacts is not None:
            self._artifacts.gather(lab)

    def write(self, result: RunResult) -> Written:
        """Write the reports, the artifacts' own among them."""
        written = self._reports.write(result)
        if self._artifacts is None:
            return written
        self._artifacts.write(result)
        troubles = [f"error: {trouble}" for trouble in self._artifacts.troubles]
        told = [*written.told, *troubles, f"artifacts: {self._artifacts.directory}"]
        return Written(told, written.incomplete or bool(troubles))

    def verbatim(self) -> AbstractContextManager[None]:
        """A block in which text from the lab is shown that a CI system must not obey."""
        return self._log.verbatim()

    def end(self, result: RunResult, exit_code: int, *, kept: bool) -> None:
        """Tell the copy how it ended."""
        if self._artifacts is not None and self._copy is not None:
            print_summary(self._copy.console, result, kept=kept)
            self._artifacts.end(exit_code)

    def conclude(self, result: RunResult) -> list[str]:
        """Tell the CI system how it ended; returns lines for the person."""
        return [f"error: {trouble}" for trouble in self._log.conclude(result, step_lines(self._text))]

    def printed(self, result: RunResult) -> str:
        """What goes to standard output at the very end: whoever reads it may be gone."""
        return self._reports.printed(result)

    def _tell(self, text: str) -> None:
        with suppress(OSError):  # whoever read our output may be gone; the lab goes down all the same
            self._stream.write(text)
            self._stream.flush()


@contextmanager
def refusals_told() -> Iterator[None]:
    """Within the block an error that ends the command before anything was done is told to the CI system as well.

    Raises:
        WeaveError: That error.
    """
    try:
        yield
    except WeaveError as error:
        log_of(os.environ, sys.stderr.write).refuse(error)
        raise


def _read(topology_file: str) -> str:
    """The topology's text, as it is when the run begins; empty when it is in no file that can be read again."""
    try:
        return Path(topology_file).read_text(encoding="utf-8-sig") if Path(topology_file).is_file() else ""
    except (OSError, ValueError):
        return ""
