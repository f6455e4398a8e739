"""What a CNI call is told: the result of ADD in every version, and what CHECK must complain about.

A result is kept in the shape of the newest version (`normalized`) and turned into the caller's last (`converted`).
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface

from plugin.core.cni.keys import shown, typed_list, typed_value
from plugin.core.cni.types import (
    CHECK_FAILED,
    INVALID_CONFIG,
    Attached,
    CniError,
    CniRequest,
    Dns,
    Json,
    Observed,
    ObservedLink,
    Route,
    at_least,
)


def result_json(request: CniRequest, attached: Attached) -> str:
    """What ADD prints: the result in the version of the request, ending in a newline.

    A prevResult is kept: our interfaces, addresses and routes come after those of the plugins before us in the chain.

    Raises:
        CniError: The request's version cannot express the result (0.1.0 and 0.2.0 need an address).
    """
    own = _own_result(attached)
    merged = _appended(normalized(request.previous), own) if request.previous is not None else own
    return json.dumps(converted(merged, request.cni_version)) + "\n"


def _own_result(attached: Attached) -> Json:
    """Our part of the result, in the shape of `LATEST`. Only the inner end has a sandbox: that is how a reader tells
    the sides apart.
    """
    interfaces = [
        {"name": attached.bridge, "mac": attached.bridge_mac},
        {"name": attached.host_ifname, "mac": attached.host_mac},
        {"name": attached.ifname, "mac": attached.mac, "mtu": attached.mtu_bytes, "sandbox": attached.sandbox},
    ]
    inner = len(interfaces) - 1
    return {
        "interfaces": interfaces,
        "ips": [_ip_entry(address, gateway, inner) for address, gateway in attached.addresses],
        "routes": [_route_entry(route) for route in attached.routes],
        "dns": _dns_entry(attached.dns),
    }


def _ip_entry(address: IPv4Interface, gateway: IPv4Address | None, interface: int) -> Json:
    entry: Json = {"address": str(address), "interface": interface}
    return entry if gateway is None else entry | {"gateway": str(gateway)}


def _route_entry(route: Route) -> Json:
    entry: Json = {"dst": str(route.destination)}
    return entry if route.gateway is None else entry | {"gw": str(route.gateway)}


def _dns_entry(dns: Dns) -> Json:
    entry = {
        "nameservers": list(dns.nameservers),
        "domain": dns.domain,
        "search": list(dns.search),
        "options": list(dns.options),
    }
    return {key: value for key, value in entry.items() if value}


def _appended(previous: Json, own: Json) -> Json:
    """`own` after `previous`; the interface indexes of our addresses move by the number of interfaces that were there
    before.
    """
    before = typed_list(previous["interfaces"], "prevResult.interfaces", dict)
    ips = [entry | {"interface": entry["interface"] + len(before)} for entry in typed_list(own["ips"], "ips", dict)]
    return {
        "interfaces": [*before, *typed_list(own["interfaces"], "interfaces", dict)],
        "ips": [*typed_list(previous["ips"], "prevResult.ips", dict), *ips],
        "routes": [
            *typed_list(previous["routes"], "prevResult.routes", dict),
            *typed_list(own["routes"], "routes", dict),
        ],
        "dns": own["dns"] or previous["dns"],
    }


def normalized(result: Mapping[str, object]) -> Json:
    """A result of any version in the shape of `LATEST`, without cniVersion; absent lists become empty.

    Raises:
        CniError: A part of it has the wrong type (code 7).
    """
    ips = list(typed_list(result.get("ips") or [], "prevResult.ips", dict))
    routes = list(typed_list(result.get("routes") or [], "prevResult.routes", dict))
    for family in ("ip4", "ip6"):  # 0.1.0 and 0.2.0
        entry = typed_value(result, family, dict, {})
        if entry:
            ips.append({"address": entry.get("ip"), **({"gateway": entry["gateway"]} if entry.get("gateway") else {})})
            routes.extend(typed_list(entry.get("routes") or [], f"prevResult.{family}.routes", dict))
    for entry in ips:
        if not typed_value(entry, "address", str, ""):
            raise CniError(INVALID_CONFIG, 'each of "prevResult.ips" needs an "address"', shown(entry))
    return {
        "interfaces": list(typed_list(result.get("interfaces") or [], "prevResult.interfaces", dict)),
        # "version" is 0.3 and 0.4 only
        "ips": [{key: value for key, value in entry.items() if key != "version"} for entry in ips],
        "routes": routes,
        "dns": dict(typed_value(result, "dns", dict, {})),
    }


def converted(result: Mapping[str, object], version: str) -> Json:
    """A normalized result in the shape of `version` (the Go library's types/100, types/040 and types/020).

    Raises:
        CniError: `version` is 0.1.0 or 0.2.0 and there is no address.
    """
    interfaces = typed_list(result["interfaces"], "interfaces", dict)
    ips = typed_list(result["ips"], "ips", dict)
    routes = typed_list(result["routes"], "routes", dict)
    dns = result["dns"]
    if not at_least(version, "0.3.0"):
        return {"cniVersion": version, **_by_family(ips, routes), "dns": dns}
    if not at_least(version, "1.1.0"):
        interfaces = [_without(entry, "mtu", "socketPath", "pciID") for entry in interfaces]
        routes = [_without(entry, "mtu", "advmss", "priority", "table", "scope") for entry in routes]
    answer: Json = {"cniVersion": version}
    if not at_least(version, "1.0.0"):
        ips = [{"version": str(_family(entry)), **entry} for entry in ips]
        return answer | {"interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns}
    lists = {"interfaces": interfaces, "ips": ips, "routes": routes, "dns": dns}
    return answer | {key: value for key, value in lists.items() if value}  # 1.x leaves empty parts out


def _by_family(ips: list[Json], routes: list[Json]) -> Json:
    """0.1.0 and 0.2.0 know no interfaces and one address a family: the first."""
    answer: Json = {}
    for number, key in ((4, "ip4"), (6, "ip6")):
        first = next((entry for entry in ips if _family(entry) == number), None)
        if first is None:
            continue
        own_routes = [
            {name: route[name] for name in ("dst", "gw") if name in route}
            for route in routes
            if _is_v6(str(route.get("dst"))) == (number == 6)
        ]
        gateway = {"gateway": first["gateway"]} if "gateway" in first else {}
        answer[key] = {"ip": first["address"], **gateway, **({"routes": own_routes} if own_routes else {})}
    if not answer:
        raise CniError(INVALID_CONFIG, "cannot convert: no valid IP addresses", "cniVersion 0.1.0 and 0.2.0 need one")
    return answer


def _family(ip_entry: Mapping[str, object]) -> int:
    return 6 if _is_v6(str(ip_entry.get("address"))) else 4


def _is_v6(text: str) -> bool:
    return ":" in text


def _without(entry: Mapping[str, object], *keys: str) -> Json:
    return {key: value for key, value in entry.items() if key not in keys}


# --------------------------------------------------------------------------------------------------
# CHECK: what the runtime was told against what is there now


def check_differences(request: CniRequest, observed: Observed) -> list[str]:
    """Each thing of prevResult that no longer holds, as a sentence; empty when the attachment is as it was made.

    prevResult is the last result of the whole chain, so what a later plugin changed on purpose (tuning: the MAC) is
    in it, and what it added (more interfaces, more routes) is none of our business and is not looked at.
    """
    assert request.previous is not None, "parse_request demands prevResult for CHECK"
    expected = normalized(request.previous)
    index, inner = _inner_interface(request, expected)
    if inner is None:
        return [f"prevResult names no interface {request.ifname} in {request.netns}"]
    if observed.container is None:
        return [f"interface {request.ifname} is missing in the pod: it was deleted or renamed"]
    return [
        *_link_differences(inner, observed.container),
        *_mtu_differences(request, inner.get("mtu"), observed),
        *_switch_differences(request, observed),
        *_address_differences(expected, index, observed),
        *_route_differences(expected, observed),
    ]


def check_failed(differences: list[str]) -> CniError:
    """The error of a CHECK that found `differences`."""
    return CniError(CHECK_FAILED, "the attachment is not as it was made: " + differences[0], "; ".join(differences))


def _inner_interface(request: CniRequest, expected: Mapping[str, object]) -> tuple[int, Json | None]:
    interfaces = typed_list(expected["interfaces"], "prevResult.interfaces", dict)
    if not interfaces:  # a chain that ended in 0.2.0 lists none: then only addresses and routes can be compared
        return -1, {"name": request.ifname}
    for index, entry in enumerate(interfaces):
        if entry.get("name") == request.ifname and entry.get("sandbox") == request.netns:
            return index, entry
    return -1, None


def _link_differences(wanted: Mapping[str, object], found: ObservedLink) -> list[str]:
    differences = []
    if not found.up:
        differences.append(f"interface {found.ifname} in the pod is down")
    mac = wanted.get("mac")
    if mac and str(mac).lower() != found.mac.lower():
        differences.append(f"interface {found.ifname} in the pod has MAC {found.mac}, it was given {mac}")
    return differences


def _mtu_differences(request: CniRequest, given: object, observed: Observed) -> list[str]:
    """The pod has the MTU that it was given, or the one that it gets now: the network may carry another one by now."""
    carried, found = observed.carried_bytes, observed.container
    assert found is not None
    if carried and found.mtu_bytes > carried:
        return [f"interface {found.ifname} in the pod has MTU {found.mtu_bytes}, the network carries {carried} now"]
    now = min(request.config.mtu_bytes or carried, carried)
    if given and found.mtu_bytes not in {given, now}:
        return [f"interface {found.ifname} in the pod has MTU {found.mtu_bytes}, it was given {given}"]
    return []


def _switch_differences(request: CniRequest, observed: Observed) -> list[str]:
    bridge, host = request.config.bridge, observed.host
    if host is None:
        return [f"host interface {observed.host_ifname} is missing on the node"]
    differences = []
    if not observed.paired:
        differences.append(f"host interface {host.ifname} is not the other end of {request.ifname}")
    if not host.up:
        differences.append(f"host interface {host.ifname} is down")
    if observed.host_master != bridge:
        found = f"a port of {observed.host_master}" if observed.host_master else "a port of no bridge"
        differences.append(f"host interface {host.ifname} must be a port of bridge {bridge}, it is {found}")
    elif observed.hairpin is not None and observed.hairpin != request.config.hairpin:
        words = {True: "on", False: "off"}
        differences.append(
            f"hairpin mode of {host.ifname} is {words[observed.hairpin]}, it must be {words[request.config.hairpin]}"
        )
    return differences


def _address_differences(expected: Mapping[str, object], index: int, observed: Observed) -> list[str]:
    differences = []
    present = {str(address) for address in observed.addresses}
    reserved = {str(address) for address in observed.reserved}
    for entry in typed_list(expected["ips"], "prevResult.ips", dict):
        address = str(entry.get("address"))
        if entry.get("interface", index) != index or _is_v6(address):
            continue
        if address not in present:
            found = ", ".join(sorted(present)) or "none"
            differences.append(f"address {address} is missing in the pod, found {found}")
        if address.partition("/")[0] not in reserved:
            differences.append(f"address {address} is not reserved for this pod: another pod could be given it")
    return differences


def _route_differences(expected: Mapping[str, object], observed: Observed) -> list[str]:
    differences = []
    for entry in typed_list(expected["routes"], "prevResult.routes", dict):
        destination, gateway = str(entry.get("dst")), entry.get("gw")
        if _is_v6(destination):
            continue
        gateways = [str(route.gateway) for route in observed.routes if str(route.destination) == destination]
        wanted = f"route to {destination}" + (f" via {gateway}" if gateway else "")
        if not gateways:
            differences.append(f"{wanted} is missing in the pod")
        elif gateway and str(gateway) not in gateways:
            differences.append(f"{wanted} is missing in the pod, it goes via {gateways[0]}")
    return differences
