"""The cache of CNI results that every runtime built on libcni keeps on its node (libcni/api.go, cacheAdd)."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.kubelet.sandbox import Sandbox
from testbed.machine.space import Space, call
from testbed.topology.cni_conf import Json, NetworkList


class ResultCache:
    """The cache of one node.

    Args:
        node: How to enter the node.
        folder: Where it is, inside the node.
    """

    def __init__(self, node: Space, folder: Path) -> None:
        self._node = node
        self.folder = folder

    def _path(self, network: NetworkList, sandbox: Sandbox) -> Path:
        return self.folder / f"{network.name}-{sandbox.container_id}-{sandbox.ifname}"

    def keep(
        self, network: NetworkList, sandbox: Sandbox, result: Json, capabilities: Mapping[str, Any] | None
    ) -> None:
        """The result of an ADD, with what CHECK and DEL will have to be told again."""
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
        path = self._path(network, sandbox)

        def write() -> None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(json.dumps(entry), encoding="utf-8")

        call(self._node, write)

    def read(self, network: NetworkList, sandbox: Sandbox, key: str) -> Json | None:
        """What was kept under a key (`result`, `capabilityArgs`); None when there is nothing that can be read."""
        path = self._path(network, sandbox)
        try:
            entry = json.loads(call(self._node, lambda: path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None  # libcni, too, goes on without a cached result
        found = entry.get(key) if isinstance(entry, dict) else None
        return found if isinstance(found, dict) else None

    def forget(self, network: NetworkList, sandbox: Sandbox) -> None:
        """Nothing of it is kept; twice is harmless."""
        call(self._node, lambda: self._path(network, sandbox).unlink(missing_ok=True))
