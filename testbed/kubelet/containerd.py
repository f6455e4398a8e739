"""The kubelet of a node with a real containerd: pods are CRI sandboxes, each with one container of the lab's image.

THE LIFE OF A REAL POD, read `run` downwards. The plugin is called by containerd, not by us: what it was asked and what
it answered is read back from the cache that every runtime built on libcni keeps.
"""

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError
from plugin.link import netns
from testbed.kubelet.cni_runtime import Added, CniRuntime
from testbed.kubelet.cri.client import CriError, RuntimeClient
from testbed.kubelet.cri.values import ContainerEntry, PortMapping, SandboxConfig
from testbed.kubelet.image import IMAGE
from testbed.kubelet.kubelet import REMOVE_S, PodWanted, attached, publish, unpublish
from testbed.kubelet.sandbox import Sandbox, container_id
from testbed.lab.cni_call import CniCall
from testbed.lab.paths import LabPaths
from testbed.lab.state import PodRecord
from testbed.nodes import names
from testbed.topology.cni_conf import bandwidth_annotations
from testbed.topology.model import PodSpec

NAMESPACE: Final = "k8s.io"
"""Containerd's own namespace for what its CRI part makes."""

CONTAINER: Final = "main"
_POD_LABEL: Final = "io.kubernetes.pod.name"
"""As the kubelet labels what it makes: `ctr -n k8s.io containers ls` shows it."""
_LOG_DIRECTORY: Final = "/var/log/pods"
_MOUNTS: Final = {"/etc/hosts": str(names.SEEN_AT / names.BOUND_FILE)}
"""Else containerd would give a container a copy of the node's /etc/hosts as it is at that moment."""


class ContainerdKubelet:
    """The kubelet of one node; see `testbed.kubelet.kubelet.Kubelet` for what each method does and raises."""

    def __init__(self, paths: LabPaths, node: str) -> None:
        self._paths = paths
        self._node = node

    def client(self) -> RuntimeClient:
        """A connection to the node's runtime; the caller closes it."""
        return RuntimeClient(self._paths.node_runtime_socket(self._node), node=self._node)

    def run(self, pod: PodWanted) -> PodRecord:
        """RunPodSandbox, the names of its namespaces, then a container in it."""
        identity = container_id(self._paths.lab, self._node, pod.name, str(pod.attempt))
        config = self._config(pod.name, str(uuid.uuid5(uuid.NAMESPACE_OID, identity)), pod.spec)
        with self.client() as runtime:
            sandbox = runtime.run_sandbox(config)  # one that fails leaves nothing: containerd calls DEL itself
            try:
                self._publish(pod.name, runtime.sandbox_status(sandbox).pid)
                made = runtime.create_container(sandbox, config, name=CONTAINER, image=IMAGE, mounts=_MOUNTS)
                runtime.start_container(made)
                return attached(self._paths, self._node, self._added(pod.name, sandbox))
            except BaseException:
                unpublish(self._paths, pod.name)
                with suppress(CriError):
                    runtime.stop_sandbox(sandbox)
                    runtime.remove_sandbox(sandbox)
                raise

    def restart(self, pod: str, record: PodRecord) -> str:
        """StopContainer, RemoveContainer, CreateContainer, StartContainer; the sandbox stays as it is."""
        said = []
        with self.client() as runtime:
            old = _latest(runtime, pod, record.container_id)
            config = self._config(pod, runtime.sandbox_status(record.container_id).uid)
            runtime.stop_container(old.id)
            said.append(f"StopContainer {old.id[:12]}")
            runtime.remove_container(old.id)
            said.append(f"RemoveContainer {old.id[:12]}")
            new = runtime.create_container(
                record.container_id, config, name=CONTAINER, image=IMAGE, attempt=old.attempt + 1, mounts=_MOUNTS
            )
            said.append(f"CreateContainer {new[:12]} in sandbox {record.container_id[:12]}")
            runtime.start_container(new)
            said.append(f"StartContainer {new[:12]}")
        return "\n".join(said)

    def remove(self, pod: str, container_id: str, *, timeout_s: float = REMOVE_S) -> tuple[CniCall, ...]:
        """StopPodSandbox twice, as the kubelet does when it is not sure of the first, then RemovePodSandbox."""
        with self.client() as runtime:
            for _ in range(2):
                runtime.stop_sandbox(container_id, timeout_s=timeout_s)
            runtime.remove_sandbox(container_id, timeout_s=timeout_s)
        unpublish(self._paths, pod)
        return ()

    def drop(self, pod: str) -> None:
        """The names, and every sandbox of that pod that the runtime still has."""
        unpublish(self._paths, pod)
        with self.client() as runtime, suppress(CriError):
            for sandbox in runtime.list_sandboxes({_POD_LABEL: pod}):
                runtime.stop_sandbox(sandbox.id)
                runtime.remove_sandbox(sandbox.id)

    def _config(self, pod: str, uid: str, spec: PodSpec | None = None) -> SandboxConfig:
        ports = () if spec is None else spec.ports
        return SandboxConfig(
            name=pod,
            uid=uid,
            cgroup_parent=f"/{self._paths.cgroup}",
            log_directory=f"{_LOG_DIRECTORY}/{pod}",
            ports=tuple(PortMapping(port.host, port.container, port.protocol, port.host_ip or "") for port in ports),
            annotations={} if spec is None else bandwidth_annotations(spec.bandwidth),
            labels={_POD_LABEL: pod},
        )

    def _publish(self, pod: str, pause: int) -> None:
        """Pin what the pause process lives in; containers come and go, it stays as long as the sandbox."""
        if not pause:
            raise CheckError(f"the runtime of {self._node} does not name the process of sandbox {pod}")
        net, uts = (netns.open_netns(Path(f"/proc/{pause}/ns/{kind}")) for kind in ("net", "uts"))
        try:
            publish(self._paths, pod, net=net, uts=uts)
        finally:
            os.close(net)
            os.close(uts)

    def _added(self, pod: str, sandbox: str) -> Added:
        wanted = Sandbox(pod=pod, container_id=sandbox, netns="")
        result = CniRuntime(self._paths.node_space(self._node)).result_of(wanted)
        if result is None:
            raise CheckError(
                f"pod {pod} runs on {self._node}, but its runtime kept no result of its ADD",
                hint="wanted one in /var/lib/cni/results of the node, where libcni writes it",
            )
        return Added(sandbox=wanted, result=result, calls=())


def _latest(runtime: RuntimeClient, pod: str, sandbox: str) -> ContainerEntry:
    """The last container of a pod, whether it runs or has ended."""
    found = runtime.list_containers(sandbox)
    if not found:
        raise CheckError(f"pod {pod} has no container to restart", hint="was its sandbox stopped? recreate the pod")
    return max(found, key=lambda one: one.attempt)


def running_container(runtime: RuntimeClient, pod: str, sandbox: str) -> ContainerEntry:
    """The container of a pod that runs.

    Raises:
        CheckError: None does.
    """
    found = runtime.list_containers(sandbox)
    running = [one for one in found if one.state == "running"]
    if not running:
        states = ", ".join(f"{one.name} {one.state}" for one in found) or "no container"
        raise CheckError(
            f"pod {pod} has no running container to enter, found {states}",
            hint="its network is still there: `ip netns exec` enters that",
        )
    return max(running, key=lambda one: one.attempt)
