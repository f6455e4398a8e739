"""What no schema can state about ports and limits of a topology's pods: one of the rules of `testbed.topology.rules`.

What the agent would refuse when the pod is made is refused here before anything is made.
"""

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address
from typing import Final

from plugin.core.cni.capabilities import RATE_BITS_MAX, RATE_BITS_MIN
from plugin.core.cni.hostports import PortMapping, first_overlap
from plugin.core.packet.vxlan import UDP_PORT
from testbed.topology.cni_conf import port_mapping, rate_bits
from testbed.topology.model import Topology
from testbed.topology.text import Finding, KeyPath

_CONTROL_PORT: Final = 6783
_AGENT_PORTS: Final = tuple(
    PortMapping(host_port=port, container_port=port, protocol=protocol)
    for protocol, port in (("tcp", _CONTROL_PORT), ("udp", _CONTROL_PORT), ("udp", UDP_PORT))
)
"""Ports of a node that its agent needs; it refuses to lead them into a pod."""


def ports_and_limits(topology: Topology) -> Iterator[Finding]:
    """A port of a node leads to one pod, and is not the agent's; rates are such that the plugin takes them."""
    taken: dict[str, dict[PortMapping, str]] = {}
    for pod, spec in topology.pods.items():
        owners = taken.setdefault(spec.node, dict.fromkeys(_AGENT_PORTS, "the agent"))
        for index, port in enumerate(spec.ports):
            path: KeyPath = ("pods", pod, "ports", index)
            if port.host_ip is not None and not _is_address(port.host_ip):
                yield Finding((*path, "host_ip"), f"pod '{pod}': wanted an IPv4 address, found '{port.host_ip}'")
                continue
            mapping = port_mapping(port)
            if overlap := first_overlap([mapping], owners):
                whose = owners[overlap[1]]
                message = f"pod '{pod}': {port.protocol} port {port.host} of node '{spec.node}' is taken by {whose}"
                yield Finding(path, message)
            else:
                owners[mapping] = f"pod '{pod}'"
        for direction in ("ingress", "egress"):
            rate = getattr(spec.bandwidth, direction)
            if rate is not None and not RATE_BITS_MIN <= rate_bits(rate) <= RATE_BITS_MAX:
                message = f"pod '{pod}': wanted a rate of 1kbit to 1000000gbit, found '{rate}'"
                yield Finding(("pods", pod, "bandwidth", direction), message)


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True
