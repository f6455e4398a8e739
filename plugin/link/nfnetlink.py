"""Netfilter netlink, spoken directly: entries of nftables sets in one transaction, and entries of connection tracking.

The tables and chains themselves are written with `nft` when the agent starts (plugin/link/rules.py); what comes and
goes with a pod are entries of sets and maps, and no pod waits for a process for that.
Numbers come from include/uapi/linux/netfilter/{nfnetlink,nf_tables,nfnetlink_conntrack}.h.
"""

import errno
import hashlib
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar, Final

from plugin.core.errors import MissingError, said_by
from plugin.link import constants as c
from plugin.link import rtnl
from plugin.link.attributes import attr, nest, parse, parse_list, text, u32
from plugin.link.netlink import Netlink, NetlinkError

_NETLINK_NETFILTER: Final = 12

_SUBSYSTEM_CONNTRACK, _SUBSYSTEM_NFTABLES = 1, 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET = ((_SUBSYSTEM_NFTABLES << 8) + number for number in (1, 4, 7, 10))
_TABLE_NAME, _TABLE_FLAGS = 1, 2
_CHAIN_TABLE, _CHAIN_FIELDS = 1, (3, 4, 5, 7)  # its name, hook, policy and type
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_SET_TABLE, _SET_FIELDS = 1, range(2, 8)  # its name and flags, the types and lengths of keys and data
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_NEWSETELEM, _GETSETELEM, _DELSETELEM = ((_SUBSYSTEM_NFTABLES << 8) + number for number in (12, 13, 14))
_GETGEN: Final = (_SUBSYSTEM_NFTABLES << 8) + 16
_GEN_ID: Final = 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEM = 1, 2, 3, 1
_ELEM_KEY, _ELEM_DATA, _ELEM_EXPR, _ELEM_EXPRESSIONS, _DATA_VALUE = 1, 2, 7, 11, 1
_EXPR_NAME, _EXPR_DATA, _COUNTER_PACKETS = 1, 2, 2

_CT_GET, _CT_DELETE = ((_SUBSYSTEM_CONNTRACK << 8) + number for number in (1, 2))
_CTA_ORIGINAL, _CTA_REPLY, _CTA_STATUS, _CTA_ID, _CTA_ZONE, _CTA_FILTER = 1, 2, 3, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE, _IP_DESTINATION = 1, 2
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT = 1, 2, 3
_FILTER_ORIGINAL, _FILTER_REPLY = 1, 2
_BY_SOURCE_ADDRESS, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5
_STATUS_DNAT = 1 << 5


IPV4: Final = socket.AF_INET
BRIDGE: Final = c.AF_BRIDGE
"""Families of tables (`nft list table ip ...`, `nft list table bridge ...`)."""


@dataclass(frozen=True, slots=True)
class Element:
    """One entry of a set, or of a map when there is `value`: bytes as the kernel compares them (`concatenated`)."""

    set_name: str
    key: bytes
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class Connection:
    """One tracked connection: where its first packet went, who answers, and the attributes that name it."""

    protocol: int
    destination: IPv4Address
    destination_port: int
    answers: IPv4Address
    translated: bool
    identity: bytes


def concatenated(*parts: bytes) -> bytes:
    """A key or value of several fields: each begins at a multiple of four bytes (nft(8), CONCATENATIONS)."""
    return b"".join(part + b"\0" * (-len(part) % 4) for part in parts)


class Netfilter(Netlink):
    """A netfilter netlink socket of one namespace.

    Raises:
        MissingError: The kernel has no netfilter netlink.
    """

    protocol: ClassVar[int] = _NETLINK_NETFILTER

    @classmethod
    def _open(cls) -> socket.socket:
        try:
            return super()._open()
        except OSError as error:
            raise MissingError(
                f"the kernel has no netfilter netlink: {said_by(error, path=False)}",
                hint="modprobe nfnetlink nf_tables",
            ) from error

    # --- nftables ---------------------------------------------------------------------------------------------------
    def generation(self) -> int:
        """A number that is another after every change of any table, by whomever: the cheapest question there is."""
        self._sequence += 1
        self._socket.send(_message(_GETGEN, 0, self._sequence, _header(socket.AF_UNSPEC)))
        while True:
            for kind, _flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == c.NLMSG_ERROR:
                    number = -struct.unpack_from("i", body)[0]
                    raise NetlinkError(number, f"ask for the generation of nftables: {os.strerror(number)}")
                return int.from_bytes(parse(body, 4).get(_GEN_ID, b""))

    def add_elements(self, table: str, elements: Sequence[Element], family: int = IPV4) -> None:
        """Add all of them to sets of a table, or none; one that is there already, and the same, is no failure.

        Raises:
            NetlinkError: The kernel refuses; ENOENT when table or set is missing, EEXIST for a key with another value.
        """
        self._transaction(_NEWSETELEM, c.CREATE, table, elements, family)

    def delete_elements(self, table: str, elements: Sequence[Element], family: int = IPV4) -> None:
        """Remove all of them; those that are not there are passed over.

        Raises:
            NetlinkError: The kernel refuses.
        """
        try:
            self._transaction(_DELSETELEM, 0, table, elements, family)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            # One was missing, so the kernel has removed none.
            if len(elements) > 1:
                for element in elements:
                    self.delete_elements(table, [element], family)

    def elements(self, table: str, set_name: str, family: int = IPV4) -> dict[bytes, bytes]:
        """The entries of a set or map: keys to values. Empty when there is no such set."""
        return {
            _value(parts.get(_ELEM_KEY)): _value(parts.get(_ELEM_DATA))
            for parts in self._listed(table, set_name, family)
        }

    def counted(self, table: str, set_name: str, family: int = IPV4) -> dict[bytes, int]:
        """The entries of a set that count: keys to the packets that met them. Empty when there is no such set."""
        return {_value(parts.get(_ELEM_KEY)): _packets(parts) for parts in self._listed(table, set_name, family)}

    def _listed(self, table: str, set_name: str, family: int) -> Iterator[dict[int, bytes]]:
        header = _header(family) + attr(_LIST_TABLE, text(table)) + attr(_LIST_SET, text(set_name))
        try:
            for body in self.dump(_GETSETELEM, header):
                for _, element in parse_list(parse(body, 4).get(_LIST_ELEMENTS, b"")):
                    yield parse(element)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise

    def table_digest(self, table: str, family: int = IPV4) -> bytes:
        """A check sum of a table: its flags, chains, rules and sets; not of the sets' entries, nor of counters.

        The same text gives the same digest each time that it is loaded. Empty when there is no such table.

        Raises:
            NetlinkError: The kernel has no nf_tables.
        """
        name, header = text(table), _header(family)
        tables = [parse(body, 4) for body in self.dump(_GETTABLE, header)]
        flags = next((one.get(_TABLE_FLAGS, b"") for one in tables if one.get(_TABLE_NAME) == name), None)
        if flags is None:
            return b""
        digest = hashlib.sha256()
        chains = (parse(body, 4) for body in self.dump(_GETCHAIN, header))
        sets = (parse(body, 4) for body in self.dump(_GETSET, header + attr(_SET_TABLE, name)))
        listed = (parse(body, 4) for body in self.dump(_GETRULE, header + attr(_RULE_TABLE, name)))
        fields = [flags]
        fields += [one.get(kind, b"") for one in chains if one.get(_CHAIN_TABLE) == name for kind in _CHAIN_FIELDS]
        fields += [one.get(kind, b"") for one in sets if one.get(_SET_TABLE) == name for kind in _SET_FIELDS]
        fields += [field for one in listed if one.get(_RULE_TABLE) == name for field in _rule_fields(one)]
        for field in fields:
            digest.update(struct.pack("I", len(field)) + field)
        return digest.digest()

    def _transaction(self, kind: int, flags: int, table: str, elements: Sequence[Element], family: int = IPV4) -> None:
        """Send the entries as one batch: the kernel makes all changes visible to packets at once, or none.

        Begin and end of a batch are acknowledged by newer kernels only, so neither is asked to be.
        """
        if not elements:
            return
        begin, first = self._sequence + 1, self._sequence + 2
        self._sequence += len(elements) + 2
        batch = _message(_BATCH_BEGIN, 0, begin, _header(socket.AF_UNSPEC, _SUBSYSTEM_NFTABLES))
        for number, element in enumerate(elements):
            batch += _message(kind, flags | c.ACK, first + number, _element(family, table, element))
        batch += _message(_BATCH_END, 0, self._sequence, _header(socket.AF_UNSPEC, _SUBSYSTEM_NFTABLES))
        self._socket.send(batch)
        waiting = set(range(first, first + len(elements)))
        refused = 0
        while waiting:
            for answer, _flags, sequence, body in self._receive():
                if answer != c.NLMSG_ERROR or not begin <= sequence <= self._sequence:
                    continue
                number = -struct.unpack_from("i", body)[0]
                refused = refused or number
                waiting.discard(sequence)
                if number and sequence not in range(first, first + len(elements)):
                    waiting.clear()  # the batch as a whole: nothing else will be answered
        if refused:
            raise NetlinkError(refused, f"nftables table {table}: {os.strerror(refused)}")

    # --- connection tracking ----------------------------------------------------------------------------------------
    def connections_answered_by(self, address: IPv4Address) -> Iterator[Connection]:
        """The IPv4 connections whose answers come from `address`: to it, or led to it by a translation.

        Raises:
            NetlinkError: The kernel cannot tell (no nf_conntrack_netlink).
        """
        tuple_ = nest(_CTA_REPLY, nest(_TUPLE_IP, attr(_IP_SOURCE, address.packed)))
        wanted = nest(_CTA_FILTER, attr(_FILTER_REPLY, u32(_BY_SOURCE_ADDRESS)), attr(_FILTER_ORIGINAL, u32(0)))
        # A kernel before 5.8 does not know the filter and tells all: so it is applied once more here.
        return (found for found in self._connections(tuple_ + wanted) if found.answers == address)

    def connections_to_ports(self, protocol: int, ports: Collection[int]) -> Iterator[Connection]:
        """The IPv4 connections whose first packet went to one of these ports, of whatever address.

        Raises:
            NetlinkError: The kernel cannot tell (no nf_conntrack_netlink).
        """
        proto, flags = attr(_PROTO_NUMBER, bytes([protocol])), _BY_PROTOCOL
        if len(ports) == 1:  # the kernel can filter by one; it walks its table for every question
            (port,) = ports
            proto, flags = proto + attr(_PROTO_DESTINATION_PORT, struct.pack(">H", port)), flags | _BY_DESTINATION_PORT
        tuple_ = nest(_CTA_ORIGINAL, nest(_TUPLE_PROTO, proto))
        wanted = nest(_CTA_FILTER, attr(_FILTER_ORIGINAL, u32(flags)), attr(_FILTER_REPLY, u32(0)))
        found = self._connections(tuple_ + wanted)
        return (one for one in found if one.protocol == protocol and one.destination_port in ports)

    def forget_connections(self, connections: Sequence[Connection]) -> int:
        """Delete them from the kernel's table, so that their next packets are judged anew; how many were still there.

        Raises:
            NetlinkError: The kernel refuses.
        """
        messages = [
            _message(_CT_DELETE, 0, 0, _header(socket.AF_INET) + connection.identity) for connection in connections
        ]
        refusals = self.attempt(*messages)
        for _, error in refusals:
            if error.errno != errno.ENOENT:  # it ended by itself
                raise NetlinkError(error.errno, f"delete a tracked connection: {error.strerror}")
        return len(messages) - len(refusals)

    def _connections(self, attributes: bytes) -> Iterator[Connection]:
        for body in self.dump(_CT_GET, _header(socket.AF_INET) + attributes):
            found = parse(body, 4)
            original, reply = parse(found.get(_CTA_ORIGINAL, b"")), parse(found.get(_CTA_REPLY, b""))
            to, back = parse(original.get(_TUPLE_IP, b"")), parse(reply.get(_TUPLE_IP, b""))
            proto = parse(original.get(_TUPLE_PROTO, b""))
            if len(to.get(_IP_DESTINATION, b"")) != 4 or len(back.get(_IP_SOURCE, b"")) != 4:
                continue
            names = (_CTA_ORIGINAL, _CTA_ID, _CTA_ZONE)
            yield Connection(
                protocol=proto.get(_PROTO_NUMBER, b"\0")[0],
                destination=IPv4Address(to[_IP_DESTINATION]),
                destination_port=int.from_bytes(proto.get(_PROTO_DESTINATION_PORT, b"\0\0")),
                answers=IPv4Address(back[_IP_SOURCE]),
                translated=bool(int.from_bytes(found.get(_CTA_STATUS, b"")) & _STATUS_DNAT),
                identity=b"".join(
                    attr(kind | (c.NLA_NESTED if kind == _CTA_ORIGINAL else 0), found[kind])
                    for kind in names
                    if kind in found
                ),
            )


def _rule_fields(rule: Mapping[int, bytes]) -> Iterator[bytes]:
    """What makes a rule this rule: its chain and its expressions."""
    yield rule.get(_RULE_CHAIN, b"")
    for _, expression in parse_list(rule.get(_RULE_EXPRESSIONS, b"")):
        parts = parse(expression)
        name = parts.get(_EXPRESSION_NAME, b"")
        yield name
        # What a counter has counted is no part of the rule.
        yield b"" if name == b"counter\0" else parts.get(_EXPRESSION_DATA, b"")


def _header(family: int, resource: int = 0) -> bytes:
    """`struct nfgenmsg`, which every message of netfilter begins with."""
    return struct.pack(">BBH", family, 0, resource)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    message = bytearray(rtnl.message(kind, flags, body))
    struct.pack_into("I", message, 8, sequence)
    return bytes(message)


def _element(family: int, table: str, element: Element) -> bytes:
    parts = nest(_ELEM_KEY, attr(_DATA_VALUE, element.key))
    if element.value:
        parts += nest(_ELEM_DATA, attr(_DATA_VALUE, element.value))
    return (
        _header(family)
        + attr(_LIST_TABLE, text(table))
        + attr(_LIST_SET, text(element.set_name))
        + nest(_LIST_ELEMENTS, nest(_LIST_ELEM, parts))
    )


def _value(data: bytes | None) -> bytes:
    return parse(data or b"").get(_DATA_VALUE, b"")


def _packets(element: dict[int, bytes]) -> int:
    """What the counter of an entry says; older kernels have one expression an entry, newer ones a list of them."""
    several = [data for _, data in parse_list(element.get(_ELEM_EXPRESSIONS, b""))]
    for expression in (*several, element.get(_ELEM_EXPR, b"")):
        found = parse(expression)
        if found.get(_EXPR_NAME) == text("counter"):
            return int.from_bytes(parse(found.get(_EXPR_DATA, b"")).get(_COUNTER_PACKETS, b""))
    return 0
