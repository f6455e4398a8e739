"""How to enter a node, a pod, a router: run a program there, a Python function, or open a packet socket.

A namespace belongs to a thread. Everything here uses a short-lived thread that enters the space, acts, and ends, so the
caller's own thread never moves, and a child process is simply born inside (no nsenter, no shell).
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from plugin.link import netns
from testbed.machine import interrupts

T = TypeVar("T")

_CGROUP: Final = Path("/sys/fs/cgroup")
_ETH_P_ALL: Final = 0x0003
_KINDS: Final = (("uts", netns.CLONE_NEWUTS), ("mnt", netns.CLONE_NEWNS), ("net", netns.CLONE_NEWNET))


@dataclass(frozen=True, slots=True)
class Space:
    """The namespaces of one member of a lab, as paths under which they are pinned.

    Attributes:
        name: Who lives there: a node, pod or router.
        net: Its network namespace.
        mnt: Its mount namespace, or None to keep the caller's.
        uts: Its host name, or None to keep the caller's.
        own_sysfs: Whether `mnt` is somebody else's, whose /sys shows other devices. Who enters then gets a copy of that
            namespace with a /sys of `net`; the copy goes with the last process in it.
    """

    name: str
    net: Path
    mnt: Path | None = None
    uts: Path | None = None
    own_sysfs: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left behind.

    Attributes:
        argv: What was run.
        returncode: Its exit code; negative for the signal that ended it.
        stdout: Its output; bytes that are no UTF-8 are replaced.
        stderr: Its error output.
        seconds: How long it ran.
        timed_out: Whether the deadline ended it.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool


def enter(space: Space) -> None:
    """Move the calling *thread* into `space`, for good. Use it in a thread (or process) that ends there.

    Raises:
        OSError: A namespace of the space is gone.
    """
    # All descriptors are opened before the first step: afterwards the paths may mean something else.
    descriptors: list[tuple[int, int]] = []
    try:
        for kind, flag in _KINDS:
            path = getattr(space, kind)
            if path is not None:
                descriptors.append((netns.open_netns(path), flag))
        if space.mnt is not None:
            netns.unshare(netns.CLONE_FS)  # setns(CLONE_NEWNS) refuses a thread that shares its cwd with others
        for fd, flag in descriptors:
            netns.setns(fd, flag)
        if space.own_sysfs:
            # What is mounted here stays here: mounts of emulated hosts are private (nodespace), and so are copies.
            netns.unshare(netns.CLONE_NEWNS)
            mount_sysfs()
    finally:
        for fd, _ in descriptors:
            os.close(fd)


def mount_sysfs() -> None:
    """Mount a /sys that shows the devices of the calling thread's network namespace; cgroups are the machine's."""
    cgroup = os.open(_CGROUP, os.O_PATH | os.O_CLOEXEC) if _CGROUP.is_dir() else None
    netns.mount("sysfs", Path("/sys"), "sysfs", netns.MS_NOSUID | netns.MS_NODEV | netns.MS_NOEXEC)
    if cgroup is not None:
        netns.mount(f"/proc/thread-self/fd/{cgroup}", _CGROUP, flags=netns.MS_BIND | netns.MS_REC)
        os.close(cgroup)


def host_name(name: str) -> int:
    """A descriptor of a new UTS namespace in which the host is called `name`; the caller closes it.

    Raises:
        OSError: The kernel refused.
    """

    def apart() -> int:
        netns.unshare(netns.CLONE_NEWUTS)
        netns.sethostname(name)
        return netns.current("uts")

    return in_thread(f"naming-{name}", apart)


def call(space: Space, function: Callable[[], T]) -> T:
    """Run `function` in a thread inside `space` and hand back its result or its exception.

    Raises:
        OSError: The space cannot be entered.
    """

    def inside() -> T:
        enter(space)
        return function()

    return in_thread(f"in-{space.name}", inside)


def in_thread(name: str, function: Callable[[], T]) -> T:
    """Run `function` in a thread that may move to other namespaces; hand back its result or its exception.

    It has to be short: signals wait for its end.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread, nothing is swallowed
            failures.append(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    with interrupts.postponed():  # what the function makes must not come after a tear-down has begun
        thread.start()
        thread.join()
    if failures:
        raise failures[0]
    return results[0]


def spawn(space: Space, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program inside `space`; the options are those of `subprocess.Popen`.

    The child is in a session of its own unless the options say otherwise, so that a Ctrl-C at the terminal reaches our
    command, which then decides.

    Raises:
        OSError: The space or the program is absent.
    """
    options.setdefault("start_new_session", True)
    options.setdefault("cwd", "/")
    return call(space, lambda: subprocess.Popen(list(argv), **options))


def run(
    space: Space,
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program inside `space` to its end, at most `timeout_s` seconds; then its process group is killed.

    Raises:
        OSError: The space or the program is absent.
    """
    started_s = time.monotonic()
    process = spawn(
        space,
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
    )
    timed_out = False
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        kill_group(process)
        stdout, stderr = process.communicate()
    except BaseException:  # Ctrl-C: the child must not outlive us
        kill_group(process)
        process.wait()
        raise
    return Completed(
        argv=tuple(argv),
        returncode=process.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        seconds=time.monotonic() - started_s,
        timed_out=timed_out,
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End all that `spawn` started: the program may have ended already and left a child that holds its output open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def packet_socket(space: Space, ifname: str, *, receive_buffer_bytes: int = 4 << 20) -> socket.socket:
    """An AF_PACKET socket on `ifname` inside `space` that sees every frame, both directions. The caller closes it.

    Raises:
        OSError: No such interface, or not root.
    """

    def open_socket() -> socket.socket:
        # Protocol 0 keeps the socket deaf until bind names the interface: no frame of another one slips in before.
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            so_rcvbufforce = 33  # the limit of net.core.rmem_max does not bind root (socket(7))
            packet.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, receive_buffer_bytes)
            packet.bind((ifname, _ETH_P_ALL))
        except OSError:
            packet.close()
            raise
        return packet

    return call(space, open_socket)
