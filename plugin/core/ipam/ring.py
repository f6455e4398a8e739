"""Who owns which part of the pod range: a replicated value that needs no coordination to merge.

The ring is a function from every address of the range to (version, owner), kept as sorted segments. Two rings merge by
the pointwise maximum of (version, owner), so merging is commutative, associative and idempotent by construction: agents
that have heard the same things, in whatever order and however often, have the same ring. (Shapiro and others 2011,
"Conflict-free Replicated Data Types"; Weave's ring of tokens, ipam/ring/ring.go, has the same task.)

Only the owner of an address raises its version: that is the protocol of plugin/core/ipam/council.py, not of this file.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.errors import CheckError
from plugin.core.ipam import shares
from plugin.core.ipam.shares import Share
from plugin.core.messages.values import NOBODY, VERSION_MAX, Segment

EPOCH_BITS: Final = 32
"""version = epoch << 32 | counter. Taking over the space of a dead member raises the epoch, so it outweighs everything
the dead one may have written that is still under way."""


_OWNER: Final = re.compile("[0-9a-f]{16}", re.ASCII)


class RingError(CheckError):
    """Segments from outside that cannot be part of this ring."""


class Ring:
    """The whole range; at first nobody owns any of it."""

    def __init__(self, network: IPv4Network) -> None:
        self._network = network
        self._first, self._last = int(network.network_address), int(network.broadcast_address)
        self._segments = [Segment(self._first, self._last, 0, NOBODY)]
        self._firsts = [self._first]
        self._fingerprint: int | None = None

    @property
    def network(self) -> IPv4Network:
        """The range."""
        return self._network

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The canonical form: sorted, without gaps, neighbours differ in version or owner."""
        return tuple(self._segments)

    @property
    def is_empty(self) -> bool:
        """Whether nobody owns anything."""
        return len(self._segments) == 1 and self._segments[0].owner == NOBODY

    @property
    def fingerprint(self) -> int:
        """64 bits that are equal for equal rings, and practically only for those."""
        if self._fingerprint is None:
            digest = blake2b(digest_size=8)
            for segment in self._segments:
                digest.update(f"{segment.first} {segment.last} {segment.version} {segment.owner}\n".encode())
            self._fingerprint = int.from_bytes(digest.digest(), "big")
        return self._fingerprint

    def owner_of(self, address: int | IPv4Address) -> str:
        """Who owns an address; NOBODY outside the range too."""
        return self._at(int(address)).owner if self._first <= int(address) <= self._last else NOBODY

    def version_of(self, address: int | IPv4Address) -> int:
        """The version of an address; 0 outside the range too."""
        return self._at(int(address)).version if self._first <= int(address) <= self._last else 0

    def owned_by(self, owner: str) -> tuple[Share, ...]:
        """The ranges of one owner, as few as possible."""
        found: list[Share] = []
        for segment in self._segments:
            if segment.owner != owner:
                continue
            if found and int(found[-1].last) + 1 == segment.first:
                found[-1] = Share(found[-1].first, IPv4Address(segment.last))
            else:
                found.append(Share(IPv4Address(segment.first), IPv4Address(segment.last)))
        return tuple(found)

    def owners(self) -> dict[str, int]:
        """How many addresses each owner has."""
        found: dict[str, int] = {}
        for segment in self._segments:
            if segment.owner != NOBODY:
                found[segment.owner] = found.get(segment.owner, 0) + segment.size
        return found

    def merge(self, segments: Iterable[Segment], *, frozen: Collection[str] = ()) -> tuple[Segment, ...]:
        """Take in what somebody says of the ring.

        Args:
            segments: Any number, in the order of their addresses, not overlapping.
            frozen: Owners whose gifts do not count any more: their addresses change only with a higher epoch.

        Returns:
            What has changed, as it is now.

        Raises:
            RingError: A segment is outside the range, out of order, or has an impossible version or owner; then
                nothing has changed.
        """
        incoming = list(segments)
        self._check(incoming)
        changed: list[Segment] = []
        for segment in incoming:
            changed += self._merge_one(segment, frozen)
        return tuple(changed)

    def conflicts(self, segments: Iterable[Segment]) -> tuple[Segment, ...]:
        """The parts that have another owner here at the same version: two believed to own them. Must never happen."""
        found = []
        for segment in segments:
            for known in self._overlapping(segment.first, segment.last):
                if known.version == segment.version > 0 and known.owner != segment.owner:
                    first, last = max(known.first, segment.first), min(known.last, segment.last)
                    found.append(replace(segment, first=first, last=last))
        return tuple(found)

    def grant(self, owner: str, to: str, parts: Iterable[Share]) -> tuple[Segment, ...]:
        """`owner` gives ranges, all of them its own, to `to`; the new segments."""
        assert to != NOBODY, "a gift needs somebody who takes it"
        given = []
        for part in sorted(parts, key=lambda part: part.first):
            first, last = int(part.first), int(part.last)
            assert self._first <= first <= last <= self._last, f"{part} is not inside the pod range {self._network}"
            known = self._overlapping(first, last)
            assert all(segment.owner == owner for segment in known), f"{part} is not all {owner}'s to give"
            given.append(Segment(first, last, max(segment.version for segment in known) + 1, to))
        self.merge(given)
        return tuple(given)

    def inherit(self, dead: str, heir: str) -> tuple[Segment, ...]:
        """What a take-over of everything that `dead` owns has to say; the ring itself does not change."""
        return tuple(
            replace(segment, owner=heir, version=((segment.version >> EPOCH_BITS) + 1) << EPOCH_BITS)
            for segment in self._segments
            if segment.owner == dead
        )

    def compact(self, owner: str) -> tuple[Segment, ...]:
        """Neighbouring segments of `owner`, who alone may do this, become one; what has changed."""
        changed: list[Segment] = []
        for share in self.owned_by(owner):
            known = self._overlapping(int(share.first), int(share.last))
            if len(known) > 1:
                version = max(segment.version for segment in known) + 1
                changed += self.merge([Segment(int(share.first), int(share.last), version, owner)])
        return tuple(changed)

    def found(self, members: Sequence[str]) -> tuple[Segment, ...]:
        """The first agreement: equal shares for all members, in their order; the ring itself does not change.

        With more members than a quarter of the addresses only the first have a share; the others ask for some.
        """
        owners = list(dict.fromkeys(members))[: self._network.num_addresses // 4]
        if not owners:
            return ()
        edges = shares.edges(self._network, len(owners))
        return tuple(Segment(edges[index], edges[index + 1] - 1, 1, owner) for index, owner in enumerate(owners))

    def _check(self, incoming: Sequence[Segment]) -> None:
        lowest = self._first
        for segment in incoming:
            if not self._first <= segment.first <= segment.last <= self._last:
                raise RingError(f"{segment} is not inside the pod range {self._network}")
            if segment.first < lowest:
                raise RingError(f"{segment} begins before {IPv4Address(lowest)}, where the segment before it ends")
            lowest = segment.last + 1
            if not 0 <= segment.version <= VERSION_MAX or (segment.version == 0) != (segment.owner == NOBODY):
                raise RingError(f"{segment} of {segment.owner or 'nobody'} has version {segment.version}")
        for owner in {segment.owner for segment in incoming} - {NOBODY}:
            if not _OWNER.fullmatch(owner):
                raise RingError(f"the owner of a segment must be 16 hex digits, found {owner[:40]!r}")

    def _at(self, address: int) -> Segment:
        return self._segments[bisect_right(self._firsts, address) - 1]

    def _overlapping(self, first: int, last: int) -> list[Segment]:
        start = bisect_right(self._firsts, max(first, self._first)) - 1
        end = bisect_right(self._firsts, min(last, self._last))
        return [segment for segment in self._segments[start:end] if segment.last >= first]

    def _merge_one(self, incoming: Segment, frozen: Collection[str]) -> list[Segment]:
        start = bisect_right(self._firsts, incoming.first) - 1
        end = bisect_right(self._firsts, incoming.last)
        pieces: list[Segment] = []
        changed: list[Segment] = []
        for known in self._segments[start:end]:
            if not _replaces(incoming, known, frozen):
                pieces.append(known)
                continue
            first, last = max(known.first, incoming.first), min(known.last, incoming.last)
            if known.first < first:
                pieces.append(replace(known, last=first - 1))
            won = replace(incoming, first=first, last=last)
            pieces.append(won)
            changed.append(won)
            if known.last > last:
                pieces.append(replace(known, first=last + 1))
        if not changed:
            return []
        start, end = max(0, start - 1), min(len(self._segments), end + 1)
        around = [
            *(self._segments[start : start + 1] if self._segments[start].last < pieces[0].first else ()),
            *pieces,
            *(self._segments[end - 1 : end] if self._segments[end - 1].first > pieces[-1].last else ()),
        ]
        joined = _coalesced(around)
        self._segments[start:end] = joined
        self._firsts[start:end] = [segment.first for segment in joined]
        self._fingerprint = None
        return _coalesced(changed)


def _replaces(incoming: Segment, known: Segment, frozen: Collection[str]) -> bool:
    if (incoming.version, incoming.owner) <= (known.version, known.owner):
        return False
    return known.owner not in frozen or incoming.version >> EPOCH_BITS > known.version >> EPOCH_BITS


def _coalesced(segments: Iterable[Segment]) -> list[Segment]:
    joined: list[Segment] = []
    for segment in segments:
        before = joined[-1] if joined else None
        if (
            before is not None
            and before.last + 1 == segment.first
            and (before.version, before.owner) == (segment.version, segment.owner)
        ):
            joined[-1] = replace(before, last=segment.last)
        else:
            joined.append(segment)
    return joined
