"""The node's virtual switch: the bridge `weave`, its address and its MTU."""

import errno
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from plugin.core.errors import InputError, MissingError, said_by
from plugin.link import constants as c
from plugin.link import rtnl, sysctls
from plugin.link.netlink import Link, Netlink, NetlinkError


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
                    f"the kernel cannot make bridges: {said_by(error)}",
                    hint="modprobe bridge, or use a kernel that has it",
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
        # A MAC that is set makes the kernel forget all neighbours, also when it is the one that is there.
        rtnl.link_set(link.index, up=True, mac=None if link.mac == mac else mac),
        *rtnl.bridge_set(link.index, without_vlans=any(link.kind_attribute(c.BR_VLAN_FILTERING) or b"")),
        rtnl.bridge_fdb_own(link.index, mac),
        what=f"set up bridge {name}",
    )
    set_mtu(netlink, link, mtu_bytes)
    return link


def set_mtu(netlink: Netlink, link: Link, mtu_bytes: int) -> None:
    """The bridge, or another link, has this MTU from now on, whatever its ports have.

    Raises:
        NetlinkError: The kernel refuses.
    """
    netlink.request(
        # A bridge's MTU follows its smallest port until somebody *changes* it (net/bridge/br_device.c, br_change_mtu),
        # and the kernel passes over a change to the value that is there. Hence two steps.
        rtnl.link_set(link.index, mtu=mtu_bytes - 1),
        rtnl.link_set(link.index, mtu=mtu_bytes),
        what=f"give {link.name} an MTU of {mtu_bytes} bytes",
    )


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
