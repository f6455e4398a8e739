"""The event loop round core/forwarding/paths.py: sends probes through the overlay, and tells what becomes of them."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import InputError, said_by
from plugin.core.forwarding.paths import Path, PathChanged, Paths, PathState, Probe
from plugin.link import overlay
from plugin.link.echo import Echo
from plugin.link.netlink import Link, Netlink

_TRAFFIC_S: Final = 1.0
"""How often the kernel is asked to whom pods send, when they send at all."""

_LOAD_MAX: Final = 0.02
"""Reading the entries may take this part of the time: with many of them it is done less often."""

_RETARGET_S: Final = 0.3
_RECENT_S: Final = 2.5
"""A node to which frames went so lately is sent to."""


class Prober:
    """Probes the overlay's way to every peer.

    Args:
        netlink: A socket in the node's namespace.
        device: The overlay device.
        mtu_bytes: The largest packet that a pod sends.
        port: UDP port of the overlay.
        targets: The peers' bridges now: node address to (bridge address, bridge MAC).
        log: Where events go.
        on_changed: Told of every path whose state, or what is said of it, is another than before.
    """

    def __init__(
        self,
        *,
        netlink: Netlink,
        device: Link,
        mtu_bytes: int,
        port: int,
        targets: Callable[[], Mapping[IPv4Address, tuple[IPv4Address, str]]],
        log: logging.Logger,
        on_changed: Callable[[Path], None] | None = None,
    ) -> None:
        self._netlink = netlink
        self._device = device
        self._paths = Paths(mtu_bytes, port)
        self._find_targets = targets
        self._log = log
        self._on_changed = on_changed
        self._echo: Echo | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retarget: asyncio.TimerHandle | None = None
        self._retargeted_s = float("-inf")
        self._next_traffic_s = 0.0
        self._sent_before: int | None = 0
        self._probes = 0
        self._macs: frozenset[str] = frozenset()

    @property
    def paths(self) -> Mapping[IPv4Address, Path]:
        """By node address."""
        return self._paths.paths

    def carries(self, node: IPv4Address) -> bool:
        """Whether packets of pods get to a node, as far as the last probes say."""
        path = self._paths.paths.get(node)
        return path is not None and path.state in {PathState.UP, PathState.MTU}

    def use(self, source: IPv4Address | None) -> None:
        """The bridge has this address, or none: probes go out from it. Call it inside the running loop."""
        loop = asyncio.get_running_loop()
        if self._echo is not None:
            loop.remove_reader(self._echo.fileno())
            self._echo.close()
            self._echo = None
        if source is not None:
            try:
                self._echo = Echo(source, self._bridge_of(source), icmp_id=os.getpid())
            except InputError as error:
                self._log.error("overlay not probed", extra={"reason": error.message})
                return
            loop.add_reader(self._echo.fileno(), self._on_readable)
            self._find_out()
        else:
            # Nobody probes them now: what was last seen must not be told as if it were so still.
            self._paths.set_targets({}, now_s=loop.time())

    def _bridge_of(self, source: IPv4Address) -> str:
        """The name of the link that has the address.

        Raises:
            InputError: None has.
        """
        owner = next((index for index, interface in self._netlink.addresses() if interface.ip == source), None)
        name = next((link.name for link in self._netlink.links() if link.index == owner), None)
        if name is None:
            raise InputError(f"the overlay cannot be probed from {source}: no interface of this node has that address")
        return name

    def stop(self) -> None:
        """Probe no more."""
        self.use(None)
        for timer in (self._timer, self._retarget):
            if timer is not None:
                timer.cancel()

    def use_mtu(self, mtu_bytes: int) -> None:
        """A pod's largest packet has another size now."""
        self._paths.use_mtu(mtu_bytes, now_s=asyncio.get_running_loop().time())
        self._flush()

    def explain(self, own_cause: Callable[[IPv4Address], str]) -> None:
        """What is known of this node that keeps it from reaching another is said instead of a guess."""
        self._paths.explain(own_cause, now_s=asyncio.get_running_loop().time())
        self._flush()

    def targets_changed(self) -> None:
        """Endpoints are others than before: the first time at once, and when many come, looked through once for all."""
        if self._retarget is None:
            loop = asyncio.get_running_loop()
            self._retarget = loop.call_at(max(loop.time(), self._retargeted_s + _RETARGET_S), self._find_out)

    def _find_out(self) -> None:
        if self._retarget is not None:
            self._retarget.cancel()
            self._retarget = None
        if self._echo is not None:
            targets = self._find_targets()
            self._macs = frozenset(mac for _, mac in targets.values())
            now_s = self._retargeted_s = asyncio.get_running_loop().time()
            self._paths.set_targets({node: address for node, (address, _) in targets.items()}, now_s=now_s)
            self._set_timer()

    def _on_readable(self) -> None:
        if self._echo is not None:
            now_s = asyncio.get_running_loop().time()
            for identifier in self._echo.receive():
                self._paths.on_reply(identifier, now_s=now_s)
            self._flush()

    def _on_timer(self) -> None:
        self._timer = None
        if self._echo is None:
            return
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._next_traffic_s:
            self._look_at_traffic(now_s)
        self._paths.on_timer(now_s=now_s)
        self._flush()

    def _look_at_traffic(self, now_s: float) -> None:
        """To whom do pods send? Asked only when more was sent than our own probes."""
        self._next_traffic_s = now_s + _TRAFFIC_S
        sent = overlay.packets_sent(self._device)
        grown = sent is None or self._sent_before is None or sent - self._sent_before > self._probes
        self._sent_before, self._probes = sent, 0
        if not grown:
            self._paths.busy(())
            return
        began_s = time.monotonic()
        try:
            nodes = overlay.nodes_sent_to(self._netlink, self._device, within_s=_RECENT_S, except_macs=self._macs)
        except OSError as error:  # the device may have gone: idle paths are probed all the same
            self._log.warning("traffic not read", extra={"reason": said_by(error)})
            return
        self._paths.busy(nodes)
        self._next_traffic_s = now_s + max(_TRAFFIC_S, (time.monotonic() - began_s) / _LOAD_MAX)

    def _flush(self) -> None:
        while effects := self._paths.effects():  # what cannot be sent has effects of its own
            for effect in effects:
                match effect:
                    case Probe(to, identifier, size_bytes):
                        self._send(to, identifier, size_bytes)
                    case PathChanged(path):
                        self._tell(path)
        self._set_timer()

    def _tell(self, path: Path) -> None:
        fields = {"node": str(path.node), "state": path.state.value, "reason": path.reason}
        self._log.info("path changed", extra=fields)
        if self._on_changed is not None:
            self._on_changed(path)

    def _send(self, to: IPv4Address, identifier: int, size_bytes: int) -> None:
        if self._echo is None:
            return  # `use(None)` was called by whoever was told of a change
        try:
            self._echo.send(to, identifier, size_bytes)
            self._probes += 1
        except OSError as error:
            reason = f"this node cannot send them: {said_by(error, path=False)}"
            self._paths.on_unsendable(identifier, reason, now_s=asyncio.get_running_loop().time())

    def _set_timer(self) -> None:
        due_s = float("inf")
        loop = asyncio.get_running_loop()
        if self._echo is not None:
            # A little later at the least: a timer that is always due must not take the processor.
            due_s = max(min(self._paths.next_timer_s(), self._next_traffic_s), loop.time() + 0.005)
        if self._timer is not None:
            if abs(self._timer.when() - due_s) < 0.001:
                return
            self._timer.cancel()
            self._timer = None
        if self._echo is not None:
            self._timer = loop.call_at(due_s, self._on_timer)
