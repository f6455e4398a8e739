"""`chaos` steps on a real lab: it holds, a sabotaged agent is told with the seed, and an interruption leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

WEAVELAB = [sys.executable, "-m", "testbed"]
NAME = f"wild{os.getpid() % 10000}"
RUN = Path(os.environ.get("WEAVELAB_RUN") or "/run/weavelab")
TOPOLOGY = f"""
name: {NAME}
nodes: {{node1: , node2: , node3: }}
pods: {{red: {{node: node1}}, green: {{node: node2}}, blue: {{node: node3}}}}
scenarios:
  - {{name: wild, steps: [{{chaos: {{seconds: 8, seed: 4, pods: 4}}, within_s: 20}}]}}
  - {{name: cut, steps: [{{chaos: {{seconds: 60, faults: [cut-node, cut-overlay, pod-churn]}}}}]}}
  - {{name: churn, steps: [{{chaos: {{seconds: 2, seed: 77, faults: [pod-churn]}}, within_s: 3}}]}}
"""


def weavelab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*WEAVELAB, *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module", autouse=True)
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("wild") / "wild.yaml"
    path.write_text(TOPOLOGY)
    up = weavelab("up", str(path))
    assert up.returncode == 0, up.stderr
    yield
    down = weavelab("down", NAME)
    assert down.returncode == 0, down.stderr
    assert [entry.name for entry in Path("/run/netns").glob(f"{NAME}-*")] == []
    assert not (RUN / NAME).exists()


def tables() -> str:
    return "".join(
        weavelab("exec", "--lab", NAME, f"node{number}", "--", "nft", "list", "tables").stdout for number in (1, 2, 3)
    )


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(weavelab("status", NAME, "--format", "json").stdout)["labs"][0]
    return found


def churned() -> list[str]:
    return sorted(pin.name for pin in (RUN / NAME / "fs/ns").glob("churn*.net"))


def wait_for_cut() -> None:
    deadline_s = time.monotonic() + 20
    while "weavelab_chaos" not in tables():
        assert time.monotonic() < deadline_s, "no node was cut off"


def start_cutting() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*WEAVELAB, "run", "cut", "--lab", NAME],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_eight_seconds_of_chaos_hold(tmp_path: Path) -> None:
    done = weavelab("run", "wild", "--lab", NAME, "--json", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    step = json.loads((tmp_path / "report.json").read_text())["scenarios"][0]["steps"][0]
    assert step["seen"].startswith("seed 4: ")
    assert "agent killed" in step["evidence"][0]["stdout"]
    assert churned() == []
    assert "weavelab_chaos" not in tables()


def test_an_agent_that_is_sabotaged_fails_the_step_with_its_seed() -> None:
    process = subprocess.Popen(
        [*WEAVELAB, "run", "churn", "--lab", NAME, "--seed", "78"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline_s = time.monotonic() + 20
    while not churned() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    pid = next(node["agent"]["pid"] for node in status()["nodes"] if node["name"] == "node2")
    os.kill(pid, signal.SIGKILL)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1, told
    assert "seed 78: the agent of node2 ended by itself" in told
    assert "--seed 78 --seconds 2" in told or "seed 78, 2 s, pod-churn" in told
    assert "everything is repaired" in told
    assert all(node["agent"]["alive"] for node in status()["nodes"])


def test_ctrl_c_repairs_everything() -> None:
    process = start_cutting()
    wait_for_cut()
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "weavelab_chaos" not in tables()
    assert churned() == []


def test_a_cut_does_not_outlive_the_command_that_made_it() -> None:
    process = start_cutting()
    wait_for_cut()
    process.kill()
    process.communicate(timeout=10)
    deadline_s = time.monotonic() + 5
    while "weavelab_chaos" in tables():
        assert time.monotonic() < deadline_s, "the cut is still there"
