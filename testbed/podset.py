"""Attaches the pods of a topology: on each node its kubelet makes the sandbox and executes the CNI chain.

The pod's namespace is made by the kubelet inside its node; it is pinned here under the lab's path and public name.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

import msgspec

from plugin.core.errors import CheckError
from plugin.link import netns
from testbed import engine, interrupts, mounts, processes
from testbed.cni_conf import capabilities_of
from testbed.kubelet import CALL_TIMEOUT_S, NETNS_DIR, Added, Kubelet, Sandbox, container_id
from testbed.model import Topology
from testbed.paths import LabPaths
from testbed.progress import Progress
from testbed.space import Space, call, in_thread
from testbed.state import PodRecord

WORKERS_MAX: Final = 8
"""CNI calls at a time, each on another node: a call mostly waits for its agent, so more than there are cores."""


def attach_all(paths: LabPaths, topology: Topology, *, progress: Progress) -> dict[str, PodRecord]:
    """Attach every pod of the topology; the records are in its order.

    Raises:
        CniCallError: A pod's ADD failed; the others are not waited for longer than their calls take.
        OSError: A sandbox could not be made.
    """
    count = 0
    counting, stop = threading.Lock(), threading.Event()

    def one_node(node: str, pods: Sequence[str]) -> dict[str, PodRecord]:
        nonlocal count
        made: dict[str, PodRecord] = {}
        for pod in pods:
            if stop.is_set():
                break
            made[pod] = attach(paths, node, pod, capabilities=capabilities_of(topology.pods[pod]))
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


def attach(
    paths: LabPaths, node: str, pod: str, *, attempt: int = 0, capabilities: Mapping[str, Any] | None = None
) -> PodRecord:
    """Make one pod's sandbox and attach it.

    Args:
        paths: The lab.
        node: Where it runs.
        pod: Its name.
        attempt: Counts the pods of that name: each gets a container id of its own.
        capabilities: What it asks for beside an interface (`testbed.cni_conf.capabilities_of`).

    Raises:
        CniCallError: The ADD failed; sandbox and names are removed.
        OSError: The sandbox could not be made.
    """
    space = paths.node_space(node)
    kubelet = Kubelet(space)
    path = kubelet.make_sandbox(pod)
    try:
        _publish(paths, space, pod, path)
        added = kubelet.add(
            Sandbox(pod=pod, container_id=container_id(paths.lab, node, pod, str(attempt)), netns=str(path)),
            capabilities=capabilities,
        )
        return _record(node, pod, added)
    except BaseException:
        engine.unpin_network(paths, pod)
        kubelet.remove_sandbox(pod)
        raise


def detach(paths: LabPaths, node: str, pod: str, container: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
    """Detach one pod, then let go of its sandbox and names; `container` is the id that it was attached with.

    Raises:
        CniCallError: The DEL failed; the sandbox stays, a runtime would call again.
        OSError: The node cannot be entered.
    """
    space = paths.node_space(node)
    kubelet = Kubelet(space, timeout_s=timeout_s)
    kubelet.delete(Sandbox(pod=pod, container_id=container, netns=str(NETNS_DIR / pod)))
    drop_sandbox(paths, node, pod)


def drop_sandbox(paths: LabPaths, node: str, pod: str) -> None:
    """Let go of a pod's names and namespaces. Safe to repeat.

    Raises:
        OSError: The node cannot be entered.
    """
    engine.unpin_network(paths, pod)
    Kubelet(paths.node_space(node)).remove_sandbox(pod)


def _publish(paths: LabPaths, node: Space, pod: str, sandbox: Path) -> None:
    """Pin the sandbox where it is seen from the machine; its own path means something inside the node only."""
    fd = call(node, lambda: netns.open_netns(sandbox))
    try:
        engine.pin_networks(paths, {pod: fd})
    finally:
        os.close(fd)
    name = _host_name(pod)
    try:
        mounts.pin(name, paths.pins / f"{pod}.uts")
    finally:
        os.close(name)


def _host_name(pod: str) -> int:
    """A descriptor of a UTS namespace in which the host is called like the pod, as in every sandbox of a runtime."""

    def apart() -> int:
        netns.unshare(netns.CLONE_NEWUTS)
        netns.sethostname(pod)
        return netns.current("uts")

    return in_thread(f"naming-{pod}", apart)


def _record(node: str, pod: str, added: Added) -> PodRecord:
    if added.address is None:
        raise CheckError(f"pod {pod} got no IPv4 address from the CNI chain of node {node}")
    return PodRecord(
        node=node,
        container_id=added.sandbox.container_id,
        address=str(added.address.ip),
        mac=added.mac,
        host_ifname=added.host_ifname,
        ifname=added.sandbox.ifname,
        cni_calls=tuple(msgspec.to_builtins(executed) for executed in added.calls),
    )
