"""Which agents do not reach each other directly: the exceptions that agents pass on, and the next hop that follows.

An agent says this of its own ways only, and its newest word holds. Who is a member is in members.py.
"""

from collections.abc import Iterable
from hashlib import blake2b

from plugin.core.membership.members import NEWS_REPEATS, Members
from plugin.core.messages.values import MEMBERS_MAX, LinkNews


class Links:
    """Which agents do not reach each other directly, as they say themselves: exceptions to "everyone reaches everyone".

    Args:
        members: What an earlier life of a member said does not count.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._own = members.me.name
        self._news: dict[tuple[str, str], tuple[LinkNews, int]] = {}
        self._known: dict[tuple[str, str], LinkNews] = {}
        self._stamp = 0
        self._digest = 0

    @property
    def digest(self) -> int:
        """64 bits of the paths that are broken."""
        return self._digest

    @property
    def all(self) -> tuple[LinkNews, ...]:
        """Everything known, also what works again."""
        return tuple(self._known.values())

    @property
    def has_news(self) -> bool:
        """Whether something is still to be passed on."""
        return bool(self._news)

    def is_broken(self, origin: str, target: str) -> bool:
        """Whether one of the two does not hear the other: a path counts only when both directions work."""
        for ends in ((origin, target), (target, origin)):
            link = self._known.get(ends)
            if link is not None and link.broken:
                return True
        return False

    def set_own(self, target: str, *, broken: bool, life: int) -> bool:
        """This agent finds the way to `target` broken, or working; False when that is no news."""
        known = self._known.get((self._own, target))
        if (known is not None and known.broken) == broken:
            return False
        self._stamp = max(self._stamp + 1, life)  # a later life's word counts more than an earlier one's
        self.merge([LinkNews(self._own, target, self._stamp, broken)])
        return True

    def merge(self, news: Iterable[LinkNews]) -> bool:
        """Take in what somebody says; True when something changed."""
        changed = False
        for link in news:
            ends = (link.origin, link.target)
            known = self._known.get(ends)
            if (known is not None and known.stamp >= link.stamp) or link.stamp < self._life(link.origin):
                continue
            if known is None and len(self._known) >= MEMBERS_MAX:
                continue
            self._put(ends, link)
            self._news[ends] = link, NEWS_REPEATS * 3
            changed = True
        return changed

    def news(self, count: int) -> tuple[LinkNews, ...]:
        """Up to `count` pieces of news."""
        told = []
        for ends in list(self._news)[:count]:
            link, left = self._news.pop(ends)
            told.append(link)
            if left > 1:
                self._news[ends] = link, left - 1
        return tuple(told)

    def forget(self, name: str) -> None:
        """A member is gone for good, or there again in a new life: what was said of its paths does not hold."""
        for ends in [ends for ends in self._known if name in ends]:
            self._put(ends, None)
            self._news.pop(ends, None)

    def _put(self, ends: tuple[str, str], link: LinkNews | None) -> None:
        before = self._known.pop(ends, None)
        for record in (before, link):
            if record is not None and record.broken:
                words = f"{record.origin}\n{record.target}\n{record.stamp}"
                self._digest ^= int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "big")
        if link is not None:
            self._known[ends] = link

    def _life(self, name: str) -> int:
        if name == self._own:
            return self._members.me.life
        member = self._members.others.get(name)
        return 0 if member is None else member.life

    def next_hop(self, target: str, alive: Iterable[str]) -> str | None:
        """Whom to give what is for `target`: itself, else the first by name that both reach, else None.

        Two hops are enough: when there is no common neighbour, the two are in different parts of a cut network, or so
        few paths are left that anti-entropy has to carry what there is to say.
        """
        if not self.is_broken(self._own, target):
            return target
        for name in sorted(alive):
            if name not in {target, self._own} and not (
                self.is_broken(self._own, name) or self.is_broken(name, target)
            ):
                return name
        return None
