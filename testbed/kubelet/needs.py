"""What a real container runtime needs of this machine: programs, reference CNI plugins, a busybox, cgroups.

Looks and never installs. Asked before a lab is built, not in the middle of it.
"""

import shutil
from pathlib import Path
from typing import Final, Literal

from plugin.core.errors import MissingError
from testbed.deploy.plan import SYSTEM_PATH
from testbed.nodes import cgroups
from testbed.topology.model import Topology

PROGRAMS: Final = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
PACKAGES: Final = "containerd runc busybox-static containernetworking-plugins"
CNI_FOLDERS: Final = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
"""Where distributions and people put the reference plugins."""

_LOOPBACK: Final = "loopback"
"""Containerd executes it for every sandbox, whatever the configuration says."""

_PT_INTERP: Final = 3


def plugins_needed(topology: Topology) -> tuple[str, ...]:
    """The reference CNI plugins that the nodes of a topology need beside ours."""
    return (_LOOPBACK,) if topology.kubelet == "containerd" else ()


def check_machine(topology: Topology) -> None:
    """See that the topology's pods can be made here.

    Raises:
        MissingError: Programs are not installed, or cgroups cannot be written.
    """
    if topology.kubelet == "containerd":
        _check_runtime(topology)


def _check_runtime(topology: Topology) -> None:
    missing = [name for name in PROGRAMS if program(name) is None]
    if find_busybox() is None:
        missing.append("a statically linked busybox")
    missing += [f"the CNI plugin {name}" for name in plugins_needed(topology) if find_plugin(name) is None]
    if missing:
        raise MissingError(
            f"`kubelet: containerd` wants {', '.join(missing)} on this machine, found no such program",
            hint=f"apt-get install {PACKAGES} (docs/guide/containerd.md), or use `kubelet: emulated`, the default",
        )
    cgroups.check_writable()


def program(name: str) -> str | None:
    """The path of a program, as a service would find it."""
    return shutil.which(name, path=SYSTEM_PATH)


def find_busybox() -> Path | None:
    """A statically linked busybox of this machine."""
    for name in ("busybox-static", "busybox.static", "busybox"):
        found = program(name)
        if found is not None and is_static(Path(found).read_bytes()):
            return Path(found)
    return None


def find_plugin(name: str) -> Path | None:
    """A CNI plugin of this machine."""
    return next((folder / name for folder in CNI_FOLDERS if (folder / name).is_file()), None)


def is_static(program_bytes: bytes) -> bool:
    """Whether an ELF program needs no loader: it has no PT_INTERP header (elf(5))."""
    if program_bytes[:4] != b"\x7fELF":
        return False
    wide = program_bytes[4] == 2
    order: Literal["little", "big"] = "little" if program_bytes[5] == 1 else "big"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(program_bytes[offset : offset + size], order)

    start = number(32, 8) if wide else number(28, 4)
    size, count = (number(54, 2), number(56, 2)) if wide else (number(42, 2), number(44, 2))
    return all(number(start + index * size, 4) != _PT_INTERP for index in range(count))
