"""The way that a packet between two members has to take: one interface after the other, from the plan of the lab alone.

Where the kernel sends it instead is found by looking at these places, and at what is missing from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from plugin.core.packet.vxlan import UDP_PORT
from testbed.lab.paths import UNDERLAY
from testbed.lab.running import SWITCH, Lab
from testbed.scenario.causes.values import Pair
from testbed.scenario.members import Member
from testbed.topology.names import OUTSIDE
from testbed.topology.underlay import Attachment, Host, UnderlayPlan

OVERLAY: Final = f"vxlan-{UDP_PORT}"
"""The VXLAN device of every node."""

_HOPS_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """One interface on the way.

    Attributes:
        on: The member of the lab that has it.
        ifname: Its name there.
        wrapped: What passes is inside VXLAN.
    """

    on: str
    ifname: str
    wrapped: bool = False

    def __str__(self) -> str:
        """For people: `eth0 of node2`."""
        return f"the underlay's port {self.ifname}" if self.on == UNDERLAY else f"{self.ifname} of {self.on}"


@dataclass(frozen=True, slots=True)
class Way:
    """Where the packets of a pair pass, from the sender to the target; answers come back the same way.

    Attributes:
        pair: The pair.
        places: The interfaces, in order.
        kind: `switch` (one node's switch), `overlay`, or `routed`.
    """

    pair: Pair
    places: tuple[Place, ...]
    kind: str

    @property
    def signature(self) -> tuple[object, ...]:
        """The same for pairs whose packets take the same way between nodes."""
        return self.kind, self.pair.source.node, self.pair.target.node, self.pair.target.kind, self.pair.packet_bytes

    def bytes_at(self, place: Place, sent: int) -> int:
        """How large the packet is there, when so much was sent: VXLAN, UDP, IP and the inner Ethernet are 50 bytes."""
        return sent + 50 if place.wrapped else sent


def way_of(lab: Lab, pair: Pair) -> Way:
    """The way of a pair."""
    source, target = pair.source, pair.target
    here, there = source.node, target.node
    on_overlay = target.kind == "pod" or target.ifname == SWITCH
    start, end = tuple(_start(lab, source)), tuple(reversed(list(_start(lab, target))))
    if here is not None and here == there:
        middle = () if source.kind == target.kind == "pod" else (Place(here, SWITCH),)
        return Way(pair, (*start, *middle, *end), "switch")
    if on_overlay and here is not None and there is not None:
        own = (Place(here, SWITCH),) if source.kind == "node" else ()
        last = (Place(there, SWITCH),) if target.kind == "node" else ()
        between = _underlay_places(lab.underlay, here, there, wrapped=True)
        places = (*start, *own, Place(here, OVERLAY), *between, Place(there, OVERLAY), *last, *end)
        return Way(pair, places, "overlay")
    out = (Place(here, SWITCH),) if source.kind == "pod" and here is not None else ()
    between = _underlay_places(lab.underlay, here or source.name, there or target.name)
    return Way(pair, (*start, *out, *between), "routed")


def _start(lab: Lab, end: Member) -> Iterator[Place]:
    """From a pod to the switch of its node; nothing of a node, whose interfaces are on the way itself."""
    if end.kind == "pod" and end.node is not None:
        yield Place(end.name, end.ifname)
        yield Place(end.node, lab.pods[end.name].host_ifname)


def _underlay_places(plan: UnderlayPlan, source: str, target: str, *, wrapped: bool = False) -> tuple[Place, ...]:
    """The interfaces from one host of the underlay to another, both ends' own included, as the plan routes."""
    here, goal = plan.host(source), plan.host(target)
    to = goal.loopback[0].ip if target == OUTSIDE and goal.loopback else goal.uplink.address.ip
    places: list[Place] = []
    for _ in range(_HOPS_MAX):
        out, beyond = _hop(plan, here, goal, to)
        if out is None or beyond is None:
            break
        places += [
            Place(here.name, out.ifname, wrapped), Place(UNDERLAY, out.port, wrapped),
            Place(UNDERLAY, beyond.port, wrapped), Place(beyond.owner, beyond.ifname, wrapped),
        ]  # fmt: skip
        here = plan.host(beyond.owner)
        if here.name == goal.name:
            break
    return tuple(places)


def _hop(plan: UnderlayPlan, here: Host, goal: Host, to: IPv4Address) -> tuple[Attachment | None, Attachment | None]:
    """By which interface a packet leaves a host, and at which it comes in at the next."""
    for mine in here.attachments:
        for theirs in goal.attachments:
            if theirs.segment == mine.segment and to in {theirs.address.ip, *(one.ip for one in goal.loopback)}:
                return mine, theirs
    routes = [route for route in here.routes if to in route.destination]
    if not routes:
        return None, None
    route = max(routes, key=lambda one: one.destination.prefixlen)
    out = next((one for one in here.attachments if one.ifname == route.ifname), None)
    beyond = next((one for one in plan.attachments if one.address.ip == route.gateway), None)
    return out, beyond
