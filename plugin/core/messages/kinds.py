"""Every message between agents: what it says, and when it is said. How it becomes bytes is in fields.py and wire.py."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import ClassVar, TypeAlias

from plugin.core.messages.values import (
    NOBODY,
    Ballot,
    Brief,
    Endpoint,
    Have,
    LinkNews,
    Member,
    RingState,
    Segment,
    Table,
    Value,
)


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
    HELLO = 11
    SYNC = 16
    PREPARE = 17
    PROMISE = 18
    ACCEPT = 19
    ACCEPTED = 20
    ASK = 21
    GRANT = 22


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
    """Ranges of this ring have changed hands; agents of before rings could be recovered do not name it."""

    KIND: ClassVar = Kind.RING
    segments: tuple[Segment, ...]
    ring: str | None = None


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
class Hello:
    """You speak to an earlier life of me, or to who had this address before: this is who I am now."""

    KIND: ClassVar = Kind.HELLO


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


Datagram: TypeAlias = Ping | Ack | PingFor | Step | TablePart | Pull | Seen | RingNews | Refuse | Hello
Request: TypeAlias = Sync | Prepare | Accept | Ask
Answer: TypeAlias = Sync | Promise | Accepted | Grant | Refuse
Message: TypeAlias = Datagram | Request | Answer
