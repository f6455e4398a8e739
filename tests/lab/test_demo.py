"""`weavelab demo` as users type it, on real labs: what it shows is what is there, and nothing is left of it."""

import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.demo.recording import SCENES
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

WEAVELAB = [sys.executable, "-m", "testbed"]
NAME = f"dm{os.getpid() % 100000}"


def weavelab(*arguments: str, path: str = "") -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    return subprocess.run(
        [*WEAVELAB, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=env,
    )


def leftovers() -> list[str]:
    names = [entry.name for entry in Path("/run/netns").glob(f"{NAME}-*")] if Path("/run/netns").exists() else []
    return names + [
        str(path) for path in [Path(os.environ.get("WEAVELAB_RUN", "/run/weavelab")) / NAME] if path.exists()
    ]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    found = leftovers()
    if found:
        weavelab("down", NAME)
    assert found == []


def test_auto_shows_all_steps_with_values_that_agree_with_each_other() -> None:
    done = weavelab("demo", "--auto", "--analogy", "--name", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"^(\d) of 8  ", text, re.MULTILINE) == list("12345678")
    assert text.count("In the exam:") == text.count("In the restaurant:") == 8

    def one(pattern: str) -> str:
        found = re.search(pattern, text, re.MULTILINE)
        assert found is not None, pattern
        return found[1]

    # what the status says is what is found in the frames
    red, blue = (one(rf"^   {pod} +node\d +(\S+)") for pod in ("red", "blue"))
    node1, node2 = (one(rf"^   {node} +(\S+) +\S+ +ready") for node in ("node1", "node2"))
    blue_mac = one(r"^   blue +node2 +\S+ +(\S+)")
    assert f"{blue_mac} dst {node2} self permanent" in text
    assert f"outer IPv4      {node1} > {node2}, TTL 64" in text
    assert f"inner IPv4      {red} > {blue}, TTL 64" in text
    assert f"outer IPv4      {node2} > {node1}, TTL 64" in text
    assert f"inner IPv4      {blue} > {red}, TTL 64" in text
    assert text.count("148 bytes on the wire: 50 of envelope + 98 that the pod sent") == 2
    assert "demo: cross node" in text
    assert re.search(r"outer UDP +port \d+ > 6784$", text, re.MULTILINE)

    # the CNI call gave the pod the address that the pod then has, and its node's switch as gateway
    address = one(r'"address": "([\d./]+)"')
    gateway = one(r'"gateway": "([\d.]+)"')
    assert "CNI_COMMAND=ADD" in text
    assert f"inet {address} " in text
    assert f"default via {gateway} dev eth0" in text
    assert one(r"^   node1 +\S+ +(\S+) +ready") == gateway

    # same node: none of the ping on the uplinks; other node: request and reply on both
    near, far = text[text.index("4 of 8") : text.index("5 of 8")], text[text.index("5 of 8") : text.index("6 of 8")]
    for part, own in ((near, "0"), (far, "2")):
        assert re.findall(r"^uplink of node\d, eth0 +\d+ +(\d+)$", part, re.MULTILINE) == [own, own]
    assert re.findall(r"^pod \w+, eth0 +\d+ +(\d+)$", near, re.MULTILINE) == ["6", "6"]


def test_another_topology_with_a_router_between_the_nodes_works_too() -> None:
    done = weavelab("demo", "--auto", "--name", NAME, "topologies/racks.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 of envelope" in done.stdout
    way = re.findall(r"^(\w+ eth\d \w+) +(\d+) +(\d+) +\S+ > \S+$", done.stdout, re.MULTILINE)
    assert [(place, outer) for place, outer, _ in way] == [
        ("node1 eth0 out", "64"),
        ("spine eth0 in", "64"),
        ("spine eth1 out", "63"),
        ("node3 eth0 in", "63"),
    ]
    assert {inner for _, _, inner in way} == {"64"}, "the pod's own packet has met no router"
    assert "Outside 64 became 63; inside it is 64 as sent" in " ".join(done.stdout.split())


def test_what_is_broken_is_named_by_its_node_and_is_whole_again_afterwards() -> None:
    done = weavelab("demo", "--auto", "--name", NAME, "--step", "break", "--topology", "topologies/two-nodes.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(\d) of 8  ", done.stdout, re.MULTILINE) == list("78"), "the steps before are not shown"
    told = done.stdout[: done.stdout.index("8 of 8")]
    order = [
        "weave hold 'link vxlan-6784'",
        "ip link set vxlan-6784 down",
        "1 packets transmitted, 1 received",
        "1 packets transmitted, 0 received",
        "PROBLEM: link vxlan-6784",
        "this node's own",
        "VXLAN packets",
        "weave release 'link vxlan-6784'",
        "1 packets transmitted, 1 received",
        "agent kill node1",
        "agent start node1",
    ]
    place = 0
    for wanted in order:
        place = told.index(wanted, place) + 1


def test_a_recording_is_a_picture_of_a_real_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "demo.svg"
    done = weavelab("demo", "topologies/racks.yaml", "--name", NAME, "--record", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    root = ET.fromstring(path.read_text())
    pages = ["".join(page.itertext()) for page in root.iter("{http://www.w3.org/2000/svg}g")]
    assert len(pages) == len(SCENES)
    for scene, page in zip(SCENES, pages, strict=True):
        assert scene.text in page
    assert done.stdout == f"recording: {path}\n"
    assert f"lab {NAME}" not in done.stdout


def test_a_recording_that_cannot_be_written_is_refused_before_anything_is_made() -> None:
    done = weavelab("demo", "--name", NAME, "--record", "/proc/nowhere/demo.svg")
    assert done.returncode == 2
    assert "cannot be made" in done.stderr


def test_the_steps_can_be_listed_without_bringing_anything_up() -> None:
    done = weavelab("demo", "--list", "topologies/racks.yaml", "--name", NAME)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("cluster", "node", "pod", "same-node", "cross-node", "routers", "reply", "break", "recap")
    ]
    assert leftovers() == []


def test_a_step_that_this_topology_does_not_have_is_wrong_usage() -> None:
    done = weavelab("demo", "--auto", "--name", NAME, "--step", "routers")
    assert done.returncode == 2
    assert "no step routers" in done.stderr
    assert "hint: its steps: cluster, node" in done.stderr


def test_a_topology_without_two_nodes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nnodes: {node1: }\npods: {red: {node: node1}, green: {node: node1}}\n")
    done = weavelab("demo", "--auto", "--name", NAME, "--topology", str(path))
    assert done.returncode == 2
    assert "wanted pods on two nodes" in done.stderr


def test_a_ping_that_fails_is_said_and_exits_1(tmp_path: Path) -> None:
    ping = tmp_path / "ping"
    ping.write_text("#!/bin/sh\necho '3 packets transmitted, 0 received, 100% packet loss, time 0ms'\nexit 1\n")
    ping.chmod(0o755)
    done = weavelab("demo", "--auto", "--name", NAME, path=str(tmp_path))
    assert done.returncode == 1
    assert "error: wanted the command above to succeed, found exit code 1" in done.stderr
    assert "5 of 8" not in done.stdout


def test_frames_that_are_not_there_are_said_and_exit_1(tmp_path: Path) -> None:
    ping = tmp_path / "ping"  # claims success without sending anything
    ping.write_text("#!/bin/sh\necho '3 packets transmitted, 3 received, 0% packet loss, time 0ms'\n")
    ping.chmod(0o755)
    done = weavelab("demo", "--auto", "--name", NAME, path=str(tmp_path))
    assert done.returncode == 1
    assert "error: wanted 6 frames of the ping at pod red, found 0" in done.stderr
    assert "5 of 8" not in done.stdout


def test_a_lab_of_that_name_that_is_up_is_left_alone() -> None:
    assert weavelab("up", "--name", NAME).returncode == 0
    try:
        done = weavelab("demo", "--auto", "--name", NAME)
        assert done.returncode == 2
        assert "is up already" in done.stderr
        assert weavelab("status", NAME).returncode == 0
    finally:
        assert weavelab("down", NAME).returncode == 0


@pytest.mark.parametrize("after_s", [0.02, 0.3, 1.0, 2.0])
def test_ctrl_c_at_any_moment_leaves_nothing(after_s: float) -> None:
    process = subprocess.Popen(
        [*WEAVELAB, "demo", "--auto", "--name", NAME],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline_s = time.monotonic() + 30
    while not leftovers() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.01)  # from here on there is something to clean up
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert leftovers() == []
