"""Work shared out among forked processes: for jobs that are nearly all kernel work, which threads of Python slow down.

Two threads that do short system calls spend their time handing the interpreter's lock to each other. A job here is a
function that runs in a child of this process, knows what the parent knew, and cannot change anything of the parent's.
It reports progress and, if it fails, its exception. No child outlives the call, nor a parent that is killed.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import selectors
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from plugin.core.errors import CheckError

Job: TypeAlias = Callable[[Callable[[int], None]], None]
"""Does its work and calls its argument with the number of pieces finished since the last call."""

_PIECE: Final = b"."
_FAILURE: Final = b"!"
_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_forked(jobs: Sequence[Job], *, done: Callable[[int], None] = lambda _count: None) -> None:
    """Run every job in a child of its own, all at the same time, and wait for them.

    Args:
        jobs: They share what this process has open; a job must not use a socket that another one reads from.
        done: Told how many pieces are finished, all jobs together.

    Raises:
        CheckError: A child was killed.
        BaseException: The first failure of a job, as it was raised there; the other jobs are stopped.
    """
    children: list[_Child] = []
    try:
        for job in jobs:
            _fork(job, children)
        _follow(children, done)
    finally:
        for child in children:
            child.end()


@dataclass(slots=True)
class _Child:
    pid: int
    pipe: int
    told: bytearray = field(default_factory=bytearray)
    status: int | None = None

    @property
    def pieces(self) -> int:
        return len(self.told.partition(_FAILURE)[0])

    def end(self) -> None:
        """Kill it unless it has ended; either way it is gone afterwards."""
        os.close(self.pipe)
        # An interruption may have come between its end and our noting that.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            if self.status is None:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)

    def result(self) -> None:
        """Wait for its end, which is near: it has closed its pipe. Raises what it failed with."""
        _, self.status = os.waitpid(self.pid, 0)
        failure = self.told.partition(_FAILURE)[2]
        if failure:
            raise pickle.loads(failure)  # noqa: S301 - our own child's
        if self.status != 0:
            code = os.waitstatus_to_exitcode(self.status)
            raise CheckError(
                f"a process that builds the lab ended unexpectedly ({code})",
                hint="was it killed? The kernel's log (dmesg) tells if memory ran out",
            )


def _fork(job: Job, children: list[_Child]) -> None:
    """Start a child and note it in `children`; no signal may come in between, or it would be forgotten."""
    reading, writing = os.pipe()
    parent = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads: a progress display has one. The child prints nothing.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(job, writing, parent)
        children.append(_Child(pid, reading))
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _child(job: Job, pipe: int, parent: int) -> None:
    """What a child does, to its end; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(code)
        for number in _SIGNALS:  # Ctrl-C reaches the whole foreground group; the parent decides what follows
            signal.signal(number, signal.SIG_IGN)
        gc.disable()  # a collection would copy the parent's memory page by page
        job(lambda pieces: _write(pipe, _PIECE * pieces))
        code = 0
    except BaseException as error:  # noqa: BLE001 - raised again in the parent
        _write(pipe, _FAILURE + _pickled(error))
    finally:
        os._exit(code)


def _write(pipe: int, data: bytes) -> None:
    while data:
        data = data[os.write(pipe, data) :]


def _pickled(error: BaseException) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - whatever an exception carries: its text always travels
        return pickle.dumps(CheckError(f"{type(error).__name__}: {error}"))
    return data


def _follow(children: Sequence[_Child], done: Callable[[int], None]) -> None:
    """Read what the children tell until all have ended."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.pipe, selectors.EVENT_READ, child)
        while selector.get_map():
            for key, _events in selector.select():
                child = key.data
                if told := os.read(child.pipe, 1 << 16):
                    child.told += told
                    done(sum(one.pieces for one in children))
                else:
                    selector.unregister(child.pipe)
                    child.result()
