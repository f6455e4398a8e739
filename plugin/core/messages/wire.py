"""Every message between agents, its limits, encode and decode: datagrams on UDP 6783, exchanges on TCP 6783.

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
WireError, whatever the bytes.
"""

import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

from plugin.core.forwarding.endpoints import ENDPOINTS_PER_PEER_MAX, Endpoint
from plugin.core.ipam.ring import NOBODY, Segment
from plugin.core.membership.members import LINK_NEWS, MEMBER, LinkNews, Member
from plugin.core.messages.codec import (
    ADDRESS,
    COUNTER,
    ENDPOINT,
    FLAG,
    NAME,
    OWNER,
    SEGMENT,
    SENTENCE,
    UID,
    UID_DIGITS,
    Codec,
    WireError,
    counter,
    listing,
    optional,
    row,
    text,
)

__all__ = ["WireError"]

MAGIC: Final = b"WV"
VERSION: Final = 2
HEADER: Final = struct.Struct(">2sBB8s8s")
LENGTH: Final = struct.Struct(">I")
DATAGRAM_BYTES_MAX: Final = 1400
"""Fits an underlay of 1500 without fragments, with room for a tunnel below."""

RELAY_BYTES_MAX: Final = DATAGRAM_BYTES_MAX + HEADER.size + 8
FRAME_BYTES_MAX: Final = 8 << 20
"""A whole state of 2,000 members and 20,000 pods is below 4 MiB."""

ENDPOINTS_PER_DATAGRAM_MAX: Final = 10
"""Ten entries with the longest labels, addresses and stamps stay below DATAGRAM_BYTES_MAX (tests/property)."""

STEP_MAX: Final = 6
NEWS_PER_DATAGRAM_MAX: Final = 5
LINKS_PER_DATAGRAM_MAX: Final = 2
SEGMENTS_PER_DATAGRAM_MAX: Final = 16
PARTS_MAX: Final = 512
MEMBERS_MAX: Final = 4096
SEGMENTS_MAX: Final = 16384


class Kind(IntEnum):
    """What a message is."""

    PING = 1
    ACK = 2
    PING_FOR = 3
    STEP = 4
    TABLE = 5
    PULL = 6
    SEEN = 7
    RING = 8
    REFUSE = 9
    RELAY = 10
    SYNC = 16
    PREPARE = 17
    PROMISE = 18
    ACCEPT = 19
    ACCEPTED = 20
    ASK = 21
    GRANT = 22


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


@dataclass(frozen=True, slots=True)
class Brief:
    """What every PING and ACK says of its sender, so that disagreement is noticed without asking.

    Attributes:
        digest: Of all that must be the same everywhere when it is quiet: members, tables, ring.
        quiet_ms: For how long the digest has not changed.
        table: The version of the sender's own table of endpoints.
        free: How many addresses it could give away.
    """

    digest: int
    quiet_ms: int
    table: int
    free: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Do you hear me? With the latest news of members and of paths that do not work."""

    KIND: ClassVar = Kind.PING
    seq: int
    brief: Brief
    news: tuple[Member, ...] = ()
    links: tuple[LinkNews, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """I hear you, or (`about` is not empty) I heard the one you asked me to ping."""

    KIND: ClassVar = Kind.ACK
    seq: int
    about: str
    brief: Brief
    news: tuple[Member, ...] = ()
    links: tuple[LinkNews, ...] = ()


@dataclass(frozen=True, slots=True)
class PingFor:
    """Please ping `name` for me: I do not hear it."""

    KIND: ClassVar = Kind.PING_FOR
    seq: int
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """The change of my table from version `base` to `version`."""

    KIND: ClassVar = Kind.STEP
    base: int
    version: int
    endpoints: tuple[Endpoint, ...]
    gone: tuple[IPv4Address, ...]


@dataclass(frozen=True, slots=True)
class TablePart:
    """Part `part` of `parts` of my whole table at `version`; a receiver acts when it has all parts of one version."""

    KIND: ClassVar = Kind.TABLE
    version: int
    part: int
    parts: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Pull:
    """Send me your whole table; what I have is out of date."""

    KIND: ClassVar = Kind.PULL


@dataclass(frozen=True, slots=True)
class Seen:
    """I have your table at this version."""

    KIND: ClassVar = Kind.SEEN
    version: int


@dataclass(frozen=True, slots=True)
class RingNews:
    """Ranges have changed hands."""

    KIND: ClassVar = Kind.RING
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """You and I cannot take part in the same network; `reason` completes the sentence "it refuses this node: ...".

    It has to reach those of other clusters too, whose seal is another: from them it is believed only for what status
    shows. `uid` is the one that is refused, where that is known: a word to its predecessor does not concern it.
    """

    KIND: ClassVar = Kind.REFUSE
    code: str
    reason: str
    uid: str = NOBODY


@dataclass(frozen=True, slots=True)
class Table:
    """One agent's endpoints, as another one knows them."""

    name: str
    life: int
    version: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """Which version of an agent's table somebody has."""

    name: str
    life: int
    version: int


@dataclass(frozen=True, slots=True, order=True)
class Seat:
    """One who takes part in agreements about addresses, and may own some; `address` is where it took its seat."""

    uid: str
    name: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class RingState:
    """All that is agreed about addresses.

    Attributes:
        ring: Names the first agreement, so that two rings never mix; empty before it.
        epoch: How many decrees there have been.
        seats: Who takes part since the last of them.
        left: Who took part once and never will again.
        segments: Who owns what.
    """

    ring: str
    epoch: int
    seats: tuple[Seat, ...]
    left: tuple[str, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """Everything I know; the answer is the same from the other side. `wanted` are tables to send in a next exchange."""

    KIND: ClassVar = Kind.SYNC
    members: tuple[Member, ...]
    links: tuple[LinkNews, ...]
    have: tuple[Have, ...]
    tables: tuple[Table, ...]
    wanted: tuple[str, ...]
    state: RingState
    pods: bool


@dataclass(frozen=True, slots=True)
class Ballot:
    """Ballots are ordered, and no two proposers ever use the same one."""

    number: int
    uid: str

    def __lt__(self, other: "Ballot") -> bool:
        return (self.number, self.uid) < (other.number, other.uid)

    def __le__(self, other: "Ballot") -> bool:
        return (self.number, self.uid) <= (other.number, other.uid)


@dataclass(frozen=True, slots=True)
class Value:
    """What a decree says: who takes part from now on, who no longer does, and which ranges change hands."""

    seats: tuple[Seat, ...]
    left: tuple[str, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Promise to accept nothing below `ballot` for the decree that begins `epoch` (Paxos, phase 1a).

    `removing` are members that are gone for good, as the proposer knows.
    """

    KIND: ClassVar = Kind.PREPARE
    epoch: int
    ballot: Ballot
    removing: tuple[str, ...]
    state: RingState


@dataclass(frozen=True, slots=True)
class Promise:
    """`granted`: yes, and this is what I have accepted before; otherwise I have promised `promised` (phase 1b)."""

    KIND: ClassVar = Kind.PROMISE
    epoch: int
    granted: bool
    promised: Ballot
    accepted: Ballot | None
    value: Value | None
    reason: str
    state: RingState


@dataclass(frozen=True, slots=True)
class Accept:
    """Accept `value` (phase 2a)."""

    KIND: ClassVar = Kind.ACCEPT
    epoch: int
    ballot: Ballot
    value: Value


@dataclass(frozen=True, slots=True)
class Accepted:
    """`granted`: yes; otherwise I have promised `promised` (phase 2b)."""

    KIND: ClassVar = Kind.ACCEPTED
    epoch: int
    granted: bool
    promised: Ballot
    state: RingState


@dataclass(frozen=True, slots=True)
class Ask:
    """Give me addresses: of `within`, exactly `exact`, or any."""

    KIND: ClassVar = Kind.ASK
    within: str
    exact: IPv4Address | None
    state: RingState


@dataclass(frozen=True, slots=True)
class Grant:
    """These ranges are yours now (possibly none: then `reason` says why) and `free` is what I still have."""

    KIND: ClassVar = Kind.GRANT
    segments: tuple[Segment, ...]
    free: int
    reason: str


@dataclass(frozen=True, slots=True)
class Relay:
    """Pass `data` on to `to`: the sender does not reach it."""

    to: IPv4Address
    data: bytes


Datagram: TypeAlias = Ping | Ack | PingFor | Step | TablePart | Pull | Seen | RingNews | Refuse
Request: TypeAlias = Sync | Prepare | Accept | Ask
Answer: TypeAlias = Sync | Promise | Accepted | Grant | Refuse
Message: TypeAlias = Datagram | Request | Answer
M = TypeVar("M")


_BRIEF: Final = row(
    Brief,
    {"digest": counter(highest=(1 << 64) - 1), "quiet_ms": COUNTER, "table": COUNTER, "free": COUNTER},
)
_NEWS: Final = listing(MEMBER, NEWS_PER_DATAGRAM_MAX)
_LINKS: Final = listing(LINK_NEWS, LINKS_PER_DATAGRAM_MAX)
_SOME_ENDPOINTS: Final = listing(ENDPOINT, ENDPOINTS_PER_DATAGRAM_MAX)
_HAVE: Final = row(Have, {"name": NAME, "life": COUNTER, "version": COUNTER})
_TABLE: Final = row(
    Table,
    {"name": NAME, "life": COUNTER, "version": COUNTER, "endpoints": listing(ENDPOINT, ENDPOINTS_PER_PEER_MAX)},
)
_SEATS: Final = listing(row(Seat, {"uid": UID, "name": NAME, "address": ADDRESS}, recurs=True), MEMBERS_MAX)
UIDS: Final = listing(UID, 2 * MEMBERS_MAX)
_SEGMENTS: Final = listing(SEGMENT, SEGMENTS_MAX)
STATE: Final = row(
    RingState, {"ring": text(UID_DIGITS), "epoch": COUNTER, "seats": _SEATS, "left": UIDS, "segments": _SEGMENTS}
)
BALLOT: Final = row(Ballot, {"number": COUNTER, "uid": UID})
VALUE: Final = row(Value, {"seats": _SEATS, "left": UIDS, "segments": _SEGMENTS})
_PARTS: Final = counter(lowest=1, highest=PARTS_MAX)

_FIELDS: Final[dict[Kind, tuple[type[Any], dict[str, Codec[Any]]]]] = {
    Kind.PING: (Ping, {"seq": COUNTER, "brief": _BRIEF, "news": _NEWS, "links": _LINKS}),
    Kind.ACK: (Ack, {"seq": COUNTER, "about": text(63), "brief": _BRIEF, "news": _NEWS, "links": _LINKS}),
    Kind.PING_FOR: (PingFor, {"seq": COUNTER, "name": NAME}),
    Kind.STEP: (
        Step,
        {
            "base": COUNTER,
            "version": COUNTER,
            "endpoints": listing(ENDPOINT, STEP_MAX),
            "gone": listing(ADDRESS, STEP_MAX),
        },
    ),
    Kind.TABLE: (
        TablePart,
        {"version": COUNTER, "part": counter(highest=PARTS_MAX - 1), "parts": _PARTS, "endpoints": _SOME_ENDPOINTS},
    ),
    Kind.PULL: (Pull, {}),
    Kind.SEEN: (Seen, {"version": COUNTER}),
    Kind.RING: (RingNews, {"segments": listing(SEGMENT, SEGMENTS_PER_DATAGRAM_MAX)}),
    Kind.REFUSE: (Refuse, {"code": text(20), "reason": SENTENCE, "uid": OWNER}),
    Kind.SYNC: (
        Sync,
        {
            "members": listing(MEMBER, MEMBERS_MAX),
            "links": listing(LINK_NEWS, MEMBERS_MAX),
            "have": listing(_HAVE, MEMBERS_MAX),
            "tables": listing(_TABLE, MEMBERS_MAX),
            "wanted": listing(NAME, MEMBERS_MAX),
            "state": STATE,
            "pods": FLAG,
        },
    ),
    Kind.PREPARE: (Prepare, {"epoch": COUNTER, "ballot": BALLOT, "removing": UIDS, "state": STATE}),
    Kind.PROMISE: (
        Promise,
        {
            "epoch": COUNTER,
            "granted": FLAG,
            "promised": BALLOT,
            "accepted": optional(BALLOT),
            "value": optional(VALUE),
            "reason": SENTENCE,
            "state": STATE,
        },
    ),
    Kind.ACCEPT: (Accept, {"epoch": COUNTER, "ballot": BALLOT, "value": VALUE}),
    Kind.ACCEPTED: (Accepted, {"epoch": COUNTER, "granted": FLAG, "promised": BALLOT, "state": STATE}),
    Kind.ASK: (Ask, {"within": text(18), "exact": optional(ADDRESS), "state": STATE}),
    Kind.GRANT: (Grant, {"segments": _SEGMENTS, "free": COUNTER, "reason": SENTENCE}),
}
_EXCHANGED: Final = frozenset(kind for kind in Kind if kind >= Kind.SYNC) | {Kind.REFUSE}


def encode(message: Message, sender: Member, keys: Keys) -> bytes:
    """The bytes of `message`, without the length that precedes it on TCP."""
    body = {"from": MEMBER.dump(sender)}
    _, fields = _FIELDS[message.KIND]
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
    made, fields = _FIELDS[kind]
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
