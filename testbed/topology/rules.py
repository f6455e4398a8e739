"""What no schema can state about a topology: names, ranges, reachability, and what the steps of a scenario ask for.

Third phase of ``testbed.topology.load``. ``check`` is the table of contents; each rule is a generator of findings and
knows nothing of files: it names the path of the value that is wrong, and the loader finds its line.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from typing import Final

from testbed.topology.capabilities import ports_and_limits
from testbed.topology.model import Topology
from testbed.topology.names import ALL_NODES, ALL_PODS, OUTSIDE, OWN_NODE, RESERVED_NAMES
from testbed.topology.steps import KINDS, Chaos, Exec, Iperf, Ping, Pod, Step, Wire
from testbed.topology.targets import expand, pairs
from testbed.topology.text import Finding, KeyPath, suggest
from testbed.topology.underlay import first_hops

PODS_PER_NODE_MAX: Final = 1022
"""A Linux bridge numbers its ports from 1 in 10 bits (BR_MAX_PORTS, net/bridge/br_private.h): 1023, one for VXLAN."""

UNUSABLE: Final = {
    IPv4Network("0.0.0.0/8"): "'this network'",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("224.0.0.0/3"): "multicast and reserved addresses",
}
"""Ranges that no interface can have an address of."""

CUTS: Final = frozenset({"cut-node", "cut-overlay"})
"""The faults of a chaos step that take two nodes."""

PING_HEADERS_BYTES: Final = 28
"""IPv4 (20) and ICMP (8)."""

Findings = Iterator[Finding]


def check(topology: Topology) -> list[Finding]:
    """Every finding. Rules on scenarios are asked last and only of a lab that could be built."""
    found = [finding for rule in NETWORK_RULES for finding in rule(topology)]
    return found or [finding for rule in SCENARIO_RULES for finding in rule(topology)]


# ------------------------------------------------------------------------------------------------------ network rules


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
    for network, words in UNUSABLE.items():
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
        self.network = _network(text)

    def findings(self) -> Findings:
        loose = self.network or _network(self.text, strict=False)
        if loose is None:
            yield Finding(self.path, f"{self.words}: wanted an IPv4 range such as 192.168.56.0/24, found '{self.text}'")
        elif self.network is None:
            yield Finding(self.path, f"{self.words}: {self.text} has host bits set (did you mean {loose}?)")
        else:
            for network, words in UNUSABLE.items():
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
                yield Finding(path, f"router '{name}': there is no segment '{segment}'{_known(segment, segments)}")
            elif segment in router.segments[:index]:
                yield Finding(path, f"router '{name}' names segment '{segment}' twice")


def _plugs(topology: Topology) -> Findings:
    """Nodes and the outside host are plugged into segments that exist; pods run on nodes that exist."""
    segments = topology.underlay.segments
    for node, spec in topology.nodes.items():
        if spec.segment is not None and spec.segment not in segments:
            message = f"node '{node}': there is no segment '{spec.segment}'{_known(spec.segment, segments)}"
            yield Finding(("nodes", node, "segment"), message)
    outside = topology.underlay.outside.segment
    if outside is not None and outside not in segments:
        message = f"outside: there is no segment '{outside}'{_known(outside, segments)}"
        yield Finding(("underlay", "outside", "segment"), message)
    for pod, where in topology.pods.items():
        if where.node not in topology.nodes:
            message = f"pod '{pod}': there is no node '{where.node}'{_known(where.node, topology.nodes)}"
            yield Finding(("pods", pod, "node"), message)
    for node, count in Counter(pod.node for pod in topology.pods.values()).items():
        if node in topology.nodes and count > PODS_PER_NODE_MAX:
            message = f"node '{node}' has {count} pods: a Linux bridge has ports for {PODS_PER_NODE_MAX}"
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
        if subnet is not None and nodes + routers + outside > _usable(subnet):
            people = [_count(nodes, "node"), _count(routers, "router"), "the outside host" if outside else ""]
            message = (
                f"segment '{segment}': {subnet} has {_count(_usable(subnet), 'usable address')}, "
                f"needed are {nodes + routers + outside} ({', '.join(filter(None, people))})"
            )
            yield Finding(("underlay", "segments", segment, "subnet"), message)
    pod_range = _network(topology.network.range)
    needed = len(topology.nodes) + len(topology.pods)
    if pod_range is not None and needed > _usable(pod_range):
        people = [_count(len(topology.nodes), "node"), _count(len(topology.pods), "pod")]
        message = (
            f"the pod range {pod_range} has {_count(_usable(pod_range), 'usable address')}, needed are {needed} "
            f"({', '.join(filter(None, people))})"
        )
        yield Finding(("network", "range"), message)


NETWORK_RULES: Final[tuple[Callable[[Topology], Findings], ...]] = (
    _names,
    _ranges,
    _routers,
    _plugs,
    _islands,
    _addresses,
    _room,
    ports_and_limits,
)


# ----------------------------------------------------------------------------------------------------- scenario rules


def _scenario_names(topology: Topology) -> Findings:
    seen: set[str] = set()
    for index, scenario in enumerate(topology.scenarios):
        if scenario.name in seen:
            yield Finding(
                ("scenarios", index, "name"), f"scenario '{scenario.name}' is given twice; choose another name"
            )
        seen.add(scenario.name)


def _steps(topology: Topology) -> Findings:
    """Each step has one kind and asks for something that this lab can show."""
    for at, scenario in enumerate(topology.scenarios):
        for index, step in enumerate(scenario.steps):
            path: KeyPath = ("scenarios", at, "steps", index)
            present = [kind for kind in KINDS if getattr(step, kind) is not None]
            if len(present) != 1:
                yield Finding(path, kinds_sentence(present))
                continue
            yield from _step(topology, (*path, step.kind), step)


def _step(topology: Topology, path: KeyPath, step: Step) -> Findings:
    match step.action:
        case Ping() as ping:
            yield from _ping(topology, path, ping)
        case Iperf() as iperf:
            yield from _iperf(topology, path, iperf)
        case Wire() as wire:
            yield from _wire(topology, path, wire)
        case Exec() as command:
            yield from _exec(topology, path, command)
        case Pod() as change:
            yield from _pod(topology, path, change)
        case Chaos() as chaos:
            yield from _chaos(topology, path, chaos)


def _ping(topology: Topology, path: KeyPath, ping: Ping) -> Findings:
    pingable = {*topology.pods, *topology.nodes, OUTSIDE, ALL_PODS, ALL_NODES}
    unknown = [
        *_targets(topology, (*path, "from"), ping.from_, pingable),
        *_targets(topology, (*path, "to"), ping.to, pingable | {OWN_NODE}),
    ]
    yield from unknown
    if unknown:
        return
    if OWN_NODE in expand(topology, ping.to):
        for source in expand(topology, ping.from_):
            if source not in topology.pods:
                message = f"'{OWN_NODE}' is the node of a pod: wanted pods under 'from', found '{source}'"
                yield Finding((*path, "from"), message)
                return
    found = pairs(topology, ping)
    if not found:
        yield Finding((*path, "to"), "nobody is left to ping: 'from' and 'to' name the same one")
    for source, target, own_node in found:
        pods = topology.pods.keys() & {source, target}
        if source == OUTSIDE and pods:
            message = f"the outside host has no route to pods: wanted a node as target, found '{target}'"
            yield Finding((*path, "to"), message)
        if ping.expect_source and (source not in topology.pods or not (own_node or target in topology.pods)):
            message = (
                f"'expect_source' wants pods that ping pods or their own node, found '{source}' pinging '{target}'"
            )
            yield Finding((*path, "expect_source"), message)
        mtu = topology.overlay_mtu if pods or own_node else topology.underlay.mtu
        if ping.df and ping.size + PING_HEADERS_BYTES > mtu:
            message = (
                f"'size' {ping.size} with 'df' makes packets of {ping.size + PING_HEADERS_BYTES} bytes, but the MTU "
                f"from '{source}' to '{target}' is {mtu}: wanted at most {mtu - PING_HEADERS_BYTES}"
            )
            yield Finding((*path, "size"), message)


def _iperf(topology: Topology, path: KeyPath, iperf: Iperf) -> Findings:
    known = {*topology.pods, *topology.nodes, OUTSIDE}
    yield from _targets(topology, (*path, "from"), iperf.from_, known)
    yield from _targets(topology, (*path, "to"), iperf.to, known)
    if iperf.from_ == iperf.to:
        yield Finding((*path, "to"), f"'from' and 'to' are both '{iperf.to}': wanted two different ones")
    if iperf.from_ == OUTSIDE and iperf.to in topology.pods:
        yield Finding((*path, "to"), f"the outside host has no route to pods: wanted a node, found '{iperf.to}'")
    if iperf.protocol == "tcp":
        for key, value in (("rate_mbit", iperf.rate_mbit), ("max_loss", iperf.max_loss)):
            if value is not None:
                yield Finding((*path, key), f"'{key}' is for udp only; add 'protocol: udp' or remove it", at_key=True)


def _wire(topology: Topology, path: KeyPath, wire: Wire) -> Findings:
    unknown = [
        *_targets(topology, (*path, "from"), wire.from_, set(topology.pods), nouns="pod"),
        *_targets(topology, (*path, "to"), wire.to, set(topology.pods), nouns="pod"),
    ]
    yield from unknown
    if unknown:
        return
    one, other = topology.pods[wire.from_].node, topology.pods[wire.to].node
    if wire.from_ == wire.to:
        yield Finding((*path, "to"), f"'from' and 'to' are both '{wire.to}': wanted two different pods")
    elif wire.path == "same-node" and one != other:
        message = f"'path' is same-node, but '{wire.from_}' runs on {one} and '{wire.to}' on {other}: wanted cross-node"
        yield Finding((*path, "path"), message)
    elif wire.path == "cross-node" and one == other:
        message = f"'path' is cross-node, but '{wire.from_}' and '{wire.to}' both run on {one}: wanted same-node"
        yield Finding((*path, "path"), message)


def _exec(topology: Topology, path: KeyPath, command: Exec) -> Findings:
    routers = topology.underlay.routers
    known = {*topology.pods, *topology.nodes, *routers, OUTSIDE, ALL_PODS, ALL_NODES}
    yield from _targets(topology, (*path, "on"), command.on, known, nouns="pod, node or router")
    if not (command.command.strip() if isinstance(command.command, str) else any(command.command)):
        yield Finding((*path, "command"), "'command' is empty: wanted a command line")
    if command.stdout_matches is not None:
        try:
            re.compile(command.stdout_matches)
        except re.error as error:
            message = f"'stdout_matches' is no regular expression: {error}"
            yield Finding((*path, "stdout_matches"), message)


def _pod(topology: Topology, path: KeyPath, change: Pod) -> Findings:
    yield from _targets(topology, (*path, "on"), change.on, set(topology.pods), nouns="pod")
    if change.do == "restart" and topology.kubelet == "emulated":
        message = "'do' is restart, but pods of an emulated kubelet have no container: wanted 'kubelet: containerd'"
        yield Finding((*path, "do"), message)


def _chaos(topology: Topology, path: KeyPath, chaos: Chaos) -> Findings:
    for index, fault in enumerate(chaos.faults):
        if fault in chaos.faults[:index]:
            yield Finding((*path, "faults", index), f"'faults' names '{fault}' twice")
    if len(topology.nodes) == 1 and not set(chaos.faults) - CUTS:
        message = "'faults' has cuts only, and a lab of one node has nobody to be cut off from: wanted another fault"
        yield Finding((*path, "faults"), message)
    pod_range = _network(topology.network.range)
    needed = len(topology.nodes) + len(topology.pods) + chaos.pods
    if pod_range is not None and needed > _usable(pod_range):
        message = (
            f"'pods' {chaos.pods}: the pod range {pod_range} has {_count(_usable(pod_range), 'usable address')}, "
            f"needed are {needed} with the lab's own nodes and pods"
        )
        yield Finding((*path, "pods"), message)


SCENARIO_RULES: Final[tuple[Callable[[Topology], Findings], ...]] = (_scenario_names, _steps)


# ------------------------------------------------------------------------------------------------------------- helpers


def kinds_sentence(present: Iterable[str]) -> str:
    """What is wrong with a step that has none or several of the kinds."""
    kinds = list(present)
    found = f"found {' and '.join(kinds)}; make them steps of their own" if kinds else "found none"
    return f"a step wants exactly one of {', '.join(KINDS)}, {found}"


def _targets(
    topology: Topology, path: KeyPath, names: str | list[str], known: set[str], *, nouns: str = "pod or node"
) -> Findings:
    """Findings on names that a step cannot mean."""
    if names == []:
        yield Finding(path, f"'{path[-1]}' is an empty list: wanted a {nouns}")
    for index, name in enumerate([names] if isinstance(names, str) else names):
        here = path if isinstance(names, str) else (*path, index)
        if name not in known:
            yield Finding(here, _no_such(topology, path, name, known, nouns))
        elif name == ALL_PODS and not topology.pods:
            yield Finding(here, f"'{ALL_PODS}': the topology has no pods")


def _no_such(topology: Topology, path: KeyPath, name: str, known: set[str], nouns: str) -> str:
    key = path[-1]
    if name in {ALL_PODS, ALL_NODES}:
        return f"'{key}': wanted one {nouns}, found the group '{name}'"
    if name == OWN_NODE:
        return f"'{key}': '{OWN_NODE}' stands only under 'to' of a ping"
    if name in topology.underlay.routers:
        return f"'{key}': wanted a {nouns}, found the router '{name}'"
    if name == OUTSIDE:
        return f"'{key}': wanted a {nouns}, found the outside host"
    if name in topology.nodes:
        return f"'{key}': wanted a {nouns}, found the node '{name}'"
    return f"'{key}': there is no {nouns} '{name}'{_known(name, known)}"


def _known(name: str, known: Iterable[str]) -> str:
    """What was probably meant, or what there is."""
    listed = sorted(known, key=lambda word: (word in RESERVED_NAMES, word))
    return suggest(name, listed) or f"; there is {', '.join(listed[:8])}{', ...' if len(listed) > 8 else ''}"


def _network(text: str, *, strict: bool = True) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=strict)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _subnet_of(topology: Topology, segment: str) -> IPv4Network | None:
    spec = topology.underlay.segments.get(segment)
    return None if spec is None else _network(spec.subnet)


def _usable(network: IPv4Network) -> int:
    """Addresses for hosts: all but the network's and the broadcast's."""
    return max(network.num_addresses - 2, 0)


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}" if number or noun.startswith("usable") else ""
