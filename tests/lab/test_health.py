"""What somebody breaks on a node is told where people look: `weave status`, `weavelab status`, a `healthy` step."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

NAME = f"ill{os.getpid() % 10000}"
TOPOLOGY = f"""
name: {NAME}
nodes: {{node1: , node2: }}
pods: {{red: {{node: node1}}, blue: {{node: node2}}}}
scenarios: [{{name: all, steps: [{{healthy: {{on: all-nodes}}, within_s: 1}}]}}]
"""


def weavelab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "testbed", *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip


def weave(*words: str) -> "subprocess.CompletedProcess[str]":
    return weavelab("exec", "--lab", NAME, "node1", "--", "weave", *words)


def lab_status() -> tuple[int, dict[str, Any]]:
    done = weavelab("status", NAME, "--format", "json")
    found: dict[str, Any] = json.loads(done.stdout)["labs"][0]
    return done.returncode, found


def wait_for(holds: Callable[[], Any], what: str, deadline_s: float = 20) -> None:
    end_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end_s, f"{what} did not come true\n{weavelab('status', NAME).stdout}"
        time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file: Path = tmp_path_factory.mktemp("ill") / "ill.yaml"
    file.write_text(TOPOLOGY, encoding="utf-8")
    up = weavelab("up", str(file))
    assert up.returncode == 0, up.stderr
    try:
        yield
    finally:
        weavelab("down", NAME)


def test_a_held_fault_is_told_everywhere_with_its_cause_and_is_over_when_it_is_released() -> None:
    assert (weave("status").returncode, weavelab("run", "--lab", NAME).returncode) == (0, 0)
    held = weave("hold", "link vxlan-6784", "exercise", "3")
    assert (held.returncode, held.stdout) == (0, "link vxlan-6784\n")
    assert weavelab("exec", "--lab", NAME, "node1", "--", "ip", "link", "set", "vxlan-6784", "down").returncode == 0
    wait_for(lambda: weave("status").returncode == 1, "weave status ends with 1")

    told = weave("status").stdout
    assert told.startswith("        PROBLEM: link vxlan-6784: not up; held: exercise 3 (since ")
    code, lab = lab_status()
    (problem,) = lab["nodes"][0]["problems"]
    assert (code, problem["object"], lab["nodes"][1]["problems"]) == (1, "link vxlan-6784", [])
    table = weavelab("status", NAME).stdout
    assert "problems" in table.splitlines()[1], "first of all"
    assert "held on node1: link vxlan-6784 (exercise 3)" in table

    run = weavelab("run", "--lab", NAME)
    assert run.returncode == 1
    assert "link vxlan-6784: not up; held: exercise 3" in run.stdout
    wait_for(
        lambda: any("this node's own fault, link vxlan-6784" in peer["reason"] for peer in lab_status()[1]["nodes"][0]["peers"]),
        "the cause of a failed connection is the true one",
    )  # fmt: skip

    assert weave("release", "link vxlan-6784").stdout == "nothing is held\n"
    wait_for(lambda: lab_status()[0] == 0, "whole again")
    assert "Repaired: link vxlan-6784 (1x, last " in weave("status").stdout
    assert "repaired on node1: link vxlan-6784 (1x, last " in weavelab("status", NAME).stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("hold", "link nope"), 2, "wanted an object of this node, found 'link nope'"),
        (("release", "link weave"), 2, "link weave is not held"),
        (("hold",), 2, "wrong arguments for hold"),
        (("release", "a", "b"), 2, "wrong arguments for release"),
    ],
)
def test_a_wrong_word_is_answered_with_what_there_is(words: tuple[str, ...], code: int, sentence: str) -> None:
    done = weave(*words)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert "hint: " in done.stderr
