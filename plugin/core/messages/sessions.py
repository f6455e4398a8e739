"""Datagrams are sealed for one life of one agent, counted, and taken once.

A session is an ordered pair of lives: who sends, and who is meant. Both know each other's from what members tell of
members, so nothing has to be agreed on before the first datagram. Its key follows from the password and both, so what
was recorded means nothing to another agent, to a later life of the same one, or the other way round. Within a session
each datagram has a number; a window remembers which were here, so that order, loss and doubling by the network do no
harm.

A session that has ended never begins again: its name is remembered. When that memory or a count is used up, the agent
takes a new life (`worn`), which makes all that was recorded so far worthless.
"""

from collections.abc import Callable, Collection
from typing import Final

from plugin.core.messages.codec import WireError
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.values import MEMBERS_MAX
from plugin.core.messages.wire import HEADER, NUMBER_MAX, Head, Opened, StrangerError, head_of, is_sealed, sealed

WINDOW: Final = 512
"""How far behind the newest number of a session a datagram may come in: the network, or a relay, mixed them up."""

SESSIONS_MAX: Final = 2 * MEMBERS_MAX
"""In each direction; when there are more, those go that are no member's any more."""

ENDED_MAX: Final = 1 << 16
_NUMBERS_LEFT: Final = 1 << 16
_PURPOSE: Final = b"weave datagram"
_EXCHANGED: Final = frozenset(kind for kind in Kind if kind >= Kind.SYNC)
_MASK: Final = (1 << WINDOW) - 1


class _Heard:
    """What one sender has sent to this agent: its key, and which numbers were here."""

    __slots__ = ("_newest", "_seen", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._newest = 0
        self._seen = 0

    def takes(self, number: int) -> bool:
        """Whether this number comes for the first time, and not too late."""
        ahead = number - self._newest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & _MASK if ahead < WINDOW else 1
            self._newest = number
            return True
        if -ahead >= WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class _Told:
    """What this agent sends to one other."""

    __slots__ = ("key", "number", "tag")

    def __init__(self, key: bytes, tag: bytes, number: int) -> None:
        self.key = key
        self.tag = tag
        self.number = number


class Sessions:
    """Seals what goes out, and opens what was sealed for this agent.

    Args:
        keys: What all members share.
        own: The life of this agent (`Member.session`).
        living: The lives of all members that are known.
    """

    def __init__(self, keys: Keys, own: bytes, living: Callable[[], Collection[bytes]]) -> None:
        self._keys = keys
        self._living = living
        self._told: dict[bytes, _Told] = {}
        self._heard: dict[bytes, _Heard] = {}
        self._ended: set[bytes] = set()
        self._used = self._floor = 0
        self.own = own
        self.tag = keys.tag(own)

    @property
    def worn(self) -> bool:
        """Whether this agent needs a new life: there is no more room to remember what has ended, or no number left."""
        return len(self._ended) >= ENDED_MAX or self._used >= NUMBER_MAX - _NUMBERS_LEFT

    def live(self, own: bytes) -> None:
        """This agent has another life: every session of the one before is over."""
        if own != self.own:
            self.own, self.tag = own, self._keys.tag(own)
            self._told.clear()
            self._heard.clear()
            self._ended.clear()
            self._used = self._floor = 0

    def seal(self, kind: Kind, body: bytes, to: bytes) -> bytes:
        """A datagram for the life `to` of another agent."""
        told = self._told.get(to)
        if told is None:
            told = self._begin_telling(to)
        told.number += 1
        self._used = max(self._used, told.number)
        return sealed(Head(kind, self._keys.mark, told.tag, self.own, told.number, b""), body, told.key)

    def open(self, data: bytes) -> Opened:
        """A datagram, if it is for this agent, from who knows the password, and for the first time.

        Raises:
            StrangerError: It is not.
            WireError: It is no message, or none that comes as a datagram.
        """
        head = head_of(data)
        if head.kind in _EXCHANGED:
            raise WireError("a message of this kind does not come as a datagram")
        body = data[HEADER.size :]
        try:
            self._check(head, data)
        except StrangerError as error:
            # A word of those who cannot know better is let through; what it counts is decided in cluster/door.py.
            if head.kind is Kind.REFUSE and error.code != "replay":
                return Opened(head, body, sealed=False)
            raise
        return Opened(head, body, sealed=True)

    def _check(self, head: Head, data: bytes) -> None:
        if head.mark != self._keys.mark:
            raise StrangerError("another cluster", "cluster", head)
        if head.to != self.tag:
            raise StrangerError("to another life", "session", head)
        heard = self._heard.get(head.sender)
        key = self._keys.key(_PURPOSE, head.sender, self.own) if heard is None else heard.key
        if not is_sealed(data, key):
            raise StrangerError("another password", "password", head)
        if heard is None:
            heard = self._begin_hearing(head, key)
        if not heard.takes(head.number):
            raise StrangerError("it was here before", "replay", head)

    def _begin_telling(self, to: bytes) -> _Told:
        if len(self._told) >= SESSIONS_MAX:
            living = self._living()
            gone = [session for session in self._told if session not in living]
            # No number is ever used twice, also when one of these is spoken to again: then it goes on from here.
            self._floor = max([self._floor, *(self._told.pop(session).number for session in gone)])
        key, tag = self._keys.key(_PURPOSE, self.own, to), self._keys.tag(to)
        self._told[to] = told = _Told(key, tag, self._floor)
        return told

    def _begin_hearing(self, head: Head, key: bytes) -> _Heard:
        if head.sender in self._ended:
            raise StrangerError("its life is over", "replay", head)
        if len(self._heard) >= SESSIONS_MAX:
            living = self._living()
            gone = [session for session in self._heard if session not in living]
            for session in gone:
                del self._heard[session]
            self._ended.update(gone)
        self._heard[head.sender] = heard = _Heard(key)
        return heard
