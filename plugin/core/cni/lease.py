"""What a pod is given: addresses, gateways, routes and DNS, by the agent's own choice or another IPAM plugin's result.

Both kinds of answer end in a `Lease`, which plugin/agent/attachments/attachments.py puts on the pod's interface. The
rules that a writer of a configuration for the reference plugin `bridge` knows (`isGateway`, `isDefaultGateway`) are
applied here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from plugin.core.cni.ipam import refuse_ipv6, routes_of
from plugin.core.cni.keys import shown, text_list, typed_list, typed_value
from plugin.core.cni.result import normalized
from plugin.core.cni.types import (
    DECODING_FAILURE,
    INVALID_CONFIG,
    IPAM_FAILED,
    UNSUPPORTED_FIELD,
    CniError,
    Dns,
    NetworkConfig,
    Route,
)

DEFAULT_ROUTE: Final = IPv4Network("0.0.0.0/0")
ADDRESSES_MAX: Final = 16
"""How many addresses one interface may get; each is an endpoint that every node of the cluster remembers."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a pod's interface carries. Each address comes with its gateway; None: none."""

    addresses: tuple[tuple[IPv4Interface, IPv4Address | None], ...]
    routes: tuple[Route, ...] = ()
    dns: Dns = field(default_factory=Dns)


def own_lease(
    addresses: Sequence[IPv4Address], config: NetworkConfig, *, pod_range: IPv4Network, switch: IPv4Address
) -> Lease:
    """The agent's own addresses: the prefix of the whole range, and the switch as gateway.

    Args:
        addresses: What the allocator gave.
        config: What is asked for.
        pod_range: The pod range.
        switch: The switch's own address.
    """
    routed = config.is_gateway is not False
    gateways = [_gateway_of(address, config) or (switch if routed else None) for address in addresses]
    interfaces = [IPv4Interface((address, pod_range.prefixlen)) for address in addresses]
    return _complete(tuple(zip(interfaces, gateways, strict=True)), config.ipam.routes, config, Dns())


def _gateway_of(address: IPv4Address, config: NetworkConfig) -> IPv4Address | None:
    """`ipam.gateway`, or the gateway of the range that the address is from."""
    ranges = (one for ranged in config.ipam.ranges for one in ranged if address in one and one.gateway is not None)
    return next((one.gateway for one in ranges), None) or config.ipam.gateway


def delegated_lease(printed: bytes, kind: str, config: NetworkConfig, *, switch: IPv4Address) -> Lease:
    """The result of another IPAM plugin, at whatever version it is written.

    An address for which it names no gateway gets the switch's; where it names no routes there is the default route.

    Args:
        printed: What the plugin printed.
        kind: Its name, for error texts.
        config: What is asked for.
        switch: The switch's own address.

    Raises:
        CniError: It is no result, has no address, or has something that pods here cannot have.
    """
    try:
        result = json.loads(printed.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _no_result(kind, f"it printed {shown(printed[:200].decode('utf-8', 'replace'))}") from error
    if not isinstance(result, dict):
        raise _no_result(kind, f"it printed {shown(result)}")
    try:
        plain = normalized(result)
        entries = typed_list(plain["ips"], "ips", dict)
        gateway = None if config.is_gateway is False else switch
        addresses = tuple(
            _address(str(entry["address"]), typed_value(entry, "gateway", str, ""), gateway) for entry in entries
        )
        routes = routes_of(plain["routes"], "routes")
        dns = _dns(plain["dns"])
    except CniError as error:
        if error.code == UNSUPPORTED_FIELD:
            raise CniError(error.code, f"the IPAM plugin {kind} answered {error.message}", error.details) from error
        raise _no_result(kind, error.message) from error
    if not addresses:
        raise CniError(IPAM_FAILED, f"the IPAM plugin {kind} gave no address", "a pod needs one: look at its ipam keys")
    if len(addresses) > ADDRESSES_MAX:
        raise CniError(
            UNSUPPORTED_FIELD, f"the IPAM plugin {kind} gave {len(addresses)} addresses, a pod has {ADDRESSES_MAX}"
        )
    return _complete(addresses, routes or None, config, dns)


def _no_result(kind: str, why: str) -> CniError:
    return CniError(IPAM_FAILED, f"the IPAM plugin {kind} succeeded, but its result cannot be read", why)


def _address(text: str, gateway: str, otherwise: IPv4Address | None) -> tuple[IPv4Interface, IPv4Address | None]:
    for one in (text, gateway):
        refuse_ipv6("ips", one)
    try:
        return IPv4Interface(text), IPv4Address(gateway) if gateway else otherwise
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"no address: {error}") from error


def _dns(raw: object) -> Dns:
    if not isinstance(raw, dict):
        raise CniError(INVALID_CONFIG, '"dns" must be an object')
    return Dns(
        nameservers=text_list(raw, "nameservers"),
        domain=typed_value(raw, "domain", str, ""),
        search=text_list(raw, "search"),
        options=text_list(raw, "options"),
    )


def _complete(
    addresses: tuple[tuple[IPv4Interface, IPv4Address | None], ...],
    routes: tuple[Route, ...] | None,
    config: NetworkConfig,
    dns: Dns,
) -> Lease:
    """Add what follows: the gateway of routes without one, the default route, and ways to gateways off the subnet."""
    gateway = next((gateway for _, gateway in addresses if gateway is not None), None)
    default = config.default_gateway if config.default_gateway is not None else config.is_gateway is not False
    wanted = [_by_gateway(route, gateway) for route in routes or ()]
    add_default = default if routes is None else config.default_gateway is True
    if add_default and gateway is not None and all(route.destination != DEFAULT_ROUTE for route in wanted):
        wanted.append(Route(DEFAULT_ROUTE, gateway))
    networks = [interface.network for interface, _ in addresses]
    away = {
        route.gateway
        for route in wanted
        if route.gateway is not None and not any(route.gateway in network for network in networks)
    }
    # A gateway outside the pod's subnet is still a neighbour on the switch; the kernel has to be told so first.
    known = {route.destination for route in wanted if route.gateway is None}
    ways = [Route(way) for way in map(IPv4Network, sorted(away)) if way not in known]
    in_order = sorted(wanted, key=lambda route: route.gateway is not None)  # ways first, for the same reason
    return Lease(addresses, (*ways, *in_order), config.dns or dns)


def _by_gateway(route: Route, gateway: IPv4Address | None) -> Route:
    """A route without a gateway leads by the pod's, unless it is the way to that very gateway."""
    if gateway is None or route.gateway is not None or route.destination == IPv4Network(gateway):
        return route
    return Route(route.destination, gateway)
