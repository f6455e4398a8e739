"""`wire` steps: capture on every node's uplink while one pod pings another, and let the frames say which way it took.

What counts as proof is decided in `testbed.probes.wire`; here it is collected and told. A leak that was seen has been
seen: only a ping that was not answered, or a capture that lost frames, is worth another try.
"""

import os
from contextlib import suppress
from typing import Final

from plugin.core.errors import InputError
from testbed.machine.files import give_back
from testbed.probes import ping as ping_probe
from testbed.probes.capture import Capture, Tap, capture
from testbed.probes.pcap import write_pcap
from testbed.probes.sighting import PodFacts, WireFacts
from testbed.probes.wire import WireVerdict, judge_wire, marker_of
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.members import concerned, exec_hint, member
from testbed.scenario.results import CaptureEvidence, CheckEvidence, PingEvidence, Place
from testbed.scenario.steps.frames import frame_evidence
from testbed.scenario.steps.ping import ping_pair
from testbed.topology.steps import Ping, Step, Wire

_FRAMES_SHOWN_MAX: Final = 8


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence."""
    wire = _action(step)
    here, there = _pod(run, wire.from_), _pod(run, wire.to)
    if wire.path == "same-node":
        return (
            f"{wire.from_} → {wire.to}: {wire.count} pings answered through the switch of {here.node}, "
            "and no frame of them on any uplink"
        )
    return (
        f"{wire.from_} → {wire.to}: {wire.count} pings answered, VXLAN (VNI {run.lab.topology.network.vni}) "
        f"from {here.node} to {there.node} and back, 50 bytes of overhead, nothing anywhere else"
    )


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:  # noqa: ARG001 - one shape for all kinds
    """Capture, ping, judge."""
    wire = _action(step)
    source, target = member(run.lab, wire.from_), member(run.lab, wire.to)
    run.captures += 1
    marker = marker_of(f"{run.lab.name} {step.title} {run.captures} {os.getpid()}")
    as_ping = Step(ping=Ping(from_=wire.from_, to=wire.to, count=wire.count), within_s=step.within_s)
    taps = [Tap(node.space, node.uplink_ifname, name) for name, node in run.lab.nodes.items()]
    with capture(taps) as session:
        pinged = ping_pair(run, source, target, as_ping, deadline_s, marker)
        session.drain(marker=marker)
    facts = WireFacts(
        sender=_pod(run, wire.from_),
        target=_pod(run, wire.to),
        uplinks={name: node.uplink_address for name, node in run.lab.nodes.items()},
        watched=session.taps,
        marker=marker,
        count=wire.count,
        answered=pinged.result.received,
        frames_lost=session.lost,
        vni=run.lab.topology.network.vni,
    )
    verdict = judge_wire(session.frames, facts, wire.path)
    began_s = min((frame.time_s for frame in session.frames), default=0.0)
    frames = [frame_evidence(frame, began_s=began_s) for frame in verdict.evidence[:_FRAMES_SHOWN_MAX]]
    return Attempt(
        ok=verdict.holds,
        seen=_seen(wire, facts, verdict, pinged),
        evidence=(pinged, _captures(run, step, session, verdict, marker), *frames),
        concerned=concerned(source, target),
        next_command=exec_hint(run.lab, source.name, "ping", "-c", "3", target.address),
        final=pinged.ok and session.lost == 0,
    )


def _pod(run: Run, name: str) -> PodFacts:
    pod = run.lab.pods.get(name)
    if pod is None:
        raise InputError(f"a wire step needs two pods, {name!r} is none", hint=f"pods: {', '.join(run.lab.pods)}")
    return PodFacts(name=name, address=pod.address, mac=pod.mac, node=pod.node)


def _captures(run: Run, step: Step, session: Capture, verdict: WireVerdict, marker: bytes) -> CaptureEvidence:
    frames = session.frames
    return CaptureEvidence(
        places=tuple(
            Place(
                node=name,
                ifname=node.uplink_ifname,
                frames=sum(frame.tap == name for frame in frames),
                probe_frames=sum(frame.tap == name and marker in frame.data for frame in frames),
            )
            for name, node in run.lab.nodes.items()
        ),
        checks=tuple(
            CheckEvidence(name=check.name, wanted=check.wanted, found=check.found, holds=check.holds)
            for check in verdict.checks
        ),
        notes=verdict.notes,
        pcap_files=_pcaps(run, step, session),
    )


def _pcaps(run: Run, step: Step, session: Capture) -> tuple[str, ...]:
    if run.pcap_dir is None:
        return ()
    wire = _action(step)
    written = []
    for name, node in run.lab.nodes.items():
        path = run.pcap_dir / f"{run.captures:02}-{wire.from_}-{wire.to}-{name}-{node.uplink_ifname}.pcap"
        write_pcap(path, [frame for frame in session.frames if frame.tap == name])
        give_back(path)
        with suppress(ValueError):
            path = path.relative_to(run.pcap_dir.parent)
        written.append(str(path))
    return tuple(written)


def _seen(wire: Wire, facts: WireFacts, verdict: WireVerdict, pinged: PingEvidence) -> str:
    if not verdict.holds:
        first = "; ".join(f"{check.name}: wanted {check.wanted}, found {check.found}" for check in verdict.failed[:3])
        more = f"; and {len(verdict.failed) - 3} more checks" if len(verdict.failed) > 3 else ""
        reason = f" ({ping_probe.describe_ping(pinged.result)})" if not pinged.ok else ""
        return f"{first}{more}{reason}"
    if wire.path == "same-node":
        count = len(facts.watched)
        where = "the one uplink" if count == 1 else f"any of {count} uplinks"
        return f"{facts.answered} of {facts.count} answered, no frame of them on {where}"
    here, there = facts.uplinks[facts.sender.node], facts.uplinks[facts.target.node]
    return (
        f"{facts.count} requests and {facts.answered} replies, each in VXLAN between {here} and {there} "
        f"(UDP {facts.port}, VNI {facts.vni}), 50 bytes longer than the pod's packet"
    )


def _action(step: Step) -> Wire:
    assert step.wire is not None
    return step.wire
