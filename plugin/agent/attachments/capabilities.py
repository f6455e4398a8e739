"""What a pod gets beside its address and link, when its runtime asks: host ports and a limit of its bandwidth.

plugin/agent/attachments/attachments.py calls it at four places: before an ADD does anything (`refuse_taken`), when
the pod's link is there (`grant`), when it goes (`withdraw`), for CHECK (`differences`). What was granted is in the
pod's record, so a DEL needs nothing else, and the next agent finds it.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address

from plugin.agent.store import Record
from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.cni.hostports import PortMapping, first_overlap
from plugin.core.cni.types import ATTACH_FAILED, PORT_TAKEN, CniError
from plugin.core.errors import MissingError, said_by
from plugin.core.ipam.allocator import Attachment
from plugin.link import hostports, shaping
from plugin.link.netlink import Link, Netlink, NetlinkError
from plugin.link.nfnetlink import Netfilter

_BURST_TOLERANCE = 0.01  # the kernel keeps the time that a burst takes, in units of 64 ns


class Capabilities:
    """The host ports and bandwidth limits of this node's pods.

    Args:
        netlink: A socket in the node's namespace.
        netfilter: Another one. It stays open: to close one waits until the kernel has freed what was deleted before.
        reserved: Ports of the node that no pod may have, each with whose it is.
        restore: Puts the node's rules in place with these host ports; for when somebody has removed them.
        log: Where events go.
    """

    def __init__(
        self,
        netlink: Netlink,
        netfilter: Netfilter,
        *,
        reserved: Mapping[PortMapping, str],
        restore: Callable[[Iterable[tuple[IPv4Address, PortMapping]]], None],
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._netfilter = netfilter
        self._reserved = reserved
        self._restore = restore
        self._log = log
        self._tracking_told = False

    def refuse_taken(self, ports: Sequence[PortMapping], records: Iterable[Record]) -> None:
        """See that nobody has one of these host ports.

        Raises:
            CniError: Somebody has; the text says who.
        """
        if not ports:
            return
        owners = {**self._reserved, **{port: f"pod {record.label}" for record in records for port in record.ports}}
        overlap = first_overlap(ports, owners)
        if overlap is not None:
            wanted, rival = overlap
            raise CniError(
                PORT_TAKEN,
                f"host port {wanted.place}/{wanted.protocol} is taken on this node by {owners[rival]} ({rival})",
                "choose another host port or another node; `weave ps` lists the ports of this node's pods",
            )

    def grant(self, record: Record, host: Link, records: Mapping[Attachment, Record]) -> None:
        """Give the pod what its record says; `host` is the node's end of its link, `records` are all pods.

        Raises:
            CniError: The kernel refuses or lacks something. `withdraw` takes back what was given so far.
        """
        try:
            if record.bandwidth is not None:
                shaping.apply_bandwidth(self._netlink, host, record.bandwidth)
            if record.ports:
                self._open(record, records)
                self._forget(lambda: self._forget_older_flows(record))
        except MissingError as error:
            raise CniError(ATTACH_FAILED, error.message, error.hint) from error
        except NetlinkError as error:
            raise CniError(ATTACH_FAILED, f"the kernel refused: {said_by(error, path=False)}") from error

    def withdraw(self, record: Record) -> None:
        """Take it back; what is gone already is passed over.

        Raises:
            NetlinkError: The kernel refuses.
        """
        if record.ports:
            hostports.close_ports(self._netfilter, IPv4Address(record.address), record.ports)
            self._forget(lambda: hostports.forget_connections_of(self._netfilter, IPv4Address(record.address)))
        if record.bandwidth is not None:
            shaping.remove_bandwidth(self._netlink, record.host_ifname)

    def differences(self, record: Record) -> list[str]:
        """What the pod was given and has no longer, as sentences."""
        found = []
        if record.ports:
            closed = hostports.closed_ports(self._netfilter, IPv4Address(record.address), record.ports)
            found += [f"host port {mapping} does not lead to the pod" for mapping in closed]
        return found + self.limit_differences(record)

    def limit_differences(self, record: Record) -> list[str]:
        """How the pod's bandwidth is not limited as it has to be, as sentences."""
        if record.bandwidth is None:
            return []
        now = shaping.observe_bandwidth(self._netlink, record.host_ifname)
        directions = (
            ("receives", record.bandwidth.ingress, now.ingress),
            ("sends", record.bandwidth.egress, now.egress),
        )
        return [
            f"what the pod {word} must be limited to {_words(wanted)}, found {_words(seen)}"
            for word, wanted, seen in directions
            if not _same(wanted, seen)
        ]

    def limit_again(self, record: Record, host: Link) -> None:
        """Limit the pod's bandwidth anew; `host` is the node's end of its link.

        Raises:
            WeaveError: The kernel lacks something.
            NetlinkError: It refuses.
        """
        wanted = record.bandwidth or Bandwidth()
        now = shaping.observe_bandwidth(self._netlink, record.host_ifname)
        if not _same(wanted.ingress, now.ingress):
            shaping.apply_bandwidth(self._netlink, host, Bandwidth(ingress=wanted.ingress))
        if not _same(wanted.egress, now.egress):
            shaping.remove_bandwidth(self._netlink, record.host_ifname)
            shaping.remove_redirection(self._netlink, host)
            shaping.apply_bandwidth(self._netlink, host, Bandwidth(egress=wanted.egress))

    def observed(self, host_ifname: str, address: IPv4Address) -> tuple[tuple[PortMapping, ...], Bandwidth | None]:
        """What a pod without a record has, read from the kernel."""
        ports = tuple(hostports.observe_ports(self._netfilter).get(address, ()))
        return ports, shaping.observe_bandwidth(self._netlink, host_ifname) or None

    def sweep(self, records: Mapping[Attachment, Record]) -> None:
        """Remove what belongs to no record: the remains of pods that went while no agent looked."""
        addresses = {address for record in records.values() for address in record.addresses}
        for address, mappings in hostports.observe_ports(self._netfilter).items():
            if address not in addresses:
                hostports.close_ports(self._netfilter, address, mappings)
        hosts = {record.host_ifname for record in records.values()}
        for host_ifname in shaping.leftover_ifbs(self._netlink):
            if host_ifname not in hosts:
                shaping.remove_bandwidth(self._netlink, host_ifname)

    def _open(self, record: Record, records: Mapping[Attachment, Record]) -> None:
        address = IPv4Address(record.address)
        try:
            hostports.open_ports(self._netfilter, address, record.ports)
        except hostports.TableGoneError as error:
            # A firewall service that starts again flushes all tables, ours too.
            self._log.warning("rules restored", extra={"reason": error.strerror})
            self._restore(recorded_ports(records))
            hostports.open_ports(self._netfilter, address, record.ports)

    def _forget_older_flows(self, record: Record) -> int:
        own = {interface.ip for _, interface in self._netlink.addresses()}
        return hostports.forget_older_flows(self._netfilter, IPv4Address(record.address), record.ports, own)

    def _forget(self, forgetting: Callable[[], int]) -> None:
        try:
            forgetting()
        except NetlinkError as error:
            # The pod works without; a flow of UDP that was there before goes its old way until it pauses.
            if not self._tracking_told:
                self._log.warning("connections not forgotten", extra={"reason": said_by(error, path=False)})
            self._tracking_told = True


def recorded_ports(records: Mapping[Attachment, Record]) -> list[tuple[IPv4Address, PortMapping]]:
    """The host ports that the records of complete pods speak of."""
    return [
        (IPv4Address(record.address), mapping)
        for record in records.values()
        if record.state == "added"
        for mapping in record.ports
    ]


def plain_addresses(records: Mapping[Attachment, Record]) -> list[IPv4Address]:
    """The addresses of pods that are not masqueraded."""
    return [address for record in records.values() if not record.masquerade for address in record.addresses]


def ports_at_start(netfilter: Netfilter, records: Mapping[Attachment, Record]) -> list[tuple[IPv4Address, PortMapping]]:
    """The host ports that a starting agent keeps open: those of its records, and those of pods without one.

    A pod whose record was lost is taken up by its link (`Attachments.reconcile`) and must not lose its ports by that.
    """
    kept = recorded_ports(records)
    known = {address for record in records.values() for address in record.addresses}
    with contextlib.suppress(NetlinkError):  # a first start: the kernel has not even loaded nf_tables
        for address, mappings in hostports.observe_ports(netfilter).items():
            free = address not in known and first_overlap(mappings, (mapping for _, mapping in kept)) is None
            kept += [(address, mapping) for mapping in mappings] if free else []
    return kept


def _same(wanted: Limit | None, seen: Limit | None) -> bool:
    if wanted is None or seen is None:
        return wanted is seen
    burst_off = abs(wanted.burst_bytes - seen.burst_bytes)
    return wanted.rate_bytes == seen.rate_bytes and burst_off <= _BURST_TOLERANCE * wanted.burst_bytes


def _words(limit: Limit | None) -> str:
    return "no limit" if limit is None else f"{limit.rate_bits} bit/s (burst {limit.burst_bytes} bytes)"
