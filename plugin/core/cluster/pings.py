"""Pings and their answers, as messages: what they carry, who is greeted, who is told news, who is asked for others.

Whom to ping when, and what an answer or its absence means, is decided in plugin/core/membership/swim.py.
"""

from collections.abc import Callable, Iterable
from typing import Final

from plugin.core.membership.swim import HELPERS, Chance, Detector, chosen
from plugin.core.messages import fields
from plugin.core.messages.kinds import Ack, Ping, PingFor
from plugin.core.messages.values import Brief, Member
from plugin.core.outbox import Outbox

_GOSSIP_S: Final = 0.2
"""While there is news, HELPERS others are told this often: everybody knows after log(members) turns."""

_GREETINGS_PER_TURN_MAX: Final = 64
_GREET_LATE_S: Final = 0.4
"""Of two that hear of each other one greets at once, by name, and the other only when it has waited in vain."""

_HELP_MAX: Final = 64
_HELP_S: Final = 2.0


class Pings:
    """Sends them.

    Args:
        outbox: Where they go; its members and links have the news.
        detector: Numbers them.
        chance: Randomness.
        brief: What this agent says of itself just now.
    """

    def __init__(self, outbox: Outbox, detector: Detector, chance: Chance, brief: Callable[[], Brief]) -> None:
        self._outbox = outbox
        self._members, self._links = outbox.members, outbox.links
        self._detector = detector
        self._chance = chance
        self._brief = brief
        self._greet: dict[str, float] = {}
        self._helping: dict[tuple[str, int], tuple[str, int, float]] = {}
        self._next_gossip_s = 0.0

    @property
    def _has_news(self) -> bool:
        return self._members.has_news or self._links.has_news

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when there is nothing to say."""
        if self._has_news:
            return self._next_gossip_s
        if self._greet:
            return max(self._next_gossip_s, min(self._greet.values()))
        return float("inf")

    def on_timer(self, *, now_s: float) -> None:
        """Tell a few others what is new, and greet those that were never heard."""
        if now_s < self._next_gossip_s or not (self._has_news or self._greet):
            return
        self._next_gossip_s = now_s + _GOSSIP_S
        if self._has_news:
            alive = [name for name, member in self._members.others.items() if member.answers]
            self.tell_news(chosen(self._chance, alive, HELPERS))
        for name in sorted(name for name, due_s in self._greet.items() if due_s <= now_s)[:_GREETINGS_PER_TURN_MAX]:
            del self._greet[name]
            self.ping(name, self._detector.next_seq())

    def greet(self, name: str, *, now_s: float) -> None:
        """A member is new, or is back: one of the two speaks first."""
        self._greet[name] = now_s if self._members.me.name < name else now_s + _GREET_LATE_S

    def heard(self, name: str) -> None:
        """A member has spoken: it need not be greeted any more."""
        self._greet.pop(name, None)

    def ping(self, name: str, seq: int) -> None:
        """Never by way of another: it is the direct way that is looked at."""
        member = self._members.others.get(name)
        if member is not None:
            news = self._members.news(fields.NEWS_PER_DATAGRAM_MAX, first=name)
            links = self._links.news(fields.LINKS_PER_DATAGRAM_MAX)
            self._outbox.send_direct(member, Ping(seq, self._brief(), news, links))

    def answer(self, asker: Member, seq: int) -> None:
        """`asker` has pinged; the answer goes the same way back: it is this way that is asked about."""
        self._outbox.send_direct(asker, self._ack(seq, "", asker.name))

    def ask(self, helper: str, name: str, seq: int) -> None:
        """Ask `helper` to ping `name`, which does not answer here."""
        self._outbox.send(helper, PingFor(seq, name))

    def help(self, asker: Member, target: str, seq: int, *, now_s: float) -> None:
        """Ping `target` for somebody who does not hear it."""
        if target in self._members.others and len(self._helping) < _HELP_MAX:
            own = self._detector.next_seq()
            self._helping[target, own] = asker.name, seq, now_s
            self.ping(target, own)

    def helped(self, name: str, seq: int) -> None:
        """`name` has answered the ping `seq`: whoever asked for it is told."""
        waiting = self._helping.pop((name, seq), None)
        if waiting is not None:
            asker, asked_seq, _ = waiting
            self._outbox.send(asker, self._ack(asked_seq, name, asker))

    def tell_news(self, names: Iterable[str]) -> None:
        """Tell these members what is new, without asking for anything."""
        for name in names:
            self._outbox.send(name, self._ack(0, "", name))

    def drop_old(self, *, now_s: float) -> None:
        """Nobody waits any more for what was asked long ago."""
        for key, (_, _, since_s) in list(self._helping.items()):
            if now_s - since_s > _HELP_S:
                del self._helping[key]

    def _ack(self, seq: int, about: str, to: str) -> Ack:
        # The name of somebody else takes the room of one piece of news.
        news = self._members.news(fields.NEWS_PER_DATAGRAM_MAX - bool(about), first=to)
        return Ack(seq, about, self._brief(), news, self._links.news(fields.LINKS_PER_DATAGRAM_MAX))
