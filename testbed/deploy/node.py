"""What a real node gets: the same plugin, conflist, agent and command as a node of a lab, and a systemd unit. Pure.

/opt/weave/lib/...                  agent       the agent's code
/opt/weave/bin/weave-agent          agent       starts it
/usr/local/bin/weave                agent       asks it
/etc/weave/agent.json               config      tells it who it is and where its peers are
/etc/systemd/system/weave.service   unit        keeps it running
/opt/cni/bin/weave-net              plugin      what the runtime calls for every pod
/etc/cni/net.d/10-weave.conflist    plugin      tells the runtime to do so: last, when all the rest is there
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from plugin.core.errors import InputError
from plugin.core.ipam import shares
from testbed.deploy.machine import digest_of
from testbed.deploy.payload import library_files
from testbed.deploy.plan import CHAIN_PATH, CONFIG_PATH, DeployFile, chain_file, plugin_file, render, tool_file
from testbed.deploy.record import ANY

PARTS: Final = ("agent", "config", "unit", "plugin")
"""What can be installed by itself, in the order in which it is installed."""

AGENT_PATH: Final = "/opt/weave/bin/weave-agent"
TOOL_FOLDER: Final = "/usr/local/bin"
UNIT: Final = "weave.service"
UNIT_PATH: Final = f"/etc/systemd/system/{UNIT}"

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}")
_CLUSTER_MAX: Final = 63
_FOUNDERS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class NodeFile:
    """A file of an installation.

    Attributes:
        part: One of `PARTS`.
        file: Where it goes and what it contains.
        settings: Whether people edit it: then a changed one is kept, and not an obstacle.
        merged: Whether it says already what people have changed in the one that is there.
        remade: Whether it can be made again from the others: then its content does not matter.
    """

    part: str
    file: DeployFile
    settings: bool = False
    merged: bool = False
    remade: bool = False

    @property
    def path(self) -> str:
        """Where it goes."""
        return self.file.path

    @property
    def digests(self) -> tuple[str, ...]:
        """What the record says of its content."""
        return (ANY,) if self.remade else (digest_of(self.file.content),)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person says about the node; None: as it is there already, or as the agent has it by default.

    Attributes:
        name: The node's name.
        address: The address by which other nodes reach it.
        uplink: The interface that has the address.
        pod_range: The pod range, in CIDR notation.
        peers: Addresses of nodes; its own may be among them.
        initial_peers: How many agents make the first agreement.
        cluster: The cluster's name.
        password: What control messages are sealed with.
    """

    name: str | None = None
    address: str | None = None
    uplink: str | None = None
    pod_range: str | None = None
    peers: tuple[str, ...] | None = None
    initial_peers: int | None = None
    cluster: str | None = None
    password: str | None = field(default=None, repr=False)

    def check(self) -> None:
        """See that each value is one, before anything is done.

        Raises:
            InputError: One is not; it is named as the option of the command line.
        """
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise InputError(
                f"--node-name: wanted 1 to 63 letters, digits, dots and dashes, found {self.name!r}",
                hint="any name will do that no other node of the cluster has",
            )
        for option, address in (("--address", self.address), *(("--peer", peer) for peer in self.peers or ())):
            if address is not None:
                _check_address(option, address)
        if self.pod_range is not None:
            _check_range(self.pod_range)
        if self.cluster is not None and not 0 < len(self.cluster) <= _CLUSTER_MAX:
            raise InputError(f"--cluster: wanted 1 to {_CLUSTER_MAX} characters, found {self.cluster!r}")
        if self.initial_peers is not None and not 0 <= self.initial_peers <= _FOUNDERS_MAX:
            raise InputError(f"--initial-peers: wanted 0 to {_FOUNDERS_MAX}, found {self.initial_peers}")


def plan_node(parts: Iterable[str], *, interpreter: Path, config: bytes | None, version: str) -> list[NodeFile]:
    """The files of some parts, in the order in which they are to be installed.

    Args:
        parts: Some of `PARTS`.
        interpreter: The Python that runs plugin, agent and command on the node.
        config: The text of the agent's configuration (`configuration`); not needed without the part of that name.
        version: Weavelab's.
    """
    wanted = set(parts)
    plan: list[NodeFile] = []
    if "agent" in wanted:
        folder, sources, compiled = library_files(version)
        launcher = render("weave-agent.j2", interpreter=str(interpreter), library=folder).encode()
        plan += [NodeFile("agent", file) for file in sources]
        plan += [NodeFile("agent", file, remade=True) for file in compiled]
        plan += [NodeFile("agent", DeployFile(AGENT_PATH, launcher, b"", 0o755))]
        plan += [NodeFile("agent", tool_file(interpreter, TOOL_FOLDER))]
    if "config" in wanted:
        assert config is not None
        # 0600: it may hold the password.
        plan += [NodeFile("config", DeployFile(CONFIG_PATH, config, b"", 0o600), merged=True)]
    if "unit" in wanted:
        content = render("weave.service.j2", agent=AGENT_PATH, config=CONFIG_PATH).encode()
        plan += [NodeFile("unit", DeployFile(UNIT_PATH, content, b""), settings=True)]
    if "plugin" in wanted:
        plan += [NodeFile("plugin", plugin_file(interpreter)), NodeFile("plugin", chain_file(), settings=True)]
    return plan


def configuration(settings: Settings, existing: Mapping[str, Any]) -> dict[str, Any]:
    """The agent's configuration: what is said now, before what is there, before what `existing` lacks.

    Args:
        settings: Checked; must have name and address unless `existing` has them.
        existing: The configuration that the node has, with what a person has changed in it; may be empty.

    Raises:
        InputError: Something is missing, or does not go together.
    """
    config = dict(existing)
    said = {
        "name": settings.name,
        "node_address": settings.address,
        "uplink": settings.uplink,
        "range": settings.pod_range,
        "initial_peers": settings.initial_peers,
        "cluster": settings.cluster,
        "password": settings.password,
    }
    config |= {key: value for key, value in said.items() if value is not None}
    for key, option in (("name", "--node-name"), ("node_address", "--address")):
        if not config.get(key):
            raise InputError(f"wanted {option}, which cannot be asked of a machine that does not run")
    address = str(config["node_address"])
    _check_address("--address", address)
    if settings.peers is not None:
        others = [peer for peer in settings.peers if peer != address]
        config["peers"] = others
        if settings.initial_peers is None:
            # Who is named makes the first agreement, together with the others that are named; the rest only join.
            config["initial_peers"] = len(set(settings.peers)) if address in settings.peers or not others else 0
    network = _check_range(str(config.get("range", _DEFAULT_RANGE)))
    addresses = [address, *map(str, config.get("peers") or ())]
    for text in addresses[1:]:
        _check_address("--peer", text)
    inside = [text for text in addresses if IPv4Address(text) in network]
    if inside:
        raise InputError(
            f"the pod range {network} contains the node address {inside[0]}",
            hint="choose a range with --range that overlaps no network of any node",
        )
    return config


_DEFAULT_RANGE: Final = "10.32.0.0/12"
"""The agent's (plugin/agent/config.py), used only for the check above."""


def comes_first(names: Sequence[str]) -> list[str]:
    """Of the files in /etc/cni/net.d, those that a runtime prefers to ours: the first by name is used."""
    ours = CHAIN_PATH.rpartition("/")[2]
    return [name for name in names if name < ours and name.endswith((".conf", ".conflist", ".json"))]


def _check_address(option: str, text: str) -> None:
    try:
        IPv4Address(text)
    except ValueError:
        raise InputError(
            f"{option}: wanted the IPv4 address of a node, found {text!r}",
            hint="names are not looked up: agents start before any name service of the cluster",
        ) from None


def _check_range(text: str) -> Any:
    try:
        return shares.parse_range(text)
    except InputError as error:
        raise InputError(f"--range: {error.message}", hint=error.hint) from error
