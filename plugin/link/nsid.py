"""Whether a network namespace still lives, without keeping it alive: the kernel's ids of namespaces.

A descriptor of a namespace would pin it, its path says nothing once it is unmounted, and its inode's number goes to the
next one. But every namespace can give others a number (ip-netns(8), `set` and `list-id`): that points to the namespace
and holds it not, and the kernel takes it back the moment the last user has gone, before any link of it disappears
(net/core/net_namespace.c, get_net_ns_by_id and unhash_nsid).

The kernel's own numbers begin at 0 and are used again. Ours are high, and go up, so that none ever means another one.
"""

import errno
import itertools
import os
import secrets
import struct
from collections.abc import Collection
from typing import Final

from plugin.link import constants as c
from plugin.link import rtnl
from plugin.link.attributes import attr, parse
from plugin.link.netlink import Netlink, NetlinkError

_OURS: Final = itertools.count((1 << 30) + secrets.randbits(29))
_ATTEMPTS_MAX: Final = 4


def ensure_nsid(netlink: Netlink, netns_fd: int) -> int:
    """The number by which the namespace of `netlink` knows another one; it gets one unless it has.

    Returns:
        The number, or 0 when the kernel gives none: then only the path is left to judge by.
    """
    for _ in range(_ATTEMPTS_MAX):
        wanted = next(_OURS) & 0x7FFF_FFFF
        body = _HEADER + attr(c.NETNSA_NSID, struct.pack("i", wanted)) + attr(c.NETNSA_FD, struct.pack("I", netns_fd))
        refusals = netlink.attempt(rtnl.message(c.NEWNSID, 0, body))
        if not refusals:
            return wanted
        if refusals[0][1].errno != errno.EEXIST:
            return 0
        if known := _nsid_of(netlink, netns_fd):
            return known
    return 0


def _nsid_of(netlink: Netlink, netns_fd: int) -> int:
    try:
        body = netlink.ask(rtnl.message(c.GETNSID, 0, _HEADER + attr(c.NETNSA_FD, struct.pack("I", netns_fd))))
    except NetlinkError:
        return 0
    number = parse(body, len(_HEADER)).get(c.NETNSA_NSID, b"\0\0\0\0")
    # Number 0 is somebody's first one and as good as none here; -1 says that there is none.
    return max(0, int(struct.unpack("i", number)[0]))


def ended(netlink: Netlink, nsids: Collection[int]) -> set[int]:
    """Those of these numbers whose namespaces are gone."""
    asked = list(nsids)
    messages = [rtnl.message(c.GETNSID, 0, _HEADER + attr(c.NETNSA_NSID, struct.pack("i", number))) for number in asked]
    return {asked[position] for position, error in netlink.attempt(*messages) if error.errno == errno.ENOENT}


def path_lives(path: str) -> bool:
    """Whether something is still mounted at the path of a namespace, as far as this process can see."""
    return bool(path) and os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a path with a NUL in it


# --- include/uapi/linux/net_namespace.h: a `struct rtgenmsg`, padded, and attributes
_HEADER: Final = b"\0\0\0\0"
