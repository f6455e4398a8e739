"""Which faults happen when in a `chaos` step: a pure function of the seed, the time and who is in the lab.

Nothing here touches a lab; `testbed.faults.chaos` carries the plan out. A longer plan of the same seed begins with
the shorter one. What is never planned:

- an agent loses its disk while another agent is down or a node is cut off, or less than `SETTLE_S` after that;
- anything but the coming and going of pods, from the moment an agent with its disk lost is killed until `SETTLE_S`
  after its start;
- a fault on a node on which one of the same kind is still in effect.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from testbed.topology.steps import FaultKind

GAP_S: Final = (0.1, 0.5)
"""Between two faults."""

_LASTS_S: Final[dict[FaultKind, tuple[float, float]]] = {
    "kill-agent": (0.2, 3.0),
    "lose-disk": (0.3, 3.0),
    "cut-node": (1.0, 5.0),
    "cut-overlay": (1.0, 5.0),
    "pod-churn": (0.0, 0.0),
}
"""How long a fault is in effect; a pod that came stays until its next turn."""

_WEIGHTS: Final[dict[FaultKind, int]] = {
    "kill-agent": 4,
    "lose-disk": 1,
    "cut-node": 3,
    "cut-overlay": 2,
    "pod-churn": 8,
}

SETTLE_S: Final = 2.0
"""What agents are left after a fault before one of them loses its disk, and that one after its start."""

_NODES_FOR: Final[dict[FaultKind, int]] = {"cut-node": 2, "cut-overlay": 2}
"""A fault needs so many nodes; the others make do with one."""


AGENT_FAULTS: Final[tuple[FaultKind, ...]] = ("kill-agent", "lose-disk")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: When it begins, in seconds since the beginning of the step.
        kind: What happens.
        node: Where. A pod that comes does so there; one that goes does so wherever it is.
        lasts_s: How long it is in effect.
        pod: With `pod-churn`: which of the pods that come and go, counted from 0.
    """

    at_s: float
    kind: FaultKind
    node: str
    lasts_s: float = 0.0
    pod: int = 0

    @property
    def ends_s(self) -> float:
        """When its effect ends."""
        return self.at_s + self.lasts_s


def plan_faults(
    seed: int, *, seconds: float, nodes: Sequence[str], kinds: Sequence[FaultKind], pods: int
) -> tuple[Fault, ...]:
    """The faults that begin within the first `seconds`, in the order they begin."""
    usable = [kind for kind in _LASTS_S if kind in kinds and len(nodes) >= _NODES_FOR.get(kind, 1)]
    if not usable:
        return ()
    drawn = _draw(random.Random(seed), nodes, usable, pods)  # noqa: S311 - to be repeatable, not secret
    return tuple(itertools.takewhile(lambda fault: fault.at_s < seconds, drawn))


@dataclass(slots=True)
class _Effects:
    """What is in effect: until when, by kind and node; and what waits for quiet."""

    until_s: dict[tuple[FaultKind, str], float] = field(default_factory=dict)
    lost_until_s: float = 0.0
    waiting: Fault | None = None

    def allows(self, fault: Fault) -> bool:
        """Whether a fault may begin now; one with `lose-disk` has all others wait for it."""
        if fault.kind == "pod-churn":
            return True
        if self.waiting is not None or fault.at_s < self.lost_until_s:
            return False
        # A killed agent and one that lost its disk are both down: one cannot be killed while it is the other.
        same: tuple[FaultKind, ...] = AGENT_FAULTS if fault.kind in AGENT_FAULTS else (fault.kind,)
        return all(self.until_s.get((kind, fault.node), 0.0) <= fault.at_s for kind in same)

    def begin(self, fault: Fault) -> None:
        self.until_s[fault.kind, fault.node] = fault.ends_s
        if fault.kind == "lose-disk":
            self.lost_until_s = fault.ends_s + SETTLE_S

    def quiet_since_s(self) -> float:
        return max((until_s for (kind, _), until_s in self.until_s.items() if kind != "pod-churn"), default=-SETTLE_S)


def _draw(rng: random.Random, nodes: Sequence[str], kinds: Sequence[FaultKind], pods: int) -> Iterator[Fault]:
    """Faults without end. Every turn draws the same number of values, so that the plan does not hang on details."""
    effects = _Effects()
    at_s = 0.0
    weights = [_WEIGHTS[kind] for kind in kinds]
    while True:
        at_s += rng.uniform(*GAP_S)
        kind = rng.choices(kinds, weights)[0]
        node, pod, share = rng.choice(nodes), rng.randrange(pods), rng.random()
        shortest_s, longest_s = _LASTS_S[kind]
        at_s, lasts_s = round(at_s, 3), round(shortest_s + share * (longest_s - shortest_s), 3)
        fault = Fault(at_s=at_s, kind=kind, node=node, lasts_s=lasts_s, pod=pod if kind == "pod-churn" else 0)
        waiting = effects.waiting
        if waiting is not None and at_s >= effects.quiet_since_s() + SETTLE_S:
            effects.waiting = None
            fault = Fault(at_s=at_s, kind="lose-disk", node=waiting.node, lasts_s=waiting.lasts_s)
        elif not effects.allows(fault):
            continue
        elif kind == "lose-disk" and at_s < effects.quiet_since_s() + SETTLE_S:
            effects.waiting = fault
            continue
        effects.begin(fault)
        yield fault
