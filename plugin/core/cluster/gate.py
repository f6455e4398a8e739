"""Where bytes come in: they are opened, checked and let through as messages, or counted, and answered where that helps.

It looks at what costs least first, because anybody can send: the header, then the seal, then the body. Who may speak of
those that know the password (door.py), and what a message means, is not its business.
"""

from ipaddress import IPv4Address
from typing import NamedTuple

from plugin.core.cluster.door import Door
from plugin.core.messages import kinds, wire
from plugin.core.messages.codec import WireError
from plugin.core.messages.exchange import Called, greeting
from plugin.core.messages.kinds import Relay
from plugin.core.messages.wire import Head, Received
from plugin.core.outbox import Outbox


class Asked(NamedTuple):
    """A request that counts, and what its answer needs."""

    received: Received
    head: Head
    called: Called


class Gate:
    """Opens what comes in.

    Args:
        outbox: Its sessions open datagrams, its counters count.
        door: Says what strangers are told.
    """

    def __init__(self, outbox: Outbox, door: Door) -> None:
        self._outbox = outbox
        self._door = door

    def datagram(self, data: bytes, source: IPv4Address, *, now_s: float) -> Received | Relay | None:
        """The message in a datagram; None when it does not count."""
        counters = self._outbox.counters
        counters.received += 1
        counters.received_bytes += len(data)
        try:
            opened = self._outbox.sessions.open(data)
            if not opened.sealed and not self._door.listens(source, now_s):
                counters.rejected["other session"] += 1
                return None
            received = wire.parse(opened)
        except wire.StrangerError as error:
            self._on_stranger(error, source, now_s)
            return None
        except WireError:
            counters.rejected["malformed"] += 1
            return None
        return received

    def _on_stranger(self, error: wire.StrangerError, source: IPv4Address, now_s: float) -> None:
        answer: kinds.Datagram | None = self._door.refuse(source, error, now_s)
        if answer is None and self._door.greets(source, error, now_s):
            answer = kinds.Hello()
        if answer is not None:
            self._outbox.send_to(source, error.head.sender, answer)

    def greeting(self, challenge: bytes) -> bytes:
        """What is said first to who connects."""
        return greeting(self._outbox.members.me.session, challenge)

    def request(self, data: bytes, challenge: bytes, source: IPv4Address, *, now_s: float) -> Asked | bytes | None:
        """The request of an exchange; or the bytes of a refusal; or None: hang up."""
        self._outbox.counters.received_bytes += len(data)
        called = Called(self._outbox.keys, self._outbox.members.me.session, challenge)
        try:
            opened = called.open(data)
            received = wire.parse(opened)
        except wire.StrangerError as error:
            self._door.refuse(source, error, now_s)
            return self._answer(called, error.head, self._door.refusal(error.code))
        except WireError:
            self._outbox.counters.rejected["malformed"] += 1
            return None
        if isinstance(received, Relay) or isinstance(received.message, kinds.Refuse):
            return None
        return Asked(received, opened.head, called)

    def answered(self, asked: Asked, answer: kinds.Answer) -> bytes:
        """The bytes of the answer to a request."""
        return self._answer(asked.called, asked.head, answer)

    def answer(self, token: int, data: bytes, source: IPv4Address, *, now_s: float) -> Received | None:
        """The answer to a call; None when there is none, which who called is told."""
        self._outbox.counters.received_bytes += len(data)
        try:
            received = wire.parse(self._outbox.opened(token, data))
        except wire.StrangerError as error:
            reason = "its answer is to something else"
            if error.code != "replay":
                reason = self._door.refusal(error.code).reason
                self._door.note(source, "", reason, now_s)
            self._outbox.unanswered(token, reason)
            return None
        except WireError:
            received = None
        if received is None or isinstance(received, Relay):
            self._outbox.counters.rejected["malformed"] += 1
            self._outbox.unanswered(token, "its answer makes no sense")
            return None
        return received

    def _answer(self, called: Called, to: Head, answer: kinds.Answer) -> bytes:
        data = called.answer(answer.KIND, wire.body_of(answer, self._outbox.members.me), to)
        self._outbox.counters.sent_bytes += len(data)
        return data
