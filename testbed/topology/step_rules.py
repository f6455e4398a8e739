"""What no schema can state about scenarios: each step asks for something that this lab can show.

A new kind of step has its rule here; ``RULES`` is their order. rules.py asks them, of a lab that could be built.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

from testbed.topology.model import Topology
from testbed.topology.names import ALL_NODES, ALL_PODS, OUTSIDE, OWN_NODE
from testbed.topology.placeholders import SELF, VALUES, fill, kind_of, placeholders
from testbed.topology.steps import KINDS, Chaos, Exec, Iperf, Ping, Pod, Step, Wire
from testbed.topology.targets import expand, pairs
from testbed.topology.text import Finding, Findings, KeyPath
from testbed.topology.words import count_of, network_of, or_there_is, usable

_CUTS: Final = frozenset({"cut-node", "cut-overlay"})
"""The faults of a chaos step that take two nodes."""

_PING_HEADERS_BYTES: Final = 28
"""IPv4 (20) and ICMP (8)."""


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
        if ping.df and ping.size + _PING_HEADERS_BYTES > mtu:
            message = (
                f"'size' {ping.size} with 'df' makes packets of {ping.size + _PING_HEADERS_BYTES} bytes, but the MTU "
                f"from '{source}' to '{target}' is {mtu}: wanted at most {mtu - _PING_HEADERS_BYTES}"
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
    yield from _values(topology, path, command)
    if command.stdout_matches is not None:
        try:
            re.compile(fill(command.stdout_matches, lambda _: "0"))
        except re.error as error:
            message = f"'stdout_matches' is no regular expression: {error}"
            yield Finding((*path, "stdout_matches"), message)


def _values(topology: Topology, path: KeyPath, command: Exec) -> Findings:
    """Every placeholder is a value that somebody of this lab has."""
    words = command.command if isinstance(command.command, list) else []
    texts: list[tuple[KeyPath, str | None]] = [((*path, "command", index), word) for index, word in enumerate(words)]
    if isinstance(command.command, str):
        texts.append(((*path, "command"), command.command))
    texts += [
        ((*path, "stdout_contains"), command.stdout_contains),
        ((*path, "stdout_matches"), command.stdout_matches),
    ]
    members = [*topology.pods, *topology.nodes, *topology.underlay.routers, OUTSIDE]
    on = [name for name in expand(topology, command.on) if name in members]
    for place, text in texts:
        for found in dict.fromkeys(placeholders(text or "")):
            problem = ""
            if found.who not in {SELF, *members}:
                problem = f"there is no '{found.who}'{or_there_is(found.who, [SELF, *members])}"
            for name in on if found.who == SELF else [found.who]:
                kind = kind_of(topology, name)
                if kind is not None and found.what not in VALUES[kind]:
                    whose = "the outside host" if kind == OUTSIDE else f"the {kind} '{name}'"
                    problem = f"{whose} has no value '{found.what}'{or_there_is(found.what, VALUES[kind])}"
            if problem:
                yield Finding(place, f"{found}: {problem}; if the text itself is meant: {{{found}}}")


def _pod(topology: Topology, path: KeyPath, change: Pod) -> Findings:
    yield from _targets(topology, (*path, "on"), change.on, set(topology.pods), nouns="pod")
    if change.do == "restart" and topology.kubelet == "emulated":
        message = "'do' is restart, but pods of an emulated kubelet have no container: wanted 'kubelet: containerd'"
        yield Finding((*path, "do"), message)


def _chaos(topology: Topology, path: KeyPath, chaos: Chaos) -> Findings:
    for index, fault in enumerate(chaos.faults):
        if fault in chaos.faults[:index]:
            yield Finding((*path, "faults", index), f"'faults' names '{fault}' twice")
    if len(topology.nodes) == 1 and not set(chaos.faults) - _CUTS:
        message = "'faults' has cuts only, and a lab of one node has nobody to be cut off from: wanted another fault"
        yield Finding((*path, "faults"), message)
    pod_range = network_of(topology.network.range)
    needed = len(topology.nodes) + len(topology.pods) + chaos.pods
    if pod_range is not None and needed > usable(pod_range):
        message = (
            f"'pods' {chaos.pods}: the pod range {pod_range} has {count_of(usable(pod_range), 'usable address')}, "
            f"needed are {needed} with the lab's own nodes and pods"
        )
        yield Finding((*path, "pods"), message)


RULES: Final[tuple[Callable[[Topology], Findings], ...]] = (_scenario_names, _steps)


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
    return f"'{key}': there is no {nouns} '{name}'{or_there_is(name, known)}"
