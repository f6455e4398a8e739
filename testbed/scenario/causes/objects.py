"""What is missing or wrong on the way of a failing pair, as the kernel has it now: links, addresses, routes, entries.

Each check is about one thing that has to be so for a packet to pass; agents tell much of the same, but not of pods from
inside, of routers, of the underlay, nor while they are dead.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from plugin.link.netlink import Link
from testbed.lab.paths import UNDERLAY
from testbed.lab.running import SWITCH, Lab
from testbed.scenario.causes.facts import Facts
from testbed.scenario.causes.values import Cause, Weight
from testbed.scenario.causes.way import OVERLAY, Place, Way
from testbed.scenario.members import Member

_SHOW_LINKS: Final = ("ip", "-d", "link")


def findings(lab: Lab, way: Way, seen: Mapping[str, Facts]) -> Iterator[Cause]:
    """What is wrong on one way.

    Args:
        lab: The lab.
        way: The way.
        seen: What each member on it has; members that could not be looked at are absent.
    """
    for number, place in enumerate(way.places):
        if place.on in seen:
            others = [way.places[at] for at in (number - 1, number + 1) if 0 <= at < len(way.places)]
            yield from _link(way, place, seen[place.on], is_told=any(_is_down(other, seen) for other in others))
    for end, other in ((way.pair.source, way.pair.target), (way.pair.target, way.pair.source)):
        if end.name in seen:
            yield from _end(lab, way, end, other, seen[end.name])
    if way.kind == "overlay":
        yield from _entries(lab, way, way.pair.source, way.pair.target, seen)
        yield from _entries(lab, way, way.pair.target, way.pair.source, seen)
        yield from _tunnel(lab, way, seen)
    yield from _forwarding(lab, way, seen)
    yield from _ports(lab, way, seen)


def _cause(way: Way, text: str, on: str, thing: str, look: tuple[str, ...], weight: Weight = Weight.KNOWN) -> Cause:
    return Cause(text, weight, on, thing, frozenset({way.pair.names}), look)


def missing_places(way: Way, seen: Mapping[str, Facts]) -> list[Place]:
    """The interfaces of a way that are not there."""
    return [place for place in way.places if place.on not in seen or place.ifname not in seen[place.on].links]


# --- links --------------------------------------------------------------------------------------------------------
def _is_down(place: Place, seen: Mapping[str, Facts]) -> bool:
    link = seen[place.on].links.get(place.ifname) if place.on in seen else None
    return link is None or not link.up


def _link(way: Way, place: Place, facts: Facts, *, is_told: bool) -> Iterator[Cause]:
    """What is wrong with an interface; `is_told`: that its neighbour on the way is down is said there."""
    link = facts.links.get(place.ifname)
    look = (*_SHOW_LINKS, "show", place.ifname)
    if link is None:
        yield _cause(way, f"{place} is gone", place.on, place.ifname, _SHOW_LINKS)
    elif not link.up:
        yield _cause(way, f"{place} is down", place.on, place.ifname, look)
    elif not link.running and not is_told:
        text = f"{place} has no carrier: the other end of its cable is down"
        yield _cause(way, text, place.on, place.ifname, look, Weight.LIKELY)
    elif link.running and _switch_of(place, facts) is not None and link.forwards is False:
        text = f"{place} is shut as a port of the switch: its state there is not forwarding"
        yield _cause(way, text, place.on, place.ifname, ("bridge", "-d", "link"))
    if link is not None and (needed := _needed(way, place)) > link.mtu:
        text = f"{place} carries packets of at most {link.mtu} bytes, and {_packet(way, place)} has {needed}"
        yield _cause(way, text, place.on, place.ifname, look, Weight.LIKELY)


def _needed(way: Way, place: Place) -> int:
    """The IP packet's size there, when it must not be cut into pieces; 0 when it may be."""
    # A veth drops what is larger than its own MTU, and the underlay's switches cannot cut anything into pieces.
    is_bound = way.pair.whole or (place.wrapped and place.on == UNDERLAY)
    return way.bytes_at(place, way.pair.packet_bytes) if is_bound else 0


def _packet(way: Way, place: Place) -> str:
    return "the packet in VXLAN" if place.wrapped else f"the packet of {way.pair.source.name}"


def _switch_of(place: Place, facts: Facts) -> Link | None:
    """The switch that an interface is plugged into."""
    link = facts.links.get(place.ifname)
    return next((one for one in facts.links.values() if link is not None and one.index == link.master), None)


def _ports(lab: Lab, way: Way, seen: Mapping[str, Facts]) -> Iterator[Cause]:
    """Host sides of pods, the overlay device and the underlay's ports are plugged into their switches."""
    ports = {place.port: place.bridge for place in lab.underlay.attachments}
    hosts = {pod.host_ifname for pod in lab.pods.values()}
    for place in way.places:
        facts = seen.get(place.on)
        is_port = place.ifname in ports if place.on == UNDERLAY else place.ifname in {OVERLAY, *hosts}
        if facts is None or not is_port or place.ifname not in facts.links:
            continue
        wanted = ports[place.ifname] if place.on == UNDERLAY else SWITCH
        found = _switch_of(place, facts)
        if found is None or found.name != wanted:
            where = "into no switch" if found is None else f"into {found.name}"
            text = f"{place} is plugged {where} instead of {wanted}"
            yield _cause(way, text, place.on, place.ifname, ("ip", "-br", "link", "show", "master", wanted))
        elif not found.up:
            yield _cause(
                way, f"the switch {wanted} of {place.on} is down", place.on, wanted, (*_SHOW_LINKS, "show", wanted)
            )


# --- the two ends -------------------------------------------------------------------------------------------------
def _end(lab: Lab, way: Way, end: Member, other: Member, facts: Facts) -> Iterator[Cause]:
    """An end has its address, a route to the other, and answers."""
    link = facts.links.get(end.ifname)
    if link is None or not link.up:
        return  # with it go its addresses and routes
    if end.kind == "pod" and link.mac != lab.pods[end.name].mac:
        text = f"{end.ifname} of {end.name} has the MAC {link.mac}; its node expects {lab.pods[end.name].mac} there"
        yield _cause(way, text, end.name, end.ifname, (*_SHOW_LINKS, "show", end.ifname))
    if not facts.has(end.address):
        text = f"{end.name} does not have its address {end.address}"
        yield _cause(way, text, end.name, "address", ("ip", "-br", "address"))
        return
    to = address_of(lab, other, end)
    if (words := facts.unreachable.get(to)) is not None:
        text = f"{end.name} has no route to {other.name} ({to}): {words}"
        yield _cause(way, text, end.name, "route", ("ip", "route", "get", to))
    if end is way.pair.target and facts.sysctls.get("net/ipv4/icmp_echo_ignore_all") == "1":
        text = f"{end.name} answers no ping: net.ipv4.icmp_echo_ignore_all is 1"
        yield _cause(way, text, end.name, "sysctl", ("sysctl", "net.ipv4.icmp_echo_ignore_all"))
    if end.kind == other.kind == "pod":
        mac = lab.pods[other.name].mac
        for one in facts.neighbours:
            if str(one.address) == other.address and one.mac not in {"", "00:00:00:00:00:00", mac}:
                text = f"{end.name} sends what is for {other.name} to the MAC {one.mac}; {other.name} has {mac}"
                yield _cause(way, text, end.name, "neighbour", ("ip", "neigh"))


def address_of(lab: Lab, end: Member, asker: Member) -> str:
    """By which address `asker` knows a member: beyond the pods' network a pod is known by its node's."""
    if end.kind == "pod" and end.node is not None and asker.kind == "outside":
        return str(lab.nodes[end.node].uplink_address)
    return end.address


# --- forwarding ---------------------------------------------------------------------------------------------------
def _entries(lab: Lab, way: Way, here: Member, there: Member, seen: Mapping[str, Facts]) -> Iterator[Cause]:
    """The node of `here` knows where the MAC of `there` is."""
    node, goal = here.node, there.node
    assert node is not None
    assert goal is not None
    facts, beyond = seen.get(node), seen.get(goal)
    device = None if facts is None else facts.links.get(OVERLAY)
    mac = _mac(lab, there, beyond)
    if facts is None or device is None or not mac:
        return
    wanted = str(lab.nodes[goal].uplink_address)
    look = ("bridge", "fdb", "show", "dev", OVERLAY)
    remotes = [str(one.address) for one in facts.fdb if (one.index, one.mac) == (device.index, mac) and one.address]
    if not remotes:
        text = f"{node} has no forwarding entry for {there.name} ({mac}): it should lead to {wanted} ({goal})"
        yield _cause(way, text, node, f"entries {OVERLAY}", look)
    elif wanted not in remotes:
        whose = next((name for name, one in lab.nodes.items() if str(one.uplink_address) == remotes[0]), "nobody here")
        text = (
            f"{node} sends what is for {there.name} to {remotes[0]} ({whose}): "
            f"its forwarding entry for {mac} should lead to {wanted} ({goal})"
        )
        yield _cause(way, text, node, f"entries {OVERLAY}", look)
    ports = {one.index for one in facts.fdb if one.master and one.mac == mac}
    if ports and device.index not in ports:
        name = next((link.name for link in facts.links.values() if link.index in ports), "another port")
        text = f"the switch of {node} takes {there.name} ({mac}) for being at {name}, and it is behind {OVERLAY}"
        yield _cause(way, text, node, f"entries {OVERLAY}", ("bridge", "fdb", "show", "br", SWITCH))


def _mac(lab: Lab, end: Member, facts: Facts | None) -> str:
    if end.kind == "pod":
        return lab.pods[end.name].mac
    switch = None if facts is None else facts.links.get(SWITCH)
    return "" if switch is None else switch.mac


def _tunnel(lab: Lab, way: Way, seen: Mapping[str, Facts]) -> Iterator[Cause]:
    """Both ends of the overlay speak of the same network, from their own addresses."""
    vni = lab.topology.network.vni
    for node in (way.pair.source.node, way.pair.target.node):
        assert node is not None
        device = seen[node].links.get(OVERLAY) if node in seen else None
        if device is None:
            continue
        look = (*_SHOW_LINKS, "show", OVERLAY)
        wanted = lab.nodes[node].uplink_address
        if device.vxlan_vni != vni:
            text = f"{OVERLAY} of {node} has the VNI {device.vxlan_vni}, and the network has {vni}"
            yield _cause(way, text, node, OVERLAY, look)
        elif device.vxlan_local != wanted:
            text = f"{OVERLAY} of {node} sends from {device.vxlan_local}, and the node is {wanted}"
            yield _cause(way, text, node, OVERLAY, look, Weight.LIKELY)


def _forwarding(lab: Lab, way: Way, seen: Mapping[str, Facts]) -> Iterator[Cause]:
    """Who passes packets on may do so."""
    passing = [name for name in lab.routers if any(place.on == name for place in way.places)]
    if way.kind == "routed" and way.pair.source.kind == "pod" and way.pair.source.node is not None:
        passing.insert(0, way.pair.source.node)
    for name in passing:
        if name in seen and seen[name].sysctls.get("net/ipv4/ip_forward") == "0":
            text = f"{name} passes no packets on: net.ipv4.ip_forward is 0"
            yield _cause(way, text, name, "sysctl net.ipv4.ip_forward", ("sysctl", "net.ipv4.ip_forward"))
