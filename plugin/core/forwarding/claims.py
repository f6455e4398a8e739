"""Whose address and whose MAC it is when several say that they have it: one claim wins, and every agent names the same.

A claim is an endpoint of a node: a pair of address and MAC. An address belongs to the claim with the highest stamp, a
MAC to the node with the highest claim to it, and of equal ones to the lower node address; a switch has its own MAC
whatever a pod says. A claim stands when it has both its address and its MAC. What follows depends on the tables alone,
never on the order in which they came, so agents with equal tables agree.

Claims can meet although every agent looks before it gives something (plugin/agent/attachments/admission.py): when two
do so in the same moment, or in two halves of a network that is cut. Which of them wins matters less than that all
agree. The one that does not stand is not forgotten: it stands again as soon as the other one goes.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeAlias

from plugin.core.messages.values import Endpoint

Place: TypeAlias = IPv4Address | None
"""The address of a node; None is this node."""


@dataclass(frozen=True, slots=True)
class Located:
    """An endpoint and the node it is on; `node` None means this node."""

    endpoint: Endpoint
    node: Place


@dataclass(frozen=True, slots=True)
class Displaced:
    """A claim of this node that does not stand, and the one that has its address or its MAC."""

    endpoint: Endpoint
    by: Located

    @property
    def over(self) -> str:
        """What they both want, as a word for people."""
        same = self.endpoint.address == self.by.endpoint.address
        return f"address {self.endpoint.address}" if same else f"MAC {self.endpoint.mac}"


class Claims:
    """All claims, by address and by MAC, so that a change costs the same in a cluster of three pods and of thousands.

    Args:
        own: The address of this node now.
        switch_mac: The MAC of a node's switch; empty for a node that is not known.
    """

    def __init__(self, own: Callable[[], IPv4Address], switch_mac: Callable[[IPv4Address], str]) -> None:
        self._own = own
        self._switch_mac = switch_mac
        self._by_address: dict[IPv4Address, dict[Place, Endpoint]] = {}
        self._by_mac: dict[str, dict[Place, dict[IPv4Address, Endpoint]]] = {}
        self._disputed_addresses: set[IPv4Address] = set()
        self._disputed_macs: set[str] = set()

    def __len__(self) -> int:
        return len(self._by_address)

    def __iter__(self) -> Iterator[IPv4Address]:
        return iter(self._by_address)

    def put(self, endpoint: Endpoint, node: Place) -> None:
        """A node claims this; it replaces what that node claimed with the same address."""
        self.drop(endpoint.address, node)
        claims = self._by_address.setdefault(endpoint.address, {})
        claims[node] = endpoint
        if len(claims) > 1:
            self._disputed_addresses.add(endpoint.address)
        nodes = self._by_mac.setdefault(endpoint.mac, {})
        nodes.setdefault(node, {})[endpoint.address] = endpoint
        if len(nodes) > 1:
            self._disputed_macs.add(endpoint.mac)

    def drop(self, address: IPv4Address, node: Place) -> None:
        """A node claims this address no longer."""
        claims = self._by_address.get(address, {})
        gone = claims.pop(node, None)
        if gone is None:
            return
        if len(claims) < 2:
            self._disputed_addresses.discard(address)
        if not claims:
            del self._by_address[address]
        nodes = self._by_mac[gone.mac]
        del nodes[node][address]
        if not nodes[node]:
            del nodes[node]
        if len(nodes) < 2:
            self._disputed_macs.discard(gone.mac)
        if not nodes:
            del self._by_mac[gone.mac]

    def claimant(self, address: IPv4Address) -> Located | None:
        """Who has this address, whether or not it also has its MAC."""
        claims = self._by_address.get(address)
        if not claims:
            return None
        node = max(claims, key=lambda node: (claims[node].stamp, self._rank(node)))
        return Located(claims[node], node)

    def holder(self, mac: str) -> Located | None:
        """Who has this MAC; of several addresses of one holder the one that was claimed last."""
        nodes = self._by_mac.get(mac)
        if not nodes:
            return None
        latest = {node: max(of_node.values(), key=_age) for node, of_node in nodes.items()}
        node = max(latest, key=lambda node: (self._is_switch(mac, node), latest[node].stamp, self._rank(node)))
        return Located(latest[node], node)

    def standing(self, address: IPv4Address) -> Located | None:
        """The claim to this address that stands, or None."""
        found = self.claimant(address)
        if found is None or self._obstacle(found) is not None:
            return None
        # This node's switch needs no claim: before it has an address no other agent knows of it, and it has its MAC.
        taken = found.node is not None and self._is_switch(found.endpoint.mac, None)
        return None if taken else found

    def displaced(self) -> dict[IPv4Address, Displaced]:
        """The claims of this node that do not stand, by address."""
        contested = (self._by_address[address] for address in self._disputed_addresses)
        mine = [claims[None] for claims in contested if None in claims]
        for mac in self._disputed_macs:
            mine += self._by_mac[mac].get(None, {}).values()
        found = {}
        for endpoint in mine:
            if (rival := self._obstacle(Located(endpoint, None))) is not None:
                found[endpoint.address] = Displaced(endpoint, rival)
        return found

    def sharing(self, macs: Collection[str]) -> set[IPv4Address]:
        """The addresses that are claimed together with one of these MACs."""
        return {address for mac in macs for of_node in self._by_mac.get(mac, {}).values() for address in of_node}

    def _obstacle(self, claim: Located) -> Located | None:
        """The claim that keeps this one from standing."""
        for winner in (self.claimant(claim.endpoint.address), self.holder(claim.endpoint.mac)):
            if winner is not None and winner.node != claim.node:
                return winner
        return None

    def _is_switch(self, mac: str, node: Place) -> bool:
        return self._switch_mac(self._own() if node is None else node) == mac

    def _rank(self, node: Place) -> int:
        return -int(self._own() if node is None else node)


def _age(endpoint: Endpoint) -> tuple[int, IPv4Address]:
    return endpoint.stamp, endpoint.address
