"""A node's kubelet as the lab sees it: pods come and go. What they are made of is up to one of two implementations.

    emulated     `testbed.kubelet.emulated`: we make the sandbox and execute the CNI chain ourselves
    containerd   `testbed.kubelet.containerd`: a real containerd on the node does both, asked over CRI

Whichever it is, the network namespace of a pod is pinned under the lab's path and public name, so that probes, captures
and `ip netns exec` find every pod alike.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from plugin.core.errors import CheckError
from testbed.kubelet.cni_runtime import Added
from testbed.lab.cni_call import CniCall
from testbed.lab.paths import LabPaths
from testbed.lab.state import PodRecord
from testbed.nodes import engine, mounts, names
from testbed.topology.model import PodSpec, Topology

REMOVE_S: Final = 60.0
"""How long the removal of a pod may take: its DEL may have to wait for the agent."""


@dataclass(frozen=True, slots=True)
class PodWanted:
    """A pod that is to run.

    Attributes:
        name: Its name.
        spec: What the topology says of it.
        attempt: Counts the pods of that name: each gets an identity of its own.
    """

    name: str
    spec: PodSpec
    attempt: int = 0


class Kubelet(Protocol):
    """The kubelet of one node."""

    def run(self, pod: PodWanted) -> PodRecord:
        """Make a pod and attach it.

        Raises:
            CheckError: It could not be made or attached; nothing of it is left.
            OSError: A namespace could not be made or pinned.
        """

    def restart(self, pod: str, record: PodRecord) -> str:
        """End the pod's container and start a new one in the same sandbox; returns what was done, a line a call.

        Raises:
            InputError: Pods of this kind have no containers.
            CheckError: The runtime refused.
        """

    def remove(self, pod: str, container_id: str, *, timeout_s: float = REMOVE_S) -> tuple[CniCall, ...]:
        """Detach a pod and let go of all of it; `container_id` is that of its record. Safe to repeat.

        Returns:
            Every plugin that we executed for it; empty when a real runtime did.

        Raises:
            CheckError: The DEL failed; the sandbox stays, a kubelet would try again.
            OSError: The node cannot be entered.
        """

    def drop(self, pod: str) -> None:
        """Let go of a pod's names and of what is left of it, without a DEL if need be. Safe to repeat.

        Raises:
            OSError: The node cannot be entered.
        """


def wanted(topology: Topology, pod: str, *, attempt: int = 0) -> PodWanted:
    """A pod of the topology, to be run."""
    return PodWanted(pod, topology.pods[pod], attempt=attempt)


# ---- what both implementations need


def publish(paths: LabPaths, pod: str, *, net: int, uts: int) -> None:
    """Pin a pod's namespaces where they are seen from the machine; paths inside the node mean something there only.

    Args:
        paths: The lab.
        pod: Whose they are.
        net: A descriptor of its network namespace.
        uts: A descriptor of the namespace in which the host is called like the pod.

    Raises:
        OSError: A name is taken, or the kernel refused; then none of them is left.
    """
    with ExitStack() as undo:
        undo.callback(unpublish, paths, pod)
        engine.pin_networks(paths, {pod: net})
        mounts.pin(uts, paths.pins / f"{pod}.uts")
        undo.pop_all()


def unpublish(paths: LabPaths, pod: str) -> None:
    """Let go of a pod's pins and names. Safe to repeat."""
    names.remove(paths, pod)
    engine.unpin_network(paths, pod)


def attached(paths: LabPaths, node: str, added: Added) -> PodRecord:
    """Let everybody in the lab find an attached pod by its name; returns what the lab remembers of it.

    Raises:
        CheckError: It has no address.
        OSError: The lab is going.
    """
    if added.address is None:
        raise CheckError(f"pod {added.sandbox.pod} got no IPv4 address from the CNI chain of node {node}")
    names.add(paths, added.sandbox.pod, str(added.address.ip))
    return PodRecord(
        node=node,
        container_id=added.sandbox.container_id,
        address=str(added.address.ip),
        mac=added.mac,
        host_ifname=added.host_ifname,
        ifname=added.sandbox.ifname,
        cni_calls=tuple(msgspec.to_builtins(executed) for executed in added.calls),
    )
