"""The state folder, treated like an object of the kernel: others can delete, replace, fill or lock it under the agent.

All that is in it is known in memory as well: whole files (`replace`) and one log, which only grows (`append`) until it
is written anew. Of each file its mark is remembered, by which the kernel tells a file that nobody else touched. So
`look`, a few calls of stat, finds within a second what `append` does not find at once, and `renew` writes all again.

It knows nothing of what the files say (plugin/agent/store.py does), and decides not when to look (state_keeper.py).
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from plugin.core.errors import InputError, MissingError, said_by

_ROOM_MIN_BYTES: Final = 32 << 10
"""With less room than this the file system counts as full: the next ring of a large cluster would not fit."""


class _Mark(NamedTuple):
    """What changes when anybody touches a file, but not when it is read."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class Folder:
    """One directory, locked against other agents for as long as it is open, also after a crash.

    Args:
        path: The directory; it is made when it is missing.
        log_name: The file that grows.
        log_now: What that file has to say now, in as few lines as possible.

    Raises:
        MissingError: It cannot be made or written.
        InputError: Another agent uses it.
    """

    def __init__(self, path: Path, log_name: str, log_now: Callable[[], bytes]) -> None:
        self._path, self._text = path, str(path)
        self._log_name = log_name
        self._log_now = log_now
        self._files: dict[str, bytes] = {}
        self._marks: dict[str, _Mark] = {}
        self._failure = ""
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            try:
                self._log = os.open(self.of(log_name), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                os.close(self._lock)
                raise
        except OSError as error:
            raise unwritable(self.of(log_name), error) from error
        self._marks[log_name] = _mark(os.fstat(self._log))

    def of(self, name: str) -> Path:
        """Where a file is."""
        return self._path / name

    def close(self) -> None:
        """Release the files and the directory."""
        os.close(self._log)
        os.close(self._lock)

    # --- whole files ------------------------------------------------------------------------------------------------
    def read(self, name: str) -> bytes | None:
        """What a file says, or None when there is none; from now on somebody who changes it is noticed."""
        if name not in self._files:
            try:
                data = self.of(name).read_bytes()
                self._marks[name] = _mark(self.of(name).stat())
            except FileNotFoundError:
                return None
            self._files[name] = data
        return self._files[name]

    def replace(self, name: str, data: bytes) -> None:
        """A file as a whole, old or new, also after a power cut.

        Raises:
            MissingError: It cannot be written; the old text stands.
        """
        try:
            self._write(name, data)
        except FileNotFoundError:
            self.renew()  # the directory was deleted
            try:
                self._write(name, data)
            except OSError as error:
                raise self._failed(name, error) from error
        except OSError as error:
            raise self._failed(name, error) from error
        self._files[name] = data

    def forget(self, name: str) -> None:
        """A file is not wanted any more."""
        self._files.pop(name, None)
        self._marks.pop(name, None)
        self.of(name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> Path:
        """A file makes no sense any more; where it is kept for people."""
        self._files.pop(name, None)
        self._marks.pop(name, None)
        aside = self.of(name).with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            self.of(name).replace(aside)
        return aside

    # --- the log ------------------------------------------------------------------------------------------------------
    def append(self, data: bytes, *, durably: bool) -> bool:
        """Write to the end of the log; `durably` also for a power cut.

        Returns:
            Whether the log is where it has to be and holds what was written before: else only `renew` makes it hold
            anything.

        Raises:
            MissingError: The disk is full or read-only; nothing has changed.
        """
        before = os.fstat(self._log)
        try:
            _write_all(self._log, data)
            if durably:
                os.fdatasync(self._log)
        except OSError as error:
            with contextlib.suppress(OSError):  # a file system that became read-only has taken no half line
                os.ftruncate(self._log, before.st_size)  # half a line must not swallow the next one
                self._marks[self._log_name] = _mark(os.fstat(self._log))
            raise self._failed(self._log_name, error) from error
        untouched = _mark(before) == self._marks[self._log_name]
        now = os.fstat(self._log)
        if untouched:
            self._marks[self._log_name] = _mark(now)
        try:
            there = self.of(self._log_name).stat()
        except OSError:
            return False
        return untouched and (there.st_dev, there.st_ino) == (now.st_dev, now.st_ino)

    def rewrite_log(self) -> None:
        """Write what the log has to say now to a new file and put it in the old one's place.

        Raises:
            MissingError: It cannot be written; the old one serves on.
        """
        try:
            self._write_log()
        except OSError as error:
            raise unwritable(self.of(self._log_name), error) from error

    # --- what others do to it -----------------------------------------------------------------------------------------
    def look(self) -> str:
        """What `renew` would mend, in a sentence; empty when all is well. Costs a dozen calls of stat."""
        try:
            there, held = os.stat(self._text), os.fstat(self._lock)  # noqa: PTH116 - ten times cheaper, every second
            if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
                return f"{self._path} was replaced by another folder"
            for name, mark in self._marks.items():
                if (found := self._look_at(name, mark)) is not None:
                    return found
        except FileNotFoundError:
            return f"{self._path} was deleted"
        except OSError as error:
            return f"{self._path} cannot be read: {said_by(error, path=False)}"
        return self._failure

    def renew(self) -> None:
        """Write everything that is to be remembered again, durably, whatever is there now.

        Raises:
            MissingError: It cannot be written.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._lock_anew()
            for name, data in self._files.items():
                self._write(name, data)
            self._write_log()
            _sync(self._path.parent)
        except OSError as error:
            raise self._failed(self._log_name, error) from error
        self._failure = ""

    def _look_at(self, name: str, mark: _Mark) -> str | None:
        try:
            now = _mark(os.stat(f"{self._text}/{name}"))  # noqa: PTH116 - as in `look`
        except FileNotFoundError:
            return f"{self.of(name)} was deleted"
        return None if now == mark else f"{self.of(name)} was changed by another program"

    def room(self) -> str:
        """Why the file system takes no more, as far as it says; empty when it does."""
        found = os.statvfs(self._lock)
        if found.f_flag & os.ST_RDONLY:
            return f"{self._path} is read-only"
        if found.f_blocks and found.f_bfree * found.f_frsize < _ROOM_MIN_BYTES:
            return f"the file system of {self._path} is full: {found.f_bfree * found.f_frsize} bytes are left"
        if found.f_files and not found.f_ffree:
            return f"the file system of {self._path} is full: it takes no more files"
        return ""

    def _failed(self, name: str, error: OSError) -> MissingError:
        """Remembered until everything was written anew: what the kernel had in memory may be lost."""
        self._failure = f"{self.of(name)} cannot be written: {error.strerror or error}"
        return unwritable(self.of(name), error)

    def _lock_anew(self) -> None:
        there, held = self._path.stat(), os.fstat(self._lock)
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            try:
                lock = _locked(self._path)
            except InputError as error:
                raise OSError(errno.EBUSY, error.message) from error
            os.close(self._lock)
            self._lock = lock

    def _write(self, name: str, data: bytes) -> None:
        temporary = self.of(name).with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            try:
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(self.of(name))
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        # Without this a power cut can bring the old file back.
        _sync(self._path)
        self._marks[name] = _mark(self.of(name).stat())

    def _write_log(self) -> None:
        path = self.of(self._log_name)
        temporary = path.with_suffix(".new")
        fd = os.open(temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, self._log_now())
            os.fsync(fd)
            temporary.replace(path)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        os.close(self._log)
        self._log = fd
        _sync(self._path)
        self._marks[self._log_name] = _mark(os.fstat(fd))


def unwritable(path: Path, error: OSError) -> MissingError:
    """What a person is told when the disk takes nothing."""
    return MissingError(
        f"the agent's state {path} cannot be written: {error.strerror}",
        hint="free disk space or make the file system writable; no address is given out that cannot be remembered",
    )


def _mark(found: os.stat_result) -> _Mark:
    return _Mark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _locked(directory: Path) -> int:
    """A descriptor that keeps other agents out of the directory for as long as it is open, also after a crash."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InputError(
            f"another agent uses the state directory {directory}", hint="one node has one agent; stop the other first"
        ) from None
    return fd


def _write_all(fd: int, data: bytes) -> None:
    """Write everything; a disk that takes only a part of it is full."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
