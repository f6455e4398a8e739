"""What a node gets beside agent and plugin: reference CNI plugins of this machine, and a container runtime.

Pure but for reading those plugins: renders text, writes nothing on a node.
"""

import dataclasses
from collections.abc import Iterable
from typing import Final

from plugin.core.errors import MissingError
from testbed.deploy.plan import SYSTEM_PATH, DeployFile, DeployPlan, Service, render
from testbed.kubelet.image import IMAGE
from testbed.kubelet.needs import find_plugin, plugins_needed, program
from testbed.topology.model import Topology

RUNTIME_CONFIG_PATH: Final = "/etc/containerd/config.toml"
"""Where containerd, its client and people look for it without being told."""

_RUNTIME_LOG_PATH: Final = "/var/log/containerd.log"
_CNI_BIN_DIR: Final = "/opt/cni/bin"
_CNI_CONF_DIR: Final = "/etc/cni/net.d"


def with_runtime(plans: Iterable[DeployPlan], topology: Topology) -> list[DeployPlan]:
    """The plans with what the topology's pods need besides.

    Raises:
        MissingError: The machine does not have it.
    """
    files = [_plugin_file(name) for name in plugins_needed(topology)]
    service: Service | None = None
    if topology.kubelet == "containerd":
        text = render("containerd.toml.j2", image=IMAGE, cni_bin_dir=_CNI_BIN_DIR, cni_conf_dir=_CNI_CONF_DIR)
        files.append(DeployFile(path=RUNTIME_CONFIG_PATH, content=text.encode(), mark=IMAGE.encode()))
        service = _service()
    return [dataclasses.replace(plan, files=(*plan.files, *files), runtime=service) for plan in plans]


def _plugin_file(name: str) -> DeployFile:
    found = find_plugin(name)
    if found is None:
        raise MissingError(
            f"wanted the CNI plugin {name} on this machine, found no such program",
            hint="apt-get install containernetworking-plugins",
        )
    # Nobody marks those: what is there already must be the very same program.
    content = found.read_bytes()
    return DeployFile(path=f"{_CNI_BIN_DIR}/{name}", content=content, mark=content, mode=0o755)


def _service() -> Service:
    daemon = program("containerd")
    if daemon is None:
        raise MissingError(
            "wanted containerd on this machine, found no such program", hint="apt-get install containerd"
        )
    environment = {"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8"}
    return Service(argv=(daemon, "--config", RUNTIME_CONFIG_PATH), environment=environment, log=_RUNTIME_LOG_PATH)
