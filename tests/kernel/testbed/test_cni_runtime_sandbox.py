"""Sandboxes and a whole ADD and DEL in real namespaces; only the agent is a stand-in that keeps what it was given."""

import array
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from plugin.core.cni.request import parse_request
from plugin.core.cni.result import result_json
from plugin.core.cni.types import Attached
from plugin.core.errors import CheckError
from plugin.executables import plugin_executable
from testbed.kubelet.cni_runtime import CniRuntime
from testbed.kubelet.sandbox import Sandbox, container_id
from testbed.lab.cni_call import CniCallError
from testbed.machine.space import Space, call

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]

MAKE_NODE = (
    "mount -t tmpfs node /run && mkdir -p /run/netns /run/weave /run/cni /run/bin && echo ready && exec sleep 300"
)


@pytest.fixture
def node() -> Iterator[Space]:
    """A bare node: own network and mounts, an empty /run. It ends with its one process."""
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", MAKE_NODE], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield Space("one", Path(f"/proc/{holder.pid}/ns/net"), Path(f"/proc/{holder.pid}/ns/mnt"))
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.fixture
def runtime(node: Space) -> CniRuntime:
    def deploy() -> None:
        program = Path("/run/bin/weave-net")
        program.write_bytes(plugin_executable(os.path.realpath(sys.executable)))
        program.chmod(0o755)
        conflist = {"cniVersion": "1.0.0", "name": "weave", "plugins": [{"type": "weave-net"}]}
        Path("/run/cni/10-weave.conflist").write_text(json.dumps(conflist))

    call(node, deploy)
    return CniRuntime(node, conf_dir=Path("/run/cni"), bin_dirs=["/run/bin"], cache_dir=Path("/run/results"))


@dataclass
class Agent:
    """Listens inside the node, notes (verb, inode of the namespace it was handed) and answers."""

    node: Space
    calls: list[tuple[str, int]] = field(default_factory=list)

    def __enter__(self) -> Self:
        def listen() -> socket.socket:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("/run/weave/weave.sock")
            listener.listen()
            return listener

        self.listener = call(self.node, listen)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
                request = parse_request(data.partition(b"\r\n\r\n")[2])
                (descriptor,) = array.array("i", ancillary[0][2]) if ancillary else (-1,)
                self.calls.append((request.command, os.fstat(descriptor).st_ino if descriptor >= 0 else 0))
                if descriptor >= 0:
                    os.close(descriptor)
                attached = Attached("weave", "", "vethwepl", "", "eth0", "", request.netns, 1450, ())
                body = result_json(request, attached).encode() if request.command == "ADD" else b""
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def test_a_sandbox_is_a_network_namespace_with_only_its_loopback_up(node: Space, runtime: CniRuntime) -> None:
    path = runtime.make_sandbox("red")
    assert path == Path("/run/netns/red")
    links = call(Space("red", pinned(node, path)), lambda: Path("/proc/thread-self/net/dev").read_text())
    assert [line.split(":")[0].strip() for line in links.splitlines()[2:]] == ["lo"]
    answer = call(Space("red", pinned(node, path)), reach_myself)
    assert answer == b"hello"
    assert not Path("/run/netns/red").exists()  # the machine's own /run is untouched


def test_a_sandbox_exists_once_and_is_removed_as_often_as_one_likes(node: Space, runtime: CniRuntime) -> None:
    runtime.make_sandbox("red")
    with pytest.raises(CheckError, match="has a sandbox named red already"):
        runtime.make_sandbox("red")
    for _ in range(2):
        runtime.remove_sandbox("red")
    assert call(node, lambda: list(Path("/run/netns").iterdir())) == []


def test_a_pod_lives_and_ends_through_the_real_plugin(node: Space, runtime: CniRuntime) -> None:
    sandbox = Sandbox("red", container_id("lab", "one", "red"), str(runtime.make_sandbox("red")))
    inode = call(node, lambda: Path(sandbox.netns).stat().st_ino)
    with Agent(node) as agent:
        added = runtime.add(sandbox)
        runtime.check(sandbox)
        runtime.delete(sandbox)
        runtime.remove_sandbox("red")
        runtime.delete(sandbox)
    assert agent.calls == [("ADD", inode), ("CHECK", inode), ("DEL", inode), ("DEL", 0)]
    assert added.result["interfaces"][2] == {"name": "eth0", "mac": "", "sandbox": "/run/netns/red"}
    assert added.host_ifname == "vethwepl"


def test_the_nodes_own_namespace_is_never_handed_over(node: Space, runtime: CniRuntime) -> None:
    call(node, lambda: Path("/run/own").symlink_to("/proc/self/ns/net"))
    with pytest.raises(CniCallError, match="should not be the same"):
        runtime.add(Sandbox("red", container_id("x"), "/run/own"))


def pinned(node: Space, path: Path) -> Path:
    """A path of the node as the machine sees it."""
    assert node.mnt is not None
    return Path(f"/proc/{node.mnt.parts[2]}/root{path}")


def reach_myself() -> bytes:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"hello")
        return client.recv(16)
