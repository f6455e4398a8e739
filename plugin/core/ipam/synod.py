"""Single-decree Paxos, one decree an epoch: how the members of a ring come to agree on who takes part in it.

Lamport, "Paxos Made Simple" (2001); the members of epoch n decide epoch n+1, as in section 4 of "The Part-Time
Parliament" (1998). The value of a decree is `wire.Value`: the seats of the new epoch, and ranges that change hands.

Who must agree (`Quorum`):
- the first decree: more than half of the agents that were set up to found the ring;
- a decree that only adds seats: more than half of the seats;
- a decree that removes members D which are gone for good: *all* other seats, and they must be at least half.
Any two of these have a member in common as long as nobody in D ever speaks again, so no two values are ever decided for
one epoch, and who proposes the next decree always hears of the last. All others must agree to a removal because each of
them may have been given addresses by a member of D that nobody else knows of.

When more than half of the seats are lost nothing of this is possible. Then a person may say that they are gone for good
(recovery.py): all other seats, however few, decide how it goes on, in the same way and bound by the same votes, but in
another ring. Everybody who answers, seat or not, is asked before (`Round.unheard`): a seat may have been given that the
proposer has not heard of.

An acceptor's state must be on disk before its answer is sent. Nothing here knows the network, clock or disk.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from plugin.core.messages.values import Ballot, Value

NO_BALLOT: Final = Ballot(0, "0" * 16)


@dataclass(frozen=True, slots=True)
class Voted:
    """An acceptor's memory of one decree.

    Attributes:
        epoch: The epoch that the decree begins.
        promised: No lower ballot is accepted any more.
        accepted: The ballot of what was accepted, if anything was.
        value: What was accepted.
        frozen: Members whose removal was promised: what they give away from now on does not count.
    """

    epoch: int
    promised: Ballot = NO_BALLOT
    accepted: Ballot | None = None
    value: Value | None = None
    frozen: tuple[str, ...] = ()


def promise(voted: Voted, ballot: Ballot, removing: tuple[str, ...]) -> Voted | None:
    """Phase 1b: the new memory, or None when a higher ballot was promised already."""
    if ballot < voted.promised:
        return None
    frozen = tuple(sorted({*voted.frozen, *removing}))
    return Voted(voted.epoch, ballot, voted.accepted, voted.value, frozen)


def accept(voted: Voted, ballot: Ballot, value: Value) -> Voted | None:
    """Phase 2b: the new memory, or None when a higher ballot was promised already."""
    if ballot < voted.promised:
        return None
    return Voted(voted.epoch, ballot, ballot, value, voted.frozen)


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who must say yes.

    Attributes:
        count: How many of `of`.
        of: Those who count; None when anybody who grants counts (the first decree).
    """

    count: int
    of: frozenset[str] | None = None

    def met(self, granted: Collection[str]) -> bool:
        """Whether these are enough."""
        return len(self._counted(granted)) >= self.count

    def missing(self, granted: Collection[str]) -> frozenset[str]:
        """Who of a known set has not said yes."""
        return frozenset() if self.of is None else self.of - frozenset(granted)

    def _counted(self, granted: Collection[str]) -> frozenset[str]:
        return frozenset(granted) if self.of is None else self.of & frozenset(granted)


def majority(seats: Collection[str]) -> Quorum:
    """More than half of the seats."""
    return Quorum(len(seats) // 2 + 1, frozenset(seats))


def everybody_but(seats: Collection[str], lost: Collection[str]) -> Quorum:
    """All seats that are not lost, however few they are: enough for a recovery."""
    living = frozenset(seats) - frozenset(lost)
    return Quorum(len(living), living)


def survivors(seats: Collection[str], dead: Collection[str]) -> Quorum | None:
    """All seats that are not dead; None when they are fewer than half, for then nobody can know enough."""
    quorum = everybody_but(seats, dead)
    return None if 2 * quorum.count < len(seats) or not quorum.count else quorum


@dataclass(slots=True)
class Round:
    """One attempt of a proposer, from its first question to the decision or to giving up.

    Attributes:
        epoch: The epoch that the decree begins.
        ballot: This attempt's.
        quorum: Who must agree.
        removing: Members that are gone for good.
        choose: Makes the value, once the promises are there and none of them binds.
        deadline_s: When it is given up.
        unheard: Who has no vote but must have said what it knows before anything is proposed.
        recovering: Whether it is to recover the ring. Then an accepted ordinary decree does not bind: if it was ever
            decided, then only by those who are given up now, and whoever heard of it would have said so.
        bound: Whether `value` was accepted by somebody before.
    """

    epoch: int
    ballot: Ballot
    quorum: Quorum
    removing: tuple[str, ...]
    choose: Callable[[], Value]
    deadline_s: float
    unheard: set[str] = field(default_factory=set)
    recovering: bool = False
    bound: bool = False
    promises: dict[str, tuple[Ballot | None, Value | None]] = field(default_factory=dict)
    accepts: set[str] = field(default_factory=set)
    value: Value | None = None
    decided: bool = False
    highest: Ballot = NO_BALLOT
    refusals: dict[str, str] = field(default_factory=dict)

    def on_promise(self, uid: str, accepted: Ballot | None, value: Value | None) -> bool:
        """An acceptor promised; True when this completes the first phase (`value` is then what to propose)."""
        if self.value is not None:
            return False
        self.promises[uid] = accepted, value
        return self._prepared()

    def on_witness(self, uid: str) -> bool:
        """One without a vote has said what it knows, and it is nothing new; True as for `on_promise`."""
        self.unheard.discard(uid)
        return self.value is None and self._prepared()

    def _prepared(self) -> bool:
        if self.unheard or not self.quorum.met(self.promises):
            return False
        # The rule that makes it safe: what may have been decided already has to be proposed again.
        bound = max(
            (
                (ballot, old)
                for ballot, old in self.promises.values()
                if ballot is not None and old is not None and (old.origins or not self.recovering)
            ),
            key=lambda pair: (pair[0].number, pair[0].uid),
            default=None,
        )
        self.bound = bound is not None
        self.value = self.choose() if bound is None else bound[1]
        return True

    def on_refused(self, uid: str, promised: Ballot, reason: str) -> None:
        """An acceptor is bound to a higher ballot, or has a reason of its own."""
        self.highest = max(self.highest, promised, key=lambda ballot: (ballot.number, ballot.uid))
        self.refusals[uid] = reason

    def on_accepted(self, uid: str) -> bool:
        """An acceptor accepted; True when the value is decided by this."""
        self.accepts.add(uid)
        if self.decided or not self.quorum.met(self.accepts):
            return False
        self.decided = True
        return True

    def waiting_for(self, names: Mapping[str, str]) -> str:
        """Who has not agreed, for people."""
        heard = self.promises if self.value is None else self.accepts
        unheard = self.unheard if self.value is None else set()
        missing = sorted(names.get(uid, uid) for uid in self.quorum.missing(heard) | unheard)
        if missing:
            return ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return f"{self.quorum.count - len(heard)} more" if len(heard) < self.quorum.count else ""
