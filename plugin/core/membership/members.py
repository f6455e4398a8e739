"""Who takes part: the table of members that every agent keeps, and the news of it that agents pass on.

A record of a member is ordered by (life, incarnation, state): of two records the larger holds, everywhere, in whatever
order they arrive. Only a member itself raises its life (a new process) and its incarnation (to contradict a rumour of
its death: SWIM, Das and others 2002, section 4.2). So the tables of all agents become equal once messages arrive.

Names are the identity that people give. Two agents of one name at different addresses are two machines made from one
image: the one that is there stays, the other is refused, and they are never merged into one. An agent whose node gets
another address says so in the life that is known, with its next incarnation (`has_moved`): no other machine can, unless
it is a copy of a running one, and therefore it is asked for at the old address first (plugin/core/cluster/moves.py).

Of two members at one address the one that came last has it (`at`). The other one is behind its news, if it lives: two
nodes may just be changing addresses. It stays in the table until it says where it is, or nobody hears it any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b
from ipaddress import IPv4Address
from math import ceil, log10
from typing import Final

from plugin.core.messages.values import MEMBERS_MAX, Member, MemberState

NEWS_REPEATS: Final = 4
"""A piece of news is passed on this many times log10(members): then everybody has it with high probability."""

_CONFLICTS_MAX: Final = 64


class PeerState(Enum):
    """What status shows of a peer; the values are Weave's words for the states of a connection."""

    CONNECTING = "connecting"
    PENDING = "pending"
    ESTABLISHED = "established"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Peer:
    """An agent seen from this one.

    Attributes:
        address: Its node's address.
        name: What it calls itself; empty until it was heard.
        uid: Its identity; empty until it was heard.
        state: CONNECTING never heard; PENDING known, not yet heard or just not answering; ESTABLISHED both directions
            work; FAILED it, or the direct way to it, is gone; REFUSED must not take part.
        reason: Why, in words; empty when all is well.
        via: The peer that passes messages on to it, when the direct way is gone.
    """

    address: IPv4Address
    name: str = ""
    uid: str = ""
    state: PeerState = PeerState.CONNECTING
    reason: str = ""
    via: str = ""


class Members:
    """The table of one agent, itself included, and the news that are still to be passed on."""

    def __init__(self, me: Member) -> None:
        self._me = me
        self._others: dict[str, Member] = {}
        self._by_address: dict[IPv4Address, str] = {}
        self._news: dict[str, tuple[Member, int]] = {}
        self._digest = _fingerprint(me)
        self.conflicts: dict[tuple[str, IPv4Address], Member] = {}
        self.left_uids: frozenset[str] = frozenset()
        self.version = 0

    @property
    def me(self) -> Member:
        """This agent."""
        return self._me

    @property
    def others(self) -> Mapping[str, Member]:
        """Everybody else, by name; do not change it."""
        return self._others

    @property
    def digest(self) -> int:
        """64 bits of who is there and who has failed; suspicions do not count, for they pass."""
        return self._digest

    def at(self, address: IPv4Address) -> Member | None:
        """The member at a node address."""
        name = self._by_address.get(address)
        return None if name is None else self._others.get(name)

    def everybody(self) -> tuple[Member, ...]:
        """All records, this agent's first."""
        return (self._me, *self._others.values())

    def merge(self, records: Iterable[Member]) -> list[Member]:
        """Take in what somebody says; the records that are now another than before."""
        return [changed for record in records if (changed := self._merge_one(record)) is not None]

    def learn(self, record: Member, *, proved: bool = False) -> Member | None:
        """Take in one record; the record when it is another than before.

        Args:
            record: What somebody says.
            proved: Its address may be another than the known one: nobody of that name answers there any more.
        """
        return self._merge_one(record, proved=proved)

    def has_moved(self, record: Member) -> bool:
        """Whether a record says that an agent that answers, in the life that is known, is at another address now."""
        known = self._others.get(record.name)
        return (
            known is not None
            and known.answers
            and record.state is not MemberState.LEFT
            and record.address != known.address
            and (record.uid, record.life) == (known.uid, known.life)
            and record.incarnation > known.incarnation
        )

    def move(self, address: IPv4Address) -> None:
        """This agent's node has another address."""
        self.version += 1
        self._set_me(replace(self._me, address=address, incarnation=self._me.incarnation + 1))

    def contradict(self, rumour: Member) -> None:
        """Somebody believes that this agent is gone, or knows a later life of it: say that it is here."""
        life, incarnation = self._me.life, self._me.incarnation
        if rumour.life > life:
            life, incarnation = rumour.life + 1, 0  # the clock was set back and the disk is new
        elif rumour.life == life and rumour.incarnation >= incarnation:
            incarnation = rumour.incarnation + 1
        self._set_me(replace(self._me, life=life, incarnation=incarnation))

    def renew(self) -> None:
        """This agent is in another life from now on."""
        self._set_me(replace(self._me, life=self._me.life + 1, incarnation=0))

    def leave(self) -> None:
        """This agent goes for good."""
        self._set_me(replace(self._me, state=MemberState.LEFT))

    def forget(self, name: str) -> Member | None:
        """Remove a member from the table."""
        member = self._others.pop(name, None)
        if member is not None:
            self.version += 1
            self._digest ^= _fingerprint(member)
            self._news.pop(name, None)
            self._vacate(member)
        return member

    def news(self, count: int, *, first: str = "") -> tuple[Member, ...]:
        """Up to `count` pieces of news, those told least often first, and in front what is bad news of `first`."""
        chosen = sorted(self._news, key=lambda name: -self._news[name][1])[:count]
        told = []
        if first in self._others and self._others[first].state is not MemberState.ALIVE:
            told.append(self._others[first])
        for name in chosen:
            record, left = self._news[name]
            if left <= 1:
                del self._news[name]
            else:
                self._news[name] = record, left - 1
            if name != first or not told:
                told.append(record)
        return tuple(told[:count])

    @property
    def has_news(self) -> bool:
        """Whether something is still to be passed on."""
        return bool(self._news)

    def _merge_one(self, record: Member, *, proved: bool = False) -> Member | None:  # noqa: C901, PLR0911 - a reason each
        if record.name == self._me.name:
            self._merge_about_me(record)
            return None
        if record.uid in self.left_uids:
            return None
        known = self._others.get(record.name)
        if known is None:
            if len(self._others) >= MEMBERS_MAX or record.state is MemberState.LEFT:
                return None
        elif (
            known.address != record.address
            and known.answers
            and record.state is not MemberState.LEFT
            and not (proved and self.has_moved(record))
        ):
            self._note_conflict(record)
            return None
        elif record.rank <= known.rank:
            return None
        holder = self.at(record.address)
        if holder is not None and holder.name != record.name and holder.answers:
            if not record.answers:  # somebody else answers there: this one is nowhere
                if self.forget(record.name) is None:
                    return None
                self._tell(record)
                return record
            if known is None and holder.life > record.life:
                return None  # its node was given another name since
        self._put(record)
        return record

    def _merge_about_me(self, record: Member) -> None:
        if record.address != self._me.address:
            self._note_conflict(record)
        elif record.rank > self._me.rank and self._me.state is not MemberState.LEFT:
            self.contradict(record)

    def _put(self, record: Member) -> None:
        known = self._others.get(record.name)
        if known is not None:
            self._digest ^= _fingerprint(known)
        if known is None or known.address != record.address:
            if known is not None:
                self._vacate(known)
            holder = self.at(record.address)
            if holder is not None and (known is None or not holder.answers):
                self.forget(holder.name)  # the node was given another name, or its address to another node
            self._by_address[record.address] = record.name
        self._others[record.name] = record
        self._digest ^= _fingerprint(record)
        self.version += 1
        self.conflicts = {key: value for key, value in self.conflicts.items() if key != (record.name, record.address)}
        self._tell(record)

    def _vacate(self, member: Member) -> None:
        """A member is not at its address any more: whoever else is said to be there has it."""
        if self._by_address.get(member.address) == member.name:
            del self._by_address[member.address]
            others = [one for one in self._others.values() if one.address == member.address and one.name != member.name]
            if others:
                self._by_address[member.address] = max(others, key=lambda one: (one.answers, one.rank)).name

    def _set_me(self, me: Member) -> None:
        self._digest ^= _fingerprint(self._me) ^ _fingerprint(me)
        self._me = me
        self._tell(me)

    def _tell(self, record: Member) -> None:
        self._news[record.name] = record, NEWS_REPEATS * ceil(log10(len(self._others) + 2))

    def _note_conflict(self, record: Member) -> None:
        if len(self.conflicts) < _CONFLICTS_MAX:
            self.conflicts[record.name, record.address] = record


def _fingerprint(member: Member) -> int:
    if member.state is MemberState.LEFT:
        return 0
    words = f"{member.name}\n{member.uid}\n{member.address}\n{member.life}\n{member.answers}"
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "big")
