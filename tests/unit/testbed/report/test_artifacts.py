"""The artifacts folder: what is in it, that a later run empties it of ours only, and that nothing of it stops a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.cli.listeners import Copy
from testbed.lab.agent_api import AgentError
from testbed.report import artifacts as module
from testbed.report.artifacts import Artifacts
from testbed.report.json_report import read_report
from testbed.topology.load import load_topology
from tests.support.project import GOLDEN, ROOT

TOPOLOGY = ROOT / "topologies" / "two-nodes.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Artifacts:
    found = Artifacts(tmp_path / "out")
    found.check(force=False)
    return found


def begin(artifacts: Artifacts, text: str = "") -> None:
    artifacts.begin(["weavelab", "run", "my lab.yaml"], load_topology(TOPOLOGY), text)


def test_what_is_known_is_written_before_anything_happens(folder: Artifacts) -> None:
    begin(folder, TOPOLOGY.read_text())
    assert (folder.directory / "topology.yaml").read_text() == TOPOLOGY.read_text()
    assert (folder.directory / "command.txt").read_text() == f"$ cd {Path.cwd()}\n$ weavelab run 'my lab.yaml'\n"
    folder.end(1)
    assert (folder.directory / "command.txt").read_text().endswith("\nexit code 1\n")
    assert folder.troubles == []


def test_a_topology_that_was_read_from_no_file_is_there_as_json(folder: Artifacts) -> None:
    begin(folder)
    assert json.loads((folder.directory / "topology.json").read_text())["name"] == "two-nodes"
    assert not (folder.directory / "topology.yaml").exists()


def test_all_reports_are_in_it(folder: Artifacts) -> None:
    begin(folder)
    folder.write(read_report((GOLDEN / "report" / "sample.json").read_bytes()))
    names = {path.name for path in folder.directory.iterdir()}
    assert {"report.html", "junit.xml", "report.json", "summary.md", "README.txt"} <= names


def test_the_readme_names_every_file() -> None:
    text = (module._README_TEXT).replace("topology.*", "topology.yaml topology.json")
    for path in module.files_of(Path()):
        assert path.name == "README.txt" or path.name in text
    for name in module._FOLDERS:
        assert f"{name}/" in text


def test_a_later_run_removes_what_an_earlier_one_left_and_nothing_else(folder: Artifacts, tmp_path: Path) -> None:
    begin(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    (folder.directory / "nodes" / "gone").mkdir(parents=True)
    (folder.directory / "pcaps").rmdir()
    (folder.directory / "pcaps").symlink_to(elsewhere)
    for name in ("report.html", "thesis.txt"):
        (folder.directory / name).write_text("x")
    begin(folder)
    assert not (folder.directory / "nodes").exists()
    assert not (folder.directory / "report.html").exists()
    assert (folder.directory / "thesis.txt").exists()
    assert (elsewhere / "kept").exists()


def lab_with(tmp_path: Path, *names: str) -> Any:
    nodes = {}
    for name in names:
        log = tmp_path / "lab" / name / "agent.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"{name} began\n")
        nodes[name] = SimpleNamespace(name=name, log=log, api_socket=tmp_path / name)
    paths = SimpleNamespace(node_runtime_log=lambda name: tmp_path / "lab" / name / "no-runtime")
    return SimpleNamespace(name="two-nodes", nodes=nodes, paths=paths)


def test_logs_and_what_agents_say_are_gathered_and_a_dead_agent_is_no_obstacle(
    folder: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(socket: Path, path: str, **_: Any) -> tuple[int, object]:
        if socket.name == "node2":
            raise AgentError("nobody listens")
        return 200, {"asked": path}

    monkeypatch.setattr(module, "get", answer)
    monkeypatch.setattr(module.status, "observe", lambda name: [{"name": name}])
    begin(folder)
    folder.gather(lab_with(tmp_path, "node1", "node2"))
    assert folder.troubles == []
    nodes = folder.directory / "nodes"
    assert (nodes / "node2" / "agent.log").read_text() == "node2 began\n"
    assert json.loads((nodes / "node1" / "report.json").read_text()) == {"asked": "/report"}
    assert json.loads((nodes / "node2" / "report.json").read_text()) == {"problem": "nobody listens"}
    assert json.loads((folder.directory / "status.json").read_text()) == {"labs": [{"name": "two-nodes"}]}


def test_the_end_of_a_huge_log_is_kept(folder: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOG_BYTES_MAX", 6)
    begin(folder)
    folder.gather(lab_with(tmp_path, "node1"))
    assert (folder.directory / "nodes" / "node1" / "agent.log").read_text() == "began\n"


def test_nothing_that_goes_wrong_here_is_raised(
    folder: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(_name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module.status, "observe", bug)
    folder.gather(lab_with(tmp_path))
    folder.gather(SimpleNamespace(name="gone"))  # type: ignore[arg-type]
    assert len(folder.troubles) == 3
    assert folder.troubles[0] == f"{folder.directory / 'status.json'} could not be written: ZeroDivisionError"


def test_a_disk_that_takes_no_more_is_told_for_each_file(folder: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_report", full)
    folder.end(0)
    assert folder.troubles == [f"{folder.directory / 'command.txt'} could not be written: No space left on device"]


def test_the_copy_of_the_terminal_never_raises(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "terminal.txt")
    copy.write("one\n")
    copy.write("two \ud800\n")
    assert (tmp_path / "terminal.txt").read_text() == "one\ntwo ?\n"
    (tmp_path / "terminal.txt").unlink()
    tmp_path.chmod(0o700)
    assert Copy(tmp_path / "no" / "terminal.txt").write("x") == 1
