"""Who takes part: the table of members that every agent keeps, and the news of it that agents pass on.

A record of a member is ordered by (life, incarnation, state): of two records the larger holds, everywhere, in whatever
order they arrive. Only a member itself raises its life (a new process) and its incarnation (to contradict a rumour of
its death: SWIM, Das and others 2002, section 4.2). So the tables of all agents become equal once messages arrive.

Names are the identity that people give. Two agents of one name at different addresses are two machines made from one
image: the one that is there stays, the other is refused, and they are never merged into one.
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

    def learn(self, record: Member) -> Member | None:
        """Take in one record; the record when it is another than before."""
        return self._merge_one(record)

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
            if self._by_address.get(member.address) == name:
                del self._by_address[member.address]
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

    def _merge_one(self, record: Member) -> Member | None:  # noqa: PLR0911 - a reason each
        if record.name == self._me.name:
            self._merge_about_me(record)
            return None
        if record.uid in self.left_uids:
            return None
        known = self._others.get(record.name)
        if known is None:
            if len(self._others) >= MEMBERS_MAX or record.state is MemberState.LEFT:
                return None
        elif known.address != record.address and known.answers and record.state is not MemberState.LEFT:
            self._note_conflict(record)
            return None
        elif record.rank <= known.rank:
            return None
        holder = self.at(record.address)
        if holder is not None and holder.name != record.name and holder.life > record.life:
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
            if known.address != record.address and self._by_address.get(known.address) == record.name:
                del self._by_address[known.address]
        holder = self._by_address.get(record.address, record.name)
        if holder != record.name:
            self.forget(holder)  # the node was given another name
        self._others[record.name] = record
        self._by_address[record.address] = record.name
        self._digest ^= _fingerprint(record)
        self.version += 1
        self.conflicts = {key: value for key, value in self.conflicts.items() if key != (record.name, record.address)}
        self._tell(record)

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
