"""The workflows of docs/guide/ci.md: they are YAML of the right shape, and their lines do what the page says.

The lines are run as they stand, in a copy of the folders that they name. `sudo` is a stand-in, since the tests have root;
lines that install are left out: they change the machine.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT

PAGE = (ROOT / "docs" / "guide" / "ci.md").read_text()
INSTALLS = re.compile(r"^(apt-get|make setup)")
SUDO = """#!/bin/sh
# As sudo: of the environment only what it is told to keep, and PATH.
keep="PATH PYTHONPATH WEAVELAB_RUN"
while :; do case "$1" in --preserve-env=*) keep="$keep $(echo "${1#*=}" | tr , ' ')"; shift ;; *) break ;; esac; done
for name in $keep; do eval "value=\\${$name-}"; [ -z "$value" ] || set -- "$name=$value" "$@"; done
exec env -i "$@"
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def workflows() -> list[dict[str, Any]]:
    return [YAML(typ="safe").load(text) for text in blocks("yaml")]


def github_lines() -> list[str]:
    return [step["run"] for step in workflows()[0]["jobs"]["weavelab"]["steps"] if "run" in step]


def gitlab_lines() -> list[str]:
    job = workflows()[1]["weavelab"]
    return [*job["before_script"], *job["script"]]


def test_the_workflows_keep_the_artifacts_whatever_happens() -> None:
    steps = workflows()[0]["jobs"]["weavelab"]["steps"]
    (kept,) = (step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert kept["if"] == "always()"
    job = workflows()[1]["weavelab"]
    assert job["artifacts"]["when"] == "always"
    for lines, folder in ((github_lines(), kept["with"]["path"]), (gitlab_lines(), "build/artifacts")):
        assert any(f"--artifacts {folder}" in line for line in lines)
    assert job["artifacts"]["reports"]["junit"] == "build/artifacts/junit.xml"


def test_the_variables_that_sudo_keeps_are_those_that_are_read() -> None:
    source = (ROOT / "testbed" / "report" / "ci.py").read_text()
    read = set(re.findall(r'environment\.get\("(\w+)"', source))
    (kept,) = re.findall(r"--preserve-env=(\S+)", PAGE)
    assert set(kept.split(",")) == read - {"GITLAB_CI"}
    script = (ROOT / "testbed" / "setup" / "as-root.sh").read_text()
    assert all(name in script for name in read)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A folder that looks like a checkout to the lines: topologies, the command, and a stand-in for sudo on the PATH."""
    (tmp_path / "topologies").mkdir()
    for topology in ("single-node", "two-nodes"):
        # Names of their own: a person's labs are left alone, and the lines name no lab.
        text = (ROOT / "topologies" / f"{topology}.yaml").read_text()
        short = f"ci{topology[0]}{os.getpid() % 100000}"
        (tmp_path / "topologies" / f"{topology}.yaml").write_text(re.sub(r"(?m)^name: .*", f"name: {short}", text))
    for name, text in {
        ".venv/bin/weavelab": f'#!/bin/sh\nexec {sys.executable} -m testbed "$@"\n',
        "bin/sudo": SUDO,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    yield tmp_path
    left = [path.name for path in Path("/run/netns").glob(f"ci?{os.getpid() % 100000}-*")]
    assert left == []


def run_lines(lines: list[str], folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    script = "set -eu\n" + "\n".join(line for line in lines if not INSTALLS.match(line))
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WEAVELAB_RUN": os.environ.get("WEAVELAB_RUN", ""),
        **variables,
    }
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")
def test_the_lines_for_github_run_and_leave_the_summary_and_the_artifacts(checkout: Path) -> None:
    summary = checkout / "summary"
    done = run_lines(
        github_lines(),
        checkout,
        GITHUB_ACTIONS="true",
        GITHUB_WORKSPACE=str(checkout),
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("::group::scenario ") == done.stdout.count("::endgroup::") == 5
    assert "::error" not in done.stdout
    assert summary.read_text().startswith("## ✓ ")
    report = json.loads((checkout / "build" / "artifacts" / "report.json").read_text())
    assert report["status"] == "pass"


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")
def test_the_lines_for_gitlab_run_and_leave_the_artifacts(checkout: Path) -> None:
    done = run_lines(gitlab_lines(), checkout, GITLAB_CI="true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("section_start:") == done.stdout.count("section_end:") == 5
    assert (checkout / "build" / "artifacts" / "junit.xml").read_text().startswith("<?xml")


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")
def test_the_other_lines_run_side_by_side_and_print_json_and_nothing_else(checkout: Path) -> None:
    printing, parallel = blocks("sh")
    done = run_lines([printing], checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((checkout / "report.json").read_text())["status"] == "pass"
    done = run_lines([parallel], checkout)
    assert done.returncode in {0, 123}, (
        done.stdout + done.stderr
    )  # 123: one ended with 1, such as an iperf step that was slow
    for name in ("single-node", "two-nodes"):
        folder = checkout / "build" / "artifacts" / name
        report = json.loads((folder / "report.json").read_text())
        assert report["problem"] is None
        assert (folder / "nodes" / "node1" / "agent.log").exists()
