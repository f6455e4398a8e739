"""A lab as reports draw it: a `LabView` from a running `Lab`, or from a topology that nobody has brought up."""

from collections.abc import Iterable

from testbed.lab.running import Lab, LabNode
from testbed.scenario.results import LabView, NodeView, PodView, RouterView, SegmentView
from testbed.topology.model import Topology
from testbed.topology.underlay import plan_underlay


def view_of(lab: Lab) -> LabView:
    """Members, addresses and who is plugged into what."""
    return _view(lab.topology, (_node(lab, node) for node in lab.nodes.values()))


def planned_view(topology: Topology) -> LabView:
    """What `up` would make of a topology; addresses that agents give are not known before."""
    plan = plan_underlay(topology)
    nodes = (
        NodeView(
            name=name,
            segment=topology.segment_of(name),
            uplink_address=str(plan.host(name).uplink.address.ip),
            pods=tuple(PodView(name=pod) for pod in topology.pods_on(name)),
        )
        for name in topology.nodes
    )
    return _view(topology, nodes)


def _view(topology: Topology, nodes: Iterable[NodeView]) -> LabView:
    return LabView(
        pod_range=topology.network.range,
        vni=topology.network.vni,
        underlay_mtu=topology.underlay.mtu,
        overlay_mtu=topology.overlay_mtu,
        segments=tuple(
            SegmentView(name=name, subnet=segment.subnet) for name, segment in topology.underlay.segments.items()
        ),
        routers=tuple(
            RouterView(name=name, segments=tuple(router.segments)) for name, router in topology.underlay.routers.items()
        ),
        nodes=tuple(nodes),
        outside_segment=topology.outside_segment,
        outside_address=topology.underlay.outside.address,
    )


def _node(lab: Lab, node: LabNode) -> NodeView:
    return NodeView(
        name=node.name,
        segment=lab.topology.segment_of(node.name),
        uplink_address=str(node.uplink_address),
        bridge_address=str(node.bridge_address or ""),
        pods=tuple(
            PodView(name=pod.name, address=str(pod.address)) for pod in lab.pods.values() if pod.node == node.name
        ),
    )
