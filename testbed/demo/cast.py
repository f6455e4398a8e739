"""Who plays in the demo, and the two experiments: a pod created in a running lab, a ping watched on every uplink.

Nothing here prints: `testbed.demo.steps` shows what comes out.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from plugin.core.errors import InputError
from testbed.lab.cni_call import CniCall
from testbed.lab.running import Lab, LabPod
from testbed.life import pods
from testbed.probes.capture import Capture, CapturedFrame, Direction, Tap, capture
from testbed.probes.sighting import PodFacts, WireFacts
from testbed.probes.wire import WirePath, WireVerdict, judge_wire
from testbed.topology.model import Topology
from testbed.topology.underlay import UnderlayPlan, plan_underlay

_NEW_PODS: Final = ("yellow", "violet", "orange", "newcomer")
"""Names for the pod that is created during the demo; the first that the topology does not have."""

MARKERS: Final[Mapping[WirePath, bytes]] = {"same-node": b"demo: same node!", "cross-node": b"demo: cross node"}
"""What the pings carry: 16 bytes, readable in a hex dump."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The roles, by name: `sender` on `node` pings `new` (created in the demo, on `node`), then `far` on `far_node`.

    `routers` of the underlay are on the way to `far_node`, in their order.
    """

    sender: str
    node: str
    new: str
    far: str
    far_node: str
    routers: tuple[str, ...] = ()


def choose_cast(topology: Topology) -> Cast:
    """Give out the roles.

    Raises:
        InputError: The topology has no pods on two nodes, or a real runtime makes them.
    """
    if topology.kubelet != "emulated":
        raise InputError(
            f"the demo shows what a runtime executes for a pod, and the {topology.kubelet} of topology {topology.name} "
            "does that unseen",
            hint="take one with `kubelet: emulated`, such as topologies/two-nodes.yaml, the default",
        )
    pods = list(topology.pods.items())
    others = [(name, pod.node) for name, pod in pods if pod.node != pods[0][1].node]
    if not others:
        raise InputError(
            f"the demo wanted pods on two nodes, found {len(pods)} pod{'' if len(pods) == 1 else 's'} in topology "
            f"{topology.name}" + (f", on {pods[0][1].node} only" if pods else ""),
            hint="take one such as topologies/two-nodes.yaml, the default",
        )
    taken = {*topology.pods, *topology.nodes, *topology.underlay.routers}
    new = next(name for name in (*_NEW_PODS, *(f"new-{number}" for number in range(1, 1000))) if name not in taken)
    sender, node = pods[0][0], pods[0][1].node
    plan = plan_underlay(topology)
    (far, far_node), routers = max(
        ((other, routers_between(plan, node, other[1])) for other in others), key=lambda found: bool(found[1])
    )
    return Cast(sender=sender, node=node, new=new, far=far, far_node=far_node, routers=routers)


def routers_between(plan: UnderlayPlan, node: str, far_node: str) -> tuple[str, ...]:
    """The routers that a packet from one node's uplink to another's passes, as the routes of the plan have it."""
    target = plan.host(far_node).uplink.address.ip
    owners = {each.address.ip: host.name for host in plan.hosts for each in host.attachments}
    found: list[str] = []
    here = plan.host(node)
    while not any(target in each.address.network for each in here.attachments):
        ways = [route for route in here.routes if target in route.destination]
        if not ways:
            break  # nothing leads there: the demo's ping will say so
        best = max(ways, key=lambda route: route.destination.prefixlen)
        here = plan.host(owners[best.gateway])
        if here.name in found:
            break
        found.append(here.name)
    return tuple(found)


def add_pod(lab: Lab, node: str, pod: str) -> Lab:
    """Create a pod in a running lab, as `weavelab pod add` does; the lab with it."""
    return pods.add(lab, pod, node).lab


def result_of(call: CniCall) -> dict[str, Any]:
    """The result that a CNI call printed."""
    result: dict[str, Any] = json.loads(call.stdout)
    return result


@dataclass(frozen=True, slots=True)
class WatchedPing:
    """A ping and what passed on all uplinks meanwhile.

    Attributes:
        verdict: What the frames prove.
        uplinks: How many frames passed on each node's uplink, and how many of them were the ping's.
        pods: The same at the two pods' own interfaces.
        inside: The ping's frames there.
        routed: The ping's frames at the routers on the way, by the time they passed.
    """

    verdict: WireVerdict
    uplinks: Mapping[str, tuple[int, int]]
    pods: Mapping[str, tuple[int, int]]
    inside: tuple[CapturedFrame, ...]
    routed: tuple[CapturedFrame, ...] = ()


def watch_ping(
    lab: Lab, sender: LabPod, target: LabPod, path: WirePath, *, count: int, ping: Callable[[], int]
) -> WatchedPing:
    """Capture on every node's uplink and at both pods while `ping` runs, and judge.

    Args:
        lab: The lab.
        sender: Who pings.
        target: Whom.
        path: The way the packets should take; its marker is what the ping carries.
        count: How many requests are sent.
        ping: Does it; returns how many were answered.
    """
    marker = MARKERS[path]
    uplinks = [Tap(node.space, node.uplink_ifname, name) for name, node in lab.nodes.items()]
    ends = [Tap(pod.space, pod.ifname, pod.name) for pod in (sender, target)]
    routers = routers_between(lab.underlay, sender.node, target.node) if path == "cross-node" else ()
    between = [
        Tap(lab.space(name), each.ifname, name) for name in routers for each in lab.underlay.host(name).attachments
    ]
    with capture(ends) as pods, capture(uplinks) as wire, capture(between) as middle:
        answered = ping()
        for session in (wire, pods, middle):
            session.drain(marker=marker)
    facts = WireFacts(
        sender=_facts(sender),
        target=_facts(target),
        uplinks={name: node.uplink_address for name, node in lab.nodes.items()},
        watched=wire.taps,
        marker=marker,
        count=count,
        answered=answered,
        frames_lost=wire.lost,
        vni=lab.topology.network.vni,
    )
    return WatchedPing(
        verdict=judge_wire(wire.frames, facts, path),
        uplinks=_count(wire, marker),
        pods=_count(pods, marker),
        inside=tuple(frame for frame in pods.frames if marker in frame.data),
        routed=tuple(sorted((frame for frame in middle.frames if marker in frame.data), key=lambda f: f.time_ns)),
    )


def _count(session: Capture, marker: bytes) -> dict[str, tuple[int, int]]:
    """By tap: all frames, and those with the marker."""
    frames = session.frames
    return {
        tap: (
            sum(frame.tap == tap for frame in frames),
            sum(frame.tap == tap and marker in frame.data for frame in frames),
        )
        for tap in session.taps
    }


def find(frames: tuple[CapturedFrame, ...], tap: str, direction: Direction, *, request: bool) -> CapturedFrame | None:
    """The first echo (request or reply) that passed `tap` in that direction."""
    for frame in frames:
        icmp = frame.packet.innermost.icmp
        wanted = icmp is not None and (icmp.is_request if request else icmp.is_reply)
        if wanted and (frame.tap, frame.direction) == (tap, direction):
            return frame
    return None


def _facts(pod: LabPod) -> PodFacts:
    return PodFacts(name=pod.name, address=pod.address, mac=pod.mac, node=pod.node)
