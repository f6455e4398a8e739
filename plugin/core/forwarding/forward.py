"""THE LIFE OF A PACKET, as decisions: what the kernel's tables on a node must say so that every frame finds its way.

Read this file downward to follow a packet; each step names the entry that takes it, and the command that shows it.

Pod red on node1 sends to another pod. Both carry the whole pod range as their prefix, so red asks ARP for the MAC.

1. ARP. The question reaches the bridge `weave`. The bridge knows the answer from its neighbour table (`Neighbour`
   below; `ip neigh show dev weave`) and answers itself instead of asking the other nodes: neighbour suppression on the
   port of the VXLAN device. For a pod on the same node the question is simply delivered to it, and never leaves.
2. Same node. The bridge finds the MAC behind a pod's port (`bridge fdb show br weave`) and delivers. Nothing else
   happens: no routing, no overlay, no NAT but what a Service or a host port asks for.
3. Other node. The bridge finds the MAC behind the port `vxlan-6784` (`Remote.mac`, the `master` entry).
4. Encapsulation. The VXLAN device looks up which node has the MAC (`Remote.node`, the `self ... dst` entry), puts the
   frame behind 8 bytes of VXLAN, 8 of UDP, 20 of IP and 14 of Ethernet, and sends it to that node's UDP port 6784 by
   the node's ordinary routes.
5. Decapsulation. The destination's kernel takes the frame off UDP 6784, checks the VNI, and hands the inner frame to
   the bridge as if it had come in by a port; step 2 happens there.
6. The reply takes the same steps from the other side.
7. Broadcast and multicast, and ARP for an address that nobody has, are flooded: to all local pods, and to every peer
   (`flood`, the entries of the zero MAC). Split horizon holds: what arrived by VXLAN never leaves by VXLAN.
8. To the outside, the packet goes to the gateway, the bridge's own address: the node routes and masquerades it.

`plan_forwarding` computes these entries from the one view of all endpoints; `changes` says what to write to get from
what is there to what is wanted. Carrying it out is plugin/link/overlay.py.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from plugin.core.forwarding.claims import Located


@dataclass(frozen=True, slots=True)
class Forwarding:
    """The entries of one node.

    Attributes:
        flood: Nodes that get a copy of every broadcast and multicast frame.
        remote: For each MAC of a pod elsewhere, the node it is on.
        neighbours: For each pod address, anywhere, its MAC.
    """

    flood: frozenset[IPv4Address] = frozenset()
    remote: Mapping[str, IPv4Address] = field(default_factory=dict)
    neighbours: Mapping[IPv4Address, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What to write and what to remove, in this order: nothing is ever unknown in between."""

    flood_add: tuple[IPv4Address, ...]
    remote_set: tuple[tuple[str, IPv4Address], ...]
    neighbour_set: tuple[tuple[IPv4Address, str], ...]
    neighbour_del: tuple[IPv4Address, ...]
    remote_del: tuple[str, ...]
    flood_del: tuple[IPv4Address, ...]

    def __bool__(self) -> bool:
        return any(
            (self.flood_add, self.remote_set, self.neighbour_set, self.neighbour_del, self.remote_del, self.flood_del)
        )


NO_CHANGES: Final = Changes((), (), (), (), (), ())


def plan_forwarding(
    located: Mapping[IPv4Address, Located], peers: Iterable[IPv4Address], own: Iterable[IPv4Address]
) -> Forwarding:
    """The wanted entries, from who is where.

    Args:
        located: The view of `endpoints.Directory.located`.
        peers: Nodes that take part: broadcast goes to all of them, whether or not they answer just now.
        own: Addresses of the bridge itself, for which it needs no neighbour entry.
    """
    mine = set(own)
    # Two addresses may share a MAC while a pod moves: the later claim decides, on every node alike.
    in_order = sorted(located.values(), key=lambda place: (place.endpoint.stamp, place.endpoint.address))
    elsewhere = {place.endpoint.mac: place.node for place in in_order if place.node is not None}
    # A pod that has come here keeps its MAC: the entry that still points away must not win over the port.
    for place in located.values():
        if place.node is None:
            elsewhere.pop(place.endpoint.mac, None)
    neighbours = {address: place.endpoint.mac for address, place in located.items() if address not in mine}
    return Forwarding(frozenset(peers), elsewhere, neighbours)


Holders: TypeAlias = Mapping[str, Collection[IPv4Address]]
"""Whose MAC it is: for each MAC of `Forwarding.neighbours` the addresses that have it, nearly always one."""


def affected(
    known: Forwarding,
    holders: Holders,
    located: Mapping[IPv4Address, Located],
    addresses: Collection[IPv4Address],
) -> set[IPv4Address]:
    """`addresses` and all that share a MAC with one of them, before or now: only together do they decide its entry.

    What this and `narrowed` cost depends on `addresses`, not on how many pods there are: they are called for every pod
    of the cluster that comes and goes.
    """
    macs = {known.neighbours[address] for address in addresses if address in known.neighbours}
    macs |= {located[address].endpoint.mac for address in addresses if address in located}
    return {*addresses, *(address for mac in macs for address in holders.get(mac, ()))}


def narrowed(known: Forwarding, holders: Holders, addresses: Collection[IPv4Address]) -> Forwarding:
    """The entries of `known` that only these addresses account for, so that a small change is compared with little.

    A MAC that another address has as well (a pod that asked for its MAC and moved to a new address) stays out.
    """
    neighbours = {address: known.neighbours[address] for address in addresses if address in known.neighbours}
    remote = {
        mac: known.remote[mac]
        for mac in neighbours.values()
        if mac in known.remote and all(address in neighbours for address in holders.get(mac, ()))
    }
    return Forwarding(known.flood, remote, neighbours)


def changes(found: Forwarding, wanted: Forwarding) -> Changes:
    """The difference, sorted, so that the same difference is always written in the same order."""
    return Changes(
        flood_add=tuple(sorted(wanted.flood - found.flood)),
        remote_set=tuple(sorted(item for item in wanted.remote.items() if found.remote.get(item[0]) != item[1])),
        neighbour_set=tuple(
            sorted(item for item in wanted.neighbours.items() if found.neighbours.get(item[0]) != item[1])
        ),
        neighbour_del=tuple(sorted(found.neighbours.keys() - wanted.neighbours.keys())),
        remote_del=tuple(sorted(found.remote.keys() - wanted.remote.keys())),
        flood_del=tuple(sorted(found.flood - wanted.flood)),
    )
