"""What is said of a network that somebody broke: for each damage its own cause, with the evidence, in the first line.

One lab for all: everything is held, something is broken, a step fails, the damage is undone and the agents mend the rest.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.deploy.plan import TOOLS_PATH
from testbed.lab.agent_api import AgentError, get
from testbed.lab.running import Lab
from testbed.life import agent_control
from testbed.machine import space as spaces
from testbed.scenario.attempt import Run
from testbed.scenario.results import Status, StepResult
from testbed.scenario.runner import run_step
from testbed.topology.load import parse_topology
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

NAME = f"why{os.getpid() % 10000}"
LAB = """
name: NAME
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
scenarios:
  - name: pings
    steps:
      - {ping: {from: red, to: blue, count: 1}, within_s: 0.3}
      - {ping: {from: blue, to: green, count: 1}, within_s: 0.3}
      - {ping: {from: all-pods, to: all-pods, count: 1}, within_s: 0.3}
      - {wire: {from: red, to: blue, path: cross-node, count: 1}, within_s: 0.3}
      - {ping: {from: all-nodes, to: all-pods, count: 1}, within_s: 0.3}
""".replace("NAME", NAME)

PING = "ping: {from: red, to: blue, count: 1}"
OUTSIDE = "ping: {from: red, to: outside, count: 1}"
WHOLE = "ping: {from: red, to: blue, count: 1, size: 1422, df: true}"
HEALTHY = "healthy: {on: all-nodes}"
WRAPPED = "3 of 3 requests came to eth0 of node2 in VXLAN, none came to vxlan-6784 of node2"


def drop(hook: str, rule: str) -> str:
    return (
        f"nft 'add table inet evil; add chain inet evil {hook} {{ type filter hook {hook} priority 0; }}; "
        f"add rule inet evil {hook} {rule}'"
    )


NO_EVIL = "nft delete table inet evil"


@dataclass(frozen=True)
class Case:
    """A damage, and what has to be said.

    Attributes:
        step: What fails.
        on: Where it is broken.
        damage: By which command; $HOST_RED and the like are filled in.
        undo: How it is undone, as far as agents do not mend it.
        says: Texts that the first cause has.
        look: What the command to look further has.
        known: The step begins when the node's agent knows.
    """

    step: str
    on: str
    damage: str
    undo: str
    says: tuple[str, ...]
    look: str
    known: bool = False


CASES = {
    "VXLAN dropped as it comes in": Case(
        PING, "node2", drop("input", "udp dport 6784 counter drop"), NO_EVIL,
        ("node2 drops what comes for UDP 6784 (the overlay) by the rule `udp dport 6784 counter drop` in the chain input",
         "of the nftables table inet evil; the rule counted ", WRAPPED), "node2 -- nft list ruleset",
    ),
    "by a rule that does not count": Case(
        PING, "node2", drop("prerouting", "udp dport 6784 drop"), NO_EVIL,
        ("node2 drops what comes for UDP 6784 (the overlay) in the chain prerouting", WRAPPED), "node2 -- nft list",
    ),
    "on its way out": Case(
        PING, "node1", drop("output", "udp dport 6784 counter drop"), NO_EVIL,
        ("node1 drops what it sends to UDP 6784", "came to vxlan-6784 of node1, none came to eth0 of node1"), "node1 -- nft",
    ),
    "by a rule of legacy iptables": Case(
        PING, "node2", "iptables-legacy -A INPUT -p udp --dport 6784 -j DROP", "iptables-legacy -F INPUT",
        ("by the rule `-A INPUT -p udp -m udp --dport 6784 -j DROP` in the chain INPUT of the table filter of legacy", WRAPPED),
        "node2 -- iptables-legacy-save -c",
    ),
    "by a rule for frames that does not count": Case(
        PING, "node2",
        "nft 'add table bridge evil; add chain bridge evil f { type filter hook forward priority 0; }; "
        "add rule bridge evil f ether type ip drop'", "nft delete table bridge evil",
        ("something on node2 between vxlan-6784 and $HOST_BLUE drops", "none came to $HOST_BLUE of node2",
         "node2 has rules that drop in the chain f of the nftables table bridge evil"), "node2 -- nft list ruleset",
    ),
    "a pod with another MAC": Case(
        PING, "red", "ip link set eth0 address 02:00:00:00:00:77", "ip link set eth0 address $MAC_RED",
        ("eth0 of red has the MAC 02:00:00:00:00:77; its node expects $MAC_RED there",), "red -- ip -d link show eth0",
    ),
    "only the replies": Case(
        PING, "node2", drop("output", "udp dport 6784 counter drop"), NO_EVIL,
        ("node2 drops what it sends to UDP 6784", "3 of 3 replies came to vxlan-6784 of node2"), "node2 -- nft",
    ),
    "the overlay device down": Case(
        PING, "node1", "ip link set vxlan-6784 down", "ip link set vxlan-6784 up",
        ("vxlan-6784 of node1 is down", "held: a test", "none came to vxlan-6784 of node1"), "node1 -- ip -d link", known=True,
    ),
    "the overlay device of the other node down": Case(
        PING, "node2", "ip link set vxlan-6784 down", "ip link set vxlan-6784 up",
        ("vxlan-6784 of node2 is down", WRAPPED), "node2 -- ip -d link show vxlan-6784",
    ),
    "the overlay device unplugged": Case(
        PING, "node1", "ip link set vxlan-6784 nomaster", "ip link set vxlan-6784 master weave",
        ("vxlan-6784 of node1 is plugged into no switch instead of weave",), "node1 -- ip -br link show master weave",
    ),
    "the switch down": Case(
        PING, "node2", "ip link set weave down", "ip link set weave up",
        ("the switch weave of node2 is down", "none came to $HOST_BLUE of node2"), "node2 -- ip -d link show weave",
    ),
    "a wrong forwarding entry": Case(
        PING, "node1", "bridge fdb replace $MAC_BLUE dev vxlan-6784 dst 192.168.56.99 self permanent", "true",
        ("node1 sends what is for blue to 192.168.56.99 (nobody here)", "should lead to 192.168.56.12 (node2)"),
        "node1 -- bridge fdb show dev vxlan-6784",
    ),
    "a forwarding entry gone": Case(
        PING, "node2", "bridge fdb del $MAC_RED dev vxlan-6784 self; bridge fdb del 00:00:00:00:00:00 dev vxlan-6784 dst 192.168.56.11", "true",
        ("node2 has no forwarding entry for red",), "node2 -- bridge fdb show dev vxlan-6784",
    ),
    "a pod's interface down": Case(
        PING, "blue", "ip link set eth0 down", "ip link set eth0 up; ip route add default via $GATE_BLUE",
        ("eth0 of blue is down",), "blue -- ip -d link show eth0",
    ),
    "a pod's routes gone": Case(
        PING, "red", "ip route flush dev eth0", "ip address flush dev eth0; $ADDRESS_RED",
        ("red has no route to blue", "Network is unreachable"), "red -- ip route get",
    ),
    "a pod's routes gone at the other end": Case(
        PING, "blue", "ip route flush dev eth0", "ip address flush dev eth0; $ADDRESS_BLUE",
        ("blue has no route to red", "3 of 3 requests came to blue, no replies left it"), "blue -- ip route get",
    ),
    "a pod's address gone": Case(
        PING, "blue", "ip address flush dev eth0", "$ADDRESS_BLUE",
        ("blue does not have its address",), "blue -- ip -br address",
    ),
    "a pod that answers no ping": Case(
        PING, "blue", "sysctl -qw net.ipv4.icmp_echo_ignore_all=1", "sysctl -qw net.ipv4.icmp_echo_ignore_all=0",
        ("blue answers no ping: net.ipv4.icmp_echo_ignore_all is 1",), "blue -- sysctl",
    ),
    "a wrong MAC in a pod": Case(
        PING, "red", "ip neigh replace $IP_BLUE lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "ip neigh del $IP_BLUE dev eth0",
        ("red sends what is for blue to the MAC 02:00:00:00:00:99",), "red -- ip neigh",
    ),
    "the uplink down": Case(
        PING, "node2", "ip link set eth0 down", "ip link set eth0 up; ip route add default via 192.168.56.254",
        ("eth0 of node2 is down", "none came to the underlay's port node2"), "node2 -- ip -d link show eth0",
    ),
    "a port of the underlay down": Case(
        PING, "underlay", "ip link set node2 down", "ip link set node2 up",
        ("the underlay's port node2 is down",), "underlay -- ip -d link show node2",
    ),
    "an MTU too small between the nodes": Case(
        WHOLE, "underlay", "ip link set node2 mtu 1400", "ip link set node2 mtu 1500",
        ("the underlay's port node2 carries packets of at most 1400 bytes, and the packet in VXLAN has 1500",),
        "underlay -- ip -d link show node2",
    ),
    "nobody passes packets on": Case(
        OUTSIDE, "node1", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1",
        ("node1 passes no packets on: net.ipv4.ip_forward is 0", "none came to eth0 of node1"), "node1 -- sysctl",
    ),
    "nobody masquerades": Case(
        OUTSIDE, "node1", "nft flush chain ip weave postrouting", "true",
        ("node1 does not masquerade red: its requests came to eth0 of outside from $IP_RED",), "nft list table ip weave",
    ),
    "a firewall that forwards nothing": Case(
        OUTSIDE, "node1", "nft 'add table ip evil; add chain ip evil f { type filter hook forward priority 0; policy drop; }'",
        "nft delete table ip evil",
        ("node1 drops what red and outside send each other in the chain f of the nftables table ip evil by its policy",),
        "node1 -- nft list ruleset",
    ),
    "a port of the switch down": Case(
        "ping: {from: red, to: green, count: 1}", "node1", "ip link set $HOST_GREEN down", "ip link set $HOST_GREEN up",
        ("$HOST_GREEN of node1 is down",), "node1 -- ip -d link show $HOST_GREEN",
    ),
    "a transfer that is held back": Case(
        "iperf: {from: red, to: blue, min_mbit: 100}", "red",
        "tc qdisc add dev eth0 root tbf rate 4mbit burst 10kb limit 100kb", "tc qdisc del dev eth0 root",
        ("eth0 of red has a queue `tbf` of 4 Mbit/s on the way of red's packets",), "red -- tc -s qdisc show dev eth0",
    ),
    "a frame that left the node": Case(
        "wire: {from: red, to: green, path: same-node, count: 1}", "node1",
        "bridge fdb del $MAC_GREEN dev $HOST_GREEN master; bridge fdb add $MAC_GREEN dev vxlan-6784 master static",
        "bridge fdb del $MAC_GREEN dev vxlan-6784 master",
        ("node1", "$HOST_GREEN", "$MAC_GREEN"), "node1",
    ),
    "a program that is missing": Case(
        "exec: {on: red, command: frobnicate --now}", "red", "true", "true",
        ("the program frobnicate is not there on red",), "red",
    ),
    "a program that is missing, as a list": Case(
        "exec: {on: red, command: [frobnicate, --now]}", "red", "true", "true",
        ("the program frobnicate is not there on red",), "red",
    ),
    "agents that do not hear each other": Case(
        HEALTHY, "node2", drop("input", "meta l4proto { tcp, udp } th dport 6783 counter drop"), NO_EVIL,
        ("node2: the chain input of the nftables table inet evil drops what other nodes send to UDP 6783",), "node2 -- nft", known=True,
    ),
}  # fmt: skip


def weavelab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "testbed", *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip


def inside(lab: Lab, on: str, command: str) -> str:
    path = f"PATH=$PATH:/usr/sbin:/sbin:{TOOLS_PATH}"
    done = spaces.run(lab.space(on), ["sh", "-c", f"{path}; {command}"], timeout_s=10)
    assert done.returncode == 0, f"{on}: {command}: {done.stderr or done.stdout}"
    return done.stdout


def status(lab: Lab, node: str) -> dict[str, Any]:
    try:
        found = get(lab.nodes[node].api_socket, "/status", timeout_s=2.0)[1]
    except AgentError:
        return {}
    assert isinstance(found, dict)
    return found


def wait_for(holds: Callable[[], Any], what: str, deadline_s: float = 30) -> None:
    end_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end_s, f"{what} did not come true\n{weavelab('status', NAME).stdout}"
        time.sleep(0.05)


def is_whole(lab: Lab) -> bool:
    said = [status(lab, node) for node in lab.nodes]
    return all(
        one.get("ready") and not one["problems"] and all(peer["state"] == "established" for peer in one["peers"])
        for one in said
    )


def filled(lab: Lab, text: str) -> str:
    for name, pod in lab.pods.items():
        gate = str(lab.nodes[pod.node].bridge_address)
        word = name.upper()
        address = f"ip address add {pod.address}/12 dev eth0; ip route add default via {gate}"
        for key, value in (
            ("HOST", pod.host_ifname), ("MAC", pod.mac), ("IP", str(pod.address)), ("GATE", gate), ("ADDRESS", address),
        ):  # fmt: skip
            text = text.replace(f"${key}_{word}", value)
    return text


def run_one(lab: Lab, step: str, within_s: float = 0.3) -> StepResult:
    text = LAB.partition("scenarios:")[0] + f"scenarios: [{{name: one, steps: [{{{step}, within_s: {within_s}}}]}}]\n"
    return run_step(Run(lab=lab), parse_topology(text, file="one.yaml").scenarios[0].steps[0])


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = tmp_path_factory.mktemp("why") / "why.yaml"
    file.write_text(LAB, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def lab(topology: Path) -> Iterator[Lab]:
    up = weavelab("up", str(topology))
    assert up.returncode == 0, up.stderr
    try:
        yield Lab.load(NAME)
    finally:
        weavelab("down", NAME)


@contextmanager
def broken(lab: Lab, case: Case) -> Iterator[None]:
    """Everything is held, something is broken; afterwards all is as before."""
    gates = filled(lab, case.undo)
    for node in lab.nodes:
        inside(lab, node, "weave hold everything a test")
    try:
        inside(lab, case.on, filled(lab, case.damage))
        yield
    finally:
        inside(lab, case.on, gates)
        for node in lab.nodes:
            inside(lab, node, "weave release everything")
        wait_for(lambda: is_whole(lab), "whole again")


@pytest.mark.parametrize("name", CASES)
def test_each_damage_has_its_own_cause(lab: Lab, name: str, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES[name]
    caplog.set_level(logging.DEBUG, "testbed.scenario.causes.find")
    with broken(lab, case):
        if case.known:
            wait_for(lambda: status(lab, case.on).get("problems"), "the agent knows")
        found = run_one(lab, filled(lab, case.step))
    assert found.status in {Status.FAIL, Status.ERROR}
    assert found.causes, found.seen
    for text in case.says:
        assert filled(lab, text) in found.causes[0], found.causes
    assert filled(lab, case.look) in found.next_command
    assert f"exec --lab {NAME} " in found.next_command
    assert not caplog.records, "no look failed"


@pytest.mark.parametrize(
    "step",
    [
        "exec: {on: red, command: exit 3}",
        "exec: {on: all-nodes, command: echo no, stdout_contains: yes}",
        "ping: {from: red, to: blue, count: 1, max_rtt_ms: 0.0001}",
    ],
)
def test_a_healthy_lab_is_not_blamed(lab: Lab, step: str) -> None:
    # What was mended a moment ago is told; nothing of that kind is wanted here.
    wait_for(lambda: is_whole(lab) and not _mended_lately(lab), "nothing was mended lately")
    found = run_one(lab, step)
    assert (found.status, found.causes) == (Status.FAIL, ())
    assert found.next_command


def _mended_lately(lab: Lab) -> bool:
    lately_s = time.time() - 3
    lasts = [one["last"] for node in lab.nodes for one in status(lab, node).get("repairs", [])]
    import datetime as dt

    return any(dt.datetime.fromisoformat(last).timestamp() > lately_s for last in lasts)


def test_one_cause_explains_all_pairs_of_a_node(lab: Lab) -> None:
    with broken(lab, CASES["VXLAN dropped as it comes in"]):
        found = run_one(lab, "ping: {from: all-pods, to: all-pods, count: 1}")
    assert found.seen.startswith("4 of 6 pairs fail")
    assert found.causes[0].startswith("node2 drops what comes for UDP 6784")
    assert len(found.causes) == 1, found.causes


def test_what_is_mended_while_a_step_runs_is_told(lab: Lab) -> None:
    """A ping that is too slow by far, and a device that was down for a moment."""
    wait_for(lambda: is_whole(lab), "whole")
    step = "ping: {from: red, to: blue, count: 3, max_rtt_ms: 0.0001}"
    inside(lab, "node1", "ip link set vxlan-6784 down")
    found = run_one(lab, step, within_s=2)
    assert found.status is Status.FAIL
    assert any("somebody broke link vxlan-6784 of node1" in cause for cause in found.causes), found.causes


def test_an_agent_that_does_not_run_or_is_stopped_is_told(lab: Lab) -> None:
    running = agent_control.find(lab, "node2")
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    try:
        found = run_one(lab, HEALTHY)
    finally:
        os.kill(running.pid, signal.SIGCONT)
    assert "node2's agent is stopped" in found.causes[0], found.causes
    wait_for(lambda: is_whole(lab), "whole again")

    agent_control.stop(lab, "node2", kill=True)
    try:
        found = run_one(lab, HEALTHY)
        assert "node2's agent does not run" in found.causes[0], found.causes
        passing = run_one(lab, PING)
        assert passing.status is Status.PASS, "what an agent wrote stays"
        inside(lab, "node2", "ip link set vxlan-6784 down")
        failing = run_one(lab, PING)
        assert failing.causes[0].startswith("vxlan-6784 of node2 is down"), failing.causes
        assert any("also wrong there: node2's agent does not run" in cause for cause in failing.causes)
    finally:
        assert weavelab("agent", "start", "node2", "--lab", NAME).returncode == 0
    wait_for(lambda: is_whole(lab), "whole again")


def test_a_failing_run_is_told_on_a_page_with_its_cause_in_the_first_line(lab: Lab) -> None:
    """Row 2 of the users' list: it was 971 lines, without the reason."""
    with broken(lab, CASES["VXLAN dropped as it comes in"]):
        done = weavelab("run", "--lab", NAME)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40, done.stdout
    progress = next(line for line in lines if line.startswith("  FAIL"))
    assert "; cause: node2 drops what comes for UDP 6784" in progress
    failures = [line for line in lines if line.startswith("FAIL  ")]
    assert failures[0].startswith("FAIL  pings / ping red -> blue: node2 drops what comes for UDP 6784 (the overlay)")
    assert all(line.endswith(": the same cause as of pings / ping red -> blue") for line in failures[1:]), failures
    assert len(failures) == 5
    looks = [line for line in lines if "look further" in line]
    assert len(looks) == 1
    assert looks[0].endswith(f"exec --lab {NAME} node2 -- nft list ruleset")
    for member in ("red", "blue", "node1", "node2"):
        assert sum(line.startswith(f"  {member} ") for line in lines) == 1, "the state of each once"
