"""Programs of a run have deadlines and can all be stopped at once. Real processes, no namespaces, no root."""

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plugin.core.errors import CheckError
from testbed.machine.space import Space
from testbed.probes.command import Processes, StoppedError, describe_end, exec_argv

HERE = Space("here", net=Path("/proc/self/ns/net"))


def spawn(space: Space, argv: Any, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, start_new_session=True, **options)


@pytest.fixture
def processes() -> Processes:
    return Processes(spawn)


def test_a_program_gives_its_output_and_exit_code(processes: Processes) -> None:
    completed = processes.run(HERE, ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=10)
    assert (completed.returncode, completed.stdout, completed.stderr) == (3, "out\n", "err\n")
    assert describe_end(completed) == "exit code 3"


def test_output_that_is_no_utf8_is_replaced(processes: Processes) -> None:
    assert processes.run(HERE, ["printf", r"\377"], timeout_s=10).stdout == "\N{REPLACEMENT CHARACTER}"


def test_a_program_finds_nothing_to_read(processes: Processes) -> None:
    assert processes.run(HERE, ["cat"], timeout_s=10).returncode == 0


def test_a_program_is_killed_at_its_deadline_with_its_children(processes: Processes) -> None:
    began_s = time.monotonic()
    # The child holds the pipe open: only killing the whole group ends the wait.
    completed = processes.run(HERE, ["sh", "-c", "echo begun; sleep 60 & sleep 60"], timeout_s=0.3)
    assert completed.timed_out
    assert completed.stdout == "begun\n"
    assert time.monotonic() - began_s < 5
    assert describe_end(completed).startswith("killed at its deadline after")


def test_stop_ends_what_runs_and_nothing_new_is_started(processes: Processes) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            processes.run(HERE, ["sleep", "60"], timeout_s=60)
        except StoppedError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(processes._running) < 3:
        time.sleep(0.005)
    processes.stop()
    for thread in threads:
        thread.join(timeout=5)
    assert len(errors) == 3
    with pytest.raises(StoppedError):
        processes.run(HERE, ["true"], timeout_s=1)


def test_stop_ends_a_call_that_is_no_program_and_its_failure_is_told_as_the_stop(processes: Processes) -> None:
    closed = threading.Event()

    def call() -> None:
        with processes.ending(closed.set):
            processes.stop()
            assert closed.is_set()
            raise CheckError("the connection was closed")

    with pytest.raises(StoppedError):
        call()
    closed.clear()
    with pytest.raises(StoppedError):
        call()
    assert not closed.is_set(), "nothing is begun in a run that was stopped"


def test_a_call_that_fails_by_itself_keeps_its_reason(processes: Processes) -> None:
    with pytest.raises(CheckError, match="no such program"), processes.ending(lambda: None):
        raise CheckError("no such program")


def test_a_wait_ends_when_the_run_is_stopped(processes: Processes) -> None:
    timer = threading.Timer(0.05, processes.stop)
    timer.start()
    began_s = time.monotonic()
    processes.wait(30)
    timer.join()
    assert time.monotonic() - began_s < 5


def test_a_command_line_goes_through_a_shell_and_a_list_does_not() -> None:
    assert exec_argv("ip route | wc -l") == ["sh", "-c", "ip route | wc -l"]
    assert exec_argv(["ip", "route"]) == ["ip", "route"]
