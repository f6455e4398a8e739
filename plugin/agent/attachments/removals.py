"""Taking pods off the network: a burst of DELs costs little more than one, and the event loop never waits for it.

Deleting a link takes the kernel a millisecond, and the call some 15 ms more, in which it waits for the rest of the
kernel to look away (RCU). So the call is made in a thread, and an attachment counts as gone as soon as the
kernel says that its link is (plugin/link/departures.py) or the call returns, whichever comes first.

What arrives while a deletion is under way goes together in the next one; a single DEL never waits for others to come.
An attachment that is leaving already is not removed twice: whoever asks again waits for the same end.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from plugin.agent.store import Record
from plugin.core.ipam.allocator import Attachment
from plugin.link.netlink import Netlink, NetlinkError

CALLS_MAX: Final = 4
"""Deletions that the kernel finishes at the same time; with one, DELs in a row would wait for each other's end."""


class Hears(Protocol):
    """What tells of links that are gone (`plugin.link.departures.Departures`)."""

    def fileno(self) -> int:
        """For the event loop."""

    def receive(self) -> list[str]:
        """The names of the links that went since the last call."""


Detach = Callable[[Netlink, Sequence[str]], Mapping[str, NetlinkError]]


class Removals:
    """Deletes the links of pods.

    Args:
        netlinks: Sockets in the node's namespace that nobody else uses: one for each deletion at the same time.
        departures: Tells which links are gone.
        finish: Told whose links are gone: what is left to do is to forget them and to free their addresses.
        refused: Told what the kernel refused to delete, and why.
        strangers: Told of links that went without being deleted here.
        detach: Deletes links by name and waits until it is done: runs in a thread.
    """

    def __init__(
        self,
        *,
        netlinks: Iterable[Netlink],
        departures: Hears,
        finish: Callable[[Sequence[Record]], None],
        refused: Callable[[Record, BaseException], None],
        strangers: Callable[[Collection[str]], None],
        detach: Detach,
    ) -> None:
        self._idle = list(netlinks)
        self._departures = departures
        self._finish = finish
        self._refused = refused
        self._strangers = strangers
        self._detach = detach
        self._threads = ThreadPoolExecutor(len(self._idle), "removal")
        self._ends: dict[Attachment, asyncio.Future[None]] = {}
        self._waiting: list[Record] = []
        self._under_way: list[Record] = []
        self._calls: set[asyncio.Future[Mapping[str, NetlinkError]]] = set()

    def start(self) -> None:
        """Begin to listen; call it inside the running loop."""
        asyncio.get_running_loop().add_reader(self._departures.fileno(), self.on_departures)

    async def stop(self) -> None:
        """Wait for what is under way: a few dozen milliseconds."""
        while self._ends:
            await asyncio.wait(self._ends.values())
        if self._calls:
            await asyncio.wait(self._calls)
        asyncio.get_running_loop().remove_reader(self._departures.fileno())
        self._threads.shutdown()

    async def remove(self, records: Iterable[Record]) -> None:
        """Return when the links are gone and the rest is done, or the kernel has refused."""
        ends = [self._end_of(record) for record in records]
        self._next()
        if ends:
            await asyncio.wait(ends)  # whoever stops waiting stops nothing

    @property
    def leaving(self) -> Collection[Attachment]:
        """The attachments whose links go just now."""
        return self._ends.keys()

    async def settled(self, attachment: Attachment) -> None:
        """Return when the attachment is not leaving (any more)."""
        if (end := self._ends.get(attachment)) is not None:
            await asyncio.wait([end])

    def _end_of(self, record: Record) -> "asyncio.Future[None]":
        end = self._ends.get(record.attachment)
        if end is None:
            end = self._ends[record.attachment] = asyncio.get_running_loop().create_future()
            self._waiting.append(record)
        return end

    def _next(self) -> None:
        """Begin to delete all that waits, unless a deletion is under way or the kernel has enough to finish."""
        if not self._waiting or self._under_way or not self._idle:
            return
        # What went before is not what goes now, though it may have had the same name.
        self._strangers(set(self._departures.receive()))
        batch = self._under_way = self._waiting
        self._waiting = []
        names = list(dict.fromkeys(record.host_ifname for record in batch))
        netlink = self._idle.pop()
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._detach, netlink, names)
        self._calls.add(call)
        call.add_done_callback(lambda call: self._on_returned(netlink, batch, call))

    def on_departures(self) -> None:
        """Links are gone: perhaps some that we wait for."""
        names = set(self._departures.receive())
        ours = [record for record in self._under_way if record.host_ifname in names]
        self._strangers(names.difference(record.host_ifname for record in ours))
        self._end(ours, {})
        self._next()

    def _on_returned(
        self, netlink: Netlink, batch: list[Record], call: "asyncio.Future[Mapping[str, NetlinkError]]"
    ) -> None:
        self._idle.append(netlink)
        self._calls.discard(call)
        if self._under_way is batch:  # else all of it was heard of already
            error = call.exception()
            refusals = call.result() if error is None else {record.host_ifname: error for record in batch}
            self._end(list(batch), refusals)
        self._next()

    def _end(self, records: Sequence[Record], refusals: Mapping[str, BaseException]) -> None:
        """These links are gone, except for what was refused; whoever waits for them hears of it."""
        self._under_way[:] = [record for record in self._under_way if record not in records]
        if not self._under_way:
            self._under_way = []
        try:
            if gone := [record for record in records if record.host_ifname not in refusals]:
                self._finish(gone)
            for record in records:
                if record.host_ifname in refusals:
                    self._refused(record, refusals[record.host_ifname])
        finally:
            for record in records:
                self._ends.pop(record.attachment).set_result(None)
