"""The way out after too many seats were lost for good: those that are left go on as another ring.

A removal needs at least half of the seats. With fewer nothing can ever be agreed again, and only a person can know
whether the others are gone or just not heard. Such a person says so on one of those that are left (`weave recover`).
Then all other seats, each of which must not hear the lost ones either, decide one decree: they keep what they own and
hold, this agent inherits what the lost ones owned, and the ring gets another name (succession.py), so that whatever the
lost ones ever agreed on or will agree on, should they come back, can never be merged with it.

The word of a person counts for a few seconds only: when it does not come about in that time, nothing has changed. Once
one agent has accepted the decree it is finished by whoever has, also after a restart.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from plugin.core.ipam import synod
from plugin.core.ipam.agenda import Agenda
from plugin.core.ipam.ringbook import RingBook
from plugin.core.messages.values import Seat


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a recovery would do, and why it cannot be done.

    Attributes:
        lost: The seats that are given up.
        left: The seats that go on; all of them have to agree.
        silent: Those of `left` that do not answer.
        addresses: How many addresses each of the lost owns, as far as this agent knows.
        heirs: The nodes that get them.
        obstacle: Why it cannot be done, in a sentence; empty when it can.
        advice: What to do instead.
    """

    lost: tuple[Seat, ...]
    left: tuple[Seat, ...]
    silent: tuple[Seat, ...]
    addresses: dict[str, int]
    heirs: dict[str, str]
    obstacle: str
    advice: str


class Recovery:
    """What a person said about lost seats, and what follows from it.

    Args:
        book: What is agreed so far; its members say who answers.
        agenda: Writes the decree.
    """

    def __init__(self, book: RingBook, agenda: Agenda) -> None:
        self._book = book
        self._agenda = agenda
        self._word: frozenset[str] = frozenset()
        self._until_s = float("-inf")

    @property
    def wanted(self) -> bool:
        """Whether one has to be carried out: a person said so, or it was accepted here."""
        return bool(self._word) or self._book.recovery is not None

    @property
    def next_timer_s(self) -> float:
        """Until when the word counts; infinity when none was given."""
        return self._until_s if self._word else float("inf")

    @property
    def majority_is_silent(self) -> bool:
        """Whether so few seats answer that nothing can be agreed, not even a removal."""
        there = {self._book.uid, *(member.uid for member in self._book.alive())}
        return bool(self._book.seats) and 2 * len(there & self._book.seats.keys()) < len(self._book.seats)

    def say(self, lost: frozenset[str], *, until_s: float) -> None:
        """A person says that these seats are gone for good; it counts until `until_s`."""
        self._word, self._until_s = lost, until_s

    def forget_old(self, *, now_s: float) -> None:
        """A word that has not led to anything in time is taken back, and one that was carried out is done with."""
        self._word &= self._book.seats.keys()
        if now_s >= self._until_s:
            self._word = frozenset()

    def silent_seats(self) -> tuple[Seat, ...]:
        """Who has a seat and does not answer, this agent excluded."""
        book = self._book
        return _by_name(seat for uid, seat in book.seats.items() if uid != book.uid and not book.answers(uid))

    def lost(self) -> tuple[str, ...]:
        """Whom to give up: those the person named, and those whose disk is known to be lost.

        Nobody when there is only to be finished what was accepted here.
        """
        if not self._word or self._word <= self._accepted:
            return ()
        return tuple(sorted(self._word | self._agenda.superseded()))

    @property
    def _accepted(self) -> set[str]:
        recovery = self._book.recovery
        return set() if recovery is None else {seat.uid for seat in recovery.lost}

    def quorum(self) -> synod.Quorum:
        """All seats that are not given up."""
        return synod.everybody_but(self._book.seats, self.lost() or self._accepted)

    def witnesses(self, quorum: synod.Quorum) -> set[str]:
        """Who answers without having a vote: it may know of a seat that this agent has not heard of."""
        return {member.uid for member in self._book.alive()} - (quorum.of or frozenset())

    def prospect(self, named: frozenset[str]) -> Prospect:
        """What would follow if a person said that these seats are gone for good; nothing changes by asking."""
        book = self._book
        lost = {uid for uid in named | (self._agenda.superseded() if named else set()) if uid in book.seats}
        left = {uid: seat for uid, seat in book.seats.items() if uid not in lost}
        silent = tuple(seat for seat in self.silent_seats() if seat.uid in left)
        owners = book.ring.owners()
        obstacle, advice = self._obstacle(lost, silent)
        return Prospect(
            lost=_by_name(book.seats[uid] for uid in lost),
            left=_by_name(left.values()),
            silent=silent,
            addresses={uid: owners.get(uid, 0) for uid in lost},
            heirs={uid: self._agenda.heir_of(uid).name for uid in lost},
            obstacle=obstacle,
            advice=advice,
        )

    def _obstacle(self, lost: set[str], silent: tuple[Seat, ...]) -> tuple[str, str]:  # noqa: PLR0911 - a reason each
        book = self._book
        if book.conflict:
            return book.conflict, ""
        if not book.ring_id:
            return "there is no ring yet that could be recovered", "`weave status ipam` says what it waits for"
        if not book.seated:
            seats = _names(tuple(book.seats.values()))
            return "this node has no seat in the ring, so it cannot say how it goes on", f"ask a node of these: {seats}"
        if book.recovery is not None and lost <= self._accepted:
            return "", ""  # it is under way already
        if not lost:
            return "every seat of the ring answers: nothing is lost", "`weave status ipam` shows all of them"
        if answering := _names(tuple(book.seats[uid] for uid in lost if uid == book.uid or book.answers(uid))):
            return f"{answering} answers: only what is gone for good can be given up", "on that node: weave reset"
        if synod.survivors(book.seats, lost) is not None:
            names = " ".join(sorted(book.name_of(uid) for uid in lost))
            return (
                f"{len(book.seats) - len(lost)} of {len(book.seats)} seats are left, which is enough to agree",
                f"remove what is gone for good without a recovery: weave rmpeer {names}",
            )
        if silent:
            return (
                f"{_names(silent)} has a seat, does not answer either, and may hold addresses that the lost gave away",
                "bring it back first; only if it is gone for good as well, name it too",
            )
        return "", ""


def _by_name(seats: Iterable[Seat]) -> tuple[Seat, ...]:
    return tuple(sorted(seats, key=lambda seat: (seat.name, seat.uid)))


def _names(seats: tuple[Seat, ...]) -> str:
    return ", ".join(sorted(seat.name for seat in seats))
