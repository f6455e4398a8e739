"""Processes of a lab: who they are, who lives in its namespaces, and how they are ended without hitting a stranger.

A pid is a number that the kernel gives out again. A process is therefore known by its pid *and* the time it started,
and is signalled through a pidfd, which never changes its mind. Sources: pidfd_open(2), proc_pid_stat(5).
"""

import os
import select
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KILL_WAIT_S: Final = 5.0
"""How long a killed process may take to be gone: it only has to leave the kernel."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for another: its pid and its start, in clock ticks since boot."""

    pid: int
    start_ticks: int


def identify(pid: int) -> ProcessId | None:
    """The process that has this pid now, or None when nobody has."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command may hold blanks and brackets: fields are counted behind its closing bracket (field 3 onwards).
    fields = stat.rpartition(")")[2].split()
    return ProcessId(pid, int(fields[19]))


def is_alive(process: ProcessId) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    if identify(process.pid) != process:
        return False
    try:
        stat = Path("/proc", str(process.pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def namespace_ids(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """(device, inode) of the namespaces pinned at `paths`; paths that pin nothing are left out."""
    nsfs = Path("/proc/self/ns/net").stat().st_dev
    found = set()
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        if stat.st_dev == nsfs:
            found.add((stat.st_dev, stat.st_ino))
    return found


def inhabitants(namespaces: Collection[tuple[int, int]]) -> list[ProcessId]:
    """The processes that live in one of the namespaces (network, mount or UTS), ourselves left out."""
    if not namespaces:
        return []
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed of thousands
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        if any(_namespace_of(entry, kind) in namespaces for kind in ("net", "mnt", "uts")):
            process = identify(int(entry))
            if process is not None:
                found.append(process)
    return found


def _namespace_of(pid: str, kind: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(f"/proc/{pid}/ns/{kind}")  # noqa: PTH116 - the hot line of a tear-down
    except OSError:  # it has just ended
        return None
    return stat.st_dev, stat.st_ino


def end(processes: Iterable[ProcessId], *, grace_s: float, kill: bool = False) -> list[ProcessId]:
    """Ask the processes to end, wait, kill those that did not; returns those that even that did not end.

    Args:
        processes: Who; one that is gone, or whose pid belongs to somebody else by now, is left alone.
        grace_s: How long they may take before they are killed.
        kill: Do not ask; kill at once.
    """
    watched: dict[int, ProcessId] = {}
    try:
        for process in processes:
            fd = _open(process)
            if fd is not None:
                watched[fd] = process
        if not kill:
            _signal(watched, signal.SIGTERM)
            _wait(watched, grace_s)
        _signal(watched, signal.SIGKILL)
        _wait(watched, _KILL_WAIT_S)
        return list(watched.values())
    finally:
        for fd in watched:
            os.close(fd)


def ask_to_end(processes: Iterable[ProcessId]) -> None:
    """Send each SIGTERM and see that it hears it, also one that is suspended (Ctrl-Z); waits for nothing."""
    for process in processes:
        fd = _open(process)
        if fd is not None:
            try:
                _signal([fd], signal.SIGTERM)
                _signal([fd], signal.SIGCONT)
            finally:
                os.close(fd)


def _open(process: ProcessId) -> int | None:
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # ESRCH: gone
        return None
    # Only now is the pid nailed down; a different start means that it was given to somebody else before.
    if identify(process.pid) != process:
        os.close(fd)
        return None
    return fd


def _signal(watched: Iterable[int], number: signal.Signals) -> None:
    for fd in watched:
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:  # it ended a moment ago; _wait sees it
            continue


def _wait(watched: dict[int, ProcessId], timeout_s: float) -> None:
    """Wait until all have ended, at most `timeout_s`; the ended are closed and taken out of `watched`."""
    poller = select.poll()
    for fd in watched:
        poller.register(fd, select.POLLIN)  # a pidfd is readable when its process has ended
    deadline_s = time.monotonic() + timeout_s
    while watched:
        left_s = deadline_s - time.monotonic()
        for fd, _event in poller.poll(max(0.0, left_s) * 1000):
            poller.unregister(fd)
            os.close(fd)
            process = watched.pop(fd)
            _reap(process.pid)
        if left_s <= 0:
            return


def _reap(pid: int) -> None:
    """Take the exit status of a child of ours, so that it does not stay behind as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # init's child by now, as usual
        return
