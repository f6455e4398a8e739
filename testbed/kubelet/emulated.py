"""The emulated kubelet: the sandbox is a network namespace of ours, the CNI chain is executed by `cni_runtime`.

A pod has the files of its node and no process of its own.
"""

import os
from pathlib import Path

from plugin.core.errors import InputError
from plugin.link import netns
from testbed.kubelet.cni_runtime import NETNS_DIR, CniRuntime
from testbed.kubelet.kubelet import REMOVE_S, PodWanted, attached, publish, unpublish
from testbed.kubelet.sandbox import Sandbox, container_id
from testbed.lab.cni_call import CniCall
from testbed.lab.paths import LabPaths
from testbed.lab.state import PodRecord
from testbed.machine.space import call, host_name
from testbed.topology.cni_conf import capabilities_of


class EmulatedKubelet:
    """The kubelet of one node; see `testbed.kubelet.kubelet.Kubelet` for what each method does and raises."""

    def __init__(self, paths: LabPaths, node: str) -> None:
        self._paths = paths
        self._node = node
        self._space = paths.node_space(node)

    def run(self, pod: PodWanted) -> PodRecord:
        """A sandbox, its names, then ADD of the chain."""
        runtime = CniRuntime(self._space)
        path = runtime.make_sandbox(pod.name)
        try:
            self._publish(pod.name, path)
            identity = container_id(self._paths.lab, self._node, pod.name, str(pod.attempt))
            sandbox = Sandbox(pod=pod.name, container_id=identity, netns=str(path))
            return attached(self._paths, self._node, runtime.add(sandbox, capabilities=capabilities_of(pod.spec)))
        except BaseException:
            unpublish(self._paths, pod.name)
            runtime.remove_sandbox(pod.name)
            raise

    def restart(self, pod: str, record: PodRecord) -> str:
        """Refuses: there is no container in it."""
        raise InputError(
            f"pod {pod} of node {record.node} has no container to restart: an emulated kubelet makes sandboxes only",
            hint="bring the lab up with `kubelet: containerd`",
        )

    def remove(self, pod: str, container_id: str, *, timeout_s: float = REMOVE_S) -> tuple[CniCall, ...]:
        """DEL of the chain, then the sandbox and its names."""
        runtime = CniRuntime(self._space, timeout_s=timeout_s)
        calls = runtime.delete(Sandbox(pod=pod, container_id=container_id, netns=str(NETNS_DIR / pod)))
        self.drop(pod)
        return calls

    def drop(self, pod: str) -> None:
        """The sandbox and its names."""
        unpublish(self._paths, pod)
        CniRuntime(self._space).remove_sandbox(pod)

    def _publish(self, pod: str, sandbox: Path) -> None:
        network = call(self._space, lambda: netns.open_netns(sandbox))
        try:
            name = host_name(pod)
            try:
                publish(self._paths, pod, net=network, uts=name)
            finally:
                os.close(name)
        finally:
            os.close(network)
