"""By which address and link a node reaches the others, and how large a pod's packet may be: decided from what is there.

The address is the configuration's, or that of the uplink, which may get another one at any time (a new DHCP lease): it
is kept for as long as the node has it, and then the uplink's next one is taken. The MTU is that of the *routes* to the
other nodes, the lowest of them, whatever link carries the address; what is configured is not changed but contradicted.

Whatever is wrong is told with its true cause (`Trouble`). It reads nothing and changes nothing: plugin/link/uplink.py
reads, plugin/agent/dataplane/uplink.py acts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from plugin.core.errors import InputError
from plugin.core.packet.vxlan import overlay_mtu

_ALONE_MTU_BYTES: Final = 1500
"""Of the uplink of a node without other nodes and without a link to any: the commonest one."""

_NAMED_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class SeenLink:
    """A network interface of the node.

    `carrier`: a cable, or what stands for one, leads somewhere; `loopback`: nothing leaves the node by it.
    """

    index: int
    name: str
    mtu_bytes: int
    up: bool = True
    carrier: bool = True
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class SeenRoute:
    """Where the kernel sends packets to one address.

    Attributes:
        links: The interfaces, more than one for a route of several ways.
        mtu_bytes: The route's own MTU; 0: that of the interface.
        source: The address that it gives packets that have none; None when the route does not say.
    """

    links: tuple[int, ...]
    mtu_bytes: int = 0
    source: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is on the node.

    Attributes:
        links: By index.
        addresses: Interface indices and their addresses, in the kernel's order: of one interface the first one counts.
        default: The default route; None when there is none.
        routes: For every other node, where packets to it go; absent when they go nowhere.
    """

    links: Mapping[int, SeenLink]
    addresses: tuple[tuple[int, IPv4Interface], ...]
    default: SeenRoute | None = None
    routes: Mapping[IPv4Address, SeenRoute] = field(default_factory=dict)

    def carrier_of(self, address: IPv4Address) -> SeenLink | None:
        """The interface that has an address."""
        index = next((index for index, interface in self.addresses if interface.ip == address), -1)
        return self.links.get(index)

    def called(self, name: str) -> SeenLink | None:
        """The interface of a name."""
        return next((link for link in self.links.values() if link.name == name), None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration says.

    Attributes:
        pod_range: The pod range: none of its addresses is a node's.
        address: The node address; None: the uplink's, whatever it is.
        uplink: The interface that has it; empty: the one by which the other nodes are reached.
        mtu_bytes: The pods' MTU; 0: as large as the routes to the other nodes allow.
    """

    pod_range: IPv4Network
    address: IPv4Address | None = None
    uplink: str = ""
    mtu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Uplink:
    """By what the node reaches the others.

    Attributes:
        address: The node address.
        name: The interface that has it, or had it last; of an address on the loopback, the one towards the others.
        index: Its number, which stays when the interface is renamed.
        mtu_bytes: The largest packet that gets to every other node.
        outside: Whether there was a default route at some time.
        loopback: Whether it was the loopback interface when the agent found it.
    """

    address: IPv4Address
    name: str
    index: int
    mtu_bytes: int
    outside: bool = False
    loopback: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is wrong; `cuts`: so that no other node can be reached."""

    name: str
    cause: str
    advice: str
    cuts: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from what there is.

    Attributes:
        uplink: What to use from now on.
        pod_mtu_bytes: The pods' MTU.
        troubles: What is wrong.
        unreached: The nodes that no route leads to.
    """

    uplink: Uplink
    pod_mtu_bytes: int
    troubles: tuple[Trouble, ...] = ()
    unreached: frozenset[IPv4Address] = frozenset()

    def own_cause(self, node: IPv4Address) -> str:
        """Why this node itself does not reach another; empty when nothing is known to be wrong here."""
        cut = next((trouble.cause for trouble in self.troubles if trouble.cuts), "")
        if cut:
            return cut
        return f"this node has no route to {node}" if node in self.unreached else ""


TROUBLES: Final = ("uplink", "node address", "default route", "routes", "mtu")
"""The names of all troubles of this file."""


def first_uplink(seen: Seen, wanted: Wanted, nodes: Iterable[IPv4Address]) -> Uplink:
    """The uplink of a starting agent.

    Args:
        seen: What there is.
        wanted: What the configuration says.
        nodes: Where the others are, as far as that is known.

    Raises:
        InputError: The node has no such address, or interface.
    """
    others = tuple(nodes)
    address = wanted.address or _followed(seen, wanted, None, others)
    link = None if address is None else seen.carrier_of(address)
    found = ", ".join(str(interface.ip) for _, interface in seen.addresses) or "none"
    if address is None and wanted.uplink:
        raise InputError(
            f"the uplink {wanted.uplink} has no IPv4 address, or is not there; the addresses of this node are: {found}",
            hint="correct uplink in the agent's configuration, or give the interface an address",
        )
    if address is None:
        raise InputError(
            f"no address of this node leads to other nodes; its addresses are: {found}",
            hint="name node_address or uplink in the agent's configuration",
        )
    if link is None:
        raise InputError(
            f"the node address {address} is on no interface of this node; its addresses are: {found}",
            hint="correct node_address in the agent's configuration, or leave it out to use the uplink's",
        )
    way = _way_out(seen, wanted, others) if link.loopback else link
    if way is None:
        raise InputError(
            f"the node address {address} is on the loopback, and no interface leads from there to other nodes",
            hint="name the interface towards them in the agent's configuration: uplink",
        )
    if wanted.uplink not in {"", way.name}:
        raise InputError(
            f"the node address {address} was expected on {wanted.uplink}, found on {link.name}",
            hint="correct uplink or node_address in the agent's configuration",
        )
    return Uplink(address, way.name, way.index, 0, outside=seen.default is not None, loopback=link.loopback)


def plan_uplink(seen: Seen, wanted: Wanted, before: Uplink, nodes: Iterable[IPv4Address]) -> Plan:
    """What to use now, and what is wrong.

    Args:
        seen: What there is.
        wanted: What the configuration says.
        before: What was used until now; `first_uplink` at the start, with an MTU of 0.
        nodes: The other nodes.

    Raises:
        InputError: At the start only: the uplink is too small for VXLAN.
    """
    others = tuple(nodes)
    address = wanted.address or _followed(seen, wanted, before, others)
    link = None if address is None else seen.carrier_of(address)
    troubles = [_about_link(seen, wanted, before, address, link)]
    missing = frozenset(node for node in others if node not in seen.routes)
    cut = any(trouble is not None and trouble.cuts for trouble in troubles)
    if not cut:
        troubles += [_about_default(seen, before), _about_routes(missing)]
    way = link if link is None or not link.loopback else _way_out(seen, wanted, others) or link
    uplink = Uplink(
        address=before.address if address is None else address,
        name=before.name if way is None else way.name,
        index=before.index if way is None else way.index,
        mtu_bytes=_lowest_mtu(seen, before, way, others),
        outside=before.outside or seen.default is not None,
        loopback=before.loopback,
    )
    uplink, pod_mtu_bytes, trouble = _pod_mtu(wanted, before, uplink)
    told = tuple(one for one in (*troubles, trouble) if one is not None)
    return Plan(uplink, pod_mtu_bytes, told, missing)


# --- the address --------------------------------------------------------------------------------------------------
def _followed(seen: Seen, wanted: Wanted, before: Uplink | None, nodes: tuple[IPv4Address, ...]) -> IPv4Address | None:
    """The node address where none is configured; None: there is none just now."""
    if before is not None and seen.carrier_of(before.address) is not None:
        return before.address  # also when the interface has another one by now: peers know this one
    known = seen.called(wanted.uplink) if wanted.uplink else None
    for index in ([] if before is None else [before.index]) + ([] if known is None else [known.index]):
        usable = [interface.ip for number, interface in seen.addresses if number == index]
        if found := next((ip for ip in usable if _may_be_a_nodes(ip, wanted)), None):
            return found
    if wanted.uplink:
        return None
    for route in (*(seen.routes[node] for node in nodes if node in seen.routes), seen.default):
        if route is not None and (found := _source_of(seen, route, wanted)) is not None:
            return found
    return None


def _source_of(seen: Seen, route: SeenRoute, wanted: Wanted) -> IPv4Address | None:
    """The address with which packets leave by a route."""
    if route.source is not None and _may_be_a_nodes(route.source, wanted):
        return route.source
    on_links = [interface.ip for index, interface in seen.addresses if index in route.links]
    return next((ip for ip in on_links if _may_be_a_nodes(ip, wanted)), None)


def _way_out(seen: Seen, wanted: Wanted, nodes: Iterable[IPv4Address]) -> SeenLink | None:
    """The interface towards the other nodes of one whose address is on its loopback; of several that of least MTU.

    A node that speaks a routing protocol has it there, where nothing leaves.
    """
    if wanted.uplink:
        return seen.called(wanted.uplink)
    routes = [seen.routes[node] for node in nodes if node in seen.routes]
    for some in (routes, [] if seen.default is None else [seen.default]):
        links = [seen.links[index] for route in some for index in route.links if index in seen.links]
        if ways := [link for link in links if not link.loopback]:
            return min(ways, key=lambda link: (link.mtu_bytes, link.index))
    return None


def _may_be_a_nodes(address: IPv4Address, wanted: Wanted) -> bool:
    return not (address.is_loopback or address.is_link_local or address in wanted.pod_range)


# --- what is wrong ------------------------------------------------------------------------------------------------
def _about_link(  # noqa: PLR0911 - a case each
    seen: Seen, wanted: Wanted, before: Uplink, address: IPv4Address | None, link: SeenLink | None
) -> Trouble | None:
    if link is None:
        return _without_address(seen, wanted, before)
    if not link.up:
        return Trouble("uplink", f"the uplink {link.name} is down", f"ip link set {link.name} up", cuts=True)
    if not link.carrier:
        return Trouble(
            "uplink", f"the uplink {link.name} has no carrier", "look at its cable, and at the other end", cuts=True
        )
    if link.loopback and before.loopback:
        return None  # there its uplink only leads to the others
    if wanted.uplink not in {"", link.name}:
        if link.index == before.index:
            return Trouble(
                "uplink",
                f"the uplink {wanted.uplink} is called {link.name} now",
                f"correct uplink in the agent's configuration, or name it {wanted.uplink} again; all goes on",
            )
        return Trouble(
            "uplink",
            f"the node address {address} is on {link.name}, and was expected on {wanted.uplink}",
            f"give it back to {wanted.uplink}, or correct uplink in the agent's configuration",
        )
    if link.loopback:
        return Trouble(
            "uplink",
            f"the node address {address} is on {link.name}, where no other node reaches it by itself",
            "give it back to the interface that leads to the other nodes, or have them route it here",
        )
    return None


def _without_address(seen: Seen, wanted: Wanted, before: Uplink) -> Trouble:
    """No interface has the node address."""
    name = wanted.uplink or before.name
    link = seen.links.get(before.index) or seen.called(name)
    if link is None:
        return Trouble(
            "uplink",
            f"the uplink {name} is gone, and with it the node address {before.address}",
            "bring the interface back; the agent goes on by itself",
            cuts=True,
        )
    if wanted.address is not None:
        found = ", ".join(str(interface.ip) for index, interface in seen.addresses if index == link.index) or "no other"
        return Trouble(
            "node address",
            f"the node address {wanted.address} is on no interface of this node: {link.name} has {found}",
            f"give it back to {link.name}, or leave node_address out of the agent's configuration: then the uplink's "
            "address is used, whatever it is",
            cuts=True,
        )
    return Trouble(
        "uplink",
        f"the uplink {link.name} has no IPv4 address",
        "is its DHCP client running?  The next address is used at once",
        cuts=True,
    )


def _about_default(seen: Seen, before: Uplink) -> Trouble | None:
    if seen.default is not None or not before.outside:
        return None
    return Trouble(
        "default route",
        "the default route of this node is gone: pods do not reach the outside",
        "set it again (ip route add default via GATEWAY), or have the DHCP client renew its lease",
    )


def _about_routes(missing: frozenset[IPv4Address]) -> Trouble | None:
    if not missing:
        return None
    named = sorted(missing)[:_NAMED_MAX]
    more = f" and {len(missing) - len(named)} more" if len(missing) > len(named) else ""
    return Trouble(
        "routes",
        f"no route of this node leads to {', '.join(str(node) for node in named)}{more}",
        "set one (ip route add), or the default route",
    )


# --- the MTU ------------------------------------------------------------------------------------------------------
def _lowest_mtu(seen: Seen, before: Uplink, link: SeenLink | None, nodes: tuple[IPv4Address, ...]) -> int:
    """The largest packet that gets to every other node, as far as this node's routes tell."""
    routes = [seen.routes[node] for node in nodes if node in seen.routes]
    if found := [size for route in routes if (size := _mtu_of(seen, route))]:
        return min(found)
    if nodes and before.mtu_bytes:
        return before.mtu_bytes  # no way leads to anybody just now: that says nothing of how wide it will be
    if link is not None and not link.loopback:
        return link.mtu_bytes
    outside = 0 if seen.default is None else _mtu_of(seen, seen.default)
    return outside or before.mtu_bytes or _ALONE_MTU_BYTES


def _mtu_of(seen: Seen, route: SeenRoute) -> int:
    """What passes by a route; 0 for one that stays in the node."""
    links = [seen.links[index] for index in route.links if index in seen.links]
    sizes = [link.mtu_bytes for link in links if not link.loopback]
    if sizes and route.mtu_bytes:
        sizes.append(route.mtu_bytes)
    return min(sizes, default=0)


def _pod_mtu(wanted: Wanted, before: Uplink, uplink: Uplink) -> tuple[Uplink, int, Trouble | None]:
    """The pods' MTU; that of before stays when there is no sensible one."""
    try:
        most = overlay_mtu(uplink.mtu_bytes)
    except InputError as error:
        if not before.mtu_bytes:
            raise
        kept = replace(uplink, mtu_bytes=before.mtu_bytes)
        trouble = Trouble("mtu", f"the way to the other nodes became too narrow: {error.message}", error.hint)
        return kept, wanted.mtu_bytes or overlay_mtu(before.mtu_bytes), trouble
    if not wanted.mtu_bytes:
        return uplink, most, None
    if wanted.mtu_bytes <= most:
        return uplink, wanted.mtu_bytes, None
    return uplink, wanted.mtu_bytes, Trouble(
        "mtu",
        f"pods have the configured MTU of {wanted.mtu_bytes} bytes, and the way to other nodes carries {most}",
        f"set mtu to {most} in the agent's configuration, or leave it out",
    )  # fmt: skip
