"""The runtime of an emulated kubelet: makes a sandbox and executes the CNI chain of its node, as containerd does.

What it does is what libcni and containerd's go-cni do (github.com/containernetworking/cni/libcni,
github.com/containerd/go-cni):

    make_sandbox     a network namespace of the pod's own, with its loopback up
    add              ADD of every plugin of the first configuration, in order; the result of each is the prevResult of
                     the next; the last result is cached. If one fails, DEL of the chain in reverse.
    check, delete    with the cached result as prevResult; DEL in reverse order

Everything happens inside the node's namespaces: the configuration, the plugins and the cache are the node's own. There
is no way past the plugin: what a pod has, a plugin has given it. Every execution is recorded as it was (`CniCall`).
"""

import base64
import fcntl
import hashlib
import json
import os
import socket
import struct
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Final

from plugin.core.cni.types import at_least
from plugin.core.errors import CheckError
from plugin.link import netns
from testbed.machine.space import Completed, Space, call, run
from testbed.topology.cni_conf import CniCall, CniCallError, Json, NetworkList, parse_network_list, plugin_config

CONF_DIR: Final = Path("/etc/cni/net.d")
BIN_DIRS: Final = ("/opt/cni/bin",)
CACHE_DIR: Final = Path("/var/lib/cni/results")
NETNS_DIR: Final = Path("/run/netns")
CALL_TIMEOUT_S: Final = 60.0  # twice what our plugin may take; the kubelet allows two minutes for the whole pod
_CONF_SUFFIXES: Final = (".conf", ".conflist", ".json")  # what go-cni reads
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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


def container_id(*names: str) -> str:
    """An id that looks like a runtime's, 64 hex digits, and is the same for the same (lab, node, pod, attempt)."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


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
        conf_dir: Path = CONF_DIR,
        bin_dirs: Sequence[str] = BIN_DIRS,
        cache_dir: Path = CACHE_DIR,
        netns_dir: Path = NETNS_DIR,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.node = node
        self._conf_dir = conf_dir
        self._bin_dirs = tuple(bin_dirs)
        self._cache_dir = cache_dir
        self._netns_dir = netns_dir
        self._timeout_s = timeout_s

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
                recorded = self._execute("ADD", network, config, sandbox, previous, capabilities)
                calls.append(recorded)
                previous = _result(recorded, network, sandbox)
        except CniCallError as error:
            # What a runtime does: the whole chain, also those never reached. A plugin's DEL must bear that.
            calls.extend(self._undo(network, sandbox, capabilities))
            raise CniCallError(error.message, hint=error.hint, code=error.code, calls=[*calls]) from error
        assert previous is not None, "a configuration has at least one plugin"
        self._cache(network, sandbox, previous, capabilities)
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
        previous = self._cached(network, sandbox, "result")
        if previous is None:
            raise CniCallError(
                f"CHECK of pod {sandbox.pod} needs the result of its ADD, which is not in {self._cache_dir}",
                hint="was the pod attached on this node, and by this runtime?",
            )
        capabilities = self._cached(network, sandbox, "capabilityArgs") if capabilities is None else capabilities
        calls = []
        for config in network.plugins:
            calls.append(self._execute("CHECK", network, config, sandbox, previous, capabilities))
            _demand_success(calls[-1], sandbox, calls)
        return tuple(calls)

    def delete(self, sandbox: Sandbox, *, capabilities: Mapping[str, Any] | None = None) -> tuple[CniCall, ...]:
        """Detach a sandbox: DEL of every plugin in reverse order. Safe to repeat.

        Without `capabilities` the plugins are given those of the ADD.

        Raises:
            CniCallError: A plugin failed; a runtime would call again later.
        """
        network = self.network()
        previous = self._cached(network, sandbox, "result") if at_least(network.cni_version, "0.4.0") else None
        capabilities = self._cached(network, sandbox, "capabilityArgs") if capabilities is None else capabilities
        calls = []
        for config in reversed(network.plugins):
            calls.append(self._execute("DEL", network, config, sandbox, previous, capabilities))
            _demand_success(calls[-1], sandbox, calls)
        call(self.node, lambda: self._cache_path(network, sandbox).unlink(missing_ok=True))
        return tuple(calls)

    # ---- sandboxes

    def make_sandbox(self, pod: str) -> Path:
        """A new network namespace for a pod, bound at /run/netns/<pod> of the node, its loopback up. Returns that path.

        Raises:
            CheckError: The node has a sandbox of that name already.
            OSError: The kernel refused.
        """
        path = self._netns_dir / pod

        def make() -> None:  # in a thread that ends afterwards, so it may leave the node's network namespace
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                path.touch(mode=0o444, exist_ok=False)
            except FileExistsError:
                raise CheckError(
                    f"node {self.node.name} has a sandbox named {pod} already ({path})", hint="delete that pod first"
                ) from None
            try:
                netns.unshare(netns.CLONE_NEWNET)
                _loopback_up()  # runtimes execute the plugin `loopback` for this; not every machine has it
                netns.mount("/proc/thread-self/ns/net", path, flags=netns.MS_BIND)
            except BaseException:
                path.unlink()
                raise

        call(self.node, make)
        return path

    def remove_sandbox(self, pod: str) -> None:
        """Let go of a pod's namespace; it is gone when nothing else holds it. Harmless when there is none."""
        path = self._netns_dir / pod

        def remove() -> None:
            with suppress(OSError):  # EINVAL: never mounted; ENOENT: no such file
                netns.umount(path, netns.MNT_DETACH)
            path.unlink(missing_ok=True)

        call(self.node, remove)

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
            raise CniCallError(f"cannot read {path} of node {self.node.name}: {error}") from error
        return parse_network_list(path, source)

    def _conf_files(self) -> list[Path]:
        try:
            return sorted(path for path in self._conf_dir.iterdir() if path.suffix in _CONF_SUFFIXES and path.is_file())
        except FileNotFoundError:
            return []

    # ---- one plugin

    def _execute(
        self,
        command: str,
        network: NetworkList,
        config: Json,
        sandbox: Sandbox,
        previous: Json | None,
        capabilities: Mapping[str, Any] | None,
    ) -> CniCall:
        kind = str(config["type"])
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox.container_id,
            "CNI_NETNS": sandbox.netns,
            "CNI_IFNAME": sandbox.ifname,
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in sandbox.cni_args),
            "CNI_PATH": ":".join(self._bin_dirs),
        }
        stdin = plugin_config(network, config, previous, capabilities)
        executable = self._find(kind)
        if executable is None:
            raise CniCallError(
                f'failed to find plugin "{kind}" in path {list(self._bin_dirs)} of node {self.node.name}',
                hint=f"{network.path} names it; install it there, or remove it from that file",
            )
        try:
            done: Completed = run(
                self.node,
                [executable],
                timeout_s=self._timeout_s,
                stdin=json.dumps(stdin).encode(),
                env=environment | {"PATH": _PATH},
            )
        except OSError as error:
            raise CniCallError(
                f'cannot execute plugin "{kind}" of node {self.node.name}: {error}',
                hint=f"look at the first line of {executable}: does that interpreter exist?",
            ) from error
        return CniCall(
            plugin=kind,
            command=command,
            environment=environment,
            stdin=stdin,
            stdout=done.stdout,
            stderr=done.stderr,
            exit_code=done.returncode,
            seconds=done.seconds,
            timed_out=done.timed_out,
        )

    def _find(self, kind: str) -> str | None:
        if "/" in kind or not kind:
            raise CniCallError(f"invalid plugin name {kind!r}: it is looked up in CNI_PATH and may not be a path")
        candidates = [f"{folder}/{kind}" for folder in self._bin_dirs]
        return call(self.node, lambda: next((path for path in candidates if os.access(path, os.X_OK)), None))

    def _undo(self, network: NetworkList, sandbox: Sandbox, capabilities: Mapping[str, Any] | None) -> list[CniCall]:
        """DEL after a failed ADD. Its own errors are recorded in the calls and do not hide the first one."""
        calls = []
        for config in reversed(network.plugins):
            with suppress(CniCallError):
                calls.append(self._execute("DEL", network, config, sandbox, None, capabilities))
        return calls

    # ---- the cache of results, as libcni keeps it (libcni/api.go cacheAdd)

    def _cache_path(self, network: NetworkList, sandbox: Sandbox) -> Path:
        return self._cache_dir / f"{network.name}-{sandbox.container_id}-{sandbox.ifname}"

    def _cache(
        self, network: NetworkList, sandbox: Sandbox, result: Json, capabilities: Mapping[str, Any] | None
    ) -> None:
        entry = {
            "kind": "cniCacheV1",
            "containerId": sandbox.container_id,
            "config": base64.b64encode(network.source.encode()).decode(),
            "ifName": sandbox.ifname,
            "networkName": network.name,
            "netns": sandbox.netns,
            "cniArgs": [list(pair) for pair in sandbox.cni_args],
            **({"capabilityArgs": dict(capabilities)} if capabilities else {}),
            "result": result,
        }
        path = self._cache_path(network, sandbox)

        def write() -> None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(json.dumps(entry), encoding="utf-8")

        call(self.node, write)

    def result_of(self, sandbox: Sandbox) -> Json | None:
        """The cached result of a sandbox's ADD, whichever runtime made it; None when there is none.

        Raises:
            CniCallError: The node has no usable configuration.
        """
        return self._cached(self.network(), sandbox, "result")

    def _cached(self, network: NetworkList, sandbox: Sandbox, key: str) -> Json | None:
        path = self._cache_path(network, sandbox)
        try:
            entry = json.loads(call(self.node, lambda: path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None  # libcni, too, goes on without a cached result
        found = entry.get(key) if isinstance(entry, dict) else None
        return found if isinstance(found, dict) else None


# --------------------------------------------------------------------------------------------------
# Pure parts: stdout -> result


def _result(recorded: CniCall, network: NetworkList, sandbox: Sandbox) -> Json:
    _demand_success(recorded, sandbox, [recorded])
    try:
        result = json.loads(recorded.stdout)
    except ValueError as error:
        raise CniCallError(
            f"ADD of pod {sandbox.pod}: plugin {recorded.plugin} succeeded but printed no JSON result: {error}",
            hint=f"it printed {recorded.stdout[:200]!r}",
        ) from error
    if not isinstance(result, dict):
        raise CniCallError(f"ADD of pod {sandbox.pod}: the result of plugin {recorded.plugin} is not a JSON object")
    return {"cniVersion": network.cni_version} | result


def _demand_success(recorded: CniCall, sandbox: Sandbox, calls: Sequence[CniCall]) -> None:
    """Turn a failed execution into a sentence, as libcni does (pkg/invoke/raw_exec.go): stdout first, else stderr."""
    if recorded.exit_code == 0 and not recorded.timed_out:
        return
    subject = f"{recorded.command} of pod {sandbox.pod} failed: plugin {recorded.plugin}"
    if recorded.timed_out:
        raise CniCallError(f"{subject} did not end within {recorded.seconds:.0f} s and was killed", calls=calls)
    error = _error_object(recorded.stdout)
    if error is not None:
        raise CniCallError(
            f"{subject} says: {error.get('msg') or 'nothing'} (code {error['code']})",
            hint=str(error.get("details") or ""),
            code=int(error["code"]),
            calls=calls,
        )
    said = recorded.stderr.strip() or recorded.stdout.strip() or "nothing"
    raise CniCallError(f"{subject} ended with exit code {recorded.exit_code} and said {said}", calls=calls)


def _error_object(stdout: str) -> Json | None:
    try:
        error = json.loads(stdout)
    except ValueError:
        return None
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        return error
    return None


def _loopback_up() -> None:
    """Set IFF_UP on `lo` of the calling thread's network namespace; the kernel then adds 127.0.0.1 by itself."""
    siocsifflags, iff_up, ifreq = 0x8914, 0x1, "16sH14x"  # netdevice(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, siocsifflags, struct.pack(ifreq, b"lo", iff_up))
