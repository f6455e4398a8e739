"""What a runtime asks for beside an interface: the capabilities `portMappings` and `bandwidth`, checked once, here.

Keys and rules are those of the reference plugins `portmap` and `bandwidth` (github.com/containernetworking/plugins,
plugins/meta), but for two: a host port that another pod has is refused where `portmap` silently takes it away
(plugin/agent/attachments/capabilities.py), and a burst need not be stated.
"""

from collections.abc import Mapping
from typing import Final

from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.cni.hostports import ANY_ADDRESS, PORT_MAX, PROTOCOLS, PortMapping
from plugin.core.cni.keys import ipv4_address, shown, typed_list, typed_value
from plugin.core.cni.types import INVALID_CONFIG, CniError

MAPPINGS_MAX: Final = 1024
"""How many mappings one pod may have; more is a mistake in a manifest, and would be one large transaction."""

RATE_BITS_MIN: Final = 1_000
RATE_BITS_MAX: Final = 10**15
"""The limits that Kubernetes sets to its annotations kubernetes.io/ingress-bandwidth and egress-bandwidth."""

_BURST_BYTES_MAX: Final = 2**32 - 1  # the kernel counts it in 32 bits (TCA_TBF_BURST)
_BURST_UNSTATED_BITS: Final = 2**32 - 1
"""What containerd sends as burst, since CRI has none and the reference plugin demands one. Taken at its word it would
let every pod send half a gigabyte before its limit holds, so it is taken for what it means: nobody has said.
"""

_BURST_PER_RATE_S: Final = 0.005
_BURST_FRAMES: Final = 8
ETHERNET_BYTES: Final = 14


def parse_port_mappings(runtime_config: Mapping[str, object]) -> tuple[PortMapping, ...]:
    """`runtimeConfig.portMappings`. An entry without a host port asks for nothing and is passed over.

    Raises:
        CniError: A value is impossible, or two entries contradict each other (code 7); the text names the key.
    """
    value = runtime_config.get("portMappings")
    if value is None:
        return ()
    entries = typed_list(value, "portMappings", dict)
    if len(entries) > MAPPINGS_MAX:
        raise CniError(
            INVALID_CONFIG, f'"portMappings" has {len(entries)} entries, at most {MAPPINGS_MAX} are accepted'
        )
    found: list[PortMapping] = []
    for entry in entries:
        if not typed_value(entry, "hostPort", int, 0):
            continue
        mapping = _mapping(entry)
        rival = next((other for other in found if mapping.overlaps(other)), None)
        if rival is None:
            found.append(mapping)
        elif rival != mapping:
            raise CniError(
                INVALID_CONFIG,
                f'"portMappings" gives {mapping.protocol} port {mapping.host_port} away twice: {rival} and {mapping}',
                "a host port leads to one port of one pod",
            )
    return tuple(found)


def parse_bandwidth(raw: Mapping[str, object], runtime_config: Mapping[str, object]) -> Bandwidth:
    """`runtimeConfig.bandwidth`; without it the same four keys of the configuration itself.

    Raises:
        CniError: A value is impossible (code 7); the text names the key.
    """
    given = typed_value(runtime_config, "bandwidth", dict, {}) or raw
    return Bandwidth(_limit(given, "ingressRate", "ingressBurst"), _limit(given, "egressRate", "egressBurst"))


def fitted(bandwidth: Bandwidth, mtu_bytes: int) -> Bandwidth:
    """The same with every burst stated, for a link of this MTU.

    Raises:
        CniError: A burst is smaller than one frame, so that no full frame would ever pass (code 7).
    """
    return Bandwidth(
        _fitted(bandwidth.ingress, "ingressBurst", mtu_bytes), _fitted(bandwidth.egress, "egressBurst", mtu_bytes)
    )


def _mapping(entry: Mapping[str, object]) -> PortMapping:
    protocol = (
        typed_value(entry, "protocol", str, "") or "tcp"
    ).lower()  # containerd sends it in lower case, CRI has upper
    if protocol not in PROTOCOLS:
        raise CniError(
            INVALID_CONFIG, f'"portMappings[].protocol" must be {", ".join(PROTOCOLS)}, found {shown(protocol)}'
        )
    host_ip = typed_value(entry, "hostIP", str, "") or ANY_ADDRESS
    return PortMapping(
        host_port=_port(entry, "hostPort"),
        container_port=_port(entry, "containerPort"),
        protocol=protocol,
        host_ip=str(ipv4_address(host_ip, "portMappings[].hostIP")),
    )


def _port(entry: Mapping[str, object], key: str) -> int:
    port = typed_value(entry, key, int, 0)
    if not 1 <= port <= PORT_MAX:
        raise CniError(INVALID_CONFIG, f'"portMappings[].{key}" must be 1 to {PORT_MAX}, found {shown(entry.get(key))}')
    return port


def _limit(given: Mapping[str, object], rate_key: str, burst_key: str) -> Limit | None:
    rate, burst = typed_value(given, rate_key, int, 0), typed_value(given, burst_key, int, 0)
    if burst < 0 or (burst // 8 > _BURST_BYTES_MAX):
        raise CniError(INVALID_CONFIG, f'"{burst_key}" must be 0 to {_BURST_BYTES_MAX * 8} bits, found {burst}')
    if rate == 0:
        if burst:
            raise CniError(
                INVALID_CONFIG, f'"{burst_key}" is set and "{rate_key}" is not', "a burst belongs to a rate; set both"
            )
        return None
    if not RATE_BITS_MIN <= rate <= RATE_BITS_MAX:
        raise CniError(
            INVALID_CONFIG,
            f'"{rate_key}" must be {RATE_BITS_MIN} to {RATE_BITS_MAX} bits a second, found {rate}',
            "0 or no key at all: no limit",
        )
    return Limit(rate // 8, 0 if burst == _BURST_UNSTATED_BITS else -(-burst // 8))


def _fitted(limit: Limit | None, burst_key: str, mtu_bytes: int) -> Limit | None:
    if limit is None:
        return None
    frame_bytes = mtu_bytes + ETHERNET_BYTES
    if not limit.burst_bytes:
        # Enough that neither timers nor frames leave the bucket full and tokens unused, little enough that a second
        # looks like the rate that was asked for.
        chosen = max(int(limit.rate_bytes * _BURST_PER_RATE_S), min(_BURST_FRAMES * 1500, 8 * frame_bytes), frame_bytes)
        return Limit(limit.rate_bytes, min(chosen, _BURST_BYTES_MAX))
    if limit.burst_bytes < frame_bytes:
        raise CniError(
            INVALID_CONFIG,
            f'"{burst_key}" of {limit.burst_bytes * 8} bits is smaller than one frame of this network, '
            f"{frame_bytes * 8} bits",
            f"leave {burst_key} out, or set at least one frame",
        )
    return limit
