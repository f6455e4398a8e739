"""Which address an attachment gets: idempotent, lowest first, and with a rest before an address is used again.

Laws (tests/property/test_allocator.py): no address is held by two attachments; the same attachment always gets the same
answer; an address given back is not given away again within `REST_S`, unless nothing else is left; what is claimed
after a restart is never given to somebody else.

The allocator knows no disk and no clock: its owner writes down what was given *before* anybody hears of it.
"""

from collections import deque
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from plugin.core import shares
from plugin.core.errors import CheckError
from plugin.core.shares import Share

Attachment: TypeAlias = tuple[str, str, str]
"""What holds an address: (network, container id, interface name)."""

EXPOSE: Final[Attachment] = ("weave", "weave:expose", "weave")
"""The attachment of the node's own bridge address, under the name that `weave ps` gives it."""

REST_S: Final = 30.0
"""How long a freed address rests: peers, conntrack and ARP caches of the world outside may still believe in it."""


class PoolExhaustedError(CheckError):
    """No address is left in what this node may give away."""


class AddressTakenError(CheckError):
    """The address asked for is held by somebody else, or not this node's to give."""


class Allocator(Protocol):
    """What the agent needs of an address allocator; the ring implements the same four calls."""

    @property
    def held(self) -> Mapping[Attachment, IPv4Address]:
        """Who holds what, now."""
        ...

    @property
    def capacity(self) -> int:
        """How many addresses this node may have given away at the same time."""
        ...

    def allocate(self, attachment: Attachment, *, now_s: float) -> IPv4Address:
        """An address for `attachment`; the same one when it has one already."""
        ...

    def claim(self, attachment: Attachment, address: IPv4Address) -> None:
        """`attachment` holds `address` already (found after a restart) or asks for exactly this one."""
        ...

    def release(self, attachment: Attachment, *, now_s: float) -> IPv4Address | None:
        """Give back what `attachment` holds; None when it held nothing."""
        ...


class ShareAllocator:
    """Allocates from one fixed share of the range, without asking anybody.

    Args:
        network: The pod range.
        share: This node's part of it.
    """

    def __init__(self, network: IPv4Network, share: Share) -> None:
        self._network = network
        self._share = share
        self._held: dict[Attachment, IPv4Address] = {}
        self._holders: dict[IPv4Address, Attachment] = {}
        self._fresh = shares.usable(network, share)  # never given away since the start; a lazy walk upwards
        self._resting: deque[tuple[IPv4Address, float]] = deque()
        self._capacity = shares.count_usable(network, share)

    @property
    def held(self) -> Mapping[Attachment, IPv4Address]:
        """A read-only view of who holds what."""
        return MappingProxyType(self._held)

    @property
    def capacity(self) -> int:
        """Usable addresses of the share."""
        return self._capacity

    def allocate(self, attachment: Attachment, *, now_s: float) -> IPv4Address:
        """The attachment's address: the one it holds, else a rested one, else a fresh one, else the longest rested.

        Rested ones come before fresh ones so that a busy node does not walk through its whole share.

        Raises:
            PoolExhaustedError: Every usable address is held.
        """
        if (known := self._held.get(attachment)) is not None:
            return known
        address = self._rested(now_s) or self._next_fresh() or self._rested(float("inf"))
        if address is None:
            raise PoolExhaustedError(
                f"no address is left in this node's share {self._share} of {self._network}: "
                f"{len(self._held)} of {self._capacity} are held",
                hint="delete pods on this node, or use a larger pod range",
            )
        self._give(attachment, address)
        return address

    def claim(self, attachment: Attachment, address: IPv4Address) -> None:
        """Hold `address` for `attachment`.

        Raises:
            AddressTakenError: It is outside the share, unusable, held by another attachment, or this attachment holds
                a different one.
        """
        if self._held.get(attachment) == address:
            return
        if (other := self._held.get(attachment)) is not None:
            raise AddressTakenError(f"{_named(attachment)} holds {other} already and cannot also have {address}")
        if not shares.is_usable(self._network, self._share, address):
            raise AddressTakenError(
                f"{address} is not this node's to give: its share of {self._network} is {self._share}",
                hint="ask for an address of this node's share, or for none",
            )
        if (holder := self._holders.get(address)) is not None:
            raise AddressTakenError(f"{address} is held by {_named(holder)}")
        self._resting = deque(entry for entry in self._resting if entry[0] != address)
        self._give(attachment, address)

    def release(self, attachment: Attachment, *, now_s: float) -> IPv4Address | None:
        """Give back the attachment's address, which then rests for `REST_S` seconds; None when it held none."""
        address = self._held.pop(attachment, None)
        if address is not None:
            del self._holders[address]
            self._resting.append((address, now_s))
        return address

    def _give(self, attachment: Attachment, address: IPv4Address) -> None:
        assert address not in self._holders, f"{address} would be held twice"
        self._held[attachment] = address
        self._holders[address] = attachment

    def _rested(self, now_s: float) -> IPv4Address | None:
        if self._resting and now_s - self._resting[0][1] >= REST_S:
            return self._resting.popleft()[0]
        return None

    def _next_fresh(self) -> IPv4Address | None:
        resting = {address for address, _ in self._resting}
        for address in self._fresh:
            if address not in self._holders and address not in resting:
                return address
        return None


def _named(attachment: Attachment) -> str:
    network, container, ifname = attachment
    return f"{container[:12]}/{ifname} of network {network}"
