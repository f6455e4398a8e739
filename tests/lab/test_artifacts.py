"""`weavelab run --artifacts` on real labs: after failures, after Ctrl-C, when the lab does not come up; runs side by side."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.lab.paths import RUN
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

WEAVELAB = [sys.executable, "-m", "testbed"]
NAME = f"art{os.getpid() % 100000}"

TOPOLOGY = f"""
name: {NAME}
nodes: {{node1: , node2: }}
pods: {{red: {{node: node1}}, blue: {{node: node2}}}}
scenarios:
  - name: good
    steps:
      - {{wire: {{from: red, to: blue, path: cross-node, count: 1}}, within_s: 10}}
  - name: bad
    steps:
      - ping: {{from: red, to: blue, count: 1}}
      - {{exec: {{on: node1, command: "echo ::add-mask::red; exit 3"}}, within_s: 0.2}}
  - name: long
    steps:
      - {{exec: {{on: red, command: "sleep 60"}}, within_s: 90}}
"""
LINE_OF_THE_FAILURE = 1 + next(at for at, line in enumerate(TOPOLOGY.splitlines()) if "exit 3" in line)

DYING_AGENT = """
import sys
from dataclasses import replace
from testbed.deploy import plan
from testbed.cli.main import main
real = plan.agent_service
argv = ("/bin/sh", "-c", "echo first words; exit 3")
plan.agent_service = lambda environment: replace(real(environment), argv=argv)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "two.yaml").write_text(TOPOLOGY)
    yield tmp_path
    left = [str(path) for path in Path("/run/netns").glob(f"{NAME}-*")] + [str(path) for path in RUN.glob(f"{NAME}*")]
    if left:
        subprocess.run([*WEAVELAB, "down", NAME], cwd=ROOT, check=False)
    assert left == []


def start(workspace: Path, *arguments: str, program: list[str] = WEAVELAB, **variables: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "GITLAB_"))}
    return subprocess.Popen(
        [*program, "run", "--topology", "labs/two.yaml", *arguments],
        cwd=workspace,
        env={**environment, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(workspace: Path, *arguments: str, program: list[str] = WEAVELAB, **variables: str) -> tuple[int, str, str]:
    with start(workspace, *arguments, program=program, **variables) as process:
        out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_failed_run_leaves_everything_and_tells_github(workspace: Path) -> None:
    summary = workspace / "summary"
    code, out, err = run(
        workspace,
        "good",
        "bad",
        "--artifacts",
        "out",
        GITHUB_ACTIONS="true",
        GITHUB_WORKSPACE=str(workspace),
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert code == 1, out + err
    found = names(workspace / "out")
    assert {"report.html", "junit.xml", "report.json", "summary.md", "topology.yaml", "terminal.txt"} <= found
    assert {f"nodes/{node}/{file}" for node in ("node1", "node2") for file in ("agent.log", "report.json")} <= found
    assert "pcaps/01-red-blue-node1-eth0.pcap" in found
    folder = workspace / "out"
    assert (folder / "topology.yaml").read_text() == TOPOLOGY
    assert (folder / "command.txt").read_text().endswith("exit code 1\n")
    (lab,) = json.loads((folder / "status.json").read_text())["labs"]
    assert (lab["phase"], [node["ready"] for node in lab["nodes"]]) == ("ready", [True, True])
    assert json.loads((folder / "nodes" / "node1" / "report.json").read_text())["name"] == "node1"
    told = (folder / "terminal.txt").read_text()
    assert "agents (2): done in " in told
    assert "3 steps: 2 passed, 1 failed in " in told
    assert [line for line in told.splitlines() if line.startswith("::")] == []
    (annotation,) = [line for line in out.splitlines() if line.startswith("::error")]
    assert annotation.startswith(f"::error file=labs/two.yaml,line={LINE_OF_THE_FAILURE},title=bad / exec on node1")
    assert out.count("::group::") == out.count("::endgroup::") == 2
    assert "What does not hold" in summary.read_text()
    # What the lab said is shown while GitHub obeys nothing.
    stop = out.index("::stop-commands::")
    token = out[stop:].split("::")[2].splitlines()[0]
    obeyed = out[:stop] + out[out.index(f"::{token}::") :]
    assert [line for line in obeyed.splitlines() if line.lstrip().startswith("::add-mask")] == []


def test_an_interrupted_run_leaves_everything(workspace: Path) -> None:
    with start(workspace, "good", "long", "--artifacts", "out") as process:
        deadline_s = time.monotonic() + 60
        told = workspace / "out" / "terminal.txt"
        while "scenario 2 of 2, long" not in (told.read_text() if told.exists() else ""):
            assert time.monotonic() < deadline_s
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out + err
    found = names(workspace / "out")
    assert {"report.html", "junit.xml", "nodes/node1/agent.log", "nodes/node2/report.json", "status.json"} <= found
    assert json.loads((workspace / "out" / "report.json").read_text())["interrupted"] is True
    assert (workspace / "out" / "command.txt").read_text().endswith("exit code 143\n")


def test_a_lab_that_does_not_come_up_leaves_the_logs_of_its_agents(workspace: Path) -> None:
    program = [sys.executable, "-c", DYING_AGENT]
    code, out, err = run(workspace, "good", "--artifacts", "out", program=program)
    assert code == 1, out + err
    folder = workspace / "out"
    assert "first words" in (folder / "nodes" / "node1" / "agent.log").read_text()
    assert "problem" in json.loads((folder / "nodes" / "node1" / "report.json").read_text())
    assert json.loads((folder / "status.json").read_text())["labs"][0]["phase"] == "building"
    report = json.loads((folder / "report.json").read_text())
    assert (report["status"], report["scenarios"]) == ("error", [])
    assert "ended instead of becoming ready" in report["problem"]["message"]
    assert "agents (2): failed after" in (folder / "terminal.txt").read_text()


def test_two_runs_for_one_folder_do_not_meet(workspace: Path) -> None:
    with start(workspace, "long", "--artifacts", "out", "--json", "a.json") as process:
        deadline_s = time.monotonic() + 60
        while not (workspace / "out" / "README.txt").exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        for arguments in (["--artifacts", "labs/../out"], ["--html", "a.json"]):
            code, out, err = run(workspace, "good", *arguments)
            assert (code, out) == (2, "")
            assert "is being written by another weavelab run" in err
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    code, out, err = run(workspace, "good", "--artifacts", "out", "--name", NAME)
    assert code == 0, out + err
    assert json.loads((workspace / "out" / "report.json").read_text())["interrupted"] is False


def test_a_report_on_standard_output_is_alone_there(workspace: Path) -> None:
    code, out, err = run(workspace, "good", "--junit", "-")
    assert code == 0, err
    assert out.startswith("<?xml")
    assert out.endswith("</testsuites>\n")
    assert "1 step: 1 passed" in err


def test_a_reader_that_goes_away_costs_nothing_but_the_printed_report(workspace: Path) -> None:
    with start(workspace, "good", "--json", "-", "--artifacts", "out") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) != 0, err  # which code: the table of all commands is tested elsewhere
    assert (workspace / "out" / "command.txt").read_text().endswith("exit code 0\n")
    assert "1 step: 1 passed" in (workspace / "out" / "terminal.txt").read_text()
