"""Namespaces and mounts: the few system calls that Python 3.11's `os` does not offer, and safe ways to use them.

A namespace belongs to a *thread*. `entered` therefore changes the calling thread only and always changes it back;
whoever needs to stay inside (a worker that builds a node) uses a thread of its own and lets it end.

Sources: namespaces(7), setns(2), unshare(2), mount(2); flag values from include/uapi/linux/sched.h and mount.h.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000
CLONE_FS: Final = 0x0000_0200

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x4_0000
MNT_DETACH: Final = 0x2

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (`CLONE_NEW*`), or its own cwd and root (`CLONE_FS`).

    Raises:
        OSError: The kernel refused; EPERM means that root is needed.
    """
    _check(_LIBC.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Move the calling thread into the namespace behind `fd`; `flags` names its kind.

    Raises:
        OSError: The kernel refused, for example because `fd` is no namespace (EINVAL).
    """
    _check(_LIBC.setns(fd, flags), "setns")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Attach a file system in the mount namespace of the calling thread, as the mount system call does.

    Raises:
        OSError: With the target in its text.
    """
    result = _LIBC.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(result, f"mount on {target}")


def umount(target: Path, flags: int = 0) -> None:
    """Call umount2(2); `MNT_DETACH` lets go of a busy mount when its last user ends.

    Raises:
        OSError: EINVAL when `target` is no mount point.
    """
    _check(_LIBC.umount2(os.fsencode(target), flags), f"umount {target}")


def sethostname(name: str) -> None:
    """Set the host name of the calling thread's UTS namespace.

    Raises:
        OSError: The kernel refused.
    """
    encoded = name.encode()
    _check(_LIBC.sethostname(encoded, len(encoded)), "sethostname")


def current(kind: str) -> int:
    """A descriptor of the calling thread's own namespace; `kind` is `net`, `mnt` or `uts`. The caller closes it."""
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def open_netns(path: Path | str) -> int:
    """A descriptor of the namespace bound at `path`. The caller closes it.

    Raises:
        OSError: The path is absent or cannot be opened.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def same_namespace(one: int, other: int) -> bool:
    """Whether two descriptors name the same namespace: nsfs gives every namespace one inode."""
    left, right = os.fstat(one), os.fstat(other)
    return (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino)


@contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """The calling thread is inside the network namespace for the length of the block, and back afterwards.

    Raises:
        OSError: `netns_fd` is not a network namespace.
    """
    home = current("net")
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)


@contextmanager
def new_netns() -> Iterator[int]:
    """A fresh, unnamed network namespace as a descriptor; it lives as long as the block, or as something in it."""
    home = current("net")
    try:
        unshare(CLONE_NEWNET)
        try:
            fd = current("net")
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
    try:
        yield fd
    finally:
        os.close(fd)


def write_sysctl(name: str, value: str) -> None:
    """Write a sysctl of the calling thread's network namespace; `name` has slashes (`net/ipv4/ip_forward`).

    Raises:
        OSError: The key is absent on this kernel or refuses the value.
    """
    fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def read_sysctl(name: str) -> str:
    """A sysctl of the calling thread's network namespace; `name` as above.

    Raises:
        OSError: The key is absent on this kernel.
    """
    return Path(f"/proc/sys/{name}").read_text(encoding="ascii").strip()
