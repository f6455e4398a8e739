"""What the kinds of evidence hand to each other: a failing pair, one cause, and the scene of a failure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from testbed.lab.running import Lab
from testbed.scenario.attempt import Run
from testbed.scenario.members import Member
from testbed.scenario.results import Evidence
from testbed.topology.steps import Step


class Weight(IntEnum):
    """How much a cause explains, the most first."""

    PROVED = 0
    """Probes of a failing pair end just there."""
    KNOWN = 1
    """It is wrong, on the way of a failing pair."""
    LIKELY = 2
    """It fits what was seen; something else may do the same."""
    BESIDE = 3
    """It is wrong there, too; whether it has to do with the failure is open."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two members of which one did not reach the other.

    Attributes:
        source: Who sent.
        target: Whom it was for.
        packet_bytes: The IP packet that was sent.
        whole: It must not be fragmented.
    """

    source: Member
    target: Member
    packet_bytes: int = 84
    whole: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """Who and whom, as a key."""
        return self.source.name, self.target.name


@dataclass(frozen=True, slots=True)
class Cause:
    """One sentence, and what it is about.

    Attributes:
        text: The sentence, without a full stop, with its evidence.
        weight: How much it explains.
        on: The member of the lab that it is about.
        thing: The object there, by which two kinds of evidence find that they speak of the same.
        pairs: The failing pairs that it explains.
        look: The command that shows it, to be run on `on`.
        said: What an agent says of it, as a remark to what the kernel shows.
    """

    text: str
    weight: Weight
    on: str
    thing: str = ""
    pairs: frozenset[tuple[str, str]] = frozenset()
    look: tuple[str, ...] = ()
    said: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """A step that failed, and the time there is to find out why.

    Attributes:
        run: The run.
        step: The step.
        evidence: What the step itself has seen.
        pairs: The pairs that failed.
        members: Everybody concerned: ends of pairs, members of an `exec` that failed.
        nodes: Their nodes.
        is_examined: Whether the step could be examined at all.
        began_s: When the step began, seconds since the epoch.
        until_s: When to end, on the run's clock.
        found: The causes so far.
    """

    run: Run
    step: Step
    evidence: tuple[Evidence, ...]
    pairs: tuple[Pair, ...]
    members: tuple[Member, ...]
    nodes: tuple[str, ...]
    is_examined: bool
    began_s: float
    until_s: float
    found: list[Cause] = field(default_factory=list[Cause])

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.run.lab

    @property
    def left_s(self) -> float:
        """What is left of the time."""
        return self.until_s - self.run.clock()

    def which(self, holds: Callable[[Pair], bool]) -> frozenset[tuple[str, str]]:
        """The pairs for which something holds."""
        return frozenset(pair.names for pair in self.pairs if holds(pair))
