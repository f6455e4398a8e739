"""Host ports in the kernel: entries in the maps of plugin/link/rules.py, and connections that remember older ones.

One transaction a pod, whatever its number of ports; no process is started.
"""

import errno
import struct
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cni.hostports import ANY_ADDRESS, PROTOCOLS, PortMapping
from plugin.link.netlink import NetlinkError
from plugin.link.nfnetlink import Connection, Element, Netfilter, concatenated
from plugin.link.rules import PORTS_ANY, PORTS_AT, TABLE, TARGETS

_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}


class TableGoneError(NetlinkError):
    """Somebody removed our table, or a part of it."""


def open_ports(kernel: Netfilter, address: IPv4Address, mappings: Sequence[PortMapping]) -> None:
    """Lead these ports of the node to the pod at `address`.

    Raises:
        TableGoneError: There is no table to put them into.
        NetlinkError: The kernel refuses; nothing has changed.
    """
    try:
        kernel.add_elements(TABLE, elements_of(address, mappings))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            raise TableGoneError(error.errno, error.strerror) from error
        raise


def close_ports(kernel: Netfilter, address: IPv4Address, mappings: Sequence[PortMapping]) -> None:
    """Lead them there no longer; what is missing already is passed over.

    Raises:
        NetlinkError: The kernel refuses.
    """
    kernel.delete_elements(TABLE, elements_of(address, mappings))


def closed_ports(kernel: Netfilter, address: IPv4Address, mappings: Sequence[PortMapping]) -> list[PortMapping]:
    """Those of `mappings` that do not lead to the pod as they should."""
    found = {name: kernel.elements(TABLE, name) for name in (PORTS_ANY, PORTS_AT, TARGETS)}
    return [
        mapping
        for mapping in mappings
        if any(found[one.set_name].get(one.key) != one.value for one in elements_of(address, [mapping]))
    ]


def observe_ports(kernel: Netfilter) -> dict[IPv4Address, list[PortMapping]]:
    """What the kernel's maps hold, by pod: what is left when the journal is lost."""
    found: dict[IPv4Address, list[PortMapping]] = {}
    for name in (PORTS_ANY, PORTS_AT):
        for key, value in kernel.elements(TABLE, name).items():
            host_ip = ANY_ADDRESS if name == PORTS_ANY else str(IPv4Address(key[:4]))
            protocol, host_port = struct.unpack(">B3xH2x", key[-8:])
            pod, container_port = struct.unpack(">4sH2x", value)
            mapping = PortMapping(
                host_port=host_port, container_port=container_port, protocol=_NAMES[protocol], host_ip=host_ip
            )
            found.setdefault(IPv4Address(pod), []).append(mapping)
    return found


def forget_connections_of(kernel: Netfilter, address: IPv4Address) -> int:
    """Forget the connections that a host port has led to a pod, now that none does: their next packets are judged anew.

    None of them will ever reach a later pod of the same address; a caller is refused at once rather than left waiting.

    Returns:
        How many were forgotten.

    Raises:
        NetlinkError: The kernel cannot tell or refuses (no nf_conntrack_netlink).
    """
    return kernel.forget_connections([one for one in kernel.connections_answered_by(address) if one.translated])


def forget_older_flows(
    kernel: Netfilter, address: IPv4Address, mappings: Iterable[PortMapping], own_addresses: Collection[IPv4Address]
) -> int:
    """Forget where flows of UDP and SCTP to these ports of the node went before they were led to the pod.

    Connection tracking remembers it for as long as the sender does not pause. A new connection of TCP is judged anew by
    itself. The kernel walks its whole table for that, some 10 ms on a machine with many gigabytes: so not without need.

    Args:
        kernel: A socket in the node's namespace.
        address: The pod's.
        mappings: Its host ports, opened just now.
        own_addresses: The node's addresses: what goes to the same port of anybody else is not ours to judge.

    Returns:
        How many were forgotten.

    Raises:
        NetlinkError: As above.
    """
    ports: dict[str, set[int]] = {}
    for mapping in mappings:
        if mapping.protocol != "tcp":
            ports.setdefault(mapping.protocol, set()).add(mapping.host_port)
    stale: list[Connection] = []
    for protocol, wanted in sorted(ports.items()):
        stale += [
            one
            for one in kernel.connections_to_ports(PROTOCOLS[protocol], wanted)
            if one.answers != address and (one.destination in own_addresses or one.destination.is_loopback)
        ]
    return kernel.forget_connections(stale)


def elements_of(address: IPv4Address, mappings: Sequence[PortMapping]) -> list[Element]:
    """The entries by which these ports of the node lead to the pod at `address`."""
    elements = []
    for mapping in mappings:
        protocol = bytes([PROTOCOLS[mapping.protocol]])
        key = concatenated(protocol, struct.pack(">H", mapping.host_port))
        value = concatenated(address.packed, struct.pack(">H", mapping.container_port))
        if mapping.host_ip == ANY_ADDRESS:
            elements.append(Element(PORTS_ANY, key, value))
        else:
            elements.append(Element(PORTS_AT, IPv4Address(mapping.host_ip).packed + key, value))
        elements.append(
            Element(TARGETS, concatenated(address.packed, protocol, struct.pack(">H", mapping.container_port)))
        )
    return list(dict.fromkeys(elements))  # two host ports may lead to the same port of the pod
