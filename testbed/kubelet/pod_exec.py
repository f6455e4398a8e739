"""A command inside the container of a pod, where the pod has one; elsewhere a pod's commands run in its `Space`.

Two ways, as on a real cluster. `terminal_argv` is what `weavelab exec` becomes: runc, which a runtime calls for the
same purpose, with our terminal, input and signals. (`ctr tasks exec` would do, but does not always see that its input
has ended.) `run_in_container` is CRI's ExecSync, which a kubelet's probes use: the whole output, and a deadline.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from plugin.core.errors import WeaveError
from testbed.kubelet.containerd import NAMESPACE, ContainerdKubelet, running_container
from testbed.kubelet.cri.client import DEADLINE_EXCEEDED, CriError
from testbed.kubelet.needs import program
from testbed.lab.running import Lab, LabPod
from testbed.machine.space import Completed, Space, call

_RUNC_ROOT: Final = f"/run/containerd/runc/{NAMESPACE}"
"""Where containerd has runc keep its containers, on a node."""

_NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""What shells answer for a program that cannot be executed, and for one that is not there."""

_KILLED: Final = -9


class NoSuchProgramError(WeaveError):
    """The container has no such program (exit code 127), or it is there and cannot be executed (126)."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def terminal_argv(lab: Lab, pod: LabPod, command: Sequence[str], *, terminal: bool) -> list[str]:
    """The command line that runs `command` in the pod's container when it is executed on its node.

    Args:
        lab: The lab.
        pod: Where.
        command: The program and its arguments.
        terminal: Give it a terminal, because we have one.

    Raises:
        NoSuchProgramError: It could not be executed there; asked beforehand, as runc has one exit code for all.
        CheckError: The pod has no running container.
    """
    with ContainerdKubelet(lab.paths, pod.node).client() as runtime:
        container = running_container(runtime, pod.name, pod.container_id)
        pid = runtime.container_status(container.id).pid
    _check_program(pod.name, pid, command[0])
    options = ["--tty", "--env", f"TERM={os.environ.get('TERM', 'dumb')}"] if terminal else []
    return [program("runc") or "runc", "--root", _RUNC_ROOT, "exec", *options, container.id, *command]


def run_in_container(
    lab: Lab,
    pod: LabPod,
    argv: Sequence[str],
    *,
    timeout_s: float,
    ending: Callable[[Callable[[], None]], AbstractContextManager[None]],
) -> Completed:
    """Run a command in the pod's container to its end, at most about `timeout_s` seconds (whole ones, at least 1).

    Args:
        lab: The lab.
        pod: Where.
        argv: The program and its arguments.
        timeout_s: When it is killed.
        ending: Told how the call can be ended before its time; see `testbed.probes.command.Processes.ending`.

    Raises:
        CheckError: No container runs, or it has no such program.
    """
    started_s = time.monotonic()
    with ContainerdKubelet(lab.paths, pod.node).client() as runtime, ending(runtime.close):
        container = running_container(runtime, pod.name, pod.container_id)
        try:
            done = runtime.exec_sync(container.id, argv, timeout_s=timeout_s)
        except CriError as error:
            if error.code != DEADLINE_EXCEEDED:
                raise
            return Completed(tuple(argv), _KILLED, "", error.message, time.monotonic() - started_s, timed_out=True)
    return Completed(
        argv=tuple(argv),
        returncode=done.exit_code,
        stdout=done.stdout,
        stderr=done.stderr,
        seconds=time.monotonic() - started_s,
        timed_out=False,
    )


def _check_program(pod: str, pid: int, name: str) -> None:
    path = _search_path(pid)

    def look() -> int:
        if shutil.which(name, path=path) is not None:
            return 0
        return _NOT_EXECUTABLE if "/" in name and os.path.exists(name) else NOT_FOUND  # noqa: PTH110 - `name` is a word

    # A link such as /bin/ls -> /bin/busybox means something in the container only.
    code = call(Space(pod, net=Path(f"/proc/{pid}/ns/net"), mnt=Path(f"/proc/{pid}/ns/mnt")), look)
    if code:
        what = (
            f"{name} cannot be executed in the container of {pod}"
            if code == _NOT_EXECUTABLE
            else (f"the container of {pod} has no command {name}")
        )
        raise NoSuchProgramError(what, code=code)


def _search_path(pid: int) -> str:
    """The PATH of the container's own process, which whatever is executed beside it gets too."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((os.fsdecode(entry[5:]) for entry in variables if entry.startswith(b"PATH=")), os.defpath)
