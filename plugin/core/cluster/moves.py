"""Members that say they are at another address now: believed when nobody of that name answers at the old one.

An agent whose node gets another address says so in the life that is known, with its next incarnation. A second machine
with the same disk has another life and is refused by the door; but a copy of a *running* machine (a snapshot that was
started beside the original) says word for word the same as one that has moved. The old address tells them apart: the
original answers there, and stays; who has moved is silent there. Until that is known, nothing that is said from the new
address counts, nor is it refused: it is said again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from plugin.core.cluster.door import Door
from plugin.core.cluster.pings import Pings
from plugin.core.membership.swim import ANSWER_S, Detector
from plugin.core.messages import kinds
from plugin.core.messages.values import Member
from plugin.core.outbox import Outbox

_ASKED_MAX: Final = 2
"""Questions at the old address, for one may be lost; between them passes half of the time that an answer may take."""

_REFUSED_S: Final = 5.0
"""After the old address has answered, the new one is refused for so long; then the old one is asked again."""


@dataclass(slots=True)
class _Claim:
    """What one member is said to have done, and what became of the questions."""

    record: Member
    since_s: float
    asked: list[int] = field(default_factory=list)
    refused_s: float | None = None


class Moves:
    """Finds out whether a member has moved.

    Args:
        outbox: Its members say who is where.
        door: Refuses who has not moved.
        pings: Asks.
        detector: Numbers the questions, and says how long an answer may take.
        believe: Called with a record that is true.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        door: Door,
        pings: Pings,
        detector: Detector,
        believe: Callable[[Member, float], None],
    ) -> None:
        self._members = outbox.members
        self._pod_range = outbox.keys.network
        self._door = door
        self._pings = pings
        self._detector = detector
        self._believe = believe
        self._claims: dict[str, _Claim] = {}

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when nobody moves."""
        return min((self._due_s(claim) for claim in self._claims.values()), default=float("inf"))

    def holds_back(self, record: Member, *, now_s: float) -> bool:
        """Whether a record says that a member has moved, and that is not known yet: it must not count now."""
        if not self._members.has_moved(record) or record.address in self._pod_range:
            return False  # no agent is among the pods: the door says so
        claim = self._claims.get(record.name)
        if claim is None:
            claim = self._claims[record.name] = _Claim(record, now_s)
            if self._members.others[record.name].address == self._members.me.address:
                self._decide(record.name, claim, now_s)  # this node has that address now: nobody else answers there
                return False
            self._ask(claim)
        elif record.rank > claim.record.rank:
            claim.record = record
        return True

    def refusal(self, record: Member, *, now_s: float) -> kinds.Refuse | None:
        """What is to be said to somebody who was held back: nothing as long as it is not known that it lies."""
        claim = self._claims.get(record.name)
        if claim is None or claim.refused_s is None:
            return None
        return self._door.turn_away(record, self._members.others[record.name].address, now_s=now_s)

    def on_answer(self, name: str, seq: int, *, now_s: float) -> None:
        """`name` has answered a ping at the address that is known."""
        claim = self._claims.get(name)
        if claim is not None and seq in claim.asked and claim.refused_s is None:
            claim.refused_s = now_s

    def on_timer(self, *, now_s: float) -> None:
        """Ask again, believe, or let a refusal rest."""
        for name, claim in list(self._claims.items()):
            if not self._members.has_moved(claim.record):
                del self._claims[name]  # something newer is known of it, or it is gone
            elif now_s < self._due_s(claim):
                continue
            elif claim.refused_s is not None:
                del self._claims[name]
            elif len(claim.asked) < _ASKED_MAX:
                self._ask(claim)
            else:
                self._decide(name, claim, now_s)

    def _ask(self, claim: _Claim) -> None:
        claim.asked.append(self._detector.next_seq())
        self._pings.ping(claim.record.name, claim.asked[-1])

    def _due_s(self, claim: _Claim) -> float:
        if claim.refused_s is not None:
            return claim.refused_s + _REFUSED_S
        return claim.since_s + ANSWER_S * self._detector.patience * len(claim.asked) / _ASKED_MAX

    def _decide(self, name: str, claim: _Claim, now_s: float) -> None:
        del self._claims[name]
        self._believe(claim.record, now_s)
