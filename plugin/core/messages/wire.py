"""Messages become bytes and bytes become messages: datagrams on UDP 6783, exchanges on TCP 6783.

    0      2         3      4             12         20
    +------+---------+------+-------------+----------+------------------
    | "WV" | version | kind | cluster (8) | seal (8) | body, JSON (UTF-8)
    +------+---------+------+-------------+----------+------------------

`cluster` condenses what all members must agree on (`Keys`). `seal` is a keyed hash over everything else, the key made
from the cluster's password: who does not know it can neither speak nor change what was said. The body of every message
but RELAY is a JSON object, so that `tcpdump -A -n port 6783` can be read by a person; it names its sender, because a
message may come by way of another agent (RELAY). On TCP one request and one answer follow each other, each behind its
length (4 bytes, big-endian).

Bytes from a peer are checked here, once: `decode` answers with a message whose every field is in bounds, or raises
WireError, whatever the bytes. What follows from it is decided in plugin/core/node.py.
"""

import json
import struct
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.messages.codec import WireError
from plugin.core.messages.fields import FIELDS, MEMBER
from plugin.core.messages.kinds import Kind, Message, Relay
from plugin.core.messages.values import Member

MAGIC: Final = b"WV"
VERSION: Final = 2
HEADER: Final = struct.Struct(">2sBB8s8s")
LENGTH: Final = struct.Struct(">I")
DATAGRAM_BYTES_MAX: Final = 1400
"""Fits an underlay of 1500 without fragments, with room for a tunnel below."""

RELAY_BYTES_MAX: Final = DATAGRAM_BYTES_MAX + HEADER.size + 8
FRAME_BYTES_MAX: Final = 8 << 20
"""A whole state of 2,000 members and 20,000 pods is below 4 MiB."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a cluster has in common: agents with other values refuse each other, and say which value differs.

    Attributes:
        cluster: The cluster's name.
        network: The pod range.
        overlay: Whatever else would part agents silently: VNI and port of the overlay, say.
        password: Empty for none.
        mark: 8 bytes in every header: a hash of all but the password.
    """

    cluster: str
    network: IPv4Network
    overlay: str = ""
    password: str = field(default="", repr=False)
    mark: bytes = field(init=False)
    _seal: "blake2b" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = f"{self.cluster}\n{self.network}\n{self.overlay}".encode()
        object.__setattr__(self, "mark", blake2b(words, digest_size=8).digest())
        key = blake2b(self.password.encode(), digest_size=32).digest()
        object.__setattr__(self, "_seal", blake2b(digest_size=8, key=key))

    def seal(self, covered: bytes) -> bytes:
        """8 bytes that only who knows the password can make (BLAKE2b keyed, RFC 7693)."""
        sealing = self._seal.copy()
        sealing.update(covered)
        return sealing.digest()


_EXCHANGED: Final = frozenset(kind for kind in Kind if kind >= Kind.SYNC) | {Kind.REFUSE}


def encode(message: Message, sender: Member, keys: Keys) -> bytes:
    """The bytes of `message`, without the length that precedes it on TCP."""
    body = {"from": MEMBER.dump(sender)}
    _, fields = FIELDS[message.KIND]
    for name, codec in fields.items():
        body[name] = codec.dump(getattr(message, name))
    data = json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode()
    sealed = _sealed(message.KIND, data, keys)
    limit = FRAME_BYTES_MAX if message.KIND >= Kind.SYNC else DATAGRAM_BYTES_MAX
    assert len(sealed) <= limit, f"{message.KIND.name} of {len(sealed)} bytes"
    return sealed


def encode_relay(relay: Relay, keys: Keys) -> bytes:
    """A datagram to be passed on: the destination's address and the datagram itself."""
    return _sealed(Kind.RELAY, relay.to.packed + relay.data, keys)


def _sealed(kind: Kind, body: bytes, keys: Keys) -> bytes:
    seal = keys.seal(bytes([kind]) + body)
    return HEADER.pack(MAGIC, VERSION, kind, keys.mark, seal) + body


@dataclass(frozen=True, slots=True)
class Received:
    """A message and who sent it; `sealed` is False for a REFUSE from another cluster or password."""

    sender: Member
    message: Message
    sealed: bool = True


class OtherClusterError(WireError):
    """The message is well formed but from another cluster, or sealed with another password (`code`)."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def decode(data: bytes, keys: Keys) -> Received | Relay:
    """The message in a datagram or in the body of an exchange.

    Raises:
        OtherClusterError: It is from an agent of another cluster, or with another password.
        WireError: Whatever else is wrong with it; no other exception leaves this function.
    """
    kind, body, sealed = _opened(data, keys)
    if kind is Kind.RELAY:
        if len(body) <= 4:
            raise WireError("nothing to pass on")
        return Relay(IPv4Address(body[:4]), body[4:])
    return _parsed(kind, body, sealed=sealed)


def _opened(data: bytes, keys: Keys) -> tuple[Kind, bytes, bool]:
    if len(data) < HEADER.size:
        raise WireError(f"a message has at least {HEADER.size} bytes, found {len(data)}")
    magic, version, number, mark, seal = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise WireError(f"a message starts with {MAGIC!r}, found {magic!r}")
    if version != VERSION:
        raise WireError(f"this agent speaks protocol version {VERSION}, found {version}")
    try:
        kind = Kind(number)
    except ValueError:
        raise WireError(f"kind {number} is unknown") from None
    limit = FRAME_BYTES_MAX if kind >= Kind.SYNC else RELAY_BYTES_MAX
    if len(data) > limit:
        raise WireError(f"a message has at most {limit} bytes, found {len(data)}")
    body = data[HEADER.size :]
    same = mark == keys.mark
    sealed = same and compare_digest(seal, keys.seal(bytes([kind]) + body))
    if not sealed and kind is not Kind.REFUSE:
        raise (
            OtherClusterError("another password", "password")
            if same
            else OtherClusterError("another cluster", "cluster")
        )
    return kind, body, sealed


def _parsed(kind: Kind, data: bytes, *, sealed: bool) -> Received:
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
    return Received(sender, made(**values), sealed)


def decode_datagram(data: bytes, keys: Keys) -> Received | Relay:
    """As `decode`, for what came in a datagram.

    Raises:
        WireError: As `decode`; also a message that belongs on TCP.
    """
    if len(data) > 3 and data[3] in _EXCHANGED and data[3] != Kind.REFUSE:
        raise WireError("a message of this kind does not come as a datagram")
    return decode(data, keys)
