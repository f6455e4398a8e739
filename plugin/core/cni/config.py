"""The keys of a network configuration, as an ADD means them: what is asked for, or which key cannot be had here.

Keys and defaults are those of Weave Net (plugin/net/cni.go) and of the reference plugin `bridge`. What a key asks for
is done or refused, never passed over. A new key is read here and carried out in plugin/agent/attachments.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cni.capabilities import parse_bandwidth, parse_port_mappings
from plugin.core.cni.environment import ifname_complaint
from plugin.core.cni.exemption import ANY, Exemption
from plugin.core.cni.ipam import delegate_of, own_ipam, refuse_ipv6, refuse_outside
from plugin.core.cni.keys import in_any_case, ipv4_address, shown, text_list, typed_value
from plugin.core.cni.types import (
    DEFAULT_BRIDGE,
    INVALID_CONFIG,
    MTU_BYTES_MAX,
    MTU_BYTES_MIN,
    UNSUPPORTED_FIELD,
    CniError,
    Dns,
    IpamConfig,
    NetworkConfig,
)


def parse_config(raw: Mapping[str, object], args: Mapping[str, str]) -> NetworkConfig:
    """What a configuration asks for.

    Args:
        raw: The configuration, with what the runtime injected.
        args: CNI_ARGS.

    Raises:
        CniError: A value is wrong (code 7), or asks for something that nobody does here (2).
    """
    _refuse_unsupported(raw)
    bridge = typed_value(raw, "bridge", str, "") or DEFAULT_BRIDGE
    if complaint := ifname_complaint(bridge):
        raise CniError(INVALID_CONFIG, f'"bridge": {complaint}', bridge)
    mtu_bytes = typed_value(raw, "mtu", int, 0)
    if mtu_bytes and not MTU_BYTES_MIN <= mtu_bytes <= MTU_BYTES_MAX:
        raise CniError(INVALID_CONFIG, f'"mtu" must be 0 or {MTU_BYTES_MIN} to {MTU_BYTES_MAX}, found {mtu_bytes}')
    runtime_config = in_any_case(typed_value(raw, "runtimeConfig", dict, {}))
    delegated = delegate_of(raw, strict=True) is not None  # then addresses are the other plugin's, which reads the same
    ipam = IpamConfig() if delegated else own_ipam(typed_value(raw, "ipam", dict, {}), runtime_config)
    requested = () if delegated else _requested_addresses(raw, args, runtime_config)
    refuse_outside(requested, ipam.ranges)
    is_gateway, default_gateway = _truth(raw, "isGateway"), _truth(raw, "isDefaultGateway")
    return NetworkConfig(
        bridge=bridge,
        mtu_bytes=mtu_bytes,
        hairpin=typed_value(raw, "hairpinMode", bool, True),
        ipam=ipam,
        dns=_dns(raw, runtime_config),
        requested_addresses=requested,
        requested_mac=_requested_mac(raw, args, runtime_config),
        ports=parse_port_mappings(runtime_config),
        bandwidth=parse_bandwidth(raw, runtime_config),
        is_gateway=True if default_gateway else is_gateway,  # as in the plugin `bridge`, the one includes the other
        default_gateway=default_gateway,
        masquerade=_truth(raw, "ipMasq"),
        exemption=_exemption(raw),
    )


def _truth(raw: Mapping[str, object], key: str) -> bool | None:
    return typed_value(raw, key, bool, False) if raw.get(key) is not None else None


_UNSUPPORTED: Final = {
    "vlan": "pods share one flat network",
    "vlanTrunk": "pods share one flat network",
    "portIsolation": "pods of a node reach each other",
    "promiscMode": "hairpinMode does what it is for",
    "disableContainerInterface": "an address on a link that is down reaches nobody",
}
"""Keys of the reference plugin `bridge` that ask for something nobody does here. Passing them over would be worse."""


def _refuse_unsupported(raw: Mapping[str, object]) -> None:
    """Code 2 is what the specification has for exactly this case."""
    for key, why in _UNSUPPORTED.items():
        if raw.get(key):  # false and 0 ask for nothing
            raise CniError(UNSUPPORTED_FIELD, f'unsupported field "{key}": {shown(raw[key])}', f"{why}; remove the key")


_GUARD_KEYS: Final = ("macs", "addresses", "promiscuous")
_LISTED_MAX: Final = 16
"""So many MACs and so many addresses may be listed: every pair of them is an entry of the kernel's."""


def _exemption(raw: Mapping[str, object]) -> Exemption:
    """What the keys `guard` and `macspoofchk` of a configuration ask for.

    Raises:
        CniError: A value is wrong, or they contradict each other (code 7).
    """
    guard = typed_value(raw, "guard", dict, {})
    if unknown := sorted(set(guard) - set(_GUARD_KEYS)):
        raise CniError(INVALID_CONFIG, f'"guard" has no {unknown[0]}', f"its keys are {', '.join(_GUARD_KEYS)}")
    promiscuous = typed_value(guard, "promiscuous", bool, False)
    any_mac, macs = _any_or_listed(guard, "macs")
    any_address, addresses = _any_or_listed(guard, "addresses")
    if promiscuous and (any_mac or macs or any_address or addresses):
        raise CniError(INVALID_CONFIG, '"guard": promiscuous includes macs and addresses', "leave those out")
    if any_mac and any_address:
        raise CniError(INVALID_CONFIG, '"guard": any MAC with any address leaves nothing to check', "say promiscuous")
    exemption = Exemption(
        macs=tuple(dict.fromkeys(_guard_mac(text) for text in macs)),
        addresses=tuple(dict.fromkeys(str(ipv4_address(text, "guard.addresses")) for text in addresses)),
        any_mac=any_mac,
        any_address=any_address,
        promiscuous=promiscuous,
    )
    # The plugin `bridge` checks MACs only when it is told to; here that is so in any case.
    if typed_value(raw, "macspoofchk", bool, False) and (macs or any_mac or promiscuous):
        raise CniError(INVALID_CONFIG, f'"macspoofchk" contradicts "guard": {shown(guard)}', "leave one of them out")
    return exemption


def _any_or_listed(guard: Mapping[str, object], key: str) -> tuple[bool, tuple[str, ...]]:
    """Whether any is allowed, and which are listed."""
    if guard.get(key) == ANY:
        return True, ()
    if isinstance(guard.get(key), str):
        raise CniError(INVALID_CONFIG, f'"guard.{key}" must be a list or "{ANY}", found {shown(guard[key])}')
    found = text_list(guard, key)
    if len(found) > _LISTED_MAX:
        raise CniError(INVALID_CONFIG, f'"guard.{key}" lists {len(found)}, more than {_LISTED_MAX}', f'say "{ANY}"')
    return False, found


def _guard_mac(text: str) -> str:
    mac = text.lower()
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac, re.ASCII) or int(mac[:2], 16) & 1:
        raise CniError(
            INVALID_CONFIG, f'"guard.macs" lists MAC addresses of interfaces, found {shown(text)}',
            "one looks like 02:00:00:00:00:05",
        )  # fmt: skip
    return mac


def _dns(raw: Mapping[str, object], runtime_config: Mapping[str, object]) -> Dns:
    """`dns` of the configuration; the runtime's `dns` capability replaces it whole, since it is the pod's own."""
    given = typed_value(runtime_config, "dns", dict, {})
    if given:
        return Dns(
            nameservers=text_list(given, "servers"),
            search=text_list(given, "searches"),
            options=text_list(given, "options"),
        )
    dns = typed_value(raw, "dns", dict, {})
    return Dns(
        nameservers=text_list(dns, "nameservers"),
        domain=typed_value(dns, "domain", str, ""),
        search=text_list(dns, "search"),
        options=text_list(dns, "options"),
    )


def _requested_addresses(
    raw: Mapping[str, object], args: Mapping[str, str], runtime_config: Mapping[str, object]
) -> tuple[IPv4Address, ...]:
    """The addresses a caller asks for. The strongest source wins whole (CONVENTIONS.md): runtimeConfig.ips, then
    args.cni.ips, then `IP=` of CNI_ARGS.

    A prefix may follow the address and is dropped: pods carry the prefix of the whole range.
    """
    by_name = args.get("IP", "")
    sources = (
        text_list(runtime_config, "ips"),
        text_list(_cni_args(raw), "ips"),
        tuple(by_name.split(",")) if by_name else (),
    )
    chosen = next((texts for texts in sources if texts), ())
    for text in chosen:
        refuse_ipv6("requested address", text)
    requested = tuple(ipv4_address(text.partition("/")[0], "requested address") for text in chosen)
    if len(set(requested)) < len(requested):
        raise CniError(INVALID_CONFIG, f"an address is asked for twice: {', '.join(map(str, requested))}")
    return requested


def _requested_mac(raw: Mapping[str, object], args: Mapping[str, str], runtime_config: Mapping[str, object]) -> str:
    sources = (
        typed_value(runtime_config, "mac", str, ""),
        typed_value(_cni_args(raw), "mac", str, ""),
        args.get("MAC", ""),
    )
    mac = next((text for text in sources if text), "").lower()
    if mac and not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac, re.ASCII):
        raise CniError(INVALID_CONFIG, f"a MAC address looks like 0a:58:0a:20:00:05, found {mac!r}")
    if mac and int(mac[:2], 16) & 1:
        raise CniError(INVALID_CONFIG, f"{mac} is a multicast MAC address, which no interface can have")
    return mac


def _cni_args(raw: Mapping[str, object]) -> Mapping[str, object]:
    return typed_value(typed_value(raw, "args", dict, {}), "cni", dict, {})
