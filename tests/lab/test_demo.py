"""`weavelab demo` as users type it, on real labs: what it shows is what is there, and nothing is left of it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    return names + [str(path) for path in [Path("/run/weavelab") / NAME] if path.exists()]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    found = leftovers()
    if found:
        weavelab("down", NAME)
    assert found == []


def test_auto_shows_seven_steps_with_values_that_agree_with_each_other() -> None:
    done = weavelab("demo", "--auto", "--analogy", "--name", NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"^(\d) of 7  ", text, re.MULTILINE) == list("1234567")
    assert text.count("In the exam:") == text.count("In the restaurant:") == 7

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
    near, far = text[text.index("4 of 7") : text.index("5 of 7")], text[text.index("5 of 7") : text.index("6 of 7")]
    for part, own in ((near, "0"), (far, "2")):
        assert re.findall(r"^uplink of node\d, eth0 +\d+ +(\d+)$", part, re.MULTILINE) == [own, own]
    assert re.findall(r"^pod \w+, eth0 +\d+ +(\d+)$", near, re.MULTILINE) == ["6", "6"]


def test_another_topology_with_a_router_between_the_nodes_works_too() -> None:
    done = weavelab("demo", "--auto", "--name", NAME, "--topology", "topologies/racks.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 of envelope" in done.stdout


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
    assert "5 of 7" not in done.stdout


def test_frames_that_are_not_there_are_said_and_exit_1(tmp_path: Path) -> None:
    ping = tmp_path / "ping"  # claims success without sending anything
    ping.write_text("#!/bin/sh\necho '3 packets transmitted, 3 received, 0% packet loss, time 0ms'\n")
    ping.chmod(0o755)
    done = weavelab("demo", "--auto", "--name", NAME, path=str(tmp_path))
    assert done.returncode == 1
    assert "error: wanted 6 frames of the ping at pod red, found 0" in done.stderr
    assert "5 of 7" not in done.stdout


def test_a_lab_of_that_name_that_is_up_is_left_alone() -> None:
    assert weavelab("up", "--name", NAME).returncode == 0
    try:
        done = weavelab("demo", "--auto", "--name", NAME)
        assert done.returncode == 2
        assert "is up already" in done.stderr
        assert weavelab("status", NAME).returncode == 0
    finally:
        assert weavelab("down", NAME).returncode == 0


class Terminal:
    """The demo on a terminal of 80 columns."""

    def __init__(self) -> None:
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.environ.update(TERM="xterm", COLUMNS="80", LINES="50")
            os.execv(sys.executable, [*WEAVELAB, "demo", "--name", NAME])
        self.pid = pid
        self.text = ""

    def read_until(self, wanted: str, within_s: float = 30) -> None:
        deadline_s = time.monotonic() + within_s
        begin = len(self.text)
        while wanted not in self.text[begin:]:
            assert time.monotonic() < deadline_s, self.text[begin:]
            ready, _, _ = select.select([self.fd], [], [], 0.2)
            if ready:
                self.text += os.read(self.fd, 65536).decode(errors="replace")

    def press(self, key: str) -> None:
        time.sleep(0.1)  # the terminal forgets what was typed before the demo asks
        os.write(self.fd, key.encode())

    def end(self) -> int:
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            self.text += data.decode(errors="replace")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_on_a_terminal_a_key_goes_on_and_q_ends_cleanly() -> None:
    terminal = Terminal()
    terminal.read_until("Enter: next step")
    terminal.press("\n")
    terminal.read_until("Enter: next step")
    terminal.press(" ")
    terminal.read_until("Enter: next step")
    terminal.press("q")
    assert terminal.end() == 0, terminal.text
    assert "3 of 7" in terminal.text
    assert "4 of 7" not in terminal.text
    assert "\x1b[" in terminal.text  # coloured


def test_ctrl_c_at_the_prompt_takes_the_lab_down() -> None:
    terminal = Terminal()
    terminal.read_until("Enter: next step")
    assert leftovers() != []
    terminal.press("\x03")
    assert terminal.end() == 130, terminal.text


def test_a_terminal_that_is_closed_takes_the_lab_down() -> None:
    terminal = Terminal()
    terminal.read_until("Enter: next step")
    os.close(terminal.fd)
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert leftovers() == []


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
