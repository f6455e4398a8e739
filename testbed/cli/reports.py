"""What a run leaves behind: which reports were asked for, whether they can be written, and writing them.

Checked before anything is done, written whatever has happened: a report that fails to be written is told, never raised.
"""

from dataclasses import dataclass
from pathlib import Path

from testbed.machine.files import check_report_path, make_directory, write_report
from testbed.report.html import html_report
from testbed.report.json_report import json_report
from testbed.report.junit import junit_report
from testbed.scenario.results import RunResult


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
    """Where reports go; None: not wanted."""

    junit: Path | None = None
    html: Path | None = None
    json: Path | None = None
    pcap: Path | None = None

    def check(self) -> None:
        """See that all of them can be written later; makes the folders.

        Raises:
            InputError: One cannot, and why.
        """
        for path in (self.junit, self.html, self.json):
            if path is not None:
                check_report_path(path)
        if self.pcap is not None:
            make_directory(self.pcap)

    def write(self, result: RunResult) -> Written:
        """Write what was asked for."""
        told, incomplete = [], False
        for path, make in ((self.junit, junit_report), (self.json, json_report), (self.html, html_report)):
            if path is None:
                continue
            try:
                write_report(path, make(result))
            except OSError as error:
                incomplete = True
                told.append(f"error: the report {path} could not be written: {error.strerror}")
            else:
                told.append(f"report: {path}")
        return Written(told, incomplete)
