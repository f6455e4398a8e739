"""Gives switch, overlay device and living pods the MTU that the way to the other nodes allows now.

When it falls, pods come first, so that they send nothing any more that is too large for what follows; when it grows,
they come last. A pod whose own side cannot be changed keeps both ends of its cable as they are, and is told as a
problem.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from plugin.agent.store import Record
from plugin.core.errors import WeaveError, said_by
from plugin.core.ipam.allocator import Attachment
from plugin.core.upkeep.ledger import Ledger
from plugin.link import podmtu, switch
from plugin.link.netlink import Link, Netlink

_AT_ONCE: Final = 16
"""So many pods are resized in one turn of the loop: each takes a visit to its namespace."""

_RETRY_S: Final = 30.0
"""Until it is tried again what could not be done."""

_GROUP: Final = "mtu"
"""The first word of the names of pods' troubles: `mtu default/red`."""


class PodMtus:
    """Resizes what is there.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        device: The overlay device.
        records: The pods that have to have a link.
        mtu_bytes: What pods have, unless they asked for less.
        ledger: Where problems are written down.
        log: Where events go.

    Attributes:
        plane_bytes: What switch and overlay device have now.
    """

    def __init__(
        self,
        netlink: Netlink,
        bridge: Link,
        device: Link,
        records: Callable[[], Mapping[Attachment, Record]],
        mtu_bytes: int,
        ledger: Ledger,
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._device = device
        self._find_records = records
        self._mtu_bytes = self.plane_bytes = mtu_bytes
        self._ledger = ledger
        self._log = log
        self._work: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self._former: set[int] = set()
        self._kept: dict[str, int] = {}

    def of(self, record: Record) -> int:
        """What the node's end of a pod's cable has to have now: no other than before until its own side has it, too."""
        return self._kept.get(record.host_ifname) or _wanted_mtu(record, self._mtu_bytes)

    def resize(self, mtu_bytes: int) -> None:
        """Another MTU holds from now on; pods that come get it at once, those that are there within moments."""
        before, self._mtu_bytes = self._mtu_bytes, mtu_bytes
        self._begin(before)

    def take_up(self, left_bytes: int) -> None:
        """What is there with this MTU, as an earlier agent has left it, gets the one that holds now."""
        self._begin(left_bytes)

    async def stop(self) -> None:
        """Do nothing more."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def _begin(self, before_bytes: int) -> None:
        if self._work is not None:
            self._work.cancel()  # whatever it had not done, the next one does
        self._former.add(before_bytes)
        for record in self._find_records().values():
            if before_bytes != self._mtu_bytes and (cable := podmtu.observe_cable(self._netlink, record.host_ifname)):
                self._kept[record.host_ifname] = cable.mtu_bytes
        self._work = asyncio.get_running_loop().create_task(self._resize(grows=self._mtu_bytes > before_bytes))
        self._work.add_done_callback(self._done)

    async def _resize(self, *, grows: bool) -> None:
        if grows:
            self._resize_plane()
        while await self._resize_pods():
            if not grows:
                self._resize_plane()
            await asyncio.sleep(_RETRY_S)
        if not grows:
            self._resize_plane()
        self._former.clear()

    def _resize_plane(self) -> None:
        if self.plane_bytes == self._mtu_bytes:
            return
        for link in (self._bridge, self._device):
            switch.set_mtu(self._netlink, link, self._mtu_bytes)
        self.plane_bytes = self._mtu_bytes
        self._log.info("mtu set", extra={"mtu": self._mtu_bytes})

    async def _resize_pods(self) -> bool:
        """Resize all pods; whether some could not be."""
        namespaces = podmtu.Namespaces(self._netlink)
        unreached, kept = set(), {}
        for number, record in enumerate(list(self._find_records().values()), start=1):
            try:
                self._resize_pod(namespaces, record)
                self._kept.pop(record.host_ifname, None)
            except (OSError, WeaveError) as error:
                unreached.add(self._tell(record, error))
                kept[record.host_ifname] = self.of(record)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for name in self._told - unreached:
            if self._ledger.well(name):
                self._log.info("trouble is over", extra={"object": name})
        self._told, self._kept = unreached, kept
        return bool(unreached)

    def _resize_pod(self, namespaces: podmtu.Namespaces, record: Record) -> None:
        cable = podmtu.observe_cable(self._netlink, record.host_ifname)
        if cable is None:
            return
        wanted = inner_bytes = _wanted_mtu(record, self._mtu_bytes)
        inner = cable.inner_mtu_bytes or cable.mtu_bytes
        if inner < wanted and inner not in {_wanted_mtu(record, former) for former in self._former}:
            inner_bytes = inner  # somebody has chosen a smaller one for it, such as the plugin `tuning`
        if (cable.mtu_bytes, inner) != (wanted, inner_bytes):
            podmtu.set_mtu(self._netlink, namespaces, cable, wanted, hint=record.netns, inner_bytes=inner_bytes)

    def _tell(self, record: Record, error: Exception) -> str:
        name = f"{_GROUP} {record.label}"
        cause = (
            f"the MTU of pod {record.label} cannot be set to {_wanted_mtu(record, self._mtu_bytes)}: {said_by(error)}"
        )
        advice = error.hint if isinstance(error, WeaveError) else "delete the pod and make it anew"
        if self._ledger.trouble(name, cause, advice, time.time()):
            self._log.error("trouble", extra={"object": name, "reason": cause, "hint": advice})
        return name

    def _done(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            self._log.error("mtu not set", extra={"reason": str(error)})


def _wanted_mtu(record: Record, mtu_bytes: int) -> int:
    """What a pod gets where the network carries `mtu_bytes`: all of it, or less when its configuration said so."""
    return min(record.mtu or mtu_bytes, mtu_bytes)
