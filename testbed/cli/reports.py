"""What a run leaves behind: which reports were asked for, whether they can be written, and writing them.

Checked before anything is done, written whatever has happened: a report that fails to be written is told, never raised.
No file is lost: what a report would replace has to be an earlier report of ours, or the person says `--force`.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugin.core.errors import InputError, said_by
from testbed.machine.claims import claimed
from testbed.machine.files import (
    check_report_path,
    is_device,
    is_standard_output,
    make_directory,
    same_file,
    write_report,
)
from testbed.report.artifacts import Artifacts, files_of
from testbed.report.html import html_report
from testbed.report.json_report import json_report
from testbed.report.junit import junit_report
from testbed.report.ours import is_report
from testbed.scenario.results import RunResult

_MAKERS: Final[dict[str, Callable[[RunResult], str]]] = {
    "--junit": junit_report,
    "--json": json_report,
    "--html": html_report,
}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the reports.

    Attributes:
        told: A line for each, for the person.
        incomplete: One of them could not be written.
    """

    told: list[str]
    incomplete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Where reports go; None: not wanted. `-` is standard output."""

    junit: Path | None = None
    html: Path | None = None
    json: Path | None = None
    pcap: Path | None = None
    artifacts: Path | None = None
    force: bool = False

    @property
    def on_standard_output(self) -> bool:
        """Whether one of them is printed: then nothing else may be."""
        return any(is_standard_output(path) for _, path in self._files())

    @property
    def pcap_dir(self) -> Path | None:
        """Where captures are written: where they were asked for, else among the artifacts."""
        return self.pcap or (None if self.artifacts is None else self.artifacts / "pcaps")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Within the block no other run writes to these places.

        Raises:
            InputError: One does already.
        """
        folders = [path for path in (self.artifacts, self.pcap) if path is not None]
        files = [path for _, path in self._files() if not is_standard_output(path) and not is_device(path)]
        with claimed([*files, *folders]):
            yield

    def check(self, *, topology_file: str = "", json_output: bool = False) -> None:
        """See that all of them can be written later, and that nothing is lost by it; makes the folders.

        Args:
            topology_file: What the run reads; never written over.
            json_output: Standard output is taken by `--format json`.

        Raises:
            InputError: One cannot, and why.
        """
        self._check_apart(json_output=json_output)
        for option, path in self._files():
            if topology_file and same_file(path, Path(topology_file)):
                raise InputError(
                    f"wanted a file for the report of {option}, found the topology of this run: {path}",
                    hint="give the report another name",
                )
            check_report_path(path)
            self._check_nothing_is_lost(option, path)
        if self.artifacts is not None:
            Artifacts(self.artifacts).check(force=self.force)
        if self.pcap is not None:
            make_directory(self.pcap)

    def write(self, result: RunResult) -> Written:
        """Write what was asked for, but for what is printed."""
        told, incomplete = [], False
        for option, path in self._files():
            if is_standard_output(path):
                continue
            try:
                write_report(path, _MAKERS[option](result))
            except OSError as error:
                incomplete = True
                told.append(f"error: the report {path} could not be written: {said_by(error, path=False)}")
            else:
                told.append(f"report: {path}")
        return Written(told, incomplete)

    def printed(self, result: RunResult) -> str:
        """The report for standard output; empty when there is none."""
        return "".join(_MAKERS[option](result) for option, path in self._files() if is_standard_output(path))

    def _files(self) -> list[tuple[str, Path]]:
        found = (("--junit", self.junit), ("--html", self.html), ("--json", self.json))  # as they are checked and told
        return [(option, path) for option, path in found if path is not None]

    def _check_apart(self, *, json_output: bool) -> None:
        """See that no two reports go to one place."""
        printed = [option for option, path in self._files() if is_standard_output(path)]
        printed += ["--format json"] if json_output else []
        if len(printed) > 1:
            raise InputError(
                f"standard output takes one report, found {' and '.join(printed)}", hint="name a file for the others"
            )
        files = self._files()
        if self.artifacts is not None:
            files += [("--artifacts", path) for path in files_of(self.artifacts)]
        for (one, path), (other, other_path) in itertools.combinations(files, 2):
            if one != other and not is_standard_output(path) and same_file(path, other_path):
                raise InputError(
                    f"{one} and {other} would write one file: {path}"
                    + ("" if path == other_path else f" (also {other_path})"),
                    hint="give each report a name of its own",
                )

    def _check_nothing_is_lost(self, option: str, path: Path) -> None:
        if self.force or is_standard_output(path) or is_device(path) or not path.exists():
            return
        try:
            ours = is_report(path)
        except OSError as error:
            raise InputError(
                f"{path}, which {option} would replace, cannot be read: {said_by(error, path=False)}",
                hint="give another name",
            ) from error
        if not ours:
            raise InputError(
                f"wanted a new file or an earlier report of weavelab for {option}, found another file: {path}",
                hint="give another name, or --force to replace it",
            )
