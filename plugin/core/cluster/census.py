"""What follows from what is told of members: who has come, who is gone, who is forgotten, and whom that concerns.

It holds no table itself (plugin/core/membership does) and judges nobody: it carries what is learned to the tables of
links and endpoints, to broadcast, and to what people are shown.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cluster.pings import Pings
from plugin.core.cluster.showing import Showing
from plugin.core.forwarding.endpoints import Directory
from plugin.core.forwarding.spread import Spread
from plugin.core.ipam.council import Council
from plugin.core.membership.swim import Detector
from plugin.core.messages.kinds import Sync
from plugin.core.messages.values import Member, MemberState
from plugin.core.outbox import EndpointsChanged, Outbox, PeerMoved, PeersChanged

_GONE_S: Final = 30.0
"""A failed peer's endpoints stay for so long: its agent may just be restarting, and its pods work without it."""


class Census:
    """Learns of members, and lets the other parts know.

    Args:
        outbox: Its members and links are the tables; PeersChanged goes there.
        directory: Its own table begins anew with a new life.
        spread: Is told whom to tell of endpoints, and whose endpoints are lost.
        council: Says who was removed for good.
        detector: Is told who is suspected.
        pings: Greets who is new.
        showing: Is told whose state may be another.

    Attributes:
        carries: Whether the overlay still carries packets to a node; whoever probes that may set it.
        follow: Told the addresses, before and now, of a member that has moved.
        holds_back: Whether a record says that a member has moved, which is not proved yet (moves.py).
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        directory: Directory,
        spread: Spread,
        council: Council,
        detector: Detector,
        pings: Pings,
        showing: Showing,
    ) -> None:
        self._outbox = outbox
        self._members, self._links = outbox.members, outbox.links
        self._directory = directory
        self._spread = spread
        self._council = council
        self._detector = detector
        self._pings = pings
        self._showing = showing
        self._failed_s: dict[str, float] = {}
        self.carries: Callable[[IPv4Address], bool] = lambda _address: False
        self.follow: Callable[[IPv4Address, IPv4Address], None] = lambda _before, _now: None
        self.holds_back: Callable[[Member, float], bool] = lambda _record, _now_s: False

    def next_timer_s(self) -> float:
        """When `drop_old` may bury somebody; infinity when nobody has failed."""
        return min((since_s + _GONE_S for since_s in self._failed_s.values()), default=float("inf"))

    def destinations(self, *, now_s: float) -> frozenset[IPv4Address]:
        """The nodes that broadcast goes to: every member that has not been gone for long."""
        return frozenset(
            member.address
            for name, member in self._members.others.items()
            if member.answers or now_s - self._failed_s.get(name, now_s) < _GONE_S
        ) - {self._members.me.address}

    def learn(self, records: Iterable[Member], *, now_s: float, proved: bool = False) -> None:
        """These records were told; those that are newer than what is known hold from now on.

        Args:
            records: Members.
            now_s: The time.
            proved: Who is said to have moved is known to have done so.
        """
        life = self._members.me.life
        for record in self._on_nodes(records):
            if not proved and self.holds_back(record, now_s):
                continue
            before = self._members.others.get(record.name)
            place = before is not None and self._members.at(before.address) is before
            changed = self._members.learn(record, proved=proved)
            if changed is None:
                continue
            if before is None:
                self._clear(changed)
            elif before.address != changed.address:
                self._moved(before, changed, had_place=place)
            self._take_note(before, changed, now_s)
            self._outbox.add(PeersChanged())
            self._showing.changed(changed.name)
        if self._members.me.life != life:
            self._directory.relive(self._members.me.life)

    def _on_nodes(self, records: Iterable[Member]) -> Iterator[Member]:
        """Without those in the pod range: no agent is there, whoever says so. Where it speaks, door.py refuses it."""
        network = self._outbox.keys.network
        return (record for record in records if record.address not in network)

    def renew(self) -> None:
        """This agent begins a new life without an end of the one before: its sessions were used up."""
        self._members.renew()
        self._directory.relive(self._members.me.life)

    def _take_note(self, before: Member | None, now: Member, now_s: float) -> None:
        """A member is in another state, life or place than before."""
        name = now.name
        if now.state is MemberState.SUSPECT:
            self._detector.suspected(name, now_s=now_s)
        if now.answers:
            self._failed_s.pop(name, None)
        else:
            self._failed_s.setdefault(name, now_s)
            if now.state is MemberState.LEFT:
                self._lose(now)
        new_life = before is None or before.life != now.life
        new_place = before is None or before.address != now.address
        if new_life or new_place:
            self._links.forget(name)
            self._showing.unheard(name)
        if now.answers and (new_life or new_place or not before.answers):  # type: ignore[union-attr]
            self._spread.met(name, anew=new_life, now_s=now_s)
            self._pings.greet(name, now_s=now_s)

    def _clear(self, newcomer: Member) -> None:
        """What is known of a node's endpoints from a later life than its member's is that of another member."""
        table = self._directory.remote.get(newcomer.address)
        if table is not None and table.incarnation > newcomer.life:
            self._directory.forget(newcomer.address)
            self._outbox.add(EndpointsChanged())

    def _moved(self, before: Member, now: Member, *, had_place: bool) -> None:
        """A member's node has another address; `had_place`: and nobody else was known to have the old one since."""
        if before.life == now.life and had_place:
            self._directory.move(before.address, now.address)
        else:
            if had_place:
                self._spread.lost(before)
            self._directory.forget(now.address)
        if self._members.at(now.address) is not now:
            return  # it went behind its move, and is nowhere
        self._outbox.add(EndpointsChanged())
        self._outbox.add(PeerMoved(now.name, before.address, now.address))
        self.follow(before.address, now.address)
        self._showing.all_changed()

    def believe(self, name: str, state: MemberState, *, now_s: float) -> None:
        """A member is thought to be in this state, if nothing worse is believed already."""
        member = self._members.others.get(name)
        if member is not None and member.state < state:
            self.learn((replace(member, state=state),), now_s=now_s)

    def take_in(self, sync: Sync, *, now_s: float) -> None:
        """Somebody told everything it knows of members, links and endpoints."""
        self.learn(sync.members, now_s=now_s)
        self._showing.all_changed(really=self._links.merge(sync.links))
        for table in sync.tables:
            member = self._members.others.get(table.name)
            if member is not None and table.life == member.life and self._members.at(member.address) is member:
                self._spread.on_table(member, table.version, table.endpoints)

    def drop_old(self, *, now_s: float) -> None:
        """Bury who has been gone for long, and forget who was removed."""
        for name, since_s in list(self._failed_s.items()):
            if now_s - since_s >= _GONE_S:
                self._bury(name, now_s)
        for member in list(self._members.others.values()):
            if member.uid in self._council.gone:
                self._forget(member)
                self._lost(member)

    def _bury(self, name: str, now_s: float) -> None:
        """A member has been gone for long: so are its endpoints, unless its pods still answer without it."""
        del self._failed_s[name]
        member = self._members.others.get(name)
        if member is None:
            return
        if member.state is MemberState.FAILED and self.carries(member.address):
            self._failed_s[name] = now_s
            return
        if member.state is MemberState.LEFT and member.uid not in self._council.seats:
            self._forget(member)
        self._lost(member)

    def _forget(self, member: Member) -> None:
        self._members.forget(member.name)
        self._links.forget(member.name)

    def _lose(self, member: Member) -> None:
        """Its endpoints are lost, unless another member has its address: then what is known there is that one's."""
        holder = self._members.at(member.address)
        if holder is None or holder.name == member.name:
            self._spread.lost(member)

    def _lost(self, member: Member) -> None:
        self._lose(member)
        self._outbox.add(PeersChanged())
        self._showing.all_changed()
