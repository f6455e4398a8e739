"""Which address an attachment gets: idempotent, lowest first, and with a rest before an address is used again.

Laws (tests/property/test_ring_allocator.py): no address is held by two attachments; the same attachment always gets the
same answer; an address given back is not given away again within `REST_S`, unless nothing else is left; what is claimed
after a restart is never given to somebody else; what is donated to another agent contains no address that is held.

The allocator knows no disk and no clock: its owner writes down what was given *before* anybody hears of it.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

from plugin.core.errors import CheckError
from plugin.core.ipam import shares
from plugin.core.ipam.shares import Share

Attachment: TypeAlias = tuple[str, str, str]
"""What holds an address: (network, container id, interface name)."""

Within: TypeAlias = IPv4Network | Share
"""Where an address is wanted: in a subnet, whose first and last address are nobody's, or anywhere in a share."""

EXPOSE: Final[Attachment] = ("weave", "weave:expose", "weave")
"""The attachment of the node's own bridge address, under the name that `weave ps` gives it."""

REST_S: Final = 30.0
"""How long a freed address rests: peers, conntrack and ARP caches of the world outside may still believe in it."""


class PoolExhaustedError(CheckError):
    """No address is left in what this node may give away."""


class AddressTakenError(CheckError):
    """The address asked for is held by somebody else, or not this node's to give."""


class RingAllocator:
    """Gives away the addresses of the ranges that this agent owns, without asking anybody.

    Args:
        network: The pod range. Nothing is owned until `own` says so.
    """

    def __init__(self, network: IPv4Network) -> None:
        self._network = network
        self._shares: tuple[Share, ...] = ()
        self._firsts: list[int] = []
        self._cursors: list[int] = []
        self._capacity = 0
        self._held: dict[Attachment, IPv4Address] = {}
        self._holders: dict[IPv4Address, Attachment] = {}
        self._holding = 0
        # Since when, the longest first. `_away` rests too but is not owned: it may be again before its time is up.
        self._resting: OrderedDict[IPv4Address, float] = OrderedDict()
        self._away: OrderedDict[IPv4Address, float] = OrderedDict()

    @property
    def held(self) -> Mapping[Attachment, IPv4Address]:
        """A read-only view of who holds what."""
        return MappingProxyType(self._held)

    @property
    def shares(self) -> tuple[Share, ...]:
        """What is owned."""
        return self._shares

    @property
    def capacity(self) -> int:
        """Usable addresses of the shares."""
        return self._capacity

    @property
    def free(self) -> int:
        """How many of them nobody holds; resting ones count, for they are given when nothing else is left."""
        return self._capacity - self._holding

    @property
    def strangers(self) -> dict[Attachment, IPv4Address]:
        """What is held though it is not owned: by pods that were found on the switch after the disk was lost."""
        return {attachment: address for attachment, address in self._held.items() if not self.owns(address)}

    def owns(self, address: IPv4Address) -> bool:
        """Whether this agent may give the address away, now or later."""
        share = self._share_of(address)
        return share is not None and shares.is_usable(self._network, share, address)

    def own(self, owned: Iterable[Share]) -> None:
        """These ranges are owned now, and no others. What is held stays held, what rests goes on resting."""
        new = tuple(sorted(owned, key=lambda share: share.first))
        if new == self._shares:
            return
        assert all(left.last < right.first for left, right in pairwise(new)), "an address would be counted twice"
        cursors = [self._cursor_in(share) for share in new]
        self._shares, self._cursors = new, cursors
        self._firsts = [int(share.first) for share in new]
        self._capacity = sum(shares.count_usable(self._network, share) for share in new)
        self._holding = sum(self.owns(address) for address in self._holders)
        rests = sorted((*self._resting.items(), *self._away.items()), key=lambda rest: rest[1])
        self._resting = OrderedDict(rest for rest in rests if self.owns(rest[0]))
        self._away = OrderedDict(rest for rest in rests if not self.owns(rest[0]))

    def allocate(self, attachment: Attachment, *, now_s: float, within: Within | None = None) -> IPv4Address:
        """The attachment's address: the one it holds, else a rested one, else a fresh one, else the longest rested.

        Rested ones come before fresh ones so that a busy node does not walk through its whole share.

        Args:
            attachment: Who gets it.
            now_s: The time.
            within: Only addresses of this subnet, without its first and last; or of this share, with both.

        Raises:
            PoolExhaustedError: Every usable address is held.
        """
        if (known := self._held.get(attachment)) is not None:
            return known
        address = self._rested(now_s, within) or self._fresh(within) or self._rested(float("inf"), within)
        if address is None:
            where = f" inside {within}" if within is not None else ""
            raise PoolExhaustedError(
                f"no address is left{where} in what this node owns of {self._network}: "
                f"{self._holding} of {self._capacity} are held",
                hint="delete pods, or use a larger pod range",
            )
        self._give(attachment, address)
        return address

    def claim(self, attachment: Attachment, address: IPv4Address, *, adopt: bool = False) -> None:
        """Hold `address` for `attachment`.

        Args:
            attachment: Who holds it.
            address: Any address of the range.
            adopt: Hold it although it is not owned: a pod that lives has it.

        Raises:
            AddressTakenError: It is not owned (without `adopt`), unusable, held by another attachment, or this
                attachment holds a different one.
        """
        if self._held.get(attachment) == address:
            return
        if (other := self._held.get(attachment)) is not None:
            raise AddressTakenError(f"{_named(attachment)} holds {other} already and cannot also have {address}")
        if (holder := self._holders.get(address)) is not None:
            raise AddressTakenError(f"{address} is held by {_named(holder)}")
        if not shares.is_usable(self._network, Share(address, address), address) or address not in self._network:
            raise AddressTakenError(f"{address} is no address for a pod of the range {self._network}")
        if not adopt and not self.owns(address):
            raise AddressTakenError(
                f"{address} is not this node's to give: it owns {self._owned()}",
                hint="ask for an address of this node, or for none",
            )
        self._give(attachment, address)

    def release(self, attachment: Attachment, *, now_s: float) -> IPv4Address | None:
        """Give back the attachment's address, which then rests for `REST_S` seconds; None when it held none."""
        address = self._held.pop(attachment, None)
        if address is not None:
            del self._holders[address]
            self._holding -= self.owns(address)
            self.rest(address, now_s=now_s)
        return address

    def rest(self, address: IPv4Address, *, now_s: float) -> None:
        """An address was freed that nobody holds here: its pod ended while no agent looked."""
        if address in self._holders:
            return
        while self._away and now_s - next(iter(self._away.values())) >= REST_S:
            self._away.popitem(last=False)
        rests = self._resting if self.owns(address) else self._away
        rests[address] = now_s
        rests.move_to_end(address)

    def donate(
        self, *, now_s: float, within: IPv4Network | None = None, exact: IPv4Address | None = None
    ) -> tuple[Share, ...]:
        """What could be given to another agent: an aligned block, the largest that is at most half of what is free.

        Nothing changes by this; who gives it away tells the ring, and `own` what is left. The last free address is
        kept, and addresses that rest are given only when there are no others. The work grows with what is held, with
        what rests and with the number of ranges, not with the number of addresses.

        Args:
            now_s: The time.
            within: Only addresses of this subnet, without its first and last.
            exact: Only this address, be it the last one.
        """
        if exact is not None:
            return (Share(exact, exact),) if self.owns(exact) and exact not in self._holders else ()
        if self.free < 2:
            return ()
        young = {address for address, since_s in self._resting.items() if now_s - since_s < REST_S}
        held = self._holders.keys()
        block = self._best_block(held | young, within) or self._best_block(held, within)
        return () if block is None else (block,)

    def _best_block(self, taken: Iterable[IPv4Address], within: IPv4Network | None) -> Share | None:
        numbers = sorted(int(address) for address in taken)
        gaps = [
            (gap, shares.count_usable(self._network, gap))
            for share in self._shares
            for gap in _gaps(share, numbers, within)
        ]
        room = sum(usable for _, usable in gaps)
        best: Share | None = None
        for gap, usable in gaps:
            limit = min(gap.size, max(1, min(self.free, room) // 2)) if usable else 0
            while limit and (best is None or limit >= best.size):
                size = 1 << (limit.bit_length() - 1)
                block = self._highest_block(gap, size)
                if block is not None:
                    best = block
                    break
                limit = size // 2
        return best

    def _highest_block(self, gap: Share, size: int) -> Share | None:
        """The highest aligned block with a usable address: the low addresses stay together here."""
        start = (int(gap.last) + 1) // size * size - size
        while start >= int(gap.first):
            block = Share(IPv4Address(start), IPv4Address(start + size - 1))
            if shares.count_usable(self._network, block):
                return block
            start -= size  # at most two in a row are unusable: .255 and .0
        return None

    def _give(self, attachment: Attachment, address: IPv4Address) -> None:
        assert address not in self._holders, f"{address} would be held twice"
        self._resting.pop(address, None)
        self._away.pop(address, None)
        self._held[attachment] = address
        self._holders[address] = attachment
        self._holding += self.owns(address)

    def _rested(self, now_s: float, within: Within | None) -> IPv4Address | None:
        for address, since_s in self._resting.items():
            if now_s - since_s < REST_S:
                return None
            if _inside(address, within):
                return address
        return None

    def _fresh(self, within: Within | None) -> IPv4Address | None:
        """The lowest address that is neither held nor resting; below a share's cursor there is none."""
        for index, share in enumerate(self._shares):
            if self._cursors[index] > int(share.last):
                continue
            for address in _walk(self._network, Share(IPv4Address(self._cursors[index]), share.last), within):
                if address not in self._holders and address not in self._resting:
                    if within is None:
                        self._cursors[index] = int(address)
                    return address
            if within is None:
                self._cursors[index] = int(share.last) + 1
        return None

    def _cursor_in(self, share: Share) -> int:
        """Where the first fresh address of a share that will be owned can be, from what is owned now.

        Only what lies in one old share, below its cursor, is known to have been given away.
        """
        old = self._share_at(share.first)
        if old is None:
            return int(share.first)
        return max(int(share.first), min(self._cursors[old], int(self._shares[old].last) + 1))

    def _share_at(self, address: IPv4Address) -> int | None:
        index = bisect_right(self._firsts, int(address)) - 1
        return index if index >= 0 and address in self._shares[index] else None

    def _share_of(self, address: IPv4Address) -> Share | None:
        index = self._share_at(address)
        return None if index is None else self._shares[index]

    def _owned(self) -> str:
        shown = ", ".join(str(share) for share in self._shares[:4]) or "nothing"
        return shown + (", ..." if len(self._shares) > 4 else "")


def _gaps(share: Share, taken: list[int], within: IPv4Network | None) -> Iterator[Share]:
    """The parts of a share that contain none of `taken` (sorted)."""
    first, last = int(share.first), int(share.last)
    if within is not None:
        first, last = max(first, int(within.network_address) + 1), min(last, int(within.broadcast_address) - 1)
    for number in taken[bisect_left(taken, first) : bisect_right(taken, last)]:
        if number > first:
            yield Share(IPv4Address(first), IPv4Address(number - 1))
        first = number + 1
    if first <= last:
        yield Share(IPv4Address(first), IPv4Address(last))


def _walk(network: IPv4Network, share: Share, within: Within | None) -> Iterator[IPv4Address]:
    if within is None:
        yield from shares.usable(network, share)
        return
    bounds = _bounds(within)
    first, last = max(share.first, bounds.first), min(share.last, bounds.last)
    if first <= last:
        yield from shares.usable(network, Share(first, last))


def _inside(address: IPv4Address, within: Within | None) -> bool:
    return within is None or address in _bounds(within)


def _bounds(within: Within) -> Share:
    if isinstance(within, Share):
        return within
    return Share(within.network_address + 1, within.broadcast_address - 1)


def _named(attachment: Attachment) -> str:
    network, container, ifname = attachment
    return f"{container[:12]}/{ifname} of network {network}"
