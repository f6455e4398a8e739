"""What a scenario may say: its steps, their kinds, their limits and descriptions. Part of the types of model.py.

A new kind of step is a type here, a name in ``KINDS``, and a file in testbed/scenario/steps.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from testbed.topology.names import ALL_NODES, ALL_PODS, OUTSIDE, OWN_NODE

SCENARIO_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
_IPERF_SECONDS_MAX: Final = 60
_DEADLINE_S_MAX: Final = 600
CHAOS_SECONDS_MAX: Final = 36_000
CHAOS_SEED_MAX: Final = 2**32 - 1
_CHAOS_PODS_MAX: Final = 100

Count = Annotated[int, Meta(ge=1, le=100, description="How many requests are sent, for each pair.")]
Positive = Annotated[float, Meta(gt=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Ratio = Annotated[float, Meta(gt=0, le=1.5)]


class Ping(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Echo requests from every `from` to every `to`; each pair has to hold."""

    from_: Annotated[
        str | list[str],
        Meta(description=f"Who sends: a pod, a node, `{OUTSIDE}`, `{ALL_PODS}`, `{ALL_NODES}`, or a list of these."),
    ] = msgspec.field(name="from")
    to: Annotated[
        str | list[str],
        Meta(
            description=f"Who answers: a pod, a node, `{OUTSIDE}`, `{ALL_PODS}`, `{ALL_NODES}`, `{OWN_NODE}` "
            "(the switch of the sending pod's node, at its address), or a list of these. A node is pinged at its "
            "uplink's address."
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

    from_: Annotated[str, Meta(description=f"Who sends: a pod, a node or `{OUTSIDE}`.")] = msgspec.field(name="from")
    to: Annotated[str, Meta(description=f"Who receives: a pod, a node or `{OUTSIDE}`.")]
    protocol: Annotated[Literal["tcp", "udp"], Meta(description="What is sent.")] = "tcp"
    seconds: Annotated[
        int, Meta(ge=1, le=_IPERF_SECONDS_MAX, description="How long it sends; does not count against `within_s`.")
    ] = 1
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
        Positive | None,
        Meta(
            description="The received rate that is still accepted, in Mbit/s, for pods with a limit; any when left out."
        ),
    ] = None
    max_loss: Annotated[
        Percent | None, Meta(description="UDP only: the loss that is still accepted, in percent; any when left out.")
    ] = None


class Wire(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Captures on every node's uplink while one pod pings another, and proves which way the packets took."""

    from_: Annotated[str, Meta(description="Who sends: a pod.")] = msgspec.field(name="from")
    to: Annotated[str, Meta(description="Who answers: another pod.")]
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
        Meta(description=f"Where: a pod, node, router, `{OUTSIDE}`, `{ALL_PODS}`, `{ALL_NODES}`, or a list of these."),
    ]
    command: Annotated[
        str | list[str],
        Meta(
            description="A shell command line, or a list: a program and its arguments, without a shell. "
            "`{green.address}`, `{node1.switch}`, `{self.name}` and the like are filled in, here and in what the "
            "output should have.",
        ),
    ]
    exit_code: Annotated[int, Meta(ge=0, le=255, description="The exit code it should have.")] = 0
    stdout_contains: Annotated[str | None, Meta(description="Text that its output should contain.")] = None
    stdout_matches: Annotated[
        str | None,
        Meta(description="Regular expression (Python, `^` and `$` at lines) that should be found in its output."),
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


class Healthy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The agents of these nodes are ready, see each other, and know of nothing that is wrong."""

    on: Annotated[
        str | list[str], Meta(description=f"Whose agents are asked: a node, `{ALL_NODES}`, or a list of nodes.")
    ] = ALL_NODES


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
    pods: Annotated[
        int,
        Meta(
            ge=1,
            le=_CHAOS_PODS_MAX,
            description="Pods beside the lab's own that come and go; the pod range needs room for them.",
        ),
    ] = 6
    faults: Annotated[
        list[FaultKind],
        Meta(min_length=1, description="The faults that may happen; all of them when left out."),
    ] = msgspec.field(default_factory=lambda: list(FAULT_KINDS))


Kind = Literal["ping", "iperf", "wire", "exec", "pod", "healthy", "chaos"]
KINDS: Final[tuple[Kind, ...]] = ("ping", "iperf", "wire", "exec", "pod", "healthy", "chaos")
Action = Ping | Iperf | Wire | Exec | Pod | Healthy | Chaos


class Step(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One expectation. Exactly one of `ping`, `iperf`, `wire`, `exec`, `pod`, `healthy`, `chaos` says of which kind."""

    name: Annotated[str, Meta(max_length=120, description="What it shows; made from its keys when left out.")] = ""
    within_s: Annotated[
        float,
        Meta(
            gt=0,
            le=_DEADLINE_S_MAX,
            description="The deadline in seconds. What may become true a little later (a ping) is retried until then. "
            "What an iperf step measures and the faults of a chaos step come on top.",
        ),
    ] = 10
    ping: Ping | None = None
    iperf: Iperf | None = None
    wire: Wire | None = None
    exec: Exec | None = None
    pod: Pod | None = None
    healthy: Healthy | None = None
    chaos: Chaos | None = None

    @property
    def kind(self) -> Kind:
        """Which kind of step this is."""
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


def _title(action: Action) -> str:  # noqa: PLR0911 - a line a kind
    match action:
        case Exec(on=on, command=command):
            return f"exec on {_words(on)}: {command if isinstance(command, str) else ' '.join(command)}"
        case Iperf(protocol=protocol) as iperf:
            return f"iperf {protocol} {iperf.from_} -> {iperf.to}"
        case Wire(path=path) as wire:
            return f"wire {wire.from_} -> {wire.to} ({path})"
        case Pod(on=pod, do=do):
            return f"{do} pod {pod}"
        case Healthy(on=on):
            return f"healthy: {_words(on)}"
        case Chaos(seconds=seconds, seed=seed):
            return f"chaos for {seconds} s, seed {seed}"
        case Ping() as ping:
            return f"ping {_words(ping.from_)} -> {_words(ping.to)}"


Tag = Annotated[str, Meta(pattern=SCENARIO_PATTERN, description="1-40 of a-z, 0-9 and '-', starting with a letter.")]


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Named steps, run in order."""

    name: Annotated[
        str, Meta(pattern=SCENARIO_PATTERN, description="Its name on the command line: `weavelab run NAME`.")
    ]
    description: Annotated[str, Meta(description="One sentence: what it shows.")] = ""
    tags: Annotated[list[Tag], Meta(description="Words that choose it among others: `weavelab run --tag WORD`.")] = (
        msgspec.field(default_factory=list)
    )
    steps: Annotated[list[Step], Meta(min_length=1, description="The steps, in order.")]


def _words(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)
