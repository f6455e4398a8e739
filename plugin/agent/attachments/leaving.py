"""THE END OF A POD: its link, then its record, then its address, in this order, for one pod or many at once.

What the kernel or the disk refuses is kept and tried again; until a pod is forgotten its addresses stay held.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from plugin.agent.attachments.capabilities import Capabilities
from plugin.agent.attachments.guarding import Guards
from plugin.agent.attachments.leases import Leases
from plugin.agent.attachments.removals import Hears, Removals
from plugin.agent.store import Record, Store
from plugin.core.errors import MissingError
from plugin.core.ipam.allocator import Attachment
from plugin.core.node import Node
from plugin.link import pods, rules
from plugin.link.netlink import Netlink, NetlinkError


class Leaving:
    """Takes pods from the network.

    Args:
        removing: Sockets for nothing but the removal of pods, and what tells of links that are gone.
        store: Forgets them.
        node: Tells the others.
        leases: Takes their addresses back.
        capabilities: Takes back their host ports and limits.
        strangers: Told of links that went without being removed here.
        guard: Forgets their ports.
        now_s: The clock.
        log: Where events go.

    Attributes:
        removals: Deletes the links; start and stop it with the event loop.
    """

    def __init__(  # noqa: PLR0913 - attachments.py puts it together, once
        self,
        *,
        removing: tuple[Iterable[Netlink], Hears],
        store: Store,
        node: Node,
        leases: Leases,
        capabilities: Capabilities,
        strangers: Callable[[Collection[str]], None],
        guard: Guards,
        now_s: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        self._store = store
        self._node = node
        self._leases = leases
        self._capabilities = capabilities
        self._guard = guard
        self._now_s = now_s
        self._log = log
        self._unfinished: dict[Attachment, Record] = {}
        netlinks, departures = removing
        self.removals = Removals(
            netlinks=netlinks,
            departures=departures,
            finish=self._on_removed,
            refused=self.put_off,
            strangers=strangers,
            detach=pods.detach_together,
        )

    async def remove(self, *records: Record) -> None:
        """Take pods from the network, all at once; what the kernel or the disk refuses is tried again by `retry`."""
        leaving = []
        for record in records:
            for address in record.addresses:
                self._node.detach(address, now_s=self._now_s())
            try:
                self._capabilities.withdraw(record)
                if not record.masquerade:
                    rules.keep_address(record.addresses, keep=False)
            except (MissingError, NetlinkError) as error:
                self.put_off(record, error)
            else:
                leaving.append(record)
        await self.removals.remove(leaving)

    def _on_removed(self, records: Sequence[Record]) -> None:
        """Their links are gone: forget them, then free their addresses."""
        try:
            self._store.drop(*(record.attachment for record in records))
        except MissingError as error:
            for record in records:
                self.put_off(record, error)
            return
        self._guard.forget(records)
        for record in records:
            self._unfinished.pop(record.attachment, None)
            self._leases.release(record.attachment, now_s=self._now_s())
            self._log.info("pod detached", extra={"pod": record.label, "address": record.address})

    def put_off(self, record: Record, error: BaseException) -> None:
        """The address stays held until the record is gone for good; `retry` tries again."""
        self._unfinished[record.attachment] = record
        self._log.error("detach will be repeated", extra={"pod": record.label, "reason": str(error)})

    async def retry(self) -> None:
        """Finish the DELs that the disk or the kernel refused; called from time to time."""
        await self.remove(*self._unfinished.values())
