"""Programs that a run starts inside spaces: each has a deadline, and all of them can be stopped at once.

`Processes` is the only place where scenarios start anything. It exists for Ctrl-C: a run works in several threads, and
whoever interrupts it must not wait for the deadlines of what they started. It never interprets an output; the probes
beside it (ping, iperf) do.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from plugin.core.errors import WeaveError
from testbed.deploy.plan import TOOLS_PATH
from testbed.machine import space as spaces
from testbed.machine.space import Completed, Space

Spawn = Callable[..., "subprocess.Popen[bytes]"]

_LAST_WORDS_S: Final = 0.3
"""How long a program may take to answer a SIGINT at its deadline: ping prints what it has counted so far."""

_KILL_GRACE_S: Final = 2.0
"""How long a killed process may take to let go of its pipes (it may sit in the kernel) before we stop listening."""


class StoppedError(WeaveError):
    """The run was stopped (Ctrl-C); nothing more is started."""


class Processes:
    """The running programs of one run; safe to use from several threads."""

    def __init__(self, spawn: Spawn = spaces.spawn) -> None:
        self._spawn = spawn
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()
        self._endings: set[Callable[[], None]] = set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> None:
        """Let time pass between two attempts; returns at once when the run is stopped."""
        self._stopped.wait(seconds)

    def start(self, space: Space, argv: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start a program with its output on pipes and nothing to read; the caller hands it to `finish`.

        Raises:
            StoppedError: The run was stopped.
            OSError: The space or the program is absent.
        """
        if self.stopped:
            raise StoppedError("the run was stopped")
        process = self._spawn(
            space, argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
        )
        with self._lock:
            self._running.add(process)
        if self._stopped.is_set():  # stop() may have looked at the set just before we joined it
            _kill_group(process)
        return process

    def finish(self, process: "subprocess.Popen[bytes]", argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Wait for a started program, at most `timeout_s` seconds, then end it with its whole process group.

        Raises:
            StoppedError: The run was stopped meanwhile.
        """
        started_s = time.monotonic()
        timed_out = False
        try:
            stdout, stderr = process.communicate(timeout=max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            timed_out = True
            stdout, stderr = self._kill(process)
        except BaseException:
            self._kill(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if self.stopped:
            raise StoppedError("the run was stopped")
        return Completed(
            argv=tuple(argv),
            returncode=process.returncode if process.returncode is not None else -9,
            stdout=stdout.decode(errors="replace"),
            stderr=stderr.decode(errors="replace"),
            seconds=time.monotonic() - started_s,
            timed_out=timed_out,
        )

    def run(self, space: Space, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program to its end, at most `timeout_s` seconds.

        Raises:
            StoppedError: The run was stopped meanwhile.
            OSError: The space or the program is absent.
        """
        return self.finish(self.start(space, argv), argv, timeout_s=timeout_s)

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """For what is no program of ours (a call of a runtime): `end` is called when the run is stopped meanwhile.

        Raises:
            StoppedError: The run was stopped; whatever else the block failed with followed from that.
        """
        with self._lock:
            self._endings.add(end)
        try:
            if self.stopped:
                raise StoppedError("the run was stopped")
            yield
        except WeaveError as error:
            if self.stopped:
                raise StoppedError("the run was stopped") from error
            raise
        finally:
            with self._lock:
                self._endings.discard(end)

    def stop(self) -> None:
        """End every running program and start no other. Threads inside `run` return at once."""
        self._stopped.set()
        with self._lock:
            running, endings = tuple(self._running), tuple(self._endings)
        for process in running:
            _kill_group(process)
        for end in endings:
            end()

    @staticmethod
    def _kill(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            return process.communicate(timeout=_LAST_WORDS_S)
        _kill_group(process)
        try:
            return process.communicate(timeout=_KILL_GRACE_S)
        except subprocess.TimeoutExpired:
            return b"", b"(still held by the kernel after SIGKILL)"


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    # Also when the program itself has ended: what it left in the background is in its group and holds its pipes.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def exec_argv(command: str | Sequence[str]) -> list[str]:
    """The argument list of an `exec` step: a string is a shell command line, a list is taken as it is."""
    return ["sh", "-c", command] if isinstance(command, str) else list(command)


def _environment() -> dict[str, str]:
    # The tools' English output is what we parse and what the documentation shows.
    path = f"{os.environ.get('PATH', os.defpath)}:{TOOLS_PATH}"
    return {**os.environ, "PATH": path, "LC_ALL": "C", "LANGUAGE": ""}


def describe_end(completed: Completed) -> str:
    """How a program ended: ``exit code 0``, ``killed at its deadline after 2.0 s``, ``ended by signal 9``."""
    if completed.timed_out:
        return f"killed at its deadline after {completed.seconds:.1f} s"
    if completed.returncode < 0:
        return f"ended by signal {-completed.returncode}"
    return f"exit code {completed.returncode}"
