"""The routing netlink socket: send a batch of messages, read what the kernel knows.

The messages come from `plugin.link.rtnl`. Dumps are returned as small values; a refusal carries the kernel's own words.
Protocol: RFC 3549, netlink(7), rtnetlink(7).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import ClassVar, Final, Self

from plugin.link import constants as c
from plugin.link import netns, rtnl
from plugin.link.attributes import attr, u32
from plugin.link.attributes import parse as _attributes


class NetlinkError(OSError):
    """The kernel refused a message; `errno` is its number, the text holds what was asked and the kernel's own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface as the kernel describes it.

    `master` is 0 outside a bridge; `peer_index` the other end of a veth pair (in its own namespace), else 0; `running`
    False when the other end is down.
    """

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    master: int
    kind: str
    peer_index: int = 0
    vxlan_vni: int | None = None
    vxlan_local: IPv4Address | None = None
    vxlan_port: int | None = None
    running: bool = True
    port_data: bytes = b""
    kind_data: bytes = b""

    @property
    def hairpin(self) -> bool | None:
        """Whether the bridge may send a frame back to the port it came from; None: this is no port."""
        return self.port_flag(c.BRPORT_MODE)

    def port_flag(self, kind: int) -> bool | None:
        """A flag of the bridge port, by its `c.BRPORT_` number; None: this is no port, or the kernel has no such."""
        value = _attributes(self.port_data, 0).get(kind)
        return None if value is None else value != b"\0"

    @property
    def forwards(self) -> bool | None:
        """Whether the bridge takes and gives frames at this port; None: this is no port."""
        value = _attributes(self.port_data, 0).get(c.BRPORT_STATE)
        return None if value is None else value[0] == c.BR_STATE_FORWARDING

    def kind_attribute(self, kind: int) -> bytes | None:
        """What the kernel says beside of a link of its kind (`IFLA_INFO_DATA`), as it says it."""
        return _attributes(self.kind_data, 0).get(kind)


_BATCH_MAX: Final = 256
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour or forwarding entry: `address` is the neighbour's, or the remote node of a VXLAN entry.

    `unused_s` is for how long no packet has used it; infinity when the kernel does not say.
    """

    index: int
    mac: str
    address: IPv4Address | None
    permanent: bool
    master: bool
    unused_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route of the main table."""

    destination: IPv4Network
    gateway: IPv4Address | None
    index: int | None


def _string(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")


def _colons(data: bytes) -> str:
    return data.hex(":")


def parse_link(body: bytes) -> Link:
    """The body of a link message (`struct ifinfomsg` and attributes)."""
    index, flags = struct.unpack_from("iI", body, 4)
    found = _attributes(body, 16)
    info = _attributes(found.get(c.IFLA_LINKINFO, b""), 0)
    kind = _string(info.get(c.INFO_KIND, b""))
    kind_data = info.get(c.INFO_DATA, b"")
    data = _attributes(kind_data, 0) if kind == "vxlan" else {}
    return Link(
        index=index,
        name=_string(found.get(c.IFLA_IFNAME, b"")),
        mac=_colons(found.get(c.IFLA_ADDRESS, b"")),
        mtu=struct.unpack("I", found[c.IFLA_MTU])[0] if c.IFLA_MTU in found else 0,
        up=bool(flags & c.IFF_UP),
        master=struct.unpack("I", found[c.IFLA_MASTER])[0] if c.IFLA_MASTER in found else 0,
        kind=kind,
        peer_index=struct.unpack("I", found[c.IFLA_LINK])[0] if kind == "veth" and c.IFLA_LINK in found else 0,
        vxlan_vni=struct.unpack("I", data[c.VXLAN_ID])[0] if c.VXLAN_ID in data else None,
        vxlan_local=IPv4Address(data[c.VXLAN_LOCAL]) if c.VXLAN_LOCAL in data else None,
        vxlan_port=struct.unpack(">H", data[c.VXLAN_PORT])[0] if c.VXLAN_PORT in data else None,
        running=bool(flags & c.IFF_LOWER_UP),
        port_data=info.get(c.INFO_SLAVE_DATA, b""),
        kind_data=kind_data,
    )


def _unused_s(found: Mapping[int, bytes]) -> float:
    # struct nda_cacheinfo: confirmed, used, updated, refcnt, in clock ticks (USER_HZ)
    cache = found.get(c.NDA_CACHEINFO, b"")
    return float(struct.unpack_from("I", cache, 4)[0] / _TICKS_PER_S) if len(cache) >= 16 else float("inf")


def parse_neighbour(body: bytes, found: Mapping[int, bytes] | None = None) -> Neighbour:
    """The body of a neighbour message (`struct ndmsg` and attributes, or these parsed already)."""
    index, state, flags = struct.unpack_from("iHB", body, 4)
    found = _attributes(body, 12) if found is None else found
    address = found.get(c.NDA_DST)
    return Neighbour(
        index=index,
        mac=_colons(found.get(c.NDA_LLADDR, b"")),
        address=IPv4Address(address) if address is not None and len(address) == 4 else None,
        permanent=bool(state & (c.NUD_PERMANENT | c.NUD_NOARP)),
        master=bool(flags & c.NTF_MASTER) or c.NDA_MASTER in found,
        unused_s=_unused_s(found),
    )


class Netlink:
    """A routing netlink socket; it stays bound to the namespace in which it was opened, whatever its thread does later.

    Args:
        netns_fd: The namespace to open it in, or None for the calling thread's own.

    Raises:
        OSError: The namespace cannot be entered.
    """

    protocol: ClassVar[int] = socket.NETLINK_ROUTE

    def __init__(self, netns_fd: int | None = None) -> None:
        if netns_fd is None:
            self._socket = self._open()
        else:
            with netns.entered(netns_fd):
                self._socket = self._open()
        self._sequence = 0

    @classmethod
    def _open(cls) -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, cls.protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for option in (c.NETLINK_CAP_ACK, c.NETLINK_EXT_ACK, c.NETLINK_GET_STRICT_CHK):
            opened.setsockopt(c.SOL_NETLINK, option, 1)
        opened.bind((0, 0))
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The kernel's number for this socket: what others hear of its changes carries it (netlink(7), `nl_pid`)."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        """Release the socket; twice is harmless."""
        self._socket.close()

    def request(self, *messages: bytes, what: str = "") -> None:
        """Send all messages at once and wait until the kernel has done them.

        The kernel goes on after a failed message, so those behind it are carried out all the same.

        Args:
            messages: From the builders of this module; none is a no-op.
            what: What is being done, for the error text.

        Raises:
            NetlinkError: The first refusal, after all answers have been read.
        """
        refusals = self.attempt(*messages)
        for position, error in refusals:
            subject = f"{what}: " if what else ""
            where = f" (message {position + 1} of {len(messages)})" if len(messages) > 1 else ""
            raise NetlinkError(error.errno, f"{subject}{error.strerror}{where}")

    def attempt(self, *messages: bytes) -> list[tuple[int, OSError]]:
        """Send all messages; the refusals come back as (position of the message, error), in order.

        They go at once, or in parts of _BATCH_MAX: a send that is larger than the socket's buffer is refused
        (EMSGSIZE), and so many answers would not fit either.
        """
        refusals: list[tuple[int, OSError]] = []
        for start in range(0, len(messages), _BATCH_MAX):
            part = self._attempt_part(messages[start : start + _BATCH_MAX])
            refusals += [(start + position, error) for position, error in part]
        return refusals

    def _attempt_part(self, messages: Sequence[bytes]) -> list[tuple[int, OSError]]:
        first = self._sequence + 1
        self._sequence += len(messages)
        batch = bytearray()
        for position, message in enumerate(messages):
            stamped = bytearray(message)
            flags = struct.unpack_from("H", stamped, 6)[0]
            struct.pack_into("=HI", stamped, 6, flags | c.ACK, first + position)
            batch += stamped
        self._socket.send(batch)
        waiting = set(range(first, first + len(messages)))
        refusals: list[tuple[int, OSError]] = []
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind != c.NLMSG_ERROR or sequence not in waiting:
                    continue
                waiting.discard(sequence)
                number = struct.unpack_from("i", body)[0]
                if number:
                    refusals.append((sequence - first, OSError(-number, _reason(-number, flags, body))))
        return sorted(refusals, key=lambda refusal: refusal[0])

    def query(self, *messages: bytes) -> list[bytes | None]:
        """Ask questions of which each has one answer, all at once; None where the kernel has none.

        Args:
            messages: Requests without ACK, for a single object each.
        """
        answers: list[bytes | None] = []
        for start in range(0, len(messages), _BATCH_MAX):
            answers += self._query_part(messages[start : start + _BATCH_MAX])
        return answers

    def _query_part(self, messages: Sequence[bytes]) -> list[bytes | None]:
        first = self._sequence + 1
        self._sequence += len(messages)
        batch = bytearray()
        for position, message in enumerate(messages):
            batch += message[:8] + struct.pack("I", first + position) + message[12:]
        self._socket.send(batch)
        answers: dict[int, bytes | None] = {}
        while len(answers) < len(messages):
            for kind, _flags, sequence, body in self._receive():
                if first <= sequence < first + len(messages):
                    answers[sequence] = None if kind == c.NLMSG_ERROR else body
        return [answers[first + position] for position in range(len(messages))]

    def links(self) -> list[Link]:
        """Every interface of the namespace."""
        return [parse_link(body) for body in self.link_bodies()]

    def link_bodies(self) -> Iterator[bytes]:
        """What the kernel says of every interface, without counters: the same bytes while nothing of it changes."""
        wanted = attr(c.IFLA_EXT_MASK, u32(c.RTEXT_FILTER_SKIP_STATS))
        return self.dump(c.GETLINK, rtnl.link_header() + wanted)

    def link(self, name: str) -> Link | None:
        """The interface of that name, or None."""
        try:
            return parse_link(self.ask(rtnl.link_get(name)))
        except NetlinkError as error:
            # A name that no interface can have (ERANGE, EINVAL) is the name of none.
            if error.errno in {errno.ENODEV, errno.ERANGE, errno.EINVAL}:
                return None
            raise

    def ask(self, message: bytes) -> bytes:
        """The answer to a request for one object, without its header.

        Raises:
            NetlinkError: There is none, or the kernel refuses.
        """
        self._sequence += 1
        stamped = bytearray(message)
        struct.pack_into("I", stamped, 8, self._sequence)
        self._socket.send(stamped)
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind != c.NLMSG_ERROR:
                    return body
                number = -struct.unpack_from("i", body)[0]
                raise NetlinkError(number, _reason(number, flags, body))

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """Every IPv4 address as (ifindex, address with prefix)."""
        found = []
        for body in self.dump(c.GETADDR, struct.pack("BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            prefix, index = body[1], struct.unpack_from("I", body, 4)[0]
            attributes = _attributes(body, 8)
            packed = attributes.get(c.IFA_LOCAL, attributes.get(c.IFA_ADDRESS, b""))
            found.append((index, IPv4Interface((packed, prefix))))
        return found

    def routes(self, *, every_table: bool = False) -> list[Route]:
        """The IPv4 routes of the main table, or those of all tables that lead to other hosts."""
        table = 0 if every_table else c.RT_TABLE_MAIN
        header = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, table, 0, 0, 0, 0)
        found = []
        for body in self.dump(c.GETROUTE, header):
            if body[4] != c.RT_TABLE_MAIN and not (every_table and body[7] == c.RTN_UNICAST):
                continue
            attributes = _attributes(body, 12)
            gateway, index = attributes.get(c.RTA_GATEWAY), attributes.get(c.RTA_OIF)
            found.append(
                Route(
                    IPv4Network((attributes.get(c.RTA_DST, bytes(4)), body[1])),
                    None if gateway is None else IPv4Address(gateway),
                    None if index is None else struct.unpack("I", index)[0],
                )
            )
        return found

    def neighbours(self) -> list[Neighbour]:
        """The IPv4 neighbour table."""
        header = struct.pack("BxxxiHBB", socket.AF_INET, 0, 0, 0, 0)
        return [parse_neighbour(body) for body in self.dump(c.GETNEIGH, header)]

    def fdb(self) -> list[Neighbour]:
        """The forwarding entries of bridges (`master`) and VXLAN devices."""
        header = struct.pack("BxxxiHBB", c.AF_BRIDGE, 0, 0, 0, 0)
        return [parse_neighbour(body) for body in self.dump(c.GETNEIGH, header)]

    def fdb_in_use(self, index: int, *, within_s: float) -> list[Neighbour]:
        """Of `fdb`, the entries of one link that were used so lately: the others, nearly all, cost next to nothing."""
        header = struct.pack("BxxxiHBB", c.AF_BRIDGE, 0, 0, 0, 0)
        found = []
        for body in self.dump(c.GETNEIGH, header):
            if struct.unpack_from("i", body, 4)[0] != index:
                continue
            attributes = _attributes(body, 12)
            if _unused_s(attributes) <= within_s:
                found.append(parse_neighbour(body, attributes))
        return found

    def dump(self, kind: int, header: bytes) -> Iterator[bytes]:
        """The answers to a request for all objects of a kind, without their headers."""
        # A dump that was disturbed half-way is marked, not repeated, by the kernel: what it did tell is valid.
        self._sequence += 1
        message = bytearray(rtnl.message(kind, c.DUMP, header))
        struct.pack_into("I", message, 8, self._sequence)
        self._socket.send(message)
        while True:
            for answer, _flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == c.NLMSG_DONE:
                    return
                if answer == c.NLMSG_ERROR:
                    number = -struct.unpack_from("i", body)[0]
                    raise NetlinkError(number, _reason(number, _flags, body))
                yield body

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        # The kernel fills at most 32 KiB at a time (netlink_dump in net/netlink/af_netlink.c); asking for much more
        # would cost more than the answer, in memory that is mapped and unmapped each time.
        data = self._socket.recv(1 << 16)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _port = struct.unpack_from("IHHII", data, offset)
            yield kind, flags, sequence, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _reason(number: int, flags: int, body: bytes) -> str:
    """The kernel's words: the errno's text, and the extended acknowledgement where it sent one (netlink(7))."""
    text = os.strerror(number) if number in errno.errorcode else f"error {number}"
    if flags & c.F_ACK_TLVS:
        # With CAP_ACK the error carries the header of the refused message only: 4 + 16 bytes.
        start = 20 if flags & c.F_CAPPED else 4 + ((struct.unpack_from("I", body, 4)[0] + 3) & ~3)
        nlmsgerr_attr_msg = 1
        said = _attributes(body, start).get(nlmsgerr_attr_msg)
        if said:
            return f"{text}: {_string(said)}"
    return text
