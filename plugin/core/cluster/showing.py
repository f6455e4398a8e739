"""What people are told of the peers, and when: the states of status and log, made from what the other parts know.

It decides nothing. Most messages change nothing that anybody sees, so only those whose state may be another are looked
at again, and not more often than _SHOW_S.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cluster.door import Door
from plugin.core.cluster.reunion import Reunion
from plugin.core.membership.members import Peer, PeerState
from plugin.core.messages.values import Member, MemberState
from plugin.core.outbox import Outbox, PeerChanged

_SHOW_S: Final = 0.2
_WHERE_NODE_IS_DEAF: Final = frozenset({PeerState.CONNECTING, PeerState.PENDING, PeerState.FAILED})
_NOTHING_HEARD: Final = "nothing heard yet: is its agent running, is port 6783 open?"


class Showing:
    """The view of the peers.

    Args:
        outbox: Where PeerChanged goes; its members and links say who is there.
        door: Says who is refused.
        reunion: Says where others are looked for.
    """

    def __init__(self, outbox: Outbox, door: Door, reunion: Reunion) -> None:
        self._outbox = outbox
        self._door = door
        self._reunion = reunion
        self._heard: set[str] = set()
        self._shown: dict[IPv4Address, Peer] = {}
        self._stale: set[str] = set()
        self._all_stale = True
        self._next_s = float("-inf")
        self._own_cause: Callable[[IPv4Address], str] = lambda _address: ""

    @property
    def peers(self) -> Mapping[IPv4Address, Peer]:
        """All peers, by node address, in order: members, and seeds that have not answered or were refused."""
        members = self._outbox.members
        found = {
            member.address: self._peer(member)
            for member in members.others.values()
            if members.at(member.address) is member  # another one may have its address now
        }
        for seed, trouble in self._reunion.seeds.items():
            if seed not in found:
                found[seed] = Peer(seed, reason=self._own_cause(seed) or trouble or _NOTHING_HEARD)
        for address, (name, reason, _) in self._door.refused.items():
            found[address] = Peer(address, name, state=PeerState.REFUSED, reason=reason)
        return dict(sorted(found.items()))

    def next_timer_s(self) -> float:
        """When `tell` has something to do; infinity when nothing has changed."""
        return self._next_s if self._is_stale() else float("inf")

    # --- what may have changed --------------------------------------------------------------------------------------
    def heard(self, name: str) -> None:
        """A member has spoken itself."""
        if name not in self._heard:
            self._heard.add(name)
            self._stale.add(name)

    def unheard(self, name: str) -> None:
        """What it said was said in an earlier life."""
        self._heard.discard(name)

    def changed(self, name: str) -> None:
        """Something about one member is another."""
        self._stale.add(name)

    def all_changed(self, *, really: bool = True) -> None:
        """Something that may concern anybody is another."""
        self._all_stale |= really

    def explain(self, own_cause: Callable[[IPv4Address], str]) -> None:
        """Why this node itself may not reach an address; the empty text where nothing is known to be wrong here."""
        self._own_cause = own_cause
        self._all_stale = True

    def tell(self, now_s: float) -> None:
        """Tell whose state is another."""
        if not self._is_stale() or now_s < self._next_s:
            return
        self._next_s = now_s + _SHOW_S
        if self._all_stale or self._door.changed or self._reunion.changed:
            looked_at = self.peers
            self._shown = {address: peer for address, peer in self._shown.items() if address in looked_at}
        else:
            others = self._outbox.members.others
            members = [others[name] for name in sorted(self._stale) if name in others]
            looked_at = {
                one.address: self._peer(one)
                for one in members
                if one.address not in self._door.refused and self._outbox.members.at(one.address) is one
            }
        self._stale.clear()
        self._all_stale = self._door.changed = self._reunion.changed = False
        for address, peer in looked_at.items():
            before = self._shown.get(address)
            if before is None or (before.state, before.reason, before.name) != (peer.state, peer.reason, peer.name):
                self._outbox.add(PeerChanged(peer))
            self._shown[address] = peer

    def _is_stale(self) -> bool:
        return self._all_stale or bool(self._stale) or self._door.changed or self._reunion.changed

    def _peer(self, member: Member) -> Peer:
        """What is shown of a member; where this node itself is the reason, that is said and nothing is guessed."""
        peer = self._judged(member)
        cause = self._own_cause(member.address) if peer.state in _WHERE_NODE_IS_DEAF else ""
        return replace(peer, reason=cause) if cause and member.state is not MemberState.LEFT else peer

    def _judged(self, member: Member) -> Peer:
        name, links, members = member.name, self._outbox.links, self._outbox.members
        peer = Peer(member.address, name, member.uid, PeerState.ESTABLISHED)
        if member.state is MemberState.LEFT:
            return replace(peer, state=PeerState.FAILED, reason="it left the cluster")
        if member.state is MemberState.FAILED:
            return replace(
                peer, state=PeerState.FAILED, reason="nobody hears it: is its agent running, is port 6783 open?"
            )
        if member.state is MemberState.SUSPECT:
            return replace(peer, state=PeerState.PENDING, reason="it does not answer just now")
        if links.is_broken(members.me.name, name):
            alive = (other for other, one in members.others.items() if one.answers)
            via = links.next_hop(name, alive) or ""
            reason = "no direct way for control messages: is UDP 6783 open in both directions?"
            return replace(peer, state=PeerState.FAILED, reason=reason, via=via)
        if name not in self._heard:
            return replace(peer, state=PeerState.PENDING, reason="not heard itself yet")
        return peer
