"""What is said to a runtime and what it says, as plain values: nobody but the client knows the generated messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the node that leads to a port of the pod; `host_ip` empty: at every address of the node."""

    host: int
    container: int
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What a kubelet asks for when it asks for a sandbox.

    Attributes:
        name: The pod; also its host name.
        uid: Its unique id; a pod of the same name that comes later has another.
        namespace: Its Kubernetes namespace.
        cgroup_parent: The cgroup that those of its containers are made in, from the root of the hierarchy.
        log_directory: Where the output of its containers is kept, on the node; empty: nowhere.
        ports: Handed to the CNI plugins that declare the capability `portMappings`.
        labels: What it can be found by.
        annotations: What the runtime itself reads: limits of bandwidth.
    """

    name: str
    uid: str
    namespace: str = "default"
    cgroup_parent: str = ""
    log_directory: str = ""
    ports: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """A sandbox. `address` is empty and `pid` 0 once it is stopped; `pid` is that of its pause process."""

    id: str
    uid: str
    ready: bool
    address: str
    pid: int


@dataclass(frozen=True, slots=True)
class SandboxEntry:
    """A line of the list of sandboxes."""

    id: str
    name: str
    namespace: str
    ready: bool


ContainerState = Literal["created", "running", "exited", "unknown"]


@dataclass(frozen=True, slots=True)
class ContainerEntry:
    """A container; `attempt` counts those of its name in the sandbox."""

    id: str
    sandbox: str
    name: str
    attempt: int
    state: ContainerState


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """How a container fares; `exit_code` and `reason` say something once it has exited."""

    id: str
    state: ContainerState
    exit_code: int
    reason: str
    pid: int


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command inside a container left behind; bytes that are no UTF-8 are replaced."""

    exit_code: int
    stdout: str
    stderr: str
