"""Who is where: every agent's table of all pods, so that no frame ever has to be flooded to find its way.

Each agent owns the endpoints of its node and numbers every change of that list (its version). It tells the others the
whole list or the step from one version to the next; they never change what is not theirs. Two agents can claim the same
address or MAC for a moment, when a pod has moved and the old node's farewell is late: the claim with the higher stamp
wins, everywhere the same way, and the other is shadowed, not forgotten.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import MappingProxyType

from plugin.core.messages.values import ENDPOINTS_PER_PEER_MAX, STAMP_MAX, Endpoint


@dataclass(frozen=True, slots=True)
class Located:
    """An endpoint and the node it is on; `node` None means this node."""

    endpoint: Endpoint
    node: IPv4Address | None


@dataclass(frozen=True, slots=True)
class Table:
    """One agent's endpoints at one version of one of its lives (`incarnation`)."""

    incarnation: int
    version: int
    endpoints: frozenset[Endpoint]


class Directory:
    """The tables of this agent and of all peers, and the one view that follows from them.

    The view is kept by address, so that a change costs the same in a cluster of three pods and of three thousand.
    """

    def __init__(self, incarnation: int) -> None:
        self._own = Table(incarnation, 0, frozenset())
        self._remote: dict[IPv4Address, Table] = {}
        self._claims: dict[IPv4Address, dict[IPv4Address | None, Endpoint]] = {}
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

    def put(self, address: IPv4Address, mac: str, label: str) -> Endpoint:
        """A pod was attached here; the same address again replaces its entry."""
        self._stamp_seen = min(self._stamp_seen + 1, STAMP_MAX)
        added = Endpoint(address, mac, self._stamp_seen, label)
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

    def located(self) -> dict[IPv4Address, Located]:
        """The one view: for every address the winning claim. Ties go to this node, then to the lower node address."""
        return {address: self._winner(address) for address in self._claims}

    def locate(self, address: IPv4Address) -> Located | None:
        """The winning claim to one address, or None when nobody claims it."""
        return self._winner(address) if address in self._claims else None

    def take_changed(self) -> set[IPv4Address]:
        """The addresses whose claims changed since this was asked last; handed over once."""
        changed, self._changed = self._changed, set()
        return changed

    def _winner(self, address: IPv4Address) -> Located:
        claims = [Located(endpoint, node) for node, endpoint in self._claims[address].items()]
        return max(claims, key=_precedence)

    def _set_own(self, endpoints: Iterable[Endpoint]) -> None:
        known = self._own.endpoints
        self._own = Table(self._own.incarnation, self._own.version + 1, frozenset(endpoints))
        self._reclaim(None, known, self._own.endpoints)

    def _reclaim(self, node: IPv4Address | None, before: frozenset[Endpoint], after: frozenset[Endpoint]) -> None:
        """Bring the claims of one agent in line with its table."""
        touched = {endpoint.address for endpoint in before ^ after}
        for address in touched:
            claims = self._claims.setdefault(address, {})
            claims.pop(node, None)
            if not claims:
                del self._claims[address]
        # Should a table name an address twice, the order decides, and it is the same on every node; an entry that
        # stays is claimed again, because it may have been shadowed by the one that went.
        for endpoint in sorted(endpoint for endpoint in after if endpoint.address in touched):
            self._claims.setdefault(endpoint.address, {})[node] = endpoint
        self._changed |= touched


def _precedence(claim: Located) -> tuple[int, int]:
    return claim.endpoint.stamp, -int(claim.node) if claim.node is not None else 1
