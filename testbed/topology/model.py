"""What a topology file may say of a lab: the types, their limits and their descriptions; of its scenarios: steps.py.

The JSON schema that is published as ``topologies/schema.json`` is made from these types (``schema.py``), the loader
(``load.py``) checks files against that schema and then against the rules that a schema cannot state (``rules.py``).
This module decides nothing else: it reads no file and chooses no address (``underlay.py`` does).

Every type is frozen and refuses unknown keys. Docstrings and descriptions below are what a person's editor shows.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from testbed.topology.names import NAME_PATTERN
from testbed.topology.steps import Scenario

SEGMENT_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$"
"""Segments: 12 characters, so that the bridge ``br-<segment>`` still fits in 15."""

IPV4_PATTERN: Final = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"
RATE_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,3})?(kbit|mbit|gbit)$"
CIDR_PATTERN: Final = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"

VXLAN_OVERHEAD_BYTES: Final = 50
"""Outer IPv4 (20) + UDP (8) + VXLAN (8) + inner Ethernet (14): what the overlay takes from the underlay's MTU."""

_UNDERLAY_MTU_MIN: Final = 576 + VXLAN_OVERHEAD_BYTES
"""IPv4 lets every host expect to receive 576 bytes (RFC 791); a pod's MTU below that is no longer a working network."""

_UNDERLAY_MTU_MAX: Final = 65535
"""The largest IPv4 packet, and the largest MTU of a veth device and of a bridge."""

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="1-15 of a-z, 0-9 and '-', starting with a letter")]
SegmentName = Annotated[
    str, Meta(pattern=SEGMENT_PATTERN, description="1-12 of a-z, 0-9 and '-', starting with a letter")
]

Password = Annotated[str, Meta(max_length=1024, pattern=r"^[^\r\n]*$")]


class Network(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The pod network: one flat range of addresses over all nodes."""

    range: Annotated[
        str,
        Meta(
            pattern=CIDR_PATTERN,
            description="Addresses of pods and of the nodes' switches; one is needed for each of both.",
            examples=["10.32.0.0/12"],
        ),
    ] = "10.32.0.0/12"
    vni: Annotated[int, Meta(ge=1, le=2**24 - 1, description="The VXLAN network identifier of the overlay.")] = 1


class Segment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One subnet of the underlay: a switch that nodes, routers and the outside host are plugged into."""

    subnet: Annotated[
        str,
        Meta(
            pattern=CIDR_PATTERN,
            description="Its addresses. Subnets, the pod range and the outside address do not overlap.",
            examples=["192.168.56.0/24"],
        ),
    ]


class Router(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A machine with one interface in each of its segments, which forwards between them."""

    segments: Annotated[list[str], Meta(min_length=2, description="The segments it joins, two or more.")]


class Outside(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A host beyond the cluster. It has no route to the pod range, so it answers masqueraded traffic only."""

    segment: Annotated[str | None, Meta(description="The segment it is plugged into; the first one when left out.")] = (
        None
    )
    address: Annotated[
        str,
        Meta(pattern=IPV4_PATTERN, description="The address it is known by, beyond every segment and the pod range."),
    ] = "198.51.100.1"


def _one_segment() -> dict[str, Segment]:
    return {"lan": Segment(subnet="192.168.56.0/24")}


class Underlay(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network between the nodes: one segment, or several joined by routers."""

    mtu: Annotated[
        int,
        Meta(
            ge=_UNDERLAY_MTU_MIN,
            le=_UNDERLAY_MTU_MAX,
            description="MTU of every interface between the nodes. VXLAN takes "
            f"{VXLAN_OVERHEAD_BYTES} bytes: pods get the rest.",
        ),
    ] = 1500
    segments: Annotated[
        dict[SegmentName, Segment],
        Meta(min_length=1, description="The subnets; left out: one, `lan`, 192.168.56.0/24."),
    ] = msgspec.field(default_factory=_one_segment)
    routers: Annotated[dict[Name, Router], Meta(description="What joins the segments.")] = msgspec.field(
        default_factory=dict
    )
    outside: Annotated[Outside, Meta(description="The host beyond the cluster.")] = Outside()


class NodeSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One emulated host of the cluster, with its own agent."""

    segment: Annotated[
        str | None, Meta(description="The segment its uplink is plugged into; the first one when left out.")
    ] = None
    address: Annotated[
        str | None,
        Meta(
            description="Its uplink's address, in the segment; chosen (.11, .12, ...) when left out.",
            examples=["192.168.56.11"],
        ),
    ] = None


class AgentSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How every node's agent behaves."""

    repair: Annotated[
        bool,
        Meta(description="Whether it mends what somebody else breaks on its node; false: damage stays, and is shown."),
    ] = True


Port = Annotated[int, Meta(ge=1, le=65535)]
HostAddress = Annotated[str, Meta(pattern=IPV4_PATTERN)]


class PortSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A port of the node that leads to the pod: the hostPort of Kubernetes."""

    host: Annotated[Port, Meta(description="The port on the node.")]
    container: Annotated[Port, Meta(description="The port in the pod.")]
    protocol: Annotated[Literal["tcp", "udp", "sctp"], Meta(description="Which kind of port.")] = "tcp"
    host_ip: Annotated[
        HostAddress | None,
        Meta(description="The node's address at which it is reached, such as 127.0.0.1; left out: all of them."),
    ] = None


Rate = Annotated[str, Meta(pattern=RATE_PATTERN, examples=["10mbit"])]


class BandwidthSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How fast a pod may be: the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth of Kubernetes."""

    ingress: Annotated[Rate | None, Meta(description="What it may receive; no limit when left out.")] = None
    egress: Annotated[Rate | None, Meta(description="What it may send; no limit when left out.")] = None


class PodSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pod: a network namespace attached to the overlay through CNI."""

    node: Annotated[
        str, Meta(description="The node it runs on; at most 1022 pods a node, the ports of a Linux bridge.")
    ]
    ports: Annotated[
        list[PortSpec], Meta(description="Ports of its node that lead to it: `hostPort` in Kubernetes.")
    ] = msgspec.field(default_factory=list)
    bandwidth: Annotated[BandwidthSpec, Meta(description="How fast it may be; no limits when left out.")] = (
        BandwidthSpec()
    )


KubeletKind = Literal["emulated", "containerd"]
KUBELET_KINDS: Final[tuple[KubeletKind, ...]] = ("emulated", "containerd")


class Topology(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One lab: nodes, pods, the network between them, and the scenarios that prove it."""

    name: Annotated[Name, Meta(description="The lab's name, unless `--name` gives another.")]
    description: Annotated[str, Meta(description="One sentence: what the topology shows.")] = ""
    kubelet: Annotated[
        KubeletKind,
        Meta(
            description="Who makes pods: `emulated`, weavelab itself, as a runtime would; `containerd`, a real one on "
            "each node, driven over CRI. `--kubelet` of `up` and `run` gives another."
        ),
    ] = "emulated"
    password: Annotated[
        Password | None,
        Meta(
            description="What the agents' messages are sealed with. Left out: 32 random bytes, new for each lab and "
            'kept in its folder; empty (`""`): none, and any program that reaches port 6783 can become a member.',
        ),
    ] = None
    network: Annotated[Network, Meta(description="The pod network.")] = Network()
    underlay: Annotated[Underlay, Meta(description="The network between the nodes.")] = msgspec.field(
        default_factory=Underlay
    )
    nodes: Annotated[dict[Name, NodeSpec], Meta(min_length=1, description="The nodes, one or more.")]
    agent: Annotated[AgentSpec, Meta(description="How every node's agent behaves.")] = AgentSpec()
    pods: Annotated[dict[Name, PodSpec], Meta(description="The pods.")] = msgspec.field(default_factory=dict)
    scenarios: Annotated[list[Scenario], Meta(description="The scenarios, in the order they run.")] = msgspec.field(
        default_factory=list
    )

    def pods_on(self, node: str) -> tuple[str, ...]:
        """The pods of one node, in the order of the file."""
        return tuple(name for name, pod in self.pods.items() if pod.node == node)

    def segment_of(self, node: str) -> str:
        """The segment a node's uplink is plugged into."""
        return self.nodes[node].segment or next(iter(self.underlay.segments))

    @property
    def outside_segment(self) -> str:
        """The segment the outside host is plugged into."""
        return self.underlay.outside.segment or next(iter(self.underlay.segments))

    @property
    def overlay_mtu(self) -> int:
        """The MTU of pods, of the switches and of the VXLAN devices, in bytes."""
        return self.underlay.mtu - VXLAN_OVERHEAD_BYTES
