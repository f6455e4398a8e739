"""The agent's configuration: one checked type, read from /etc/weave/agent.json."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Final

import msgspec

from plugin.core.errors import InputError, said_by
from plugin.core.ipam import shares
from plugin.core.packet.vxlan import OVERHEAD_BYTES, UDP_PORT, VNI_MAX, VNI_MIN, uplink_mtu_min

_MTU_MIN: Final = uplink_mtu_min() - OVERHEAD_BYTES
_MTU_MAX: Final = 65535 - OVERHEAD_BYTES


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a deployer writes onto a node.

    Attributes:
        name: The node's name, unique in the cluster. Explicit, because cloned machines share every other identity.
        node_address: The address by which other nodes reach this one; its interface is the uplink. Empty: the address
            of the uplink, also when it gets another one.
        range: The pod range.
        vni: VXLAN network identifier.
        peers: Addresses at which other agents may be found: one that lives is enough, the first of a cluster has none.
        initial_peers: How many agents are set up together to make the first agreement about addresses: more than half
            of them must be there. 0: join what exists, never begin. Absent: 1 for an agent without peers, which is
            then the first, else 0.
        cluster: The cluster's name; agents of different clusters refuse each other.
        password: What the control messages are sealed with; empty for none. All agents must have the same.
        bridge: The name of the switch.
        uplink: The interface that must have `node_address`; empty for any, or the one that leads to the other nodes.
        mtu: The MTU of pods, in bytes; 0 for as much as the routes to the other nodes allow.
        vxlan_port: UDP port of the overlay.
        control_port: UDP port of the control protocol.
        api_socket: Where the CNI plugin finds the agent.
        http_address: Read-only API, `address:port`; empty for none.
        state_directory: Durable state.
        repair: Whether what somebody else breaks on this node is mended; false: it is only told.
        log_level: debug, info, warning or error.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}$")]
    node_address: str = ""
    range: str = "10.32.0.0/12"
    vni: Annotated[int, msgspec.Meta(ge=VNI_MIN, le=VNI_MAX)] = 1
    peers: tuple[str, ...] = ()
    initial_peers: Annotated[int, msgspec.Meta(ge=0, le=4096)] | None = None
    cluster: Annotated[str, msgspec.Meta(max_length=63)] = "weave"
    password: str = ""
    bridge: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,15}$")] = "weave"
    uplink: str = ""
    mtu: int = 0
    vxlan_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = UDP_PORT
    control_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 6783
    api_socket: str = "/run/weave/weave.sock"
    http_address: str = "127.0.0.1:6784"
    state_directory: str = "/var/lib/weave"
    repair: bool = True
    log_level: str = "info"

    @property
    def address(self) -> IPv4Address | None:
        """`node_address`, parsed; `load_config` has checked it. None: the uplink's."""
        return IPv4Address(self.node_address) if self.node_address else None

    @property
    def network(self) -> IPv4Network:
        """`range`, parsed."""
        return IPv4Network(self.range)

    @property
    def seeds(self) -> tuple[IPv4Address, ...]:
        """`peers`, parsed, without this node itself."""
        return tuple(sorted({address for peer in self.peers if (address := IPv4Address(peer)) != self.address}))

    @property
    def founders(self) -> int:
        """How many make the first agreement; 0 when this agent only joins."""
        if self.initial_peers is not None:
            return self.initial_peers
        return 0 if self.seeds else 1


def load_config(path: Path) -> AgentConfig:
    """Read and check the configuration file.

    Raises:
        InputError: It is absent, unreadable, not JSON, or has a wrong, unknown or missing key; the text names it.
    """
    try:
        config = msgspec.json.decode(path.read_bytes(), type=AgentConfig)
    except OSError as error:
        raise InputError(
            f"the configuration {path} cannot be read: {said_by(error, path=False)}",
            hint="name it with --config; docs/reference/agent.md lists its keys",
        ) from error
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}", hint="docs/reference/agent.md lists all keys") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    named = [("node_address", config.node_address)] if config.node_address else []
    for key, text in [*named, *(("peers", peer) for peer in config.peers)]:
        try:
            IPv4Address(text)
        except ValueError:
            raise InputError(f"{path}: {key} must be an IPv4 address, found {text!r}") from None
    network = shares.parse_range(config.range)
    inside = [str(address) for address in (config.address, *config.seeds) if address is not None and address in network]
    if inside:
        raise InputError(
            f"{path}: the pod range {network} contains the node address {inside[0]}",
            hint="choose a pod range that no node's network overlaps",
        )
    if config.mtu and not _MTU_MIN <= config.mtu <= _MTU_MAX:
        raise InputError(
            f"{path}: mtu must be 0 or {_MTU_MIN} to {_MTU_MAX}, found {config.mtu}",
            hint="leave it out: then it follows from the routes to the other nodes",
        )
    return config
