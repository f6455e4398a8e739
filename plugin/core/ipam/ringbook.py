"""What one agent knows and has written down of the ring: who takes part, who owns what, what it has promised.

Two such books of one ring become equal when they are merged: of the seats the later epoch's hold, of every range the
later owner (plugin/core/ipam/ring.py). How epochs and owners come about is plugin/core/ipam/decrees.py and gifts.py;
this file keeps the law that everything an agent says or uses is on its disk before.
"""

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Network

from plugin.core.ipam import succession
from plugin.core.ipam.allocator import EXPOSE, RingAllocator
from plugin.core.ipam.ring import Ring, RingError
from plugin.core.ipam.shares import Share
from plugin.core.ipam.succession import Meeting
from plugin.core.ipam.synod import Voted
from plugin.core.messages import fields, kinds
from plugin.core.messages.codec import COUNTER, WireError
from plugin.core.messages.values import Member, Origin, RingState, Seat, Segment
from plugin.core.outbox import Noted, Outbox, Persist, SpaceChanged


class RingBook:
    """One agent's book.

    Args:
        network: The pod range.
        outbox: Where messages go; its members say who answers.
        allocator: Gets the ranges that are this agent's.

    Attributes:
        ring: Who owns what.
        ring_id: Names the first agreement; empty before it.
        epoch: How many decrees there have been.
        seats: Who takes part, by uid.
        left: Who took part once and never will again.
        origins: The rings that this one was recovered from.
        voted: What this agent has promised and accepted for the next decree.
        removed: Why this agent is no longer a member; empty as long as it is.
        refused: Why the others do not take it for one of them just now; empty as long as they do.
    """

    def __init__(self, network: IPv4Network, outbox: Outbox, allocator: RingAllocator) -> None:
        self.outbox = outbox
        self.members = outbox.members
        self.allocator = allocator
        self.ring = Ring(network)
        self.ring_id = ""
        self.epoch = 0
        self.seats: dict[str, Seat] = {}
        self.left: frozenset[str] = frozenset()
        self.origins: tuple[Origin, ...] = ()
        self.voted = Voted(1)
        self.removed = ""
        self.refused = ""
        self._new_epoch: list[Callable[[], None]] = []
        self._durable: tuple[Share, ...] = ()
        self._serial = 0
        self._unwritten: dict[int, tuple[Share, ...]] = {}

    # --- reading --------------------------------------------------------------------------------------------------
    @property
    def uid(self) -> str:
        """This agent's identity."""
        return self.members.me.uid

    @property
    def seated(self) -> bool:
        """Whether this agent takes part in agreements and may own addresses."""
        return self.uid in self.seats

    @property
    def conflict(self) -> str:
        """Why this agent may not give out addresses at all; empty when it may."""
        return self.removed or self.refused

    @property
    def recovery(self) -> Origin | None:
        """What is being recovered, from the moment that this agent has accepted it: there is no way back then."""
        value = self.voted.value
        return value.origins[-1] if value is not None and value.origins else None

    @property
    def gone(self) -> frozenset[str]:
        """Who is refused as a member: who left, and who is given up by a recovery that is under way."""
        recovery = self.recovery
        return self.left if recovery is None else self.left | {seat.uid for seat in recovery.lost}

    @property
    def digest(self) -> int:
        """64 bits of everything that is agreed."""
        if not self.ring_id:
            return 0
        return self.ring.fingerprint ^ _epoch_mark(self.ring_id, self.epoch)

    @property
    def has_pods(self) -> bool:
        """Whether anything but the bridge holds an address here."""
        return any(attachment != EXPOSE for attachment in self.allocator.held)

    @property
    def state(self) -> RingState:
        """All that is agreed, as messages carry it."""
        seats = tuple(sorted(self.seats.values()))
        segments = self.ring.segments if self.ring_id else ()
        return RingState(self.ring_id, self.epoch, seats, tuple(sorted(self.left)), segments, self.origins)

    def alive(self) -> list[Member]:
        """The other members that answer."""
        return [member for member in self.members.others.values() if member.answers]

    def answers(self, uid: str) -> bool:
        """Whether that very agent answers."""
        return any(member.uid == uid and member.answers for member in self.members.others.values())

    def name_of(self, uid: str) -> str:
        """The node of a seat, for people; the uid itself when it has none."""
        seat = self.seats.get(uid)
        return uid if seat is None else seat.name

    # --- merging --------------------------------------------------------------------------------------------------
    def at_new_epoch(self, action: Callable[[], None]) -> None:
        """Call `action` whenever a later epoch, or another ring, was taken up."""
        self._new_epoch.append(action)

    def merge(self, state: RingState, *, whose: str, theirs_has_pods: bool = True) -> str:  # noqa: PLR0911 - a case each
        """Take in what `whose` says of the ring; a sentence when the two cannot be members of the same one."""
        if not state.ring:
            return ""
        if state.ring == self.ring_id:
            return self._merge_same(state, whose)
        if not self.ring_id:
            self.adopt(state)
            return ""
        meeting = succession.meet(self.state, self.uid, state, whose)
        if meeting is Meeting.TAKE:
            self.adopt(state)
        if meeting is not Meeting.APART:
            return succession.sentence(meeting, self.ring_id, state.ring)
        if self._yields(state, whose, theirs_has_pods=theirs_has_pods):
            self._abandon()
            self.adopt(state)
            return ""
        if self._would_yield(state, whose, theirs_has_pods=theirs_has_pods):
            return ""
        return (
            f"its ring {state.ring} of {len(state.seats)} members was founded apart from {self.ring_id} of "
            f"{len(self.seats)} here: `weave reset` on one side"
        )

    def why_apart(self, state: RingState, whose: str) -> str:
        """What `whose` is told when its ring and this one cannot be one: the reason as it is seen from there."""
        if state.ring == self.ring_id:
            return "this ring is being recovered there without some of its seats: wait, or `weave reset` here"
        meeting = succession.meet(state, whose, self.state, self.uid)
        return succession.sentence(meeting, state.ring, self.ring_id) or (
            f"its ring {self.ring_id} was founded apart from this one: `weave reset` on one side"
        )

    def _merge_same(self, state: RingState, whose: str) -> str:
        """The same ring; but who has accepted its recovery follows no other decree of it.

        A seat that has to agree to the recovery and shows a later epoch has never accepted it, and cannot any more:
        only then it will never come about, and this agent is free again.
        """
        recovery = self.recovery
        if recovery is not None and state.epoch > self.epoch:
            agreeing = self.seats.keys() - {seat.uid for seat in recovery.lost} - set(self.voted.frozen)
            if whose not in agreeing:
                names = ", ".join(seat.name for seat in recovery.lost)
                return f"its ring {state.ring} is being recovered here without {names}: `weave status ipam` says more"
        self.adopt(state)
        return ""

    def _yields(self, state: RingState, whose: str, *, theirs_has_pods: bool) -> bool:
        """Whether this agent may give its ring up: nothing of it is in use by anybody.

        Who has no seat stays with the ring whose seats it hears, and believes of another ring only one who has a seat
        in it: what others without a seat tell may be of a ring that has ended.
        """
        if not self.seated:
            return whose in _uids(state) and not any(self.answers(uid) for uid in self.seats)
        if set(self.seats) != {self.uid} or self.has_pods:
            return False
        theirs_may = len(state.seats) == 1 and not theirs_has_pods
        return not theirs_may or state.ring < self.ring_id

    def _would_yield(self, state: RingState, whose: str, *, theirs_has_pods: bool) -> bool:
        return whose not in _uids(state) or (len(state.seats) == 1 and not theirs_has_pods)

    def _abandon(self) -> None:
        self.outbox.add(Noted("ring given up for another", (("ring", self.ring_id),)))
        self.ring = Ring(self.ring.network)
        self.ring_id, self.epoch, self.seats, self.left, self.origins = "", 0, {}, frozenset(), ()
        self.voted = Voted(1)

    def adopt(self, state: RingState) -> None:
        """Same ring, or one recovered from it: the later epoch's seats hold, and of every range the later owner."""
        changed = False
        if state.epoch > self.epoch or not self.ring_id:
            recovered = bool(self.ring_id) and state.ring != self.ring_id
            self.ring_id, self.epoch, self.origins = state.ring, state.epoch, state.origins
            self.seats = {seat.uid: seat for seat in state.seats}
            self.left |= frozenset(state.left)
            self.voted = Voted(self.epoch + 1)
            self.members.left_uids = self.gone
            for action in self._new_epoch:
                action()
            if recovered:
                lost = ", ".join(seat.name for seat in state.origins[-1].lost) if state.origins else "nobody"
                self.outbox.add(Noted("ring recovered", (("ring", state.ring), ("without", lost[:400])), serious=True))
            if self.uid in self.left:
                self.removed = "this node was removed from the ring: `weave reset` makes it a new member"
            changed = True
            names = ", ".join(sorted(seat.name for seat in state.seats))
            self.outbox.add(Noted("ring agreed", (("epoch", str(self.epoch)), ("seats", names[:400]))))
        merged = self._merge_segments(state.segments)
        if changed or merged:
            self.changed(())

    def _merge_segments(self, segments: Iterable[Segment]) -> bool:
        mine: list[Segment] = []
        others: list[Segment] = []
        for segment in segments:
            (mine if segment.owner == self.uid else others).append(segment)
        try:
            for conflict in self.ring.conflicts(segments := [*mine, *others]):
                self.outbox.add(Noted("ring conflict", (("range", str(conflict)),), serious=True))
            changed = self.ring.merge(others)
            # After a promise to let a member be removed, what it gives to us no longer counts: it may be the heir's.
            changed += self.ring.merge(mine, frozen=self.voted.frozen)
        except RingError as error:
            self.outbox.add(Noted("ring refused", (("reason", error.message),), serious=True))
            return False
        return bool(changed)

    def take(self, segments: tuple[Segment, ...]) -> bool:
        """Somebody gave us these; False when that is no news."""
        if self._merge_segments(segments):
            # Many small gifts side by side become one range again: everybody has to keep and tell the whole ring.
            self.changed((*segments, *self.ring.compact(self.uid)))
            return True
        return False

    def on_news(self, news: kinds.RingNews) -> None:
        """Ranges have changed hands somewhere; in another ring that means nothing here."""
        if self.ring_id and news.ring in {None, self.ring_id} and self._merge_segments(news.segments):
            self.changed(())

    def changed(self, tell: tuple[Segment, ...]) -> None:
        """The ring is another: write it down, use what is ours, and tell everybody about `tell`."""
        self.write()
        self.use()
        if tell:
            names = [member.name for member in self.alive()]
            for start in range(0, len(tell), fields.SEGMENTS_PER_DATAGRAM_MAX):
                part = tell[start : start + fields.SEGMENTS_PER_DATAGRAM_MAX]
                self.outbox.broadcast(names, kinds.RingNews(part, self.ring_id))
        self.outbox.add(SpaceChanged())

    def write(self) -> None:
        """Have it all written down, before anything that is wanted from now on."""
        self._serial += 1
        self._unwritten[self._serial] = self.ring.owned_by(self.uid)
        self.outbox.add(Persist(_packed(self.state, self.voted), self._serial))

    def use(self) -> None:
        """Only what is ours now *and* was on the disk as ours may be given out."""
        ours = () if self.conflict else _common(self.ring.owned_by(self.uid), self._durable)
        self.allocator.own(ours)

    # --- the disk -------------------------------------------------------------------------------------------------
    def vote(self, voted: Voted) -> None:
        """Remember a promise or an acceptance; whoever it is told to hears of it when it is on the disk."""
        self.voted = voted
        self.members.left_uids = self.gone
        self.write()

    def on_persisted(self, serial: int) -> None:
        """What was to be written is on the disk: ranges that came with it may be used from now on."""
        if serial in self._unwritten:
            self._durable = self._unwritten[serial]
            self._unwritten = {later: shares for later, shares in self._unwritten.items() if later > serial}
            self.use()

    def restore(self, data: bytes) -> None:
        """Take up what an earlier life has written.

        Raises:
            WireError: It is not what `Persist` carried.
            RingError: It belongs to another range.
        """
        state, voted = _unpacked(data)
        self.ring_id, self.epoch = state.ring, state.epoch
        self.seats = {seat.uid: seat for seat in state.seats}
        self.left = frozenset(state.left)
        self.origins = state.origins
        if state.ring:
            self.ring.merge(state.segments)
        self.voted = voted
        self.members.left_uids = self.gone
        self._durable = self.ring.owned_by(self.uid)
        self.use()

    def refuse(self, reason: str) -> None:
        """A member refuses this agent (or, empty, takes it as its own): meanwhile it gives nothing out."""
        if reason != self.refused:
            self.refused = reason
            self.use()
            self.outbox.add(SpaceChanged())


def _uids(state: RingState) -> set[str]:
    return {seat.uid for seat in state.seats}


@lru_cache(maxsize=64)
def _epoch_mark(ring_id: str, epoch: int) -> int:
    return int.from_bytes(blake2b(f"{ring_id}\n{epoch}".encode(), digest_size=8).digest(), "big")


def _common(some: tuple[Share, ...], others: tuple[Share, ...]) -> tuple[Share, ...]:
    found = []
    for share in some:
        for other in others:
            first, last = max(share.first, other.first), min(share.last, other.last)
            if first <= last:
                found.append(Share(first, last))
    return tuple(found)


def _packed(state: RingState, voted: Voted) -> bytes:
    held = {
        "state": fields.STATE.dump(state),
        "epoch": voted.epoch,
        "promised": fields.BALLOT.dump(voted.promised),
        "accepted": None if voted.accepted is None else fields.BALLOT.dump(voted.accepted),
        "value": None if voted.value is None else fields.VALUE.dump(voted.value),
        "frozen": list(voted.frozen),
    }
    return json.dumps(held, separators=(",", ":")).encode()


def _unpacked(data: bytes) -> tuple[RingState, Voted]:
    try:
        held = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("it is no JSON") from None
    if not isinstance(held, dict):
        raise WireError("it is no JSON object")
    accepted, value = held.get("accepted"), held.get("value")
    voted = Voted(
        COUNTER.load(held.get("epoch")),
        fields.BALLOT.load(held.get("promised")),
        None if accepted is None else fields.BALLOT.load(accepted),
        None if value is None else fields.VALUE.load(value),
        fields.UIDS.load(held.get("frozen")),
    )
    return fields.STATE.load(held.get("state")), voted
