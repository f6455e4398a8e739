"""Who uses a lab: a process that lives and holds its file, and nobody else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.lab import paths, state, users
from testbed.lab.paths import LabPaths
from testbed.lab.users import TakenDownError, Use, send_away, users_of
from tests.support.project import ROOT

LAB = LabPaths("two")

OTHER = """
import signal, sys, time
from testbed.lab.paths import LabPaths
from testbed.lab.users import Use
from testbed.machine import interrupts

if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
use = Use()
try:
    with use, interrupts.raised() if "deaf" not in sys.argv else use:
        use.attach(LabPaths("two"))
        print("begun", flush=True)
        time.sleep(60)
except BaseException as error:
    print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    monkeypatch.setattr(state, "RUN", tmp_path / "run")
    LAB.directory.mkdir(parents=True)
    return tmp_path / "run"


def another(run: Path, *words: str) -> "subprocess.Popen[str]":
    """A command that uses the lab."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, *words],
        cwd=ROOT,
        env={**os.environ, "WEAVELAB_RUN": str(run), "SUDO_USER": "alice"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.fixture
def other(run: Path) -> "Iterator[subprocess.Popen[str]]":
    process = another(run)
    yield process
    process.kill()
    process.communicate()


def test_a_command_is_a_user_as_long_as_it_lives(other: "subprocess.Popen[str]") -> None:
    (user,) = users_of(LAB)
    assert (user.pid, user.person) == (other.pid, "alice")
    assert f"(pid {other.pid}, of alice, since " in str(user)
    other.kill()
    other.wait()
    assert users_of(LAB) == ()
    assert list(LAB.users.iterdir()) == [], "what it left is removed"


def test_a_file_that_nobody_holds_counts_for_nothing(other: "subprocess.Popen[str]") -> None:
    (held,) = LAB.users.iterdir()
    (LAB.users / "1-1.json").write_bytes(held.read_bytes())
    assert [user.pid for user in users_of(LAB)] == [other.pid]


def test_a_command_is_no_user_to_itself_and_leaves_no_file() -> None:
    with Use() as use:
        use.attach(LAB)
        assert use.lab == "two"
        assert len(list(LAB.users.iterdir())) == 1
        assert users_of(LAB) == ()
    assert list(LAB.users.iterdir()) == []


def test_several_use_a_lab(run: Path, other: "subprocess.Popen[str]") -> None:
    second = another(run)
    try:
        assert {user.pid for user in users_of(LAB)} == {other.pid, second.pid}
    finally:
        second.kill()
        second.communicate()


@pytest.mark.parametrize("suspended", [False, True])
def test_who_is_sent_away_ends_and_knows_why(other: "subprocess.Popen[str]", suspended: bool) -> None:  # noqa: FBT001
    if suspended:
        os.kill(other.pid, signal.SIGSTOP)
    send_away(LAB, users_of(LAB))
    assert users_of(LAB) == ()
    said, _ = other.communicate(timeout=20)
    assert said.startswith("TakenDownError lab two was taken down by `weavelab")
    assert f"(pid {os.getpid()}, of " in said


def test_who_does_not_hear_it_is_killed(run: Path) -> None:
    deaf = another(run, "deaf")
    send_away(LAB, users_of(LAB), wait_s=0.1)
    assert users_of(LAB) == ()
    said, _ = deaf.communicate(timeout=20)
    assert said == "", "it had no time to say anything"


def test_an_interruption_that_nobody_ordered_stays_one() -> None:
    def interrupted() -> None:
        with Use() as use:
            use.attach(LAB)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert not isinstance(caught.value, TakenDownError)


def test_a_long_command_is_shown_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["weavelab", "run", *["x" * 30] * 10])
    with Use() as use:
        use.attach(LAB)
        (file,) = LAB.users.iterdir()
        record = users.msgspec.json.decode(file.read_bytes(), type=users.UserRecord)
    assert record.command.startswith("weavelab run xxx")
    assert record.command.endswith("...")
    assert len(record.command) <= 100
    assert abs(record.since_s - time.time()) < 3600
