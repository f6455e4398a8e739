"""Makes the pods of a topology, several nodes at a time: on each node its kubelet (`testbed.kubelet`) makes its own."""

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Final

from testbed.kubelet.choice import kubelet_of
from testbed.kubelet.kubelet import wanted
from testbed.lab.paths import LabPaths
from testbed.lab.progress import Progress
from testbed.lab.state import PodRecord
from testbed.machine import interrupts, processes
from testbed.topology.model import Topology

WORKERS_MAX: Final = 8
"""CNI calls at a time, each on another node: a call mostly waits for its agent, so more than there are cores."""


def attach_all(paths: LabPaths, topology: Topology, *, progress: Progress) -> dict[str, PodRecord]:
    """Attach every pod of the topology; the records are in its order.

    Raises:
        CheckError: A pod could not be made; the others are not waited for longer than their calls take.
        OSError: A sandbox could not be made.
    """
    count = 0
    counting, stop = threading.Lock(), threading.Event()

    def one_node(node: str, pods: Sequence[str]) -> dict[str, PodRecord]:
        nonlocal count
        kubelet = kubelet_of(paths, topology, node)
        made: dict[str, PodRecord] = {}
        for pod in pods:
            if stop.is_set():
                break
            made[pod] = kubelet.run(wanted(topology, pod))
            with counting:
                count += 1
                progress.advance_to(count)
        return made

    per_node = {node: pods for node in topology.nodes if (pods := topology.pods_on(node))}
    with ThreadPoolExecutor(max_workers=WORKERS_MAX, thread_name_prefix="kubelet") as pool:
        futures: list[Future[dict[str, PodRecord]]] = []
        try:
            with interrupts.postponed():
                futures += [pool.submit(one_node, *item) for item in per_node.items()]
            wait(futures, return_when=FIRST_EXCEPTION)
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        except BaseException:  # Ctrl-C: nobody waits for the deadlines of calls whose lab is about to go
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            _cut_short(paths, futures)
            raise
        # The one that failed first comes first: others may have been cancelled because of it.
        failed = [future for future in futures if future.done() and not future.cancelled() and future.exception()]
        records = {pod: record for future in failed or futures for pod, record in future.result().items()}
    return {pod: records[pod] for pod in topology.pods}


def _cut_short(paths: LabPaths, futures: Sequence[Future[Any]]) -> None:
    """End everything that runs in the nodes, so that the calls at hand fail at once."""
    while wait(futures, timeout=0.05).not_done:
        processes.end(processes.inhabitants(processes.namespace_ids(paths.mount_pins.iterdir())), grace_s=0.0)
