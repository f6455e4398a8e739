"""What an agent wants done: effects, in order, for whoever owns the sockets, the disk and the kernel.

Messages to a member go the direct way, or by way of a member that both reach (RELAY). An exchange (`Call`) is one
request on TCP; its answer, or that there was none, comes back to the function that was given along.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from plugin.core.membership.links import Links
from plugin.core.membership.members import Members, Peer
from plugin.core.messages import kinds, wire
from plugin.core.messages.kinds import Answer, Refuse
from plugin.core.messages.values import Member
from plugin.core.messages.wire import Keys

_REJECTED: Final = ("malformed", "other cluster", "other password", "name taken", "too large")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to UDP 6783 of a node."""

    to: IPv4Address
    data: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """Exchange with TCP 6783 of a node; then `Node.on_answer` or `Node.on_no_answer` with this token."""

    to: IPv4Address
    token: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Persist:
    """Write this down durably before any effect behind it is carried out; if that fails, drop those effects."""

    data: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """A peer's state is another than before."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeersChanged:
    """Broadcast has other destinations than before."""


@dataclass(frozen=True, slots=True)
class EndpointsChanged:
    """The view of who is where has changed: forwarding must be brought in line."""


@dataclass(frozen=True, slots=True)
class SpaceChanged:
    """This agent owns other addresses than before, or knows better why it has none."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that belongs into the log."""

    event: str
    fields: tuple[tuple[str, str], ...] = ()
    serious: bool = False


Effect: TypeAlias = Send | Call | Persist | PeerChanged | PeersChanged | EndpointsChanged | SpaceChanged | Noted
OnAnswer: TypeAlias = Callable[[Member, Answer], None]
OnSilence: TypeAlias = Callable[[str], None]


@dataclass(slots=True)
class Counters:
    """What came in and went out, for the metrics; `rejected` counts by reason and has a fixed set of keys."""

    received: int = 0
    sent: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    calls: int = 0
    rejected: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_REJECTED, 0))


@dataclass(slots=True)
class Outbox:
    """Collects effects."""

    members: Members
    links: Links
    keys: Keys
    counters: Counters = field(default_factory=Counters)
    _effects: list[Effect] = field(default_factory=list)
    _calls: dict[int, tuple[OnAnswer, OnSilence]] = field(default_factory=dict)
    _token: int = 0

    def add(self, effect: Effect) -> None:
        """Want something done."""
        self._effects.append(effect)

    def take(self) -> list[Effect]:
        """What has to be done, in order; handed over once."""
        handed, self._effects = self._effects, []
        return handed

    def send(self, name: str, message: kinds.Datagram) -> None:
        """To a member; nothing when there is none of that name."""
        self.broadcast((name,), message)

    def broadcast(self, names: Iterable[str], message: kinds.Datagram) -> None:
        """The same to several members."""
        data = wire.encode(message, self.members.me, self.keys)
        for name in names:
            member = self.members.others.get(name)
            if member is not None:
                self._route(member, data)

    def send_direct(self, to: IPv4Address, message: kinds.Datagram) -> None:
        """To an address, whoever is there, and never by way of another."""
        self.send_bytes(to, wire.encode(message, self.members.me, self.keys))

    def send_bytes(self, to: IPv4Address, data: bytes) -> None:
        """A datagram that is complete already."""
        self.counters.sent += 1
        self.counters.sent_bytes += len(data)
        self._effects.append(Send(to, data))

    def call(self, to: IPv4Address, request: kinds.Request, on_answer: OnAnswer, on_silence: OnSilence) -> None:
        """An exchange; exactly one of the two functions is called, later."""
        self._token += 1
        self._calls[self._token] = on_answer, on_silence
        data = wire.encode(request, self.members.me, self.keys)
        self.counters.calls += 1
        self.counters.sent_bytes += len(data)
        self._effects.append(Call(to, self._token, data))

    def answered(self, token: int, sender: Member, answer: Answer) -> None:
        """The answer to a call has come."""
        if (waiting := self._calls.pop(token, None)) is not None:
            waiting[0](sender, answer)

    def unanswered(self, token: int, reason: str) -> None:
        """A call has no answer and will have none."""
        if (waiting := self._calls.pop(token, None)) is not None:
            waiting[1](reason)

    def _route(self, member: Member, data: bytes) -> None:
        alive = (name for name, other in self.members.others.items() if other.answers)
        hop = self.links.next_hop(member.name, alive) or member.name
        if hop == member.name:
            self.send_bytes(member.address, data)
        else:
            relay = wire.encode_relay(kinds.Relay(member.address, data), self.keys)
            self.send_bytes(self.members.others[hop].address, relay)


def refusal(answer: Answer) -> str:
    """Why an answer is none, or the empty string."""
    return answer.reason if isinstance(answer, Refuse) else ""
