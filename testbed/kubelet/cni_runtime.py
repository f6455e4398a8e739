"""The runtime of an emulated kubelet: makes a sandbox and executes the CNI chain of its node, as containerd does.

What it does is what libcni and containerd's go-cni do (github.com/containernetworking/cni/libcni,
github.com/containerd/go-cni):

    make_sandbox     a network namespace of the pod's own, with its loopback up
    add              ADD of every plugin of the first configuration, in order; the result of each is the prevResult of
                     the next; the last result is cached. If one fails, DEL of the chain in reverse.
    check, delete    with the cached result as prevResult; DEL in reverse order

Everything happens inside the node's namespaces: the configuration, the plugins and the cache are the node's own. There
is no way past the plugin: what a pod has, a plugin has given it. Every execution is recorded as it was (`CniCall`). How
one plugin is executed is in execution.py, the cache in result_cache.py, the namespace in sandbox.py.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

from plugin.core.cni.types import at_least
from plugin.core.errors import said_by
from testbed.kubelet.execution import Executor, demand_success, result_of
from testbed.kubelet.result_cache import ResultCache
from testbed.kubelet.sandbox import Sandbox, make_sandbox, remove_sandbox
from testbed.lab.cni_call import CniCall, CniCallError
from testbed.machine.space import Space, call
from testbed.topology.cni_conf import Json, NetworkList, NetworkListError, parse_network_list

_CONF_DIR: Final = Path("/etc/cni/net.d")
_BIN_DIRS: Final = ("/opt/cni/bin",)
_CACHE_DIR: Final = Path("/var/lib/cni/results")
NETNS_DIR: Final = Path("/run/netns")
CALL_TIMEOUT_S: Final = 60.0  # twice what our plugin may take; the kubelet allows two minutes for the whole pod
_CONF_SUFFIXES: Final = (".conf", ".conflist", ".json")  # what go-cni reads


@dataclass(frozen=True, slots=True)
class Added:
    """The outcome of ADD: the last result of the chain, and what was executed for it."""

    sandbox: Sandbox
    result: Mapping[str, Any]
    calls: tuple[CniCall, ...]

    @property
    def address(self) -> IPv4Interface | None:
        """The pod's first IPv4 address, with its prefix."""
        texts = [str(entry["address"]) for entry in self.result.get("ips", []) if ":" not in entry["address"]]
        return IPv4Interface(texts[0]) if texts else None

    @property
    def mac(self) -> str:
        """The MAC address of the pod's interface, or the empty string."""
        return next((entry.get("mac", "") for entry in self._interfaces(inside=True)), "")

    @property
    def host_ifname(self) -> str:
        """The host side of the pod's veth pair: the last interface without a sandbox; the bridge comes before it."""
        names = [str(entry["name"]) for entry in self._interfaces(inside=False)]
        return names[-1] if names else ""

    def _interfaces(self, *, inside: bool) -> list[Json]:
        interfaces: list[Json] = self.result.get("interfaces", [])
        if inside:
            return [entry for entry in interfaces if entry.get("sandbox") and entry.get("name") == self.sandbox.ifname]
        return [entry for entry in interfaces if not entry.get("sandbox")]


class CniRuntime:
    """The runtime of one node.

    Args:
        node: How to enter the node. Paths below are paths inside it.
        bin_dirs: Where plugins are looked up: CNI_PATH.
        timeout_s: How long one plugin may run.
    """

    def __init__(
        self,
        node: Space,
        *,
        conf_dir: Path = _CONF_DIR,
        bin_dirs: Sequence[str] = _BIN_DIRS,
        cache_dir: Path = _CACHE_DIR,
        netns_dir: Path = NETNS_DIR,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.node = node
        self._conf_dir = conf_dir
        self._executor = Executor(node, bin_dirs=bin_dirs, timeout_s=timeout_s)
        self._cache = ResultCache(node, cache_dir)
        self._netns_dir = netns_dir

    # ---- verbs

    def add(self, sandbox: Sandbox, *, capabilities: Mapping[str, Any] | None = None) -> Added:
        """Attach a sandbox: ADD of every plugin in order.

        Args:
            sandbox: The pod; its namespace exists.
            capabilities: Values of capabilities, such as `{"portMappings": [...]}`. A plugin is given those that its
                configuration declares.

        Raises:
            CniCallError: No usable configuration, or a plugin failed; then DEL of the chain has been called.
        """
        network = self.network()
        calls: list[CniCall] = []
        previous: Json | None = None
        try:
            for config in network.plugins:
                recorded = self._executor.execute("ADD", network, config, sandbox, previous, capabilities)
                calls.append(recorded)
                previous = result_of(recorded, network, sandbox)
        except CniCallError as error:
            # What a runtime does: the whole chain, also those never reached. A plugin's DEL must bear that.
            calls.extend(self._undo(network, sandbox, capabilities))
            raise CniCallError(error.message, hint=error.hint, code=error.code, calls=[*calls]) from error
        assert previous is not None, "a configuration has at least one plugin"
        self._cache.keep(network, sandbox, previous, capabilities)
        return Added(sandbox=sandbox, result=previous, calls=tuple(calls))

    def check(self, sandbox: Sandbox, *, capabilities: Mapping[str, Any] | None = None) -> tuple[CniCall, ...]:
        """Ask every plugin whether the attachment is as it was made. Nothing is asked when `disableCheck` is set.

        Without `capabilities` the plugins are given those of the ADD.

        Raises:
            CniCallError: A plugin found a difference, or the sandbox was never attached.
        """
        network = self.network()
        if network.disable_check:
            return ()
        previous = self._cache.read(network, sandbox, "result")
        if previous is None:
            raise CniCallError(
                f"CHECK of pod {sandbox.pod} needs the result of its ADD, which is not in {self._cache.folder}",
                hint="was the pod attached on this node, and by this runtime?",
            )
        capabilities = self._cache.read(network, sandbox, "capabilityArgs") if capabilities is None else capabilities
        calls = []
        for config in network.plugins:
            calls.append(self._executor.execute("CHECK", network, config, sandbox, previous, capabilities))
            demand_success(calls[-1], sandbox, calls)
        return tuple(calls)

    def delete(self, sandbox: Sandbox, *, capabilities: Mapping[str, Any] | None = None) -> tuple[CniCall, ...]:
        """Detach a sandbox: DEL of every plugin in reverse order. Safe to repeat.

        Without `capabilities` the plugins are given those of the ADD.

        Raises:
            CniCallError: A plugin failed; a runtime would call again later.
        """
        network = self.network()
        previous = self._cache.read(network, sandbox, "result") if at_least(network.cni_version, "0.4.0") else None
        capabilities = self._cache.read(network, sandbox, "capabilityArgs") if capabilities is None else capabilities
        calls = []
        for config in reversed(network.plugins):
            calls.append(self._executor.execute("DEL", network, config, sandbox, previous, capabilities))
            demand_success(calls[-1], sandbox, calls)
        self._cache.forget(network, sandbox)
        return tuple(calls)

    def _undo(self, network: NetworkList, sandbox: Sandbox, capabilities: Mapping[str, Any] | None) -> list[CniCall]:
        """DEL after a failed ADD. Its own errors are recorded in the calls and do not hide the first one."""
        calls = []
        for config in reversed(network.plugins):
            with suppress(CniCallError):
                calls.append(self._executor.execute("DEL", network, config, sandbox, None, capabilities))
        return calls

    # ---- sandboxes

    def make_sandbox(self, pod: str) -> Path:
        """A sandbox for a pod, at /run/netns/<pod> of the node. Returns that path; raises as `sandbox.make_sandbox`."""
        path = self._netns_dir / pod
        make_sandbox(self.node, path)
        return path

    def remove_sandbox(self, pod: str) -> None:
        """Let go of a pod's sandbox. Harmless when there is none."""
        remove_sandbox(self.node, self._netns_dir / pod)

    # ---- configuration

    def network(self) -> NetworkList:
        """The first configuration of the node in the order of names, which is the one that a runtime uses.

        Raises:
            CniCallError: There is none, or the first one is invalid.
        """
        files = call(self.node, self._conf_files)
        if not files:
            raise CniCallError(
                f"cni config uninitialized: no network config found in {self._conf_dir} of node {self.node.name}",
                hint="a node stays NotReady until its network add-on writes one; deploy weave to it",
            )
        path = files[0]
        try:
            source = call(self.node, lambda: path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CniCallError(f"cannot read {path} of node {self.node.name}: {said_by(error)}") from error
        try:
            return parse_network_list(path, source)
        except NetworkListError as error:
            raise CniCallError(error.message, hint=error.hint) from error

    def _conf_files(self) -> list[Path]:
        try:
            return sorted(path for path in self._conf_dir.iterdir() if path.suffix in _CONF_SUFFIXES and path.is_file())
        except FileNotFoundError:
            return []

    def result_of(self, sandbox: Sandbox) -> Json | None:
        """The cached result of a sandbox's ADD, whichever runtime made it; None when there is none.

        Raises:
            CniCallError: The node has no usable configuration.
        """
        return self._cache.read(self.network(), sandbox, "result")
