"""What a pod costs: CNI ADD and DEL as whole processes, ours and the reference (bridge with host-local), in turns.

Each contestant has a node of its own: a network namespace with its bridge, at the same MTU, one address for the bridge
and one for every pod, hairpin on, no masquerade rule per pod. The pods' namespaces are made beforehand. A plugin is
started inside its node as a runtime starts it: environment, configuration on stdin, result on stdout.

`one at a time` is ADD and then DEL of one pod; `burst` is ADDs of many pods, so many at once, and then their DELs.
CPU time is that of the processes, and of ours also what the agent used meanwhile; the kernel's own work is not in it.
Between turns there is a pause, so that nobody pays for the other's clean-up, which the kernel does later.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from plugin.core.errors import CheckError, MissingError
from plugin.executables import PLUGIN_TYPE, plugin_executable
from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from testbed.deploy.interpreter import plugin_interpreter
from testbed.lab.agent_api import AgentError, get
from testbed.machine.space import Space, in_thread, kill_group, spawn

OURS: Final = "weavelab"
REFERENCE: Final = "reference"
REFERENCE_DIRS: Final = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
REFERENCE_PLUGINS: Final = ("bridge", "host-local")
CNI_VERSION: Final = "1.0.0"
MTU: Final = 1450
AGENT_START_S: Final = 20.0
PAUSE_S: Final = 0.06
"""Longer than the kernel takes to finish a deletion whose end was already reported."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One call, or a burst of them: from the start of the first process to the end of the last, and their CPU time."""

    wall_s: float
    cpu_s: float


class Contestant(Protocol):
    """A plugin with a node to work in."""

    @property
    def node(self) -> Space:
        """Where it is executed."""

    @property
    def program(self) -> Path:
        """What is executed."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables beyond those of CNI."""

    @property
    def conf(self) -> Mapping[str, Any]:
        """Its configuration."""

    def helper_cpu_s(self) -> float:
        """CPU time of what works for the plugin without being its process."""


@dataclass(slots=True)
class Pod:
    """A pod's namespace and, once attached, its result."""

    name: str
    netns: str
    result: Any = None


def cni(rounds: int, bursts: int, pods: int, at_once: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Measure; `{"one at a time": [round, ...], "burst": [round, ...]}`, a round being `{who: {verb: Cost}}`.

    Raises:
        MissingError: The reference plugins are not installed.
        CheckError: A call failed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-cni-")))
        contestants: dict[str, Contestant] = {
            OURS: stack.enter_context(weavelab(folder)),
            REFERENCE: stack.enter_context(reference(folder)),
        }
        spaces = [stack.enter_context(netns.new_netns()) for _ in range(max(pods, 1))]
        sandboxes = [f"/proc/{os.getpid()}/fd/{fd}" for fd in spaces]
        _warm_up(contestants, sandboxes[0])
        single = []
        for number in range(rounds):
            single.append(_round(contestants, number, sandboxes[:1], at_once=1))
            if (number + 1) % 10 == 0 or number + 1 == rounds:
                told(f"CNI, one at a time, round {number + 1} of {rounds}: " + _told(single[-1], 1e3, "ms"))
        burst = []
        for number in range(bursts):
            burst.append(_round(contestants, number, sandboxes, at_once=at_once))
            told(f"CNI, {pods} pods, {at_once} at once, round {number + 1} of {bursts}: " + _told(burst[-1], 1, "s"))
    return {"one at a time": single, "burst": burst}


def _told(costs: Mapping[str, Mapping[str, Cost]], factor: float, unit: str) -> str:
    return "; ".join(
        f"{who} ADD {of['ADD'].wall_s * factor:.2f}, DEL {of['DEL'].wall_s * factor:.2f} {unit}"
        for who, of in costs.items()
    )


def _warm_up(contestants: Mapping[str, Contestant], sandbox: str) -> None:
    """The first call pays for what later ones find: the reference's bridge, pages of the programs."""
    for contestant in contestants.values():
        _turn(contestant, [Pod("warmup", sandbox)], at_once=1)


def _round(
    contestants: Mapping[str, Contestant], number: int, sandboxes: Sequence[str], *, at_once: int
) -> dict[str, dict[str, Cost]]:
    order = list(contestants) if number % 2 == 0 else list(contestants)[::-1]
    found = {}
    for who in order:
        found[who] = _turn(contestants[who], [Pod(f"r{number}p{i}", s) for i, s in enumerate(sandboxes)], at_once)
    return {who: found[who] for who in contestants}


def _turn(contestant: Contestant, pods: Sequence[Pod], at_once: int) -> dict[str, Cost]:
    costs = {}
    for verb in ("ADD", "DEL"):
        time.sleep(PAUSE_S)
        costs[verb] = _calls(contestant, verb, pods, at_once)
        if verb == "ADD":
            addresses = {address["address"] for pod in pods for address in pod.result["ips"]}
            if len(addresses) != len(pods):
                raise CheckError(f"{contestant.program}: {len(pods)} pods got {len(addresses)} addresses")
    return costs


def _calls(contestant: Contestant, verb: str, pods: Sequence[Pod], at_once: int) -> Cost:
    """The same verb for all pods, so many processes at the same time."""
    waiting = iter(pods)
    lock = threading.Lock()
    cpu_s: list[float] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            fd = netns.open_netns(contestant.node.net)
            try:
                netns.setns(fd, netns.CLONE_NEWNET)
            finally:
                os.close(fd)
            while not failures:
                with lock:
                    pod = next(waiting, None)
                if pod is None:
                    return
                cpu_s.append(_call(contestant, verb, pod))
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread
            failures.append(error)

    def all_of_them() -> Cost:
        workers = [threading.Thread(target=work) for _ in range(min(at_once, len(pods)))]
        helper_s = contestant.helper_cpu_s()
        began_s = time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        wall_s = time.monotonic() - began_s
        return Cost(wall_s, sum(cpu_s) + contestant.helper_cpu_s() - helper_s)

    cost = in_thread(f"bench-{verb}", all_of_them)
    if failures:
        raise failures[0]
    return cost


def _call(contestant: Contestant, verb: str, pod: Pod) -> float:
    """One process, from its start to its end; returns its CPU time in seconds, its children's included.

    Raises:
        CheckError: It failed.
    """
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": f"{pod.name}-{contestant.node.name}",
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(contestant.program.parent),
        **contestant.env,
    }
    conf = dict(contestant.conf) | ({"prevResult": pod.result} if verb == "DEL" else {})
    stdin, stdout = _memory(json.dumps(conf).encode()), _memory(b"")
    try:
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        pid = os.posix_spawn(contestant.program, [str(contestant.program)], env, file_actions=actions)
        _, status, used = os.wait4(pid, 0)
        printed = os.pread(stdout, 1 << 20, 0)
    finally:
        os.close(stdin)
        os.close(stdout)
    if status != 0:
        raise CheckError(f"{verb} by {contestant.program} failed: {printed.decode(errors='replace').strip() or status}")
    if verb == "ADD":
        pod.result = json.loads(printed)
    return used.ru_utime + used.ru_stime


def _memory(content: bytes) -> int:
    fd = os.memfd_create("bench-cni")
    os.pwrite(fd, content, 0)
    return fd


# --- the contestants ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Reference:
    """The reference plugins: nothing runs between calls."""

    node: Space
    program: Path
    env: Mapping[str, str]
    conf: Mapping[str, Any]

    def helper_cpu_s(self) -> float:
        """Nobody helps."""
        return 0.0


@contextmanager
def reference(folder: Path) -> Iterator[Reference]:
    """`bridge` with `host-local`.

    Raises:
        MissingError: They are not installed.
    """
    directory = reference_directory()
    conf = {
        "cniVersion": CNI_VERSION, "name": "reference", "type": "bridge", "bridge": "cni0", "mtu": MTU,
        "isGateway": True, "hairpinMode": True,
        "ipam": {
            "type": "host-local", "dataDir": str(folder / "host-local"),
            "ranges": [[{"subnet": "10.64.0.0/12"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    }  # fmt: skip
    with _node(REFERENCE) as node:
        yield Reference(node, directory / "bridge", {}, conf)


def reference_directory() -> Path:
    """Where the reference plugins are.

    Raises:
        MissingError: Nowhere that distributions put them.
    """
    for directory in map(Path, REFERENCE_DIRS):
        if all(os.access(directory / name, os.X_OK) for name in REFERENCE_PLUGINS):
            return directory
    raise MissingError(
        f"wanted the reference CNI plugins {' and '.join(REFERENCE_PLUGINS)}, found them in none of "
        + ", ".join(REFERENCE_DIRS),
        hint="`make bench-cni` installs them (package containernetworking-plugins)",
    )


@dataclass(frozen=True, slots=True)
class Weavelab:
    """Our plugin, and the agent that does its work."""

    node: Space
    program: Path
    env: Mapping[str, str]
    conf: Mapping[str, Any]
    agent_pid: int

    def helper_cpu_s(self) -> float:
        """What the agent has used since its start, from the kernel's scheduler (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.agent_pid << 3) | 2)


@contextmanager
def weavelab(folder: Path) -> Iterator[Weavelab]:
    """The executable as it is deployed, and an agent without peers.

    Raises:
        CheckError: The agent does not start.
    """
    program = folder / "bin" / PLUGIN_TYPE
    program.parent.mkdir()
    program.write_bytes(plugin_executable(str(plugin_interpreter())))
    program.chmod(0o755)
    socket = folder / "weave.sock"
    config = {
        "name": OURS, "node_address": "192.168.56.11", "api_socket": str(socket), "http_address": "",
        "state_directory": str(folder / "state"),
    }  # fmt: skip
    (folder / "agent.json").write_text(json.dumps(config))
    env = {"WEAVE_SOCKET": str(socket), "WEAVE_DEL_QUEUE": str(folder / "state" / "del-queue")}
    conf = {"cniVersion": CNI_VERSION, "name": "weave", "type": PLUGIN_TYPE, "mtu": MTU, "hairpinMode": True}
    with _node(OURS) as node:
        log = folder / "agent.log"
        with log.open("wb") as said:
            argv = [sys.executable, "-m", "plugin.agent", "--config", str(folder / "agent.json")]
            agent = spawn(node, argv, stdout=said, stderr=said, cwd=Path(__file__).parents[1])
        try:
            _wait_until_ready(socket, lambda: agent.poll() is None, log)
            yield Weavelab(node, program, env, conf, agent.pid)
        finally:
            kill_group(agent)
            agent.wait()


def _wait_until_ready(socket: Path, runs: Callable[[], bool], log: Path) -> None:
    deadline_s = time.monotonic() + AGENT_START_S
    while runs() and time.monotonic() < deadline_s:
        try:
            if get(socket, "/status")[0] == 200:
                return
        except AgentError:
            pass  # it has not begun to listen
        time.sleep(0.02)
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise CheckError(f"the agent is not ready after {AGENT_START_S:g} s: {' '.join(last)}")


@contextmanager
def _node(name: str) -> Iterator[Space]:
    """A network namespace without a name, with an uplink; it hangs on this process."""
    with netns.new_netns() as fd, Netlink(fd) as link:
        link.request(
            rtnl.link_set(1, up=True),
            rtnl.veth_add(rtnl.VethEnd(name="eth0", index=2, mtu=1500), rtnl.VethEnd(name="far", index=3, mtu=1500)),
            rtnl.link_set(2, up=True),
            rtnl.link_set(3, up=True),
            rtnl.address_add(2, IPv4Interface("192.168.56.11/24")),
        )
        yield Space(name, net=Path(f"/proc/{os.getpid()}/fd/{fd}"))
