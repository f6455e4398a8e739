"""`weavelab run` as users type it, on real labs: reports, exit codes, what a broken network looks like, and clean-up."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

WEAVELAB = [sys.executable, "-m", "testbed"]
NAME = f"run{os.getpid() % 100000}"

BROKEN = """
name: broken
agent: {repair: false}
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
scenarios:
  - name: good
    steps:
      - ping: {from: red, to: blue, count: 1}
  - name: bad
    steps:
      - {ping: {from: red, to: blue, count: 1}, within_s: 2}
      - {wire: {from: red, to: blue, path: cross-node, count: 1}, within_s: 2}
      - {wire: {from: red, to: green, path: same-node, count: 1}}
      - {exec: {on: node1, command: "exit 3"}, within_s: 0.2}
"""


def weavelab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*WEAVELAB, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def leftovers() -> list[str]:
    names = [entry.name for entry in Path("/run/netns").glob(f"{NAME}-*")] if Path("/run/netns").exists() else []
    return names + [str(path) for path in [Path("/run/weavelab") / NAME] if path.exists()]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    found = leftovers()
    if found:
        weavelab("down", NAME)
    assert found == []


def test_the_default_topology_holds_and_its_reports_agree(tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"report.{kind}" for kind in ("junit", "html", "json")}
    options = [text for kind, path in paths.items() for text in (f"--{kind}", str(path))]
    done = weavelab("run", "--name", NAME, "--pcap", str(tmp_path / "pcap"), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(paths["json"].read_text())
    steps = [step for scenario in report["scenarios"] for step in scenario["steps"]]
    assert {step["status"] for step in steps} == {"pass"}
    assert f"{len(steps)} steps: {len(steps)} passed" in done.stdout
    assert ET.parse(paths["junit"]).getroot().get("tests") == str(len(steps))
    assert "All " in paths["html"].read_text()
    frames = [item for step in steps for item in step["evidence"] if item["type"] == "frame"]
    assert any([layer["name"] for layer in frame["layers"]][3] == "VXLAN" for frame in frames)
    assert list((tmp_path / "pcap").glob("*-red-blue-node1-eth0.pcap"))


def test_what_does_not_hold_is_told_with_state_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    up = weavelab("up", str(tmp_path / "broken.yaml"), "--name", NAME)
    assert up.returncode == 0, up.stderr
    try:
        assert weavelab("run", "good", "--lab", NAME).returncode == 0
        weavelab("exec", "--lab", NAME, "node2", "--", "ip", "link", "set", "vxlan-6784", "down")
        done = weavelab("run", "bad", "--lab", NAME, "--json", str(tmp_path / "report.json"))
    finally:
        down = weavelab("down", NAME)
    assert done.returncode == 1
    assert down.returncode == 0, down.stderr
    steps = json.loads((tmp_path / "report.json").read_text())["scenarios"][0]["steps"]
    seen = [(step["status"], step["seen"]) for step in steps]
    assert [status for status, _ in seen] == ["fail", "fail", "pass", "fail"], seen
    assert steps[0]["seen"].startswith("0 of 1 answered")
    assert {state["name"] for state in steps[0]["states"]} == {"red", "node1", "blue", "node2"}
    assert "vxlan-6784" in json.dumps(steps[0]["states"])
    assert [step["causes"][0].startswith("vxlan-6784 of node2 is down") for step in steps[:2]] == [True, True], steps[0]
    assert steps[0]["next_command"].endswith(f"exec --lab {NAME} node2 -- ip -d link show vxlan-6784")
    assert steps[3]["causes"] == [], "nothing in the lab has to do with it"
    assert steps[1]["seen"].startswith("probe answered: wanted 1 of 1, found 0 of 1")
    assert steps[3]["seen"] == "exit code 3"


@pytest.mark.parametrize("after_s", [0.5, 2.0])
def test_ctrl_c_leaves_nothing_behind_and_still_reports(tmp_path: Path, after_s: float) -> None:
    path = tmp_path / "report.json"
    process = subprocess.Popen(
        [*WEAVELAB, "run", "--name", NAME, "--json", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline_s = time.monotonic() + 30
    while not leftovers() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.01)  # until the lab begins to exist: from there on there is something to clean up
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert json.loads(path.read_text())["interrupted"] is True
    assert leftovers() == []


def test_what_a_killed_run_left_is_no_obstacle_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(BROKEN)
    process = subprocess.Popen([*WEAVELAB, "run", "--name", NAME], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 30
    while '"phase":"ready"' not in state_of(NAME) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert '"phase":"ready"' in state_of(NAME), "killed while its lab was up"
    done = weavelab("run", "good", "--topology", str(tmp_path / "short.yaml"), "--name", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"removing what an earlier command left of lab {NAME}" in done.stderr


def state_of(name: str) -> str:
    try:
        return (Path("/run/weavelab") / name / "state.json").read_text()
    except FileNotFoundError:
        return ""


def test_a_lab_of_that_name_that_is_up_does_not_stop_a_run(tmp_path: Path) -> None:
    (tmp_path / "same.yaml").write_text(BROKEN.replace("name: broken", f"name: {NAME}"))
    topology = str(tmp_path / "same.yaml")
    assert weavelab("up", topology).returncode == 0
    try:
        done = weavelab("run", "good", "--topology", topology)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"the name {NAME} is taken: the lab of this run is called {NAME}-2" in done.stderr
        assert weavelab("exec", "--lab", NAME, "red", "--", "true").returncode == 0
        assert weavelab("run", "good", "--topology", topology, "--name", NAME).returncode == 2
    finally:
        assert weavelab("down", NAME).returncode == 0


def test_host_ports_and_limits_are_there_in_a_lab() -> None:
    scenarios = ["host-port", "host-address", "elsewhere", "bandwidth", "inside"]
    done = weavelab("run", *scenarios, "--topology", "topologies/host-ports.yaml", "--name", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
