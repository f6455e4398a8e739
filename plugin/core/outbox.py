"""What an agent wants done: effects, in order, for whoever owns the sockets, the disk and the kernel.

Messages to a member go the direct way, or by way of a member that both reach (RELAY); each is sealed for its receiver
alone (plugin/core/messages/sessions.py). An exchange (`Call`) is one request on TCP, sealed when the other side has
greeted; its answer, or that there was none, comes back to the function that was given along.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from plugin.core.membership.links import Links
from plugin.core.membership.members import Members, Peer
from plugin.core.messages import kinds, wire
from plugin.core.messages.exchange import Calling
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Accepted, Answer, Kind, Promise, Refuse
from plugin.core.messages.sessions import Sessions
from plugin.core.messages.values import Member
from plugin.core.messages.wire import Opened

_REJECTED: Final = (
    "malformed",
    "other cluster",
    "other password",
    "other session",
    "replayed",
    "name taken",
    "no node",
    "too large",
    "too many",
    "too slow",
)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to UDP 6783 of a node."""

    to: IPv4Address
    data: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """Exchange with TCP 6783 of a node: what it says first goes to `Node.on_greeting`, which gives the request; then
    comes `Node.on_answer`, or `Node.on_no_answer` whatever has failed, each with this token.
    """

    to: IPv4Address
    token: int


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
class PeerMoved:
    """A member's node has another address than before: whoever wrote the old one down should write this one."""

    name: str
    before: IPv4Address
    now: IPv4Address


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


Effect: TypeAlias = (
    Send | Call | Persist | PeerChanged | PeersChanged | PeerMoved | EndpointsChanged | SpaceChanged | Noted
)
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
class _Waiting:
    """An exchange that has begun."""

    kind: Kind
    body: bytes
    on_answer: OnAnswer
    on_silence: OnSilence
    asked: str
    """The identity of the member that was called; empty when none was known there."""

    calling: Calling | None = None


@dataclass(slots=True)
class Outbox:
    """Collects effects."""

    members: Members
    links: Links
    keys: Keys
    counters: Counters = field(default_factory=Counters)
    _effects: list[Effect] = field(default_factory=list)
    _calls: dict[int, _Waiting] = field(default_factory=dict)
    _token: int = 0
    _sessions: Sessions = field(init=False)

    def __post_init__(self) -> None:
        self._sessions = Sessions(self.keys, self.members.me.session, self._living)

    @property
    def sessions(self) -> Sessions:
        """The sessions of this agent's present life."""
        self._sessions.live(self.members.me.session)
        return self._sessions

    def _living(self) -> set[bytes]:
        return {member.session for member in self.members.others.values()}

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
        body = wire.body_of(message, self.members.me)
        for name in names:
            member = self.members.others.get(name)
            if member is not None:
                self._route(member, message.KIND, body)

    def send_direct(self, to: Member, message: kinds.Datagram) -> None:
        """To the address of an agent, whether it is a member or not, and never by way of another."""
        self.send_to(to.address, to.session, message)

    def send_to(self, to: IPv4Address, session: bytes, message: kinds.Datagram) -> None:
        """To an address, for the life of an agent that has spoken from there, as it says."""
        body = wire.body_of(message, self.members.me)
        self.send_bytes(to, self.sessions.seal(message.KIND, body, session))

    def send_bytes(self, to: IPv4Address, data: bytes) -> None:
        """A datagram that is complete already."""
        self.counters.sent += 1
        self.counters.sent_bytes += len(data)
        self._effects.append(Send(to, data))

    def call(self, to: IPv4Address, request: kinds.Request, on_answer: OnAnswer, on_silence: OnSilence) -> None:
        """An exchange; exactly one of the two functions is called, later."""
        self._token += 1
        asked = self.members.at(to)
        uid = "" if asked is None else asked.uid
        body = wire.body_of(request, self.members.me)
        self._calls[self._token] = _Waiting(request.KIND, body, on_answer, on_silence, uid)
        self.counters.calls += 1
        self._effects.append(Call(to, self._token))

    def greeted(self, token: int, said: bytes) -> bytes:
        """Who was called has spoken first; the request for it.

        Raises:
            WireError: It is no agent, or speaks another version.
        """
        waiting = self._calls[token]
        waiting.calling = Calling(self.keys, self.members.me.session, token, said)
        data = waiting.calling.request(waiting.kind, waiting.body)
        self.counters.sent_bytes += len(data)
        return data

    def opened(self, token: int, data: bytes) -> Opened:
        """The answer to a call, if it is one.

        Raises:
            StrangerError: It is from another cluster, or sealed with another password, or for something else.
            WireError: It is no message.
        """
        calling = self._calls[token].calling
        assert calling is not None, "nobody answers before it was asked"
        return calling.open(data)

    def answered(self, token: int, sender: Member, answer: Answer) -> None:
        """The answer to a call has come.

        A vote of another agent than was asked is none: its node may have the address now that the other one had.
        """
        if (waiting := self._calls.pop(token, None)) is not None:
            if isinstance(answer, Promise | Accepted) and sender.uid != waiting.asked:
                waiting.on_silence(f"{sender.name} answers there")
            else:
                waiting.on_answer(sender, answer)

    def unanswered(self, token: int, reason: str) -> None:
        """A call has no answer and will have none."""
        if (waiting := self._calls.pop(token, None)) is not None:
            waiting.on_silence(reason)

    def _route(self, member: Member, kind: Kind, body: bytes) -> None:
        data = self.sessions.seal(kind, body, member.session)
        alive = (name for name, other in self.members.others.items() if other.answers)
        hop = self.links.next_hop(member.name, alive) or member.name
        if hop == member.name:
            self.send_bytes(member.address, data)
        else:
            by = self.members.others[hop]
            relay = wire.relay_body(kinds.Relay(member.address, data))
            self.send_bytes(by.address, self.sessions.seal(Kind.RELAY, relay, by.session))


def refusal(answer: Answer) -> str:
    """Why an answer is none, or the empty string."""
    return answer.reason if isinstance(answer, Refuse) else ""
