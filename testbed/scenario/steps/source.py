"""`expect_source`: watch at the targets while pinging, and see whose address the requests arrive from.

A reply alone does not show it: NAT on the way is undone for the answer, and only the receiver knows whom it answered.
"""

import os
from collections.abc import Sequence

import msgspec

from testbed.probes.capture import Capture, CapturedFrame, Direction, Tap
from testbed.probes.wire import PAYLOAD_BYTES_MIN, marker_of
from testbed.scenario.attempt import Run
from testbed.scenario.members import Member
from testbed.scenario.results import PingEvidence
from testbed.topology.steps import Step

Pair = tuple[Member, Member]


def judge_sources(
    items: Sequence[PingEvidence], pairs: Sequence[Pair], markers: Sequence[bytes], session: Capture
) -> list[PingEvidence]:
    """The evidence of every pair, completed by where its requests arrived from."""
    frames, lost = session.frames, session.lost
    return [
        _judge_source(item, source, _arrivals(frames, target, marker), lost=lost)
        for item, (source, target), marker in zip(items, pairs, markers, strict=True)
    ]


def taps_at(run: Run, targets: Sequence[Member]) -> list[Tap]:
    """Where requests to these targets may arrive: a pod's interface; both the uplink and the switch of a node."""
    places = {
        (target.name, ifname): Tap(run.lab.space(target.name), ifname, target.name)
        for target in targets
        for ifname in ((target.ifname,) if target.kind != "node" else ("weave", "eth0"))
    }
    return list(places.values())


def _arrivals(frames: Sequence[CapturedFrame], target: Member, marker: bytes) -> list[str]:
    """The source addresses of the probe's requests as they came in at the target, each once, in order."""
    found = []
    for frame in frames:
        packet = frame.packet
        if frame.tap != target.name or frame.direction is Direction.OUT or marker not in frame.data:
            continue
        if packet.icmp is not None and packet.icmp.is_request and packet.ipv4 is not None:
            found.append(str(packet.ipv4.source))
    return list(dict.fromkeys(found))


def _judge_source(item: PingEvidence, source: Member, arrived: list[str], *, lost: int) -> PingEvidence:
    """The evidence with the sources that were seen, and with a problem when one is not the sender's own."""
    problem = item.problem
    if item.ok and lost:
        problem = f"the capture at {item.target} lost {lost} frames, so it proves nothing"
    elif item.ok and not arrived:
        problem = f"no request was seen at {item.target}"
    elif item.ok and arrived != [source.address]:
        problem = f"arrives from {', '.join(arrived)} instead of {source.address}"
    return msgspec.structs.replace(item, ok=not problem, problem=problem, arrived_from=tuple(arrived))


def marker_for(run: Run, step: Step, pair: Pair) -> bytes:
    """Bytes that mark the requests of this pair; empty when the payload is too small to carry them."""
    assert step.ping is not None
    if step.ping.size < PAYLOAD_BYTES_MIN:
        return b""  # every request of the sender at the target counts then
    return marker_of(f"{run.lab.name} {step.title} {run.clock()} {pair[0].name} {pair[1].address} {os.getpid()}")
