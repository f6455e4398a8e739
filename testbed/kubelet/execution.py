"""One execution of one CNI plugin, as libcni does it: environment, standard input, and what its answer means."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from plugin.core.errors import said_by
from testbed.kubelet.sandbox import Sandbox
from testbed.lab.cni_call import CniCall, CniCallError
from testbed.machine.space import Completed, Space, call, run
from testbed.topology.cni_conf import Json, NetworkList, plugin_config

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Executor:
    """Executes the plugins of a node.

    Args:
        node: How to enter the node.
        bin_dirs: Where plugins are looked up, inside it: CNI_PATH.
        timeout_s: How long one plugin may run.
    """

    def __init__(self, node: Space, *, bin_dirs: Sequence[str], timeout_s: float) -> None:
        self._node = node
        self._bin_dirs = tuple(bin_dirs)
        self._timeout_s = timeout_s

    def execute(
        self,
        command: str,
        network: NetworkList,
        config: Json,
        sandbox: Sandbox,
        previous: Json | None,
        capabilities: Mapping[str, Any] | None,
    ) -> CniCall:
        """Execute one plugin of a network; a plugin that fails is no error here (`demand_success` makes one of it).

        Raises:
            CniCallError: The node has no such plugin, or it cannot be executed.
        """
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
                f'failed to find plugin "{kind}" in path {list(self._bin_dirs)} of node {self._node.name}',
                hint=f"{network.path} names it; install it there, or remove it from that file",
            )
        try:
            done: Completed = run(
                self._node,
                [executable],
                timeout_s=self._timeout_s,
                stdin=json.dumps(stdin).encode(),
                env=environment | {"PATH": _PATH},
            )
        except OSError as error:
            raise CniCallError(
                f'cannot execute plugin "{kind}" of node {self._node.name}: {said_by(error)}',
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
        return call(self._node, lambda: next((path for path in candidates if os.access(path, os.X_OK)), None))


def result_of(recorded: CniCall, network: NetworkList, sandbox: Sandbox) -> Json:
    """What a plugin's ADD printed.

    Raises:
        CniCallError: It failed, or printed no result.
    """
    demand_success(recorded, sandbox, [recorded])
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


def demand_success(recorded: CniCall, sandbox: Sandbox, calls: Sequence[CniCall]) -> None:
    """Turn a failed execution into a sentence, as libcni does (pkg/invoke/raw_exec.go): stdout first, else stderr.

    Raises:
        CniCallError: It has failed.
    """
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
