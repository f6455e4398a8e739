"""Pods of this node whose address or MAC another claim has won: off the network, with a reason, until that claim goes.

Whose it is plugin/core/forwarding/claims.py says. Everywhere else the loser is not to be found any more; here its port
is taken from the switch, so that what it goes on sending confuses nobody. It keeps its link and its address: when the
other pod goes, or its node turns out to be gone, the port comes back.
"""

import logging
from collections.abc import Callable, Mapping

from plugin.agent.store import Record
from plugin.core.errors import said_by
from plugin.core.forwarding.claims import Displaced
from plugin.core.ipam.allocator import EXPOSE, Attachment
from plugin.core.node import Node
from plugin.core.upkeep.ledger import Ledger
from plugin.link import pods
from plugin.link.netlink import Netlink, NetlinkError

_ADVICE = "delete one of the two pods; this one has no network as long as both are there"
_SWITCH_ADVICE = "two nodes have the same gateway: `weave reset` on one of them makes it join anew"


class Displacements:
    """Carries out what follows for the pods of this node.

    Args:
        netlink: A socket in the node's namespace.
        node: Knows which claims do not stand, and names those that do.
        records: The attachments of this node.
        ledger: Is told of the trouble.
        now_s: The clock.
        log: Where events go.
    """

    def __init__(
        self,
        *,
        netlink: Netlink,
        node: Node,
        records: Callable[[], Mapping[Attachment, Record]],
        ledger: Ledger,
        now_s: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._node = node
        self._records = records
        self._ledger = ledger
        self._now_s = now_s
        self._log = log
        self._off: dict[Attachment, tuple[Record, str]] = {}

    def take_up(self, record: Record) -> None:
        """An earlier agent may have taken this pod's port off; whether it has to stay so will be seen."""
        link = self._netlink.link(record.host_ifname)
        if link is not None and link.forwards is False:
            self._off[record.attachment] = record, ""

    def review(self) -> None:
        """Claims may have changed: bring ports, log and ledger in line. That there is nothing to do costs nothing."""
        displaced = self._node.directory.displaced()
        if not displaced and not self._off:
            return
        records = self._records()
        found = {
            attachment: (record, lost)
            for attachment, record in records.items()
            for lost in [next((displaced[one] for one in record.addresses if one in displaced), None)]
            if lost is not None
        }
        for attachment in self._off.keys() - found.keys():
            self._put_back(attachment, living=attachment in records)
        for attachment, (record, lost) in found.items():
            self._take_off(attachment, record, lost)

    def reason(self, attachment: Attachment) -> str:
        """Why a pod is off the network; empty when it is not."""
        return self._off[attachment][1] if attachment in self._off else ""

    def _take_off(self, attachment: Attachment, record: Record, lost: Displaced) -> None:
        cause = f"its {lost.over} is that of {self._node.holders.name(lost.by)} as well, which has it everywhere"
        self._off[attachment] = record, cause
        if attachment == EXPOSE:
            self._ledger.trouble("gateway", cause, _SWITCH_ADVICE, self._now_s())
            return
        if self._ledger.trouble(_name(record), cause, _ADVICE, self._now_s()):
            self._log.error(
                "pod displaced",
                extra={"pod": record.label, "address": record.address, "mac": record.mac, "reason": cause},
            )
        self._set(record, off=True)

    def _put_back(self, attachment: Attachment, *, living: bool) -> None:
        record, reason = self._off[attachment]
        if living and attachment != EXPOSE:
            if not self._set(record, off=False):
                return
            if reason:  # else an earlier agent's, or the pod itself has its end down
                self._log.warning("pod has its place again", extra={"pod": record.label, "address": record.address})
        del self._off[attachment]
        self._ledger.well("gateway" if attachment == EXPOSE else _name(record))

    def _set(self, record: Record, *, off: bool) -> bool:
        """False when the kernel refused: the next review tries again."""
        try:
            pods.cut_off(self._netlink, record.host_ifname, record.mac, off=off)
        except NetlinkError as error:
            self._log.error("port not set", extra={"pod": record.label, "reason": said_by(error)})
            return False
        return True


def _name(record: Record) -> str:
    return f"claim {record.label}"
