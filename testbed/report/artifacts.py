"""The artifacts folder of a run: all that explains it to somebody who was not there, in one place for CI to keep.

    README.txt      what is what; marks the folder as ours
    command.txt     the command, where it was typed, its exit code
    topology.yaml   the topology as it was read (topology.json for a lab that was up already)
    terminal.txt    what was told while it ran, as in a pipe
    report.html, junit.xml, report.json, summary.md
    status.json     `weavelab status --format json` of the lab, before it was taken down
    nodes/NODE/     the logs of the node and report.json, `weave report` of its agent
    pcaps/          what `wire` steps captured

Files are written as soon as they are known, so that a run that is killed leaves them. Whatever cannot be written or
gathered is remembered and never raised: it must not keep a lab from being taken down.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from plugin.core.errors import InputError, WeaveError, said_by
from testbed.lab import status
from testbed.lab.agent_api import get
from testbed.lab.running import Lab, LabNode
from testbed.machine.files import make_directory, write_report
from testbed.report.html import html_report
from testbed.report.json_report import json_report
from testbed.report.junit import junit_report
from testbed.report.summary import job_summary
from testbed.scenario.results import RunResult
from testbed.topology.model import Topology

_README: Final = "README.txt"
_TERMINAL: Final = "terminal.txt"
_REPORTS: Final[dict[str, Callable[[RunResult], str]]] = {
    "report.html": html_report,
    "junit.xml": junit_report,
    "report.json": json_report,
    "summary.md": job_summary,
}
_FILES: Final = (_README, "command.txt", "topology.yaml", "topology.json", _TERMINAL, "status.json", *_REPORTS)
_FOLDERS: Final = ("nodes", "pcaps")

_MARK: Final = "Left by `weavelab run --artifacts`."
_README_TEXT: Final = f"""{_MARK} The next run that is given this folder replaces its files.

command.txt     the command, where it was typed, its exit code (missing: it was killed)
topology.*      the topology of the run
terminal.txt    what was told while it ran
report.html     the report for people; report.json for programs, junit.xml for CI, summary.md in short
status.json     weavelab status --format json, before the lab was taken down
nodes/NODE/     the logs of the node, and report.json: weave report of its agent
pcaps/          what wire steps captured
"""

_LOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of each log; the end of a longer one is kept."""

_ASK_S: Final = 2.0
_ASKED_AT_ONCE: Final = 16


def files_of(directory: Path) -> list[Path]:
    """The files that may be written right into an artifacts folder."""
    return [directory / name for name in _FILES]


class Artifacts:
    """One artifacts folder.

    Attributes:
        troubles: What could not be written, a sentence each.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.troubles: list[str] = []
        self._command = ""

    def check(self, *, force: bool) -> None:
        """See that the folder can be filled and holds nothing of somebody else; makes it.

        Raises:
            InputError: It cannot, or it does and there is no `force`.
        """
        make_directory(self.directory)
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise InputError(f"the folder {self.directory} cannot be written into", hint="choose another folder")
        if force or not any(self.directory.iterdir()) or self._is_ours():
            return
        raise InputError(
            f"wanted a new, an empty or an earlier artifacts folder, found other files in {self.directory}",
            hint="give another folder, or --force to write among them",
        )

    def begin(self, command: Sequence[str], topology: Topology, topology_text: str) -> None:
        """Empty it of an earlier run's files; write what is known before anything happens.

        Args:
            command: The words of the command.
            topology: What runs.
            topology_text: As it was read; empty when it was not read from a file.
        """
        if self._is_ours():
            self._clear()
        self._command = f"$ cd {shlex.quote(str(Path.cwd()))}\n$ {shlex.join(command)}\n"
        self._write(_README, _README_TEXT)
        self._write("command.txt", self._command)
        if topology_text:
            self._write("topology.yaml", topology_text)
        else:
            self._write("topology.json", msgspec.json.format(msgspec.json.encode(topology)) + b"\n")
        self._attempt("pcaps", lambda: make_directory(self.directory / "pcaps"))

    def gather(self, lab: Lab) -> None:
        """Take along what goes away with the lab: logs, and what agents and lab say now."""
        self._attempt("status.json", lambda: self._write("status.json", _as_json({"labs": status.observe(lab.name)})))
        self._attempt("nodes", lambda: self._gather_nodes(lab))

    def write(self, result: RunResult) -> None:
        """Write the reports."""
        for name, make in _REPORTS.items():
            self._write(name, make(result))

    def end(self, exit_code: int) -> None:
        """Write how it ended."""
        self._write("command.txt", f"{self._command}exit code {exit_code}\n")

    @property
    def terminal(self) -> Path:
        """The file for what is told while the run works."""
        return self.directory / _TERMINAL

    def _gather_nodes(self, lab: Lab) -> None:
        with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE) as pool:
            list(pool.map(lambda node: self._gather_node(lab, node), lab.nodes.values()))

    def _gather_node(self, lab: Lab, node: LabNode) -> None:
        folder = Path("nodes", node.name)
        logs = [*sorted(node.log.parent.glob("*.log")), lab.paths.node_runtime_log(node.name)]
        for log in logs:
            if log.is_file():
                self._attempt(folder / log.name, lambda log=log: self._write(folder / log.name, _end_of(log)))  # type: ignore[misc]
        self._write(folder / "report.json", _as_json(_agent_report(node)))

    def _is_ours(self) -> bool:
        try:
            return (self.directory / _README).read_text(encoding="utf-8", errors="replace").startswith(_MARK)
        except OSError:
            return False

    def _clear(self) -> None:
        for path in files_of(self.directory):
            self._attempt(path.name, lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]
        for name in _FOLDERS:
            if not (self.directory / name).is_symlink():
                shutil.rmtree(self.directory / name, ignore_errors=True)

    def _write(self, name: str | Path, content: str | bytes) -> None:
        path = self.directory / name

        def write() -> None:
            make_directory(path.parent)
            write_report(path, content)

        self._attempt(name, write)

    def _attempt(self, name: str | Path, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self.troubles.append(f"{self.directory / name} could not be written: {said_by(error, path=False)}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the lab has to be taken down and the others written
            self.troubles.append(f"{self.directory / name} could not be written: {str(error) or type(error).__name__}")


def _agent_report(node: LabNode) -> object:
    try:
        return get(node.api_socket, "/report", timeout_s=_ASK_S)[1]
    except WeaveError as error:
        return {"problem": error.message}


def _end_of(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES_MAX))
        return file.read(_LOG_BYTES_MAX)


def _as_json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
