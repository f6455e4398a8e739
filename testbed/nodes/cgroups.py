"""The cgroup of a lab: what a real runtime makes its containers in, below one folder with the lab's name.

A container that has lost its runtime lives in namespaces that nothing names any more; the folder still lists it. Works
with both versions of cgroups: one hierarchy (v2) or one for each controller (v1). Sources: cgroups(7).
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError, MissingError, said_by
from testbed.machine import processes
from testbed.machine.processes import ProcessId
from testbed.nodes import mounts

_THAWED: Final = {"freezer.state": "THAWED", "cgroup.freeze": "0"}
"""What lets a frozen cgroup go on, by version: 1 and 2."""

_EMPTY_S: Final = 5.0
"""How long the kernel may take to take ended processes off the list."""


def check_writable() -> None:
    """See that a runtime can make cgroups here.

    Raises:
        MissingError: There are none, or they are mounted read-only.
    """
    roots = _hierarchies()
    if not roots or not all(os.access(root, os.W_OK) for root in roots):
        raise MissingError(
            "wanted cgroups that can be written, found "
            + ("none mounted" if not roots else "read-only ones: " + ", ".join(map(str, roots))),
            hint="a container runtime needs them; inside a container: docker run --privileged --cgroupns=host",
        )


def members(name: str) -> list[ProcessId]:
    """Every process in the cgroup of that name or in one below it."""
    pids: set[int] = set()
    for folder in _folders(name):
        with contextlib.suppress(OSError):  # it has just gone
            pids |= {int(line) for line in (folder / "cgroup.procs").read_text(encoding="ascii").split()}
    return [process for pid in pids - {0, os.getpid()} if (process := processes.identify(pid)) is not None]


def thaw(name: str) -> None:
    """Let the processes of the cgroup of that name run again.

    A runtime freezes a container while it signals all of it. If it is killed meanwhile, the container stays frozen, and
    under cgroups v1 what is frozen cannot even be killed.
    """
    for folder in _folders(name):
        for file, text in _THAWED.items():
            with contextlib.suppress(OSError):  # the other version's file; or the folder has just gone
                path = folder / file
                if path.exists():
                    path.write_text(text, encoding="ascii")


def remove(name: str) -> None:
    """Remove the cgroup of that name and all below it, in every hierarchy; their processes have ended.

    Raises:
        CheckError: One does not go away.
    """
    deadline_s = time.monotonic() + _EMPTY_S
    for folder in _folders(name):
        while True:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < deadline_s:
                    time.sleep(0.02)
                    continue
                raise CheckError(
                    f"the cgroup {folder} of the lab cannot be removed: {said_by(error, path=False)}",
                    hint="its cgroup.procs names who is still in it; run `weavelab down` again when they are gone",
                ) from error
            break


def _folders(name: str) -> Iterator[Path]:
    """The cgroup of that name in every hierarchy, the innermost folders first."""
    for root in _hierarchies():
        for folder, _, _ in os.walk(root / name, topdown=False):
            yield Path(folder)


def _hierarchies() -> list[Path]:
    return [mount.point for mount in mounts.mount_table() if mount.kind in {"cgroup", "cgroup2"}]
