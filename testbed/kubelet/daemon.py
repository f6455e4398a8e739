"""The containerd of every node: how it is started, and the image it is given (`testbed.kubelet.needs`: what it needs).

Each node has its own daemon with its own files: /etc/containerd/config.toml, /var/lib/containerd (a tmpfs: its
snapshotter cannot lie on the overlay that a node's /var/lib is), /run/containerd. It is born inside the node's
namespaces, whose /sys has the machine's cgroups; `ip netns exec` would mount another /sys, without any.
"""

import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError, MissingError
from plugin.link import netns
from testbed.deploy.local import LocalTransport
from testbed.deploy.plan import DeployPlan
from testbed.kubelet.containerd import NAMESPACE
from testbed.kubelet.cri.client import CriError, RuntimeClient
from testbed.kubelet.image import IMAGE, build_image
from testbed.kubelet.needs import find_busybox, program
from testbed.lab import state
from testbed.lab.paths import LabPaths
from testbed.machine import interrupts, processes
from testbed.machine.processes import ProcessId
from testbed.machine.space import Space, call, run

ROLE: Final = "containerd"
ROOT: Final = Path("/var/lib/containerd")
WORKERS_MAX: Final = 4
READY_S: Final = 30.0
_IMPORT_S: Final = 60.0
_ASK_S: Final = 2.0
_PAUSE_S: Final = 0.02


def lab_image() -> bytes:
    """The image archive, made from this machine's busybox.

    Raises:
        MissingError: There is none.
    """
    busybox = find_busybox()
    if busybox is None:
        raise MissingError("wanted a statically linked busybox, found none", hint="apt-get install busybox-static")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=_ASK_S)
    return build_image(busybox.read_bytes(), listed.stdout.split())


def start(paths: LabPaths, plans: Iterable[DeployPlan]) -> tuple[state.ProcessRecord, ...]:
    """Start the runtime of every node; they need not be ready when this returns.

    Raises:
        DeployError: One could not even be started.
    """
    started = []
    with interrupts.postponed():
        for plan in plans:
            assert plan.runtime is not None, "a plan for containerd has one"
            space = paths.node_space(plan.node)
            call(space, _make_root)
            pid = LocalTransport(space).start(plan.runtime)
            process = processes.identify(pid)
            ticks = process.start_ticks if process is not None else 0  # gone again already: the wait reports it
            started.append(state.ProcessRecord(role=ROLE, member=plan.node, pid=pid, start_ticks=ticks))
    return tuple(started)


def _make_root() -> None:
    ROOT.mkdir(mode=0o711, parents=True, exist_ok=True)
    netns.mount("weavelab", ROOT, "tmpfs", options="mode=0711")


def prepare(paths: LabPaths, records: Iterable[state.ProcessRecord], *, done: Callable[[int], None]) -> None:
    """Wait until every runtime answers and calls itself ready, and give it the lab's image.

    Args:
        paths: The lab.
        records: The runtimes, from `start`.
        done: Told how many have it.

    Raises:
        CheckError: One ended, is not ready in time, or refuses the image.
    """
    image = lab_image()

    def one(record: state.ProcessRecord) -> None:
        socket = paths.node_runtime_socket(record.member)
        log = paths.node_runtime_log(record.member)
        _await(record, log, socket, lambda runtime: runtime.not_ready(timeout_s=_ASK_S))
        _import_image(paths.node_space(record.member), image)
        # The daemon tells its CRI part of a new image by an event; asked for too early, it would look for a registry.
        absent = f"does not list {IMAGE}"
        _await(record, log, socket, lambda runtime: "" if runtime.has_image(IMAGE, timeout_s=_ASK_S) else absent)

    with ThreadPoolExecutor(max_workers=WORKERS_MAX, thread_name_prefix="containerd") as pool:
        try:
            with interrupts.postponed():
                results = pool.map(one, records)
            for count, _ in enumerate(results, start=1):
                done(count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _import_image(node: Space, image: bytes) -> None:
    """Give a node's runtime an image archive, with its own client.

    Raises:
        CheckError: It does not take it.
    """
    ctr = program("ctr") or "ctr"
    done = run(node, [ctr, "-n", NAMESPACE, "images", "import", "-"], timeout_s=_IMPORT_S, stdin=image)
    if done.returncode != 0:
        raise CheckError(
            f"the runtime of {node.name} does not take the image {IMAGE}: {(done.stderr or done.stdout).strip()}",
            hint="its log is /var/log/containerd.log of the node; has the machine memory left for its files (free -m)?",
        )


def _await(record: state.ProcessRecord, log: Path, socket: Path, missing: Callable[[RuntimeClient], str]) -> None:
    deadline_s = time.monotonic() + READY_S
    while True:
        # A new connection each time: one that found no socket would wait a second and more before it looks again.
        with RuntimeClient(socket, node=record.member) as runtime:
            try:
                seen = missing(runtime)
            except CriError as error:
                seen = error.message
        if not seen:
            return
        if not processes.is_alive(ProcessId(record.pid, record.start_ticks)):
            raise CheckError(f"the containerd of {record.member} ended instead of becoming ready", hint=_tail(log))
        if time.monotonic() > deadline_s:
            raise CheckError(f"after {READY_S:.0f} s the containerd of {record.member}: {seen}", hint=_tail(log))
        time.sleep(_PAUSE_S)


def _tail(log: Path, lines: int = 8) -> str:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"it wrote no log ({log})"
    return "the last lines of its log:\n" + "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
