"""What a configuration says about addresses: which ranges an own address may come from, or which plugin is to be asked.

`ipam.type` empty (or `weave-ipam`) means the agent's own addresses; then `ipam`, and what the runtime adds to it, are
read here. Any other type names a plugin that the executable runs (plugin/cni/delegation.py); then nothing of `ipam` is
ours to judge, and what counts is its result (plugin/core/cni/lease.py).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.cni.keys import ipv4_address, ipv4_network, shown, typed_list, typed_value
from plugin.core.cni.types import (
    INVALID_CONFIG,
    UNSUPPORTED_FIELD,
    AddressRange,
    CniError,
    Delegate,
    IpamConfig,
    Json,
    Route,
)

_OWN_TYPES: Final = frozenset({"", "weave-ipam"})
_OURSELVES: Final = "weave-net"
_ROUTE_EXTRAS: Final = ("mtu", "advmss", "priority", "table", "scope")
"""What CNI 1.1.0 lets a route say beside `dst` and `gw`; the switch's pods have plain routes."""


@dataclass(frozen=True, slots=True)
class IpamCall:
    """One call of another IPAM plugin, as the executable is to make it with its own environment and stdin.

    Attributes:
        kind: The plugin's name, looked up in CNI_PATH.
        command: CNI_COMMAND.
        attachment: (container id, interface name) of another attachment than the call's own: GC frees those it removed.
        ipam: Replaces `ipam` of the configuration: an address goes back to who gave it, whatever the file says now.
    """

    kind: str
    command: str
    attachment: tuple[str, str] | None = None
    ipam: Mapping[str, object] | None = None

    def to_json(self) -> Json:
        """Its part of a plan."""
        call: Json = {"type": self.kind, "command": self.command}
        if self.attachment is not None:
            call |= {"containerID": self.attachment[0], "ifname": self.attachment[1]}
        return call if self.ipam is None else call | {"ipam": self.ipam}


@dataclass(frozen=True, slots=True)
class IpamPlan:
    """The agent has done its part of a call; these calls of other plugins are left to do."""

    calls: tuple[IpamCall, ...]

    def to_json(self) -> str:
        """What the executable is answered, with status 202."""
        return json.dumps({"calls": [call.to_json() for call in self.calls]}) + "\n"


def delegate_of(raw: Mapping[str, object], *, strict: bool) -> Delegate | None:
    """The plugin that `ipam.type` names, or None for the agent's own addresses.

    Args:
        raw: The configuration.
        strict: Complain about a type that is no plugin's name. A DEL takes it for our own: no ADD can have used it.

    Raises:
        CniError: It cannot be a plugin, or it is this one.
    """
    ipam = raw.get("ipam")
    if strict:
        ipam = typed_value(raw, "ipam", dict, {})
        typed_value(ipam, "type", str, "")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if not isinstance(kind, str) or kind in _OWN_TYPES:
        return None
    if "/" in kind or "\0" in kind or kind in {".", "..", _OURSELVES}:
        if not strict:
            return None
        raise CniError(
            INVALID_CONFIG,
            f'"ipam.type": {shown(kind)} is not the name of an IPAM plugin',
            "name a program in CNI_PATH such as host-local, or leave the key out: the agent gives addresses",
        )
    assert isinstance(ipam, dict)
    return Delegate(kind, ipam)


def own_ipam(ipam: Mapping[str, object], runtime_config: Mapping[str, object]) -> IpamConfig:
    """The `ipam` object for the agent's own addresses.

    Ranges come from the runtime (`ipRanges`), else from `ipam.ranges`, else from `ipam.subnet` with `rangeStart` and
    `rangeEnd`. As in host-local, a pod gets one address of each set, from any range of that set.

    Raises:
        CniError: A key is malformed (code 7), or a route says what cannot be done (code 2).
    """
    sets = runtime_config.get("ipRanges")
    name = "runtimeConfig.ipRanges"
    if sets is None:
        sets, name = ipam.get("ranges"), "ipam.ranges"
    if sets is None and ipam.get("subnet"):
        sets, name = [[ipam]], "ipam"
    gateway = typed_value(ipam, "gateway", str, "")
    return IpamConfig(
        ranges=() if sets is None else tuple(_range_set(one, name) for one in typed_list(sets, name, list)),
        gateway=ipv4_address(gateway, "ipam.gateway") if gateway else None,
        routes=routes_of(ipam["routes"], "ipam.routes") if ipam.get("routes") is not None else None,
    )


def _range_set(value: object, name: str) -> tuple[AddressRange, ...]:
    ranges = tuple(_range(one, name) for one in typed_list(value, name, dict))
    if not ranges:
        raise CniError(INVALID_CONFIG, f'each set of "{name}" needs a range', 'wanted [[{"subnet": "10.32.0.0/16"}]]')
    return ranges


def _range(entry: Mapping[str, object], name: str) -> AddressRange:
    text = typed_value(entry, "subnet", str, "")
    refuse_ipv6(f"{name}.subnet", text)
    subnet = ipv4_network(text, f"{name}.subnet")
    first, last, gateway = (
        ipv4_address(text, f"{name}.{key}") if (text := typed_value(entry, key, str, "")) else None
        for key in ("rangeStart", "rangeEnd", "gateway")
    )
    for key, address in (("rangeStart", first), ("rangeEnd", last)):
        if address is not None and address not in subnet:
            raise CniError(INVALID_CONFIG, f'"{name}.{key}": {address} is not in the subnet {subnet}')
    if first is not None and last is not None and first > last:
        raise CniError(INVALID_CONFIG, f'"{name}": rangeStart {first} is behind rangeEnd {last}')
    return AddressRange(subnet, first, last, gateway)


def routes_of(value: object, name: str) -> tuple[Route, ...]:
    """A list of routes, each with `dst` and perhaps `gw`.

    Raises:
        CniError: Malformed (code 7), IPv6 or with an attribute that pods' routes cannot have (code 2).
    """
    return tuple(_route(entry, name) for entry in typed_list(value, name, dict))


def _route(entry: Mapping[str, object], name: str) -> Route:
    destination, gateway = typed_value(entry, "dst", str, ""), typed_value(entry, "gw", str, "")
    refuse_ipv6(f"{name}[].dst", destination)
    for key in _ROUTE_EXTRAS:
        if entry.get(key) is not None:
            raise CniError(
                UNSUPPORTED_FIELD,
                f'unsupported field "{name}[].{key}": {shown(entry[key])}',
                "a pod's route has a destination and a gateway; remove the key",
            )
    return Route(ipv4_network(destination, f"{name}[].dst"), ipv4_address(gateway, f"{name}[].gw") if gateway else None)


def refuse_ipv6(name: str, text: str) -> None:
    """Complain about IPv6 in plain words rather than as a malformed IPv4 address.

    Raises:
        CniError: It is IPv6 (code 2).
    """
    if ":" in text:
        raise CniError(UNSUPPORTED_FIELD, f'"{name}": {text} is IPv6, pods here have IPv4 only', "configure IPv4")


def refuse_outside(addresses: Iterable[IPv4Address], ranges: Iterable[tuple[AddressRange, ...]]) -> None:
    """Addresses that are asked for must be of the ranges that are allowed, where there are any.

    Raises:
        CniError: One is not (code 7).
    """
    allowed = [one for ranged in ranges for one in ranged]
    for address in addresses:
        if allowed and not any(address in one for one in allowed):
            raise CniError(
                INVALID_CONFIG,
                f"the address {address} that is asked for is in none of the ranges {', '.join(map(str, allowed))}",
                "ask for another address, or widen the ranges",
            )


def subnet_complaint(one: AddressRange, pod_range: IPv4Network, prefix_max: int) -> str:
    """Why a range cannot be served, or the empty string."""
    if one.subnet == pod_range or (one.subnet.subnet_of(pod_range) and one.subnet.prefixlen <= prefix_max):
        return ""
    return f'"ipam.subnet": {one.subnet} is no part of the pod range {pod_range} with room for pods'
