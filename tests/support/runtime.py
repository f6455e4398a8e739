"""A container runtime that runs the executable `weave-net` as deployed against an agent of `Cluster`, and looks for leaks.

The executable needs nothing of the node but the agent's socket, so it is started here, as many at once as one likes.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from plugin.agent.store import Store
from plugin.core.ipam.allocator import EXPOSE
from plugin.executables import plugin_executable
from plugin.link import netns
from plugin.link.pods import MAC_PREFIX
from testbed.machine.space import run
from tests.support.cluster import CONF, Cluster, wait_for

T = TypeVar("T")
CONF_110 = CONF | {"cniVersion": "1.1.0"}


@dataclass(frozen=True)
class Ran:
    """How a call ended; `code` is negative for the signal that ended it."""

    code: int
    stdout: str
    stderr: str = ""

    @property
    def result(self) -> Any:
        assert (self.code, self.stderr) == (0, ""), self
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        assert (self.code, self.stderr) == (1, ""), self
        return json.loads(self.stdout)

    @property
    def address(self) -> str:
        """The pod's address: the last one, behind those of an earlier plugin; results of 0.1.0 and 0.2.0 have only one."""
        result = self.result
        found = result["ips"][-1]["address"] if "ips" in result else result["ip4"]["ip"]
        return str(found.partition("/")[0])


class Call:
    """One process of the executable; it reads from and writes into memory, so it never waits for us."""

    def __init__(self, program: Path, env: dict[str, str], stdin: bytes) -> None:
        self._fds = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        os.pwrite(self._fds[0], stdin, 0)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self._fds)]
        self.pid = os.posix_spawn(program, [str(program)], env, file_actions=actions)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> Ran:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        _, stdout, stderr = (os.pread(fd, 1 << 20, 0).decode() for fd in self._fds)
        for fd in self._fds:
            os.close(fd)
        return Ran(os.waitstatus_to_exitcode(status), stdout, stderr)


class Runtime:
    """The runtime of one node of the cluster."""

    def __init__(self, cluster: Cluster, number: int = 1) -> None:
        self.cluster, self.number = cluster, number
        self.program = cluster.tmp / f"bin{number}" / "weave-net"
        self.program.parent.mkdir(exist_ok=True)
        self.program.write_bytes(plugin_executable(os.path.realpath(sys.executable)))
        self.program.chmod(0o755)
        self.directory = cluster.tmp / f"d{number}"
        self.env = {
            "WEAVE_SOCKET": str(self.directory / "weave.sock"),
            "WEAVE_DEL_QUEUE": str(self.queue),
            "WEAVE_ADD_WAIT_S": "20",
        }

    @property
    def queue(self) -> Path:
        return self.directory / "state" / "del-queue"

    def sandbox(self) -> str:
        """A pod's namespace: a path that is good until the test ends."""
        return f"/proc/{os.getpid()}/fd/{self.cluster.stack.enter_context(netns.new_netns())}"

    def start(
        self,
        verb: str,
        container: str,
        sandbox: str = "",
        *,
        ifname: str = "eth0",
        conf: Any = CONF,
        stdin: bytes | None = None,
        **env: str,
    ) -> Call:
        """Start one call and do not wait for it; `stdin` is what is sent instead of a configuration."""
        variables = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": sandbox, "CNI_IFNAME": ifname,
            "CNI_PATH": "/opt/cni/bin",
        }  # fmt: skip
        return Call(self.program, variables | self.env | env, json.dumps(conf).encode() if stdin is None else stdin)

    def call(self, verb: str, container: str, sandbox: str = "", **options: Any) -> Ran:
        """One call from its start to its end."""
        return self.start(verb, container, sandbox, **options).end()

    def delete(self, container: str, sandbox: str = "", **options: Any) -> None:
        """A DEL, which has to succeed and to say nothing."""
        assert self.call("DEL", container, sandbox, **options) == Ran(0, "")

    def gc(self, *valid: tuple[str, str], key: str = "cni.dev/valid-attachments", name: str = "weave") -> None:
        """Garbage collection with a list of (container id, interface name)."""
        listed = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
        assert self.call("GC", "", conf=CONF_110 | {"name": name, key: listed}) == Ran(0, "")

    # --- what is there ----------------------------------------------------------------------------------------------
    def recorded(self) -> set[tuple[str, str]]:
        """The attachments (container id, interface name) in the journal on the disk; the agent may be running."""
        copy = self.cluster.tmp / f"journal{self.number}"
        copy.mkdir(exist_ok=True)
        (copy / "attachments.journal").write_bytes((self.directory / "state" / "attachments.journal").read_bytes())
        store = Store(copy)
        try:
            return {(key[1], key[2]) for key in store.load().records if key != EXPOSE}
        finally:
            store.close()

    def traces(self) -> dict[str, Any]:
        """All that attachments leave on a node and on its peers: equal before and after when nothing has leaked."""
        cluster, number = self.cluster, self.number
        report = cluster.report(number)
        rules = run(cluster.nodes[number], ["nft", "list", "ruleset"], timeout_s=10).stdout
        with cluster.netlink(cluster.nodes[number]) as node:
            weave = next(link.index for link in node.links() if link.name == "weave")
            ports = {link.name for link in node.links() if link.master == weave}
            fdb = {entry.mac for entry in node.fdb() if entry.master and entry.mac.startswith(MAC_PREFIX)}
        return {
            "ports of the bridge": ports,
            "forwarding entries": fdb,
            "addresses held": cluster.held(number),
            "records on the disk": self.recorded(),
            "queued DELs": set(self.queue.iterdir()) if self.queue.exists() else set(),
            "rules": rules,
            "neighbours": set(report["forwarding"]["neighbours"]),
            "neighbours on peers": {
                other: set(cluster.report(other)["forwarding"]["neighbours"]) for other in cluster.agents
            },
            "descriptors of the agent": len(descriptors(cluster.agents[number].pid)),
        }

    def assert_no_traces_but(self, before: dict[str, Any]) -> None:
        """Nothing is there that was not there before; peers hear of it a moment later, descriptors are closed then."""
        found: dict[str, Any] = {}

        def same() -> bool:
            found.update(self.traces())
            return found == before

        try:
            wait_for(same, "a node without leftovers")
        except AssertionError:
            differ = {name: (found[name], before[name]) for name in before if found[name] != before[name]}
            raise AssertionError(
                f"left behind (found, wanted): {differ}\n{self.cluster.log(self.number)[-4000:]}"
            ) from None


def descriptors(pid: int, *kinds: str) -> list[str]:
    """The sockets and network namespaces that a process holds."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(path.readlink()))
    return [text for text in found if text.startswith(kinds or ("socket:", "net:"))]


def at_once(workers: int, work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do the work for every item, so many at a time; the first failure is raised when all workers have stopped."""
    waiting = iter(list(items))
    lock = threading.Lock()
    failures: list[BaseException] = []

    def body() -> None:
        try:
            while not failures:
                with lock:
                    item = next(waiting)
                work(item)
        except StopIteration:
            return
        except BaseException as error:  # noqa: BLE001 - raised below, by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
