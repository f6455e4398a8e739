"""Reading what a node reaches the others by: interfaces, addresses, and the routes to them with their MTU.

What follows from it is decided in plugin/core/forwarding/uplink.py. Routes are asked for one by one, as the kernel
would choose them for a packet (rules and tables included), so a node that has learned a million routes costs no more.
"""

import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Final

from plugin.core.forwarding.uplink import Seen, SeenLink, SeenRoute
from plugin.link import attributes, rtnl
from plugin.link import constants as c
from plugin.link.netlink import Netlink, parse_link

_OUTSIDE: Final = IPv4Address("203.0.113.1")
"""For examples only (RFC 5737): whatever leads there leads anywhere."""

_WITHOUT_COUNTERS: Final = attributes.attr(c.IFLA_EXT_MASK, attributes.u32(c.RTEXT_FILTER_SKIP_STATS))


def observe_uplink(netlink: Netlink, nodes: Iterable[IPv4Address], *, source: IPv4Address | None = None) -> Seen:
    """What there is on the node now.

    Args:
        netlink: A socket in the node's namespace.
        nodes: The addresses of the other nodes.
        source: The node address: rules may route its packets differently. None: it is not known yet.

    Raises:
        OSError: The kernel does not tell.
    """
    links = _links(netlink)
    addresses = tuple(netlink.addresses())
    others = tuple(nodes)
    own = source if any(interface.ip == source for _, interface in addresses) else None
    asked = netlink.query(*(rtnl.route_get(node, own) for node in (_OUTSIDE, *others)))
    found = [None if answer is None else _parse_route(answer) for answer in asked]
    prefix_of_default = asked[0][1] if asked[0] is not None else None  # rtm_dst_len
    return Seen(
        links=links,
        addresses=addresses,
        default=found[0] if prefix_of_default == 0 else None,
        routes={node: route for node, route in zip(others, found[1:], strict=True) if route is not None},
    )


def _links(netlink: Netlink) -> Mapping[int, SeenLink]:
    found = {}
    for body in netlink.dump(c.GETLINK, rtnl.link_header() + _WITHOUT_COUNTERS):
        flags = struct.unpack_from("I", body, 8)[0]  # struct ifinfomsg
        link = parse_link(body)
        found[link.index] = SeenLink(
            index=link.index,
            name=link.name,
            mtu_bytes=link.mtu,
            up=link.up,
            carrier=bool(flags & c.IFF_LOWER_UP),
            loopback=bool(flags & c.IFF_LOOPBACK) or link.kind == "dummy",
        )
    return found


def _parse_route(body: bytes) -> SeenRoute | None:
    """The body of a route message (`struct rtmsg` and attributes); None for one that leads nowhere."""
    if body[7] not in {c.RTN_UNICAST, c.RTN_LOCAL}:
        return None  # unreachable, blackhole, prohibit
    found = attributes.parse(body, 12)
    metrics = attributes.parse(found.get(c.RTA_METRICS, b""))
    index = found.get(c.RTA_OIF)
    links = _ways(found.get(c.RTA_MULTIPATH, b"")) if index is None else (struct.unpack("i", index)[0],)
    source = found.get(c.RTA_PREFSRC)
    return SeenRoute(
        links=links,
        mtu_bytes=struct.unpack("I", metrics[c.RTAX_MTU])[0] if c.RTAX_MTU in metrics else 0,
        source=None if source is None else IPv4Address(source),
    )


def _ways(data: bytes) -> tuple[int, ...]:
    """The interfaces of a route of several ways (`struct rtnexthop`: length, flags, weight, index)."""
    found, offset = [], 0
    while offset + 8 <= len(data):
        length, index = struct.unpack_from("Hxxi", data, offset)
        if length < 8:
            break
        found.append(index)
        offset += (length + 3) & ~3
    return tuple(found)
