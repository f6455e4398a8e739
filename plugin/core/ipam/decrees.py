"""The decrees of the ring: its foundation, new seats, and the removal of members that are gone for good.

What has to be decided is found here, and proposed; how a decision comes about safely is plugin/core/ipam/synod.py.
What is "gone for good" is never guessed from silence. It is known when a member says itself that it leaves (`reset`),
when its node speaks with a new identity because its disk is lost, or when a person says so (`rmpeer`) and nobody
hears the member. Everything else waits, and `waiting` says for whom.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Final

from plugin.core.ipam import synod
from plugin.core.ipam.ringbook import RingBook
from plugin.core.ipam.synod import Round, Voted
from plugin.core.membership.swim import Chance
from plugin.core.messages import kinds, values
from plugin.core.messages.values import Member, MemberState, RingState, Seat, Segment, Value
from plugin.core.outbox import Noted, refusal

GATHER_S: Final = 1.0
GATHER_S_PER_FOUNDER: Final = 0.05
"""How long the first agreement waits for the founders that are not known yet, once there are enough of them: many that
are started together share the processors of one machine."""

ROUND_S: Final = 2.0
RETRY_S: Final = 0.2
RETRY_MAX_S: Final = 2.0
HEIR_PATIENCE_S: Final = 2.0
"""How long an agent that lost its disk tries to inherit from its former self before others just give it a seat."""

FREEZE_S: Final = 10.0
"""After a removal was promised and did not come about for so long, somebody decides that nothing changes."""

GUESTS_MAX: Final = 1024
GUESTS_GATHER_S: Final = 0.3
"""After a decree those who want a seat are gathered for so long: a hundred that join at once need three decrees, not a
hundred, and every decree means to ask more than half of all seats. The first guest waits for nothing."""


class Decrees:
    """One agent as proposer and acceptor.

    Args:
        book: What is agreed so far.
        chance: Randomness.
        founders: How many agents are set up to make the first agreement; 0 when this one is not among them.

    Attributes:
        waiting: Whom or what a decree waits for, in words; empty when none does.
        removals: The names of nodes that are gone for good, as a person said here.
    """

    def __init__(self, book: RingBook, chance: Chance, founders: int) -> None:
        self._book = book
        self._chance = chance
        self._founders = founders
        self._frozen_s: float | None = None
        self._round: Round | None = None
        self._next_round_s = 0.0
        self._wait_s = RETRY_S
        self._enough_s: float | None = None
        self._guests: dict[str, tuple[Seat, float]] = {}
        self._gathering_until_s = 0.0
        self._dead_seen: tuple[int, ...] = ()
        self._dead_known: tuple[str, ...] = ()
        self.waiting = ""
        self.removals: set[str] = set()
        book.at_new_epoch(self._on_new_epoch)

    @property
    def founding(self) -> str:
        """What the first agreement waits for, in Weave's words."""
        if not self._founders:
            return "awaiting a ring: no member of one has answered yet"
        return f"awaiting consensus (quorum {self._founders // 2 + 1}, known {1 + len(self._book.alive())})"

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when there is nothing to do."""
        times = [float("inf")]
        if self._round is not None:
            times.append(self._round.deadline_s)
        elif self._wants_one():
            times.append(self._next_round_s)
        if self._frozen_s is not None:
            times.append(self._frozen_s + FREEZE_S)
        return min(times)

    def on_timer(self, *, now_s: float) -> None:
        """Whatever is due."""
        if self._round is not None and now_s >= self._round.deadline_s:
            self._give_up(now_s)
        if self._frozen_s is None and self._book.voted.frozen:
            self._frozen_s = now_s
        elif not self._book.voted.frozen:
            self._frozen_s = None
        if self._round is None and now_s >= self._next_round_s and self._wants_one():
            self._begin(now_s)

    def remove(self, name: str) -> None:
        """A person says that this node is gone for good; it holds until an agent of that name answers again."""
        self.removals.add(name)
        self._next_round_s = 0.0

    def welcome(self, guest: Member, *, now_s: float) -> None:
        """A member wants a seat."""
        if len(self._guests) < GUESTS_MAX and guest.uid not in self._guests:
            self._guests[guest.uid] = seat_of(guest), now_s
            self._next_round_s = min(self._next_round_s, now_s)

    def _on_new_epoch(self) -> None:
        self._round, self._next_round_s, self.waiting = None, 0.0, ""
        self._guests = {uid: guest for uid, guest in self._guests.items() if uid not in self._book.seats}
        self.removals &= {seat.name for seat in self._book.seats.values()}

    # --- what is to be decided ------------------------------------------------------------------------------------
    def _wants_one(self) -> bool:
        if self._book.conflict:
            return False
        if not self._book.ring_id:
            return self._founders > 0
        if self._dead() or (self._book.seated and self._guests):
            return True
        return self._book.seated and bool(self._book.voted.frozen)

    def _dead(self) -> tuple[str, ...]:
        """The seats that are known to be gone for good, as far as it is this agent's part to say so."""
        seen = self._book.members.version, self._book.members.me.life, self._book.epoch, len(self.removals)
        if seen != self._dead_seen:
            self._dead_seen, self._dead_known = seen, self._find_dead()
        return self._dead_known

    def _find_dead(self) -> tuple[str, ...]:
        me = self._book.members.me
        self.removals -= {member.name for member in self._book.alive()}
        dead = self._superseded_by(me) | {uid for uid, seat in self._book.seats.items() if seat.name in self.removals}
        leaving = {member.uid for member in self._book.members.others.values() if member.state is MemberState.LEFT}
        staying = min((seat.name for uid, seat in self._book.seats.items() if uid not in leaving), default="")
        if self._book.seated and staying == me.name:
            dead |= leaving & self._book.seats.keys()
        # Each on its own would wait for the others' votes, so all that are gone are removed together.
        return tuple(sorted(dead | self._superseded() if dead else ()))

    def _superseded(self) -> set[str]:
        """Seats of agents whose disk is lost: on the same node another one speaks now, so they never will again."""
        present = {(member.name, member.address): member.uid for member in (self._book.members.me, *self._book.alive())}
        return {uid for uid, seat in self._book.seats.items() if present.get((seat.name, seat.address), uid) != uid}

    def _superseded_by(self, member: Member) -> set[str]:
        return {
            uid
            for uid, seat in self._book.seats.items()
            if (seat.name, seat.address) == (member.name, member.address) and uid != member.uid
        }

    def _begin(self, now_s: float) -> None:
        if not self._book.ring_id:
            self._begin_first(now_s)
            return
        dead = self._dead()
        if dead:
            if alive := [self._book.name_of(uid) for uid in dead if self._book.answers(uid)]:
                self._defer(now_s, f"{', '.join(alive)} answers and cannot be removed")
                return
            quorum = synod.survivors(self._book.seats, dead)
            if quorum is None:
                names = ", ".join(sorted(self._book.name_of(uid) for uid in dead))
                self._defer(now_s, f"removal of {names}: fewer than half of the seats would be left to agree")
                return
            if not self._reachable(quorum, f"removal of {', '.join(self._book.name_of(uid) for uid in dead)}", now_s):
                return
            self._propose(quorum, dead, lambda: self._without(dead), now_s)
            return
        seated = {seat.name for seat in self._book.seats.values()}
        guests = {
            uid: seat
            for uid, (seat, since_s) in self._guests.items()
            if seat.name not in seated or now_s - since_s >= HEIR_PATIENCE_S
        }
        if guests and now_s < self._gathering_until_s:
            self._next_round_s = self._gathering_until_s
        elif guests or (self._frozen_s is not None and now_s - self._frozen_s >= FREEZE_S):
            quorum = synod.majority(self._book.seats)
            what = f"seat of {', '.join(sorted(seat.name for seat in guests.values())) or 'nobody new'}"
            if self._reachable(quorum, what, now_s):
                self._propose(quorum, (), lambda: self._with(guests), now_s)
        else:
            self._next_round_s = now_s + RETRY_S

    def _reachable(self, quorum: synod.Quorum, what: str, now_s: float) -> bool:
        """Whether enough answer to come to a decision: a futile attempt would only be in the way of others."""
        there = {self._book.uid, *(member.uid for member in self._book.alive())}
        if quorum.met(there):
            return True
        missing = sorted(self._book.name_of(uid) for uid in quorum.missing(there))
        self._defer(now_s, f"{what} waits for {', '.join(missing[:5])}")
        return False

    def _begin_first(self, now_s: float) -> None:
        """Propose the first ring, when enough founders are known and the others had time to be found."""
        known = sorted([self._book.members.me, *self._book.alive()], key=lambda member: member.name)
        if len(known) < self._founders // 2 + 1:
            self._enough_s = None
            self._next_round_s = now_s + RETRY_S
            return
        if self._enough_s is None:
            self._enough_s = now_s
        # One at a time, so that nobody spoils the ballot of another; the next one when the first does not act.
        turn = next(index for index, member in enumerate(known) if member.name == self._book.members.me.name)
        patience_s = max(GATHER_S, GATHER_S_PER_FOUNDER * self._founders)
        wait_s = (0.0 if len(known) >= self._founders else patience_s) + turn * ROUND_S
        if now_s < self._enough_s + wait_s:
            self._next_round_s = min(now_s + RETRY_S, self._enough_s + wait_s)
            return
        self._propose(synod.Quorum(self._founders // 2 + 1), (), self._first, now_s)

    def _first(self) -> Value:
        # In the order of node addresses, so that a person finds the first pods on the first node.
        founders = sorted((self._book.members.me, *self._book.alive()), key=lambda member: member.address)
        seats = tuple(sorted(seat_of(member) for member in founders))
        return Value(seats, (), self._book.ring.found([member.uid for member in founders]))

    def _with(self, guests: dict[str, Seat]) -> Value:
        seats = self._book.seats | {uid: seat for uid, seat in guests.items() if uid not in self._book.left}
        return Value(tuple(sorted(seats.values())), tuple(sorted(self._book.left)), ())

    def _without(self, dead: tuple[str, ...]) -> Value:
        """Every promise is in, and with it everything that was ever given away: what is left goes to heirs.

        The heir of an agent that lost its disk is the one that speaks on its node now, for it knows which of the
        addresses pods still hold there; everybody else's heir is this agent.
        """
        seats = {uid: seat for uid, seat in self._book.seats.items() if uid not in dead}
        segments: list[Segment] = []
        for uid in dead:
            heir = next((one for one in self._book.alive() if uid in self._superseded_by(one)), self._book.members.me)
            seats[heir.uid] = seat_of(heir)
            segments += self._book.ring.inherit(uid, heir.uid)
        return Value(tuple(sorted(seats.values())), tuple(sorted(self._book.left | set(dead))), tuple(sorted(segments)))

    # --- the proposer ---------------------------------------------------------------------------------------------
    def _propose(
        self, quorum: synod.Quorum, removing: tuple[str, ...], choose: Callable[[], Value], now_s: float
    ) -> None:
        ballot = values.Ballot(self._book.voted.promised.number + 1, self._book.uid)
        attempt = Round(self._book.epoch + 1, ballot, quorum, removing, choose, now_s + ROUND_S)
        self._round = attempt
        self.waiting = ""
        # Who has no vote remembers its ballots as well: none may ever be used twice.
        voted = synod.promise(self._book.voted, ballot, removing)
        assert voted is not None, "the ballot is above everything promised here"
        self._book.vote(voted)
        if self._may_vote():
            self._on_promise(attempt, self._book.uid, voted.accepted, voted.value, now_s)
        for uid, member in self._voters(quorum):
            if self._round is not attempt:
                return  # decided by this agent alone
            self._book.outbox.call(
                member.address,
                kinds.Prepare(attempt.epoch, ballot, removing, self._book.state),
                partial(self._on_vote, attempt, uid, now_s),
                partial(attempt.refusals.__setitem__, uid),
            )

    def _voters(self, quorum: synod.Quorum) -> list[tuple[str, Member]]:
        """Whom to ask, this agent excluded."""
        found = [
            (member.uid, member)
            for member in self._book.members.others.values()
            if member.answers and (quorum.of is None or member.uid in quorum.of)
        ]
        return sorted(found, key=lambda pair: pair[0])

    def _on_vote(self, attempt: Round, uid: str, now_s: float, _sender: Member, answer: kinds.Answer) -> None:
        """The answer of an acceptor, in either phase."""
        if not isinstance(answer, kinds.Promise | kinds.Accepted):
            attempt.refusals[uid] = refusal(answer)
            return
        self._book.merge(answer.state)
        if self._round is not attempt:
            return  # what came with the answer has settled it
        if not answer.granted:
            reason = answer.reason if isinstance(answer, kinds.Promise) else "it is bound to another proposal"
            self._on_refused(attempt, uid, answer.promised, reason, now_s)
        elif isinstance(answer, kinds.Promise):
            self._on_promise(attempt, uid, answer.accepted, answer.value, now_s)
        elif attempt.on_accepted(uid):
            assert attempt.value is not None
            self._decided(attempt.value, now_s)

    def _on_promise(
        self, attempt: Round, uid: str, accepted: values.Ballot | None, value: Value | None, now_s: float
    ) -> None:
        if not attempt.on_promise(uid, accepted, value):
            return
        assert attempt.value is not None
        chosen = attempt.value
        if back := [self._book.name_of(uid) for uid in set(chosen.left) - self._book.left if self._book.answers(uid)]:
            attempt.refusals[self._book.uid] = f"{', '.join(back)} was to be removed and answers again"
            return
        voters = self._voters(attempt.quorum)
        if self._may_vote():
            voted = synod.accept(self._book.voted, attempt.ballot, chosen)
            if voted is None:
                return  # somebody else's higher ballot came in between
            self._book.vote(voted)
            if attempt.on_accepted(self._book.uid):
                self._decided(chosen, now_s)
                return
        for other, member in voters:
            self._book.outbox.call(
                member.address,
                kinds.Accept(attempt.epoch, attempt.ballot, chosen),
                partial(self._on_vote, attempt, other, now_s),
                partial(attempt.refusals.__setitem__, other),
            )

    def _on_refused(self, attempt: Round, uid: str, promised: values.Ballot, reason: str, now_s: float) -> None:
        attempt.on_refused(uid, promised, reason)
        if attempt.quorum.of is not None and not attempt.quorum.met(attempt.quorum.of - attempt.refusals.keys()):
            self._give_up(now_s)  # it cannot come about any more: sooner again with a higher ballot

    def _decided(self, value: Value, now_s: float) -> None:
        """The decree is made: take it up and tell everybody."""
        self._round = None
        self._wait_s, self._next_round_s = RETRY_S, now_s
        self._gathering_until_s = now_s + GUESTS_GATHER_S
        self._book.adopt(self._state_after(value))
        self._tell_all()

    def _state_after(self, value: Value) -> RingState:
        ring_id = self._book.ring_id
        if not ring_id:
            words = "\n".join(f"{seat.uid} {seat.name} {seat.address}" for seat in value.seats)
            ring_id = blake2b(words.encode(), digest_size=8).hexdigest()
        return RingState(ring_id, self._book.epoch + 1, value.seats, value.left, value.segments)

    def _tell_all(self) -> None:
        state = self._book.state
        for member in self._book.alive():
            sync = kinds.Sync((self._book.members.me,), (), (), (), (), state, self._book.has_pods)
            self._book.outbox.call(member.address, sync, self._on_told, lambda _reason: None)

    def _on_told(self, _sender: Member, answer: kinds.Answer) -> None:
        if isinstance(answer, kinds.Sync):
            self._book.merge(answer.state)

    def _give_up(self, now_s: float) -> None:
        attempt = self._round
        assert attempt is not None
        self._round = None
        self._book.voted = Voted(
            self._book.voted.epoch,
            max(self._book.voted.promised, attempt.highest, key=lambda ballot: (ballot.number, ballot.uid)),
            self._book.voted.accepted,
            self._book.voted.value,
            self._book.voted.frozen,
        )
        who = attempt.waiting_for({uid: seat.name for uid, seat in self._book.seats.items()})
        why = "; ".join(sorted({reason for reason in attempt.refusals.values() if reason})[:2])
        what = (
            "removal of " + ", ".join(self._book.name_of(uid) for uid in attempt.removing) if attempt.removing else ""
        )
        words = (what, f"waits for {who}" if who else "", why and f"({why})")
        self._defer(now_s, " ".join(word for word in words if word))

    def _defer(self, now_s: float, why: str) -> None:
        if why != self.waiting:
            self._book.outbox.add(Noted("ring waits", (("reason", why),)))
        self.waiting = why
        self._wait_s = min(self._wait_s * 2, RETRY_MAX_S)
        self._next_round_s = now_s + self._wait_s * (0.5 + self._chance.random())

    # --- the acceptor ---------------------------------------------------------------------------------------------
    def _may_vote(self) -> bool:
        return self._book.seated if self._book.ring_id else self._founders > 0

    def on_prepare(self, prepare: kinds.Prepare, *, now_s: float) -> kinds.Promise:
        """Phase 1b; the answer may be sent when everything in the outbox before it is on the disk."""
        self._book.merge(prepare.state)
        reason = self._why_no_promise(prepare)
        if not reason:
            voted = synod.promise(self._book.voted, prepare.ballot, prepare.removing)
            if voted is not None:
                self._book.vote(voted)
                # Its round gets the time that a round may take: two that outbid each other never come to an end.
                self._next_round_s = max(self._next_round_s, now_s + ROUND_S * (1 + self._chance.random()))
                return self._promise(prepare.epoch, granted=True)
            reason = "it is bound to another proposal"
        return self._promise(prepare.epoch, granted=False, reason=reason)

    def _promise(self, epoch: int, *, granted: bool, reason: str = "") -> kinds.Promise:
        voted = self._book.voted
        return kinds.Promise(
            epoch,
            granted,
            voted.promised,
            voted.accepted if granted else None,
            voted.value if granted else None,
            reason,
            self._book.state,
        )

    def _why_no_promise(self, prepare: kinds.Prepare) -> str:
        if self._book.conflict:
            return self._book.conflict
        if prepare.epoch != self._book.epoch + 1:
            return f"it is at epoch {self._book.epoch}"
        if not self._may_vote():
            return "it has no vote"
        if prepare.state.ring != self._book.ring_id:
            return "it is a member of another ring"
        if self._book.uid in prepare.removing:
            return "it is the one to be removed"
        alive = [self._book.name_of(uid) for uid in prepare.removing if self._book.answers(uid)]
        return f"{', '.join(alive)} answers it" if alive else ""

    def on_accept(self, accept: kinds.Accept) -> kinds.Accepted:
        """Phase 2b."""
        voted = None
        if accept.epoch == self._book.epoch + 1 and self._may_vote() and not self._book.conflict:
            voted = synod.accept(self._book.voted, accept.ballot, accept.value)
            if voted is not None:
                self._book.vote(voted)
        return kinds.Accepted(accept.epoch, voted is not None, self._book.voted.promised, self._book.state)


def seat_of(member: Member) -> Seat:
    """The seat that a member takes."""
    return Seat(member.uid, member.name, member.address)
