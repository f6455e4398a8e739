"""Who owns which addresses, and how that changes: read this file first, then what it names.

Four kinds of change, in the order of what they cost:
- **A gift** (gifts.py): an owner gives some of its free addresses to a member that asks. Nobody else is involved; the
  owner writes it down before it says so. Gifts go to seated members only.
- **A new member** takes a seat by a decree (decrees.py, synod.py) of more than half of the seats.
- **A removal** hands the space of members that are gone for good to an heir, by a decree of *all* other seats. Each of
  them first promises to take no gift of the dead any more, and tells what it had from them. So when the decree comes
  about, everything the dead gave away is known, and what is left can be given out again: nobody else can hold it.
- **A recovery** (recovery.py, succession.py) is the way out when so many seats are lost for good that nothing of this
  is possible: a person says so, and those that are left go on as another ring.

The ring (ring.py) is the state that results; ringbook.py keeps it, on the disk before anything is said of it.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network

from plugin.core.ipam.allocator import RingAllocator
from plugin.core.ipam.decrees import Decrees
from plugin.core.ipam.gifts import Gifts, Wish
from plugin.core.ipam.ringbook import RingBook
from plugin.core.membership.swim import Chance
from plugin.core.messages import kinds
from plugin.core.messages.values import Member
from plugin.core.outbox import Outbox

__all__ = ["Council", "Holding", "Wish"]


@dataclass(frozen=True, slots=True)
class Holding:
    """What one owner has, for status.

    Attributes:
        uid: The owner.
        name: Its node.
        addresses: How many of the range.
        state: Empty when all is well; else what is the matter and what helps.
    """

    uid: str
    name: str
    addresses: int
    state: str


class Council(RingBook):
    """One agent's part in the agreements about addresses.

    Args:
        network: The pod range.
        outbox: Where messages go; its members say who answers.
        allocator: Gets the ranges that are this agent's.
        chance: Randomness.
        founders: How many agents are set up to make the first agreement; 0 when this one is not among them.
    """

    def __init__(
        self, *, network: IPv4Network, outbox: Outbox, allocator: RingAllocator, chance: Chance, founders: int
    ) -> None:
        super().__init__(network, outbox, allocator)
        self.decrees = Decrees(self, chance, founders)
        self.gifts = Gifts(self, self.decrees, chance, status=self.status, who_has=self._who_has)

    @property
    def waiting(self) -> str:
        """Whom or what a decree waits for; empty when none does."""
        return self.decrees.waiting

    def status(self) -> str:
        """One line, in Weave's words where it has them."""
        if self.conflict:
            return self.conflict
        if not self.ring_id:
            return self.decrees.founding
        because = f" ({self.waiting})" if self.waiting else ""
        if not self.seated:
            return f"awaiting a seat in the ring{because}"
        if self.gifts.wanted:
            return f"waiting for IP(s) to become available{because}"
        return f"ready{because}"

    def trouble(self) -> tuple[str, str]:
        """What is wrong that does not end by itself, and what to do; two empty texts when nothing is."""
        if self.removed or self.refused:
            return f"this node gives no addresses out: {self.conflict}", "delete its pods, then `weave reset` here"
        recovery = self.decrees.recovery
        if not recovery.majority_is_silent:
            return "", ""
        names = ", ".join(seat.name for seat in recovery.silent_seats()[:5])
        return (
            f"most seats of the ring do not answer ({names}): no new seat and no removal can be agreed",
            "bring them back; only if they are gone for good: weave recover",
        )

    def holdings(self) -> list[Holding]:
        """Who has how much of the range, this agent first."""
        found = []
        for uid, count in self.ring.owners().items():
            name = self.name_of(uid)
            found.append(Holding(uid, name, count, self._trouble(uid, name)))
        return sorted(found, key=lambda one: (one.uid != self.uid, one.name))

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when there is nothing to do."""
        return min(self.gifts.next_timer_s(), self.decrees.next_timer_s())

    def on_timer(self, *, now_s: float) -> None:
        """Whatever is due."""
        me = self.members.me
        if self.seated and self.seats[self.uid].address != me.address:
            # Its node has another address: whoever finds nobody looks where the seats are.
            self.decrees.welcome(me, now_s=now_s)
        self.gifts.on_timer(now_s=now_s)
        self.decrees.on_timer(now_s=now_s)

    def answer(self, request: kinds.Request, sender: Member, *, now_s: float) -> kinds.Answer:
        """What a member asks; the answer may be sent when everything in the outbox before it is on the disk."""
        match request:
            case kinds.Prepare():
                return self.decrees.on_prepare(request, sender.uid, now_s=now_s)
            case kinds.Accept():
                return self.decrees.on_accept(request)
            case kinds.Ask():
                return self.gifts.on_ask(request, sender, now_s=now_s)
        raise AssertionError(f"{request.KIND.name} is no question to the council")

    def _who_has(self) -> str:
        return ", ".join(f"{one.name} {one.addresses}{one.state and ' (' + one.state + ')'}" for one in self.holdings())

    def _trouble(self, uid: str, name: str) -> str:
        if uid == self.uid or self.answers(uid):
            return ""
        if name in self.decrees.removals:
            return f"being removed{self.waiting and ': ' + self.waiting}"
        other = self.members.others.get(name)
        if other is not None and other.uid != uid:
            return f"its disk was lost; {name} inherits{self.waiting and ': ' + self.waiting}"
        if self.conflict:
            return f"unreachable! comes back with {name}"
        if self.decrees.recovery.majority_is_silent:
            return f"unreachable! comes back with {name}; if too many are gone for good: weave recover"
        return f"unreachable! comes back with {name}; if it is gone for good: weave rmpeer {name}"
