"""Mounts of the machine that a lab makes: reading the mount table, pinning a namespace at a path, letting go of it.

Everything here acts in the calling thread's mount namespace and is safe to repeat: what is there already is kept, what
is gone already is no error. Source of the format: proc_pid_mountinfo(5).
"""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from plugin.link import netns
from testbed.lab.paths import NETNS, RUN

MS_SHARED: Final = 0x10_0000
SOURCE: Final = "weavelab"
"""What the mount table shows as the source of our tmpfs."""

_OURS: Final = RUN / ".made-netns-directory"
"""Exists when /run/netns was made by us: then it goes away with the last lab, unless somebody else uses it by then."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A line of the mount table; `source` is what was given as such: a device, or a word."""

    point: Path
    kind: str
    source: str


def mount_table(text: str | None = None) -> list[Mount]:
    """Every mount of the calling thread's mount namespace, in mount order (a path may occur twice: stacked).

    Args:
        text: The text of a mountinfo file; the calling thread's own when None.
    """
    if text is None:
        text = Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    table = []
    for line in text.splitlines():
        before, _, behind = line.partition(" - ")
        kind, source = behind.split(" ", 2)[:2]
        table.append(Mount(Path(_unescaped(before.split(" ", 5)[4])), kind, _unescaped(source)))
    return table


def mount_points() -> list[Path]:
    """The mount points of `mount_table`."""
    return [mount.point for mount in mount_table()]


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda code: chr(int(code[1], 8)), text)


def _is_mount_point(path: Path) -> bool:
    """Whether something is mounted exactly at `path`, as seen now.

    The mount table also lists what is concealed by a later mount, and a folder bound to itself has the device of its
    parent: only the number of the mount that a path leads to tells (proc_pid_fdinfo(5)).
    """
    try:
        return mount_id(path) != mount_id(path.parent)
    except FileNotFoundError:
        return False


def mount_id(path: Path) -> int:
    """The kernel's number of the mount that `path` leads to."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        text = Path(f"/proc/thread-self/fdinfo/{fd}").read_text(encoding="ascii")
    finally:
        os.close(fd)
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("mnt_id:"))


def pin(fd: int, path: Path) -> None:
    """Bind the namespace behind `fd` to `path`, a file that is made here.

    Raises:
        OSError: The path exists (somebody else's), or the kernel refused.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    netns.mount(f"/proc/thread-self/fd/{fd}", path, flags=netns.MS_BIND)


def release(path: Path) -> None:
    """Undo `pin`, however often something was bound there; a path that is gone is fine.

    Raises:
        OSError: The path is there and does not go away.
    """
    detach(path)
    path.unlink(missing_ok=True)


def detach(path: Path) -> None:
    """Unmount everything stacked on `path` and below, lazily: busy users keep what they have until they end."""
    while True:
        try:
            netns.umount(path, netns.MNT_DETACH)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:  # no mount point; no such path
                return
            raise


@contextlib.contextmanager
def netns_directory() -> Iterator[None]:
    """Within the block /run/netns is there, as `ip netns` makes it, and no other lab takes names in it or removes it.

    It is a shared mount of its own: were it a plain directory, the first `ip netns add` of somebody else would mount
    over it, and what we had bound there could neither be reached nor released by its path any more.

    Raises:
        OSError: The kernel refused.
    """
    with _netns_lock():
        if not _is_mount_point(NETNS):
            _make_netns_directory()
        yield


def _make_netns_directory() -> None:
    if NETNS.is_dir():
        netns.mount(str(NETNS), NETNS, flags=netns.MS_BIND | netns.MS_REC)
    else:
        NETNS.mkdir(mode=0o755, parents=True)
        _OURS.touch()
        # In memory: where /run lies on a disk (a container), making hundreds of names there takes its time.
        netns.mount("tmpfs", NETNS, "tmpfs", options="mode=0755")
    netns.mount("none", NETNS, flags=MS_SHARED | netns.MS_REC)


def drop_netns_directory() -> None:
    """Remove /run/netns if we made it, no lab is left, and nobody has anything in it."""
    with contextlib.suppress(OSError), _netns_lock():
        if not _OURS.exists() or any(entry.is_dir() for entry in RUN.iterdir()):
            return
        # Where something is in it, or comes in between (ENOTEMPTY, EBUSY), it is theirs now; a command that was killed
        # here may have left any part of this undone.
        with contextlib.suppress(OSError):
            if not any(NETNS.iterdir()):
                netns.umount(NETNS)  # without MNT_DETACH: EBUSY when something is mounted below
        with contextlib.suppress(OSError):
            NETNS.rmdir()
        _OURS.unlink()


def _netns_lock() -> contextlib.AbstractContextManager[None]:
    """Nobody else of us makes or removes /run/netns meanwhile: a lock on /run, which everybody sees alike."""
    return alone(NETNS.parent)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Nobody else of us is in a block for that directory meanwhile, in whatever thread or process."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
