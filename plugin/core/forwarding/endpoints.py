"""Who is where: every agent's table of all pods, so that no frame ever has to be flooded to find its way.

Each agent owns the endpoints of its node and numbers every change of that list (its version). It tells the others the
whole list or the step from one version to the next; they never change what is not theirs. Two agents can claim the same
address or MAC: for a moment, when a pod has moved and the old node's farewell is late, or for longer, when both gave it
without knowing of each other. Which of them has it `claims` says, everywhere the same way.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType

from plugin.core.forwarding.claims import Claims, Displaced, Located, Place
from plugin.core.messages.values import ENDPOINTS_PER_PEER_MAX, STAMP_MAX, Endpoint


@dataclass(frozen=True, slots=True)
class Table:
    """One agent's endpoints at one version of one of its lives (`incarnation`)."""

    incarnation: int
    version: int
    endpoints: frozenset[Endpoint]


class Directory:
    """The tables of this agent and of all peers, and the one view that follows from them.

    Args:
        incarnation: This agent's life.
        own: The address of this node now.
        switch_mac: The MAC of a node's switch; empty for a node that is not known.
    """

    def __init__(
        self, incarnation: int, own: Callable[[], IPv4Address], switch_mac: Callable[[IPv4Address], str]
    ) -> None:
        self._own = Table(incarnation, 0, frozenset())
        self._remote: dict[IPv4Address, Table] = {}
        self._claims = Claims(own, switch_mac)
        self._changed: set[IPv4Address] = set()
        self._stamp_seen = 0

    @property
    def own(self) -> Table:
        """This agent's table."""
        return self._own

    @property
    def remote(self) -> Mapping[IPv4Address, Table]:
        """The peers' tables by node address; it follows what changes."""
        return MappingProxyType(self._remote)

    @property
    def count(self) -> int:
        """How many addresses are claimed."""
        return len(self._claims)

    def next_stamp(self) -> int:
        """A stamp for a new claim: higher than all that were seen."""
        self._stamp_seen = min(self._stamp_seen + 1, STAMP_MAX)
        return self._stamp_seen

    def put(self, address: IPv4Address, mac: str, label: str, *, stamp: int = 0) -> Endpoint:
        """A pod was attached here; the same address again replaces its entry.

        Args:
            address: Of the pod.
            mac: Of the pod.
            label: What people call it.
            stamp: Of a claim from an earlier life of this agent: it stays as old as it was. 0: a new one.
        """
        self._stamp_seen = max(self._stamp_seen, stamp)
        added = Endpoint(address, mac, stamp or self.next_stamp(), label)
        others = {known for known in self._own.endpoints if known.address != address}
        self._set_own(others | {added})
        return added

    def drop(self, address: IPv4Address) -> bool:
        """A pod was detached here; False when it was not listed."""
        others = {known for known in self._own.endpoints if known.address != address}
        if len(others) == len(self._own.endpoints):
            return False
        self._set_own(others)
        return True

    def relive(self, incarnation: int) -> None:
        """This agent is in another life than it was told first: its table counts as new."""
        self._own = Table(incarnation, self._own.version, self._own.endpoints)

    def replace(self, node: IPv4Address, table: Table) -> None:
        """A peer told its whole table."""
        for endpoint in table.endpoints:
            self._stamp_seen = max(self._stamp_seen, endpoint.stamp)
        known = self._remote.get(node)
        self._remote[node] = table
        self._reclaim(node, frozenset() if known is None else known.endpoints, table.endpoints)

    def step(self, node: IPv4Address, base: int, table: Table, gone: Iterable[IPv4Address]) -> bool:
        """A peer told the step from version `base`; False when we are not at `base` and need the whole table."""
        known = self._remote.get(node)
        if known is None or (known.incarnation, known.version) != (table.incarnation, base):
            return False
        leaving = {*gone, *(endpoint.address for endpoint in table.endpoints)}
        staying = {endpoint for endpoint in known.endpoints if endpoint.address not in leaving}
        if len(staying) + len(table.endpoints) > ENDPOINTS_PER_PEER_MAX:
            return False
        self.replace(node, Table(table.incarnation, table.version, frozenset(staying) | table.endpoints))
        return True

    def forget(self, node: IPv4Address) -> None:
        """A peer left for good; its endpoints go with it."""
        known = self._remote.pop(node, None)
        if known is not None:
            self._reclaim(node, known.endpoints, frozenset())

    def move(self, before: IPv4Address, now: IPv4Address) -> None:
        """A peer's node has another address: its endpoints are behind that one, and what was known there is void."""
        table = self._remote.get(before)
        self.forget(before)
        self.forget(now)
        if table is not None:
            self.replace(now, table)

    def moved(self) -> None:
        """This node has another address: of equal claims that of the lower address stands, which may be another now."""
        own = self._own.endpoints
        self._changed |= {endpoint.address for endpoint in own}
        self._changed |= self._claims.sharing({endpoint.mac for endpoint in own})

    def located(self) -> dict[IPv4Address, Located]:
        """The one view: for every address the claim that stands."""
        return {address: place for address in self._claims if (place := self._claims.standing(address)) is not None}

    def locate(self, address: IPv4Address) -> Located | None:
        """The claim to one address that stands, or None."""
        return self._claims.standing(address)

    def claimant(self, address: IPv4Address) -> Located | None:
        """Who has an address, be it displaced for its MAC; None when nobody claims it."""
        return self._claims.claimant(address)

    def holder(self, mac: str) -> Located | None:
        """Who has a MAC; None when nobody claims it."""
        return self._claims.holder(mac)

    def displaced(self) -> dict[IPv4Address, Displaced]:
        """The claims of this node that do not stand, by address; nearly always none."""
        return self._claims.displaced()

    def take_changed(self) -> set[IPv4Address]:
        """The addresses whose claims changed since this was asked last; handed over once."""
        changed, self._changed = self._changed, set()
        return changed

    def _set_own(self, endpoints: Iterable[Endpoint]) -> None:
        known = self._own.endpoints
        self._own = Table(self._own.incarnation, self._own.version + 1, frozenset(endpoints))
        self._reclaim(None, known, self._own.endpoints)

    def _reclaim(self, node: Place, before: frozenset[Endpoint], after: frozenset[Endpoint]) -> None:
        """Bring the claims of one agent in line with its table."""
        differing = before ^ after
        touched = {endpoint.address for endpoint in differing}
        macs = {endpoint.mac for endpoint in differing}
        sharing = self._claims.sharing(macs)
        for address in touched:
            self._claims.drop(address, node)
        # Should a table name an address twice, the order decides, and it is the same on every node; an entry that
        # stays is claimed again, because it may have been shadowed by the one that went.
        for endpoint in sorted(endpoint for endpoint in after if endpoint.address in touched):
            self._claims.put(endpoint, node)
        self._changed |= touched | sharing | self._claims.sharing(macs)
