"""A container runtime on a node of a `Cluster`: it executes the deployed `weave-net` and what else is in CNI_PATH."""

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from plugin.executables import plugin_executable
from plugin.link import netns
from plugin.link.netlink import Link
from testbed.machine.space import Space, run
from tests.support.cluster import Cluster
from tests.support.witness import Witness

DEBIAN_PLUGINS = Path("/usr/lib/cni")
CONF = {"cniVersion": "1.0.0", "name": "weave", "type": "weave-net"}


def needs_plugins(*names: str) -> pytest.MarkDecorator:
    """Skip, with a reason, where the reference plugins are not installed."""
    missing = [name for name in names if not (DEBIAN_PLUGINS / name).is_file()]
    why = f"needs the package containernetworking-plugins: no {', '.join(missing)} in {DEBIAN_PLUGINS}"
    return pytest.mark.skipif(bool(missing), reason=why)


@dataclass(frozen=True)
class Answer:
    """What one call came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        assert self.code == 1, self
        error = json.loads(self.stdout)
        assert set(error) <= {"cniVersion", "code", "msg", "details"}, "nothing but an error object"
        return error

    def succeeded(self) -> None:
        """A verb without a result prints nothing."""
        assert (self.code, self.stdout) == (0, ""), self


class Runtime:
    """What libcni does for one plugin on one node, with the node's namespace and a CNI_PATH of its own."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.number, self.node = cluster, number, cluster.nodes[number]
        self.folder = cluster.tmp / f"d{number}"
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        self.path = f"{self.bin}:{DEBIAN_PLUGINS}"
        first, *rest = plugin_executable(os.path.realpath(sys.executable)).splitlines(keepends=True)
        # Its source, since what is compiled cannot be given other paths, and a chain's runtime sets the environment.
        text = first + b"".join(line[2:] for line in rest if line.startswith(b"#|"))
        text = text.replace(b"/run/weave/weave.sock", str(self.folder / "weave.sock").encode())
        text = text.replace(b"/var/lib/weave/del-queue", str(self.queue).encode())
        self.install("weave-net", text)

    @property
    def queue(self) -> Path:
        return self.folder / "state" / "del-queue"

    def install(self, name: str, text: bytes | str) -> Path:
        """A plugin in CNI_PATH, before those of the package."""
        program = self.bin / name
        program.write_bytes(text if isinstance(text, bytes) else text.encode())
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    def environment(self, verb: str, pod: Space | None, **changes: str | None) -> dict[str, str]:
        """The variables of a call; None takes one away."""
        variables: dict[str, str | None] = {"CNI_COMMAND": verb, "CNI_PATH": self.path, "PATH": os.environ["PATH"]}
        if pod is not None:
            variables |= {"CNI_CONTAINERID": pod.name * 3, "CNI_NETNS": str(pod.net), "CNI_IFNAME": "eth0"}
        return {name: value for name, value in (variables | changes).items() if value is not None}

    def call(
        self, verb: str, conf: dict[str, Any], pod: Space | None = None, *, plugin: str = "weave-net", **env: str | None
    ) -> Answer:
        """Execute a plugin once; further keywords are variables."""
        done = run(
            self.node, [str(self.bin / plugin)], timeout_s=60, stdin=json.dumps(CONF | conf).encode(),
            env=self.environment(verb, pod, **env),
        )  # fmt: skip
        assert not done.timed_out, done
        return Answer(done.returncode, done.stdout, done.stderr)

    def add(self, conf: dict[str, Any], name: str, **env: str | None) -> tuple[Space, dict[str, Any]]:
        """A new pod, and the result of its ADD."""
        pod = self.cluster.space(name)
        return pod, self.attach(conf, pod, **env)

    def attach(self, conf: dict[str, Any], pod: Space, **env: str | None) -> dict[str, Any]:
        """The result of an ADD that succeeds."""
        return self.call("ADD", conf, pod, **env).result

    def inside(self, pod: Space) -> "Inside":
        """What the kernel has in a pod, by our own netlink and by the independent witness."""
        return Inside(self.cluster, pod)

    def nothing_left(self) -> None:
        """No pod on the node, no address held, no call waiting."""
        assert self.cluster.pod_links(self.number) == set()
        assert self.cluster.report(self.number)["attachments"] == []
        assert not self.queue.exists() or list(self.queue.iterdir()) == []


class Inside:
    """A pod's namespace."""

    def __init__(self, cluster: Cluster, pod: Space) -> None:
        self._cluster, self._pod = cluster, pod

    @property
    def links(self) -> dict[str, Link]:
        with self._cluster.netlink(self._pod) as inside:
            return {link.name: link for link in inside.links()}

    def addresses(self, name: str = "eth0") -> list[str]:
        fd = netns.open_netns(self._pod.net)
        try:
            return sorted(Witness(fd).addresses(name))
        finally:
            os.close(fd)

    def routes(self) -> dict[str, str | None]:
        """Destination to gateway."""
        fd = netns.open_netns(self._pod.net)
        try:
            return {str(destination): gateway for destination, (gateway, _) in Witness(fd).routes().items()}
        finally:
            os.close(fd)
