"""Who uses a lab: the commands that are in the middle of something there, so that `down` does not pull it from under
them unasked.

    /run/weavelab/<lab>/users/<pid>-<start>.json     what the command is; the command holds a flock on the file

A user is a process that lives: the kernel lets go of its lock when it ends, however it ends. A file that nobody holds
was left by a killed command and counts for nothing. Agents, runtimes and what runs inside a lab (`weavelab exec`) are
no users: they are part of the lab and end with it.
"""

import contextlib
import fcntl
import os
import pwd
import shlex
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.lab import state
from testbed.lab.paths import LabPaths
from testbed.machine import processes
from testbed.machine.processes import ProcessId

_LEAVE_S: Final = 30.0
"""How long a command that is sent away may take: a run takes its lab down and stops what it has started."""

_LOCK_WAIT_S: Final = 10.0
_LOOK_S: Final = 0.02
_ASK_AGAIN_S: Final = 0.5
_COMMAND_CHARACTERS: Final = 100
_RECORD_BYTES_MAX: Final = 4096


class UserRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A command that uses a lab.

    Attributes:
        command: As it was typed.
        pid: Its process.
        start_ticks: Tells that process from a later one with the same pid.
        person: Who started it.
        since_s: Unix time.
        sent_away_by: The command that takes the lab from under it; empty as long as nobody does.
    """

    command: str
    pid: int
    start_ticks: int
    person: str
    since_s: float
    sent_away_by: str = ""

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since_s))
        return f"`{self.command}` (pid {self.pid}, of {self.person}, since {since})"

    @property
    def process(self) -> ProcessId:
        """The process."""
        return ProcessId(self.pid, self.start_ticks)

    @property
    def file_name(self) -> str:
        """What its file is called."""
        return f"{self.pid}-{self.start_ticks}.json"


class InUseError(InputError):
    """A lab is not taken down because commands use it."""

    def __init__(self, lab: str, found: Sequence[UserRecord]) -> None:
        super().__init__(
            f"lab {lab} is in use: {', '.join(map(str, found))}",
            hint=f"end it there; or `weavelab down {lab} --force` takes the lab from under it",
        )


class TakenDownError(CheckError):
    """Somebody took the lab down under this command, on purpose."""

    def __init__(self, lab: str, by: str) -> None:
        super().__init__(f"lab {lab} was taken down by {by}")


class Use:
    """This command's use of one lab. As a context manager it ends with the block.

    A block that ends because the command was sent away raises `TakenDownError` in the place of the interruption.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._record: UserRecord | None = None
        self._paths: LabPaths | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        farewell = self.farewell()
        self.end()
        if farewell is not None and isinstance(error, KeyboardInterrupt):
            raise farewell from None

    @property
    def lab(self) -> str:
        """The lab that is used, or was; empty before `begin`."""
        return self._paths.lab if self._paths is not None else ""

    def attach(self, paths: LabPaths) -> None:
        """Use a lab that is up. Where nothing can be written it is used unseen: a full disk has to be looked into.

        Raises:
            InputError: It has just gone.
            CheckError: Another command is changing it, for longer than we wait.
        """
        with state.locked(paths, wait_s=_LOCK_WAIT_S), contextlib.suppress(MissingError):
            self.begin(paths)

    def begin(self, paths: LabPaths) -> None:
        """Use a lab whose lock the caller holds; it cannot go away before everybody sees this.

        Raises:
            MissingError: Nothing can be written there.
        """
        self.end()
        record = _record_of_this_process()
        file = paths.users / record.file_name
        new = file.with_suffix(".new")  # a file of the other name is held from its first moment
        try:
            paths.users.mkdir(mode=0o700, exist_ok=True)
            self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.write(self._fd, msgspec.json.encode(record))
            new.rename(file)
        except OSError as error:
            self.end()
            with contextlib.suppress(OSError):
                new.unlink()
            raise state.unwritable(paths, error) from error
        self._record, self._paths = record, paths

    def end(self) -> None:
        """Use it no longer."""
        if self._fd is None:
            return
        if self._paths is not None and self._record is not None:
            with contextlib.suppress(OSError):  # the lab may be gone, and the folder with it
                (self._paths.users / self._record.file_name).unlink()
        os.close(self._fd)
        self._fd = None

    def farewell(self) -> TakenDownError | None:
        """Why this command has to end, when somebody takes the lab from under it; None otherwise."""
        if self._fd is None:
            return None
        try:
            said = msgspec.json.decode(os.pread(self._fd, _RECORD_BYTES_MAX, 0), type=UserRecord)
        except (OSError, msgspec.DecodeError):
            return None
        return TakenDownError(self.lab, said.sent_away_by) if said.sent_away_by else None


def users_of(paths: LabPaths) -> tuple[UserRecord, ...]:
    """The commands that use a lab now, this one left out; what killed commands left is removed."""
    found = []
    try:
        files = sorted(paths.users.glob("*.json"))
    except OSError:
        return ()
    for file in files:
        with contextlib.suppress(OSError, msgspec.DecodeError):  # it has just ended
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not _is_held(fd):
                    file.unlink()
                    continue
                record = msgspec.json.decode(os.pread(fd, _RECORD_BYTES_MAX, 0), type=UserRecord)
            finally:
                os.close(fd)
            if record.pid != os.getpid():
                found.append(record)
    return tuple(found)


def send_away(paths: LabPaths, found: Sequence[UserRecord], *, wait_s: float = _LEAVE_S) -> None:
    """End other commands' use of a lab: each is told who wants it, asked to end, and at last killed.

    Returns when none of them uses the lab any more; a command may still be writing its report then.
    """
    by = _record_of_this_process()
    for record in found:
        with contextlib.suppress(OSError):  # it has just ended
            _tell(paths, record, f"`{by.command}` (pid {by.pid}, of {by.person})")
    deadline_s = time.monotonic() + wait_s
    ask_again_s = 0.0
    asked = {record.process for record in found}
    while left := asked & {record.process for record in users_of(paths)}:
        if time.monotonic() > deadline_s:
            processes.end(left, grace_s=0.0, kill=True)
            return
        if time.monotonic() > ask_again_s:
            # More than once: a prompt that was just about to wait for keys hears of a signal with the next key only.
            processes.ask_to_end(left)
            ask_again_s = time.monotonic() + _ASK_AGAIN_S
        time.sleep(_LOOK_S)


def _tell(paths: LabPaths, record: UserRecord, by: str) -> None:
    fd = os.open(paths.users / record.file_name, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # In place: the command that holds the file reads it through its own descriptor.
        said = msgspec.json.encode(msgspec.structs.replace(record, sent_away_by=by))
        os.pwrite(fd, said, 0)
        os.ftruncate(fd, len(said))
    finally:
        os.close(fd)


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _record_of_this_process() -> UserRecord:
    process = processes.identify(os.getpid())
    assert process is not None, "a running process is in /proc"
    command = shlex.join(["weavelab", *sys.argv[1:]])
    if len(command) > _COMMAND_CHARACTERS:
        command = command[: _COMMAND_CHARACTERS - 3] + "..."
    return UserRecord(
        command=command,
        pid=process.pid,
        start_ticks=process.start_ticks,
        person=_person(),
        since_s=time.time(),
    )


def _person() -> str:
    """Who is at the keyboard: sudo knows them by name."""
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
