"""Attaching a pod: a veth pair from the bridge into the pod's namespace, its address and routes; and taking it away.

One message makes the pair with the inner end born inside the pod, one batch there brings it up with address and routes.
Whoever calls decides addresses and writes them down first; nothing is decided here.
"""

import errno
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from plugin.core.cni.types import Observed, ObservedLink, Route
from plugin.core.errors import CheckError, WeaveError, said_by
from plugin.link import netns, rtnl, sysctls
from plugin.link.netlink import Link, Netlink, NetlinkError

MAC_PREFIX: Final = "0a:58"
"""Locally administered; the four bytes of the pod's address follow, as with kubenet and the reference bridge plugin."""

_EARLY_PREFIX: Final = "0a:59"
"""Of the MAC of a pod that gets its address only when its interface is there; four bytes of a hash follow."""

_MARK_PREFIX: Final = "0a:5a"
"""Of an entry in the switch that no frame uses. It tells an address which cannot be read off the pod's MAC: when the
journal is lost, the agent finds it here.
"""

HOST_PREFIX: Final = "vethwepl"
_ID_CHARACTERS: Final = 7
_SPARE_NAMES: Final = 16


_PORT: Final = {
    "guard": False,
    "root_block": False,
    "flood": True,
    "mcast_flood": True,
    "bcast_flood": True,
    "neigh_suppress": False,
    "isolated": False,
}


class AttachError(CheckError):
    """The pod's namespace or the node refuses the attachment."""


class AlreadyAttachedError(AttachError):
    """The pod has an interface of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLink:
    """A wanted attachment.

    Attributes:
        host_ifname: Name of the end on the node.
        ifname: Name of the end in the pod.
        mac: MAC of the end in the pod.
        mtu_bytes: MTU of both ends.
        interfaces: The pod's addresses with their prefixes; none for a pair that gets them later (`configure`).
        routes: Routes to set in the pod.
        hairpin: Whether the pod may reach itself through the bridge (a service that picks the caller).
        locked: Whether the bridge takes frames from its MAC only, and learns no other.
    """

    host_ifname: str
    ifname: str
    mac: str
    mtu_bytes: int
    interfaces: Sequence[IPv4Interface]
    routes: Sequence[Route]
    hairpin: bool
    locked: bool = True


def mac_for(address: IPv4Address) -> str:
    """The MAC of the pod with this address: one address, one MAC, so that no ARP entry anywhere is ever out of date."""
    return f"{MAC_PREFIX}:{address.packed.hex(':')}"


def mac_for_attachment(attachment: tuple[str, str, str], attempt: int = 0) -> str:
    """The MAC of a pod whose address is not known yet: made from its names, so that a repetition gives the same.

    `attempt`: another one, should somebody have that.
    """
    names = (*attachment, str(attempt)) if attempt else attachment
    return f"{_EARLY_PREFIX}:{sha256(':'.join(names).encode()).digest()[:4].hex(':')}"


def is_mark(mac: str) -> bool:
    """Whether this MAC would be taken for one of the entries in which the switch keeps pods' addresses."""
    return mac.startswith(_MARK_PREFIX + ":")


def address_of(mac: str) -> IPv4Address | None:
    """The address that `mac_for` made this MAC from, or None for any other MAC."""
    if not mac.startswith(MAC_PREFIX + ":"):
        return None
    return IPv4Address(bytes.fromhex(mac[len(MAC_PREFIX) :].replace(":", "")))


def host_ifname(container_id: str, ifname: str) -> str:
    """The name of a pod's link on the node: `vethwepl` and the start of the container id, as Weave names it.

    A second interface of the same container gets a name made of both, since the first has taken the plain one.
    """
    if ifname == "eth0":
        return HOST_PREFIX + container_id[:_ID_CHARACTERS]
    # 15 characters are all a name may have: five of the id, and a check figure of the interface's name.
    figure = sum(ord(character) * (position + 1) for position, character in enumerate(ifname)) % 256
    return f"{HOST_PREFIX}{container_id[:5]}{figure:02x}"


def possible_host_ifnames(container_id: str, ifname: str) -> tuple[str, ...]:
    """`host_ifname` and the names that are tried when a container of similar id has taken it, in this order."""
    digests = [sha256(f"{container_id}/{ifname}/{attempt}".encode()).hexdigest() for attempt in range(_SPARE_NAMES)]
    return host_ifname(container_id, ifname), *(HOST_PREFIX + digest[:_ID_CHARACTERS] for digest in digests)


def free_host_ifname(container_id: str, ifname: str, taken: Collection[str]) -> str:
    """The first of `possible_host_ifnames` that nobody has."""
    names = possible_host_ifnames(container_id, ifname)
    return next((name for name in names if name not in taken), names[0])


def attach(
    netlink: Netlink, bridge: Link, netns_fd: int, pod: PodLink, *, admit: Callable[[Link], None] = lambda _outer: None
) -> Link:
    """Make the pair, put one end into the pod and the other on the bridge, give the pod its address and routes.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        netns_fd: The pod's namespace.
        pod: What is wanted.
        admit: Given the node's end before it goes up: while it is down, nothing that the pod sends is taken.

    Returns:
        The link on the node's side. On any failure nothing is left behind.

    Raises:
        AlreadyAttachedError: The pod has an interface of that name; it is not touched.
        AttachError: Anything else that the kernel refuses.
    """
    near = rtnl.VethEnd(name=pod.host_ifname, mtu=pod.mtu_bytes, master=bridge.index, up=False)
    far = rtnl.VethEnd(name=pod.ifname, mac=pod.mac, mtu=pod.mtu_bytes, netns_fd=netns_fd)
    try:
        with Netlink(netns_fd) as inside:
            try:
                netlink.request(rtnl.veth_add(near, far), what=f"create {pod.host_ifname}")
            except NetlinkError as error:
                # The kernel's EEXIST does not say which of the two names it is that exists.
                if error.errno == errno.EEXIST and inside.link(pod.ifname) is not None:
                    raise AlreadyAttachedError(
                        f"the pod already has an interface {pod.ifname}",
                        hint="every ADD needs a DEL before it is repeated",
                    ) from error
                raise
            try:
                return _set_up(netlink, inside, netns_fd, pod, admit)
            except (OSError, WeaveError):
                detach(netlink, pod.host_ifname)
                raise
    except NetlinkError as error:
        raise AttachError(f"the kernel refused: {said_by(error, path=False)}") from error
    except OSError as error:
        raise AttachError(f"the pod's namespace cannot be entered: {said_by(error, path=False)}") from error


def _set_up(netlink: Netlink, inside: Netlink, netns_fd: int, pod: PodLink, admit: Callable[[Link], None]) -> Link:
    sysctls.apply_sysctls(sysctls.interface(pod.host_ifname))
    with netns.entered(netns_fd):
        sysctls.apply_sysctls(sysctls.interface(pod.ifname))
    outer = netlink.link(pod.host_ifname)
    if outer is None:
        raise AttachError(f"{pod.ifname} vanished while it was being set up", hint="was the pod deleted meanwhile?")
    _furnish(inside, outer.peer_index, pod)
    admit(outer)
    netlink.request(
        # The switch knows the pod before its first frame; after a crash the agent finds its address here again.
        rtnl.port_flags_set(outer.index, port_flags(hairpin=pod.hairpin, locked=pod.locked)),
        rtnl.bridge_fdb_set(outer.index, pod.mac),
        *_marks(outer, pod),
        rtnl.link_set(outer.index, up=True),
        what=f"connect {pod.host_ifname} to the switch",
    )
    return outer


def _furnish(inside: Netlink, inner: int, pod: PodLink) -> None:
    """The pod's end, by its index, goes up and gets its addresses and routes, all in one send.

    A route that the pod has already by another interface stays as it is: the first one wins, as with the reference
    plugins.
    """
    first = [rtnl.link_set(inner, up=True), *(rtnl.address_add(inner, one) for one in pod.interfaces)]
    routes = [rtnl.route_add(route.destination, gateway=route.gateway, index=inner) for route in pod.routes]
    for position, error in inside.attempt(*first, *routes):
        if position < len(first) or error.errno != errno.EEXIST:
            raise NetlinkError(error.errno, f"set up {pod.ifname} in the pod: {error.strerror}")


def _marks(outer: Link, pod: PodLink) -> list[bytes]:
    addresses = [interface.ip for interface in pod.interfaces]
    return [rtnl.bridge_fdb_set(outer.index, mac) for mac in port_macs(pod.mac, addresses) - {pod.mac}]


def port_flags(*, hairpin: bool, locked: bool) -> dict[str, bool]:
    """The flags of a pod's port of the switch, by their names in `rtnl.PORT_FLAGS`; see `PodLink`."""
    return {"hairpin": hairpin, "learning": not locked, "locked": locked, **_PORT}


def port_macs(mac: str, addresses: Sequence[IPv4Address]) -> frozenset[str]:
    """The MACs that the switch has for a pod's port: its own, and a mark for each address that it does not tell."""
    if [mac_for(address) for address in addresses] == [mac]:
        return frozenset({mac})
    return frozenset({mac, *(f"{_MARK_PREFIX}:{address.packed.hex(':')}" for address in addresses)})


def restore_port(
    netlink: Netlink, bridge: Link, host: Link, *, mtu_bytes: int, flags: Mapping[str, bool], macs: Collection[str]
) -> None:
    """Make the node's end of a living pod's pair again what `attach` made it.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        host: The pod's link on the node's side.
        mtu_bytes: Its MTU.
        flags: `port_flags`.
        macs: `port_macs`.

    Raises:
        NetlinkError: The kernel refuses.
    """
    netlink.request(
        rtnl.link_set(host.index, up=True, mtu=mtu_bytes, master=bridge.index),
        # While the pod's end is down the kernel lets nobody make the port forward; it does by itself when it is up.
        rtnl.port_flags_set(host.index, flags, forwarding=host.running and host.up),
        *(rtnl.bridge_fdb_set(host.index, mac) for mac in sorted(macs)),
        what=f"restore {host.name}",
    )


def configure(
    netlink: Netlink, netns_fd: int, pod: PodLink, *, admit: Callable[[Link], None] = lambda _outer: None
) -> Link:
    """Give a pair that `attach` made without addresses its addresses and routes; the link on the node's side.

    `admit` is given that before the pod has an address to send from.

    Raises:
        AttachError: An end is not there any more, or the kernel refuses; what was set before stays.
    """
    try:
        with Netlink(netns_fd) as inside:
            inner, outer = inside.link(pod.ifname), netlink.link(pod.host_ifname)
            if inner is None or outer is None:
                raise AttachError(f"{pod.ifname} vanished while it was being set up", hint="was the pod deleted?")
            admit(outer)
            _furnish(inside, inner.index, pod)
            netlink.request(*_marks(outer, pod), what=f"mark {pod.host_ifname} on the switch")
            return outer
    except NetlinkError as error:
        raise AttachError(f"the kernel refused: {said_by(error, path=False)}") from error
    except OSError as error:
        raise AttachError(f"the pod's namespace cannot be entered: {said_by(error, path=False)}") from error


def detach(netlink: Netlink, name: str) -> bool:
    """Delete the pair by the name of its end on the node; False when it was gone already.

    Raises:
        NetlinkError: The kernel refuses to delete it.
    """
    link = netlink.link(name)
    if link is None:
        return False
    try:
        netlink.request(rtnl.link_del(link.index), what=f"delete {name}")
    except NetlinkError as error:
        if error.errno != errno.ENODEV:  # the pod's namespace went away at the same moment
            raise
        return False
    return True


def detach_together(netlink: Netlink, names: Sequence[str]) -> dict[str, NetlinkError]:
    """Delete many pairs for little more than the price of one: most of a deletion is waiting (`rtnl.link_group_del`).

    Returns:
        What the kernel refused, by name; a pair that was gone already is none of it.
    """
    found = [link for name in names if (link := netlink.link(name)) is not None]
    if len(found) < 2:
        refusals = dict(netlink.attempt(*(rtnl.link_del(link.index) for link in found)))
    else:
        # A number that nobody else uses, and another one every time: what a crash leaves behind in a group stays.
        group = secrets.randbits(31) | 1 << 30
        refusals = dict(netlink.attempt(*(rtnl.link_group_set(link.index, group) for link in found)))
        for _, error in netlink.attempt(rtnl.link_group_del(group)):
            refusals = dict.fromkeys(range(len(found)), error)
    return {
        found[position].name: NetlinkError(error.errno, f"delete {found[position].name}: {error.strerror}")
        for position, error in refusals.items()
        if error.errno != errno.ENODEV  # the pod's namespace went away at the same moment
    }


def macs_of_ports(netlink: Netlink, bridge: Link) -> dict[str, str]:
    """The MACs of the bridge's ports, which are the node's own, to their names."""
    return {link.mac: link.name for link in netlink.links() if link.master == bridge.index}


def cut_off(netlink: Netlink, name: str, mac: str, *, off: bool) -> None:
    """Take a pod's link from the switch without touching it, or give it back with the pod's entry in the switch.

    Raises:
        NetlinkError: The kernel refuses; a link that is gone is none of it.
    """
    link = netlink.link(name)
    if link is None or link.forwards is None or link.forwards is not off:
        return
    messages = [rtnl.bridge_port_state(link.index, forwarding=not off)]
    if not off:
        messages.append(rtnl.bridge_fdb_set(link.index, mac))
    for _, error in netlink.attempt(*messages):
        # Without a carrier no port forwards; it does by itself when it has one.
        if error.errno not in {errno.ENETDOWN, errno.ENODEV}:
            raise NetlinkError(error.errno, f"set the state of {name} on the switch: {error.strerror}")


def observe(netlink: Netlink, bridge: Link, netns_fd: int, *, name: str, ifname: str) -> Observed:
    """What CHECK compares: both ends, their pairing, and what the pod's end carries.

    Raises:
        AttachError: The pod's namespace cannot be entered.
    """
    try:
        with Netlink(netns_fd) as inside:
            inner = inside.link(ifname)
            addresses = inside.addresses()
            # Of every link and table: of two interfaces with the same route the first one has it, and the plugin `sbr`
            # moves routes to a table of their own.
            routes = inside.routes(every_table=True)
    except OSError as error:
        raise AttachError(f"the pod's namespace cannot be entered: {said_by(error, path=False)}") from error
    outer = netlink.link(name)
    return Observed(
        container=_seen(inner),
        host_ifname=name,
        host=_seen(outer),
        host_master=bridge.name if outer is not None and outer.master == bridge.index else "",
        hairpin=None if outer is None else outer.hairpin,
        paired=inner is None or outer is None or inner.peer_index in {0, outer.index},
        addresses=tuple(interface for index, interface in addresses if inner is not None and index == inner.index),
        routes=tuple(Route(route.destination, route.gateway) for route in routes),
    )


def _seen(link: Link | None) -> ObservedLink | None:
    return None if link is None else ObservedLink(link.name, link.mac, link.mtu, link.up)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A pod's link on the bridge, with what the switch's entries tell of the pod: its MAC and its addresses."""

    mac: str = ""
    addresses: tuple[IPv4Address, ...] = ()


def leftovers(netlink: Netlink, bridge: Link) -> dict[str, Leftover]:
    """Pod links on the bridge by their names."""
    ports = {link.index: link for link in netlink.links() if link.master == bridge.index}
    found = {link.name: Leftover() for link in ports.values() if link.name.startswith(HOST_PREFIX)}
    entries = sorted(
        (entry.mac, entry.index)
        for entry in netlink.fdb()
        if entry.master and entry.permanent and entry.index in ports  # what was learned from frames tells nothing
    )
    for mac, index in entries:
        name = ports[index].name
        if name not in found or mac == ports[index].mac:  # the kernel's own entry for the port itself
            continue
        known = found[name]
        if mac.startswith(_MARK_PREFIX + ":"):
            address = address_of(MAC_PREFIX + mac[len(_MARK_PREFIX) :])
            assert address is not None
            found[name] = Leftover(known.mac, (*known.addresses, address))
        elif not known.mac:
            found[name] = Leftover(mac, known.addresses)
    return {
        name: Leftover(one.mac, (address,)) if not one.addresses and (address := address_of(one.mac)) else one
        for name, one in found.items()
    }
