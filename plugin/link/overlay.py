"""The overlay of a node: the VXLAN device and the entries that tell it where every pod is.

plugin/core/forwarding/forward.py decides the entries; here they are read and written. Nothing is learned from traffic.
"""

import errno
import os
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import InputError, MissingError, said_by
from plugin.core.forwarding.forward import Changes, Forwarding
from plugin.link import constants as c
from plugin.link import rtnl, sysctls
from plugin.link.netlink import Link, Neighbour, Netlink, NetlinkError

OVERLAY_PORT: Final = {
    "hairpin": False,
    "guard": False,
    "root_block": False,
    "learning": False,
    "flood": True,
    "mcast_flood": True,
    "bcast_flood": True,
    # The bridge answers ARP for known pods instead of flooding the question to all nodes.
    "neigh_suppress": True,
    "isolated": False,
    "locked": False,
}
"""The flags of the overlay device as a port of the switch."""

_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH})


def ensure_overlay(
    netlink: Netlink,
    *,
    bridge: Link,
    vni: int,
    local: IPv4Address,
    port: int,
    mtu_bytes: int,
    again: Link | None = None,
) -> Link:
    """The VXLAN device exists with these values, is a port of the bridge and up; one with other values is replaced.

    `again`: the device as it was once made. One that has to be made anew gets its index and MAC, so that whoever knows
    it by these goes on.

    Raises:
        InputError: The VNI or the UDP port is in use by a device of somebody else.
        MissingError: The kernel has no VXLAN.
    """
    name = _device_name(port)
    found = netlink.link(name)
    if found is not None and found.vxlan_local != local and (found.vxlan_vni, found.vxlan_port) == (vni, port):
        set_local(netlink, found, local)
        found = netlink.link(name)
    if found is not None and (
        (found.vxlan_vni, found.vxlan_local, found.vxlan_port) != (vni, local, port)
        or vxlan_settings(found) != VXLAN_SETTINGS
    ):
        netlink.request(rtnl.link_del(found.index), what=f"remove the outdated {name}")
        found = None
    if found is None:
        message = rtnl.vxlan_add(
            name,
            vni=vni,
            local=local,
            port=port,
            index=again.index if again else 0,
            mac=again.mac if again else None,
            mtu=mtu_bytes,
            master=bridge.index,
            up=False,
        )
        try:
            netlink.request(message, what=f"create {name}")
        except NetlinkError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise MissingError(
                    f"the kernel has no VXLAN: {said_by(error)}", hint="modprobe vxlan, or use a kernel that has it"
                ) from error
            if error.errno == errno.EEXIST:
                raise InputError(
                    f"VNI {vni} on UDP port {port} belongs to another device of this node: {said_by(error)}",
                    hint="stop the other network, or choose another vni: ip -d link show type vxlan",
                ) from error
            raise
    sysctls.apply_sysctls(sysctls.interface(name))
    link = netlink.link(name)
    assert link is not None
    netlink.request(
        rtnl.link_set(
            link.index,
            up=True,
            mtu=mtu_bytes,
            master=bridge.index,
            mac=again.mac if again and again.mac != link.mac else None,
        ),
        rtnl.port_flags_set(link.index, OVERLAY_PORT, forwarding=link.up and link.forwards is False),
        what=f"set up {name}",
    )
    return link


VXLAN_SETTINGS: Final = {"learning": False, "ttl": 64, "checksum": True}
"""What `vxlan_settings` has to be."""


def vxlan_settings(link: Link) -> dict[str, object]:
    """What else a VXLAN device has to be like: `rtnl.vxlan_add` says it, the kernel tells it."""

    def number(kind: int) -> int:
        return int.from_bytes(link.kind_attribute(kind) or b"", "little")

    return {
        "learning": bool(number(c.VXLAN_LEARNING)),
        "ttl": number(c.VXLAN_TTL),
        "checksum": bool(number(c.VXLAN_UDP_CSUM)),
    }


def set_local(netlink: Netlink, overlay: Link, local: IPv4Address) -> None:
    """Packets leave from this address of the node from now on; entries and ports stay as they are.

    Raises:
        NetlinkError: The kernel refuses.
    """
    netlink.request(rtnl.vxlan_local_set(overlay.index, local), what=f"have {overlay.name} send from {local}")


def last_local(netlink: Netlink, port: int) -> IPv4Address | None:
    """From which address an earlier agent had packets leave; None when there is no device of it."""
    link = netlink.link(_device_name(port))
    return None if link is None else link.vxlan_local


def nodes_sent_to(
    netlink: Netlink, overlay: Link, *, within_s: float, except_macs: Collection[str]
) -> set[IPv4Address]:
    """The nodes to which frames have gone within the last seconds, as the device's entries say.

    Args:
        netlink: A socket in the node's namespace.
        overlay: The device.
        within_s: How long ago at most.
        except_macs: Entries that do not count (those of bridges, which are used by our own probes).
    """
    return {
        entry.address
        for entry in netlink.fdb_in_use(overlay.index, within_s=within_s)
        if entry.address is not None and entry.mac not in except_macs and entry.mac != rtnl.ZERO_MAC
    }


def packets_sent(overlay: Link) -> int | None:
    """How many packets the device has sent since it was made; None when the kernel does not say."""
    try:
        # Once a second in every agent: pathlib and a decoder would cost ten times as much.
        file = os.open(f"/sys/class/net/{overlay.name}/statistics/tx_packets", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return int(os.read(file, 32))
    except (OSError, ValueError):
        return None
    finally:
        os.close(file)


def _device_name(port: int) -> str:
    """Weave's name for it: `vxlan-6784`."""
    return f"vxlan-{port}"


def observe_forwarding(netlink: Netlink, *, bridge: Link, overlay: Link) -> Forwarding:
    """The entries that are there now, ours or left over from an earlier run."""
    return forwarding_of(netlink.fdb(), netlink.neighbours(), bridge=bridge, overlay=overlay)


def forwarding_of(
    fdb: Iterable[Neighbour], neighbours: Iterable[Neighbour], *, bridge: Link, overlay: Link
) -> Forwarding:
    """The entries of the overlay and the switch among all that there are."""
    flood: set[IPv4Address] = set()
    remote: dict[str, IPv4Address] = {}
    for entry in fdb:
        if entry.index != overlay.index or entry.address is None:
            continue
        if entry.mac == rtnl.ZERO_MAC:
            flood.add(entry.address)
        else:
            remote[entry.mac] = entry.address
    known = {
        entry.address: entry.mac
        for entry in neighbours
        if entry.index == bridge.index and entry.permanent and entry.address is not None and entry.mac
        and not entry.address.is_multicast
    }  # fmt: skip
    return Forwarding(frozenset(flood), remote, known)


def apply_forwarding(netlink: Netlink, changes: Changes, *, bridge: Link, overlay: Link) -> None:
    """Write what is new, then remove what is gone, in one send.

    Raises:
        NetlinkError: The kernel refused an entry for another reason than that it is there, or gone, already.
    """
    messages = [rtnl.vxlan_flood_append(overlay.index, node) for node in changes.flood_add]
    for mac, node in changes.remote_set:
        # Both tables: the bridge must know the port, the VXLAN device the node.
        messages += [rtnl.vxlan_fdb_set(overlay.index, mac, node), rtnl.bridge_fdb_set(overlay.index, mac)]
    messages += [rtnl.neighbour_set(bridge.index, address, mac) for address, mac in changes.neighbour_set]
    messages += [rtnl.neighbour_del(bridge.index, address) for address in changes.neighbour_del]
    for mac in changes.remote_del:
        messages += [rtnl.vxlan_fdb_del(overlay.index, mac), rtnl.bridge_fdb_del(overlay.index, mac)]
    messages += [rtnl.vxlan_fdb_del(overlay.index, rtnl.ZERO_MAC, node) for node in changes.flood_del]
    for _, error in netlink.attempt(*messages):
        if error.errno not in _GONE | {errno.EEXIST}:
            raise NetlinkError(error.errno, f"write forwarding entries: {error.strerror}")
