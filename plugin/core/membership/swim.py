"""Who answers: a failure detector whose work per node and second does not depend on how many nodes there are.

SWIM (Das, Gupta, Motivala 2002): every PROBE_S each agent pings one other, in an order that is shuffled anew when all
had their turn. Who does not answer is asked for by others (PING_FOR): when they hear it, only the direct way is
broken; when nobody does, it is suspected, told so with the next ping, and has _SUSPECT_S to contradict before it
counts as failed. A failed one is still pinged, one a period, so that a healed network finds together by itself.

An agent whose own timers fire late has too little processor, and so, most likely, have the others on the machine: it
gives everybody more time, up to STRAIN_MAX times as much (Lifeguard: Dadgar, Phillips, Currey 2018). Without this an
overloaded cluster suspects everybody in turn, and the rumours and their denials keep it overloaded.

This file decides whom to ping and what an answer or its absence means. What pings carry is plugin/core/node.py's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Final, Protocol

from plugin.core.membership.members import Members
from plugin.core.messages.values import MemberState

PROBE_S: Final = 1.0
ANSWER_S: Final = 0.35
"""How long a direct answer may take before others are asked."""

VERDICT_S: Final = 0.9
LATE_S: Final = 0.3
HELPERS: Final = 3
_SUSPECT_S: Final = 3.0
"""For up to ten members; grows with log10, because news needs longer in a larger cluster."""

STRAIN_MAX: Final = 7
STRAIN_S: Final = 0.15
"""A timer that is so late is a sign of strain: each adds one, up to STRAIN_MAX, a period without one takes one off."""


class Chance(Protocol):
    """The part of random.Random that the core uses; it is handed in, so that a run can be repeated."""

    def random(self) -> float:
        """From 0 to 1."""
        ...

    def sample(self, population: Sequence[str], k: int) -> list[str]:
        """`k` different ones."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """A number of `k` bits."""
        ...


@dataclass(frozen=True, slots=True)
class PingPeer:
    """Ping this member; `seq` comes back with the answer."""

    name: str
    seq: int


@dataclass(frozen=True, slots=True)
class AskHelper:
    """Ask `helper` to ping `name`."""

    helper: str
    name: str
    seq: int


@dataclass(frozen=True, slots=True)
class Unheard:
    """Nobody hears this member."""

    name: str


@dataclass(frozen=True, slots=True)
class DirectWay:
    """The direct way to this member works, or does not although others hear it."""

    name: str
    works: bool


@dataclass(frozen=True, slots=True)
class Expired:
    """This member was suspected for too long."""

    name: str


Verdict = PingPeer | AskHelper | Unheard | DirectWay | Expired


@dataclass(slots=True)
class _Probe:
    name: str
    seq: int
    sent_s: float
    asked: bool = False
    heard_by_others: bool = False


@dataclass(slots=True)
class Detector:
    """Pings and draws conclusions.

    Attributes:
        members: The table; this class only reads it.
        chance: Randomness.
    """

    members: Members
    chance: Chance
    _order: list[str] = field(default_factory=list)
    _probe: _Probe | None = None
    _next_probe_s: float = 0.0
    _seq: int = 0
    _suspected_s: dict[str, float] = field(default_factory=dict)
    _failed_turn: int = 0
    _strain: int = 0

    @property
    def patience(self) -> int:
        """How many times as long as usual everybody may take; 1 as long as this agent is in time itself."""
        return 1 + self._strain

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next."""
        times = [self._next_probe_s]
        if self._probe is not None:
            times.append(self._probe.sent_s + (VERDICT_S if self._probe.asked else ANSWER_S) * self.patience)
        if self._suspected_s:
            times.append(min(self._suspected_s.values()) + self._suspect_s())
        return min(times)

    def next_seq(self) -> int:
        """A number for a ping of one's own."""
        self._seq += 1
        return self._seq

    def on_timer(self, *, now_s: float, late_s: float = 0.0) -> list[Verdict]:
        """What is due; `late_s`: how long ago it should have been done."""
        strained = late_s >= STRAIN_S
        if strained:
            self._strain = min(self._strain + 1, STRAIN_MAX)
        verdicts = self._judge(now_s)
        verdicts += self._expire(now_s)
        if now_s >= self._next_probe_s:
            if not self._next_probe_s:  # agents that start together must not ping together
                self._next_probe_s = now_s + PROBE_S * self.chance.random()
            else:
                self._next_probe_s = now_s + PROBE_S
                if self._strain and not strained:
                    self._strain -= 1
            verdicts += self._begin(now_s)
        return verdicts

    def on_answer(self, name: str, seq: int) -> list[Verdict]:
        """`name` has answered the ping `seq` itself."""
        if self._probe is not None and (self._probe.name, self._probe.seq) == (name, seq):
            self._probe = None
        return [DirectWay(name, works=True)]

    def on_heard_by_other(self, name: str, seq: int) -> None:
        """A helper has heard `name`."""
        if self._probe is not None and (self._probe.name, self._probe.seq) == (name, seq):
            self._probe.heard_by_others = True

    def suspected(self, name: str, *, now_s: float) -> None:
        """The table says that this member is suspected."""
        self._suspected_s.setdefault(name, now_s)

    def _judge(self, now_s: float) -> list[Verdict]:
        probe = self._probe
        if probe is None:
            return []
        waited_s = (now_s - probe.sent_s) / self.patience
        if waited_s >= VERDICT_S + LATE_S:
            # This agent itself had no processor for a while: what it did not hear says nothing of the other.
            self._probe = None
            return []
        if waited_s >= VERDICT_S:
            self._probe = None
            if probe.heard_by_others:
                return [DirectWay(probe.name, works=False)]
            return [Unheard(probe.name)]
        if not probe.asked and waited_s >= ANSWER_S:
            probe.asked = True
            helpers = [name for name in self._alive() if name != probe.name]
            chosen = self.chance.sample(helpers, min(HELPERS, len(helpers)))
            return [AskHelper(helper, probe.name, probe.seq) for helper in chosen]
        return []

    def _expire(self, now_s: float) -> list[Verdict]:
        others = self.members.others
        gone: list[Verdict] = []
        for name, since_s in list(self._suspected_s.items()):
            member = others.get(name)
            if member is None or member.state is not MemberState.SUSPECT:
                del self._suspected_s[name]
            elif now_s - since_s >= self._suspect_s():
                del self._suspected_s[name]
                gone.append(Expired(name))
        return gone

    def _begin(self, now_s: float) -> list[Verdict]:
        pings: list[Verdict] = []
        if self._probe is None and (name := self._next_alive()) is not None:
            self._probe = _Probe(name, self.next_seq(), now_s)
            pings.append(PingPeer(name, self._probe.seq))
        failed = sorted(name for name, member in self.members.others.items() if member.state is MemberState.FAILED)
        if failed:
            self._failed_turn += 1
            pings.append(PingPeer(failed[self._failed_turn % len(failed)], self.next_seq()))
        return pings

    def _next_alive(self) -> str | None:
        others = self.members.others
        while self._order:
            name = self._order.pop()
            if name in others and others[name].answers:
                return name
        alive = self._alive()
        self._order = self.chance.sample(alive, len(alive))
        return self._order.pop() if self._order else None

    def _alive(self) -> list[str]:
        return sorted(name for name, member in self.members.others.items() if member.answers)

    def _suspect_s(self) -> float:
        return _SUSPECT_S * max(1.0, log10(len(self.members.others) + 1)) * self.patience


def chosen(chance: Chance, names: Iterable[str], count: int) -> list[str]:
    """Up to `count` different names."""
    pool = sorted(names)
    return chance.sample(pool, min(count, len(pool)))
