"""What a member of a lab sees of itself and of the others: names, devices, values in steps. One lab for all tests."""

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
    pytest.mark.timeout(120),
]

RUN = Path(f"/run/wlmem-{os.getpid()}")
LAB = f"m{os.getpid() % 1000000}"
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": str(RUN)}
COMMAND = [sys.executable, "-m", "testbed"]
TOPOLOGY = """
name: members
underlay:
  mtu: 1400
  segments: {lan: {subnet: 192.168.56.0/24}, wan: {subnet: 192.0.2.0/24}}
  routers: {edge: {segments: [lan, wan]}}
  outside: {segment: wan}
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
scenarios:
  - name: names
    steps:
      - exec: {on: [red, node2, edge, outside], command: ping -c1 -W2 node1}
      - exec: {on: [red, node1], command: ping -c1 -W2 green}
  - name: side-by-side
    steps:
      - {exec: {on: all-pods, command: sleep 1.2}, within_s: 2}
  - name: values
    steps:
      - exec:
          on: red
          command: ping -c1 -W2 {blue.address} && ping -c1 -W2 {node2.switch} && ping -c1 -W2 {outside.address}
          stdout_contains: 'PING {blue.address} '
      - exec:
          on: [red, blue]
          command: [sh, -c, 'hostname; ip route; cat /sys/class/net/{self.interface}/address']
          stdout_matches: '\\A{self.name}\\ndefault via {self.gateway} [^$]*\\n{self.mac}\\n\\Z'
      - exec:
          on: [node1, edge, outside]
          command: 'hostname; cat /sys/class/net/{self.interface}/address; ip -o address'
          stdout_matches: '\\A{self.name}\\n{self.mac}\\n(.*\\n)*.* {self.address}/'
  - name: recreate
    steps:
      - pod: {on: green, do: recreate}
      - exec: {on: [red, blue, node2], command: 'getent hosts green', stdout_contains: '{green.address} '}
  - name: churn
    steps: [{chaos: {seconds: 2, seed: 7, pods: 3, faults: [pod-churn, kill-agent]}, within_s: 20}]
"""


def weavelab(*arguments: str, script: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        input=script,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def ok(*arguments: str) -> str:
    done = weavelab(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inside(member: str, *command: str) -> str:
    return ok("exec", "--lab", LAB, member, "--", *command)


def names() -> dict[str, str]:
    """Who is in the list of names."""
    lines = (RUN / LAB / "fs/names/hosts").read_text().splitlines()
    return {name: address for address, name in (line.split("\t") for line in lines if line[0].isdigit())}


def pods() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RUN / LAB / "state.json").read_text())["pods"]
    return found


def wait_for(holds: Callable[[], Any], what: str, deadline_s: float = 20) -> None:
    until_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < until_s, what
        time.sleep(0.02)


@pytest.fixture(scope="module", autouse=True)
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file = tmp_path_factory.mktemp("members") / "members.yaml"
    file.write_text(TOPOLOGY)
    try:
        ok("up", str(file), "--name", LAB)
        yield
    finally:
        down = weavelab("down", "--all")
    assert down.returncode == 0, down.stderr
    assert not RUN.exists()


@pytest.mark.parametrize("member", ["red", "blue", "node1", "edge", "outside"])
def test_everybody_finds_everybody_by_name_and_nobody_asks_a_name_server(member: str) -> None:
    everybody = ["red", "green", "blue", "node1", "node2", "edge", "outside"]
    found = [line.split() for line in inside(member, "getent", "hosts", *everybody).splitlines()]
    assert {name: address for address, name in found} == {name: names()[name] for name in everybody}
    assert weavelab("exec", "--lab", LAB, member, "--", "getent", "hosts", "www.example.org").returncode == 2
    assert "nameserver" not in inside(member, "cat", "/etc/resolv.conf")


def test_the_example_of_the_help_works() -> None:
    assert "1 received" in inside("red", "ping", "-c1", "green")


@pytest.mark.parametrize("scenario", ["names", "side-by-side", "values", "recreate"])
def test_steps_that_name_members_hold(scenario: str) -> None:
    ok("run", scenario, "--lab", LAB)
    assert {name: names()[name] for name in pods()} == {name: pod["address"] for name, pod in pods().items()}


def test_the_report_of_a_step_shows_its_values(tmp_path: Path) -> None:
    ok("run", "values", "--lab", LAB, "--json", str(tmp_path / "report.json"))
    steps = json.loads((tmp_path / "report.json").read_text())["scenarios"][0]["steps"]
    assert f"ping -c1 -W2 {pods()['blue']['address']} && " in steps[0]["expected"]
    assert [item["on"] for item in steps[1]["evidence"]] == ["red", "blue"]


def test_pods_that_come_and_go_are_in_the_list_while_they_are_there() -> None:
    before = names()
    run = subprocess.Popen(
        [*COMMAND, "run", "churn", "--lab", LAB], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(name.startswith("churn") for name in names()), "no pod of the step was in the list")
    output, _ = run.communicate(timeout=80)
    assert run.returncode == 0, output
    assert names() == before


def test_a_shell_that_was_open_before_a_pod_came_finds_it() -> None:
    shell = subprocess.Popen(
        [*COMMAND, "exec", "--lab", LAB, "outside", "--", "sh"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell, shell.stdin, shell.stdout:
        for _ in range(2):
            shell.stdin.write("getent hosts green\n")
            shell.stdin.flush()
            assert shell.stdout.readline().split() == [pods()["green"]["address"], "green"]
            ok("run", "recreate", "--lab", LAB)


@pytest.mark.parametrize(
    ("member", "devices"),
    [
        ("red", ["eth0", "lo"]),
        ("edge", ["eth0", "eth1", "lo"]),
        ("outside", ["eth0", "lo"]),
        ("underlay", ["br-lan", "br-wan", "edge_0", "edge_1", "lo", "node1", "node2", "outside"]),
    ],
)
def test_devices_and_host_name_are_a_members_own(member: str, devices: list[str]) -> None:
    assert inside(member, "sh", "-c", "hostname; ls /sys/class/net").split() == [member, *devices]


def test_a_pods_device_in_sysfs_is_that_of_the_pod_at_the_prompt_too() -> None:
    assert inside("red", "cat", "/sys/class/net/eth0/mtu") == "1350\n"
    assert inside("node1", "cat", "/sys/class/net/eth0/mtu") == "1400\n"
    done = weavelab("cli", LAB, "-c", "red cat /sys/class/net/eth0/mtu")
    assert (done.returncode, done.stdout) == (0, "1350\n")
    done = weavelab("cli", LAB, script="edge hostname\nred getent hosts nobody.there || echo unknown\n")
    assert done.stdout.split() == ["edge", "unknown"]


def test_whoever_enters_a_pod_leaves_nothing_mounted_and_holds_no_other_pod() -> None:
    mounts = inside("node1", "cat", "/proc/self/mounts")
    sleeper = subprocess.Popen([*COMMAND, "exec", "--lab", LAB, "red", "--", "sleep", "60"], cwd=ROOT, env=ENVIRONMENT)
    try:
        wait_for(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n", "the program did not start")
        table = Path(f"/proc/{sleeper.pid}/mountinfo")
        assert "/run/netns/green" in table.read_text()
        ok("run", "recreate", "--lab", LAB)
        assert "/run/netns/red" in table.read_text()
        assert "/run/netns/green" not in table.read_text(), "the namespace of a pod that went is held"
    finally:
        sleeper.kill()
        sleeper.wait()
    assert inside("node1", "cat", "/proc/self/mounts") == mounts
