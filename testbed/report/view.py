"""The running lab as reports draw it: a `LabView` from a `Lab`."""

from testbed.lab.running import Lab, LabNode
from testbed.scenario.results import LabView, NodeView, PodView, RouterView, SegmentView


def view_of(lab: Lab) -> LabView:
    """Members, addresses and who is plugged into what."""
    topology = lab.topology
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
        nodes=tuple(_node(lab, node) for node in lab.nodes.values()),
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
