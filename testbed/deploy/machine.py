"""What an installation needs of a real machine: files below a root, and programs. `LocalMachine` is this one.

`ssh.SshMachine` is another one, reached over SSH. Nothing here knows what is installed; it decides only how a file is
written so that it is there whole or not at all: a runtime may be about to execute it, and the power may go.
"""

import contextlib
import enum
import errno
import fcntl
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from plugin.core.errors import MissingError, said_by
from testbed.deploy.transport import DeployError

_LINKS_MAX: Final = 40
"""Symbolic links on the way to one file, as in the kernel (path_resolution(7))."""


class Kind(enum.Enum):
    """What a path leads to; a symbolic link is not followed."""

    ABSENT = "nothing"
    FILE = "a file"
    FOLDER = "a folder"
    OTHER = "a symbolic link or a device"


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path.

    Attributes:
        kind: Its kind.
        digest: SHA-256 of a file's content, in hex; empty for anything else.
        mode: A file's permissions.
    """

    kind: Kind
    digest: str = ""
    mode: int = 0


NOTHING: Final = Found(Kind.ABSENT)


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended, and what it said on standard output and error together."""

    code: int
    text: str


class Machine(Protocol):
    """A machine, or a folder that will be one. Paths are absolute, as the machine itself sees them."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def live(self) -> bool:
        """Whether programs can be run there: not in a folder that a machine's files are gathered in."""

    def observe(self, path: str) -> Found:
        """What is at the path."""

    def read(self, path: str, *, bytes_max: int = -1) -> bytes | None:
        """A file's content, or its beginning, links followed; None when there is no such file."""

    def target(self, path: str) -> str:
        """Where a path leads when all links are followed."""

    def listing(self, folder: str) -> list[str]:
        """The names in a folder, sorted; empty when there is no such folder."""

    def make_folder(self, path: str) -> None:
        """Make a folder, whose parent exists."""

    def write(self, path: str, content: bytes, mode: int) -> None:
        """Write a file whole or not at all, by way of `temporary(path)`."""

    def move(self, path: str, to: str) -> None:
        """Give a file another name in its folder."""

    def remove(self, path: str) -> None:
        """Remove a file; one that is gone is fine."""

    def remove_folder(self, path: str) -> bool:
        """Remove a folder if it is empty; returns whether it is gone."""

    def settle(self) -> None:
        """Return when all that was written is on the disk."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Said:
        """Run a program there to its end. Exit code 127: there is none of that name."""

    def close(self) -> None:
        """Let go of it."""


def temporary(path: str) -> str:
    """Where a file is written before it gets its name: in the same folder, with a name that no runtime reads."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.weavelab"


def digest_of(content: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


class LocalMachine:
    """This machine, or a folder that is taken for the root of one (`root`).

    Args:
        root: "/", or a folder: then links lead where they would if it were the root, and nothing is run.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root.resolve()
        self.live = self._root == Path("/")

    @property
    def name(self) -> str:
        """See `Machine.name`."""
        return "this machine" if self.live else str(self._root)

    def observe(self, path: str) -> Found:
        """See `Machine.observe`."""
        with self._speaking("examine", path):
            try:
                status = self._place(path).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return NOTHING
            if stat.S_ISDIR(status.st_mode):
                return Found(Kind.FOLDER)
            if not stat.S_ISREG(status.st_mode):
                return Found(Kind.OTHER)
            return Found(Kind.FILE, digest_of(self._place(path).read_bytes()), stat.S_IMODE(status.st_mode))

    def read(self, path: str, *, bytes_max: int = -1) -> bytes | None:
        """See `Machine.read`."""
        with self._speaking("read", path):
            try:
                with self._place(path, last=True).open("rb") as file:
                    return file.read(bytes_max)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def target(self, path: str) -> str:
        """See `Machine.target`."""
        with self._speaking("follow", path):
            below = resolve_below(self._root, path, last=True)
            return f"/{below.relative_to(self._root)}"

    def listing(self, folder: str) -> list[str]:
        """See `Machine.listing`."""
        with self._speaking("list", folder):
            try:
                return sorted(os.listdir(self._place(folder, last=True)))  # noqa: PTH208 - names are wanted
            except (FileNotFoundError, NotADirectoryError):
                return []

    def make_folder(self, path: str) -> None:
        """See `Machine.make_folder`."""
        with self._speaking("make the folder", path):
            place = self._place(path)
            place.mkdir(mode=0o755)
            _sync_folder(place.parent)

    def write(self, path: str, content: bytes, mode: int) -> None:
        """See `Machine.write`."""
        with self._speaking("write", path):
            place = self._place(path)
            new = place.with_name(Path(temporary(path)).name)
            try:
                _write_synced(new, content, mode)
                new.replace(place)
            except OSError:
                with contextlib.suppress(OSError):
                    new.unlink()
                raise
            _sync_folder(place.parent)

    def move(self, path: str, to: str) -> None:
        """See `Machine.move`."""
        with self._speaking("move", path):
            place = self._place(path)
            place.rename(place.with_name(Path(to).name))
            _sync_folder(place.parent)

    def remove(self, path: str) -> None:
        """See `Machine.remove`."""
        with self._speaking("remove", path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._place(path).unlink()

    def remove_folder(self, path: str) -> bool:
        """See `Machine.remove_folder`."""
        with self._speaking("remove the folder", path):
            try:
                self._place(path).rmdir()
            except (FileNotFoundError, NotADirectoryError):
                return True
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
                    return False
                raise
            return True

    def settle(self) -> None:
        """See `Machine.settle`: every file is on the disk when `write` returns."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Said:
        """See `Machine.run`."""
        assert self.live, "nothing is run in a folder"
        try:
            done = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", timeout=timeout_s, check=False, cwd="/",
            )  # fmt: skip
        except (FileNotFoundError, PermissionError) as error:
            return Said(127, f"{argv[0]}: {said_by(error, path=False)}")
        except subprocess.TimeoutExpired:
            return Said(124, f"no end within {timeout_s:g} s")
        return Said(done.returncode, done.stdout.strip())

    def close(self) -> None:
        """See `Machine.close`: nothing is held."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other installation changes this machine meanwhile.

        Raises:
            DeployError: One does.
        """
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise DeployError(f"another `weavelab deploy` is at work on {self.name}", hint="wait for its end") from None
        finally:
            os.close(fd)

    def _place(self, path: str, *, last: bool = False) -> Path:
        """Where a path of the machine is here; `last`: a link at its very end is followed, too."""
        if self.live:
            return Path(path)
        return resolve_below(self._root, path, last=last)

    @contextlib.contextmanager
    def _speaking(self, doing: str, path: str) -> Iterator[None]:
        """Turn what the system says into our error."""
        try:
            yield
        except OSError as error:
            raise MissingError(
                f"wanted to {doing} {path} on {self.name}, found: {said_by(error, path=False)}",
                hint=_HINTS.get(error.errno or 0, "see what is there: ls -ld"),
            ) from error


_HINTS: Final = {
    errno.EACCES: "become root (sudo), or choose another --root",
    errno.EPERM: "become root (sudo); is the file immutable (lsattr)?",
    errno.EROFS: "make the file system writable, then give the same command again",
    errno.ENOSPC: "make room on the disk, then give the same command again",
    errno.ENOENT: "see that the folder is there",
}


def resolve_below(root: Path, path: str, *, last: bool) -> Path:
    """Where a path leads if `root` were the root: a link to /usr/lib stays below it.

    Args:
        root: The folder that is taken for the root.
        path: Absolute.
        last: Whether a link at the very end is followed, too.

    Raises:
        OSError: Links that lead in a circle.
    """
    waiting = [part for part in path.split("/") if part not in {"", "."}]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        if (waiting or last) and here.is_symlink():
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(here)  # noqa: PTH115 - as text, for it may be absolute
            if target.startswith("/"):
                done = []
            waiting[:0] = [piece for piece in target.split("/") if piece not in {"", "."}]
            continue
        done.append(part)
    return root.joinpath(*done)


def _write_synced(path: Path, content: bytes, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of a killed command; and never write through a link that somebody has put there
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(content)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)


def _sync_folder(path: Path) -> None:
    """Without this a power cut can take the new name back."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
