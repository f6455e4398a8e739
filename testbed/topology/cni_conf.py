"""The configuration of a container runtime's networks, as libcni reads it: pure, files come as text.

A node's network is the first file by name in /etc/cni/net.d (`testbed.kubelet.kubelet` looks there); what a plugin
reads on its standard input is its part of that file with what a runtime injects. Source: libcni/conf.go and
libcni/api.go of github.com/containernetworking/cni.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, TypeAlias

from plugin.core.cni.hostports import ANY_ADDRESS, PortMapping
from plugin.core.cni.types import VERSIONS
from plugin.core.errors import CheckError
from testbed.topology.model import BandwidthSpec, PodSpec, PortSpec

Json: TypeAlias = dict[str, Any]


class NetworkListError(CheckError):
    """A configuration that no runtime could use."""


@dataclass(frozen=True, slots=True)
class NetworkList:
    """One configuration of a node, whatever kind of file it came from. `source` is the file's text."""

    path: Path
    name: str
    cni_version: str
    plugins: tuple[Json, ...]
    disable_check: bool
    source: str


def parse_network_list(path: Path, source: str) -> NetworkList:
    """A .conflist, or a .conf or .json with one plugin, as one list (libcni/conf.go).

    Raises:
        NetworkListError: It is not JSON, has no name, no plugin, a plugin without type, or a version nobody knows.
    """
    try:
        raw = json.loads(source)
    except ValueError as error:
        raise NetworkListError(f"cni config uninitialized: {path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise NetworkListError(f"cni config uninitialized: {path} must hold a JSON object")
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        raise NetworkListError(f'cni config uninitialized: {path} has no "name"', hint="every network needs a name")
    plugins = raw.get("plugins") if path.suffix == ".conflist" else [raw]
    if not isinstance(plugins, list) or not plugins:
        raise NetworkListError(f"cni config uninitialized: CNI config list in {path} has no networks")
    for plugin in plugins:
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str) or not plugin["type"]:
            raise NetworkListError(
                f'cni config uninitialized: a plugin in {path} has no "type"',
                hint="the type is the name of the executable in /opt/cni/bin",
            )
    return NetworkList(
        path=path,
        name=name,
        cni_version=_list_version(path, raw),
        plugins=tuple(plugins),
        disable_check=any(raw.get("disableCheck") == word for word in (True, "true")),
        source=source,
    )


def _list_version(path: Path, raw: Json) -> str:
    """`cniVersions` wins: the highest that we know (libcni since 1.3); else `cniVersion`; else the oldest."""
    offered = raw.get("cniVersions")
    known = [version for version in VERSIONS if isinstance(offered, list) and version in offered]
    if known:
        return known[-1]
    wanted = raw.get("cniVersion") or VERSIONS[0]
    version = next((version for version in VERSIONS if version == wanted), "")
    if not version:
        raise NetworkListError(
            f"cni config uninitialized: {path} wants cniVersion {json.dumps(wanted)}",
            hint=f"known are {', '.join(VERSIONS)}",
        )
    return version


UNSTATED_BURST_BITS: Final = 2**32 - 1
"""The burst that containerd sends with every rate: CRI has none, and the key has to be there."""

_UNITS: Final = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


def capabilities_of(pod: PodSpec) -> Json:
    """What a runtime gives to plugins that declare the capability, from what a pod asks for; as containerd does it."""
    capabilities: Json = {}
    if pod.ports:
        capabilities["portMappings"] = [
            {
                "hostPort": port.host,
                "containerPort": port.container,
                "protocol": port.protocol,
                "hostIP": port.host_ip or "",
            }
            for port in pod.ports
        ]
    limits: Json = {}
    for direction, rate in (("ingress", pod.bandwidth.ingress), ("egress", pod.bandwidth.egress)):
        if rate is not None:
            limits |= {f"{direction}Rate": rate_bits(rate), f"{direction}Burst": UNSTATED_BURST_BITS}
    return capabilities | ({"bandwidth": limits} if limits else {})


def bandwidth_annotations(limits: BandwidthSpec) -> dict[str, str]:
    """The annotations by which Kubernetes and containerd know the limits of a pod: a quantity of bits a second each."""
    given = {"ingress": limits.ingress, "egress": limits.egress}
    return {f"kubernetes.io/{way}-bandwidth": str(rate_bits(rate)) for way, rate in given.items() if rate is not None}


def port_mapping(port: PortSpec) -> PortMapping:
    """A port of a topology in the words of the plugin."""
    return PortMapping(
        host_port=port.host,
        container_port=port.container,
        protocol=port.protocol,
        host_ip=str(IPv4Address(port.host_ip or ANY_ADDRESS)),
    )


def rate_bits(text: str) -> int:
    """`10mbit` as bits a second; the loader has checked its form."""
    return round(Decimal(text[:-4]) * _UNITS[text[-4:]])


def plugin_config(
    network: NetworkList, config: Json, previous: Json | None, capabilities: Mapping[str, Any] | None
) -> Json:
    """What one plugin of the list reads on stdin: its part, with what a runtime injects."""
    stdin = config | {"name": network.name, "cniVersion": network.cni_version}
    if previous is not None:
        stdin["prevResult"] = previous
    capable = config.get("capabilities")
    declared = {name for name, wanted in capable.items() if wanted} if isinstance(capable, dict) else set()
    granted = {name: value for name, value in (capabilities or {}).items() if name in declared}
    return stdin | {"runtimeConfig": granted} if granted else stdin
