"""Keeps the kernel's forwarding entries in line with what the agent knows (core/forwarding/forward.py decides)."""

import dataclasses
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

from plugin.agent.dataplane.announcing import Announcer
from plugin.core.forwarding.claims import Located
from plugin.core.forwarding.endpoints import Directory
from plugin.core.forwarding.forward import NO_CHANGES, Changes, Forwarding, affected, changes, narrowed, plan_forwarding
from plugin.link import constants as c
from plugin.link import overlay, rtnl
from plugin.link.netlink import Link, Neighbour, Netlink


class Forwarder:
    """Knows what it last wrote, so that a small change costs little.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        device: The overlay device.
        directory: Who is where.
        destinations: The nodes that broadcast goes to.
        announcer: Tells the pods of this node.
    """

    def __init__(
        self,
        netlink: Netlink,
        bridge: Link,
        device: Link,
        directory: Directory,
        destinations: Callable[[], frozenset[IPv4Address]],
        announcer: Announcer,
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._device = device
        self._directory = directory
        self._destinations = destinations
        self._announcer = announcer
        self._announced = False
        self._flood: frozenset[IPv4Address] = frozenset()
        self._remote: dict[str, IPv4Address] = {}
        self._neighbours: dict[IPv4Address, str] = {}
        self._holders: dict[str, set[IPv4Address]] = {}
        self._complete = False
        self._own: list[IPv4Address] | None = None

    def sync(self, *, peers: bool) -> None:
        """Write what has changed; the first time, all that differs from what an earlier agent left in the kernel.

        Args:
            peers: Broadcast may go to others than before.
        """
        changed = self._directory.take_changed()
        # Should the kernel refuse now, the next turn writes everything.
        complete, self._complete = self._complete, False
        wanted_flood = self._flood if complete and not peers else self._destinations()
        own = self._bridge_addresses()
        if not complete:
            self._remote, self._neighbours, self._holders = {}, {}, {}
            found, places = self.observe(), self._directory.located()
            self._write(found, plan_forwarding(places, wanted_flood, own))
            if not self._announced:
                self._announcer.known(found.neighbours)
        else:
            written = Forwarding(self._flood, self._remote, self._neighbours)
            changed = affected(written, self._holders, self._places(changed), changed)
            places = self._places(changed)
            self._write(narrowed(written, self._holders, changed), plan_forwarding(places, wanted_flood, own))
        # Behind the entries: whoever asks because of it is given the new answer.
        pairs = {address: place.endpoint.mac for address, place in places.items()}
        self._announcer.tell(pairs, anew=() if complete else own)
        self._announced = True
        self._flood = wanted_flood
        self._complete = True

    def rewrite(self) -> None:
        """The bridge has another address: ask the kernel for it, and for everything, at the next `sync`."""
        self._complete = False
        self._own = None

    def contradicts(self, entry: Neighbour, family: int, gone: bool) -> bool:  # noqa: FBT001 - see link/notices.py
        """Whether an entry that somebody has just changed (or removed) is not as this agent wrote it."""
        if family != c.AF_BRIDGE:
            if entry.index != self._bridge.index or entry.address is None:
                return False
            mac = self._neighbours.get(entry.address)
            return mac is not None and (gone or entry.mac != mac or not entry.permanent)
        if entry.index != self._device.index:
            return not gone and entry.master and entry.mac in self._remote  # it is behind another port now
        if entry.master:
            return gone and entry.mac in self._remote
        if entry.mac == rtnl.ZERO_MAC:
            return gone and entry.address in self._flood
        node = self._remote.get(entry.mac)
        return node is not None and (entry.address == node if gone else entry.address != node)

    def damage(self, fdb: Iterable[Neighbour], neighbours: Iterable[Neighbour]) -> Changes:
        """What of the entries that were written is missing or another; nothing is said of entries of somebody else."""
        if not self._complete:
            return NO_CHANGES  # the next `sync` writes all
        entries = list(fdb)
        found = overlay.forwarding_of(entries, neighbours, bridge=self._bridge, overlay=self._device)
        behind = {entry.mac for entry in entries if entry.index == self._device.index and entry.master}
        known = found.remote if behind >= self._remote.keys() else {
            mac: node for mac, node in found.remote.items() if mac in behind
        }  # fmt: skip
        wanted = Forwarding(self._flood, self._remote, self._neighbours)
        return dataclasses.replace(
            changes(Forwarding(found.flood, known, found.neighbours), wanted),
            neighbour_del=(), remote_del=(), flood_del=(),
        )  # fmt: skip

    def mend(self, damage: Changes) -> None:
        """Write these entries again.

        Raises:
            NetlinkError: The kernel refuses.
        """
        overlay.apply_forwarding(self._netlink, damage, bridge=self._bridge, overlay=self._device)

    def observe(self) -> Forwarding:
        """What the kernel holds now."""
        return overlay.observe_forwarding(self._netlink, bridge=self._bridge, overlay=self._device)

    def _bridge_addresses(self) -> list[IPv4Address]:
        if self._own is None:
            self._own = [ip.ip for index, ip in self._netlink.addresses() if index == self._bridge.index]
        return self._own

    def _places(self, addresses: set[IPv4Address]) -> dict[IPv4Address, Located]:
        return {address: place for address in addresses if (place := self._directory.locate(address)) is not None}

    def _write(self, found: Forwarding, wanted: Forwarding) -> None:
        difference = changes(found, wanted)
        overlay.apply_forwarding(self._netlink, difference, bridge=self._bridge, overlay=self._device)
        self._remote.update(wanted.remote)
        for mac in difference.remote_del:
            self._remote.pop(mac, None)
        for address in difference.neighbour_del:
            self._hold(address, None)
        for address, mac in wanted.neighbours.items():
            self._hold(address, mac)

    def _hold(self, address: IPv4Address, mac: str | None) -> None:
        """The address has this MAC now, or none."""
        before = self._neighbours.pop(address, None)
        if before is not None:
            self._holders[before].discard(address)
            if not self._holders[before]:
                del self._holders[before]
        if mac is not None:
            self._neighbours[address] = mac
            self._holders.setdefault(mac, set()).add(address)
