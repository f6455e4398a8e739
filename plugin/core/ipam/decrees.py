"""The decrees of the ring: its foundation, new seats, and the removal of members that are gone for good.

Here an agent decides when to propose one, to whom, and when to give up; `waiting` says for whom it waits. What is to be
decided is in agenda.py, how this agent votes on it in acceptor.py, and why a decision is safe in synod.py.
"""

from collections.abc import Callable, Collection
from functools import partial
from hashlib import blake2b
from typing import Final

from plugin.core.ipam import succession, synod
from plugin.core.ipam.acceptor import Acceptor
from plugin.core.ipam.agenda import Agenda, seat_of
from plugin.core.ipam.recovery import Recovery
from plugin.core.ipam.ringbook import RingBook
from plugin.core.ipam.synod import Round, Voted
from plugin.core.membership.swim import Chance
from plugin.core.messages import kinds, values
from plugin.core.messages.values import Member, RingState, Seat, Value
from plugin.core.outbox import Noted, refusal

GATHER_S: Final = 1.0
_GATHER_S_PER_FOUNDER: Final = 0.05
"""How long the first agreement waits for the founders that are not known yet, once there are enough of them: many that
are started together share the processors of one machine."""

ROUND_S: Final = 2.0
RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 2.0
_HEIR_PATIENCE_S: Final = 2.0
"""How long an agent that lost its disk tries to inherit from its former self before others just give it a seat."""

_FREEZE_S: Final = 10.0
"""After a removal was promised and did not come about for so long, somebody decides that nothing changes."""

_TOO_FEW: Final = "fewer than half of the seats would be left to agree: `weave recover` shows the way out"

_GUESTS_MAX: Final = 1024
_GUESTS_GATHER_S: Final = 0.3
"""After a decree those who want a seat are gathered for so long: a hundred that join at once need three decrees, not a
hundred, and every decree means to ask more than half of all seats. The first guest waits for nothing."""


class Decrees:
    """One agent as proposer and acceptor.

    Args:
        book: What is agreed so far.
        chance: Randomness.
        founders: How many agents are set up to make the first agreement; 0 when this one is not among them.

    Attributes:
        recovery: What a person said after too many seats were lost for good.
        waiting: Whom or what a decree waits for, in words; empty when none does.
    """

    def __init__(self, book: RingBook, chance: Chance, founders: int) -> None:
        self._book = book
        self._chance = chance
        self._founders = founders
        self._agenda = Agenda(book)
        self._acceptor = Acceptor(book, founders)
        self.recovery = Recovery(book, self._agenda)
        self._frozen_s: float | None = None
        self._round: Round | None = None
        self._next_round_s = 0.0
        self._wait_s = RETRY_S
        self._enough_s: float | None = None
        self._guests: dict[str, tuple[Seat, float]] = {}
        self._gathering_until_s = 0.0
        self.waiting = ""
        book.at_new_epoch(self._on_new_epoch)

    @property
    def removals(self) -> frozenset[str]:
        """The names of nodes that are gone for good, as a person said here."""
        return frozenset(self._agenda.removals)

    @property
    def founding(self) -> str:
        """What the first agreement waits for, in Weave's words."""
        if not self._founders:
            return "awaiting a ring: no member of one has answered yet"
        return f"awaiting consensus (quorum {self._founders // 2 + 1}, known {1 + len(self._book.alive())})"

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when there is nothing to do."""
        times = [self.recovery.next_timer_s]
        if self._round is not None:
            times.append(self._round.deadline_s)
        elif self._wants_one():
            times.append(self._next_round_s)
        return min(times)  # what is frozen is looked at with the next round: `_wants_one`

    def on_timer(self, *, now_s: float) -> None:
        """Whatever is due."""
        if self._round is not None and now_s >= self._round.deadline_s:
            self._give_up(now_s)
        self.recovery.forget_old(now_s=now_s)
        if self._frozen_s is None and self._book.voted.frozen:
            self._frozen_s = now_s
        elif not self._book.voted.frozen:
            self._frozen_s = None
        if self._round is None and not self._wants_one():
            self.waiting = ""  # what was wanted is not any more
        elif self._round is None and now_s >= self._next_round_s:
            self._begin(now_s)

    def remove(self, name: str) -> None:
        """A person says that this node is gone for good; it holds until an agent of that name answers again."""
        self._agenda.removals.add(name)
        self._next_round_s = 0.0

    def recover(self, lost: frozenset[str], *, until_s: float) -> None:
        """A person says that these seats are gone for good, and that the others go on as another ring (recovery.py)."""
        self.recovery.say(lost, until_s=until_s)
        self._next_round_s = 0.0

    def welcome(self, guest: Member, *, now_s: float) -> None:
        """A member wants a seat."""
        if len(self._guests) < _GUESTS_MAX and guest.uid not in self._guests:
            self._guests[guest.uid] = seat_of(guest), now_s
            self._next_round_s = min(self._next_round_s, now_s)

    def _on_new_epoch(self) -> None:
        self._round, self._next_round_s, self.waiting = None, 0.0, ""
        self._guests = {uid: guest for uid, guest in self._guests.items() if uid not in self._book.seats}
        self._agenda.removals &= {seat.name for seat in self._book.seats.values()}

    # --- what is to be decided ------------------------------------------------------------------------------------
    def _wants_one(self) -> bool:
        if self._book.conflict:
            return False
        if not self._book.ring_id:
            return self._founders > 0
        if self.recovery.wanted or self._agenda.dead() or (self._book.seated and self._guests):
            return True
        return self._book.seated and bool(self._book.voted.frozen)

    def _begin(self, now_s: float) -> None:
        if not self._book.ring_id:
            self._begin_first(now_s)
            return
        if self.recovery.wanted:
            self._begin_recovery(now_s)
            return
        dead = self._agenda.dead()
        if dead:
            if alive := [self._book.name_of(uid) for uid in dead if self._book.answers(uid)]:
                self._defer(now_s, f"{', '.join(alive)} answers and cannot be removed")
                return
            quorum = synod.survivors(self._book.seats, dead)
            if quorum is None:
                names = ", ".join(sorted(self._book.name_of(uid) for uid in dead))
                self._defer(now_s, f"removal of {names}: {_TOO_FEW}")
                return
            if not self._reachable(quorum, f"removal of {', '.join(self._book.name_of(uid) for uid in dead)}", now_s):
                return
            self._propose(quorum, dead, lambda: self._agenda.without(dead), now_s)
            return
        seated = {seat.name for seat in self._book.seats.values()}
        guests = {
            uid: seat
            for uid, (seat, since_s) in self._guests.items()
            if seat.name not in seated or now_s - since_s >= _HEIR_PATIENCE_S
        }
        if guests and now_s < self._gathering_until_s:
            self._next_round_s = self._gathering_until_s
        elif guests or (self._frozen_s is not None and now_s - self._frozen_s >= _FREEZE_S):
            quorum = synod.majority(self._book.seats)
            what = f"seat of {', '.join(sorted(seat.name for seat in guests.values())) or 'nobody new'}"
            if self._reachable(quorum, what, now_s):
                self._propose(quorum, (), lambda: self._agenda.with_guests(guests), now_s)
        else:
            self._next_round_s = now_s + RETRY_S

    def _begin_recovery(self, now_s: float) -> None:
        """Propose what a person said; or, without `lost`, finish what was accepted here, whoever is heard meanwhile."""
        lost = self.recovery.lost()
        quorum = self.recovery.quorum()
        what = f"recovery without {', '.join(self._book.name_of(uid) for uid in lost)}" if lost else "recovery"
        if alive := [self._book.name_of(uid) for uid in lost if self._book.answers(uid)]:
            self._defer(now_s, f"{', '.join(alive)} answers and cannot be given up")
        elif self._reachable(quorum, what, now_s):
            witnesses = self.recovery.witnesses(quorum)
            self._propose(quorum, lost, lambda: self._agenda.recovered(lost), now_s, witnesses=witnesses)

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
        patience_s = max(GATHER_S, _GATHER_S_PER_FOUNDER * self._founders)
        wait_s = (0.0 if len(known) >= self._founders else patience_s) + turn * ROUND_S
        if now_s < self._enough_s + wait_s:
            self._next_round_s = min(now_s + RETRY_S, self._enough_s + wait_s)
            return
        self._propose(synod.Quorum(self._founders // 2 + 1), (), self._agenda.first, now_s)

    # --- the proposer ---------------------------------------------------------------------------------------------
    def _propose(
        self,
        quorum: synod.Quorum,
        removing: tuple[str, ...],
        choose: Callable[[], Value],
        now_s: float,
        *,
        witnesses: Collection[str] | None = None,
    ) -> None:
        """Begin a round; `witnesses` only for a recovery."""
        ballot = values.Ballot(self._book.voted.promised.number + 1, self._book.uid)
        attempt = Round(self._book.epoch + 1, ballot, quorum, removing, choose, now_s + ROUND_S)
        attempt.unheard, attempt.recovering = set(witnesses or ()), witnesses is not None
        self._round = attempt
        self.waiting = ""
        # Who has no vote remembers its ballots as well: none may ever be used twice.
        voted = synod.promise(self._book.voted, ballot, removing)
        assert voted is not None, "the ballot is above everything promised here"
        self._book.vote(voted)
        if self._acceptor.may_vote:
            self._on_promise(attempt, self._book.uid, voted.accepted, voted.value, now_s)
        for uid, member in self._voters(quorum, attempt.unheard):
            if self._round is not attempt:
                return  # decided by this agent alone
            self._book.outbox.call(
                member.address,
                kinds.Prepare(attempt.epoch, ballot, removing, self._book.state),
                partial(self._on_vote, attempt, uid, now_s),
                partial(attempt.refusals.__setitem__, uid),
            )

    def _voters(self, quorum: synod.Quorum, witnesses: Collection[str] = ()) -> list[tuple[str, Member]]:
        """Whom to ask, this agent excluded."""
        found = [
            (member.uid, member)
            for member in self._book.members.others.values()
            if member.answers and (quorum.of is None or member.uid in quorum.of or member.uid in witnesses)
        ]
        return sorted(found, key=lambda pair: pair[0])

    def _on_vote(self, attempt: Round, uid: str, now_s: float, _sender: Member, answer: kinds.Answer) -> None:
        """The answer of an acceptor, in either phase."""
        if not isinstance(answer, kinds.Promise | kinds.Accepted):
            attempt.refusals[uid] = refusal(answer)
            return
        self._book.merge(answer.state, whose=uid)
        if self._round is not attempt:
            return  # what came with the answer has settled it
        if attempt.quorum.of is not None and uid not in attempt.quorum.of:
            if attempt.on_witness(uid):
                self._prepared(attempt, now_s)
        elif not answer.granted:
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
        if attempt.on_promise(uid, accepted, value):
            self._prepared(attempt, now_s)

    def _prepared(self, attempt: Round, now_s: float) -> None:
        """The first phase is complete: have the value accepted."""
        assert attempt.value is not None
        chosen = attempt.value
        leaving = set(chosen.left) - self._book.left
        # A recovery that somebody has accepted is carried through, whoever comes back: it may be decided already.
        carried_through = attempt.recovering and attempt.bound
        back = [] if carried_through else [self._book.name_of(uid) for uid in leaving if self._book.answers(uid)]
        if back:
            attempt.refusals[self._book.uid] = f"{', '.join(back)} was to be removed and answers again"
            return
        if chosen.origins and leaving & (attempt.quorum.of or leaving):
            attempt.refusals[self._book.uid] = "a recovery was begun, which those that it gives up cannot agree to"
            return
        voters = self._voters(attempt.quorum)
        if self._acceptor.may_vote:
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
        self._gathering_until_s = now_s + _GUESTS_GATHER_S
        self._book.adopt(self._state_after(value))
        self._tell_all()

    def _state_after(self, value: Value) -> RingState:
        ring_id = self._book.ring_id
        if value.origins:
            ring_id = succession.name_of(value)
        elif not ring_id:
            words = "\n".join(f"{seat.uid} {seat.name} {seat.address}" for seat in value.seats)
            ring_id = blake2b(words.encode(), digest_size=8).hexdigest()
        origins = value.origins or self._book.origins
        return RingState(ring_id, self._book.epoch + 1, value.seats, value.left, value.segments, origins)

    def _tell_all(self) -> None:
        state = self._book.state
        for member in self._book.alive():
            sync = kinds.Sync((self._book.members.me,), (), (), (), (), state, self._book.has_pods)
            self._book.outbox.call(member.address, sync, self._on_told, lambda _reason: None)

    def _on_told(self, sender: Member, answer: kinds.Answer) -> None:
        if isinstance(answer, kinds.Sync):
            self._book.merge(answer.state, whose=sender.uid)

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
        self._wait_s = min(self._wait_s * 2, _RETRY_MAX_S)
        self._next_round_s = now_s + self._wait_s * (0.5 + self._chance.random())

    # --- the acceptor ---------------------------------------------------------------------------------------------
    def on_prepare(self, prepare: kinds.Prepare, proposer: str, *, now_s: float) -> kinds.Promise:
        """Phase 1b; the answer may be sent when everything in the outbox before it is on the disk."""
        promise = self._acceptor.on_prepare(prepare, proposer)
        if promise.granted:
            # Its round gets the time that a round may take: two that outbid each other never come to an end.
            self._next_round_s = max(self._next_round_s, now_s + ROUND_S * (1 + self._chance.random()))
        return promise

    def on_accept(self, accept: kinds.Accept) -> kinds.Accepted:
        """Phase 2b; sent as the answer of phase 1b is."""
        return self._acceptor.on_accept(accept)
