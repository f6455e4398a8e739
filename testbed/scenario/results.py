"""What a run found: the values that every report is made from, and the shape of the JSON report.

Frozen values only: nothing here measures, decides or prints. The encoding of `RunResult` *is* the JSON report
(docs/reference/report.md); a field may be added, and whoever renames or removes one raises `_SCHEMA_VERSION`.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from testbed.probes.iperf import IperfResult, Transfer
from testbed.probes.ping import PingResult

_SCHEMA_VERSION: Final = 1


REPETITION: Final = "#"
"""Parts a scenario's name from the number of the repetition; in no name that a topology gives."""


class Status(StrEnum):
    """The verdict on a step, a scenario or a run."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    """It was examined and does not hold."""
    ERROR = "error"
    """It could not be examined."""
    SKIP = "skip"
    """It was not examined: the run had ended before (Ctrl-C, --timeout, --fail-fast)."""


_GRAVITY: Final = (Status.FAIL, Status.ERROR, Status.SKIP, Status.PASS)
"""What was seen not to hold outranks what could not be examined: the second may be the first's consequence."""


def worst(statuses: Iterable[Status]) -> Status:
    """The gravest of some verdicts: `fail` as soon as one is, `error` only when nothing failed; `pass` without any."""
    found = set(statuses)
    return next((status for status in _GRAVITY if status in found), Status.PASS)


# ------------------------------------------------------------------------------------------------------------ evidence


class PingEvidence(Struct, frozen=True, kw_only=True, tag="ping"):
    """One ping of one pair.

    Attributes:
        source: The sending pod, node or `outside`.
        target: The pinged one.
        address: The address that was pinged.
        ok: Whether the step's expectation holds for this pair.
        problem: What does not hold, as a clause; empty when `ok`.
        result: The numbers.
        command: What was run, as it would be typed inside the source.
        output: What ping printed; empty for pairs beyond the first dozen that held.
        arrived_from: With `expect_source`: the addresses that the requests came from, as the target saw them.
    """

    source: str
    target: str
    address: str
    ok: bool
    problem: str = ""
    result: PingResult
    command: str
    output: str = ""
    arrived_from: tuple[str, ...] = ()


class IperfEvidence(Struct, frozen=True, kw_only=True, tag="iperf"):
    """One transfer, and the underlay beside it.

    Attributes:
        source: The sender.
        target: The receiver.
        transfer: What was measured.
        result: The numbers.
        base: The same transfer over the underlay, between `base_source` and `base_target`; None without such a path.
        ratio: `result` over `base`, or None.
        command: The client's command line.
        output: The client's JSON as iperf3 printed it.
    """

    source: str
    target: str
    transfer: Transfer
    result: IperfResult
    base: IperfResult | None = None
    base_source: str = ""
    base_target: str = ""
    ratio: float | None = None
    command: str = ""
    output: str = ""


class Place(Struct, frozen=True, kw_only=True):
    """One interface that was captured on, and how many of the probe's frames were seen there."""

    node: str
    ifname: str
    frames: int
    probe_frames: int


class CheckEvidence(Struct, frozen=True, kw_only=True):
    """One thing that was examined in the captured frames."""

    name: str
    wanted: str
    found: str
    holds: bool


class CaptureEvidence(Struct, frozen=True, kw_only=True, tag="capture"):
    """Where captures ran, and what follows from them.

    Attributes:
        places: Every interface captured on.
        checks: What was examined, in the order in which a person would ask.
        notes: What was seen besides, and is allowed.
        pcap_files: Where the frames were written (`--pcap`).
    """

    places: tuple[Place, ...]
    checks: tuple[CheckEvidence, ...] = ()
    notes: tuple[str, ...] = ()
    pcap_files: tuple[str, ...] = ()


class Layer(Struct, frozen=True, kw_only=True):
    """One header of a frame, outermost first; the last one is the payload.

    Attributes:
        name: `Ethernet`, `IPv4`, `UDP`, `VXLAN`, `ICMP`, `payload` ...
        role: `outer` for the envelope, `inner` for what an envelope carries, empty without a tunnel.
        offset: Its first byte, counted from the start of the frame.
        bytes: The bytes of this header alone.
        summary: Its essence in a few words, such as `10.32.0.1 > 10.32.0.2`.
        explanation: What it is for, as a sentence.
        fields: Its fields by name, as text.
    """

    name: str
    role: str = ""
    offset: int = 0
    bytes: int
    summary: str = ""
    explanation: str = ""
    fields: dict[str, str] = {}


class FrameEvidence(Struct, frozen=True, kw_only=True, tag="frame"):
    """One captured frame taken apart.

    Attributes:
        title: What it is, such as `request on node1's uplink`.
        node: Where it was captured.
        ifname: On which interface.
        direction: `out`, `in`, or empty.
        at_ms: Milliseconds since the capture began.
        length: Bytes on the wire.
        headline: How long it is and why, as a clause.
        layers: Its headers, outermost first.
        hexdump: The bytes as text.
    """

    title: str
    node: str
    ifname: str
    direction: str = ""
    at_ms: float = 0.0
    length: int
    headline: str = ""
    layers: tuple[Layer, ...] = ()
    hexdump: str = ""


class CommandEvidence(Struct, frozen=True, kw_only=True, tag="command"):
    """One `exec`; or what a `chaos` step did to the lab, as text.

    Attributes:
        on: Where it ran.
        command: What was run; of a `chaos` step, the command that does the same again.
        ok: Whether it did what was expected.
        problem: What did not; empty when `ok`.
        ended: How it ended, such as `exit code 0`.
        stdout: Its output (at most 64 KiB, the end is kept).
        stderr: Its error output, likewise.
        seconds: How long it ran.
    """

    on: str
    command: str
    ok: bool
    problem: str = ""
    ended: str
    stdout: str
    stderr: str
    seconds: float


Evidence = PingEvidence | IperfEvidence | CaptureEvidence | FrameEvidence | CommandEvidence

# -------------------------------------------------------------------------------------------------------------- results


class Observation(Struct, frozen=True, kw_only=True):
    """What one command, or the agent, said about a member of the lab at the moment of a failure."""

    title: str
    text: str


class MemberState(Struct, frozen=True, kw_only=True):
    """The state of one node, pod or the outside host at the moment of a failure."""

    name: str
    observations: tuple[Observation, ...]


class StepResult(Struct, frozen=True, kw_only=True):
    """One step.

    Attributes:
        name: Its title.
        kind: `ping`, `iperf`, `wire`, `exec` or `chaos`.
        status: The verdict.
        seconds: How long it took, all attempts included.
        expected: The expectation as a sentence.
        seen: What was seen, as a sentence.
        attempts: How often it was tried.
        seed: What a `chaos` step drew its faults from; None for other steps.
        evidence: What the verdict rests on.
        causes: Why it does not hold, as sentences, the most likely first; only when something is known.
        states: The state of the members concerned; only when it failed.
        next_command: The command to look further; only when it failed.
    """

    name: str
    kind: str
    status: Status
    seconds: float = 0.0
    expected: str = ""
    seen: str = ""
    attempts: int = 0
    seed: int | None = None
    evidence: tuple[Evidence, ...] = ()
    causes: tuple[str, ...] = ()
    states: tuple[MemberState, ...] = ()
    next_command: str = ""


class ScenarioResult(Struct, frozen=True, kw_only=True):
    """One scenario: its steps in order.

    Attributes:
        name: As in the topology; when a run repeats its scenarios with the number of the repetition: `same-node#2`.
        description: As in the topology.
        status: The gravest verdict of its steps.
        seconds: How long it took.
        started: When, UTC, ISO 8601.
        repetition: That number; 1 when nothing is repeated.
        steps: In order.
    """

    name: str
    description: str
    status: Status
    seconds: float
    started: str
    repetition: int = 1
    steps: tuple[StepResult, ...]

    @property
    def plain_name(self) -> str:
        """The name as in the topology."""
        return self.name.partition(REPETITION)[0]


class Counts(Struct, frozen=True, kw_only=True):
    """Steps by verdict."""

    steps: int = 0
    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0


def count_steps(scenarios: Iterable[ScenarioResult]) -> Counts:
    """The sums over all scenarios."""
    found = [step.status for scenario in scenarios for step in scenario.steps]
    return Counts(
        steps=len(found),
        passed=found.count(Status.PASS),
        failed=found.count(Status.FAIL),
        errors=found.count(Status.ERROR),
        skipped=found.count(Status.SKIP),
    )


class Problem(Struct, frozen=True, kw_only=True):
    """What ended a run outside of any step: the lab did not come up, or did not go down."""

    message: str
    hint: str = ""


class Phase(Struct, frozen=True, kw_only=True):
    """A part of the run beside the scenarios: bringing the lab up, taking it down."""

    name: str
    seconds: float


# ---------------------------------------------------------------------------------------------------- the lab as it was


class PodView(Struct, frozen=True, kw_only=True):
    """A pod and its address."""

    name: str
    address: str = ""


class NodeView(Struct, frozen=True, kw_only=True):
    """A node: its uplink, the address of its switch, its pods."""

    name: str
    segment: str
    uplink_address: str = ""
    bridge_address: str = ""
    pods: tuple[PodView, ...] = ()


class SegmentView(Struct, frozen=True, kw_only=True):
    """A subnet of the underlay."""

    name: str
    subnet: str


class RouterView(Struct, frozen=True, kw_only=True):
    """A router and the segments it joins."""

    name: str
    segments: tuple[str, ...]


class LabView(Struct, frozen=True, kw_only=True):
    """The topology as it ran, with the addresses that were given."""

    pod_range: str
    vni: int
    underlay_mtu: int
    overlay_mtu: int
    segments: tuple[SegmentView, ...] = ()
    routers: tuple[RouterView, ...] = ()
    nodes: tuple[NodeView, ...] = ()
    outside_segment: str = ""
    outside_address: str = ""


class RunResult(Struct, frozen=True, kw_only=True):
    """A whole run: what the reports show and what the JSON report is.

    Attributes:
        schema_version: Of this shape.
        status: The gravest verdict of all, a `problem` counting as `error`.
        hostname: The machine that it ran on.
        lab: The lab's name.
        topology: The topology's name.
        description: Its description.
        topology_file: Where it was read from; empty for a lab that was up already.
        started: When, UTC, ISO 8601.
        seconds: How long it took, bringing the lab up and taking it down included.
        interrupted: Whether Ctrl-C ended it.
        problem: What went wrong outside of any step, or None.
        counts: Steps by verdict.
        environment: Versions and the machine, by name.
        phases: What the time beside the scenarios went to.
        view: The lab as it was; None when it did not come up.
        scenarios: In the order they ran.
    """

    schema_version: int = _SCHEMA_VERSION
    status: Status
    hostname: str = ""
    lab: str
    topology: str
    description: str = ""
    topology_file: str = ""
    started: str
    seconds: float
    interrupted: bool = False
    problem: Problem | None = None
    counts: Counts
    environment: dict[str, str] = {}
    phases: tuple[Phase, ...] = ()
    view: LabView | None = None
    scenarios: tuple[ScenarioResult, ...] = ()
