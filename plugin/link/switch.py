"""The node's virtual switch: the bridge `weave`, its address, and the uplink it takes its MTU from."""

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from plugin.core.errors import InputError, MissingError
from plugin.core.packet.vxlan import overlay_mtu
from plugin.link import constants as c
from plugin.link import rtnl, sysctls
from plugin.link.netlink import Link, Netlink, NetlinkError

_LOOPBACK_INDEX: Final = 1  # in every namespace (include/net/net_namespace.h, LOOPBACK_IFINDEX)
_ANYBODY: Final = IPv4Address("198.51.100.1")
"""An address that no route but the default one leads to (RFC 5737)."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """The link towards the other nodes."""

    name: str
    index: int
    mtu_bytes: int


def observe_uplink(
    netlink: Netlink, node_address: IPv4Address, name: str = "", peers: Collection[IPv4Address] = ()
) -> Uplink:
    """The link that carries the node's address: never "the first one" or "the one of the default route".

    A node that speaks a routing protocol has its address on the loopback, which leads nowhere: then it is the link by
    which the other nodes are reached.

    Args:
        netlink: A socket in the node's namespace.
        node_address: The address by which other nodes reach this one.
        name: The link that is expected to have it; empty for any.
        peers: Addresses of other nodes, as far as they are known.

    Raises:
        InputError: No link of this node has the address, or another one than `name`.
    """
    addresses, links = netlink.addresses(), {link.index: link for link in netlink.links()}
    owner = next((index for index, interface in addresses if interface.ip == node_address), None)
    link = None if owner is None else links.get(owner)
    if link is not None and (link.index == _LOOPBACK_INDEX or link.kind == "dummy") and link.name != name:
        link = _way_out(netlink, links, node_address, name, peers)
    if link is None:
        found = ", ".join(str(interface.ip) for _, interface in addresses) or "none"
        raise InputError(
            f"the node address {node_address} is on no interface of this node; its addresses are: {found}",
            hint="correct node_address in the agent's configuration",
        )
    if name not in {"", link.name}:
        raise InputError(
            f"the node address {node_address} was expected on {name}, found on {link.name}",
            hint="correct uplink or node_address in the agent's configuration",
        )
    return Uplink(link.name, link.index, link.mtu)


def _way_out(
    netlink: Netlink, links: Mapping[int, Link], node_address: IPv4Address, name: str, peers: Collection[IPv4Address]
) -> Link:
    """The link towards the other nodes of a node whose address is on its loopback; of several the one of least MTU.

    Raises:
        InputError: No route leads to another node, or to anywhere.
    """
    if name:
        ways = [link for link in links.values() if link.name == name]
    else:
        routes = [route for route in netlink.routes() if route.index in links and route.index != _LOOPBACK_INDEX]
        best = [
            max((route for route in routes if peer in route.destination), key=lambda route: route.destination.prefixlen)
            for peer in (*peers, _ANYBODY)
            if any(peer in route.destination for route in routes)
        ]
        ways = [links[route.index] for route in best if route.index is not None]
    if not ways:
        raise InputError(
            f"the node address {node_address} is on the loopback, and no interface leads from there to other nodes",
            hint="name the interface towards them in the agent's configuration: uplink",
        )
    return min(ways, key=lambda link: link.mtu)


def mtu_for(uplink: Uplink) -> int:
    """What a pod may send so that the wrapped frame still fits the uplink.

    Raises:
        InputError: The uplink is too small for VXLAN.
    """
    return overlay_mtu(uplink.mtu_bytes)


def ensure_bridge(netlink: Netlink, name: str, *, mac: str, mtu_bytes: int, index: int = 0) -> Link:
    """The bridge exists, is up, and has this MAC and MTU; an existing one is taken over with its ports.

    `index` is what it shall get when it has to be made, so that whoever knows it by its number goes on; 0 for any.

    Raises:
        InputError: A link of that name exists and is no bridge.
        MissingError: The kernel has no bridges.
    """
    found = netlink.link(name)
    if found is None:
        try:
            netlink.request(rtnl.bridge_add(name, index=index, mac=mac, mtu=mtu_bytes), what=f"create bridge {name}")
        except NetlinkError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise MissingError(
                    f"the kernel cannot make bridges: {error}", hint="modprobe bridge, or use a kernel that has it"
                ) from error
            raise
    elif found.kind != "bridge":
        raise InputError(
            f"{name} exists on this node and is a {found.kind or 'plain'} interface, not a bridge",
            hint=f"rename or remove it: ip link delete {name}",
        )
    sysctls.apply_sysctls(sysctls.interface(name))
    link = netlink.link(name)
    assert link is not None
    netlink.request(
        # A bridge's MTU follows its smallest port until somebody *changes* it (net/bridge/br_device.c, br_change_mtu),
        # and the kernel passes over a change to the value that is there. Hence two steps.
        rtnl.link_set(link.index, mtu=mtu_bytes - 1),
        # A MAC that is set makes the kernel forget all neighbours, also when it is the one that is there.
        rtnl.link_set(link.index, up=True, mac=None if link.mac == mac else mac, mtu=mtu_bytes),
        *rtnl.bridge_set(link.index, without_vlans=any(link.kind_attribute(c.BR_VLAN_FILTERING) or b"")),
        rtnl.bridge_fdb_own(link.index, mac),
        what=f"set up bridge {name}",
    )
    return link


def rename(netlink: Netlink, link: Link, name: str) -> None:
    """Give a link another name. It is down then: kernels before 6.2 rename nothing that is up.

    Raises:
        NetlinkError: The kernel refuses: the name is taken.
    """
    netlink.request(
        rtnl.link_set(link.index, up=False), rtnl.link_set(link.index, name=name), what=f"rename {link.name} to {name}"
    )


def ensure_address(netlink: Netlink, link: Link, interface: IPv4Interface) -> None:
    """The link has this IPv4 address and no other one of the same network."""
    for index, found in netlink.addresses():
        if index == link.index and found != interface and found.network == interface.network:
            netlink.request(rtnl.address_del(index, found), what=f"remove {found} from {link.name}")
    if (link.index, interface) not in netlink.addresses():
        netlink.request(rtnl.address_add(link.index, interface), what=f"give {interface} to {link.name}")


def remove_address(netlink: Netlink, link: Link, interface: IPv4Interface) -> None:
    """The link has this address no longer."""
    if (link.index, interface) in netlink.addresses():
        netlink.request(rtnl.address_del(link.index, interface), what=f"remove {interface} from {link.name}")


_SIDE_PREFIX: Final = 32


def side_gateway(address: IPv4Address) -> IPv4Interface:
    """The form in which the switch has a gateway beside its own address: with a prefix that changes no route."""
    return IPv4Interface((address, _SIDE_PREFIX))


def is_side_gateway(interface: IPv4Interface, pod_range: IPv4Network) -> bool:
    """Whether an address of the switch is such a gateway and not its own address."""
    return interface.ip in pod_range and interface.network.prefixlen == _SIDE_PREFIX
