"""Gifts: who has no free address asks, who has some gives, and nobody else is involved.

The owner writes the gift down before it says so; if the answer is lost, it is given again with the next question. Gifts
go to members with a seat only: a removal has to be able to ask everybody who may have been given something.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.ipam.decrees import RETRY_S, Decrees
from plugin.core.ipam.ring import Ring, RingError
from plugin.core.ipam.ringbook import RingBook
from plugin.core.membership.swim import Chance
from plugin.core.messages import kinds
from plugin.core.messages.values import Member, Segment
from plugin.core.outbox import Noted, SpaceChanged, refusal

_WISHES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Wish:
    """Addresses that are wanted here: of `within`, exactly `exact`, or any."""

    within: IPv4Network | None = None
    exact: IPv4Address | None = None


@dataclass(slots=True)
class _Asking:
    """How far a wish has come."""

    until_s: float
    next_s: float
    tried: set[str] = field(default_factory=set)
    asked: str = ""
    answer: str = ""


class Gifts:
    """One agent as giver and asker.

    Args:
        book: What is agreed so far.
        decrees: Gives seats to those who have none yet.
        chance: Randomness.
        status: What the ring waits for, in words.
        who_has: Who has how many addresses, in words.
    """

    def __init__(
        self,
        book: RingBook,
        decrees: Decrees,
        chance: Chance,
        *,
        status: Callable[[], str],
        who_has: Callable[[], str],
    ) -> None:
        self._book = book
        self._decrees = decrees
        self._chance = chance
        self._status = status
        self._who_has = who_has
        self._wishes: dict[Wish, _Asking] = {}
        self._free: dict[str, int] = {}

    @property
    def wanted(self) -> bool:
        """Whether somebody here waits for addresses."""
        return bool(self._wishes)

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when nothing is wanted."""
        return min((asking.next_s for asking in self._wishes.values() if not asking.asked), default=float("inf"))

    def want(self, wish: Wish, *, now_s: float, until_s: float) -> None:
        """Addresses are needed: ask around until there are some, or until `until_s`; SpaceChanged tells."""
        known = self._wishes.get(wish)
        if known is not None:
            known.until_s = max(known.until_s, until_s)
        elif len(self._wishes) < _WISHES_MAX:
            self._wishes[wish] = _Asking(until_s, now_s)

    def why_not(self, wish: Wish) -> str:
        """What is known about a wish that is not fulfilled; it begins with "no member" when nobody has anything."""
        asking = self._wishes.get(wish)
        return asking.answer if asking is not None else ""

    def satisfied(self, wish: Wish) -> None:
        """The wish is fulfilled, or nobody waits for it any more."""
        self._wishes.pop(wish, None)

    def heard_free(self, uid: str, free: int) -> None:
        """A member says how many addresses it could give away."""
        self._free[uid] = free

    def hand_over(self, heir: str) -> None:
        """Give everything to `heir`, at once: this agent is about to leave."""
        owned = self._book.ring.owned_by(self._book.uid)
        if owned:
            self._book.changed(self._book.ring.grant(self._book.uid, heir, owned))

    # --- giving ---------------------------------------------------------------------------------------------------
    def on_ask(self, ask: kinds.Ask, sender: Member, *, now_s: float) -> kinds.Grant:  # noqa: PLR0911 - a reason each
        """A member wants addresses."""
        self._book.merge(ask.state, whose=sender.uid)
        free = self._book.allocator.free
        if not self._book.ring_id or ask.state.ring not in {"", self._book.ring_id}:
            return kinds.Grant((), 0, "it has no ring" if not self._book.ring_id else "it is a member of another ring")
        if sender.uid in self._book.gone:
            return kinds.Grant((), 0, f"{sender.name} was removed from the ring: `weave reset` makes it a new member")
        if sender.uid not in self._book.seats:
            if not self._book.seated:
                return kinds.Grant((), 0, "it has no seat in the ring itself")
            self._decrees.welcome(sender, now_s=now_s)
            return kinds.Grant(
                (), free, "awaiting a seat" + (f": {self._decrees.waiting}" if self._decrees.waiting else "")
            )
        already = self._already(ask, sender.uid)
        if already:
            return kinds.Grant(already, free, "")
        within = IPv4Network(ask.within) if ask.within else None
        parts = self._book.allocator.donate(within=within, exact=ask.exact, now_s=now_s)
        if not parts:
            return kinds.Grant((), free, "it has none to spare")
        given = self._book.ring.grant(self._book.uid, sender.uid, parts)
        self._book.changed(given)
        self._book.outbox.add(
            Noted("addresses given", (("to", sender.name), ("ranges", ", ".join(str(part) for part in parts))))
        )
        return kinds.Grant(given, self._book.allocator.free, "")

    def _already(self, ask: kinds.Ask, uid: str) -> tuple[Segment, ...]:
        """What the asker was given before without knowing it: the answer was lost."""
        if not ask.state.ring:
            return ()
        theirs = Ring(self._book.ring.network)
        try:
            theirs.merge(ask.state.segments)
        except RingError:
            return ()  # it was refused, and noted, when it was merged here
        return theirs.merge(segment for segment in self._book.ring.segments if segment.owner == uid)

    # --- asking ---------------------------------------------------------------------------------------------------
    def on_timer(self, *, now_s: float) -> None:
        """Ask for what is wanted, and forget what nobody waits for any more."""
        for wish, asking in list(self._wishes.items()):
            if now_s >= asking.until_s:
                del self._wishes[wish]
                self._book.outbox.add(SpaceChanged())
            elif not asking.asked and now_s >= asking.next_s:
                self._ask(wish, asking, now_s)

    def _ask(self, wish: Wish, asking: _Asking, now_s: float) -> None:
        asking.next_s = now_s + RETRY_S
        donor = self._donor(wish, asking)
        if donor is None:
            return
        asking.asked = donor.uid
        within = str(wish.within) if wish.within is not None else ""
        self._book.outbox.call(
            donor.address,
            kinds.Ask(within, wish.exact, self._book.state),
            lambda _sender, answer: self._on_grant(wish, donor, answer, now_s),
            lambda reason: self._on_silence(wish, donor, reason, now_s),
        )

    def _donor(self, wish: Wish, asking: _Asking) -> Member | None:  # noqa: PLR0911 - a reason each
        """Whom to ask: the owner of an exact address, else somebody at random, those who have more more often."""
        if not self._book.ring_id:
            asking.answer = self._status()
            return None
        alive = {member.uid: member for member in self._book.alive()}
        if wish.exact is not None and self._book.seated:
            owner = self._book.ring.owner_of(wish.exact)
            if owner not in alive:
                asking.answer = (
                    f"{wish.exact} belongs to {self._book.name_of(owner) or 'nobody'}, which does not answer"
                )
            return alive.get(owner)
        pool = [member for uid, member in sorted(alive.items()) if uid in self._book.seats]
        fresh = [member for member in pool if member.uid not in asking.tried]
        if pool and not fresh:
            if self._book.seated:
                asking.answer = "no member of the ring that answers has an address to spare: " + self._who_has()
                self._book.outbox.add(SpaceChanged())
            asking.tried.clear()
            return None
        if not fresh:
            asking.answer = self._status()
            return None
        if not self._book.seated:
            # All guests ask the same one, the next only when it is silent: proposers would be in each other's way.
            return min(fresh, key=lambda member: member.name)
        owned = self._book.ring.owners()
        weights = [1 + self._free.get(member.uid, owned.get(member.uid, 0)) for member in fresh]
        mark = self._chance.random() * sum(weights)
        for member, weight in zip(fresh, weights, strict=True):
            mark -= weight
            if mark < 0:
                return member
        return fresh[-1]

    def _on_grant(self, wish: Wish, donor: Member, answer: kinds.Answer, now_s: float) -> None:
        if not isinstance(answer, kinds.Grant):
            self._on_no_grant(wish, donor, refusal(answer), now_s)
            return
        self._free[donor.uid] = answer.free
        if answer.segments and self._book.take(answer.segments):
            if (asking := self._wishes.get(wish)) is not None:
                asking.asked, asking.next_s = "", now_s + RETRY_S
            self._book.outbox.add(SpaceChanged())
            return
        self._on_no_grant(wish, donor, f"{donor.name}: {answer.reason or 'nothing new'}", now_s)

    def _on_silence(self, wish: Wish, donor: Member, reason: str, now_s: float) -> None:
        if (asking := self._wishes.get(wish)) is not None:
            asking.tried.add(donor.uid)
        self._on_no_grant(wish, donor, f"{donor.name} does not answer ({reason})", now_s)

    def _on_no_grant(self, wish: Wish, donor: Member, reason: str, now_s: float) -> None:
        asking = self._wishes.get(wish)
        if asking is None:
            return
        asking.asked = ""
        asking.answer = reason
        if self._book.seated:
            asking.tried.add(donor.uid)
            asking.next_s = now_s
