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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from plugin.core.packet import vxlan
from plugin.core.packet.names import some
from testbed.probes.capture import CapturedFrame, Direction
from testbed.probes.sighting import Sighting, WireFacts

# What ping's -p takes at most. Iputils writes the time over the first 16 bytes: 32 carry the marker whole.
MARKER_BYTES: Final = 16
PAYLOAD_BYTES_MIN: Final = 16 + MARKER_BYTES

_NAMED_MAX: Final = 4  # frames that one check names; the rest is counted

WirePath = Literal["same-node", "cross-node"]


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
    sightings = [Sighting(frame, facts) for frame in frames]
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


def _judge_same_node(ours: "list[Sighting]", facts: WireFacts) -> "tuple[list[Check], list[CapturedFrame], list[str]]":
    pods = f"{facts.sender.address} and {facts.target.address}"
    checks = [
        _none("no frame of the probe on an uplink", "carry its marker", [s for s in ours if s.is_marked]),
        _none("the pods' addresses on no uplink", f"are between {pods}", [s for s in ours if s.pairs_addresses]),
        _none("the pods' MACs on no uplink", "are between their MACs", [s for s in ours if s.pairs_macs]),
        _none("no ARP of the pair on an uplink", "ask or answer for them", [s for s in ours if s.pairs_arp]),
    ]
    return checks, [s.frame for s in ours[:_NAMED_MAX]], []


def _none(name: str, what: str, found: "Sequence[Sighting]") -> Check:
    return Check(name, f"0 frames {what}", some(len(found), "frame") + _places(found), not found)


# ----------------------------------------------------------------------------------------------------------- cross node


def _judge_cross_node(ours: "list[Sighting]", facts: WireFacts) -> "tuple[list[Check], list[CapturedFrame], list[str]]":
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

    def holds(self, sighting: "Sighting") -> bool:
        frame = sighting.frame
        return (sighting.echo, frame.tap, frame.direction) == (self.echo, self.node, self.direction)


def _each_once(station: _Station, found: "list[Sighting]", union: "set[tuple[int, int]]", count: int) -> Check:
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
        ("outer addresses", both(here, there), Sighting.outer_addresses),
        ("UDP port", same(str(facts.port)), Sighting.outer_port),
        ("VNI", same(str(facts.vni)), Sighting.vni),
        ("inner addresses", both(str(sender.address), str(target.address)), Sighting.inner_addresses),
        ("inner MACs", both(sender.mac.lower(), target.mac.lower()), Sighting.inner_macs),
        ("overhead", same(f"{vxlan.OVERHEAD_BYTES} bytes"), Sighting.overhead),
    ]
    return [
        (name, right["request"] if len(set(right.values())) == 1 else f"{right['request']} and back", right, said)
        for name, right, said in rows
    ]


def _all_same(name: str, wanted: str, found: "list[Sighting]", right: Mapping[str, str], said: "_Said") -> Check:
    wrong = Counter(said(s) for s in found if said(s) != right[s.echo])
    if wrong:
        return Check(name, wanted, _tally(wrong, of=len(found)), holds=False)
    return Check(name, wanted, f"in all {some(len(found), 'frame')}" if found else "no frame to look at", bool(found))


def _choose(
    seen: "Mapping[_Station, list[Sighting]]", bare: "list[Sighting]", strangers: "list[Sighting]"
) -> list[CapturedFrame]:
    """What to show: contradictions first, then the first echo that passed all stations, or whatever did pass."""
    complete = set.intersection(*({s.number for s in found} for found in seen.values()))
    shown = [s.frame for s in [*bare[:_NAMED_MAX], *strangers[:_NAMED_MAX]]]
    for found in seen.values():
        chosen = [s for s in found if not complete or s.number == min(complete)]
        shown += [s.frame for s in chosen[:1] if s.frame not in shown]
    return shown


def _notes(
    seen: "Mapping[_Station, list[Sighting]]", overheard: "list[Sighting]", stray: "list[Sighting]"
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


_Said = Callable[[Sighting], str]


def _tally(counts: Mapping[str, int], of: int | None = None) -> str:
    parts = [f"{n}x {text}" for text, n in sorted(counts.items())]
    text = ", ".join(parts[:_NAMED_MAX]) + (f" and {len(parts) - _NAMED_MAX} more" if len(parts) > _NAMED_MAX else "")
    return text if of is None else f"{text} (in {sum(counts.values())} of {of} frames)"


def _places(found: "Iterable[Sighting]") -> str:
    counts = Counter(s.frame.place for s in found)
    return f": {_tally(counts)}" if counts else ""
