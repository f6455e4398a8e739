"""What a command may do on this machine: asked before it begins, so that no lab is half built when the kernel refuses.

`check_machine` costs a look into /proc: every command that needs root calls it first. `try_kernel` does once what
making a lab does many times, in namespaces that are thrown away: it finds what capabilities do not tell (seccomp,
AppArmor). `refusal` is for what is refused all the same, later. Nothing here changes the machine.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugin.core.errors import MissingError, said_by
from plugin.link import netns
from testbed.machine.called import our_command
from testbed.machine.space import in_thread

_CAPABILITIES: Final = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
}
"""Those that labs need, with their bits (capability.h)."""

_WHOLE_MACHINE: Final = ["0", "0", "4294967295"]
"""The uid_map of a user namespace that is no container: every user is himself."""

_SCRATCH: Final = Path("/run")
"""What is mounted over for a moment, in a mount namespace that nobody else sees."""

_HOW_TO_GET_THEM: Final = (
    "a container has to be privileged (docker run --privileged); "
    "elsewhere leave out what took them away (capsh --drop, CapabilityBoundingSet= of a systemd unit), or use a VM"
)


@dataclass(frozen=True, slots=True)
class Work:
    """What a command is about to do.

    Attributes:
        what: In words that follow "to".
        capabilities: What the kernel asks for it.
    """

    what: str
    capabilities: tuple[str, ...]


LOOK: Final = Work("look into a lab", ("CAP_SYS_ADMIN",))
"""Its agents are asked over sockets that only root may open, its interfaces in their namespaces (setns(2))."""

CAPTURE: Final = Work("capture frames in a lab", ("CAP_NET_RAW", "CAP_SYS_ADMIN"))
"""Packet sockets, in the namespaces of its members."""

ENTER: Final = Work("enter a lab", ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT"))
"""A node has a mount namespace, and setns(2) takes both for that."""

REMOVE: Final = Work("take a lab down", ("CAP_KILL", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"))
"""Without CAP_SYS_PTRACE the namespaces of other users' processes are not seen, and those would outlive their lab."""

CHANGE: Final = Work(
    "make or change a lab",
    tuple(_CAPABILITIES),
)
"""All of these together: nodes, cables, the agents' sockets and rules, and the lab's end when something goes wrong."""


def check_machine(work: Work = CHANGE) -> None:
    """See that this process may do the work at all.

    Raises:
        MissingError: Not root, root of a user namespace, or root without the capabilities.
    """
    if os.geteuid() != 0:
        raise MissingError(
            f"weavelab needs root to {work.what}, found the user with the id {os.geteuid()}",
            hint=f"{our_command()} ... with the same words",
        )
    missing = _missing_capabilities(work)
    if missing:
        raise MissingError(
            f"weavelab needs {_listed(missing)} to {work.what}, found root without {'them' if missing[1:] else 'it'}",
            hint=_HOW_TO_GET_THEM,
        )
    if _proc("uid_map").split()[:3] != _WHOLE_MACHINE:
        raise MissingError(
            f"weavelab needs the machine's root to {work.what}, found root of a user namespace",
            hint="not in a rootless container or `unshare --user`: sudo docker run --privileged, or a VM",
        )


def _missing_capabilities(work: Work) -> tuple[str, ...]:
    """Those that this process lacks for it."""
    (line,) = (line for line in _proc("status").splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], base=16)
    return tuple(name for name in work.capabilities if not effective >> _CAPABILITIES[name] & 1)


def try_kernel() -> None:
    """Make the namespaces and mounts of a node once, and let go of them.

    Raises:
        MissingError: The kernel refused one of them, whatever our capabilities are.
    """
    try:
        in_thread("try-kernel", _make_and_forget)
    except PermissionError as error:
        raise refusal(error) from error
    except OSError:
        return  # a kernel without overlays, a full disk: who makes the lab tells it better


def _make_and_forget() -> None:
    """Unseen by others: all of it ends with the thread that is in these namespaces."""
    netns.unshare(netns.CLONE_NEWNET | netns.CLONE_NEWNS | netns.CLONE_NEWUTS)
    netns.mount("none", Path("/"), flags=netns.MS_REC | netns.MS_PRIVATE)
    netns.mount("none", _SCRATCH, "tmpfs")
    for name in ("lower", "upper", "work", "merged", "sys"):
        (_SCRATCH / name).mkdir()
    os.setxattr(_SCRATCH / "lower", "trusted.overlay.opaque", b"y")
    options = ",".join(f"{name}dir={_SCRATCH / name}" for name in ("lower", "upper", "work"))
    netns.mount("none", _SCRATCH / "merged", "overlay", options=options)
    netns.mount("none", _SCRATCH / "sys", "sysfs")


def refusal(error: OSError) -> MissingError:
    """What to tell when the kernel refused something to root: a container's rules, mostly.

    Args:
        error: With EPERM or EACCES.
    """
    what = f"{error.strerror}: {os.fsdecode(error.filename)}" if error.filename else str(error.strerror or error)
    missing = _missing_capabilities(CHANGE)
    lacks = f" (this process lacks {_listed(missing)})" if missing else ""
    return MissingError(f"the kernel refused what weavelab asked of it: {what}{lacks}", hint=_HOW_TO_GET_THEM)


def is_refusal(error: OSError) -> bool:
    """Whether root was told no by the kernel, and not by the owner of a file."""
    return error.errno == errno.EPERM


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _proc(name: str) -> str:
    try:
        return Path("/proc/self", name).read_text(encoding="ascii")
    except OSError as error:
        raise MissingError(
            f"wanted to read /proc/self/{name}, found: {said_by(error, path=False)}",
            hint="labs need /proc: mount -t proc proc /proc",
        ) from error
