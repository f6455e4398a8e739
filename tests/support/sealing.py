"""Messages from one agent to another, sealed and opened as agents do, without any agent."""

from ipaddress import IPv4Address

from plugin.core.messages import wire
from plugin.core.messages.exchange import Called, Calling, greeting
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Answer, Kind, Message, Relay, Request
from plugin.core.messages.sessions import Sessions
from plugin.core.messages.values import Member
from plugin.core.messages.wire import Received

RECEIVER = Member("receiver", "e" * 16, IPv4Address("192.168.56.99"), 1)
CHALLENGE = b"88 bytes"


def sessions(keys: Keys, member: Member, *living: Member) -> Sessions:
    """The sessions of an agent that knows these members."""
    return Sessions(keys, member.session, lambda: {one.session for one in living})


def sealed(kind: int, body: bytes, sender: Member, keys: Keys, to: Member = RECEIVER) -> bytes:
    """A datagram or a request with any body at all: the first that `sender` says to `to`."""
    if kind >= Kind.SYNC:
        return Calling(keys, sender.session, 1, greeting(to.session, CHALLENGE)).request(Kind(kind), body)
    return sessions(keys, sender).seal(Kind(kind), body, to.session)


def encode(message: Message, sender: Member, keys: Keys, to: Member = RECEIVER) -> bytes:
    """A message as the first that `sender` says to `to`."""
    return sealed(message.KIND, wire.body_of(message, sender), sender, keys, to)


def encode_relay(relay: Relay, sender: Member, keys: Keys, to: Member = RECEIVER) -> bytes:
    """A datagram for `to` to pass on."""
    return sealed(Kind.RELAY, wire.relay_body(relay), sender, keys, to)


def decode(data: bytes, keys: Keys, to: Member = RECEIVER) -> Received | Relay:
    """What `to`, to which nobody has spoken yet, makes of a datagram or a request."""
    if len(data) > 3 and data[3] >= Kind.SYNC:
        return wire.parse(Called(keys, to.session, CHALLENGE).open(data))
    return decode_datagram(data, keys, to)


def decode_datagram(data: bytes, keys: Keys, to: Member = RECEIVER) -> Received | Relay:
    """What `to`, to which nobody has spoken yet, makes of a datagram."""
    return wire.parse(sessions(keys, to).open(data))


def asked(request: Request, sender: Member, keys: Keys, to: Member) -> tuple[Calling, bytes]:
    """A call with its request: the answer is to be opened by the same."""
    calling = Calling(keys, sender.session, 1, greeting(to.session, CHALLENGE))
    return calling, calling.request(request.KIND, wire.body_of(request, sender))


def answer_in(calling: Calling, data: bytes) -> Answer:
    """The message in the answer to a call."""
    received = wire.parse(calling.open(data))
    assert isinstance(received, Received)
    return received.message  # type: ignore[return-value]
