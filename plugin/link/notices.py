"""Hearing what anybody changes in the node's namespace, so that a look finds at once what is wrong.

Two sockets: routing netlink's groups for links, addresses, neighbours and forwarding entries, routes, queueing
disciplines and forwarding settings; netfilter's group for nftables. A notice is not believed, only taken as the reason
to look: what really is, is read afterwards. What this agent's own sockets have changed is passed over, where the kernel
says who it was (`nl_pid`), since each look would else be the reason for the next.
Numbers come from include/uapi/linux/{rtnetlink,netconf}.h and linux/netfilter/nfnetlink.h.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Collection
from typing import Final

from plugin.core.upkeep.items import EVERYTHING, Concern
from plugin.link import constants as c
from plugin.link.netlink import Neighbour, parse_neighbour

_NETLINK_NETFILTER: Final = 12
_GROUP_NFTABLES: Final = 7
_NETLINK_ADD_MEMBERSHIP: Final = 1
_RECEIVED_MAX: Final = 4096
"""Messages read in one turn: whoever changes things without end must not keep us busy for ever."""

_BUFFER_BYTES: Final = 1 << 20

_GROUPS: Final = (
    c.RTNLGRP_LINK,
    c.RTNLGRP_NEIGH,
    c.RTNLGRP_TC,
    c.RTNLGRP_IPV4_IFADDR,
    c.RTNLGRP_IPV4_ROUTE,
    c.RTNLGRP_IPV4_NETCONF,
)

_CONCERNS: Final = {
    c.NEWLINK: Concern.LINKS,
    c.DELLINK: Concern.LINKS,
    c.NEWADDR: Concern.ADDRESSES,
    c.DELADDR: Concern.ADDRESSES,
    c.NEWROUTE: Concern.ROUTES,
    c.DELROUTE: Concern.ROUTES,
    c.NEWQDISC: Concern.LIMITS,
    c.DELQDISC: Concern.LIMITS,
    c.NEWTFILTER: Concern.LIMITS,
    c.DELTFILTER: Concern.LIMITS,
    c.NEWNETCONF: Concern.SYSCTLS,
    c.DELNETCONF: Concern.SYSCTLS,
}

EntryJudge = Callable[[Neighbour, int, bool], bool]
"""Told a forwarding or neighbour entry, the family of its message, and whether the entry went: is that wrong?"""


class Notices:
    """Hears of changes in the namespace in which it was made.

    Args:
        contradicts: Asked of every entry that changed, so that not each of the many that are right causes a look.
        own: The ports (`Netlink.port`) of sockets whose changes are our own.
    """

    def __init__(self, contradicts: EntryJudge, own: Collection[int] = ()) -> None:
        self._contradicts = contradicts
        self._own = frozenset(own)
        self._routing = _listener(socket.NETLINK_ROUTE, _GROUPS)
        self._netfilter = _listener(_NETLINK_NETFILTER, (_GROUP_NFTABLES,))

    def filenos(self) -> tuple[int, int]:
        """For the event loop: when one is readable, call `receive`."""
        return self._routing.fileno(), self._netfilter.fileno()

    def close(self) -> None:
        """Release the sockets; twice is harmless."""
        self._routing.close()
        self._netfilter.close()

    def receive(self) -> Concern:
        """What has changed since the last call; EVERYTHING when the kernel had to drop notices."""
        found = self._receive_rules()
        with contextlib.suppress(BlockingIOError):
            for _ in range(_RECEIVED_MAX):
                try:
                    data = self._routing.recv(1 << 15)
                except BlockingIOError:
                    raise
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    return EVERYTHING
                found |= self._concern_of(data)
        return found

    def _concern_of(self, data: bytes) -> Concern:
        kind, port = struct.unpack_from("H", data, 4)[0], struct.unpack_from("I", data, 12)[0]
        if port in self._own:
            return Concern.NOTHING
        if kind in {c.NEWNEIGH, c.DELNEIGH}:
            entry = parse_neighbour(data[16:])
            return Concern.ENTRIES if self._contradicts(entry, data[16], kind == c.DELNEIGH) else Concern.NOTHING
        return _CONCERNS.get(kind, Concern.NOTHING)

    def _receive_rules(self) -> Concern:
        found = Concern.NOTHING
        with contextlib.suppress(BlockingIOError):
            for _ in range(_RECEIVED_MAX):
                try:
                    data = self._netfilter.recv(1 << 15)
                except BlockingIOError:
                    raise
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    return Concern.RULES
                if struct.unpack_from("I", data, 12)[0] not in self._own:
                    found = Concern.RULES
        return found


def _listener(protocol: int, groups: Collection[int]) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    opened = socket.socket(socket.AF_NETLINK, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        opened.bind((0, 0))
        for group in groups:
            opened.setsockopt(c.SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError:
        opened.close()
        raise
    return opened
