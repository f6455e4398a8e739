"""What no schema can state about nodes, pods and the underlay of a topology: names, ranges, reachability, room.

Each rule is a generator of findings; ``RULES`` is their order. rules.py asks them.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

from testbed.topology.capabilities import ports_and_limits
from testbed.topology.model import Topology
from testbed.topology.names import RESERVED_NAMES
from testbed.topology.text import Finding, Findings, KeyPath
from testbed.topology.underlay import first_hops
from testbed.topology.words import count_of, network_of, or_there_is, usable

_PODS_PER_NODE_MAX: Final = 1022
"""A Linux bridge numbers its ports from 1 in 10 bits (BR_MAX_PORTS, net/bridge/br_private.h): 1023, one for VXLAN."""

_UNUSABLE: Final = {
    IPv4Network("0.0.0.0/8"): "'this network'",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("224.0.0.0/3"): "multicast and reserved addresses",
}
"""Ranges that no interface can have an address of."""


def _names(topology: Topology) -> Findings:
    """Nodes, pods and routers share one space of names; some are taken by commands and steps."""
    if topology.name in RESERVED_NAMES:
        yield Finding(("name",), f"the name '{topology.name}' is reserved; choose another")
    seen: dict[str, str] = {}
    owners: tuple[tuple[str, KeyPath, Iterable[str]], ...] = (
        ("node", ("nodes",), topology.nodes),
        ("router", ("underlay", "routers"), topology.underlay.routers),
        ("pod", ("pods",), topology.pods),
    )
    for noun, path, names in owners:
        for name in names:
            if name in RESERVED_NAMES:
                message = f"{noun} '{name}': the name is reserved for commands and steps; choose another"
                yield Finding((*path, name), message, at_key=True)
            elif name in seen:
                message = (
                    f"{noun} '{name}' has the name of a {seen[name]}; names are used once among nodes, routers, pods"
                )
                yield Finding((*path, name), message, at_key=True)
            seen.setdefault(name, noun)


def _ranges(topology: Topology) -> Findings:
    """Subnets, the pod range and the outside address are usable and do not overlap."""
    outside = topology.underlay.outside
    ranges = [_Range(("network", "range"), "the pod range", topology.network.range)]
    for segment, spec in topology.underlay.segments.items():
        ranges.append(_Range(("underlay", "segments", segment, "subnet"), f"segment '{segment}'", spec.subnet))
    for checked in ranges:
        yield from checked.findings()
    usable = [checked for checked in ranges if checked.network]
    for one, other in itertools.combinations(usable, 2):
        assert one.network is not None
        assert other.network is not None
        if one.network.overlaps(other.network):
            message = f"{other.words} ({other.network}) overlaps {one.words} ({one.network})"
            yield Finding(other.path, message)
    path: KeyPath = ("underlay", "outside", "address")
    address = _address(outside.address)
    if address is None:
        yield Finding(path, f"'address' of the outside host: wanted an IPv4 address, found '{outside.address}'")
        return
    for network, words in _UNUSABLE.items():
        if address in network:
            yield Finding(path, f"the outside address {address} cannot be used: {network} is {words}")
    for checked in usable:
        assert checked.network is not None
        if address in checked.network:
            yield Finding(path, f"the outside address {address} lies in {checked.words} ({checked.network})")


class _Range:
    """One range of the file: where it stands, what people call it, and the network it is (None when it is wrong)."""

    def __init__(self, path: KeyPath, words: str, text: str) -> None:
        self.path = path
        self.words = words
        self.text = text
        self.network = network_of(text)

    def findings(self) -> Findings:
        loose = self.network or network_of(self.text, strict=False)
        if loose is None:
            yield Finding(self.path, f"{self.words}: wanted an IPv4 range such as 192.168.56.0/24, found '{self.text}'")
        elif self.network is None:
            yield Finding(self.path, f"{self.words}: {self.text} has host bits set (did you mean {loose}?)")
        else:
            for network, words in _UNUSABLE.items():
                if self.network.overlaps(network):
                    yield Finding(self.path, f"{self.words} ({self.network}) cannot be used: {network} is {words}")
                    return


def _routers(topology: Topology) -> Findings:
    """Routers join segments that exist, each once."""
    segments = topology.underlay.segments
    for name, router in topology.underlay.routers.items():
        for index, segment in enumerate(router.segments):
            path: KeyPath = ("underlay", "routers", name, "segments", index)
            if segment not in segments:
                yield Finding(path, f"router '{name}': there is no segment '{segment}'{or_there_is(segment, segments)}")
            elif segment in router.segments[:index]:
                yield Finding(path, f"router '{name}' names segment '{segment}' twice")


def _plugs(topology: Topology) -> Findings:
    """Nodes and the outside host are plugged into segments that exist; pods run on nodes that exist."""
    segments = topology.underlay.segments
    for node, spec in topology.nodes.items():
        if spec.segment is not None and spec.segment not in segments:
            message = f"node '{node}': there is no segment '{spec.segment}'{or_there_is(spec.segment, segments)}"
            yield Finding(("nodes", node, "segment"), message)
    outside = topology.underlay.outside.segment
    if outside is not None and outside not in segments:
        message = f"outside: there is no segment '{outside}'{or_there_is(outside, segments)}"
        yield Finding(("underlay", "outside", "segment"), message)
    for pod, where in topology.pods.items():
        if where.node not in topology.nodes:
            message = f"pod '{pod}': there is no node '{where.node}'{or_there_is(where.node, topology.nodes)}"
            yield Finding(("pods", pod, "node"), message)
    for node, count in Counter(pod.node for pod in topology.pods.values()).items():
        if node in topology.nodes and count > _PODS_PER_NODE_MAX:
            message = f"node '{node}' has {count} pods: a Linux bridge has ports for {_PODS_PER_NODE_MAX}"
            yield Finding(("nodes", node), message, at_key=True)


def _islands(topology: Topology) -> Findings:
    """Every segment is reachable from the first one."""
    if any(_routers(topology)):
        return  # a segment whose router is misspelt is no island
    first, *others = topology.underlay.segments
    reached = first_hops(topology, [first])
    for segment in others:
        if segment not in reached:
            message = (
                f"segment '{segment}' cannot be reached from '{first}': wanted a router that joins them, or a chain"
            )
            yield Finding(("underlay", "segments", segment), message, at_key=True)


def _addresses(topology: Topology) -> Findings:
    """Addresses that the file gives to nodes belong to their segment and are used once."""
    seen: dict[IPv4Address, str] = {}
    for node, spec in topology.nodes.items():
        subnet = _subnet_of(topology, topology.segment_of(node))
        if spec.address is None or subnet is None:
            continue
        path: KeyPath = ("nodes", node, "address")
        address = _address(spec.address)
        if address is None:
            yield Finding(path, f"node '{node}': wanted an IPv4 address such as {subnet[1]}, found '{spec.address}'")
        elif address not in subnet:
            message = f"node '{node}': {address} lies outside segment '{topology.segment_of(node)}' ({subnet})"
            yield Finding(path, message)
        elif address in {subnet.network_address, subnet.broadcast_address}:
            which = "network" if address == subnet.network_address else "broadcast"
            yield Finding(path, f"node '{node}': {address} is the {which} address of {subnet}")
        elif address in seen:
            yield Finding(path, f"node '{node}': {address} is already the address of node '{seen[address]}'")
        else:
            seen[address] = node


def _room(topology: Topology) -> Findings:
    """Subnets and the pod range have enough addresses."""
    for segment in topology.underlay.segments:
        subnet = _subnet_of(topology, segment)
        nodes = sum(topology.segment_of(node) == segment for node in topology.nodes)
        routers = sum(segment in router.segments for router in topology.underlay.routers.values())
        outside = int(topology.outside_segment == segment)
        if subnet is not None and nodes + routers + outside > usable(subnet):
            people = [count_of(nodes, "node"), count_of(routers, "router"), "the outside host" if outside else ""]
            message = (
                f"segment '{segment}': {subnet} has {count_of(usable(subnet), 'usable address')}, "
                f"needed are {nodes + routers + outside} ({', '.join(filter(None, people))})"
            )
            yield Finding(("underlay", "segments", segment, "subnet"), message)
    pod_range = network_of(topology.network.range)
    needed = len(topology.nodes) + len(topology.pods)
    if pod_range is not None and needed > usable(pod_range):
        people = [count_of(len(topology.nodes), "node"), count_of(len(topology.pods), "pod")]
        message = (
            f"the pod range {pod_range} has {count_of(usable(pod_range), 'usable address')}, needed are {needed} "
            f"({', '.join(filter(None, people))})"
        )
        yield Finding(("network", "range"), message)


RULES: Final[tuple[Callable[[Topology], Findings], ...]] = (
    _names,
    _ranges,
    _routers,
    _plugs,
    _islands,
    _addresses,
    _room,
    ports_and_limits,
)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _subnet_of(topology: Topology, segment: str) -> IPv4Network | None:
    spec = topology.underlay.segments.get(segment)
    return None if spec is None else network_of(spec.subnet)
