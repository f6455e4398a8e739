"""What is to be decided about the ring, and what a decree about it says: the first ring, new seats, removals.

What is "gone for good" is never guessed from silence. It is known when a member says itself that it leaves (`reset`),
when its node speaks with a new identity because its disk is lost, or when a person says so (`rmpeer`) and nobody
hears the member. When a decree is proposed, and how it comes about, is decided in decrees.py and synod.py.
"""

from collections.abc import Mapping
from dataclasses import replace

from plugin.core.ipam.ringbook import RingBook
from plugin.core.messages.values import ORIGINS_MAX, Member, MemberState, Origin, Seat, Segment, Value


class Agenda:
    """What one agent would have decided.

    Args:
        book: What is agreed so far; its members say who is there.

    Attributes:
        removals: The names of nodes that are gone for good, as a person said here.
    """

    def __init__(self, book: RingBook) -> None:
        self._book = book
        self._seen: tuple[int, ...] = ()
        self._known: tuple[str, ...] = ()
        self.removals: set[str] = set()

    def dead(self) -> tuple[str, ...]:
        """The seats that are known to be gone for good, as far as it is this agent's part to say so."""
        seen = self._book.members.version, self._book.members.me.life, self._book.epoch, len(self.removals)
        if seen != self._seen:
            self._seen, self._known = seen, self._find()
        return self._known

    def _find(self) -> tuple[str, ...]:
        me = self._book.members.me
        self.removals -= {member.name for member in self._book.alive()}
        dead = self._superseded_by(me) | {uid for uid, seat in self._book.seats.items() if seat.name in self.removals}
        leaving = {member.uid for member in self._book.members.others.values() if member.state is MemberState.LEFT}
        staying = min((seat.name for uid, seat in self._book.seats.items() if uid not in leaving), default="")
        if self._book.seated and staying == me.name:
            dead |= leaving & self._book.seats.keys()
        # Each on its own would wait for the others' votes, so all that are gone are removed together.
        return tuple(sorted(dead | self.superseded() if dead else ()))

    def superseded(self) -> set[str]:
        """Seats of agents whose disk is lost: on the same node another one speaks now, so they never will again."""
        present = {(member.name, member.address): member.uid for member in (self._book.members.me, *self._book.alive())}
        return {uid for uid, seat in self._book.seats.items() if present.get((seat.name, seat.address), uid) != uid}

    def _superseded_by(self, member: Member) -> set[str]:
        return {
            uid
            for uid, seat in self._book.seats.items()
            if (seat.name, seat.address) == (member.name, member.address) and uid != member.uid
        }

    def first(self) -> Value:
        """The first ring: equal parts for all founders that are there."""
        # In the order of node addresses, so that a person finds the first pods on the first node.
        founders = sorted((self._book.members.me, *self._book.alive()), key=lambda member: member.address)
        seats = tuple(sorted(seat_of(member) for member in founders))
        return Value(seats, (), self._book.ring.found([member.uid for member in founders]))

    def with_guests(self, guests: Mapping[str, Seat]) -> Value:
        """Seats for these, by uid; nothing changes hands."""
        seats = self._book.seats | {uid: seat for uid, seat in guests.items() if uid not in self._book.left}
        return Value(tuple(sorted(seats.values())), tuple(sorted(self._book.left)), ())

    def without(self, dead: tuple[str, ...]) -> Value:
        """Every promise is in, and with it everything that was ever given away: what is left goes to heirs.

        The heir of an agent that lost its disk is the one that speaks on its node now, for it knows which of the
        addresses pods still hold there; everybody else's heir is this agent.
        """
        seats = {uid: seat for uid, seat in self._book.seats.items() if uid not in dead}
        segments: list[Segment] = []
        for uid in dead:
            heir = self.heir_of(uid)
            seats[heir.uid] = seat_of(heir)
            segments += self._book.ring.inherit(uid, heir.uid)
        return Value(tuple(sorted(seats.values())), tuple(sorted(self._book.left | set(dead))), tuple(sorted(segments)))

    def heir_of(self, uid: str) -> Member:
        """Who gets what a seat owns that is gone for good."""
        return next((one for one in self._book.alive() if uid in self._superseded_by(one)), self._book.members.me)

    def recovered(self, lost: tuple[str, ...]) -> Value:
        """As `without`, when too few are left to agree: what follows is another ring, and says what it comes from."""
        given_up = tuple(sorted(self._book.seats[uid] for uid in lost))
        origin = Origin(self._book.ring_id, self._book.epoch, given_up)
        return replace(self.without(lost), origins=(*self._book.origins, origin)[-ORIGINS_MAX:])


def seat_of(member: Member) -> Seat:
    """The seat that a member takes."""
    return Seat(member.uid, member.name, member.address)
