"""The node's ends of the pods' links: kept as their ADD made them. What is inside a pod is told, never touched.

A part of the data plane (plugin/agent/dataplane/parts.py has the others); it stands here since it knows records.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from plugin.agent.attachments.capabilities import Capabilities
from plugin.agent.store import Record
from plugin.core.ipam.allocator import Attachment
from plugin.core.upkeep.items import Concern, Damage, Facts, damages
from plugin.link import constants as c
from plugin.link import pods, rtnl, switch
from plugin.link.netlink import Link, Neighbour, Netlink
from plugin.link.snapshot import Snapshot


class _Port:
    """One pod's port at one look, and what it has to be like.

    Args:
        link: As the kernel has it.
        record: The pod's.
        mtu_bytes: The MTU that it has to have.
    """

    __slots__ = ("fine", "link", "macs", "mtu_bytes", "record")

    def __init__(self, link: Link, record: Record, mtu_bytes: int) -> None:
        self.link = link
        self.record = record
        self.mtu_bytes = mtu_bytes
        self.macs = pods.port_macs(record.mac, record.addresses)
        self.fine = False

    def is_of(self, link: Link, record: Record, mtu_bytes: int) -> bool:
        """Whether it was made of the very same objects: a look keeps those that have not changed."""
        return self.link is link and self.record is record and self.mtu_bytes == mtu_bytes

    def wanted(self, bridge: Link) -> Facts:
        """What it has to be like."""
        return {
            "mtu": self.mtu_bytes, "up": True, "switch": bridge.index, "entries": self.macs, "forwarding": True,
            "name": self.record.host_ifname, **pods.port_flags(hairpin=self.record.hairpin, locked=self.record.locked),
        }  # fmt: skip

    def found(self, entries: set[str]) -> Facts:
        """What it is like; `entries` are the MACs that the switch has for it."""
        link = self.link
        facts: dict[str, object] = {
            "mtu": link.mtu, "up": link.up, "switch": link.master, "entries": self.macs & entries, "name": link.name,
        }  # fmt: skip
        flags = ((flag, link.port_flag(kind)) for flag, kind in rtnl.PORT_FLAGS.items())
        facts |= {flag: value for flag, value in flags if value is not None}
        if link.up and link.running and link.forwards is not None:  # else the kernel itself keeps it shut
            facts["forwarding"] = link.forwards
        return facts


class PodLinks:
    """Compares and mends the node's end of every pod.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        records: The pods that have to have a link: complete, and not leaving.
        mtu_bytes: What a pod's link has to have now.
    """

    concerns = Concern.LINKS | Concern.ENTRIES

    def __init__(
        self,
        *,
        netlink: Netlink,
        bridge: Link,
        records: Callable[[], Mapping[Attachment, Record]],
        mtu_bytes: Callable[[Record], int],
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._records = records
        self._mtu_bytes = mtu_bytes
        self._ports: dict[str, int] = {}
        self._known: dict[str, _Port] = {}

    def contradicts(self, entry: Neighbour, family: int, gone: bool) -> bool:  # noqa: FBT001 - see link/notices.py
        """Whether a forwarding entry that somebody has just changed (or removed) is a pod's, and wrong now."""
        port = self._ports.get(entry.mac)
        return port is not None and family == c.AF_BRIDGE and (gone if entry.index == port else not gone)

    def names(self) -> Iterable[str]:
        """The ports' names."""
        return [_port_name(record) for record in self._records().values()]

    def damage(self, seen: Snapshot) -> list[Damage]:
        """What is not as the pods' ADDs made it; a link that is gone is none: there is no way to mend it from here."""
        wanted, found = {}, {}
        entries: dict[int, set[str]] = {}
        for entry in seen.fdb:
            if entry.master and entry.permanent:
                entries.setdefault(entry.index, set()).add(entry.mac)
        known, self._known = self._known, {}
        by_index = {link.index: link for link in seen.links.values()}
        for record in self._records().values():
            link = seen.links.get(record.host_ifname) or self._renamed(by_index, known, record.host_ifname)
            if link is None:
                continue
            mtu_bytes = self._mtu_bytes(record)
            port = known.get(record.host_ifname)
            if port is None or not port.is_of(link, record, mtu_bytes):
                port = _Port(link, record, mtu_bytes)
            self._known[record.host_ifname] = port
            there = entries.get(link.index, set())
            if port.fine and port.macs <= there:
                continue  # what the kernel says of it is, to the byte, what it said when all was well
            name = _port_name(record)
            wanted[name] = port.wanted(self._bridge)
            found[name] = port.found(there)
            port.fine = not damages({name: wanted[name]}, found)
        self._ports = {mac: port.link.index for port in self._known.values() for mac in port.macs}
        return damages(wanted, found)

    @staticmethod
    def _renamed(by_index: Mapping[int, Link], known: Mapping[str, "_Port"], name: str) -> Link | None:
        """A pod's link that somebody has given another name."""
        port = known.get(name)
        link = None if port is None else by_index.get(port.link.index)
        return link if link is not None and link.kind == "veth" else None

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:
        """Make these ports again what they were.

        Raises:
            OSError: The kernel refuses.
        """
        by_index = {link.index: link for link in seen.links.values()}
        for record in self._records().values():
            if _port_name(record) not in names:
                continue
            link = seen.links.get(record.host_ifname) or self._renamed(by_index, self._known, record.host_ifname)
            if link is not None:
                if link.name != record.host_ifname:
                    switch.rename(self._netlink, link, record.host_ifname)
                pods.restore_port(
                    self._netlink, self._bridge, link,
                    mtu_bytes=self._mtu_bytes(record),
                    flags=pods.port_flags(hairpin=record.hairpin, locked=record.locked),
                    macs=pods.port_macs(record.mac, record.addresses),
                )  # fmt: skip

    def troubles(self, seen: Snapshot) -> dict[str, tuple[str, str]]:
        """What is wrong with pods and cannot be mended from outside: object to (cause, advice)."""
        found = {}
        for record in self._records().values():
            link = seen.links.get(record.host_ifname)
            if link is None and record.host_ifname in self._known:
                continue  # it has only another name
            name = f"pod {record.label}"
            if link is None:
                found[name] = (
                    f"its link {record.host_ifname} is gone, and with it {record.ifname} in the pod",
                    "only a new ADD makes it again: delete the pod and create it anew",
                )
            elif link.up and not link.running:
                found[name] = (
                    f"{record.ifname} is down inside the pod",
                    f"in the pod: ip link set {record.ifname} up; a CHECK tells whether its routes are still there",
                )
        return found


class LimitsPart:
    """The limits of pods' bandwidths.

    Args:
        records: The pods that have to have a link.
        capabilities: Knows and renews the limits.
    """

    concerns = Concern.LIMITS | Concern.LINKS

    def __init__(self, records: Callable[[], Mapping[Attachment, Record]], capabilities: Capabilities) -> None:
        self._records = records
        self._capabilities = capabilities

    def names(self) -> Iterable[str]:
        """The limits' names."""
        return [_limit_name(record) for record in self._records().values() if record.bandwidth is not None]

    def damage(self, seen: Snapshot) -> list[Damage]:
        """See plugin/agent/dataplane/parts.py."""
        return [
            Damage(_limit_name(record), "; ".join(differences))
            for record in self._limited(seen)
            if (differences := self._capabilities.limit_differences(record))
        ]

    def _limited(self, seen: Snapshot) -> list[Record]:
        records = self._records().values()
        return [one for one in records if one.bandwidth is not None and one.host_ifname in seen.links]

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:
        """See plugin/agent/dataplane/parts.py."""
        for record in self._limited(seen):
            if _limit_name(record) in names:
                self._capabilities.limit_again(record, seen.links[record.host_ifname])


def _port_name(record: Record) -> str:
    """What a pod's port is called among the objects of the node."""
    return f"port {record.host_ifname}"


def _limit_name(record: Record) -> str:
    """What a pod's bandwidth limit is called."""
    return f"limit {record.host_ifname}"
