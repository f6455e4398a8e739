"""What the steps of one run share, and what one attempt at a step hands back."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from testbed.lab.running import Lab
from testbed.probes.command import Processes
from testbed.probes.iperf import Measured
from testbed.scenario.results import Evidence


@dataclass(slots=True)
class Run:
    """One run on one lab.

    Attributes:
        lab: The running lab.
        processes: Everything the run starts goes through it.
        clock: Seconds, monotonic.
        pcap_dir: Where captures are written too, or None.
        bases: Transfers over the underlay that were measured in this run, by what was measured between which nodes.
        captures: How many pcap files were named so far.
    """

    lab: Lab
    processes: Processes = field(default_factory=Processes)
    clock: Callable[[], float] = time.monotonic
    pcap_dir: Path | None = None
    bases: dict[tuple[object, ...], Measured] = field(default_factory=dict)
    captures: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a step.

    Attributes:
        ok: Whether the expectation holds.
        seen: What was seen, as a sentence.
        evidence: What that rests on.
        concerned: The members whose state explains a failure.
        next_command: The command to look further after a failure.
        final: Trying again would prove nothing (a leak that was seen has been seen).
        error: It could not be examined at all.
    """

    ok: bool
    seen: str
    evidence: tuple[Evidence, ...] = ()
    concerned: tuple[str, ...] = ()
    next_command: str = ""
    final: bool = False
    error: bool = False
