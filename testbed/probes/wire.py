"""Judge captured frames: did a ping between two pods take the way that a pod network promises? Frames in, verdict out.

The runner captures on every node's uplink (`testbed.probes.capture`) while a pod pings another; then `judge_wire`.

- same node: the switch and nowhere else. No frame of the probe is on any uplink.
- other node: VXLAN out, VXLAN in, and the reply likewise. Each echo is seen exactly once at each of the four places, in
  an envelope between the two nodes' uplinks, with the right port, VNI, addresses and MACs, 50 bytes longer than what
  the pod sent; nothing of the pair travels bare, and nothing of it reaches another node.

How a frame is recognised: by the marker that the ping carries (`marker_of`, ping's `-p`), which survives NAT and wrong
tunnels, and else by the pair itself: both pods' addresses, or both MACs, or ARP of one for the other, in any layer.
Frames of only one of them (its IPv6 multicast, an announcement of its address) are no part of the probe; `notes` counts
them. With routers on the way the outer TTL falls and the outer MACs change: allowed, and noted.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address
from typing import Final, Literal

from plugin.core.packet import vxlan
from plugin.core.packet.frame import dissect
from plugin.core.packet.ip import IPv4
from plugin.core.packet.names import some
from plugin.core.packet.packet import Packet
from plugin.core.packet.transport import Icmp
from testbed.probes.capture import CapturedFrame, Direction

# What ping's -p takes at most. Iputils writes the time over the first 16 bytes: 32 carry the marker whole.
MARKER_BYTES: Final = 16
PAYLOAD_BYTES_MIN: Final = 16 + MARKER_BYTES

_NAMED_MAX: Final = 4  # frames that one check names; the rest is counted

WirePath = Literal["same-node", "cross-node"]


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One end of the probe. `mac` is the pod's own, lower case."""

    name: str
    address: IPv4Address
    mac: str
    node: str


@dataclass(frozen=True, slots=True)
class WireFacts:
    """What was done, and how the network is meant to be.

    Attributes:
        sender: The pod that pinged.
        target: The pod that was pinged.
        uplinks: Address of every node's uplink, by the node's name.
        watched: Names of the nodes whose uplinks were captured (`Capture.taps`).
        marker: Bytes that the ping's payload carries and nothing else does.
        count: Echo requests sent.
        answered: Echo replies that the sender counted: without them an empty uplink proves nothing.
        frames_lost: Frames that the capture could not keep (`Capture.lost`).
        vni: The network's VXLAN identifier.
        port: UDP port of its VXLAN.
    """

    sender: PodFacts
    target: PodFacts
    uplinks: Mapping[str, IPv4Address]
    watched: Collection[str]
    marker: bytes
    count: int
    answered: int
    frames_lost: int = 0
    vni: int = 1
    port: int = vxlan.UDP_PORT


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was examined: what was wanted, what was found, whether that is the same."""

    name: str
    wanted: str
    found: str
    holds: bool


@dataclass(frozen=True, slots=True)
class WireVerdict:
    """What the frames prove.

    Attributes:
        holds: Whether all checks hold.
        checks: In the order in which a person would ask.
        evidence: Frames to show: the first request out and in and its reply out and in; if a check does not hold, the
            frames that contradict it come first.
        notes: What was seen besides, and is allowed: TTLs, DF, ports, unrelated frames.
    """

    holds: bool
    checks: tuple[Check, ...]
    evidence: tuple[CapturedFrame, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.holds)


def marker_of(token: str) -> bytes:
    """Sixteen bytes that mark a probe, derived from a token that is unique to it (lab, step, attempt, process)."""
    return hashlib.sha256(token.encode()).digest()[:MARKER_BYTES]


def judge_wire(frames: Sequence[CapturedFrame], facts: WireFacts, path: WirePath) -> WireVerdict:
    """Judge what was captured on the uplinks while `facts.sender` pinged `facts.target`.

    Args:
        frames: All frames of all uplinks, in the order of their time.
        facts: The probe and the network.
        path: The way that was promised.
    """
    sightings = [_Sighting(frame, facts) for frame in frames]
    ours = [s for s in sightings if s.is_marked or s.is_pair]
    judge = _judge_same_node if path == "same-node" else _judge_cross_node
    checks, evidence, notes = judge(ours, facts)
    checks = [*_ground(facts, path), *checks]
    alone = Counter(s.frame.tap for s in sightings if s.is_one_only)
    if alone:
        notes.append(f"frames of one of the two pods alone, no part of the probe: {_tally(alone)}")
    return WireVerdict(all(check.holds for check in checks), tuple(checks), tuple(evidence), tuple(notes))


def _ground(facts: WireFacts, path: WirePath) -> list[Check]:
    """What has to hold before frames, or their absence, prove anything."""
    together = facts.sender.node == facts.target.node
    where = f"{facts.sender.name} on {facts.sender.node}, {facts.target.name} on {facts.target.node}"
    unwatched = sorted(set(facts.uplinks) - set(facts.watched))
    watched = len(set(facts.uplinks) & set(facts.watched))
    return [
        Check(
            "placement", "one node" if path == "same-node" else "two nodes", where, together == (path == "same-node")
        ),
        Check(
            "probe answered",
            f"{facts.count} of {facts.count}",
            f"{facts.answered} of {facts.count}",
            facts.answered == facts.count > 0,
        ),
        Check(
            "every uplink watched",
            some(len(facts.uplinks), "uplink"),
            f"not watched: {', '.join(unwatched)}" if unwatched else some(watched, "uplink"),
            not unwatched and watched > 0,
        ),
        Check("nothing lost by the capture", "0 frames", some(facts.frames_lost, "frame"), facts.frames_lost == 0),
    ]


# ------------------------------------------------------------------------------------------------------------ same node


def _judge_same_node(ours: "list[_Sighting]", facts: WireFacts) -> "tuple[list[Check], list[CapturedFrame], list[str]]":
    pods = f"{facts.sender.address} and {facts.target.address}"
    checks = [
        _none("no frame of the probe on an uplink", "carry its marker", [s for s in ours if s.is_marked]),
        _none("the pods' addresses on no uplink", f"are between {pods}", [s for s in ours if s.pairs_addresses]),
        _none("the pods' MACs on no uplink", "are between their MACs", [s for s in ours if s.pairs_macs]),
        _none("no ARP of the pair on an uplink", "ask or answer for them", [s for s in ours if s.pairs_arp]),
    ]
    return checks, [s.frame for s in ours[:_NAMED_MAX]], []


def _none(name: str, what: str, found: "Sequence[_Sighting]") -> Check:
    return Check(name, f"0 frames {what}", some(len(found), "frame") + _places(found), not found)


# ----------------------------------------------------------------------------------------------------------- cross node


def _judge_cross_node(
    ours: "list[_Sighting]", facts: WireFacts
) -> "tuple[list[Check], list[CapturedFrame], list[str]]":
    sender, target = facts.sender, facts.target
    stations = [
        _Station("request", sender.node, Direction.OUT, "leaves"),
        _Station("request", target.node, Direction.IN, "arrives at"),
        _Station("reply", target.node, Direction.OUT, "leaves"),
        _Station("reply", sender.node, Direction.IN, "arrives at"),
    ]
    echoes = [s for s in ours if s.is_tunnelled and s.echo]
    seen = {station: [s for s in echoes if station.holds(s)] for station in stations}
    on_way = [s for found in seen.values() for s in found]
    union = {s.number for s in on_way}
    checks = [_each_once(station, seen[station], union, facts.count) for station in stations]
    checks += [_all_same(name, wanted, on_way, right, said) for name, wanted, right, said in _headers(facts)]
    bare = [s for s in ours if not s.is_tunnelled]
    checks.append(_none("nothing unencapsulated", "of the pair outside VXLAN", bare))
    strangers = [s for s in ours if s.frame.tap not in {sender.node, target.node}]
    # A switch of the underlay that has forgotten a MAC floods the envelope; the others' cards refuse it. That is the
    # underlay's doing: our overlay sent the envelope to the right node.
    overheard = [s for s in strangers if s.frame.direction is Direction.OVERHEARD and s.is_between_uplinks]
    checks.append(
        _none("nothing to other nodes", "of the pair sent there", [s for s in strangers if s not in overheard])
    )
    stray = [s for s in ours if s.is_tunnelled and s not in on_way and s not in strangers]
    return checks, _choose(seen, bare, strangers), _notes(seen, overheard, stray)


@dataclass(frozen=True, slots=True)
class _Station:
    """One of the four places an echo must pass."""

    echo: str
    node: str
    direction: Direction
    verb: str

    @property
    def name(self) -> str:
        return f"{self.echo} {self.verb} {self.node}"

    def holds(self, sighting: "_Sighting") -> bool:
        frame = sighting.frame
        return (sighting.echo, frame.tap, frame.direction) == (self.echo, self.node, self.direction)


def _each_once(station: _Station, found: "list[_Sighting]", union: "set[tuple[int, int]]", count: int) -> Check:
    times = Counter(s.number for s in found)
    missing = sorted(sequence for _, sequence in union - set(times))
    again = sorted(sequence for (_, sequence), n in times.items() if n > 1)
    text = f"{len(times)} of {count}"
    text += f", missing: sequence {', '.join(map(str, missing))}" if missing else ""
    text += f", more than once: sequence {', '.join(map(str, again))}" if again else ""
    holds = len(times) == count and not missing and not again
    return Check(station.name, f"{count} of {count} in VXLAN, each once", text, holds)


def _headers(facts: WireFacts) -> "list[tuple[str, str, dict[str, str], _Said]]":
    """The header checks: name, wanted (for people), wanted text by echo kind, and what a frame says."""
    sender, target = facts.sender, facts.target
    here, there = (str(facts.uplinks.get(node, f"unknown uplink of {node}")) for node in (sender.node, target.node))

    def both(first: str, second: str) -> dict[str, str]:
        return {"request": f"{first} > {second}", "reply": f"{second} > {first}"}

    def same(text: str) -> dict[str, str]:
        return {"request": text, "reply": text}

    rows: list[tuple[str, dict[str, str], _Said]] = [
        ("outer addresses", both(here, there), _Sighting.outer_addresses),
        ("UDP port", same(str(facts.port)), _Sighting.outer_port),
        ("VNI", same(str(facts.vni)), _Sighting.vni),
        ("inner addresses", both(str(sender.address), str(target.address)), _Sighting.inner_addresses),
        ("inner MACs", both(sender.mac.lower(), target.mac.lower()), _Sighting.inner_macs),
        ("overhead", same(f"{vxlan.OVERHEAD_BYTES} bytes"), _Sighting.overhead),
    ]
    return [
        (name, right["request"] if len(set(right.values())) == 1 else f"{right['request']} and back", right, said)
        for name, right, said in rows
    ]


def _all_same(name: str, wanted: str, found: "list[_Sighting]", right: Mapping[str, str], said: "_Said") -> Check:
    wrong = Counter(said(s) for s in found if said(s) != right[s.echo])
    if wrong:
        return Check(name, wanted, _tally(wrong, of=len(found)), holds=False)
    return Check(name, wanted, f"in all {some(len(found), 'frame')}" if found else "no frame to look at", bool(found))


def _choose(
    seen: "Mapping[_Station, list[_Sighting]]", bare: "list[_Sighting]", strangers: "list[_Sighting]"
) -> list[CapturedFrame]:
    """What to show: contradictions first, then the first echo that passed all stations, or whatever did pass."""
    complete = set.intersection(*({s.number for s in found} for found in seen.values()))
    shown = [s.frame for s in [*bare[:_NAMED_MAX], *strangers[:_NAMED_MAX]]]
    for found in seen.values():
        chosen = [s for s in found if not complete or s.number == min(complete)]
        shown += [s.frame for s in chosen[:1] if s.frame not in shown]
    return shown


def _notes(
    seen: "Mapping[_Station, list[_Sighting]]", overheard: "list[_Sighting]", stray: "list[_Sighting]"
) -> list[str]:
    notes = []
    (out, arrived, *_) = seen.values()
    ttl_out, ttl_in = ({s.outer.ttl for s in found if s.outer is not None} for found in (out, arrived))
    if len(ttl_out) == len(ttl_in) == 1:
        hops = min(ttl_out) - min(ttl_in)
        way = "no router on the way" if hops == 0 else f"{some(hops, 'router')} on the way"
        notes.append(f"outer TTL {min(ttl_out)} when sent, {min(ttl_in)} on arrival: {way}")
    everything = [s for found in seen.values() for s in found]
    envelopes = [s.outer for s in everything if s.outer is not None]
    if envelopes:
        fragile = sum(ip.dont_fragment for ip in envelopes)
        notes.append(f"outer don't-fragment flag set in {fragile} of {len(envelopes)} frames")
        ports = sorted({s.packet.udp.source_port for s in everything if s.packet.udp is not None})
        notes.append(f"outer UDP source port {', '.join(map(str, ports))}: a hash of the inner flow, spreads load")
    if overheard:
        where = _tally(Counter(s.frame.tap for s in overheard))
        notes.append(f"flooded by the underlay's switch to other nodes, whose network cards refuse it: {where}")
    if stray:
        notes.append(f"besides the echoes, in VXLAN between the same pods: {_tally(Counter(s.what for s in stray))}")
    return notes


# ------------------------------------------------------------------------------------------------------------ one frame


class _Sighting:
    """One captured frame, seen with the probe in mind. `packet` is read with the right VXLAN ports."""

    def __init__(self, frame: CapturedFrame, facts: WireFacts) -> None:
        self.frame = frame
        self.facts = facts
        self.is_marked = facts.marker in frame.data
        self.packet = _read(frame, facts, marked=self.is_marked)

    @cached_property
    def is_tunnelled(self) -> bool:
        """Whether it is VXLAN and the pair is inside, on whatever port; or a later fragment of an envelope."""
        outer = self.outer
        return self.packet.inner is not None or (
            outer is not None and outer.fragment_offset > 0 and self.is_between_uplinks
        )

    @cached_property
    def levels(self) -> tuple[Packet, ...]:
        """The frame, and the frames inside it."""
        levels = [self.packet]
        while levels[-1].inner is not None:
            levels.append(levels[-1].inner)
        return tuple(levels)

    @property
    def outer(self) -> IPv4 | None:
        return self.packet.ipv4

    @cached_property
    def echo(self) -> str:
        """`request`, `reply`, or empty if the innermost packet is no echo of the probe."""
        icmp = self.packet.innermost.icmp
        if icmp is None or not self.is_marked:
            return ""
        return _echo_word(icmp)

    @cached_property
    def number(self) -> tuple[int, int]:
        icmp = self.packet.innermost.icmp
        assert icmp is not None, "asked of echoes only"
        return icmp.identifier or 0, icmp.sequence or 0

    @cached_property
    def is_between_uplinks(self) -> bool:
        ends = {self.facts.uplinks.get(pod.node) for pod in (self.facts.sender, self.facts.target)}
        return self.outer is not None and {self.outer.source, self.outer.destination} == ends

    @cached_property
    def pairs_addresses(self) -> bool:
        wanted = {self.facts.sender.address, self.facts.target.address}
        return any(p.ipv4 is not None and {p.ipv4.source, p.ipv4.destination} == wanted for p in self.levels)

    @cached_property
    def pairs_macs(self) -> bool:
        wanted = {self.facts.sender.mac.lower(), self.facts.target.mac.lower()}
        found = (p.ethernet for p in self.levels)
        return any(e is not None and {e.source, e.destination} == wanted for e in found)

    @cached_property
    def pairs_arp(self) -> bool:
        wanted = {self.facts.sender.address, self.facts.target.address}
        return any(p.arp is not None and {p.arp.sender_address, p.arp.target_address} == wanted for p in self.levels)

    @cached_property
    def is_pair(self) -> bool:
        return self.pairs_addresses or self.pairs_macs or self.pairs_arp

    @cached_property
    def is_one_only(self) -> bool:
        """Whether it has to do with one of the pods, but not with the probe."""
        macs = {self.facts.sender.mac.lower(), self.facts.target.mac.lower()}
        pods = {self.facts.sender.address, self.facts.target.address}
        if self.is_marked or self.is_pair:
            return False
        return any(
            (p.ethernet is not None and {p.ethernet.source, p.ethernet.destination} & macs)
            or (p.ipv4 is not None and {p.ipv4.source, p.ipv4.destination} & pods)
            for p in self.levels
        )

    @property
    def what(self) -> str:
        """Its innermost kind, for notes."""
        inner = self.packet.innermost
        if inner.arp is not None:
            return "ARP"
        return inner.icmp.kind if inner.icmp is not None else "other packets"

    def outer_addresses(self) -> str:
        return _between(self.outer)

    def outer_port(self) -> str:
        return "no UDP" if self.packet.udp is None else str(self.packet.udp.destination_port)

    def vni(self) -> str:
        return "no VXLAN" if self.packet.vxlan is None else str(self.packet.vxlan.vni)

    def inner_addresses(self) -> str:
        return _between(self.packet.innermost.ipv4)

    def inner_macs(self) -> str:
        ethernet = self.packet.innermost.ethernet
        return "no Ethernet" if ethernet is None else f"{ethernet.source} > {ethernet.destination}"

    def overhead(self) -> str:
        """What the frame has beyond what the pod sent: the inner IP packet and its Ethernet header."""
        inner = self.packet.innermost.ipv4
        if inner is None:
            return "no inner IPv4"
        # Not from the outer UDP length, which grows with whatever was put in: from what the pod's own header says.
        return f"{self.frame.wire_bytes - vxlan.ETHERNET_BYTES - inner.total_length} bytes"


_Said = Callable[[_Sighting], str]


def _read(frame: CapturedFrame, facts: WireFacts, *, marked: bool) -> Packet:
    """Take the frame apart with the network's port; a marked one also where VXLAN is on a wrong port."""
    packet = frame.packet if facts.port == vxlan.UDP_PORT else _dissect(frame, facts.port)
    udp = packet.udp
    if packet.inner is not None or udp is None or not marked:
        return packet
    other = _dissect(frame, udp.destination_port)
    return packet if other.inner is None or other.innermost.ipv4 is None else other


def _dissect(frame: CapturedFrame, port: int) -> Packet:
    return dissect(frame.data, wire_bytes=frame.wire_bytes, vxlan_ports=frozenset({port}))


def _echo_word(icmp: Icmp) -> str:
    if icmp.is_request:
        return "request"
    return "reply" if icmp.is_reply else ""


def _between(ip: IPv4 | None) -> str:
    return "no IPv4" if ip is None else f"{ip.source} > {ip.destination}"


def _tally(counts: Mapping[str, int], of: int | None = None) -> str:
    parts = [f"{n}x {text}" for text, n in sorted(counts.items())]
    text = ", ".join(parts[:_NAMED_MAX]) + (f" and {len(parts) - _NAMED_MAX} more" if len(parts) > _NAMED_MAX else "")
    return text if of is None else f"{text} (in {sum(counts.values())} of {of} frames)"


def _places(found: "Iterable[_Sighting]") -> str:
    counts = Counter(s.frame.place for s in found)
    return f": {_tally(counts)}" if counts else ""
