"""Routing netlink, spoken directly: messages are bytes, a batch is one send, a failure carries the kernel's own words.

Why not a library on this path: an agent of 20 MB and a lab of 100 nodes in a second leave no room for one (a general
netlink library costs 240 ms and 20 MB to import, and a round trip a message). The independent witness that reads back
what we write is pyroute2, in the tests and in the lab's inspection.

This file holds the builders: each returns one message, and `netlink.Netlink.request` sends any number of them at once.
Numbers come from include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h; protocol: RFC 3549.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from plugin.link import constants as c
from plugin.link.attributes import attr as _attr
from plugin.link.attributes import nest as _nest
from plugin.link.attributes import text as _text
from plugin.link.attributes import u32 as _u32

ZERO_MAC: Final = "00:00:00:00:00:00"
"""The VXLAN forwarding entry of this address lists where broadcast and multicast are flooded (ip-link(8))."""


# --- encoding -----------------------------------------------------------------------------------------------------
def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def message(kind: int, flags: int, body: bytes) -> bytes:
    """One message; the sequence number is filled in when it is sent."""
    return struct.pack("IHHII", 16 + len(body), kind, flags | c.REQUEST, 0, 0) + body


def link_header(index: int = 0, *, up: bool | None = None, family: int = 0) -> bytes:
    """The fixed part (`struct ifinfomsg`) of every link message; `up=None` leaves the link's state alone."""
    change = 0 if up is None else c.IFF_UP
    return struct.pack("BxHiII", family, 0, index, c.IFF_UP if up else 0, change)


def _link_attributes(
    *,
    name: str | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    netns_fd: int | None = None,
) -> bytes:
    parts = []
    if name is not None:
        parts.append(_attr(c.IFLA_IFNAME, _text(name)))
    if mac is not None:
        parts.append(_attr(c.IFLA_ADDRESS, _mac(mac)))
    if mtu is not None:
        parts.append(_attr(c.IFLA_MTU, _u32(mtu)))
    if master is not None:
        parts.append(_attr(c.IFLA_MASTER, _u32(master)))
    if netns_fd is not None:
        parts.append(_attr(c.IFLA_NET_NS_FD, _u32(netns_fd)))
    return b"".join(parts)


# --- links --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class VethEnd:
    """One end of a veth pair.

    Attributes:
        name: Interface name, at most 15 bytes.
        index: The ifindex it shall get, or 0 for the kernel's choice; a known index saves a look-up.
        mac: Hardware address, or None for a random one.
        mtu: MTU in bytes, or None for the kernel's default of 1500.
        netns_fd: The namespace it is born in, or None for the socket's own.
        master: Index of the bridge it joins (same namespace), or None.
        up: Bring it up at once. Only the first end can be: the kernel answers ENOTCONN for the other.
    """

    name: str
    index: int = 0
    mac: str | None = None
    mtu: int | None = None
    netns_fd: int | None = None
    master: int | None = None
    up: bool = False


_ONE_QUEUE: Final = _attr(c.IFLA_NUM_TX_QUEUES, _u32(1)) + _attr(c.IFLA_NUM_RX_QUEUES, _u32(1))
"""What a veth uses unless told otherwise. Said beforehand: otherwise the kernel makes one queue a processor, puts all
but one out of use again, and waits for an RCU grace period at either end while it holds the lock of all network
configuration (drivers/net/veth.c, veth_init_queues): a tenth of the time that a lab of 100 nodes takes.
"""


def veth_add(near: VethEnd, far: VethEnd) -> bytes:
    """Create a veth pair; `near` may come up in the same message, `far` may not (drivers/net/veth.c, veth_open)."""
    assert not far.up, "the kernel refuses a peer that is created up"
    peer = link_header(far.index) + _link_attributes(
        name=far.name, mac=far.mac, mtu=far.mtu, netns_fd=far.netns_fd, master=far.master
    )
    body = link_header(near.index, up=near.up) + _link_attributes(
        name=near.name, mac=near.mac, mtu=near.mtu, netns_fd=near.netns_fd, master=near.master
    )
    data = _nest(c.INFO_DATA, _attr(c.VETH_PEER, peer + _ONE_QUEUE))
    info = _nest(c.IFLA_LINKINFO, _attr(c.INFO_KIND, b"veth\0"), data)
    return message(c.NEWLINK, c.CREATE | c.EXCL, body + _ONE_QUEUE + info)


def bridge_add(name: str, *, index: int = 0, mac: str | None = None, mtu: int | None = None, up: bool = True) -> bytes:
    """Create a bridge without spanning tree and without forward delay: a port forwards as soon as it is up.

    A fixed `mac` matters: without one a bridge takes the lowest address of its ports and changes it when pods come.
    """
    body = link_header(index, up=up) + _link_attributes(name=name, mac=mac, mtu=mtu)
    data = _nest(c.INFO_DATA, _attr(c.BR_FORWARD_DELAY, _u32(0)), _attr(c.BR_STP_STATE, _u32(0)))
    return message(c.NEWLINK, c.CREATE | c.EXCL, body + _nest(c.IFLA_LINKINFO, _attr(c.INFO_KIND, b"bridge\0"), data))


def bridge_set(index: int, *, without_vlans: bool) -> list[bytes]:
    """Give an existing bridge the settings that `bridge_add` gives, in messages for this order.

    While there is a spanning tree, there has to be a forward delay (net/bridge/br_stp.c, br_set_forward_delay).

    Args:
        index: The bridge.
        without_vlans: End VLAN filtering, too, which a kernel that has none refuses.
    """
    settings = [_attr(c.BR_STP_STATE, _u32(0)), _attr(c.BR_FORWARD_DELAY, _u32(0))]
    if without_vlans:
        settings.append(_attr(c.BR_VLAN_FILTERING, b"\0"))
    return [
        message(
            c.NEWLINK,
            0,
            link_header(index) + _nest(c.IFLA_LINKINFO, _attr(c.INFO_KIND, b"bridge\0"), _nest(c.INFO_DATA, setting)),
        )
        for setting in settings
    ]


def vxlan_add(  # noqa: PLR0913 - so many properties a device has
    name: str,
    *,
    vni: int,
    local: IPv4Address,
    port: int,
    index: int = 0,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    up: bool = True,
) -> bytes:
    """Create a VXLAN device that learns nothing (`nolearning`): where a MAC lives is written, never guessed.

    The outer UDP checksum is computed, so a damaged outer header is noticed; with offload it costs nothing.
    """
    data = _nest(
        c.INFO_DATA,
        _attr(c.VXLAN_ID, _u32(vni)),
        _attr(c.VXLAN_LOCAL, local.packed),
        _attr(c.VXLAN_TTL, b"\x40"),
        _attr(c.VXLAN_LEARNING, b"\0"),
        _attr(c.VXLAN_PORT, struct.pack(">H", port)),
        _attr(c.VXLAN_UDP_CSUM, b"\1"),
    )
    body = link_header(index, up=up) + _link_attributes(name=name, mac=mac, mtu=mtu, master=master)
    return message(c.NEWLINK, c.CREATE | c.EXCL, body + _nest(c.IFLA_LINKINFO, _attr(c.INFO_KIND, b"vxlan\0"), data))


def vxlan_local_set(index: int, local: IPv4Address) -> bytes:
    """Give a VXLAN device another source address; its entries, and what passes, stay (ip-link(8), `local`)."""
    data = _nest(c.INFO_DATA, _attr(c.VXLAN_LOCAL, local.packed))
    info = _nest(c.IFLA_LINKINFO, _attr(c.INFO_KIND, b"vxlan\0"), data)
    return message(c.NEWLINK, 0, link_header(index) + info)


def link_set(
    index: int,
    *,
    up: bool | None = None,
    name: str | None = None,
    mac: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    netns_fd: int | None = None,
) -> bytes:
    """Change a link; `master=0` takes it out of its bridge. Only what is given changes."""
    attributes = _link_attributes(name=name, mac=mac, mtu=mtu, master=master, netns_fd=netns_fd)
    return message(c.NEWLINK, 0, link_header(index, up=up) + attributes)


def link_without_ipv6_addresses(index: int) -> bytes:
    """Let a link come up without a link-local address, and so without a word of IPv6; EAFNOSUPPORT without IPv6.

    The sysctl `disable_ipv6` would do, but its writers take turns by trying again and again (addrconf_disable_ipv6).
    """
    mode = _nest(c.AF_INET6, _attr(c.INET6_ADDR_GEN_MODE, bytes([c.ADDR_GEN_MODE_NONE])))
    return message(c.NEWLINK, 0, link_header(index) + _nest(c.IFLA_AF_SPEC, mode))


def link_del(index: int) -> bytes:
    """Delete a link (both ends, for a veth). It is gone within a millisecond; the call lasts some 20 ms."""
    return message(c.DELLINK, 0, link_header(index))


def link_group_set(index: int, group: int) -> bytes:
    """Put a link into a group of links (ip-link(8), `group`); the group needs no making."""
    return message(c.NEWLINK, 0, link_header(index) + _attr(c.IFLA_GROUP, _u32(group)))


def link_group_del(group: int) -> bytes:
    """Delete all links of a group in one go, for which the kernel waits once and not once a link."""
    return message(c.DELLINK, 0, link_header() + _attr(c.IFLA_GROUP, _u32(group)))


def link_get(name: str) -> bytes:
    """Ask for one link by its name, without its counters; ENODEV when there is none."""
    wanted = _attr(c.IFLA_IFNAME, _text(name)) + _attr(c.IFLA_EXT_MASK, _u32(c.RTEXT_FILTER_SKIP_STATS))
    return message(c.GETLINK, 0, link_header() + wanted)


PORT_FLAGS: Final = {
    "hairpin": c.BRPORT_MODE,
    "guard": c.BRPORT_GUARD,
    "root_block": c.BRPORT_PROTECT,
    "learning": c.BRPORT_LEARNING,
    "flood": c.BRPORT_UNICAST_FLOOD,
    "mcast_flood": c.BRPORT_MCAST_FLOOD,
    "bcast_flood": c.BRPORT_BCAST_FLOOD,
    "neigh_suppress": c.BRPORT_NEIGH_SUPPRESS,
    "isolated": c.BRPORT_ISOLATED,
    "locked": c.BRPORT_LOCKED,
}
"""The flags of a bridge port by the names that bridge(8) has for them."""


def port_flags_set(index: int, flags: Mapping[str, bool], *, forwarding: bool = False) -> bytes:
    """Set flags of a bridge port by their names in PORT_FLAGS; `forwarding`: it passes frames on (again)."""
    parts = [_attr(PORT_FLAGS[name], bytes([value])) for name, value in flags.items()]
    if forwarding:
        parts.append(_attr(c.BRPORT_STATE, bytes([c.BR_STATE_FORWARDING])))
    return message(c.SETLINK, 0, link_header(index, family=c.AF_BRIDGE) + _nest(c.IFLA_PROTINFO, *parts))


def bridge_port_state(index: int, *, forwarding: bool) -> bytes:
    """Let a bridge port forward frames, or neither take nor send any (bridge(8), `bridge link set state`).

    A port whose link goes up, or gets its carrier back, forwards again by itself.
    """
    state = c.BR_STATE_FORWARDING if forwarding else c.BR_STATE_DISABLED
    wanted = _nest(c.IFLA_PROTINFO, _attr(c.BRPORT_STATE, bytes([state])))
    return message(c.SETLINK, 0, link_header(index, family=c.AF_BRIDGE) + wanted)


# --- addresses, routes, neighbours, forwarding entries -------------------------------------------------------------
def address_add(index: int, interface: IPv4Interface) -> bytes:
    """Give a link an IPv4 address with its prefix and broadcast address; EEXIST when it has it."""
    return message(c.NEWADDR, c.CREATE | c.EXCL, _address(index, interface))


def address_del(index: int, interface: IPv4Interface) -> bytes:
    """Take an IPv4 address from a link."""
    return message(c.DELADDR, 0, _address(index, interface))


def _address(index: int, interface: IPv4Interface) -> bytes:
    packed = interface.ip.packed
    body = struct.pack("BBBBI", socket.AF_INET, interface.network.prefixlen, 0, 0, index)
    body += _attr(c.IFA_LOCAL, packed) + _attr(c.IFA_ADDRESS, packed)
    if interface.network.prefixlen < 31:  # RFC 3021: shorter networks than /31 have a broadcast address
        body += _attr(c.IFA_BROADCAST, interface.network.broadcast_address.packed)
    return body


def route_add(
    destination: IPv4Network,
    *,
    gateway: IPv4Address | None = None,
    index: int | None = None,
    source: IPv4Address | None = None,
) -> bytes:
    """Add an IPv4 route to the main table, by gateway, by link, or both; EEXIST when the destination has one."""
    return message(c.NEWROUTE, c.CREATE | c.EXCL, _route(destination, gateway, index, source))


def _route(
    destination: IPv4Network, gateway: IPv4Address | None, index: int | None, source: IPv4Address | None
) -> bytes:
    scope = c.RT_SCOPE_LINK if gateway is None and index is not None else c.RT_SCOPE_UNIVERSE
    body = struct.pack(
        "BBBBBBBBI",
        socket.AF_INET, destination.prefixlen, 0, 0, c.RT_TABLE_MAIN, c.RTPROT_STATIC, scope, c.RTN_UNICAST, 0,
    )  # fmt: skip
    if destination.prefixlen:
        body += _attr(c.RTA_DST, destination.network_address.packed)
    if gateway is not None:
        body += _attr(c.RTA_GATEWAY, gateway.packed)
    if index is not None:
        body += _attr(c.RTA_OIF, _u32(index))
    if source is not None:
        body += _attr(c.RTA_PREFSRC, source.packed)
    return body


def route_get(destination: IPv4Address, source: IPv4Address | None = None) -> bytes:
    """Ask by which route packets go to an address: the entry of the table, not what was learned of the way."""
    length = 32 if source is not None else 0
    body = struct.pack("BBBBBBBBI", socket.AF_INET, 32, length, 0, 0, 0, 0, 0, c.RTM_F_FIB_MATCH)
    body += _attr(c.RTA_DST, destination.packed)
    return message(c.GETROUTE, 0, body if source is None else body + _attr(c.RTA_SRC, source.packed))


def link_of_namespace(index: int, namespace: int) -> bytes:
    """Ask for a link of another namespace, which this one knows by a number (ip-netns(8), `list-id`)."""
    return message(c.GETLINK, 0, link_header(index) + _attr(c.IFLA_TARGET_NETNSID, struct.pack("i", namespace)))


def namespace_number(netns_fd: int) -> bytes:
    """Ask by which number this namespace knows another one."""
    return message(c.GETNSID, 0, struct.pack("Bxxx", 0) + _attr(c.NETNSA_FD, _u32(netns_fd)))


def neighbour_set(index: int, address: IPv4Address, mac: str) -> bytes:
    """Write a permanent neighbour (ARP) entry, replacing what was known."""
    return message(c.NEWNEIGH, c.CREATE | c.REPLACE, _neighbour(index, address, mac))


def neighbour_del(index: int, address: IPv4Address) -> bytes:
    """Remove a neighbour entry; ENOENT when there is none."""
    return message(c.DELNEIGH, 0, _neighbour(index, address, None))


def _neighbour(index: int, address: IPv4Address, mac: str | None) -> bytes:
    body = struct.pack("BxxxiHBB", socket.AF_INET, index, c.NUD_PERMANENT, 0, 0) + _attr(c.NDA_DST, address.packed)
    return body if mac is None else body + _attr(c.NDA_LLADDR, _mac(mac))


def vxlan_fdb_set(index: int, mac: str, remote: IPv4Address) -> bytes:
    """VXLAN forwarding: frames to `mac` go to the node `remote`, replacing an earlier answer."""
    return message(c.NEWNEIGH, c.CREATE | c.REPLACE, _fdb(index, mac, c.NTF_SELF, remote))


def vxlan_fdb_del(index: int, mac: str, remote: IPv4Address | None = None) -> bytes:
    """Remove a VXLAN forwarding entry (one remote of it, when given); ENOENT when there is none."""
    return message(c.DELNEIGH, 0, _fdb(index, mac, c.NTF_SELF, remote))


def vxlan_flood_append(index: int, remote: IPv4Address) -> bytes:
    """VXLAN flooding: broadcast and multicast also go to the node `remote`; EEXIST when they do already."""
    return message(c.NEWNEIGH, c.CREATE | c.APPEND, _fdb(index, ZERO_MAC, c.NTF_SELF, remote))


def bridge_fdb_set(port_index: int, mac: str) -> bytes:
    """Bridge forwarding: `mac` is behind this port; static, so it does not age, and sticky, so no frame moves it.

    Static alone is not enough: a frame with this MAC that comes in by another port takes even that entry along
    (net/bridge/br_fdb.c, br_fdb_update). Kernels before 4.20 do not know sticky entries and pass over the flag.
    """
    return message(c.NEWNEIGH, c.CREATE | c.REPLACE, _fdb(port_index, mac, c.NTF_MASTER | c.NTF_STICKY, None))


def bridge_fdb_own(bridge_index: int, mac: str) -> bytes:
    """Bridge forwarding: `mac` is the bridge's own, which is delivered to the node; the kernel makes this entry itself.

    It makes it once: an entry of the same MAC behind a port takes its place, and nothing brings it back.
    """
    body = struct.pack("BxxxiHBB", c.AF_BRIDGE, bridge_index, c.NUD_PERMANENT, c.NTF_SELF, 0)
    return message(c.NEWNEIGH, c.CREATE | c.REPLACE, body + _attr(c.NDA_LLADDR, _mac(mac)))


def bridge_fdb_del(port_index: int, mac: str) -> bytes:
    """Remove a bridge forwarding entry; ENOENT when there is none."""
    return message(c.DELNEIGH, 0, _fdb(port_index, mac, c.NTF_MASTER, None))


def _fdb(index: int, mac: str, flags: int, remote: IPv4Address | None) -> bytes:
    state = c.NUD_NOARP | (c.NUD_PERMANENT if flags == c.NTF_SELF else 0)
    if flags & c.NTF_MASTER:
        state = c.NUD_NOARP  # `bridge fdb add ... static`: stays, and is not the port's own address
    body = struct.pack("BxxxiHBB", c.AF_BRIDGE, index, state, flags, 0) + _attr(c.NDA_LLADDR, _mac(mac))
    return body if remote is None else body + _attr(c.NDA_DST, remote.packed)
