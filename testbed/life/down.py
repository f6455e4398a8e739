"""THE END OF A LAB, read `tear_down` downwards: processes, names, mounts, files.

It works from what exists and what the state file names, whatever state that is: a lab that is up, half built, half
removed, or whose state file is damaged. Every step is safe to repeat, so a tear-down that was killed is simply run
again. It never deletes a device: those go with their namespaces, in the kernel's own time.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from plugin.core.errors import CheckError, InputError, WeaveError, said_by
from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from testbed.lab import state
from testbed.lab.paths import NETNS, RUN, LabPaths
from testbed.lab.users import InUseError, send_away, users_of
from testbed.machine import processes
from testbed.machine.interrupts import postponed
from testbed.machine.processes import ProcessId
from testbed.nodes import cgroups, mounts

GRACE_S: Final = 2.0
"""How long agents and runtimes may take to end by themselves before they are killed."""

_ROUNDS_MAX: Final = 5
"""Rounds of looking for processes: one that forks while it is being ended is caught in the next round."""

LOCK_WAIT_S: Final = 10.0
_KERNEL_WAIT_S: Final = 120.0


def tear_down(lab: str) -> None:
    """Remove a lab, whatever is left of it; a Ctrl-C meanwhile takes effect when it is gone.

    Raises:
        InputError: There is no lab of that name.
        CheckError: Another command is changing it, or something does not go away (it is named).
    """
    paths = LabPaths(lab)
    with state.locked(paths, wait_s=LOCK_WAIT_S), postponed():
        remove(paths)


def take_down(
    labs: Sequence[str] | None, *, force: bool = False, done: Callable[[str], None] = lambda _lab: None
) -> None:
    """Remove labs on a person's behalf: one that a command uses is left alone, or taken from under it by `force`.

    Args:
        labs: Their names; None: every lab of this machine. One that cannot be removed does not keep the others from it.
        force: End the commands that use them first.
        done: Told the name of each that is gone.

    Raises:
        InUseError: One is in use.
        InputError: There is no lab of that name.
        CheckError: Another command is changing it, or something does not go away (it is named).
    """
    failures: list[WeaveError] = []
    for lab in state.labs() if labs is None else dict.fromkeys(labs):
        try:
            _take_down(LabPaths(lab), force=force)
        except state.NoSuchLabError as error:
            if labs is not None:  # of all labs, one may have gone by itself meanwhile
                failures.append(error)
        except WeaveError as error:
            failures.append(error)
        else:
            done(lab)
    _remove_run_directory()
    if len(failures) == 1:
        raise failures[0]
    if failures:
        worst = InputError if all(isinstance(one, InputError) for one in failures) else CheckError
        hints = dict.fromkeys(one.hint for one in failures if one.hint)
        raise worst("\n  ".join(["not every lab is down:", *map(str, failures)]), hint="; ".join(hints))


def _take_down(paths: LabPaths, *, force: bool) -> None:
    if paths.lab not in state.labs():  # or it is no name at all, and never becomes a path
        raise state.no_such_lab(paths.lab)
    found = users_of(paths)
    if found and force:
        send_away(paths, found)
    elif found:
        raise InUseError(paths.lab, found)
    try:
        with state.locked(paths, wait_s=LOCK_WAIT_S), postponed():
            if not force and (found := users_of(paths)):  # it came while we waited
                raise InUseError(paths.lab, found)
            remove(paths)
    except state.NoSuchLabError:
        if not found:
            raise  # otherwise it was the lab of a run, which took it down when it was sent away


def remove(paths: LabPaths, *, keep_directory: bool = False) -> None:
    """Remove a lab whose lock the caller holds; see `tear_down`.

    Args:
        paths: Which lab.
        keep_directory: Leave its directory, which is what the caller's lock is on.
    """
    recorded = _begin(paths)
    namespaces = processes.namespace_ids(_pins(paths))
    survivors = _end_processes(paths, namespaces, recorded)
    if survivors:
        pids = ", ".join(str(process.pid) for process in survivors)
        raise CheckError(
            f"processes of lab {paths.lab} cannot be ended: {pids}",
            hint="they hang in the kernel (state D in `ps`); run `weavelab down` again when they are gone",
        )
    cgroups.remove(paths.cgroup)
    _release_names(namespaces, () if recorded is None else recorded.netns_names)
    _unmount(paths)
    _remove_files(paths)
    if not keep_directory:
        _remove_directories(paths)


def remove_if_empty(paths: LabPaths) -> None:
    """Remove the directory of a lab that never came to be (made only for its lock)."""
    with contextlib.suppress(OSError):
        paths.users.rmdir()
    with contextlib.suppress(OSError):
        paths.directory.rmdir()
    _remove_run_directory()


def _begin(paths: LabPaths) -> state.LabState | None:
    """What the state file says, and a note in it that the lab is going; None when it is absent or damaged."""
    try:
        found = state.read(paths)
    except CheckError:
        return None
    if found is not None:
        with contextlib.suppress(WeaveError):  # a full disk must not keep a lab from being removed
            state.write(paths, msgspec.structs.replace(found, phase="removing", command_pid=os.getpid()))
    return found


def _pins(paths: LabPaths) -> list[Path]:
    found: list[Path] = []
    for directory in (paths.pins, paths.mount_pins):
        with contextlib.suppress(OSError):
            found += directory.iterdir()
    return found


def _end_processes(
    paths: LabPaths, namespaces: set[tuple[int, int]], recorded: state.LabState | None
) -> list[ProcessId]:
    """End agents and runtimes, then whoever else lives in the lab's namespaces or cgroup: the lab's by definition.

    A container whose runtime is gone has namespaces of its own that nothing names; its cgroup still does.
    """
    known = [] if recorded is None else [ProcessId(entry.pid, entry.start_ticks) for entry in recorded.processes]
    survivors = processes.end(known, grace_s=GRACE_S)
    for _ in range(_ROUNDS_MAX):
        cgroups.thaw(paths.cgroup)
        found = list({*processes.inhabitants(namespaces), *cgroups.members(paths.cgroup)})
        if not found:
            break
        # Interactive shells ignore SIGTERM, and what still runs here has nothing left to save.
        survivors = processes.end(found, grace_s=0.0)
    return survivors


def _release_names(namespaces: set[tuple[int, int]], recorded: Iterable[str]) -> None:
    """Remove our entries below /run/netns: what names one of our namespaces, and what was announced but never bound."""
    names = set(recorded)
    try:
        entries = list(NETNS.iterdir())
    except FileNotFoundError:
        return
    for entry in entries:
        bound = processes.namespace_ids([entry])
        if (bound and bound <= namespaces) or (not bound and entry.name in names):
            mounts.release(entry)


def _unmount(paths: LabPaths) -> None:
    """Unmount the lab's tmpfs, and with it every pin; several when mounts of killed commands are stacked."""
    before: list[Path] = []
    while points := [point for point in mounts.mount_points() if point.is_relative_to(paths.directory)]:
        if points == before:
            raise CheckError(
                f"wanted to unmount {points[0]}, found it concealed by another mount",
                hint="unmount what was mounted over it (findmnt -R /run), then run `weavelab down` again",
            )
        mounts.detach(points[0])  # the table lists a mount before those below it, and this takes them along
        before = points


def _remove_files(paths: LabPaths) -> None:
    try:
        with contextlib.suppress(FileNotFoundError):
            paths.fs.rmdir()
        with contextlib.suppress(FileNotFoundError):
            for file in paths.users.iterdir():
                file.unlink(missing_ok=True)
            paths.users.rmdir()
        for file in (paths.state_file, paths.state_file.with_suffix(".new"), paths.password_file):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise _unremovable(paths, error) from error


def _remove_directories(paths: LabPaths) -> None:
    try:
        paths.directory.rmdir()
    except OSError as error:
        raise _unremovable(paths, error) from error
    _remove_run_directory()


def _unremovable(paths: LabPaths, error: OSError) -> CheckError:
    return CheckError(
        f"lab {paths.lab} is down, but {error.filename} cannot be removed: {said_by(error, path=False)}",
        hint=f"look what is in {paths.directory}; weavelab removes only what it made",
    )


def _remove_run_directory() -> None:
    """Remove /run/netns, if it is ours, and /run/weavelab when the last lab is gone; while one is left, neither."""
    mounts.drop_netns_directory()
    with contextlib.suppress(OSError):
        RUN.rmdir()


def wait_for_kernel(timeout_s: float = _KERNEL_WAIT_S) -> bool:
    """Wait until the kernel has freed the namespaces that were let go of; False when it takes longer.

    The kernel frees namespaces in one queue, batch by batch. A namespace of ours that we let go of afterwards is freed
    in a later batch, or in the same; when a second one, let go of after the first was seen to go, is gone too, then so
    is every batch before it. Its going is seen by a cable: the end that we keep vanishes with the other one.
    """
    deadline_s = time.monotonic() + timeout_s
    return all(_barrier(deadline_s) for _ in range(2))


def _barrier(deadline_s: float) -> bool:
    with netns.new_netns() as kept, Netlink(kept) as kernel:
        with netns.new_netns() as dropped:
            near, far = rtnl.VethEnd(name="kept", index=2), rtnl.VethEnd(name="dropped", netns_fd=dropped)
            kernel.request(rtnl.veth_add(near, far), what="making a cable to wait by")
        while kernel.link("kept") is not None:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.02)
    return True
