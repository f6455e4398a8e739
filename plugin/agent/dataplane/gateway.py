"""The switch's own address: the gateway of all pods of the node, an address of the ring like theirs."""

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from plugin.agent.space import Space
from plugin.agent.store import Record, Store
from plugin.core.ipam.allocator import EXPOSE, PoolExhaustedError, RingAllocator
from plugin.core.ipam.council import Wish
from plugin.core.node import Node
from plugin.link import switch
from plugin.link.netlink import Link, Netlink

_ASK_AGAIN_S = 3600.0


class Gateway:
    """Finds the address, once there is one, and keeps it.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        name: The node's name.
        node: Announces the address; its allocator gives it.
        store: Remembers it.
        space: Where to wait for one.
        flush: Carries out what the node wants.
        changed: Told the switch's address, or None, whenever it is another.
        log: Where events go.
    """

    def __init__(  # noqa: PLR0913 - app.py puts it together, once
        self,
        *,
        netlink: Netlink,
        bridge: Link,
        name: str,
        node: Node,
        store: Store,
        space: Space,
        flush: Callable[[], object],
        changed: Callable[[IPv4Address | None], None],
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._name = name
        self._node = node
        self._store = store
        self._space = space
        self._flush = flush
        self._changed = changed
        self._log = log
        self._hidden = False
        self.address: IPv4Address | None = None

    @property
    def _range(self) -> IPv4Network:
        return self._node.keys.network

    @property
    def _allocator(self) -> RingAllocator:
        return self._node.allocator

    def take_up(self) -> None:
        """Keep what an earlier agent gave the switch: the pods that live here send to it."""
        record = self._store.records.get(EXPOSE)
        address = IPv4Address(record.address) if record is not None else self._found()
        if address is not None:
            self._allocator.claim(EXPOSE, address, adopt=True)
            self._use(address)

    async def ensure(self) -> None:
        """Return when the switch has an address; the ring may have to be agreed first."""
        loop = asyncio.get_running_loop()
        while self.address is None or self._lost():
            if self.address is not None:
                self._give_up()
            try:
                address = self._allocator.allocate(EXPOSE, now_s=loop.time())
            except PoolExhaustedError:
                with self._space.wanted(Wish(), until_s=loop.time() + _ASK_AGAIN_S):
                    await self._space.change(until_s=loop.time() + _ASK_AGAIN_S)
                continue
            self._use(address)
        self._flush()

    def _lost(self) -> bool:
        """Whether the address belongs to another member: this agent has given its ring up for another."""
        council = self._node.council
        if self.address is None or not council.seated or self._allocator.owns(self.address):
            return False
        owner = council.ring.owner_of(self.address)
        # Held by a pod's gateway entry it may be only while it is our former self's, which we are about to inherit.
        return owner in council.seats and council.seats[owner].name != self._name

    def hide(self) -> None:
        """Take the address from the switch; it stays this node's. Gateways of other IPAM plugins stay."""
        self._hidden = True
        for interface in self._on_switch():
            switch.remove_address(self._netlink, self._bridge, interface)
        self._changed(None)

    def expose(self) -> None:
        """Give it back."""
        self._hidden = False
        if self.address is not None:
            self._use(self.address)

    @property
    def hidden(self) -> bool:
        """Whether `hide` took it away."""
        return self._hidden

    @property
    def interface(self) -> IPv4Interface | None:
        """The address that the switch has to have, with the range's prefix; None while there is none, or hidden."""
        if self.address is None or self._hidden:
            return None
        return IPv4Interface((self.address, self._range.prefixlen))

    def _found(self) -> IPv4Address | None:
        """The address that the switch has, though nothing is written of it: the disk was lost."""
        return next((interface.ip for interface in self._on_switch()), None)

    def _on_switch(self) -> list[IPv4Interface]:
        return [
            interface
            for index, interface in self._netlink.addresses()
            if index == self._bridge.index
            and interface.ip in self._range
            and not switch.is_side_gateway(interface, self._range)
        ]

    def _use(self, address: IPv4Address) -> None:
        network, container_id, ifname = EXPOSE
        label = f"{self._name}/weave"
        record = Record(
            network=network, container_id=container_id, ifname=ifname, address=str(address), mac=self._bridge.mac,
            host_ifname=self._bridge.name, label=label, state="added",
        )  # fmt: skip
        if self._store.records.get(EXPOSE) != record:
            self._store.put(record)
        switch.ensure_address(self._netlink, self._bridge, IPv4Interface((address, self._range.prefixlen)))
        self.address = address
        self._node.attach(address, self._bridge.mac, label, now_s=asyncio.get_running_loop().time())
        self._changed(address)
        self._log.info("gateway ready", extra={"bridge": self._bridge.name, "address": str(address)})

    def _give_up(self) -> None:
        assert self.address is not None
        now_s = asyncio.get_running_loop().time()
        self._log.warning("gateway given up", extra={"address": str(self.address)})
        self._node.detach(self.address, now_s=now_s)
        self._store.drop(EXPOSE)
        self._allocator.release(EXPOSE, now_s=now_s)
        self.address = None
