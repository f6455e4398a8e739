"""Looking into a running lab and changing its pods: `status`, `logs`, `capture`, `graph`, `pod`, as users type them."""

import contextlib
import json
import os
import re
import signal
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

RUN = Path(f"/run/wlinside-{os.getpid()}")
LAB = f"i{os.getpid() % 1000000}"
OTHER = f"j{os.getpid() % 1000000}"
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": str(RUN)}
COMMAND = [sys.executable, "-m", "testbed"]
DEADLINE_S = 30
PCAP = bytes.fromhex("4d3cb2a1")


def weavelab(*arguments: str | Path, input: str | None = None) -> "subprocess.CompletedProcess[str]":  # noqa: A002 - as subprocess calls it
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        input=input,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@contextlib.contextmanager
def running(*arguments: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that goes on until it is told to end."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until_s, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.05)


def lines_until(process: "subprocess.Popen[bytes]", wanted: str) -> list[str]:
    """The lines that a command prints, up to one that has `wanted` in it."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    text = b""

    def there() -> bool:
        nonlocal text
        text += process.stdout.read() or b""  # type: ignore[union-attr]
        return wanted.encode() in text

    wait_for(there, f"{wanted!r}")
    return text.decode().splitlines()


def began(process: "subprocess.Popen[bytes]") -> str:
    """The line on standard error that says that a capture has begun."""
    assert process.stderr is not None
    return process.stderr.readline().decode()


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    up = weavelab("up", "topologies/two-nodes.yaml", "--name", LAB)
    assert up.returncode == 0, up.stderr
    yield
    down = weavelab("down", "--all")
    assert down.returncode == 0, down.stderr
    assert not RUN.exists()
    assert [entry.name for entry in Path("/run/netns").glob(f"{LAB}-*")] == []


def status(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(weavelab("status", LAB, "--format", "json", *arguments).stdout)["labs"][0]
    return found


def pods() -> dict[str, dict[str, Any]]:
    found = json.loads(weavelab("pod", "list", "--lab", LAB, "--format", "json").stdout)["pods"]
    return {pod["name"]: pod for pod in found}


@contextlib.contextmanager
def added(name: str, node: str) -> Iterator["subprocess.CompletedProcess[str]"]:
    """A pod for the time of a test."""
    made = weavelab("pod", "add", name, "--node", node, "--lab", LAB)
    assert made.returncode == 0, made.stderr
    try:
        yield made
    finally:
        gone = weavelab("pod", "delete", name, "--lab", LAB)
    assert gone.returncode == 0, gone.stderr


# -------------------------------------------------------------------------------------------------------------- status


@pytest.mark.parametrize("columns", ["40", "80"])
@pytest.mark.parametrize("shape", ["table", "wide"])
def test_in_a_pipe_status_is_whole(columns: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "COLUMNS", columns)
    done = weavelab("status", LAB, "--format", shape)
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.endswith(" ")] == []
    for pod in status()["pods"]:
        assert pod["mac"] in done.stdout
        assert pod["host_interface"] in done.stdout
        assert (pod["container_id"] in done.stdout) == (shape == "wide")


def test_an_agent_that_was_killed_is_not_said_to_be_dead_since_the_lab_was_made() -> None:
    try:
        assert weavelab("agent", "kill", "node2", "--lab", LAB).returncode == 0
        done = weavelab("status", LAB)
        assert done.returncode == 1
        assert re.match(rf"{LAB}: not whole, created \d\d:\d\d:\d\d, ", done.stdout.splitlines()[0])
        assert "not running" in done.stdout
        assert " since " not in done.stdout.partition("nodes\n")[0].replace("seen since", "")
    finally:
        assert weavelab("agent", "start", "node2", "--lab", LAB).returncode == 0
    wait_for(lambda: weavelab("status", LAB).returncode == 0, "the lab to be whole again")


# ---------------------------------------------------------------------------------------------------------------- logs


def test_logs_of_all_nodes_are_in_the_order_of_time_with_their_node_in_front() -> None:
    done = weavelab("logs", "--lab", LAB)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line.split(" | ")[0] for line in lines} == {"node1", "node2"}
    entries = [json.loads(line) for line in weavelab("logs", "--lab", LAB, "--format", "json").stdout.splitlines()]
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert len(entries) >= len(lines)
    assert {entry["node"] for entry in entries} == {"node1", "node2"}


def test_logs_are_chosen_by_node_number_age_and_level() -> None:
    assert len(weavelab("logs", "node1", "-n", "3", "--lab", LAB).stdout.splitlines()) == 3
    assert len(weavelab("logs", "-n", "1", "--lab", LAB).stdout.splitlines()) == 2
    assert weavelab("logs", "--since", "2099-01-01T00:00:00Z", "--lab", LAB).stdout == ""
    levels = {
        json.loads(line)["level"]
        for line in weavelab("logs", "--level", "warning", "--format", "json", "--lab", LAB).stdout.splitlines()
    }
    assert levels <= {"warning", "error"}


def test_logs_are_followed_across_the_restart_of_an_agent_and_a_rotation() -> None:
    log = Path(status()["nodes"][1]["log"])
    with running("logs", "-f", "node2", "-n", "1", "--lab", LAB) as following:
        lines_until(following, "node2 | ")
        with added("amber", "node2"):
            lines_until(following, "pod attached pod=default/amber")
            log.rename(log.with_suffix(".1"))
            assert weavelab("agent", "restart", "node2", "--lab", LAB).returncode == 0
            seen = lines_until(following, "agent ready")
            assert any("agent starting" in line for line in seen)
        following.send_signal(signal.SIGINT)
        assert following.wait(DEADLINE_S) == 128 + signal.SIGINT
    wait_for(lambda: weavelab("status", LAB).returncode == 0, "the lab to be whole again")


def test_whoever_has_no_agent_has_no_log() -> None:
    done = weavelab("logs", "red", "--lab", LAB)
    assert done.returncode == 2
    assert "red is a pod" in done.stderr
    assert "weavelab logs node1" in done.stderr
    assert "its nodes: node1, node2" in weavelab("logs", "node3", "--lab", LAB).stderr
    assert weavelab("logs", "--runtime", "--lab", LAB).returncode == 2


def test_who_follows_a_lab_that_goes_down_is_told_so() -> None:
    assert weavelab("up", "topologies/single-node.yaml", "--name", OTHER).returncode == 0
    with running("logs", "-f", "--lab", OTHER) as logs, running("capture", "node1", "--lab", OTHER) as capture:
        lines_until(logs, "agent ready")
        assert "capturing on node1 eth0" in began(capture)
        assert weavelab("down", OTHER, "--wait").returncode == 0
        for process in (logs, capture):
            _out, said = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0
            assert f"lab {OTHER} went down" in said.decode()


# ------------------------------------------------------------------------------------------------------------- capture


def ping(source: str, target: str) -> None:
    address = pods()[target]["address"]
    assert weavelab("exec", "--lab", LAB, source, "--", "ping", "-c1", "-W5", address).returncode == 0


def test_a_ping_is_seen_at_every_place_by_the_names_of_who_speaks() -> None:
    conditions = ("--icmp", "--host", "red", "--host", "blue", "-c", "6", "--for", str(DEADLINE_S))
    with running("capture", "red", "node1", "node2", *conditions, "--lab", LAB) as capture:
        assert began(capture) == "capturing on red eth0, node1 eth0, node2 eth0; Ctrl-C ends it\n"
        ping("red", "blue")
        out, said = capture.communicate(timeout=DEADLINE_S)
    assert capture.returncode == 0
    assert said.decode() == "6 frames\n"
    lines = [re.sub(r"^[\d:.]+ |, id \d+, seq \d+", "", line) for line in out.decode().splitlines()]
    request, reply = "red > blue ICMP echo request", "blue > red ICMP echo reply"
    assert sorted(lines) == sorted(
        [
            f"red eth0 out: {request}, 98 bytes",
            f"node1 eth0 out: {request}, in VXLAN node1 > node2, 148 bytes",
            f"node2 eth0 in: {request}, in VXLAN node1 > node2, 148 bytes",
            f"node2 eth0 out: {reply}, in VXLAN node2 > node1, 148 bytes",
            f"node1 eth0 in: {reply}, in VXLAN node2 > node1, 148 bytes",
            f"red eth0 in: {reply}, 98 bytes",
        ]
    )


def test_verbose_shows_every_header() -> None:
    with running("capture", "node1", "--icmp", "--host", "red", "-c", "1", "-v", "--lab", LAB) as capture:
        began(capture)
        ping("red", "blue")
        out, _said = capture.communicate(timeout=DEADLINE_S)
    for word in ("outer Ethernet", "outer IPv4", "VXLAN", "inner IPv4", "inner ICMP", "time to live"):
        assert word.lower() in out.decode().lower(), word


def test_frames_go_into_a_file_or_a_pipe(tmp_path: Path) -> None:
    for target in (str(tmp_path / "a.pcap"), "-"):
        with running("capture", "node1", "--host", "red", "--icmp", "-c", "2", "-w", target, "--lab", LAB) as capture:
            began(capture)
            ping("red", "blue")
            out, said = capture.communicate(timeout=DEADLINE_S)
        assert capture.returncode == 0
        assert said.decode().startswith("2 frames")
        data = out if target == "-" else (tmp_path / "a.pcap").read_bytes()
        assert data[:4] == PCAP
        assert len(data) == 24 + 2 * (16 + 148)
    (tmp_path / "text").write_text("mine")
    refused = weavelab("capture", "node1", "-w", tmp_path / "text", "--lab", LAB)
    assert refused.returncode == 2
    assert (tmp_path / "text").read_text() == "mine"


def test_the_time_and_ctrl_c_end_a_capture_and_say_how_much_it_was() -> None:
    done = weavelab("capture", "red", "--tcp", "--for", "0.3", "--lab", LAB)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("0 frames\n")
    with running("capture", "red", "--tcp", "--lab", LAB) as capture:
        began(capture)
        capture.send_signal(signal.SIGINT)
        _out, said = capture.communicate(timeout=DEADLINE_S)
    assert capture.returncode == 128 + signal.SIGINT
    assert "0 frames" in said.decode()


@pytest.mark.parametrize(
    ("target", "listed"),
    [("node1:foo", "weave, vxlan-6784"), ("underlay", "br-lan"), ("nobody", "red, green, blue"), ("red:eth1", "eth0")],
)
def test_an_interface_that_is_not_there_is_answered_with_those_that_are(target: str, listed: str) -> None:
    done = weavelab("capture", target, "--lab", LAB)
    assert done.returncode == 2
    assert listed in done.stderr


def test_an_interface_that_is_deleted_ends_its_capture() -> None:
    with running("capture", "violet", "--lab", LAB) as capture:
        assert b"has nobody named violet" in capture.communicate(timeout=DEADLINE_S)[1]
    made = weavelab("pod", "add", "violet", "--node", "node1", "--lab", LAB)
    assert made.returncode == 0, made.stderr
    with running("capture", "violet", "--lab", LAB) as capture:
        began(capture)
        assert weavelab("pod", "delete", "violet", "--lab", LAB).returncode == 0
        _out, said = capture.communicate(timeout=DEADLINE_S)
    assert capture.returncode == 0
    assert "is gone" in said.decode()


# ---------------------------------------------------------------------------------------------------------------- pods


def test_a_pod_that_is_added_is_a_pod_like_the_others() -> None:
    with added("amber", "node1") as made:
        mine = pods()["amber"]
        assert made.stdout == (
            f"pod amber is on node1: address {mine['address']}, MAC {mine['mac']}, host side {mine['host_interface']}\n"
        )
        assert mine["node"] == "node1"
        ping("amber", "blue")
        ping("blue", "amber")
        assert mine["mac"] in weavelab("status", LAB).stdout
        assert Path("/run/netns", f"{LAB}-amber").exists()
        assert mine["address"] in weavelab("graph", LAB).stdout
        prompt = weavelab("cli", LAB, "-c", "amber ping -c1 -W5 red")
        assert prompt.returncode == 0, prompt.stdout
        for node in status()["nodes"]:
            assert node["endpoints"] == 2 + 4, f"{node['name']} knows switches and pods when `pod add` has returned"
    assert "amber" not in pods()
    assert not Path("/run/netns", f"{LAB}-amber").exists()
    assert {node["endpoints"] for node in status()["nodes"]} == {2 + 3}


def test_a_prompt_that_is_open_sees_pods_come_and_go() -> None:
    own = f"sh {sys.executable} -m testbed pod"
    script = (
        f"{own} add amber --node node2 --lab {LAB}",
        "amber ping -c1 -W5 red",
        "red ping -c1 -W5 amber",
        "pingall",
        f"{own} delete amber --lab {LAB}",
        "pods",
    )
    done = weavelab("cli", LAB, input="\n".join(script) + "\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 received") == 2
    assert "*** Results: 0% dropped (12/12 received)" in done.stdout
    assert "amber" not in done.stdout.rpartition("pod amber is gone")[2].partition("\n")[2]
    assert weavelab("cli", LAB, input="amber ip address\n").returncode == 1


def test_steps_on_all_pods_have_a_pod_that_was_added() -> None:
    with added("amber", "node2"):
        done = weavelab("run", "--lab", LAB, "--format", "json")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        pairs = {
            (evidence["source"], evidence["target"])
            for scenario in json.loads(done.stdout)["scenarios"]
            for step in scenario["steps"]
            for evidence in step["evidence"]
            if evidence["type"] == "ping"
        }
        assert {("amber", "red"), ("blue", "amber")} <= pairs


def test_verbose_shows_the_call_as_the_runtime_made_it() -> None:
    made = weavelab("pod", "add", "amber", "--node", "node1", "-v", "--lab", LAB)
    mine = pods()["amber"]
    gone = weavelab("pod", "delete", "amber", "-v", "--lab", LAB)
    assert (made.returncode, gone.returncode) == (0, 0)
    for verb, said in (("ADD", made.stdout), ("DEL", gone.stdout)):
        assert said.startswith(f"{verb} by plugin weave-net: exit code 0 after ")
        assert f"    CNI_COMMAND={verb}\n    CNI_CONTAINERID={mine['container_id']}\n" in said
        assert '"type": "weave-net"' in said
    assert f'"address": "{mine["address"]}/12"' in made.stdout
    assert '"prevResult"' in gone.stdout
    assert gone.stdout.endswith(f"pod amber is gone from node1, and {mine['address']} with it\n")


@pytest.mark.parametrize(
    ("name", "node", "said"),
    [
        ("red", "node1", "has a pod named red already"),
        ("node2", "node1", "has the name of a node"),
        ("outside", "node1", "reserved"),
        ("Amber", "node1", "wanted a name for the pod, found 'Amber'"),
        ("a" * 16, "node1", "wanted a name for the pod"),
        ("amber", "node3", "its nodes: node1, node2"),
    ],
)
def test_a_pod_that_a_topology_could_not_have_is_refused(name: str, node: str, said: str) -> None:
    done = weavelab("pod", "add", name, "--node", node, "--lab", LAB)
    assert done.returncode == 2
    assert said in done.stderr
    assert set(pods()) == {"red", "green", "blue"}


def test_a_pod_that_is_not_there_cannot_be_deleted() -> None:
    done = weavelab("pod", "delete", "amber", "--lab", LAB)
    assert done.returncode == 2
    assert "its pods: red, green, blue" in done.stderr


def test_an_add_that_fails_leaves_nothing_and_says_what_the_plugin_said() -> None:
    node = ("exec", "--lab", LAB, "node1", "--")
    assert weavelab(*node, "mv", "/opt/cni/bin/weave-net", "/opt/cni/bin/away").returncode == 0
    try:
        done = weavelab("pod", "add", "amber", "--node", "node1", "-v", "--lab", LAB)
    finally:
        assert weavelab(*node, "mv", "/opt/cni/bin/away", "/opt/cni/bin/weave-net").returncode == 0
    assert done.returncode == 1
    assert 'failed to find plugin "weave-net"' in done.stderr
    found = status()
    assert set(pods()) == {"red", "green", "blue"}
    assert found["pods_unfinished"] == []
    assert not Path("/run/netns", f"{LAB}-amber").exists()
    with added("amber", "node1"):
        ping("amber", "red")


def test_what_a_killed_command_leaves_is_told_and_cleared_away() -> None:
    state = RUN / LAB / "state.json"
    for _attempt in range(20):
        with running("pod", "add", "amber", "--node", "node2", "--lab", LAB) as adding:
            while adding.poll() is None:
                if json.loads(state.read_bytes())["pods_unfinished"]:
                    adding.kill()
                    break
            adding.wait(DEADLINE_S)
        if json.loads(state.read_bytes())["pods_unfinished"]:
            break
        assert weavelab("pod", "delete", "amber", "--lab", LAB).returncode == 0  # it was quicker than we
    assert status()["pods_unfinished"] == [{"name": "amber", "node": "node2"}]
    assert "weavelab pod delete amber" in weavelab("status", LAB).stdout
    gone = weavelab("pod", "delete", "amber", "--lab", LAB)
    assert gone.stdout == "what was left of pod amber is gone\n"
    assert status()["pods_unfinished"] == []
    wait_for(lambda: {node["endpoints"] for node in status()["nodes"]} == {5}, "agents to give the address back")
    with added("amber", "node2"):
        ping("amber", "red")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_add_that_is_interrupted_leaves_nothing(number: signal.Signals) -> None:
    state = RUN / LAB / "state.json"
    for _attempt in range(20):
        with running("pod", "add", "amber", "--node", "node2", "--lab", LAB) as adding:
            while adding.poll() is None:
                if json.loads(state.read_bytes())["pods_unfinished"]:
                    adding.send_signal(number)
                    break
            code = adding.wait(DEADLINE_S)
        if "amber" not in pods():
            break
        assert weavelab("pod", "delete", "amber", "--lab", LAB).returncode == 0  # it was quicker than we
    assert code != 0
    assert status()["pods_unfinished"] == []
    assert not Path("/run/netns", f"{LAB}-amber").exists()
    wait_for(lambda: {node["endpoints"] for node in status()["nodes"]} == {5}, "agents to give the address back")


def test_a_del_that_fails_keeps_the_pod_until_it_succeeds() -> None:
    node = ("exec", "--lab", LAB, "node1", "--")
    with added("amber", "node1"):
        assert weavelab(*node, "mv", "/opt/cni/bin/weave-net", "/opt/cni/bin/away").returncode == 0
        try:
            done = weavelab("pod", "delete", "amber", "--lab", LAB)
        finally:
            assert weavelab(*node, "mv", "/opt/cni/bin/away", "/opt/cni/bin/weave-net").returncode == 0
        assert done.returncode == 1
        assert "failed to find plugin" in done.stderr
        assert status()["pods_unfinished"] == []
        ping("amber", "red")


def test_a_pod_that_is_added_while_an_agent_is_dead_is_known_to_it_later() -> None:
    try:
        assert weavelab("agent", "kill", "node1", "--lab", LAB).returncode == 0
        with added("amber", "node2") as made:
            assert "no agent runs on node1" in made.stderr
            assert weavelab("agent", "start", "node1", "--lab", LAB).returncode == 0
            wait_for(lambda: status()["nodes"][0]["endpoints"] == 6, "node1 to learn of amber")
            ping("red", "amber")
    finally:
        weavelab("agent", "start", "node1", "--lab", LAB)
    wait_for(lambda: weavelab("status", LAB).returncode == 0, "the lab to be whole again")


# --------------------------------------------------------------------------------------------------------------- graph


def test_the_graph_of_a_running_lab_has_its_addresses() -> None:
    done = weavelab("graph", LAB)
    assert done.returncode == 0
    for pod in pods().values():
        assert f"{pod['name']:<5}" in done.stdout
        assert pod["address"] in done.stdout
    for node in status()["nodes"]:
        assert f"{node['name']}: eth0 {node['uplink_address']}, switch weave {node['bridge_address']}" in done.stdout
    assert weavelab("graph", "nowhere").returncode == 2
