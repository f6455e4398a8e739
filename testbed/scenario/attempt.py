"""What the steps of one run share, how they do many things at once, and what one attempt at a step hands back."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from testbed.lab.running import Lab
from testbed.machine import interrupts
from testbed.probes.command import Processes
from testbed.probes.iperf import Measured
from testbed.scenario.results import Evidence

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE_MAX: Final = 8
"""Programs of one step at a time: more would measure the scheduler of a small machine instead of the network."""


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


def in_parallel(run: Run, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call `function` for each item, `_AT_ONCE_MAX` at a time; an interruption ends all of them at once."""
    work = list(items)
    if len(work) <= 1:
        return [function(item) for item in work]
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE_MAX, len(work)), thread_name_prefix="step") as pool:
        try:
            with interrupts.postponed():
                results = pool.map(function, work)
            return list(results)
        except KeyboardInterrupt:
            run.processes.stop()  # before the pool is left, which waits for its threads
            raise
