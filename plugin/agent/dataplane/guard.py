"""Keeps pods from pretending: the kernel's sets and ports are as the records say, what is refused is counted and told.

plugin/core/forwarding/guard.py decides what is wanted, plugin/link/guard.py has the rules. `ensure` makes all of it
right, whatever was there before, and may be called at any time; `differs` only looks.
"""

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from plugin.agent.store import Record
from plugin.core.cni.exemption import Exemption
from plugin.core.errors import said_by
from plugin.core.forwarding.guard import (
    Entry,
    Key,
    Reason,
    Refusal,
    Sender,
    Tally,
    exemption_of,
    wanted_entries,
)
from plugin.core.ipam.allocator import Attachment
from plugin.core.upkeep.items import Concern, Damage
from plugin.link import constants as c
from plugin.link import guard, rtnl
from plugin.link.netlink import Link, Netlink, NetlinkError
from plugin.link.nfnetlink import BRIDGE, IPV4, Netfilter
from plugin.link.snapshot import Snapshot

_SETTLE_S: Final = 60.0
"""For so long after its start an agent takes VXLAN in from whomever the one before it did: it knows few members yet."""


@dataclass(frozen=True, slots=True)
class _Difference:
    """What of the kernel's state is not as it has to be."""

    rules: bool
    missing: frozenset[Entry]
    surplus: frozenset[Entry]
    ports: tuple[tuple[Link, Sender], ...]
    members: bool

    def __bool__(self) -> bool:
        return bool(self.rules or self.missing or self.surplus or self.ports or self.members)


class Guard:
    """Knows which frames of which port are taken.

    Args:
        netlink: A socket in the node's namespace.
        netfilter: Another one.
        place: What of the node the rules have to know.
        records: The attachments of this node, now.
        members: The addresses of the members' nodes, as far as they are known now.
        name_of: What people call the pod at an address, wherever it is; empty for nobody.
        log: Where events go.
    """

    def __init__(
        self,
        *,
        netlink: Netlink,
        netfilter: Netfilter,
        place: guard.Place,
        records: Callable[[], Mapping[Attachment, Record]],
        members: Callable[[], Iterable[IPv4Address]],
        name_of: Callable[[IPv4Address], str],
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._netfilter = netfilter
        self._place = place
        self._records = records
        self._find_members = members
        self._name_of = name_of
        self._log = log
        self._entries: dict[Attachment, frozenset[Entry]] = {}
        self._digest = b""
        self._generation = -1
        self._settled_s = time.monotonic() + _SETTLE_S
        self._inherited = guard.observe_members(netfilter)
        self._members: frozenset[IPv4Address] = frozenset()
        self._tally = Tally()
        self._locks: bool | None = None

    # --- the whole --------------------------------------------------------------------------------------------------
    def ensure(self) -> tuple[str, ...]:
        """Make all of it right; the names of what was otherwise.

        Raises:
            MissingError: nft is absent, or the kernel lacks something.
            NetlinkError: The kernel refuses.
        """
        difference = self._difference()
        mended = []
        if difference.rules:
            members = self._wanted_members()
            guard.write_guard(self._place, frozenset().union(*self._entries.values()), members)
            self._digest, self._members = guard.rules_digest(self._netfilter), members
            mended.append(f"nft table {guard.TABLE}")
        else:
            guard.add_entries(self._netfilter, difference.missing)
            guard.delete_entries(self._netfilter, difference.surplus)
            if difference.missing or difference.surplus:
                mended.append(f"nft sets {guard.TABLE}")
            if difference.members:
                self._write_members()
                mended.append(f"nft set {guard.MEMBERS}")
        for link, sender in difference.ports:
            self._netlink.request(
                rtnl.port_flags_set(link.index, {"learning": not sender.one_mac, "locked": sender.one_mac}),
                *([rtnl.bridge_fdb_set(link.index, sender.mac)] if sender.mac else []),
                what=f"guard {link.name}",
            )
            mended.append(f"port {link.name}")
        self._generation = self._netfilter.generation()
        return tuple(mended)

    def differs(self) -> bool:
        """Whether `ensure` would find something to do. Cheap as long as nobody has touched any table of the node.

        Raises:
            NetlinkError: The kernel cannot tell.
        """
        return bool(self.damage() or self._wrong_ports(self._senders()))

    def damage(self) -> list[str]:
        """What is wrong with the tables, in words; the ports are looked after with everything else about them.

        Raises:
            NetlinkError: The kernel cannot tell.
        """
        generation = self._netfilter.generation()
        if generation == self._generation:
            return []
        found = self._difference()
        if found.rules:
            return ["gone or changed"]
        counts = ((len(found.missing), "entries gone"), (len(found.surplus), "entries too many"))
        words = [f"{count} {what}" for count, what in counts if count] + (["members changed"] if found.members else [])
        if not words:
            self._generation = generation
        return words

    def _difference(self) -> _Difference:
        senders = self._senders()
        known = set(self._records())
        # Whose link has just gone is about to be forgotten: until then its entries are nobody's damage.
        self._entries = {one: entries for one, entries in self._entries.items() if one in known}
        self._entries |= {attachment: wanted_entries([sender]) for attachment, (_, sender) in senders.items()}
        digest = guard.rules_digest(self._netfilter)
        ports = self._wrong_ports(senders)
        if not digest or digest != self._digest:
            return _Difference(rules=True, missing=frozenset(), surplus=frozenset(), ports=ports, members=False)
        wanted, found = frozenset().union(*self._entries.values()), guard.observe_entries(self._netfilter)
        return _Difference(
            rules=False,
            missing=wanted - found,
            surplus=found - wanted,
            ports=ports,
            members=any(
                guard.observe_members(self._netfilter, family) != self._wanted_members() for family in (BRIDGE, IPV4)
            ),
        )

    def _senders(self) -> dict[Attachment, tuple[Link, Sender]]:
        """The pods that are there, by their ports."""
        links = {link.name: link for link in self._netlink.links()}
        return {
            attachment: (link, _sender(record, link.index))
            for attachment, record in self._records().items()
            if (link := links.get(record.host_ifname)) is not None
        }

    def _wrong_ports(self, senders: Mapping[Attachment, tuple[Link, Sender]]) -> tuple[tuple[Link, Sender], ...]:
        """Those that learn MACs and should not, or the other way round, or are not locked though the kernel could."""
        return tuple(
            (link, sender)
            for link, sender in senders.values()
            if link.master
            and (
                link.port_flag(c.BRPORT_LEARNING) is sender.one_mac
                or link.port_flag(c.BRPORT_LOCKED) is (not sender.one_mac)
            )
        )

    # --- pods -------------------------------------------------------------------------------------------------------
    def admit(self, record: Record, outer: Link) -> None:
        """From now on frames of this pod are taken from this port, those that are its own and no others.

        Raises:
            NetlinkError: The kernel refuses.
            MissingError: The rules were gone and cannot be written anew.
        """
        entries = wanted_entries([_sender(record, outer.index)])
        try:
            guard.add_entries(self._netfilter, entries)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            # A firewall service that starts again flushes all tables, ours too.
            self._log.warning("rules restored", extra={"reason": said_by(error)})
            self.ensure()
            guard.add_entries(self._netfilter, entries)
        self._entries[record.attachment] = self._entries.get(record.attachment, frozenset()) | entries

    def forget(self, records: Sequence[Record]) -> None:
        """Their ports are gone. What the kernel refuses now goes with the next `ensure`."""
        gone = frozenset().union(*(self._entries.pop(record.attachment, frozenset()) for record in records))
        try:
            guard.delete_entries(self._netfilter, gone)
            if any(who in {record.host_ifname for record in records} for who, _ in self._tally.totals):
                guard.forget_refused(self._netfilter, {entry.port for entry in gone})
        except NetlinkError as error:
            self._log.warning("guard not cleared", extra={"reason": said_by(error, path=False)})
        self._tally.forget({who for who, _ in self._tally.totals} - {record.host_ifname for record in records})

    def observed(self, host_ifname: str, mac: str, addresses: Sequence[IPv4Address]) -> Exemption | None:
        """What a pod without a record may send as beside its own, read from the kernel."""
        link = self._netlink.link(host_ifname)
        if link is None:
            return None
        entries = [entry for entry in guard.observe_entries(self._netfilter) if entry.port == link.index]
        return exemption_of(entries, mac, addresses) or None

    # --- members ----------------------------------------------------------------------------------------------------
    def members_changed(self) -> None:
        """Others than before may be members. Call it before forwarding entries lead to them.

        A node that is not known here yet is not heard through the overlay. It would not be answered either: the way
        back is an entry that comes with the same news.
        """
        if self._digest and self._wanted_members() != self._members:
            try:
                self._write_members()
            except NetlinkError as error:
                self._log.warning("members not written", extra={"reason": said_by(error, path=False)})

    def _wanted_members(self) -> frozenset[IPv4Address]:
        known = frozenset(self._find_members())
        return known | self._inherited if time.monotonic() < self._settled_s else known

    def _write_members(self) -> None:
        wanted = self._wanted_members()
        guard.ensure_members(self._netfilter, wanted)
        self._members = wanted

    # --- what was refused -------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Read the counters, and tell of what was refused since."""
        self.members_changed()  # what was inherited ends some day, without news of anybody
        try:
            refused = guard.observe_refused(self._netfilter)
        except NetlinkError as error:  # the kernel is short of something: the counters stay, and the next look is soon
            self._log.warning("refusals not read", extra={"reason": said_by(error, path=False)})
            return
        self._tally.count(self._named(refused))
        for refusal in self._tally.take_news(now_s=time.monotonic()):
            self._tell(refusal)

    def _named(self, refused: guard.Refused) -> dict[Key, int]:
        """The counters by who it was: the name of a port of this node, or an address from elsewhere."""
        if not (refused.frames or refused.packets or refused.strangers):
            return {}
        by_port = {next(iter(entries)).port: attachment for attachment, entries in self._entries.items() if entries}
        records = self._records()
        names = {address: record.host_ifname for record in records.values() for address in record.addresses}
        counters = {
            (records[by_port[port]].host_ifname, reason): count
            for (port, reason), count in refused.frames.items()
            if port in by_port and by_port[port] in records
        }
        counters |= {(names.get(who, str(who)), Reason.AGENT): count for who, count in refused.packets.items()}
        return counters | {(str(who), Reason.STRANGER): count for who, count in refused.strangers.items()}

    def _tell(self, refusal: Refusal) -> None:
        fields = {"reason": refusal.reason.sentence, "frames": refusal.more, "total": refusal.total}
        if refusal.reason is Reason.STRANGER:
            self._log.warning("stranger refused", extra={"address": refusal.who, **fields})
            return
        label = next((one.label for one in self._records().values() if one.host_ifname == refusal.who), "")
        if label:
            self._log.warning("pod refused", extra={"pod": label, "interface": refusal.who, **fields})
        else:
            pod = self._name_of(IPv4Address(refusal.who)) or refusal.who
            self._log.warning("pod refused", extra={"pod": pod, "address": refusal.who, **fields})

    def refused(self, record: Record) -> dict[str, int]:
        """How many frames of a pod of this node were refused, by reason."""
        return {reason.word: count for reason, count in self._tally.of(record.host_ifname).items()}

    def status(self) -> dict[str, Any]:
        """For `/status`: by what pods are kept from pretending here, and what was refused in all."""
        totals: dict[str, int] = {}
        for (_, reason), count in self._tally.totals.items():
            totals[reason.word] = totals.get(reason.word, 0) + count
        exempt = sum(record.guard is not None for record in self._records().values())
        return {"by": list(self._means()), "exempt": exempt, "members": len(self._members), "refused": totals}

    def _means(self) -> Iterable[str]:
        """What this kernel has of what is used; a port of the switch that every node has tells it."""
        if self._locks is None:
            flags = [link.port_flag(c.BRPORT_LOCKED) for link in self._netlink.links() if link.hairpin is not None]
            self._locks = any(flag is not None for flag in flags) if flags else None
        yield "nft"
        yield "learning off"
        if self._locks:
            yield "locked"
            yield "sticky"  # since 4.20; `locked` since 5.18


def _sender(record: Record, port: int) -> Sender:
    return Sender(port, record.mac, record.addresses, record.guard or Exemption())


class GuardPart:
    """The guard as a part of the data plane that is kept as it has to be (plugin/agent/dataplane/parts.py)."""

    concerns = Concern.RULES

    def __init__(self, guarding: Guard) -> None:
        self._guard = guarding
        self._name = f"nft table {guard.TABLE}"

    def names(self) -> Iterable[str]:
        """See `Part`."""
        return (self._name,)

    def damage(self, seen: Snapshot) -> list[Damage]:  # noqa: ARG002 - it knows whether anything has changed at all
        """See `Part`."""
        words = self._guard.damage()
        return [Damage(self._name, ", ".join(words))] if words else []

    def mend(self, seen: Snapshot, names: Collection[str]) -> None:  # noqa: ARG002 - there is one object
        """See `Part`."""
        self._guard.ensure()
