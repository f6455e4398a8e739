"""A pod's sandbox on an emulated node: a network namespace with its loopback up, and what plugins are told of it."""

import fcntl
import hashlib
import socket
import struct
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from plugin.core.errors import CheckError
from plugin.link import netns
from testbed.machine.space import Space, call


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the runtime tells plugins about a pod. `netns` is a path in the node's mount namespace."""

    pod: str
    container_id: str
    netns: str
    ifname: str = "eth0"
    namespace: str = "default"

    @property
    def cni_args(self) -> tuple[tuple[str, str], ...]:
        """CNI_ARGS as containerd sends them; the UID is made from the container id, so it is the same on every run."""
        return (
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", self.namespace),
            ("K8S_POD_NAME", self.pod),
            ("K8S_POD_INFRA_CONTAINER_ID", self.container_id),
            ("K8S_POD_UID", str(uuid.uuid5(uuid.NAMESPACE_OID, self.container_id))),
        )


def container_id(*names: str) -> str:
    """An id that looks like a runtime's, 64 hex digits, and is the same for the same (lab, node, pod, attempt)."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def make_sandbox(node: Space, path: Path) -> None:
    """A new network namespace, bound at `path` inside the node, its loopback up.

    Raises:
        CheckError: The node has a sandbox of that name already.
        OSError: The kernel refused.
    """

    def make() -> None:  # in a thread that ends afterwards, so it may leave the node's network namespace
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            path.touch(mode=0o444, exist_ok=False)
        except FileExistsError:
            raise CheckError(
                f"node {node.name} has a sandbox named {path.name} already ({path})", hint="delete that pod first"
            ) from None
        try:
            netns.unshare(netns.CLONE_NEWNET)
            _loopback_up()  # runtimes execute the plugin `loopback` for this; not every machine has it
            netns.mount("/proc/thread-self/ns/net", path, flags=netns.MS_BIND)
        except BaseException:
            path.unlink()
            raise

    call(node, make)


def remove_sandbox(node: Space, path: Path) -> None:
    """Let go of a namespace; it is gone when nothing else holds it. Harmless when there is none."""

    def remove() -> None:
        with suppress(OSError):  # EINVAL: never mounted; ENOENT: no such file
            netns.umount(path, netns.MNT_DETACH)
        path.unlink(missing_ok=True)

    call(node, remove)


def _loopback_up() -> None:
    """Set IFF_UP on `lo` of the calling thread's network namespace; the kernel then adds 127.0.0.1 by itself."""
    siocsifflags, iff_up, ifreq = 0x8914, 0x1, "16sH14x"  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, siocsifflags, struct.pack(ifreq, b"lo", iff_up))
