"""A kubelet's side of CRI v1: one method a call, plain values out, a deadline on every call.

Knows nothing of labs: whoever has the socket of a runtime can use it. What the runtime refuses becomes a `CriError`
with the name of gRPC's status code, so that a caller can tell "there is no such sandbox" from the rest.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

# Before the import: its fork handlers write warnings to a person's terminal whenever this process starts another one.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf.message import Message

from plugin.core.errors import CheckError
from testbed.kubelet.cri import cri_pb2 as pb
from testbed.kubelet.cri.values import (
    ContainerEntry,
    ContainerState,
    ContainerStatus,
    ExecResult,
    SandboxConfig,
    SandboxEntry,
    SandboxStatus,
)

R = TypeVar("R", bound=Message)

CALL_S: Final = 30.0
_RUN_SANDBOX_S: Final = 120.0
"""The kubelet's own limit for calls that run the CNI chain (runtimeRequestTimeout, two minutes)."""

DEADLINE_EXCEEDED: Final = "DEADLINE_EXCEEDED"

_STOP_GRACE_S: Final = 2
"""How long a container may take to end after SIGTERM before it is killed."""

_OPTIONS: Final = (
    # By default the escaped path of the socket is sent as the authority, which servers written in Go refuse.
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 << 20),
)


class CriError(CheckError):
    """The runtime refused a call, or did not answer. `code` is the name of gRPC's status code, such as NOT_FOUND."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


_STATES: Final[Mapping[int, ContainerState]] = {
    pb.CONTAINER_CREATED: "created",
    pb.CONTAINER_RUNNING: "running",
    pb.CONTAINER_EXITED: "exited",
    pb.CONTAINER_UNKNOWN: "unknown",
}


class RuntimeClient:
    """A connection to one runtime; close it, or use it in a `with`.

    Args:
        socket: The runtime's socket.
        node: Whose runtime it is, for messages.
    """

    def __init__(self, socket: Path, *, node: str = "") -> None:
        self.socket = socket
        self._whose = f"the runtime of {node}" if node else "the runtime"
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls at hand fail."""
        self._channel.close()

    # ---- the runtime itself

    def version(self, *, timeout_s: float = CALL_S) -> str:
        """Its name and version, such as `containerd 1.6.20`.

        Raises:
            CriError: As every call: no answer, or a refusal.
        """
        said = self._call("Version", pb.VersionRequest(version="v1"), pb.VersionResponse, timeout_s=timeout_s)
        return f"{said.runtime_name} {said.runtime_version}"

    def not_ready(self, *, timeout_s: float = CALL_S) -> str:
        """Why it is not ready (`NetworkReady: cni plugin not initialized`), or the empty string when it is."""
        said = self._call("Status", pb.StatusRequest(), pb.StatusResponse, timeout_s=timeout_s)
        found = [f"{one.type}: {one.message or one.reason}" for one in said.status.conditions if not one.status]
        return "; ".join(found) if said.status.conditions else "it names no condition"

    def has_image(self, image: str, *, timeout_s: float = CALL_S) -> bool:
        """Whether an image is there to be run."""
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image))
        said = self._call("ImageStatus", request, pb.ImageStatusResponse, timeout_s=timeout_s, service="ImageService")
        return bool(said.image.id)

    # ---- sandboxes

    def run_sandbox(self, config: SandboxConfig, *, timeout_s: float = _RUN_SANDBOX_S) -> str:
        """RunPodSandbox: the namespaces, the CNI chain, the pause process. Returns the sandbox's id."""
        request = pb.RunPodSandboxRequest(config=_sandbox_message(config))
        said = self._call("RunPodSandbox", request, pb.RunPodSandboxResponse, timeout_s=timeout_s)
        return said.pod_sandbox_id

    def stop_sandbox(self, sandbox: str, *, timeout_s: float = _RUN_SANDBOX_S) -> None:
        """StopPodSandbox: ends what runs in it and detaches it (CNI DEL). May be repeated."""
        request = pb.StopPodSandboxRequest(pod_sandbox_id=sandbox)
        self._call("StopPodSandbox", request, pb.StopPodSandboxResponse, timeout_s=timeout_s)

    def remove_sandbox(self, sandbox: str, *, timeout_s: float = _RUN_SANDBOX_S) -> None:
        """RemovePodSandbox: nothing of it is left. One that is gone is no error."""
        request = pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
        self._call("RemovePodSandbox", request, pb.RemovePodSandboxResponse, timeout_s=timeout_s)

    def sandbox_status(self, sandbox: str, *, timeout_s: float = CALL_S) -> SandboxStatus:
        """PodSandboxStatus, with the pid that containerd and CRI-O give in its verbose part."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
        said = self._call("PodSandboxStatus", request, pb.PodSandboxStatusResponse, timeout_s=timeout_s)
        return SandboxStatus(
            id=said.status.id,
            uid=said.status.metadata.uid,
            ready=said.status.state == pb.SANDBOX_READY,
            address=said.status.network.ip,
            pid=_pid_in(said.info),
        )

    def list_sandboxes(
        self, labels: Mapping[str, str] | None = None, *, timeout_s: float = CALL_S
    ) -> list[SandboxEntry]:
        """ListPodSandbox: all, or those that bear the labels."""
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(label_selector=dict(labels or {})))
        said = self._call("ListPodSandbox", request, pb.ListPodSandboxResponse, timeout_s=timeout_s)
        return [
            SandboxEntry(one.id, one.metadata.name, one.metadata.namespace, one.state == pb.SANDBOX_READY)
            for one in said.items
        ]

    # ---- containers

    def create_container(
        self,
        sandbox: str,
        config: SandboxConfig,
        *,
        name: str,
        image: str,
        command: Sequence[str] = (),
        attempt: int = 0,
        mounts: Mapping[str, str] | None = None,
        timeout_s: float = CALL_S,
    ) -> str:
        """CreateContainer. Returns its id.

        Args:
            sandbox: The sandbox it joins.
            config: What that sandbox was asked for with.
            name: Its name in the pod.
            image: What it is made from; the runtime has it.
            command: The program and its arguments; the image's own when empty.
            attempt: Counts the containers of that name.
            mounts: Paths in the container, and what of the node is seen there, read-only.
            timeout_s: When to give up.
        """
        container = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image=image),
            command=command,
            mounts=[
                pb.Mount(container_path=inside, host_path=outside, readonly=True)
                for inside, outside in (mounts or {}).items()
            ],
            labels=dict(config.labels),
            linux=pb.LinuxContainerConfig(
                security_context=pb.LinuxContainerSecurityContext(
                    namespace_options=pb.NamespaceOption(pid=pb.CONTAINER)
                )
            ),
            log_path=f"{name}/{attempt}.log" if config.log_directory else "",
        )
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=container, sandbox_config=_sandbox_message(config)
        )
        return self._call("CreateContainer", request, pb.CreateContainerResponse, timeout_s=timeout_s).container_id

    def start_container(self, container: str, *, timeout_s: float = CALL_S) -> None:
        """StartContainer."""
        request = pb.StartContainerRequest(container_id=container)
        self._call("StartContainer", request, pb.StartContainerResponse, timeout_s=timeout_s)

    def stop_container(self, container: str, *, grace_s: int = _STOP_GRACE_S, timeout_s: float = CALL_S) -> None:
        """StopContainer: SIGTERM, and SIGKILL after `grace_s` seconds. One that has ended is no error."""
        request = pb.StopContainerRequest(container_id=container, timeout=grace_s)
        self._call("StopContainer", request, pb.StopContainerResponse, timeout_s=grace_s + timeout_s)

    def remove_container(self, container: str, *, timeout_s: float = CALL_S) -> None:
        """RemoveContainer. One that is gone is no error."""
        request = pb.RemoveContainerRequest(container_id=container)
        self._call("RemoveContainer", request, pb.RemoveContainerResponse, timeout_s=timeout_s)

    def list_containers(self, sandbox: str = "", *, timeout_s: float = CALL_S) -> list[ContainerEntry]:
        """ListContainers: of one sandbox, or all."""
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(pod_sandbox_id=sandbox))
        said = self._call("ListContainers", request, pb.ListContainersResponse, timeout_s=timeout_s)
        return [
            ContainerEntry(
                one.id, one.pod_sandbox_id, one.metadata.name, one.metadata.attempt, _STATES.get(one.state, "unknown")
            )
            for one in said.containers
        ]

    def container_status(self, container: str, *, timeout_s: float = CALL_S) -> ContainerStatus:
        """ContainerStatus, with the pid of its first process (0 when it does not run)."""
        request = pb.ContainerStatusRequest(container_id=container, verbose=True)
        said = self._call("ContainerStatus", request, pb.ContainerStatusResponse, timeout_s=timeout_s)
        status = said.status
        state = _STATES.get(status.state, "unknown")
        return ContainerStatus(
            id=status.id,
            state=state,
            exit_code=status.exit_code,
            reason=status.message or status.reason,
            pid=_pid_in(said.info) if state == "running" else 0,
        )

    def exec_sync(self, container: str, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """ExecSync: run a command in a container to its end; the runtime kills it after `timeout_s` seconds.

        Raises:
            CriError: There is no such program, the container does not run, or (DEADLINE_EXCEEDED) it took longer.
        """
        whole_s = max(1, round(timeout_s))  # 0 would mean: no limit
        request = pb.ExecSyncRequest(container_id=container, cmd=argv, timeout=whole_s)
        try:
            said = self._call("ExecSync", request, pb.ExecSyncResponse, timeout_s=whole_s + CALL_S)
        except CriError as error:
            if error.code != DEADLINE_EXCEEDED:
                raise
            text = f"the command {argv[0]} in container {container[:12]} did not end within {whole_s} s"
            raise CriError(text, code=error.code) from error
        return ExecResult(
            exit_code=said.exit_code,
            stdout=said.stdout.decode(errors="replace"),
            stderr=said.stderr.decode(errors="replace"),
        )

    # ---- one call

    def _call(
        self, method: str, request: Message, answer: type[R], *, timeout_s: float, service: str = "RuntimeService"
    ) -> R:
        call: Any = self._channel.unary_unary(
            f"/{pb.DESCRIPTOR.package}.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            said: R = call(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._explained(method, error, timeout_s) from error
        except ValueError as error:  # the channel was closed meanwhile
            raise CriError(f"{method}: the connection to {self._whose} was closed", code="CANCELLED") from error
        return said

    def _explained(self, method: str, error: grpc.RpcError, timeout_s: float) -> CriError:
        failed = cast("grpc.Call", error)  # what a unary call raises is both
        code, details = failed.code().name, str(failed.details() or "").strip()
        if code == "UNAVAILABLE":
            return CriError(
                f"{method}: {self._whose} does not answer at {self.socket}: {details}",
                code=code,
                hint="does it run? its log is /var/log/containerd.log of the node",
            )
        if code == DEADLINE_EXCEEDED:
            return CriError(f"{method}: {self._whose} did not finish within {timeout_s:g} s: {details}", code=code)
        if code == "UNIMPLEMENTED":
            return CriError(
                f"{method}: {self._whose} does not speak CRI v1: {details}",
                code=code,
                hint="wanted containerd 1.6 or newer with its CRI plugin enabled",
            )
        return CriError(f"{method}: {self._whose} says: {details or 'nothing'} ({code})", code=code)


def _sandbox_message(config: SandboxConfig) -> pb.PodSandboxConfig:
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=config.name, uid=config.uid, namespace=config.namespace),
        hostname=config.name,
        log_directory=config.log_directory,
        port_mappings=[
            pb.PortMapping(
                protocol=port.protocol.upper(),
                container_port=port.container,
                host_port=port.host,
                host_ip=port.host_ip,
            )
            for port in config.ports
        ],
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            # As Kubernetes: each container has processes of its own unless the pod shares them.
            security_context=pb.LinuxSandboxSecurityContext(namespace_options=pb.NamespaceOption(pid=pb.CONTAINER)),
        ),
    )


def _pid_in(info: Mapping[str, str]) -> int:
    """The pid in the verbose part of a status, which is JSON under the key `info`; 0 when it does not say."""
    try:
        pid = json.loads(info.get("info", "{}")).get("pid", 0)
    except (ValueError, AttributeError):
        return 0
    return pid if isinstance(pid, int) else 0
