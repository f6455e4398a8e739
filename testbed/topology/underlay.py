"""Plans the network between the nodes: bridges, addresses, routes. Pure: the engine carries the plan out.

Addresses in a segment: routers take the first free ones, the outside host the last, nodes go from .11 upward
(node1 = .11) where the subnet has room for that, else from the first free one. An address that the file gives to a
node is never taken by anybody else.

Routes: a node's default leads towards the outside host: through the first router on the shortest way, or straight to
the outside host where it sits in the node's own segment. Segments that are not reached that way get routes of their
own. The outside host knows every segment but never the pod range: only masqueraded traffic from pods is answered.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final, Literal, NamedTuple

from testbed.topology.model import Topology
from testbed.topology.names import OUTSIDE

_FIRST_NODE_OFFSET: Final = 11
_IFNAME_MAX: Final = 15
"""Linux: IFNAMSIZ is 16, one byte of it for the terminating zero."""
_ANYWHERE: Final = IPv4Network("0.0.0.0/0")

HostKind = Literal["node", "router", "outside"]


@dataclass(frozen=True, slots=True)
class Bridge:
    """The switch of one segment; ``name`` has at most 15 characters and is unique in the underlay's namespace."""

    segment: str
    name: str
    subnet: IPv4Network


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of a host, plugged into a segment's bridge."""

    owner: str
    kind: HostKind
    segment: str
    ifname: str
    """Its name inside the host: ``eth0``, and ``eth1``, ... on routers."""
    port: str
    """Its other end's name in the underlay's namespace, unique there."""
    bridge: str
    """The bridge that ``port`` is plugged into."""
    address: IPv4Interface
    mac: str


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a host; the default route's destination is ``0.0.0.0/0``."""

    destination: IPv4Network
    gateway: IPv4Address
    ifname: str


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the underlay: a node, a router, or the outside host."""

    name: str
    kind: HostKind
    attachments: tuple[Attachment, ...]
    routes: tuple[Route, ...]
    loopback: tuple[IPv4Interface, ...] = ()
    """Addresses on ``lo`` beside 127.0.0.1: the outside host's."""

    @property
    def forwards(self) -> bool:
        """Whether it passes packets on between its interfaces (``ip_forward``) as part of the underlay."""
        return self.kind == "router"

    @property
    def uplink(self) -> Attachment:
        """Its first interface; the only one of nodes and of the outside host."""
        return self.attachments[0]


@dataclass(frozen=True)
class UnderlayPlan:
    """Everything the engine needs to build the underlay. Hosts: nodes, then routers, then outside."""

    mtu: int
    bridges: tuple[Bridge, ...]
    hosts: tuple[Host, ...]

    @cached_property
    def _by_name(self) -> dict[str, Host]:
        return {host.name: host for host in self.hosts}

    def host(self, name: str) -> Host:
        """The node, router or outside host of that name; KeyError when there is none."""
        return self._by_name[name]

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Every interface of every host."""
        return tuple(attachment for host in self.hosts for attachment in host.attachments)


def plan_underlay(topology: Topology) -> UnderlayPlan:
    """The underlay of a topology that ``testbed.topology.load`` has checked."""
    bridges = tuple(
        Bridge(segment, f"br-{segment}", IPv4Network(spec.subnet))
        for segment, spec in topology.underlay.segments.items()
    )
    plugs = _plugs(topology)
    addresses: _Addresses = {}
    for bridge in bridges:
        addresses |= _addresses(topology, bridge, [plug for plug in plugs if bridge.segment in plug.segments])
    ports = _ports(plugs, {bridge.name for bridge in bridges})
    macs = _macs(addresses)
    subnets = {bridge.segment: bridge.subnet for bridge in bridges}

    hosts = []
    for plug in plugs:
        attachments = tuple(
            Attachment(
                owner=plug.owner,
                kind=plug.kind,
                segment=segment,
                ifname=f"eth{index}",
                port=ports[plug.owner, segment],
                bridge=f"br-{segment}",
                address=addresses[plug.owner, segment],
                mac=macs[plug.owner, segment],
            )
            for index, segment in enumerate(plug.segments)
        )
        loopback = (IPv4Interface(f"{topology.underlay.outside.address}/32"),) if plug.kind == OUTSIDE else ()
        routes = tuple(_routes(topology, plug, addresses, subnets))
        hosts.append(Host(plug.owner, plug.kind, attachments, routes, loopback))
    return UnderlayPlan(topology.underlay.mtu, bridges, tuple(hosts))


class _Plug(NamedTuple):
    owner: str
    kind: HostKind
    segments: tuple[str, ...]


_Addresses = dict[tuple[str, str], IPv4Interface]
"""The address of an owner in a segment."""


def _plugs(topology: Topology) -> list[_Plug]:
    """Who is plugged into which segments, in the order of the plan."""
    return [
        *(_Plug(node, "node", (topology.segment_of(node),)) for node in topology.nodes),
        *(_Plug(name, "router", tuple(router.segments)) for name, router in topology.underlay.routers.items()),
        _Plug(OUTSIDE, "outside", (topology.outside_segment,)),
    ]


# ------------------------------------------------------------------------------------------------- addresses and names


def _addresses(topology: Topology, bridge: Bridge, plugs: Sequence[_Plug]) -> _Addresses:
    """The addresses of everybody in one segment; the loader has checked that there are enough."""
    first, last = int(bridge.subnet.network_address) + 1, int(bridge.subnet.broadcast_address) - 1
    chosen = {
        plug.owner: int(IPv4Address(address))
        for plug in plugs
        if plug.kind == "node" and (address := topology.nodes[plug.owner].address)
    }
    taken = set(chosen.values())

    def take(owner: str, candidates: Iterable[int]) -> None:
        chosen[owner] = next(address for address in candidates if address not in taken)
        taken.add(chosen[owner])

    for plug in plugs:
        if plug.kind == "router":
            take(plug.owner, range(first, last + 1))
        elif plug.kind == OUTSIDE:
            take(plug.owner, range(last, first - 1, -1))
    waiting = [plug.owner for plug in plugs if plug.owner not in chosen]
    eleventh = first - 1 + _FIRST_NODE_OFFSET
    free_above = last - eleventh + 1 - sum(address >= eleventh for address in taken)
    upward = iter(range(eleventh if free_above >= len(waiting) else first, last + 1))
    for owner in waiting:
        take(owner, upward)
    prefix = bridge.subnet.prefixlen
    return {(plug.owner, bridge.segment): IPv4Interface((chosen[plug.owner], prefix)) for plug in plugs}


def _ports(plugs: Iterable[_Plug], bridges: Iterable[str]) -> dict[tuple[str, str], str]:
    """Names of the switches' ports: the owner's where it can be (``node1``, ``spine_1``), a number else.

    The name is unique among all interfaces of the underlay's namespace. ``all`` and ``default`` are the kernel's own
    words under /proc/sys/net/ipv4/conf.
    """
    taken = {"lo", "all", "default", *bridges}
    names: dict[tuple[str, str], str] = {}
    numbers = itertools.count(1)
    for owner, _, segments in plugs:
        for index, segment in enumerate(segments):
            # An underscore cannot occur in an owner's name, so this form collides with nobody.
            name = owner if len(segments) == 1 else f"{owner}_{index}"
            if len(name) > _IFNAME_MAX or name in taken:
                name = f"port_{next(numbers)}"
            taken.add(name)
            names[owner, segment] = name
    return names


def _macs(links: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Hardware addresses made from names alone: the same in every run, so that captures can be compared.

    Locally administered, unicast (first byte 02). Two labs may use the same: their underlays never meet.
    """
    macs: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for owner, segment in links:
        for attempt in itertools.count():
            digest = hashlib.sha256(f"{owner} {segment} {attempt}".encode()).digest()
            mac = ":".join(f"{byte:02x}" for byte in (2, *digest[:5]))
            if mac not in taken:
                break
        taken.add(mac)
        macs[owner, segment] = mac
    return macs


# -------------------------------------------------------------------------------------------------------------- routes


class _Hop(NamedTuple):
    """The way out of a host: the router to hand packets to, and the own segment it is reached in."""

    router: str
    segment: str


def first_hops(topology: Topology, segments: Iterable[str], *, but: str = "") -> dict[str, _Hop]:
    """For every segment that is reachable from ``segments``: the first router on the shortest way there.

    Breadth-first, in the order of the file, so that the same file always gives the same routes.

    Args:
        topology: The topology.
        segments: Where the host is plugged in.
        but: The host itself, when it is a router: its own way is not through itself.
    """
    start = dict.fromkeys(segments)
    hops: dict[str, _Hop] = {}
    queue = deque(start)
    while queue:
        here = queue.popleft()
        for name, router in topology.underlay.routers.items():
            if name == but or here not in router.segments:
                continue
            for there in router.segments:
                if there not in start and there not in hops:
                    hops[there] = hops.get(here) or _Hop(name, here)
                    queue.append(there)
    return hops


def _routes(
    topology: Topology, plug: _Plug, addresses: _Addresses, subnets: Mapping[str, IPv4Network]
) -> Iterator[Route]:
    hops = first_hops(topology, plug.segments, but=plug.owner)
    outside_segment = topology.outside_segment
    default: _Hop | None = None
    if plug.kind != OUTSIDE:
        default = _Hop(OUTSIDE, outside_segment) if outside_segment in plug.segments else hops[outside_segment]
        yield _route(_ANYWHERE, default, plug, addresses)
    for segment, hop in hops.items():
        if hop != default:
            yield _route(subnets[segment], hop, plug, addresses)


def _route(destination: IPv4Network, hop: _Hop, plug: _Plug, addresses: _Addresses) -> Route:
    gateway = addresses[hop.router, hop.segment].ip
    return Route(destination, gateway, f"eth{plug.segments.index(hop.segment)}")
