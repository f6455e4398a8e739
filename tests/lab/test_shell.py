"""The Mininet prompt on a running lab: by script, by `-c`, and at a terminal."""

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

from tests.support.confined import start
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

RUN = f"/run/wlshell-{os.getpid()}"
LAB = f"s{os.getpid() % 1000000}"
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": RUN}
COMMAND = [sys.executable, "-m", "testbed"]


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


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    up = weavelab("up", "topologies/two-nodes.yaml", "--name", LAB)
    assert up.returncode == 0, up.stderr
    yield
    down = weavelab("down", "--all")
    assert down.returncode == 0, down.stderr
    assert not Path(RUN).exists()


def shells() -> list[str]:
    """Shells of our prompts that still live; somebody else's on this machine have another folder of labs."""
    return [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and b"weavelab:" in _of_process(entry, "cmdline")
        and os.fsencode(f"WEAVELAB_RUN={RUN}") in _of_process(entry, "environ").split(b"\0")
    ]


def _of_process(entry: Path, what: str) -> bytes:
    try:
        return (entry / what).read_bytes()
    except OSError:
        return b""


def test_pingall_goes_over_the_pods_and_tells_the_loss() -> None:
    done = weavelab("cli", "-c", "pingall")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "red -> green blue" in done.stdout
    assert "*** Results: 0% dropped (6/6 received)" in done.stdout


def test_names_stand_for_addresses_and_the_output_is_the_commands() -> None:
    done = weavelab("cli", script="red ping -c1 -W2 blue  # across\nblue ping -c1 -W2 node1\nnode1 hostname\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"1 packets transmitted, 1 received", done.stdout)) == 2
    assert "PING 192.168.56.11" in done.stdout
    assert done.stdout.rstrip().endswith("node1")
    assert "weavelab>" not in done.stdout
    assert not shells()


def test_a_script_goes_on_after_a_failure_and_its_exit_code_tells() -> None:
    done = weavelab("cli", script="red false\nnope\nred echo still here\n")
    assert done.returncode == 1
    assert "red: exit code 1" in done.stdout
    assert "unknown command: nope" in done.stdout
    assert "still here" in done.stdout


@pytest.mark.parametrize(
    "line", ["red cat", "red echo 'open", "red sh -c 'exit 3'", "iperf red", "pingpair red nobody"]
)
def test_no_line_hangs_a_script(line: str) -> None:
    done = weavelab("cli", script=f"{line}\nred echo after\n")
    assert "after" in done.stdout
    assert done.returncode == (0 if line == "red cat" else 1)


def test_exit_ends_a_script() -> None:
    done = weavelab("cli", script="exit\nred false\n")
    assert done.returncode == 0


def test_the_lab_is_described() -> None:
    done = weavelab(
        "cli",
        *(
            word
            for name in ("nodes", "pods", "net", "links", "dump", "intfs", "status", "help")
            for word in ("-c", name)
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in (
        "node1           192.168.56.11",
        "outside         198.51.100.1",
        "br-lan node1:node1-eth0 node2:node2-eth0 outside:outside-eth0",
        "node1-eth0<->br-lan-node1 (OK OK)",
        f"<pod red: eth0 10.32.0.2 0a:58:0a:20:00:02; /run/netns/{LAB}-red>",
        "192.168.56.12",
        "pingall",
    ):
        assert text in done.stdout
    assert "xterm" not in done.stdout


@pytest.mark.parametrize(
    "line",
    ["dpctl dump-flows", "xterm red", "x red", "gterm red", "switch s1 stop", "ports", "iperfudp", "pingallfull",
     "pingpairfull"],
)  # fmt: skip
def test_a_command_of_mininet_without_a_meaning_says_so_and_the_prompt_goes_on(line: str) -> None:
    done = weavelab("cli", script=f"{line}\nred echo after\n")
    assert done.returncode == 1
    assert "after" in done.stdout
    shown = done.stdout + done.stderr
    assert f"*** {line.split(maxsplit=1)[0]} has no meaning here\n    " in shown
    assert "Error" not in shown


@pytest.mark.parametrize("line", ["py 1 / 0", "py nobody.cmd('x')", "px raise KeyError('x')", "link", "time nope"])
def test_a_command_that_fails_does_not_end_the_prompt(line: str) -> None:
    done = weavelab("cli", script=f"{line}\nred echo after\n")
    assert "after" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "line",
    ["py 1 / 0", "px 1 / 0", "py", "px exit()", "help nope", "?nope", "help xterm", "!ls", "pingpair red",
     "pingpair red red", "pingall often", "pingall nan", "pingall 0", "iperf red", "iperf red red", "link red blue down",
     "link red node1", "noecho", "noecho nope", "noecho red false", "time", "time nope", "time red false", "source",
     "source 'a", "source /nope", "source /bin/true", "sh", "sh false", "red", "red nope", "red exit 3", "nope"],
)  # fmt: skip
def test_every_command_that_fails_fails_a_script_and_says_so(line: str) -> None:
    done = weavelab("cli", "-c", line, "-c", "red echo after")
    assert done.returncode == 1, done.stdout
    assert done.stdout.endswith("after\n")
    assert "Traceback" not in done.stdout + done.stderr
    assert "bug" not in done.stdout + done.stderr
    assert line == "sh false" or "***" in done.stdout


@pytest.mark.parametrize(
    "line",
    ["py 1 == 2", "px x = 1", "help", "help py", "help red", "red exit 0", "br-lan true", "time red true", "#", ""],
)
def test_what_does_not_fail_fails_no_script(line: str) -> None:
    done = weavelab("cli", "-c", line)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_script_that_runs_itself_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(f"source {tmp_path / 'script'}\nred echo after\n")
    done = weavelab("cli", "-c", f"source {tmp_path / 'script'}")
    assert done.returncode == 1
    assert f"*** {tmp_path / 'script'} runs itself" in done.stdout
    assert done.stdout.endswith("after\n")


def test_status_at_the_prompt_fails_where_the_command_does() -> None:
    assert weavelab("cli", "-c", "status").returncode == 0
    assert weavelab("agent", "kill", "node1").returncode == 0
    try:
        assert weavelab("cli", "-c", "status").returncode == 1
    finally:
        assert weavelab("agent", "start", "node1").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_script_and_what_it_runs(number: signal.Signals) -> None:
    process = start(
        [*COMMAND, "cli", "-c", "red echo running; sleep 300", "-c", "red echo after"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "after" not in out
    assert "interrupted" in err
    assert not shells()


def test_a_cable_can_be_pulled_and_plugged_in() -> None:
    lines = ["link red node1 down", "pingpair red green", "link red node1 up", "pingpair red green", "links"]
    done = weavelab("cli", script="\n".join(lines))
    assert done.stdout.index("100% dropped (0/2 received)") < done.stdout.index("0% dropped (2/2 received)")
    assert "DOWN" not in done.stdout
    assert done.returncode == 1
    done = weavelab(
        "cli", script="link node2 br-lan down\npingpair node1 node2\nlink node2 br-lan up\nnode1 ping -c1 -W2 node2"
    )
    assert "100% dropped" in done.stdout
    assert "1 received" in done.stdout


def test_iperf_is_iperf3_with_a_deadline() -> None:
    done = weavelab("cli", "-c", "iperf red blue")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\*\*\* Results: [\d.]+ [MG]bit/s", done.stdout)


def test_python_expressions_know_the_members() -> None:
    done = weavelab("cli", "-c", "py red.IP() + ' ' + red.MAC()", "-c", "py green.cmd('hostname').strip()")
    assert done.stdout.splitlines() == ["10.32.0.2 0a:58:0a:20:00:02", "green"]


def test_unknown_labs_are_refused() -> None:
    done = weavelab("cli", "nope")
    assert done.returncode == 2
    assert "no lab named nope is up" in done.stderr


class Terminal:
    """A person at the prompt."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(sys.executable, [*COMMAND, *arguments], {**ENVIRONMENT, "HOME": "/nonexistent", "TERM": "dumb"})
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def until(self, wanted: str, *, within_s: float = 15.0) -> str:
        """Read until `wanted` appears; returns what came before and with it."""
        deadline_s = time.monotonic() + within_s
        while wanted not in self.text:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{wanted!r} did not appear in {self.text!r}"
            if select.select([self.fd], [], [], left_s)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    self.text += "<end>"
        seen, self.text = self.text.split(wanted, 1)
        return seen + wanted

    def end(self) -> int:
        _pid, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal("cli")
    yield made
    try:
        os.kill(made.pid, signal.SIGKILL)
        os.waitpid(made.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_at_a_terminal_ctrl_c_ends_the_command_and_neither_prompt_nor_lab(terminal: Terminal) -> None:
    terminal.until("weavelab> ")
    terminal.type("red ping blue\n")
    terminal.until("icmp_seq=2")
    terminal.type("\x03")
    terminal.until("packets transmitted")
    terminal.until("weavelab> ")
    terminal.type("\x03")
    terminal.until("weavelab> ")
    terminal.type("red echo $((6*7))\n")
    terminal.until("42")
    terminal.until("weavelab> ")
    terminal.type("exit\n")
    terminal.until("<end>")
    assert terminal.end() == 0
    assert weavelab("status").returncode == 0
    assert not shells()


def test_at_a_terminal_what_fails_is_told_and_the_exit_code_is_0(terminal: Terminal) -> None:
    terminal.until("weavelab> ")
    terminal.type("py 1 / 0\n")
    terminal.until("*** ZeroDivisionError: division by zero")
    terminal.until("weavelab> ")
    terminal.type("exit\n")
    terminal.until("<end>")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "busy"])
def test_at_a_terminal_another_signal_than_ctrl_c_ends_the_prompt(
    terminal: Terminal, number: signal.Signals, *, busy: bool
) -> None:
    terminal.until("weavelab> ")
    if busy:
        terminal.type("red ping blue\n")
        terminal.until("icmp_seq=1")
    os.kill(terminal.pid, number)
    terminal.until("<end>")
    assert terminal.end() == 128 + number
    assert not shells()


def test_at_a_terminal_keys_reach_the_command(terminal: Terminal) -> None:
    terminal.until("weavelab> ")
    terminal.type("node1 read line && echo got-$line\n")
    terminal.type("hello\n")
    terminal.until("got-hello")
    terminal.until("weavelab> ")
    terminal.type("\x04")
    terminal.until("<end>")
    assert terminal.end() == 0
