"""Who takes part: which nodes an agent talks to, and what it knows of each.

`Membership` is what plugin/core/node.py needs; `StaticMembership` takes the addresses of all nodes from the agent's
configuration. Discovery by gossip implements the same protocol, and nothing but plugin/agent/app.py chooses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Protocol


class PeerState(Enum):
    """What this agent knows of a peer; the value is the word that status shows."""

    CONNECTING = "connecting"
    PENDING = "pending"
    ESTABLISHED = "established"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Peer:
    """An agent seen from this one.

    Attributes:
        address: Its node's address, which is also where its VXLAN packets go.
        name: What it calls itself; empty until it was heard.
        state: CONNECTING never heard; PENDING heard, but it does not hear us yet; ESTABLISHED both directions work;
            FAILED was established and fell silent; REFUSED must not take part.
        reason: Why, in words; empty when all is well.
        incarnation: Which life of it was heard last.
        heard_s: When, on the clock of `now_s`; None before the first time.
    """

    address: IPv4Address
    name: str = ""
    state: PeerState = PeerState.CONNECTING
    reason: str = ""
    incarnation: int = 0
    heard_s: float | None = None


class Membership(Protocol):
    """The peers of this agent, itself excluded."""

    @property
    def peers(self) -> Mapping[IPv4Address, Peer]:
        """All peers, by node address."""
        ...

    def hear(self, address: IPv4Address, name: str, incarnation: int, *, hears_us: bool, now_s: float) -> Peer | None:
        """A greeting came from `address`; the peer as it stands now, or None when it does not take part."""
        ...

    def refuse(self, address: IPv4Address, reason: str) -> None:
        """A peer says something that cannot be: it takes no part until it says otherwise."""
        ...

    def silent(self, *, now_s: float, timeout_s: float) -> list[Peer]:
        """The peers that have just fallen silent, already marked as failed."""
        ...


class StaticMembership:
    """The members are given once and for all.

    Args:
        name: This node's own name: a peer of the same name is a cloned machine and is refused.
        addresses: The node addresses of all members; this node's own may be among them.
        own: This node's address.
    """

    def __init__(self, name: str, addresses: Iterable[IPv4Address], own: IPv4Address) -> None:
        self._name = name
        self._peers = {address: Peer(address) for address in sorted(set(addresses)) if address != own}

    @property
    def peers(self) -> Mapping[IPv4Address, Peer]:
        """All peers, by node address."""
        return self._peers

    def hear(self, address: IPv4Address, name: str, incarnation: int, *, hears_us: bool, now_s: float) -> Peer | None:
        """Note a greeting; None for a stranger, for a name that another node has, and for a past life of the peer."""
        known = self._peers.get(address)
        if known is None or incarnation < known.incarnation:
            return None
        if (other := self._owner_of(name, address)) is not None:
            self.refuse(address, f"its name {name!r} is already that of {other}: names must be unique")
            return None
        state = PeerState.ESTABLISHED if hears_us else PeerState.PENDING
        reason = "" if hears_us else "it does not hear this node: is UDP 6783 open in both directions?"
        heard = Peer(address, name, state, reason, incarnation, now_s)
        self._peers[address] = heard
        return heard

    def refuse(self, address: IPv4Address, reason: str) -> None:
        """Mark a member as refused; strangers are not remembered, so they cannot fill the memory."""
        if (known := self._peers.get(address)) is not None:
            self._peers[address] = replace(known, state=PeerState.REFUSED, reason=reason)

    def silent(self, *, now_s: float, timeout_s: float) -> list[Peer]:
        """Mark as failed every peer that was heard once and not within `timeout_s`."""
        fallen = []
        for address, peer in self._peers.items():
            if peer.heard_s is None or peer.state not in {PeerState.ESTABLISHED, PeerState.PENDING}:
                continue
            if now_s - peer.heard_s > timeout_s:
                reason = f"nothing heard for {timeout_s:g} s: is its agent running, is UDP 6783 open?"
                self._peers[address] = replace(peer, state=PeerState.FAILED, reason=reason)
                fallen.append(self._peers[address])
        return fallen

    def _owner_of(self, name: str, address: IPv4Address) -> str | None:
        """Who else has this name and is not known to be gone."""
        if name == self._name:
            return "this node"
        for peer in self._peers.values():
            alive = peer.state in {PeerState.ESTABLISHED, PeerState.PENDING}
            if peer.address != address and peer.name == name and alive:
                return str(peer.address)
        return None
