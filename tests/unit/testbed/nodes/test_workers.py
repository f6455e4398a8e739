"""Jobs in forked processes: what they tell, how they fail, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plugin.core.errors import CheckError, MissingError
from plugin.link.netlink import NetlinkError
from testbed.nodes import workers
from testbed.nodes.workers import run_forked
from tests.support.project import ROOT


def gone(pid: int) -> bool:
    """It has ended; a zombie, which only its parent could free, counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except FileNotFoundError:
        return True


def test_progress_counts_the_pieces_of_all_jobs() -> None:
    def job(done: Callable[[int], None]) -> None:
        done(2)
        done(1)

    told: list[int] = []
    run_forked([job, job, job], done=told.append)
    assert told[-1] == 9
    assert told == sorted(told)


def test_jobs_know_what_the_parent_knows_and_change_nothing_of_it(tmp_path: Path) -> None:
    known = ["before"]

    def job(_done: Callable[[int], None]) -> None:
        known.append("in the child")
        (tmp_path / "said").write_text(" ".join(known))

    run_forked([job])
    assert known == ["before"]
    assert (tmp_path / "said").read_text() == "before in the child"


@pytest.mark.parametrize(
    "error",
    [
        MissingError("wanted overlayfs, found none", hint="modprobe overlay"),
        NetlinkError(17, "plugging hosts in: File exists"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_failure_arrives_as_it_was_raised(error: Exception) -> None:
    def job(_done: Callable[[int], None]) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_forked([job])
    assert str(caught.value) == str(error)
    assert getattr(caught.value, "hint", "") == getattr(error, "hint", "")
    assert getattr(caught.value, "errno", None) == getattr(error, "errno", None)


def test_an_exception_that_cannot_travel_arrives_as_its_text() -> None:
    class LocalError(Exception):
        pass

    def job(_done: Callable[[int], None]) -> None:
        raise LocalError("only known here")

    with pytest.raises(CheckError, match="LocalError: only known here"):
        run_forked([job])


def test_when_one_fails_the_others_are_ended(tmp_path: Path) -> None:
    def endless(done: Callable[[int], None]) -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        done(1)
        signal.pause()

    def failing(_done: Callable[[int], None]) -> None:
        deadline_s = time.monotonic() + 10
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline_s:
            time.sleep(0.005)
        raise OSError(5, "enough")

    with pytest.raises(OSError, match="enough"):
        run_forked([endless, failing])
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_killed_job_is_a_sentence() -> None:
    def job(_done: Callable[[int], None]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(CheckError, match=r"ended unexpectedly \(-9\)"):
        run_forked([job])


def test_an_interruption_ends_all_jobs(tmp_path: Path) -> None:
    def job(done: Callable[[int], None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C sends it to the whole group: here it does nothing
        (tmp_path / "pid").write_text(str(os.getpid()))
        done(1)
        signal.pause()

    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_forked([job], done=stop)
    assert gone(int((tmp_path / "pid").read_text()))


def test_no_job_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal
        from testbed.nodes.workers import run_forked
        def job(done):
            print(os.getpid(), flush=True)
            signal.pause()
        run_forked([job])
    """)
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline_s, "the job lives on"
        time.sleep(0.005)


def test_signals_work_as_before_afterwards() -> None:
    run_forked([lambda _done: None])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(workers._SIGNALS) == set()
