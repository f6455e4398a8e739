"""A command that has to live with less: capabilities taken away, system calls refused, another user.

What `start` is given as `confine` is called between fork and exec: what it takes away is gone for good there, and
nowhere else. Nothing needs to be installed: prctl(2), seccomp(2).
"""

import ctypes
import os
import platform
import signal
import struct
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

CAP_DAC_READ_SEARCH = 2
CAP_KILL, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 5, 12, 13, 18, 19, 21
NOBODY = 65534
UNSHARE = {"x86_64": 272, "aarch64": 97}.get(platform.machine())
MOUNT = {"x86_64": 165, "aarch64": 40}.get(platform.machine())

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 24, 38, 22, 2
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2
_CAPABILITY_VERSION_3 = 0x2008_0522
_LIBC = ctypes.CDLL(None, use_errno=True)


def without(*capabilities: int) -> Callable[[], None]:
    """Root loses what the bounding set lacks at its next execve(2): capabilities(7)."""

    def confine() -> None:
        for capability in capabilities:
            if _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_CAPBSET_DROP)")

    return confine


def as_nobody() -> None:
    """An ordinary user, who may read everything: this Python may lie in a folder of root's."""
    os.setgroups([])
    os.setgid(NOBODY)
    _LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setuid(NOBODY)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    reading = 1 << CAP_DAC_READ_SEARCH
    sets = struct.pack("6I", reading, reading, reading, 0, 0, 0)
    if (
        _LIBC.capset(header, sets) != 0
        or _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0) != 0
    ):
        raise OSError(ctypes.get_errno(), "capset")


def refusing(call: int) -> Callable[[], None]:
    """As a container's seccomp rules: the system call of that number gives EPERM, whatever the capabilities."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    refused, allowed = 0x0005_0000 | 1, 0x7FFF_0000
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 0),  # the number of the call
            (jump_if_equal, 0, 1, call),
            (answer, 0, 0, refused),
            (answer, 0, 0, allowed),
        )
    )

    def confine() -> None:
        text = ctypes.create_string_buffer(program)
        filter_ = struct.pack("HxxxxxxP", 4, ctypes.addressof(text))
        if (
            _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            or _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0) != 0
        ):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")

    return confine


def start(
    argv: Sequence[str], *, confine: Callable[[], None] = lambda: None, **options: Any
) -> "subprocess.Popen[str]":
    """Start a command that hears signals, as a shell does in the foreground, whatever the tests were started in."""

    def between() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        confine()

    return subprocess.Popen(argv, preexec_fn=between, text=True, **options)  # noqa: PLW1509 - no thread but this one
