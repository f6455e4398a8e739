"""Every command in every kind of trouble: the right exit code, no traceback, nothing left behind.

The rows are in tests/support/matrix.py, one a command; the columns are the tests below. All rows share one lab; those
that make one make another. Which commands there are is read from the command line itself: a new one without a row fails.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import confined
from tests.support.matrix import DOWN_OWN, LAB, OWN, ROWS, TOPOLOGY, commands, filled
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

RUN = Path(f"/run/wlmatrix-{os.getpid()}")
COMMAND = [sys.executable, "-m", "testbed"]
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": str(RUN), "PYTHONDONTWRITEBYTECODE": "1"}
PLAIN = {"LANG": "C", "LC_ALL": "C", "TERM": "dumb"}
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")
DEADLINE_S = 60.0
FULL = f"f{os.getpid() % 1000000}"
"""The lab on a full disk; it lives in a mount namespace of its own."""

NAMES = [name for name in commands() if name in ROWS]
each_command = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The topology's file, where everybody may read it; the shared lab is up."""
    path = Path(f"/tmp/wlmatrix-{os.getpid()}.yaml")
    path.write_text(TOPOLOGY)
    path.chmod(0o644)
    up = plain("up", str(path), "--name", LAB)
    assert up.returncode == 0, up.stderr
    yield path
    status = plain("status", LAB)
    down = plain("down", "--all")
    path.unlink()
    assert status.returncode == 0, status.stdout
    assert down.returncode == 0, down.stderr
    assert not RUN.exists()


@pytest.fixture
def prepared(name: str, topology: Path) -> Iterator[list[str]]:
    """The call of a row; what it made is gone afterwards."""
    row = ROWS[name]
    for call in row.before:
        done = plain(*filled(call, topology))
        assert done.returncode == 0, done.stderr
    yield filled(row.arguments, topology)
    for call in row.after:
        plain(*filled(call, topology))
    found = leftovers()
    if found:
        plain(*DOWN_OWN)
    assert found == []


def plain(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def leftovers() -> list[str]:
    """What is there of the lab that a row made for itself."""
    names = [str(path) for path in Path("/run/netns").glob(f"{OWN}-*")]
    return names + [line for line in Path("/proc/mounts").read_text().splitlines() if f"{RUN / OWN}/" in line]


def outcome(
    arguments: list[str],
    *,
    confine: Callable[[], None] = lambda: None,
    environment: dict[str, str] | None = None,
    stdout: Any = subprocess.PIPE,
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = confined.start(
        [*COMMAND, *arguments],
        confine=confine,
        cwd=ROOT,
        env=ENVIRONMENT | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    except BaseException:
        process.kill()
        raise
    told(out or "", err)
    return process.returncode, out or "", err


def told(*texts: str) -> None:
    """What no output of ours may have."""
    for text in texts:
        assert "Traceback" not in text, text
        assert "This is a bug" not in text, text
        assert "Exception ignored" not in text, text


def test_every_command_has_a_row() -> None:
    assert [name for name in commands() if name not in ROWS] == []


@each_command
def test_without_root_it_works_or_says_so(name: str, topology: Path) -> None:
    code, _, err = outcome(filled(ROWS[name].arguments, topology), confine=confined.as_nobody)
    assert leftovers() == []
    if ROWS[name].lacking is None:
        assert (code, err) == (0, "")
        return
    assert code == 3, err
    assert "error: weavelab needs root to " in err
    assert "hint: sudo " in err


@each_command
def test_without_a_capability_it_works_or_names_it(name: str, topology: Path) -> None:
    lacking = ROWS[name].lacking
    confine = confined.without(lacking or confined.CAP_SYS_ADMIN)
    code, _, err = outcome(filled(ROWS[name].arguments, topology), confine=confine)
    assert leftovers() == []
    if lacking is None:
        assert (code, err) == (0, "")
        return
    assert code == 3, err
    assert re.match(r"error: weavelab needs CAP_\w+ to [\w ]+, found root without it\n", err)
    assert "hint: a container has to be privileged" in err


@pytest.mark.skipif(confined.UNSHARE is None, reason="the numbers of system calls are known for x86_64 and aarch64")
@pytest.mark.parametrize("call", ["UNSHARE", "MOUNT"])
@pytest.mark.parametrize("name", [name for name in NAMES if name in {"up", "run", "demo"}])
def test_what_the_kernel_refuses_in_spite_of_capabilities_is_found_before_a_lab_is_made(
    call: str, prepared: list[str]
) -> None:
    code, out, err = outcome(prepared, confine=confined.refusing(getattr(confined, call)))
    assert code == 3, err
    assert "the kernel refused what weavelab asked of it" in (out + err).replace("\n", " ")
    assert "nodes" not in err


@each_command
def test_in_a_pipe_in_an_old_locale_it_is_plain(name: str, prepared: list[str]) -> None:
    code, out, err = outcome(prepared, environment=PLAIN | {"NO_COLOR": "1", "COLUMNS": "40"})
    assert code == 0, out + err
    assert "\x1b" not in out + err
    assert bool(out) == ROWS[name].prints


def at_a_terminal(arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and what a terminal of 40 columns was sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    process = confined.start(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT | {"TERM": "xterm-256color"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    deadline_s = time.monotonic() + DEADLINE_S
    with os.fdopen(master, "rb", buffering=0) as terminal:
        while select.select([terminal], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            try:
                shown += terminal.read(65536)
            except OSError:  # EIO: nobody has the other end any more
                break
    assert time.monotonic() < deadline_s, shown
    text = shown.decode()
    told(text)
    return process.wait(), text


@each_command
def test_at_a_terminal_of_40_columns_it_holds(prepared: list[str]) -> None:
    code, shown = at_a_terminal(prepared, {"LANG": "C.UTF-8"})
    assert code == 0, shown


@each_command
def test_at_a_terminal_without_colour_it_has_none(prepared: list[str]) -> None:
    code, shown = at_a_terminal(prepared, PLAIN | {"TERM": "xterm-256color", "NO_COLOR": "1"})
    assert code == 0, shown
    assert not COLOUR.search(shown), shown


@each_command
def test_with_standard_output_closed_it_holds(name: str, prepared: list[str]) -> None:
    code, _, err = outcome(prepared, confine=lambda: os.close(1))
    assert code == (1 if name == "exec" else 0), err  # the command's own: echo(1) minds it


@each_command
def test_on_a_full_device_its_output_is_missed(name: str, prepared: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = outcome(prepared, stdout=full)
    if not ROWS[name].prints:
        assert code == 0, err
    elif name == "exec":  # the command's own
        assert code == 1
    else:
        assert code == 3, err
        assert "No space left on device" in err


@each_command
def test_when_its_reader_has_gone_away_it_ends_as_by_sigpipe(name: str, prepared: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        code, _, err = outcome(prepared, stdout=nobody)
    if name == "exec":
        assert (code, err) == (-signal.SIGPIPE, "")  # the command's own, as without us
        return
    assert code == (141 if ROWS[name].prints else 0), err
    assert "error" not in err


FULL_DISK = """
import json, os, subprocess, sys
command, lab, file, before, calls = json.loads(sys.argv[1])
folder = os.environ["WEAVELAB_RUN"]
os.makedirs(folder)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", folder], check=True)
def call(arguments):
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
    return [done.returncode, done.stdout, done.stderr]
first = call(["up", file, "--name", lab])
results = {}
if first[0] == 0:
    for each in before:
        call(each)
    try:
        with open(folder + "/filler", "wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
    except OSError:
        pass
    results = {name: [call(each) for each in every] for name, every in calls.items()}
last = call(["down", "--all"])
if os.path.exists(folder + "/filler"):
    os.unlink(folder + "/filler")
left = os.listdir(folder)
subprocess.run(["umount", folder], check=True)
os.rmdir(folder)
print(json.dumps([first, results, last, left]))
"""


def elsewhere(call: tuple[str, ...], topology: Path) -> list[str]:
    """A row's call for the lab on the full disk."""
    return [FULL if word == LAB else word for word in filled(call, topology)]


def test_on_a_full_disk_what_writes_says_so_and_all_else_works(topology: Path) -> None:
    """A lab that is up when the disk gets full: it can be looked into, and taken down."""
    calls: dict[str, list[list[str]]] = {}
    before: list[list[str]] = []
    for name in NAMES:
        if name != "down":
            before += [elsewhere(call, topology) for call in ROWS[name].before]
            calls[name] = [elsewhere(call, topology) for call in (ROWS[name].arguments, *ROWS[name].after)]
    calls["run"].append(["run", "--lab", FULL, "--junit", f"{RUN}f/report.xml"])
    plan = json.dumps([COMMAND, FULL, str(topology), before, calls])
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", FULL_DISK, plan],
        cwd=ROOT,
        env=ENVIRONMENT | {"WEAVELAB_RUN": f"{RUN}f"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    folder = Path(f"{RUN}f")  # what was mounted there is gone with the mount namespace
    if done.returncode != 0 and folder.exists():
        folder.rmdir()
    assert done.returncode == 0, done.stderr
    first, results, last, left = json.loads(done.stdout)
    assert first[0] == 0, first
    for name, ((code, out, err), *_) in results.items():
        told(out, err)
        assert code == (3 if ROWS[name].writes else 0), (name, out, err)
        if ROWS[name].writes:
            assert "No space left on device" in (out + err).replace("\n", " "), (name, out, err)
            assert "hint: " in out + err, (name, out, err)
    code, out, err = results["run"][-1]
    assert code in {2, 3}, out + err
    assert "No space left" in out + err
    assert last[0] == 0, last
    assert left == []


def is_loading(process: "subprocess.Popen[str]") -> bool:
    """Whether the process listens to signals already (SIGINT has a handler as soon as Python starts)."""
    caught = re.search(r"^SigCgt:\s*(\w+)", of_process(process, "status"), re.MULTILINE)
    return caught is not None and bool(int(caught[1], base=16) >> (signal.SIGTERM - 1) & 1)


def is_working(process: "subprocess.Popen[str]", name: str) -> bool:
    """Whether it is in the middle of what it is there for."""
    try:
        state = json.loads((RUN / OWN / "state.json").read_text())
    except (OSError, ValueError):
        state = {"step": "begin", "phase": "building"}
    if name == "down":
        return bool(state["phase"] == "removing")
    if name in {"up", "run", "demo"}:
        return bool(state["step"] not in {"begin", "nodes"})
    return "msgspec" in of_process(process, "maps")  # what labs are made of is imported when a command begins


def of_process(process: "subprocess.Popen[str]", what: str) -> str:
    try:
        return Path(f"/proc/{process.pid}/{what}").read_text()
    except OSError:  # it has just ended
        return ""


@each_command
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_it_with_128_and_its_number(name: str, number: signal.Signals, prepared: list[str]) -> None:
    ended_by(number, prepared, lambda process: is_working(process, name))


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_it_is_loaded_is_no_other(number: signal.Signals) -> None:
    ended_by(number, ["status"], is_loading)


def ended_by(number: signal.Signals, arguments: list[str], reached: Callable[["subprocess.Popen[str]"], bool]) -> None:
    process = confined.start(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + DEADLINE_S
    while not reached(process) and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.001)
    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)
    told(out, err)
    # It may have been faster; or it had ended, and Python let go of its handlers: a shell sees 128 and the number then, too.
    assert process.returncode in {128 + number, 0, -number}, out + err
    if process.returncode > 0:
        assert "interrupted" in out + err
