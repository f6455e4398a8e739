"""Messages become bytes and bytes become messages: datagrams on UDP 6783, exchanges on TCP 6783.

    0      2         3      4             8        12         20       24          40
    +------+---------+------+-------------+--------+----------+--------+-----------+-------------------
    | "WV" | version | kind | cluster (4) | to (4) | from (8) | number | seal (16) | body, JSON (UTF-8)
    +------+---------+------+-------------+--------+----------+--------+-----------+-------------------

`cluster` condenses what all members must agree on (plugin/core/messages/keys.py). `to` and `from` are the lives of two
agents: a message is for one agent, as long as it runs, and counted in `number`. `seal` covers everything else, by a key
that only these two lives have (sessions.py, and exchange.py for TCP). The body of every message but RELAY is a JSON
object, so that `tcpdump -A -n port 6783` can be read by a person; it names its sender, because a message may come by
way of another agent (RELAY).

Bytes from a peer are checked here, once: `head_of` looks at what costs nothing, and `parse` answers with a message
whose every field is in bounds, or raises WireError, whatever the bytes. What follows from it is decided in
plugin/core/node.py.
"""

import json
import struct
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from plugin.core.messages.codec import WireError
from plugin.core.messages.fields import FIELDS, MEMBER
from plugin.core.messages.keys import SEAL_BYTES, seal
from plugin.core.messages.kinds import Kind, Message, Relay
from plugin.core.messages.values import Member

MAGIC: Final = b"WV"
VERSION: Final = 3
HEADER: Final = struct.Struct(">2sBB4s4s8sI16s")
TAG_OFFSET: Final = 8
"""Where `to` is: the kernel sorts datagrams by it before an agent sees them (plugin/agent/sockets.py)."""

NUMBER_MAX: Final = (1 << 32) - 1
LENGTH: Final = struct.Struct(">I")
DATAGRAM_BYTES_MAX: Final = 1400
"""Fits an underlay of 1500 without fragments, with room for a tunnel below."""

RELAY_BYTES_MAX: Final = DATAGRAM_BYTES_MAX + HEADER.size + 8
FRAME_BYTES_MAX: Final = 8 << 20
"""A whole state of 2,000 members and 20,000 pods is below 4 MiB."""

_COVERED: Final = HEADER.size - SEAL_BYTES
_NO_SEAL: Final = bytes(SEAL_BYTES)
_KINDS: Final = {int(kind): kind for kind in Kind}


class Head(NamedTuple):
    """What stands before the body, and has broken no rule so far."""

    kind: Kind
    mark: bytes
    to: bytes
    sender: bytes
    number: int
    seal: bytes


class StrangerError(WireError):
    """The message is in form, but not sealed for this agent.

    Args:
        text: What is wrong.
        code: `cluster`: it is from another cluster; `session`: it is to somebody else, or to an earlier life of this
            agent; `password`: its seal is wrong; `replay`: it was here before.
        head: Its header, none of which may be believed.
    """

    def __init__(self, text: str, code: str, head: Head) -> None:
        super().__init__(text)
        self.code = code
        self.head = head


class Opened(NamedTuple):
    """A message with its seal looked at; `sealed` is False for a REFUSE of a stranger, which is let through."""

    head: Head
    body: bytes
    sealed: bool


@dataclass(frozen=True, slots=True)
class Received:
    """A message and who sent it; `sealed` as in `Opened`."""

    sender: Member
    message: Message
    sealed: bool = True


def body_of(message: Message, sender: Member) -> bytes:
    """A message without its header: the same to whomever it goes."""
    body = {"from": MEMBER.dump(sender)}
    _, fields = FIELDS[message.KIND]
    for name, codec in fields.items():
        body[name] = codec.dump(getattr(message, name))
    data = json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode()
    limit = FRAME_BYTES_MAX if message.KIND >= Kind.SYNC else DATAGRAM_BYTES_MAX
    assert HEADER.size + len(data) <= limit, f"{message.KIND.name} of {HEADER.size + len(data)} bytes"
    return data


def relay_body(relay: Relay) -> bytes:
    """What is to be passed on: the destination's address and the datagram, sealed for it by whoever wrote it."""
    return relay.to.packed + relay.data


def sealed(head: Head, body: bytes, key: bytes) -> bytes:
    """All bytes of a message; the seal that `head` has so far does not matter."""
    kind, mark, to, sender, number, _ = head
    covered = HEADER.pack(MAGIC, VERSION, kind, mark, to, sender, number, _NO_SEAL)[:_COVERED]
    return covered + seal(key, covered, body) + body


def is_sealed(data: bytes, key: bytes) -> bool:
    """Whether the seal of a message was made with this key, for exactly this message."""
    view = memoryview(data)
    return compare_digest(view[_COVERED : HEADER.size], seal(key, view[:_COVERED], view[HEADER.size :]))


def head_of(data: bytes) -> Head:
    """The header of a message.

    Raises:
        WireError: It is none.
    """
    if len(data) < HEADER.size:
        raise WireError(f"a message has at least {HEADER.size} bytes, found {len(data)}")
    magic, version, number, mark, to, sender, count, found = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise WireError(f"a message starts with {MAGIC!r}, found {magic!r}")
    if version != VERSION:
        raise WireError(f"this agent speaks protocol version {VERSION}, found {version}")
    kind = _KINDS.get(number)
    if kind is None:
        raise WireError(f"kind {number} is unknown")
    limit = FRAME_BYTES_MAX if kind >= Kind.SYNC else RELAY_BYTES_MAX
    if len(data) > limit:
        raise WireError(f"a message has at most {limit} bytes, found {len(data)}")
    return Head(kind, mark, to, sender, count, found)


def parse(opened: Opened) -> Received | Relay:
    """The message behind a header.

    Raises:
        WireError: It breaks a rule; no other exception leaves this function.
    """
    head, body, is_true = opened
    if head.kind is Kind.RELAY:
        if len(body) <= 4:
            raise WireError("nothing to pass on")
        return Relay(IPv4Address(body[:4]), body[4:])
    received = _parsed(head.kind, body, is_true=is_true)
    if is_true and received.sender.session != head.sender:
        raise WireError("from: wanted the sender that the header names")
    return received


def _parsed(kind: Kind, data: bytes, *, is_true: bool) -> Received:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise WireError("the body must be a JSON object")
    made, fields = FIELDS[kind]
    values = {}
    for name, codec in fields.items():
        try:
            values[name] = codec.load(body.get(name))
        except WireError as error:
            raise WireError(f"{name}: {error.message}") from None
    try:
        sender = MEMBER.load(body.get("from"))
    except WireError as error:
        raise WireError(f"from: {error.message}") from None
    return Received(sender, made(**values), is_true)
