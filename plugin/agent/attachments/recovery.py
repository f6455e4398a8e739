"""What a starting agent makes of the pods that it finds: living ones are kept, ended ones given back, none invented.

It decides by records and kernel together; which address is whose is for the leases to say.
"""

import logging
from collections.abc import Callable

from plugin.agent.attachments.capabilities import Capabilities
from plugin.agent.attachments.delegating import RECOVERED
from plugin.agent.attachments.guarding import Guards
from plugin.agent.attachments.leases import Leases
from plugin.agent.attachments.leaving import Leaving
from plugin.agent.store import Record, Store
from plugin.core.ipam.allocator import AddressTakenError, Attachment
from plugin.link import pods
from plugin.link.netlink import Link, Netlink


class Recovery:
    """Takes up what an earlier agent has left.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        store: Remembers the attachments of this node.
        leases: Holds addresses.
        capabilities: Finds host ports and limits.
        leaving: Removes what has ended.
        guard: Knows what pods were exempted from.
        announce: Tells the others of a pod.
        lives: Whether a pod's namespace is still there.
        log: Where events go.
    """

    def __init__(  # noqa: PLR0913 - attachments.py puts it together, once
        self,
        *,
        netlink: Netlink,
        bridge: Link,
        store: Store,
        leases: Leases,
        capabilities: Capabilities,
        leaving: Leaving,
        guard: Guards,
        announce: Callable[[Record], None],
        lives: Callable[[Record], bool],
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._store = store
        self._leases = leases
        self._capabilities = capabilities
        self._leaving = leaving
        self._guard = guard
        self._announce = announce
        self._lives = lives
        self._log = log

    async def reconcile(self) -> None:
        """Bring records, kernel and allocator together; called at the start, before the API answers.

        A record whose link is there, on the switch or off it, is a living pod: its address is claimed and announced.
        One whose link is gone is a pod that ended while nobody looked (a reboot, a crash in the middle of ADD): freed,
        unless its namespace lives. Then somebody has deleted its link, and its address stays its own until DEL. A pod's
        link without a record can only exist when the journal was lost: its address is read from the switch and held,
        never given away.
        """
        found = pods.leftovers(self._netlink, self._bridge)
        recorded = self._store.pods  # before anything is removed: a link that goes with its record is nobody's to adopt
        leaving = []
        for attachment, record in recorded.items():
            # The address is claimed even for a pod that is about to go: it rests afterwards like any other.
            claimed = self._claim(attachment, record)
            there = record.host_ifname in found or self._netlink.link(record.host_ifname) is not None
            if record.state == "added" and there:
                if claimed:
                    self._announce(record)
            elif record.state != "added" or not self._lives(record):
                self._log.warning("leftover removed", extra={"pod": record.label, "address": record.address})
                leaving.append(record)
        await self._leaving.remove(*leaving)
        known = {record.host_ifname for record in recorded.values()}
        for name, leftover in found.items():
            if name not in known:
                self._adopt(name, leftover)
        self._capabilities.sweep(self._store.pods)

    def _claim(self, attachment: Attachment, record: Record) -> bool:
        """Whether the record's address is its own; one that is somebody else's is never announced."""
        try:
            # Also when it is not (or no longer) this agent's: a pod that lives has it, and the ring may be behind.
            self._leases.adopt(attachment, record.addresses)
        except AddressTakenError as error:
            self._log.error("address conflict", extra={"pod": record.label, "reason": error.message})
            return False
        return True

    def _adopt(self, name: str, found: pods.Leftover) -> None:
        if not found.addresses:
            self._log.warning("orphan link removed", extra={"interface": name})
            pods.detach(self._netlink, name)
            return
        address, *more = (str(address) for address in found.addresses)
        ports, bandwidth = self._capabilities.observed(name, found.addresses[0])
        record = Record(
            network=RECOVERED, container_id=name, ifname=RECOVERED, address=address, more=tuple(more),
            mac=found.mac, host_ifname=name, label=name, state="added", ports=ports, bandwidth=bandwidth,
            guard=self._guard.observed(name, found.mac, found.addresses),
        )  # fmt: skip
        if not self._claim(record.attachment, record):
            # Two pods with one address would be worse than a pod without a network.
            pods.detach(self._netlink, name)
            return
        self._store.put(record)
        self._announce(record)
        self._log.warning("pod without a record kept", extra={"interface": name, "address": address})
