"""What a topology file may say: the types, their limits and their descriptions, in one place.

The JSON schema that is published as ``topologies/schema.json`` is made from these types
(``python -m testbed.topology.model`` prints it), the loader (``load.py``) checks files against that schema and then
against the rules that a schema cannot state. This module decides nothing else: it reads no file and chooses no address
(``underlay.py`` does).

Every type is frozen and refuses unknown keys. Docstrings and descriptions below are what a person's editor shows.
"""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

NAME_LENGTH_MAX: Final = 15
NAME_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$"
"""Labs, nodes, pods, routers: they become host names and interface names, which Linux limits to 15 characters."""

SEGMENT_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,10}[a-z0-9])?$"
"""Segments: 12 characters, so that the bridge ``br-<segment>`` still fits in 15."""

SCENARIO_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"

IPV4_PATTERN: Final = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"
RATE_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,3})?(kbit|mbit|gbit)$"
CIDR_PATTERN: Final = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"

OUTSIDE: Final = "outside"
ALL_PODS: Final = "all-pods"
ALL_NODES: Final = "all-nodes"
OWN_NODE: Final = "own-node"
RESERVED_NAMES: Final = frozenset({"underlay", OUTSIDE, "all", "host", ALL_PODS, ALL_NODES, OWN_NODE})
"""Names that nothing in a file may bear: commands and steps give them a meaning of their own."""

VXLAN_OVERHEAD_BYTES: Final = 50
"""Outer IPv4 (20) + UDP (8) + VXLAN (8) + inner Ethernet (14): what the overlay takes from the underlay's MTU."""

UNDERLAY_MTU_MIN: Final = 576 + VXLAN_OVERHEAD_BYTES
"""IPv4 lets every host expect to receive 576 bytes (RFC 791); a pod's MTU below that is no longer a working network."""

UNDERLAY_MTU_MAX: Final = 65535
"""The largest IPv4 packet, and the largest MTU of a veth device and of a bridge."""

IPERF_SECONDS_MAX: Final = 60
DEADLINE_S_MAX: Final = 600
CHAOS_SECONDS_MAX: Final = 36_000
CHAOS_SEED_MAX: Final = 2**32 - 1
CHAOS_PODS_MAX: Final = 100

# ------------------------------------------------------------------------------------------------ network and underlay

Name = Annotated[str, Meta(pattern=NAME_PATTERN, description="1-15 of a-z, 0-9 and '-', starting with a letter")]
SegmentName = Annotated[
    str, Meta(pattern=SEGMENT_PATTERN, description="1-12 of a-z, 0-9 and '-', starting with a letter")
]


class Network(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The pod network: one flat range of addresses over all nodes."""

    range: Annotated[
        str,
        Meta(
            pattern=CIDR_PATTERN,
            description="The range pods and the nodes' bridges get addresses from (IPv4, CIDR).",
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
            description="Its addresses (IPv4, CIDR).",
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
            ge=UNDERLAY_MTU_MIN,
            le=UNDERLAY_MTU_MAX,
            description=f"MTU of every interface of the underlay; pods get {VXLAN_OVERHEAD_BYTES} bytes less.",
        ),
    ] = 1500
    segments: Annotated[
        dict[SegmentName, Segment],
        Meta(min_length=1, description="The subnets by name; left out: one, `lan`, 192.168.56.0/24."),
    ] = msgspec.field(default_factory=_one_segment)
    routers: Annotated[dict[Name, Router], Meta(description="The routers by name.")] = msgspec.field(
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
        Meta(description="Its uplink's address; chosen (.11, .12, ...) when left out.", examples=["192.168.56.11"]),
    ] = None


Port = Annotated[int, Meta(ge=1, le=65535)]
HostAddress = Annotated[str, Meta(pattern=IPV4_PATTERN)]


class PortSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A port of the node that leads to the pod: the hostPort of Kubernetes."""

    host: Annotated[Port, Meta(description="The port on the node.")]
    container: Annotated[Port, Meta(description="The port in the pod.")]
    protocol: Annotated[Literal["tcp", "udp", "sctp"], Meta(description="Which kind of port.")] = "tcp"
    host_ip: Annotated[
        HostAddress | None,
        Meta(description="The address of the node at which it is reached; at all of them when left out."),
    ] = None


Rate = Annotated[str, Meta(pattern=RATE_PATTERN, examples=["10mbit"])]


class BandwidthSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How fast a pod may be: the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth of Kubernetes."""

    ingress: Annotated[Rate | None, Meta(description="What it may receive; no limit when left out.")] = None
    egress: Annotated[Rate | None, Meta(description="What it may send; no limit when left out.")] = None


class PodSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pod: a network namespace attached to the overlay through CNI."""

    node: Annotated[str, Meta(description="The node it runs on.")]
    ports: Annotated[
        list[PortSpec], Meta(description="Ports of its node that lead to it (the CNI capability portMappings).")
    ] = msgspec.field(default_factory=list)
    bandwidth: Annotated[BandwidthSpec, Meta(description="Its limits (the CNI capability bandwidth).")] = (
        BandwidthSpec()
    )


# ------------------------------------------------------------------------------------------------------ scenario steps

Target = Annotated[str, Meta(description=f"A pod, a node or `{OUTSIDE}`.")]
Targets = Annotated[
    str | list[str],
    Meta(description=f"A pod, a node, `{OUTSIDE}`, `{ALL_PODS}`, `{ALL_NODES}`, or a list of these."),
]
Count = Annotated[int, Meta(ge=1, le=100, description="How many probes are sent.")]
Positive = Annotated[float, Meta(gt=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Ratio = Annotated[float, Meta(gt=0, le=1.5)]


class Ping(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Echo requests from every `from` to every `to`; each pair has to hold."""

    from_: Targets = msgspec.field(name="from")
    to: Annotated[
        str | list[str],
        Meta(
            description=f"A pod, a node, `{OUTSIDE}`, `{ALL_PODS}`, `{ALL_NODES}`, `{OWN_NODE}` (the switch of the "
            "sending pod's node, at its address), or a list of these. A node is pinged at its uplink's address."
        ),
    ]
    count: Count = 3
    size: Annotated[
        int,
        Meta(ge=0, le=65507, description="Bytes of payload; the packet is 28 bytes larger (IPv4 and ICMP headers)."),
    ] = 56
    df: Annotated[bool, Meta(description="Set Don't Fragment: the packet arrives whole or not at all.")] = False
    loss: Annotated[float, Meta(ge=0, le=100, description="The loss that is still accepted, in percent.")] = 0
    max_rtt_ms: Annotated[
        Positive | None,
        Meta(description="The average round trip that is still accepted, in ms; no limit when left out."),
    ] = None
    expect_source: Annotated[
        bool,
        Meta(description="Also capture at the target: the request has to arrive from the pod's own address (no NAT)."),
    ] = False


class Iperf(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One iperf3 run, reported with its ratio to the underlay measured in the same run."""

    from_: Target = msgspec.field(name="from")
    to: Target
    protocol: Annotated[Literal["tcp", "udp"], Meta(description="What is sent.")] = "tcp"
    seconds: Annotated[int, Meta(ge=1, le=IPERF_SECONDS_MAX, description="How long it sends.")] = 1
    streams: Annotated[int, Meta(ge=1, le=32, description="Parallel streams.")] = 1
    rate_mbit: Annotated[
        Positive | None,
        Meta(description="UDP only: the rate that is sent, in Mbit/s; iperf3's own 1 Mbit/s when left out."),
    ] = None
    min_mbit: Annotated[
        Positive | None, Meta(description="The received rate that is required, in Mbit/s; none when left out.")
    ] = None
    min_ratio: Annotated[
        Ratio | None, Meta(description="The ratio to the underlay that is required, 0 to 1.5; none when left out.")
    ] = None
    max_mbit: Annotated[
        Positive | None, Meta(description="The received rate that is still accepted, in Mbit/s; any when left out.")
    ] = None
    max_loss: Annotated[
        Percent | None, Meta(description="UDP only: the loss that is still accepted, in percent; any when left out.")
    ] = None


class Wire(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Captures on every node's uplink while one pod pings another, and proves which way the packets took."""

    from_: Annotated[str, Meta(description="A pod.")] = msgspec.field(name="from")
    to: Annotated[str, Meta(description="Another pod.")]
    path: Annotated[
        Literal["same-node", "cross-node"],
        Meta(
            description="`same-node`: no packet leaves the node. `cross-node`: VXLAN from uplink to uplink, both ways."
        ),
    ]
    count: Count = 3


class Exec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Any command inside a pod, node, router or the outside host, with the exit code and output it should have."""

    on: Annotated[
        str | list[str],
        Meta(description=f"A pod, node, router, `{OUTSIDE}`, `{ALL_PODS}`, `{ALL_NODES}`, or a list of these."),
    ]
    command: Annotated[
        str | list[str],
        Meta(description="A shell command line, or a list: a program and its arguments, without a shell."),
    ]
    exit_code: Annotated[int, Meta(ge=0, le=255, description="The exit code it should have.")] = 0
    stdout_contains: Annotated[str | None, Meta(description="Text that its output should contain.")] = None
    stdout_matches: Annotated[
        str | None, Meta(description="Regular expression (Python) that should be found in its output.")
    ] = None


class Pod(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a kubelet does to a pod that runs, and what has to be the same afterwards."""

    on: Annotated[str, Meta(description="A pod.")]
    do: Annotated[
        Literal["restart", "recreate"],
        Meta(
            description="`restart`: a new container in the same sandbox, which keeps its address (`kubelet: "
            "containerd` only). `recreate`: the sandbox is stopped twice and removed, and the pod made anew."
        ),
    ]


FaultKind = Literal["kill-agent", "lose-disk", "cut-node", "cut-overlay", "pod-churn"]
FAULT_KINDS: Final[tuple[FaultKind, ...]] = ("kill-agent", "lose-disk", "cut-node", "cut-overlay", "pod-churn")


class Chaos(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Random faults for a while; when they are repaired, the lab has to become whole again."""

    seconds: Annotated[
        int, Meta(ge=1, le=CHAOS_SECONDS_MAX, description="How long faults happen; does not count against `within_s`.")
    ] = 20
    seed: Annotated[
        int, Meta(ge=0, le=CHAOS_SEED_MAX, description="What the faults are drawn from: the same seed, the same plan.")
    ] = 1
    pods: Annotated[int, Meta(ge=1, le=CHAOS_PODS_MAX, description="Pods beside the lab's own that come and go.")] = 6
    faults: Annotated[
        list[FaultKind],
        Meta(min_length=1, description="The faults that may happen; all of them when left out."),
    ] = msgspec.field(default_factory=lambda: list(FAULT_KINDS))


Kind = Literal["ping", "iperf", "wire", "exec", "pod", "chaos"]
KINDS: Final[tuple[Kind, ...]] = ("ping", "iperf", "wire", "exec", "pod", "chaos")


Action = Ping | Iperf | Wire | Exec | Pod | Chaos


class Step(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One expectation. Exactly one of `ping`, `iperf`, `wire`, `exec`, `pod`, `chaos` says of which kind."""

    name: Annotated[str, Meta(max_length=120, description="What it shows; made from its keys when left out.")] = ""
    within_s: Annotated[
        float,
        Meta(
            gt=0,
            le=DEADLINE_S_MAX,
            description="The deadline in seconds. What may become true a little later (a ping) is retried until then. "
            "What an iperf step measures and the faults of a chaos step come on top.",
        ),
    ] = 10
    ping: Ping | None = None
    iperf: Iperf | None = None
    wire: Wire | None = None
    exec: Exec | None = None
    pod: Pod | None = None
    chaos: Chaos | None = None

    @property
    def kind(self) -> Kind:
        """Which of the six kinds this step is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def action(self) -> Action:
        """The one kind that is set; the loader has checked that there is exactly one."""
        action: Action = getattr(self, self.kind)
        return action

    @property
    def title(self) -> str:
        """The step's name, or a sentence made from its keys, such as ``ping red -> blue``."""
        if self.name:
            return self.name
        return _title(self.action)


def _title(action: Action) -> str:
    match action:
        case Exec(on=on, command=command):
            return f"exec on {_words(on)}: {command if isinstance(command, str) else ' '.join(command)}"
        case Iperf(protocol=protocol) as iperf:
            return f"iperf {protocol} {iperf.from_} -> {iperf.to}"
        case Wire(path=path) as wire:
            return f"wire {wire.from_} -> {wire.to} ({path})"
        case Pod(on=pod, do=do):
            return f"{do} pod {pod}"
        case Chaos(seconds=seconds, seed=seed):
            return f"chaos for {seconds} s, seed {seed}"
        case Ping() as ping:
            return f"ping {_words(ping.from_)} -> {_words(ping.to)}"


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Named steps, run in order."""

    name: Annotated[
        str, Meta(pattern=SCENARIO_PATTERN, description="Its name on the command line: `weavelab run NAME`.")
    ]
    description: Annotated[str, Meta(description="One sentence: what it shows.")] = ""
    steps: Annotated[list[Step], Meta(min_length=1, description="The steps, in order.")]


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
            "each node, driven over CRI."
        ),
    ] = "emulated"
    network: Annotated[Network, Meta(description="The pod network.")] = Network()
    underlay: Annotated[Underlay, Meta(description="The network between the nodes.")] = msgspec.field(
        default_factory=Underlay
    )
    nodes: Annotated[dict[Name, NodeSpec], Meta(min_length=1, description="The nodes by name, one or more.")]
    pods: Annotated[dict[Name, PodSpec], Meta(description="The pods by name.")] = msgspec.field(default_factory=dict)
    scenarios: Annotated[list[Scenario], Meta(description="The scenarios, in order.")] = msgspec.field(
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


# ----------------------------------------------------------------------------------- what the names in a step stand for


class Pair(NamedTuple):
    """One sender and one target of a ping."""

    source: str
    target: str
    own_node: bool
    """True: the target is the source pod's node, at the address of its switch; False: at its usual address."""


def expand(topology: Topology, names: str | Iterable[str]) -> tuple[str, ...]:
    """Members of the groups in ``names`` (``all-pods``, ``all-nodes``), other names as they are, each once, in order.

    ``own-node`` depends on the sender and stays as it is; ``pairs`` resolves it.
    """
    groups = {ALL_PODS: tuple(topology.pods), ALL_NODES: tuple(topology.nodes)}
    listed = (names,) if isinstance(names, str) else tuple(names)
    return tuple(dict.fromkeys(member for name in listed for member in groups.get(name, (name,))))


def pairs(topology: Topology, ping: Ping) -> tuple[Pair, ...]:
    """Every sender with every target of a ping, without those who would ping themselves."""
    found = []
    for source in expand(topology, ping.from_):
        for target in expand(topology, ping.to):
            if target == OWN_NODE and source in topology.pods:
                found.append(Pair(source, topology.pods[source].node, own_node=True))
            elif target not in {source, OWN_NODE}:
                found.append(Pair(source, target, own_node=False))
    return tuple(found)


def _words(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)


# -------------------------------------------------------------------------------------------------------------- schema


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a topology file, made from the types above."""
    made: dict[str, Any] = _without_null(msgspec.json.schema(Topology))
    # msgspec cannot state "exactly one of these keys".
    made["$defs"]["Step"]["oneOf"] = [{"required": [kind]} for kind in KINDS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "weavelab topology",
        **made,
    }


def _without_null(part: Any) -> Any:
    """The schema without the null that stands for a key left out: the key is optional, its value is not."""
    if isinstance(part, list):
        return [_without_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    cleaned = {key: _without_null(value) for key, value in part.items() if value is not None}
    choices = cleaned.pop("anyOf", None)
    if choices is None:
        return cleaned
    choices = [choice for choice in choices if choice != {"type": "null"}]
    return {**cleaned, **choices[0]} if len(choices) == 1 else {**cleaned, "anyOf": choices}


def schema_text() -> str:
    """The text of ``topologies/schema.json``, for editors.

    It also takes ``node1:`` with nothing behind it, which the loader reads as ``node1: {}``.
    """
    published = schema()
    nodes = published["$defs"]["Topology"]["properties"]["nodes"]
    nodes["additionalProperties"] = {"anyOf": [nodes["additionalProperties"], {"type": "null"}]}
    return json.dumps(published, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
