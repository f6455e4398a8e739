"""Pods that ended and nobody said so: their namespace is gone without a DEL, so what they had is given back.

The end of a namespace takes the pod's link along, which the kernel tells at once; a look from time to time finds what
was not heard. A link that is gone while its namespace lives was deleted by somebody: that is damage, and the pod keeps
its address, for another pod with the same one would be worse than one without a network.

A DEL that comes afterwards finds nothing and succeeds. An ADD that is under way is safe: its executable holds the
namespace open, so it cannot have ended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from plugin.agent.store import Record
from plugin.core.ipam.allocator import Attachment
from plugin.link import nsid
from plugin.link.netlink import Netlink
from plugin.link.pods import HOST_PREFIX

_PERIOD_S: Final = 30.0
"""How often pods are looked at without a cause: half the minute within which what they had is free."""

_ATTEMPTS: Final = 11
_PAUSE_S: Final = 0.05
"""Half a second in all, by which an ADD is refused later that would be refused at once otherwise."""


class Vanished:
    """Finds pods whose namespaces are gone, and has them removed.

    Args:
        netlink: A socket in the node's namespace.
        records: The attachments of this node.
        remove: Takes pods from the network and gives back what they had.
        now_s: The clock.
        log: Where events go.

    Attributes:
        count: How many pods ended like this since the agent started.
    """

    def __init__(
        self,
        *,
        netlink: Netlink,
        records: Callable[[], Mapping[Attachment, Record]],
        remove: Callable[[Collection[Record]], Awaitable[None]],
        now_s: Callable[[], float],
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._records = records
        self._remove = remove
        self._now_s = now_s
        self._log = log
        self._next_s = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._reported: set[Attachment] = set()
        self._leaving: set[Attachment] = set()
        self.count = 0

    def on_links_gone(self, names: Collection[str]) -> None:
        """These links are gone, and it was not this agent that deleted them."""
        if not any(name.startswith(HOST_PREFIX) for name in names):
            return
        # A name that is there belongs to a pod that came meanwhile: word of the earlier one's end may be late.
        gone = [
            record
            for record in self._records().values()
            if record.host_ifname in names and self._netlink.link(record.host_ifname) is None
        ]
        if gone:
            task = asyncio.get_running_loop().create_task(self._judge(gone))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("pods not looked at, this is a bug", exc_info=error)

    async def look(self) -> None:
        """Look at all pods, if it is time."""
        if self._now_s() < self._next_s:
            return
        self._next_s = self._now_s() + _PERIOD_S
        links = {link.name for link in self._netlink.links()}
        without = {key: record for key, record in self._records().items() if record.host_ifname not in links}
        self._reported &= without.keys()
        await self._judge([*without.values()])

    async def make_way(self, rivals: Iterable[Record]) -> None:
        """Somebody wants what these pods have: those that ended give it back now, before it is refused.

        Of one whose path is gone the end may be a moment away: the kernel lets go of its last sockets a little later.
        """
        waiting = list(rivals)
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE_S)
            ended = [record for record in waiting if not self.lives(record)]
            await self._give_back(ended)
            waiting = [record for record in waiting if record not in ended and self._may_be_ending(record)]
            if not waiting:
                return

    @staticmethod
    def _may_be_ending(record: Record) -> bool:
        return bool(record.nsid and record.netns) and not nsid.path_lives(record.netns)

    def lives(self, record: Record) -> bool:
        """Whether the namespace of a pod is still there; without its number, as far as path and link tell."""
        if record.nsid:
            return not nsid.ended(self._netlink, [record.nsid])
        return nsid.path_lives(record.netns) or self._netlink.link(record.host_ifname) is not None

    async def _judge(self, without_link: Sequence[Record]) -> None:
        """Those of these pods that ended give back what they had; the others have been damaged."""
        ended = []
        for record in without_link:
            if not self.lives(record):
                ended.append(record)
            elif record.state == "added":
                self._report(record)
        await self._give_back(ended)

    async def _give_back(self, found: Collection[Record]) -> None:
        """Remove them; who is found twice while that lasts is told and counted once."""
        records = self._records()
        # Whoever was removed while we waited has nothing any more: what it had may be another pod's.
        ended = [record for record in found if records.get(record.attachment) == record]
        news = [record for record in ended if record.attachment not in self._leaving]
        for record in news:
            self.count += 1
            self._log.warning(
                "pod ended without DEL",
                extra={
                    "pod": record.label, "address": record.address, "interface": record.host_ifname,
                    "netns": record.netns, "ports": ", ".join(str(mapping) for mapping in record.ports),
                },
            )  # fmt: skip
        if not ended:
            return
        attachments = {record.attachment for record in news}
        self._leaving |= attachments
        try:
            await self._remove(ended)
        finally:
            self._leaving -= attachments

    def _report(self, record: Record) -> None:
        """Once: what has to be mended on a living pod is the concern of others."""
        if record.attachment not in self._reported:
            self._reported.add(record.attachment)
            self._log.error("pod lost its interface", extra={"pod": record.label, "address": record.address})
