"""Which kubelet a node has: the one place that knows both implementations."""

from testbed.kubelet.emulated import EmulatedKubelet
from testbed.kubelet.kubelet import Kubelet
from testbed.lab.paths import LabPaths
from testbed.topology.model import Topology


def kubelet_of(paths: LabPaths, topology: Topology, node: str) -> Kubelet:
    """The kubelet of a node, of the kind that the topology asks for."""
    if topology.kubelet == "containerd":
        from testbed.kubelet.containerd import ContainerdKubelet  # noqa: PLC0415 - only labs that use gRPC load it

        return ContainerdKubelet(paths, node)
    return EmulatedKubelet(paths, node)
