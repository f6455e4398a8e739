"""What a lab has, on disk: an intent log that is written *before* each phase, so that a killed command leaves a file
that names all it can have made. `down` works from this file; nothing is ever found by a pattern.

The file is replaced as a whole (temporary file, then rename): a reader sees the old or the new one, never half of it.
The lab's lock is a flock on its directory: the kernel releases it when the command ends, however it ends.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from plugin.core.errors import CheckError, InputError, MissingError, WeaveError, said_by
from testbed.lab.paths import RUN, LabPaths
from testbed.machine import processes
from testbed.machine.called import our_command
from testbed.machine.processes import ProcessId
from testbed.nearest import hint
from testbed.topology.model import Topology
from testbed.topology.names import NAME_LENGTH_MAX

_STATE_VERSION: Final = 1
_LABS_MAX: Final = 100
"""Labs of one topology that may be up at the same time."""

Phase = Literal["building", "ready", "failed", "removing"]


class NameTakenError(InputError):
    """The name of a lab that was to be made belongs to another one."""


class BusyError(CheckError):
    """Another command is changing the lab."""


class NoSuchLabError(InputError):
    """There is no lab of that name."""


class ProcessRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process that the lab started and left running; `start_ticks` tells it from a later one with the same pid."""

    role: str
    member: str
    pid: int
    start_ticks: int


class PodRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pod that is attached; `cni_calls` are `testbed.lab.cni_call.CniCall`s as plain values."""

    node: str
    container_id: str
    address: str
    mac: str
    host_ifname: str
    ifname: str = "eth0"
    cni_calls: tuple[dict[str, Any], ...] = ()


class LabState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One lab. Change it with `msgspec.structs.replace` and `write`.

    Attributes:
        name: The lab's name.
        phase: `building` while `up` works, `ready` afterwards, `failed` when a broken lab was kept on purpose,
            `removing` once `down` has begun.
        step: What was being done when the file was written.
        created_s: Unix time.
        command_pid: The command that changed the lab last; it may have ended.
        owner: The command that will take the lab down again (`weavelab run`); None when it stays until `down`.
        topology: The topology with its defaults filled in.
        topology_file: Where it came from, as the user wrote it.
        netns_names: Every entry below /run/netns that the lab makes.
        processes: The agents, once they were started.
        pods: The pods that are attached, by name.
        pods_unfinished: Pods that a command is making or deleting, and on which node: a killed one leaves them.
    """

    version: int = _STATE_VERSION
    name: str
    phase: Phase = "building"
    step: str = ""
    created_s: float
    command_pid: int
    owner: ProcessRecord | None = None
    topology: Topology
    topology_file: str = ""
    netns_names: tuple[str, ...] = ()
    processes: tuple[ProcessRecord, ...] = ()
    pods: dict[str, PodRecord] = {}
    pods_unfinished: dict[str, str] = {}


def new_state(
    paths: LabPaths, topology: Topology, *, topology_file: str, members: tuple[str, ...], owned: bool = False
) -> LabState:
    """The state of a lab that is about to be built; `owned` when it ends with the command that builds it."""
    command = processes.identify(os.getpid())
    assert command is not None, "a running process is in /proc"
    return LabState(
        name=paths.lab,
        step="begin",
        created_s=time.time(),
        command_pid=command.pid,
        owner=ProcessRecord(role="command", member="", pid=command.pid, start_ticks=command.start_ticks)
        if owned
        else None,
        topology=topology,
        topology_file=topology_file,
        netns_names=tuple(paths.netns_name(member).name for member in members),
    )


def is_abandoned(paths: LabPaths, state: LabState) -> bool:
    """Whether a lab that was up is only a leftover: its command was killed, or the machine was started anew."""
    if state.owner is not None and not processes.is_alive(ProcessId(state.owner.pid, state.owner.start_ticks)):
        return True
    return not processes.namespace_ids(paths.pins.glob("*"))


def write(paths: LabPaths, state: LabState) -> None:
    """Replace the lab's state file.

    Raises:
        MissingError: The folder is read-only or the disk is full.
    """
    temporary = paths.state_file.with_suffix(".new")
    try:
        temporary.write_bytes(msgspec.json.encode(state))
        temporary.replace(paths.state_file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise unwritable(paths, error) from error


def read(paths: LabPaths) -> LabState | None:
    """The lab's state, or None when there is no such lab.

    Raises:
        CheckError: The file cannot be read or understood (written by another version, or damaged by hand).
    """
    try:
        return msgspec.json.decode(paths.state_file.read_bytes(), type=LabState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckError(
            f"the state of lab {paths.lab} cannot be read: {paths.state_file}: {said_by(error)}",
            hint=f"`weavelab down {paths.lab}` removes the lab without it",
        ) from error


def labs() -> list[str]:
    """The names of all labs that have a directory: running, half-built or half-removed."""
    try:
        return sorted(entry.name for entry in RUN.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def ready_labs() -> list[str]:
    """The names of the labs that are up."""
    found = []
    for name in labs():
        with contextlib.suppress(CheckError):
            state = read(LabPaths(name))
            if state is not None and state.phase in {"ready", "failed"}:
                found.append(name)
    return found


def names_like(wanted: str) -> Iterator[str]:
    """`wanted`, then the same with a number behind it: for a lab that does not mind its name."""
    yield wanted
    for number in range(2, _LABS_MAX):
        suffix = f"-{number}"
        yield wanted[: NAME_LENGTH_MAX - len(suffix)].rstrip("-") + suffix


def choose_lab(name: str | None) -> str:
    """The lab a command means: the one that was named, else the only one that runs.

    Raises:
        InputError: No such lab, none at all, or several to choose from.
    """
    running = ready_labs()
    if name is not None:
        if name in running:
            return name
        raise InputError(f"no lab named {name} is up", hint=_hint(running, name))
    if len(running) == 1:
        return running[0]
    if not running:
        raise InputError("no lab is up", hint=_hint(running))
    raise InputError(
        f"several labs are up: {', '.join(running)}",
        hint=f"say which one: `exec --lab {running[0]} ...`, `cli {running[0]}`",
    )


def no_such_lab(name: str) -> NoSuchLabError:
    """What to say of a name that no lab has, whatever state it might be in."""
    return NoSuchLabError(f"no lab named {name} is up", hint=hint(name, labs(), there_is="up:"))


def _hint(running: list[str], name: str = "") -> str:
    if running:
        return hint(name, running, there_is="up:")
    return f"bring one up: {our_command()} up topologies/two-nodes.yaml"


@contextlib.contextmanager
def locked(paths: LabPaths, *, create: bool = False, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lab's lock: at most one command changes a lab at a time.

    Args:
        paths: Which lab.
        create: Make its directory when it is absent.
        wait_s: How long to wait for another command to finish.

    Raises:
        NoSuchLabError: The lab does not exist (and `create` is false).
        BusyError: Another command is still changing it after `wait_s`.
        MissingError: The directory cannot be made.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        fd = _open_directory(paths, create=create)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise _busy(paths) from None
                time.sleep(0.05)
                continue
            # A `down` may have removed the directory between open and lock: then this is a lock on nothing.
            if not _is_still(paths, fd):
                continue
            yield
            return
        finally:
            os.close(fd)


def _open_directory(paths: LabPaths, *, create: bool) -> int:
    try:
        if create:
            paths.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(paths.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise no_such_lab(paths.lab) from None
    except OSError as error:
        raise unwritable(paths, error) from error


def _is_still(paths: LabPaths, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), paths.directory.stat())
    except FileNotFoundError:
        return False


def _busy(paths: LabPaths) -> WeaveError:
    who = ""
    with contextlib.suppress(CheckError):
        state = read(paths)
        if state is not None:
            who = f" (pid {state.command_pid})"
    return BusyError(
        f"another weavelab command{who} is changing lab {paths.lab}", hint="wait for it, or end it with Ctrl-C there"
    )


def unwritable(paths: LabPaths, error: OSError) -> WeaveError:
    """What to say when nothing can be written into a lab's folder."""
    return MissingError(
        f"wanted to write below {paths.directory}, found: {said_by(error, path=False)}",
        hint=f"weavelab keeps its state there: it needs root, a writable {RUN.parent} and free space (df {RUN.parent})",
    )
