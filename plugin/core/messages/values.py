"""What messages speak of, as plain values: members, ways between them, endpoints, ranges of addresses, agreements.

The rooms above decide with them, and say what they mean (membership, forwarding, ipam). Nothing is decided here.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Final

MEMBERS_MAX: Final = 4096
"""More are refused: by tables, and by the lists of a message."""


class MemberState(IntEnum):
    """In the order in which they replace each other."""

    ALIVE = 0
    SUSPECT = 1
    FAILED = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of an agent.

    Attributes:
        name: Its node's name.
        uid: 16 hex digits that came with its disk: an agent that lost its disk is another one of the same name.
        address: Its node's address, which is also where its VXLAN packets go.
        life: Which process of it this is; larger than every earlier one.
        incarnation: How often it has contradicted rumours in this life.
        state: What is believed of it.
    """

    name: str
    uid: str
    address: IPv4Address
    life: int
    incarnation: int = 0
    state: MemberState = MemberState.ALIVE

    @property
    def rank(self) -> tuple[int, int, int]:
        """The larger one holds."""
        return self.life, self.incarnation, self.state

    @property
    def answers(self) -> bool:
        """Whether it is believed to be there."""
        return self.state <= MemberState.SUSPECT

    @property
    def session(self) -> bytes:
        """8 bytes that name this life of it, as messages do: no other agent has them, and no earlier or later life."""
        return _session(self.uid, self.life)


@lru_cache(maxsize=2 * MEMBERS_MAX)
def _session(uid: str, life: int) -> bytes:
    return blake2b(f"{uid}\n{life}".encode(), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class LinkNews:
    """`origin` does not reach `target` directly (`broken`), or does again; the larger stamp of an origin holds."""

    origin: str
    target: str
    stamp: int
    broken: bool


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


STAMP_MAX: Final = (1 << 48) - 1
"""A pod a microsecond for nine years. What a peer claims beyond it is refused, so nobody can leave no room above."""

ENDPOINTS_PER_PEER_MAX: Final = 4096
"""More than a bridge has ports (1023) several times over; a table beyond this is refused, so memory is bounded."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A pod's place in the network.

    Attributes:
        address: Its IPv4 address, unique in the cluster.
        mac: Its hardware address, lower case with colons.
        stamp: Logical time of the claim: larger than every stamp its agent had seen when the pod was attached.
        label: What people call it: `namespace/name`, or the start of the container id.
    """

    address: IPv4Address
    mac: str
    stamp: int
    label: str = ""


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


NOBODY: Final = ""
"""The owner of what nobody owns, at version 0: nothing has been agreed."""

VERSION_MAX: Final = (1 << 63) - 1
"""The highest version that the wire carries (core/messages/codec.py); half of all epochs, and nobody gets that far."""


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Neighbouring addresses, `first` and `last` included, that have one version and one owner."""

    first: int
    last: int
    version: int
    owner: str

    @property
    def size(self) -> int:
        """How many addresses it spans."""
        return self.last - self.first + 1

    def __contains__(self, address: int | IPv4Address) -> bool:
        return self.first <= int(address) <= self.last

    def __str__(self) -> str:
        return f"{IPv4Address(self.first)}-{IPv4Address(self.last)}"


@dataclass(frozen=True, slots=True, order=True)
class Seat:
    """One who takes part in agreements about addresses, and may own some; `address` is where it took its seat."""

    uid: str
    name: str
    address: IPv4Address


ORIGINS_MAX: Final = 16
"""So many recoveries of one ring are remembered; who comes back from before them is refused as founded apart."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The ring that another one was recovered from, after so many seats were lost that nothing could be agreed.

    Attributes:
        ring: Its name.
        epoch: Its last epoch that those who are left knew.
        lost: The seats that were given up.
    """

    ring: str
    epoch: int
    lost: tuple[Seat, ...]


@dataclass(frozen=True, slots=True)
class RingState:
    """All that is agreed about addresses.

    Attributes:
        ring: Names the first agreement, so that two rings never mix; empty before it.
        epoch: How many decrees there have been.
        seats: Who takes part since the last of them.
        left: Who took part once and never will again.
        segments: Who owns what.
        origins: The rings that it was recovered from, the latest last; none as long as nothing had to be recovered.
    """

    ring: str
    epoch: int
    seats: tuple[Seat, ...]
    left: tuple[str, ...]
    segments: tuple[Segment, ...]
    origins: tuple[Origin, ...] = ()


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
    """What a decree says: who takes part from now on, who no longer does, and which ranges change hands.

    With `origins` it recovers the ring: what follows is another ring, and these are all its origins.
    """

    seats: tuple[Seat, ...]
    left: tuple[str, ...]
    segments: tuple[Segment, ...]
    origins: tuple[Origin, ...] = ()
