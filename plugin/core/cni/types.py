"""The words of CNI: versions, error codes, and the values that a call consists of. No rule is applied here.

The rules are in plugin/core/cni/request.py (what a call may ask) and plugin/core/cni/result.py (what it is told).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Final, TypeAlias

from plugin.core.cni.bandwidth import Bandwidth
from plugin.core.cni.exemption import Exemption
from plugin.core.cni.hostports import PortMapping
from plugin.core.errors import CheckError

VERSIONS: Final = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST: Final = VERSIONS[-1]
BODY_BYTES_MAX: Final = 16 << 20  # a GC list of 50,000 attachments; the executable refuses more before it asks
QUEUE_NAME_BYTES_MAX: Final = 200  # file systems allow 255; the rest is for the executable's temporary name
DEFAULT_BRIDGE: Final = "weave"
MTU_BYTES_MIN: Final = 68  # RFC 791: every link carries 68 bytes
MTU_BYTES_MAX: Final = 65535

# Error codes: 1-99 belong to the specification, 8 and 999 to its Go library, 100-998 are ours
# (docs/reference/cni.md).
INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
DECODING_FAILURE: Final = 6
INVALID_CONFIG: Final = 7
INVALID_NETNS: Final = 8
TRY_AGAIN_LATER: Final = 11
NOT_AVAILABLE: Final = 50
LIMITED_CONNECTIVITY: Final = 51
ALREADY_ATTACHED: Final = 100
NO_ADDRESS: Final = 101
ATTACH_FAILED: Final = 102
CHECK_FAILED: Final = 103
IPAM_FAILED: Final = 104
PORT_TAKEN: Final = 110
INTERNAL: Final = 999

ENVIRONMENT: Final = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
"""The fields of a POST /cni body, in order; stdin follows the last one. All are separated by NUL, which no
environment can contain.
"""

NEEDS_ATTACHMENT: Final = frozenset({"ADD", "DEL", "CHECK"})
VERBS: Final = {"ADD": "0.1.0", "DEL": "0.1.0", "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The verbs that reach the agent and the first version that has each. VERSION is answered by the executable itself.
"""

KNOWN_ARGS: Final = ("IP", "MAC", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")

Json: TypeAlias = dict[str, Any]
"""A JSON object as json.loads gives it."""


class CniError(CheckError):
    """A call that must fail, with the numbered error that the runtime is told.

    Args:
        code: One of the constants above.
        message: One sentence; becomes `msg`.
        details: What was found or what to do; becomes `details`.
    """

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message, hint=details)
        self.code = code
        self.details = details
        self.cni_version = LATEST  # parse_request replaces it by the caller's as soon as that is known

    def to_json(self, version: str = "") -> str:
        """The error object of the specification; `version` defaults to the one the request was made with."""
        answer: Json = {"cniVersion": version or self.cni_version, "code": self.code, "msg": self.message}
        if self.details:
            answer["details"] = self.details
        return json.dumps(answer) + "\n"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a pod. `gateway` None: the destination is on the link itself."""

    destination: IPv4Network
    gateway: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Dns:
    """What a result says about name resolution; passed through, never applied by us."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Dns()


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Where an address may come from: a subnet without its first and last address, or the part between two addresses.

    `gateway` None: that of the configuration.
    """

    subnet: IPv4Network
    first: IPv4Address | None = None
    last: IPv4Address | None = None
    gateway: IPv4Address | None = None

    @property
    def bounds(self) -> tuple[IPv4Address, IPv4Address]:
        """The lowest and the highest address that may be given."""
        return self.first or self.subnet.network_address + 1, self.last or self.subnet.broadcast_address - 1

    def __contains__(self, address: IPv4Address) -> bool:
        first, last = self.bounds
        return first <= address <= last

    def __str__(self) -> str:
        return str(self.subnet) if self.first is self.last is None else "{}-{}".format(*self.bounds)


@dataclass(frozen=True, slots=True)
class Delegate:
    """The IPAM plugin that gives addresses instead of the agent: its name, and the `ipam` object it is told."""

    kind: str
    ipam: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """The `ipam` object. Empty or None means: the agent's own choice (its range, its bridge address, a default route).

    `ranges` are sets: a pod gets one address of each, from any range of that set.
    """

    ranges: tuple[tuple[AddressRange, ...], ...] = ()
    gateway: IPv4Address | None = None
    routes: tuple[Route, ...] | None = None


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The keys of the plugin's configuration that ADD and CHECK act on. `mtu_bytes` 0 means the MTU of the bridge.

    `is_gateway`, `default_gateway` and `masquerade` None: not said.
    """

    bridge: str = DEFAULT_BRIDGE
    mtu_bytes: int = 0
    hairpin: bool = True
    ipam: IpamConfig = IpamConfig()
    dns: Dns = Dns()
    requested_addresses: tuple[IPv4Address, ...] = ()
    requested_mac: str = ""
    ports: tuple[PortMapping, ...] = ()
    bandwidth: Bandwidth = field(default_factory=Bandwidth)
    is_gateway: bool | None = None
    default_gateway: bool | None = None
    masquerade: bool | None = None
    exemption: Exemption = field(default_factory=Exemption)


@dataclass(frozen=True, slots=True)
class CniRequest:
    """One call of the runtime, checked.

    `valid_attachments` belongs to GC: None means that the runtime sent no list, and then nothing may be removed; an
    empty set means that every attachment of this network is to go. `previous` is prevResult as JSON, in the shape of
    its own version, or None. `delegate` is the
    IPAM plugin that is to be asked, `delegated` what it printed, None before it was asked.
    """

    command: str
    container_id: str
    ifname: str
    netns: str
    path: str
    args: Mapping[str, str]
    network: str
    cni_version: str
    config: NetworkConfig
    previous: Mapping[str, object] | None = None
    valid_attachments: frozenset[tuple[str, str]] | None = None
    runtime_config: Mapping[str, object] = field(default_factory=dict)
    delegate: Delegate | None = None
    delegated: bytes | None = None

    @property
    def attachment(self) -> tuple[str, str, str]:
        """What names an attachment: (network, container id, interface name)."""
        return self.network, self.container_id, self.ifname

    @property
    def pod(self) -> str:
        """`namespace/name` of the pod when the runtime says so (containerd, CRI-O), else the empty string."""
        name = self.args.get("K8S_POD_NAME", "")
        return f"{self.args.get('K8S_POD_NAMESPACE') or 'default'}/{name}" if name else ""


@dataclass(frozen=True, slots=True)
class Attached:
    """What an ADD made: the bridge, the two ends of the pod's veth pair, and what the inner end carries.

    `sandbox` is CNI_NETNS verbatim. Each address comes with its gateway (None: none). MACs are text, lower case,
    colons.
    """

    bridge: str
    bridge_mac: str
    host_ifname: str
    host_mac: str
    ifname: str
    mac: str
    sandbox: str
    mtu_bytes: int
    addresses: tuple[tuple[IPv4Interface, IPv4Address | None], ...]
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """One link as the kernel shows it."""

    ifname: str
    mac: str
    mtu_bytes: int
    up: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What CHECK found on the node. None for a link: it is not there.

    `host_ifname` is the name the agent gave the host side; `host_master` the bridge that link is a port of ("": none);
    `paired` tells whether the two links are the two ends of one veth pair; `hairpin` None: not looked at; `reserved`
    what the allocator holds for this attachment; `carried_bytes` the MTU of the network now, 0 when it is not known.
    """

    container: ObservedLink | None
    host_ifname: str
    host: ObservedLink | None
    host_master: str = ""
    paired: bool = True
    hairpin: bool | None = None
    addresses: tuple[IPv4Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    reserved: tuple[IPv4Address, ...] = ()
    carried_bytes: int = 0


def at_least(version: str, wanted: str) -> bool:
    """Whether a supported version is `wanted` or newer."""
    return VERSIONS.index(version) >= VERSIONS.index(wanted)
