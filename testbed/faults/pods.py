"""The pods that come and go in a `chaos` step: real ADDs and DELs of the nodes' kubelets, several at a time.

At every ADD the address is compared with those of all who live. An ADD may fail while its node is disturbed; a DEL may
never fail. The names are written into the lab's state before the first pod comes, so that `down` finds whatever a
killed command leaves.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from plugin.core.cni.types import NO_ADDRESS
from plugin.core.errors import CheckError, WeaveError, said_by
from testbed.faults.judge import twice
from testbed.kubelet.choice import kubelet_of
from testbed.kubelet.kubelet import Kubelet, PodWanted
from testbed.lab import state
from testbed.lab.running import Lab
from testbed.machine import processes
from testbed.machine.processes import ProcessId
from testbed.topology.model import PodSpec

_PREFIX: Final = "churn"
CALLS_MAX: Final = 8
"""CNI calls at a time."""

CALL_S: Final = 40.0
"""How long the calls at hand may take when all is repaired: an ADD waits 30 s for its agent."""

_ROUNDS_MAX: Final = 20
_LAST_DEL_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class ChurnedPod:
    """A pod that came."""

    name: str
    node: str
    container_id: str
    address: str


class Pods:
    """The pods that come and go.

    Args:
        lab: The lab.
        count: How many there are.
        living: The addresses of all who live already, by name.
        note: Told what happened, as a sentence.
        disturbed: Whether a node was disturbed at any time since then (node, monotonic seconds).
    """

    def __init__(
        self,
        lab: Lab,
        count: int,
        *,
        living: Mapping[str, str],
        note: Callable[[str], None],
        disturbed: Callable[[str, float], bool],
    ) -> None:
        self.lab = lab
        self.problems: list[str] = []
        self.came = self.went = self.refused = 0
        self._note = note
        self._disturbed = disturbed
        self._lock = threading.Lock()
        self._addresses = dict(living)
        self._pods: dict[str, ChurnedPod] = {}
        self._calls: dict[str, Future[None]] = {}
        self._pool = ThreadPoolExecutor(max_workers=CALLS_MAX, thread_name_prefix="churn")
        self._names = free_names(lab, count)
        _announce(lab, self._names)

    @property
    def living(self) -> tuple[ChurnedPod, ...]:
        """The pods that are there now."""
        with self._lock:
            return tuple(self._pods.values())

    def turn(self, number: int, node: str) -> None:
        """Let a pod go if it is there, else let it come on `node`; nothing while a call for it is at hand."""
        name = self._names[number]
        call = self._calls.get(name)
        if call is not None and not call.done():
            return
        pod = self._pods.get(name)
        self._calls[name] = (
            self._pool.submit(self._come, name, node) if pod is None else self._pool.submit(self._go, pod)
        )

    def finish(self, wait_s: float = CALL_S) -> None:
        """Wait for the calls at hand; those that take longer are ended."""
        pending = wait(self._calls.values(), timeout=wait_s).not_done
        for _ in range(_ROUNDS_MAX):
            if not pending:
                break
            processes.end(_calls_in(self.lab), grace_s=0.0)
            pending = wait(pending, timeout=0.5).not_done
        for call in self._calls.values():
            if call.done() and (error := call.exception()) is not None:
                self._problem(f"a pod could not be handled: {error}")
        self._calls.clear()

    def delete_all(self) -> None:
        """Let every pod go."""
        wait([self._pool.submit(self._go, pod) for pod in self.living])

    def close(self) -> None:
        """Remove what is left, whatever state the lab is in, and the threads."""
        self.finish(wait_s=_LAST_DEL_S)
        for pod in self.living:
            with contextlib.suppress(WeaveError, OSError):
                self._kubelet(pod.node).remove(pod.name, pod.container_id, timeout_s=_LAST_DEL_S)
            with contextlib.suppress(OSError):
                self._kubelet(pod.node).drop(pod.name)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _kubelet(self, node: str) -> Kubelet:
        return kubelet_of(self.lab.paths, self.lab.topology, node)

    def _come(self, name: str, node: str) -> None:
        began_s = time.monotonic()
        try:
            record = self._kubelet(node).run(PodWanted(name, PodSpec(node=node), attempt=time.time_ns()))
        except (WeaveError, OSError) as error:
            took_s = time.monotonic() - began_s
            self.refused += 1
            # Whoever has no address left asks another owner, who may be the one that is disturbed.
            asked = self.lab.nodes if getattr(error, "code", 0) == NO_ADDRESS else (node,)
            excused = any(self._disturbed(name, began_s) for name in asked)
            self._note(f"{node}: ADD of {name} failed after {took_s:.1f} s: {said_by(error)}")
            if not excused:
                self._problem(f"ADD of {name} failed on {node}, which nothing disturbed: {said_by(error)}")
            return
        pod = ChurnedPod(name, node, record.container_id, record.address)
        with self._lock:
            clash = twice(self._addresses, name, record.address)
            self._addresses[name] = record.address
            self._pods[name] = pod
            self.came += 1
        self._note(f"{node}: {name} came with {record.address}")
        if clash:
            self._problem(clash)

    def _go(self, pod: ChurnedPod) -> None:
        # Its address may be given to somebody else from the moment on that the agent hears of the DEL.
        with self._lock:
            self._addresses.pop(pod.name, None)
        try:
            self._kubelet(pod.node).remove(pod.name, pod.container_id)
        except (WeaveError, OSError) as error:
            with self._lock:
                self._addresses[pod.name] = pod.address
            self._note(f"{pod.node}: DEL of {pod.name} failed: {said_by(error)}")
            self._problem(f"DEL of {pod.name} failed on {pod.node}: {said_by(error)}")
            return
        with self._lock:
            self._pods.pop(pod.name, None)
            self.went += 1
        self._note(f"{pod.node}: {pod.name} went, and {pod.address} with it")

    def _problem(self, text: str) -> None:
        with self._lock:
            if text not in self.problems:
                self.problems.append(text)
        self._note(f"PROBLEM: {text}")


def free_names(lab: Lab, count: int) -> tuple[str, ...]:
    """Names that nobody in the lab bears, not even a pod that a killed command left."""
    taken = {*lab.topology.pods, *lab.topology.nodes, *lab.topology.underlay.routers}
    with contextlib.suppress(OSError):
        taken |= {pin.stem for pin in lab.paths.pins.iterdir()}
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        if (name := f"{_PREFIX}{number}") not in taken:
            found.append(name)
    return tuple(found)


def _announce(lab: Lab, names: Iterable[str]) -> None:
    """Write the names that will be made into the lab's state, before one is."""
    with state.locked(lab.paths, wait_s=10.0):
        found = state.read(lab.paths)
        if found is None:
            raise CheckError(f"lab {lab.name} went away")
        all_names = dict.fromkeys([*found.netns_names, *(lab.paths.netns_name(name).name for name in names)])
        state.write(lab.paths, msgspec.structs.replace(found, netns_names=tuple(all_names)))


def _calls_in(lab: Lab) -> list[ProcessId]:
    """The plugins that this command executes in the lab's nodes."""
    namespaces = processes.namespace_ids(lab.paths.mount_pins.iterdir())
    return [one for one in processes.inhabitants(namespaces) if _is_call(one.pid)]


def _is_call(pid: int) -> bool:
    try:
        folder = Path("/proc", str(pid))
        status = (folder / "status").read_text(encoding="utf-8", errors="replace")
        environment = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    ours = f"\nPPid:\t{os.getpid()}\n" in status
    return ours and any(entry.startswith(b"CNI_COMMAND=") for entry in environment)
