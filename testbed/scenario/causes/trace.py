"""Where the packets of a failing pair end: a few more pings, each interface of their way listened to meanwhile.

A packet socket sees a frame as it comes in before any filter, and as it goes out behind every filter. So what is seen
at one place and not at the next ended between the two, whatever else passes: a marker tells our packets from others.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from testbed.machine import interrupts
from testbed.machine.space import Space
from testbed.probes import ping as probe
from testbed.probes.capture import CapturedFrame, Tap, capture
from testbed.probes.wire import PAYLOAD_BYTES_MIN, marker_of
from testbed.scenario.attempt import Run
from testbed.scenario.causes.way import Place, Way

COUNT: Final = 3
_KINDS: Final = ("request", "reply", "question", "answer")
_ARP: Final = b"\x08\x06"
_INTERVAL_S: Final = 0.1
_ICMP_BYTES: Final = 28
_WAIT_S: Final = 0.7
"""How long the pings may take: what has not arrived after this, in a lab, does not arrive."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What ended, and between which two places.

    Attributes:
        what: `request`, `reply`, `question` or `answer` (of ARP).
        before: Where it was seen last; None: it never left the sender.
        after: Where it should have come next; None: its receiver has it, and does nothing with it.
        passed: So many were seen at `after`.
        of: So many were seen at `before`.
    """

    what: str
    before: Place | None
    after: Place | None
    passed: int
    of: int

    @property
    def lost(self) -> int:
        """So many ended."""
        return self.of - self.passed

    @property
    def on(self) -> str:
        """The member within which it ended; empty when it was between two."""
        if self.before is None or self.after is None:
            one = self.before or self.after
            return "" if one is None else one.on
        return self.before.on if self.before.on == self.after.on else ""


@dataclass(frozen=True, slots=True)
class Trace:
    """What was seen of one way.

    Attributes:
        way: The way.
        counts: By `request`, `reply`, `question`, `answer`: how many different ones each watched place saw.
        places: The watched places, in order.
        said: What ping said went wrong.
        arrived_as: The source address of the requests at the last place; empty when none came there.
        asked: The addresses that the sender asked for by ARP.
    """

    way: Way
    places: tuple[Place, ...]
    counts: dict[str, tuple[int, ...]]
    said: tuple[str, ...] = ()
    arrived_as: str = ""
    asked: frozenset[str] = frozenset()

    @property
    def loss(self) -> Loss | None:
        """Where the first of them ended; None when all got through and back."""
        there = self.counts["request"]
        if there and there[0] == 0 and self.counts["question"][0]:
            return self._lost("question") or self._lost("answer") or Loss("request", None, self.places[0], 0, COUNT)
        return self._lost("request") or self._lost("reply")

    def _lost(self, what: str) -> Loss | None:
        forth = what in {"request", "question"}
        places = self.places if forth else self.places[::-1]
        counts = self.counts[what] if forth else self.counts[what][::-1]
        if not places:
            return None
        wanted = COUNT if what == "request" else 1 if what == "question" else self._arrived(what)
        if not forth and counts[0] < wanted:
            return Loss(what, places[0], None, counts[0], wanted)
        if forth and counts[0] == 0:
            return Loss(what, None, places[0], 0, wanted)
        for before, after, seen, passed in zip(places, places[1:], counts, counts[1:], strict=False):
            if passed < seen:
                return Loss(what, before, after, passed, seen)
        return None

    def _arrived(self, what: str) -> int:
        """How many answers there have to be: one to each that arrived."""
        return self.counts["request" if what == "reply" else "question"][-1]


@dataclass(slots=True)
class _Seen:
    """What one way's frames were, by the interface on which they were seen."""

    numbers: dict[str, dict[str, set[int]]] = field(default_factory=lambda: {what: {} for what in _KINDS})
    sources: dict[str, str] = field(default_factory=dict[str, str])
    asked: set[str] = field(default_factory=set[str])

    def note(self, what: str, tap: str, number: int) -> None:
        self.numbers[what].setdefault(tap, set()).add(number)


def trace(run: Run, ways: Sequence[Way], missing: Iterable[Place], *, timeout_s: float) -> list[Trace]:
    """Ping once more along these ways, all at the same time, and see how far each gets.

    Args:
        run: The run.
        ways: The ways; their senders exist.
        missing: Interfaces that are not there, and cannot be listened to.
        timeout_s: How long at most.

    Raises:
        StoppedError: The run was stopped.
        CaptureError: An interface went away just now.
    """
    absent = set(missing)
    watched = [replace(way, places=tuple(place for place in way.places if place not in absent)) for way in ways]
    taps = {_tap(place): place for way in watched for place in way.places}
    listening = [Tap(_network(run, place.on), place.ifname, name) for name, place in taps.items()]
    markers = [marker_of(f"cause {run.lab.name} {os.getpid()} {number} {run.clock()}") for number in range(len(ways))]
    with capture(listening) as session:
        said = _ping_all(run, ways, markers, timeout_s)
        for marker in markers:
            session.drain(quiet_s=0.02, within_s=0.1, marker=marker)
    frames = session.frames
    return [_traced(way, frames, marker, words) for way, marker, words in zip(watched, markers, said, strict=True)]


def _tap(place: Place) -> str:
    # A place may be inside the overlay for one way and not for another: it is one interface.
    return f"{place.on} {place.ifname}"


def _network(run: Run, name: str) -> Space:
    """A member's network alone: nothing else of it is needed, and not all have more."""
    return Space(name, net=run.lab.space(name).net)


def _ping_all(run: Run, ways: Sequence[Way], markers: Sequence[bytes], timeout_s: float) -> list[tuple[str, ...]]:
    def one(job: tuple[Way, bytes]) -> tuple[str, ...]:
        way, marker = job
        pair = way.pair
        size = max(pair.packet_bytes - _ICMP_BYTES, PAYLOAD_BYTES_MIN)
        argv = probe.ping_argv(
            pair.target.address, count=COUNT, size=size, df=pair.whole, pattern=marker, interval_s=_INTERVAL_S
        )
        done = run.processes.run(_network(run, pair.source.name), argv, timeout_s=min(timeout_s, _WAIT_S))
        return probe.parse_ping(done.stdout, done.stderr, requested=COUNT).errors

    jobs = list(zip(ways, markers, strict=True))
    if len(jobs) == 1:
        return [one(jobs[0])]
    with ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="cause") as pool:
        try:
            with interrupts.postponed():
                results = pool.map(one, jobs)
            return list(results)
        except KeyboardInterrupt:
            run.processes.stop()
            raise


def _traced(way: Way, frames: Sequence[CapturedFrame], marker: bytes, said: tuple[str, ...]) -> Trace:
    seen = _Seen()
    taps = [_tap(place) for place in way.places]
    for frame in frames:
        if frame.tap not in taps:
            continue
        if marker in frame.data:
            _note_echo(seen, frame)
        elif _ARP in frame.data:
            _note_arp(seen, frame, way)
    counts = {what: tuple(len(by_tap.get(tap, ())) for tap in taps) for what, by_tap in seen.numbers.items()}
    return Trace(way, way.places, counts, said, seen.sources.get(taps[-1], ""), frozenset(seen.asked))


def _note_echo(seen: _Seen, frame: CapturedFrame) -> None:
    inner = frame.packet.innermost
    if inner.icmp is None or not (inner.icmp.is_request or inner.icmp.is_reply):
        return
    seen.note("request" if inner.icmp.is_request else "reply", frame.tap, inner.icmp.sequence or 0)
    if inner.icmp.is_request and inner.ipv4 is not None:
        seen.sources[frame.tap] = str(inner.ipv4.source)


def _note_arp(seen: _Seen, frame: CapturedFrame, way: Way) -> None:
    """The question that has to be answered before a packet can leave: who has the target's address?"""
    arp, source, target = frame.packet.innermost.arp, way.pair.source, way.pair.target
    if arp is None:
        return
    asks = str(arp.sender_address) == source.address
    if asks and frame.tap.startswith(f"{source.name} "):
        seen.asked.add(str(arp.target_address))
    if asks and str(arp.target_address) == target.address:
        seen.note("question", frame.tap, 0)
    elif str(arp.sender_address) == target.address and str(arp.target_address) == source.address:
        seen.note("answer", frame.tap, 0)
