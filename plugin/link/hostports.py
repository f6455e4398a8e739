"""Host ports in the kernel: entries in the maps of plugin/link/rules.py, and connections that remember older ones.

One transaction a pod, whatever its number of ports; no process is started.
"""

import errno
import struct
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from plugin.core.hostports import ANY_ADDRESS, PROTOCOLS, PortMapping
from plugin.link.netlink import NetlinkError
from plugin.link.nfnetlink import Connection, Element, Netfilter, concatenated
from plugin.link.rules import PORTS_ANY, PORTS_AT, TABLE, TARGETS

_NAMES: Final = {number: name for name, number in PROTOCOLS.items()}


class TableGoneError(NetlinkError):
    """Somebody removed our table, or a part of it."""


def open_ports(address: IPv4Address, mappings: Sequence[PortMapping]) -> None:
    """Lead these ports of the node to the pod at `address`.

    Raises:
        TableGoneError: There is no table to put them into.
        NetlinkError: The kernel refuses; nothing has changed.
    """
    with Netfilter() as kernel:
        try:
            kernel.add_elements(TABLE, _elements(address, mappings))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                raise TableGoneError(error.errno, error.strerror) from error
            raise


def close_ports(address: IPv4Address, mappings: Sequence[PortMapping]) -> None:
    """Lead them there no longer; what is missing already is passed over.

    Raises:
        NetlinkError: The kernel refuses.
    """
    with Netfilter() as kernel:
        kernel.delete_elements(TABLE, _elements(address, mappings))


def closed_ports(address: IPv4Address, mappings: Sequence[PortMapping]) -> list[PortMapping]:
    """Those of `mappings` that do not lead to the pod as they should."""
    with Netfilter() as kernel:
        found = {name: kernel.elements(TABLE, name) for name in (PORTS_ANY, PORTS_AT, TARGETS)}
    return [
        mapping
        for mapping in mappings
        if any(found[one.set_name].get(one.key) != one.value for one in _elements(address, [mapping]))
    ]


def observe_ports() -> dict[IPv4Address, list[PortMapping]]:
    """What the kernel's maps hold, by pod: what is left when the journal is lost."""
    found: dict[IPv4Address, list[PortMapping]] = {}
    with Netfilter() as kernel:
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


def forget_connections(
    address: IPv4Address, mappings: Iterable[PortMapping], own_addresses: Collection[IPv4Address]
) -> int:
    """Make the kernel look at the maps again: connection tracking remembers where a flow went before they changed.

    Gone afterwards are the connections that a host port has led to the pod, so that none of them ever reaches a later
    pod of the same address; and flows without a connection (UDP, SCTP) to one of these ports of the node, which would
    go where they went before for as long as the sender does not pause.

    Args:
        address: The pod's.
        mappings: Its host ports, opened or closed just now.
        own_addresses: The node's addresses: what goes to the same port of anybody else is not ours to judge.

    Returns:
        How many were forgotten.

    Raises:
        NetlinkError: The kernel cannot tell or refuses (no nf_conntrack_netlink).
    """
    with Netfilter() as kernel:
        stale: list[Connection] = [one for one in kernel.connections_answered_by(address) if one.translated]
        for protocol, port in sorted({(one.protocol, one.host_port) for one in mappings if one.protocol != "tcp"}):
            stale += [
                one
                for one in kernel.connections_to_port(PROTOCOLS[protocol], port)
                if one.answers != address and (one.destination in own_addresses or one.destination.is_loopback)
            ]
        return kernel.forget_connections(stale)


def _elements(address: IPv4Address, mappings: Sequence[PortMapping]) -> list[Element]:
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
