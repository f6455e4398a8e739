"""`weavelab run` from its options to its exit code: what is checked first, what happens whatever happens, which code."""

import json
import os
import signal
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.cli import session as module
from testbed.cli.reports import Reports
from testbed.cli.run import run_command
from testbed.cli.session import Options, run_session
from testbed.scenario.results import Status
from testbed.scenario.runner import skipped

TOPOLOGY = """
name: small
nodes: {node1: }
pods: {red: {node: node1}, green: {node: node1}}
scenarios:
  - name: pings
    description: who reaches whom
    tags: [quick]
    steps:
      - ping: {from: red, to: green}
"""


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TOPOLOGY)
    return path


class World:
    """What `run_session` would do to the machine, recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.happened: list[str] = []
        self.status = Status.PASS
        self.up_error: BaseException | None = None
        self.run_error: BaseException | None = None
        monkeypatch.setattr(module, "bring_up", self.bring_up)
        monkeypatch.setattr(module, "tear_down", lambda name: self.happened.append(f"down {name}"))
        monkeypatch.setattr(module, "run_scenarios", self.run_scenarios)
        monkeypatch.setattr(module, "view_of", lambda lab: None)
        monkeypatch.setattr(module, "environment", dict)

    def bring_up(self, topology: Any, *, name: str, **_: Any) -> Any:
        self.happened.append(f"up {name}")
        if self.up_error is not None:
            raise self.up_error
        return SimpleNamespace(name=name, topology=topology)

    def run_scenarios(self, run: Any, scenarios: Any, *, results: list[Any], **_: Any) -> None:
        import msgspec

        from testbed.scenario.results import ScenarioResult

        self.happened.append("run")
        steps = tuple(
            msgspec.structs.replace(skipped(step, "scripted"), status=self.status)
            for scenario in scenarios
            for step in scenario.steps
        )
        results.append(
            ScenarioResult(name="pings", description="", status=self.status, seconds=0, started="", steps=steps)
        )
        if self.run_error is not None:
            raise self.run_error


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_run_brings_the_lab_up_runs_and_takes_it_down(world: World, topology: Path) -> None:
    assert run_session(Options(topology=topology)) == 0
    assert world.happened == ["up small", "run", "down small"]


def test_a_missing_tool_is_found_before_the_lab_is_built(
    world: World, topology: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="wanted ping on the PATH") as caught:
        run_session(Options(topology=topology))
    assert caught.value.hint == "apt-get install iputils-ping, or `make setup`"
    assert world.happened == []


def test_the_lab_can_have_another_name(world: World, topology: Path) -> None:
    run_session(Options(topology=topology, name="other"))
    assert world.happened == ["up other", "run", "down other"]


def test_a_name_that_is_none_is_refused_before_anything_happens(world: World, topology: Path) -> None:
    with pytest.raises(InputError, match=r"wanted the name of a lab, found '\.\./x'"):
        run_session(Options(topology=topology, name="../x"))
    assert world.happened == []


def test_keep_leaves_it_up_and_says_how_to_go_on(world: World, topology: Path, capsys: Any) -> None:
    assert run_session(Options(topology=topology, keep=True)) == 0
    assert world.happened == ["up small", "run"]
    told = capsys.readouterr().out
    assert "sudo .venv/bin/weavelab exec --lab small red -- ip address" in told
    assert "sudo .venv/bin/weavelab down small" in told


@pytest.mark.parametrize("status", [Status.FAIL, Status.ERROR])
def test_a_step_that_does_not_hold_is_exit_code_1_and_the_lab_goes_down(
    world: World, topology: Path, status: Status
) -> None:
    world.status = status
    assert run_session(Options(topology=topology)) == 1
    assert world.happened[-1] == "down small"


@pytest.mark.parametrize(
    ("error", "code"), [(MissingError("no root"), 3), (InputError("is up"), 2), (CheckError("agent did not start"), 1)]
)
def test_a_lab_that_does_not_come_up_is_told_and_reported(
    world: World, topology: Path, tmp_path: Path, error: Any, code: int, capsys: Any
) -> None:
    world.up_error = error
    junit = tmp_path / "junit.xml"
    assert run_session(Options(topology=topology, reports=Reports(junit=junit))) == code
    assert world.happened == ["up small"]
    assert f"error: {error.message}" in capsys.readouterr().out
    assert error.message in junit.read_text()


def test_reports_are_written_and_the_lab_goes_down_when_something_unforeseen_happens(
    world: World, topology: Path, tmp_path: Path
) -> None:
    world.run_error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        run_session(Options(topology=topology, reports=Reports(json=tmp_path / "report.json")))
    assert world.happened[-1] == "down small"
    assert json.loads((tmp_path / "report.json").read_text())["counts"]["passed"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_code_after_the_lab_went_down(
    world: World, topology: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        time.sleep(20)

    monkeypatch.setattr(module, "run_scenarios", interrupted)
    path = tmp_path / "report.json"
    assert run_session(Options(topology=topology, reports=Reports(json=path))) == 128 + number
    assert world.happened[-1] == "down small"
    assert json.loads(path.read_text())["interrupted"] is True


def test_all_reports_are_written(world: World, topology: Path, tmp_path: Path) -> None:
    paths = {kind: tmp_path / "new" / kind for kind in ("junit", "html", "json")}
    assert run_session(Options(topology=topology, reports=Reports(**paths))) == 0  # type: ignore[arg-type]
    assert paths["junit"].read_text().startswith("<?xml")
    assert paths["html"].read_text().lstrip().startswith("<!doctype html>")
    assert json.loads(paths["json"].read_text())["lab"] == "small"


def test_json_on_standard_output_is_nothing_but_json(world: World, topology: Path, capsys: Any) -> None:
    run_session(Options(topology=topology, json_output=True))
    told = capsys.readouterr()
    assert json.loads(told.out)["status"] == "pass"
    assert "1 step: 1 passed" in told.err


def test_an_unwritable_report_is_refused_before_anything_happens(world: World, topology: Path) -> None:
    with pytest.raises(InputError):
        run_session(Options(topology=topology, reports=Reports(html=Path("/proc/report.html"))))
    assert world.happened == []


def full_device(folder: Path) -> Path:
    """A device of our own that is always full: should the code under test ever replace it, the machine keeps its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a device node, to leave the machine's /dev/full alone")
    os.mknod(folder / "full", 0o600 | stat.S_IFCHR, os.makedev(1, 7))
    return folder / "full"


def test_a_report_that_could_not_be_written_is_no_success(
    world: World, topology: Path, tmp_path: Path, capsys: Any
) -> None:
    full = full_device(tmp_path)
    assert run_session(Options(topology=topology, reports=Reports(junit=full))) == 3
    assert world.happened == ["up small", "run", "down small"]
    said = capsys.readouterr().out.replace("\n", "")
    assert f"error: the report {full} could not be written: No space left on device" in said


def test_an_unknown_scenario_is_refused_before_anything_happens(world: World, topology: Path) -> None:
    with pytest.raises(InputError) as caught:
        run_session(Options(topology=topology, scenarios=("ping",)))
    assert "did you mean 'pings'?" in caught.value.hint
    assert world.happened == []


def test_a_reader_that_goes_away_does_not_keep_the_lab_up(
    world: World, topology: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Any, text: str) -> Any:
        raise BrokenPipeError

    monkeypatch.setattr("testbed.report.terminal.TerminalListener.phase", gone)
    assert run_session(Options(topology=topology)) == 0
    assert world.happened[-1] == "down small"


def test_a_file_among_the_words_is_the_topology(world: World, topology: Path) -> None:
    result = CliRunner().invoke(run_command, ["pings", str(topology)], standalone_mode=False)
    assert result.return_value == 0, result.output
    assert world.happened == ["up small", "run", "down small"]


def test_a_topology_comes_from_standard_input(world: World) -> None:
    result = CliRunner().invoke(run_command, ["-", "pin*"], input=TOPOLOGY, standalone_mode=False)
    assert result.return_value == 0, result.output
    assert world.happened == ["up small", "run", "down small"]


def test_a_wrong_topology_on_standard_input_is_told_as_such(world: World) -> None:
    result = CliRunner().invoke(run_command, ["-"], input="name: small\nnode: {}\n")
    assert isinstance(result.exception, InputError)
    assert "standard input:2:1: unknown key 'node'" in result.exception.message
    assert world.happened == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["a.yaml", "b/c"], "wanted one topology file, found a.yaml and b/c"),
        (["a.yaml", "--topology", "b.yaml"], "the topology is given twice: a.yaml and --topology b.yaml"),
        (["--lab", "a", "--topology", "b.yaml"], "give either --lab or a topology file"),
        (["--lab", "a", "b.yaml"], "give either --lab or a topology file"),
        (["--lab", "a", "-"], "give either --lab or a topology file"),
        (["--repeat", "0"], "--repeat"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(words: list[str], problem: str) -> None:
    result = CliRunner().invoke(run_command, words)
    assert result.exit_code == 2
    assert problem in result.output


def test_the_former_name_of_fail_fast_is_still_understood(
    world: World, topology: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(module, "run_scenarios", lambda *_, fail_fast, **__: seen.append(fail_fast))
    for option in ([], ["--fail-fast"], ["--stop-on-failure"]):
        CliRunner().invoke(run_command, [str(topology), *option], standalone_mode=False)
    assert seen == [False, True, True]
    assert "--stop-on-failure" not in CliRunner().invoke(run_command, ["--help"]).output


def test_scenarios_run_in_rounds_until_one_fails(world: World, topology: Path) -> None:
    assert run_session(Options(topology=topology, repeat=3, fail_fast=True)) == 0
    assert world.happened == ["up small", "run", "run", "run", "down small"]
    world.happened.clear()
    world.status = Status.FAIL
    assert run_session(Options(topology=topology, repeat=3, fail_fast=True)) == 1
    assert world.happened == ["up small", "run", "down small"]
    world.happened.clear()
    assert run_session(Options(topology=topology, repeat=3)) == 1
    assert world.happened == ["up small", "run", "run", "run", "down small"]


def test_a_run_that_takes_too_long_ends_like_an_interruption_and_says_why(
    world: World, topology: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(module, "run_scenarios", lambda *_, **__: time.sleep(20))
    path = tmp_path / "report.json"
    assert run_session(Options(topology=topology, timeout_s=0.05, reports=Reports(json=path))) == 1
    assert world.happened == ["up small", "down small"]
    report = json.loads(path.read_text())
    assert (report["status"], report["interrupted"]) == ("error", True)
    assert "within 0.05 s (--timeout)" in report["problem"]["message"]
    assert "error: the run was to end within 0.05 s (--timeout)" in capsys.readouterr().out


def test_a_run_within_its_time_is_as_any_other(world: World, topology: Path) -> None:
    assert run_session(Options(topology=topology, timeout_s=60)) == 0
    assert world.happened == ["up small", "run", "down small"]


def test_the_list_needs_no_lab_and_runs_nothing(world: World, topology: Path, capsys: Any) -> None:
    runner = CliRunner()
    shown = runner.invoke(run_command, ["--list", str(topology)], standalone_mode=False)
    assert shown.return_value == 0
    assert shown.output == "small: 1 scenario\n  pings  1 step  quick  who reaches whom\n"
    listed = json.loads(runner.invoke(run_command, ["--list", str(topology), "--format", "json"]).output)
    assert listed["topology"] == "small"
    assert listed["topology_file"] == str(topology)
    assert listed["scenarios"] == [
        {
            "name": "pings",
            "description": "who reaches whom",
            "tags": ["quick"],
            "steps": [{"name": "ping red -> green", "kind": "ping"}],
        }
    ]
    assert world.happened == []


def test_every_option_has_help() -> None:
    assert all(option.help for option in run_command.params if isinstance(option, click.Option))
    assert "Examples:" in CliRunner().invoke(run_command, ["--help"]).output
