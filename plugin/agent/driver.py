"""The event loop round plugin.core.node: the only file that knows both sockets and decisions.

Datagrams (UDP 6783), exchanges (TCP 6783) and time go in; effects come out and are carried out at once, in their order:
what must be on the disk is there before anything behind it is sent. Endpoint changes of one turn of the loop are
written to the kernel together.

Anybody can send to these ports. So everything is bounded that is done for who has not proved to be a member: datagrams
by the kernel and by the turn (sockets.py), callers by their number, their bytes and their time (exchanges.py).
"""

import asyncio
import logging
import socket
from ipaddress import IPv4Address
from typing import Final, Protocol

from plugin.agent.exchanges import Exchanges
from plugin.agent.sockets import Control
from plugin.core.errors import WeaveError, said_by
from plugin.core.messages.wire import RELAY_BYTES_MAX
from plugin.core.node import Node
from plugin.core.outbox import (
    Call,
    EndpointsChanged,
    Noted,
    PeerChanged,
    PeerMoved,
    PeersChanged,
    Persist,
    Send,
    SpaceChanged,
)

_DATAGRAMS_PER_TURN_MAX: Final = 256
"""A flood of datagrams must not keep the API from answering: the loop gets a turn after this many."""

_STRANGERS_PER_TURN_MAX: Final = 16
_STRANGERS_PAUSE_S: Final = 0.05
"""After so many datagrams of strangers the others wait, and when there are too many the kernel drops them."""

GATHER_S: Final = 0.01
"""What peers tell within this time of the last write to the kernel is written together: when a hundred pods start, each
is told by its own node. The first of them is written at once."""


class Handlers(Protocol):
    """What the rest of the agent does with the node's effects."""

    def sync_forwarding(self, *, peers: bool) -> None:
        """Who is where has changed; `peers`: also to whom broadcast goes."""

    def persist(self, data: bytes) -> None:
        """Write the ring down.

        Raises:
            WeaveError: It cannot be written.
        """

    def space_changed(self) -> None:
        """There may be addresses where there were none."""

    def peer_moved(self) -> None:
        """Members' nodes have other addresses than before: what was written down of them is out of date."""


class Driver:
    """Feeds the node and carries out its effects.

    Args:
        node: The decisions.
        control: The sockets; all nodes use the same port. They are closed by `stop`.
        handlers: What else is to be done.
        log: Where events go.
    """

    def __init__(
        self,
        *,
        node: Node,
        control: Control,
        handlers: Handlers,
        log: logging.Logger,
    ) -> None:
        self._node = node
        self._control = control
        self._port = control.address[1]
        self._tag = b""
        self._handlers = handlers
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: tuple[bytes, int] | None = None
        self._peers_stale = self._endpoints_stale = False
        self._synced_s = float("-inf")
        self._sync_later: asyncio.TimerHandle | None = None
        self._strangers_later: asyncio.TimerHandle | None = None
        self._exchanges = Exchanges(node, control, self.flush, log)

    def start(self) -> None:
        """Begin to listen and speak; call it inside the running loop."""
        self._listen()
        self._on_timer()

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control.members, self._on_readable)
        if self._control.strangers is not None:
            loop.add_reader(self._control.strangers, self._on_strangers)
        self._exchanges.listen(self._control)

    def _deafen(self) -> None:
        loop = asyncio.get_running_loop()
        for one in (self._control.members, self._control.strangers):
            if one is not None:
                loop.remove_reader(one)
        if self._strangers_later is not None:
            self._strangers_later.cancel()
        self._exchanges.deafen()

    def move(self, control: Control) -> None:
        """Listen and speak at another address from now on: that of these sockets, from `bind_control`."""
        self._deafen()
        self._control.close()
        self._control, self._tag = control, b""
        self._listen()
        self.flush()

    async def stop(self) -> None:
        """Fall silent. Forwarding entries stay: pods keep talking while no agent runs."""
        self._deafen()
        for timer in (self._timer, self._sync_later):
            if timer is not None:
                timer.cancel()
        await self._exchanges.stop()
        self._control.close()

    def flush(self, *, gather: bool = False) -> bool:  # noqa: C901, PLR0912 - a case an effect
        """Carry out what the node wants done; call it after whatever was asked of it.

        Args:
            gather: The kernel's entries may wait up to GATHER_S for more of the kind.

        Returns:
            False when something could not be written down: what should have followed was dropped.
        """
        space = moved = False
        # What could not be written is tried again first; until it is on the disk no exchange may speak of it.
        written = self._unwritten is None or self._persist(*self._unwritten)
        while effects := self._node.effects():
            forgotten = False  # nobody may hear of what could not be written down
            for effect in effects:
                match effect:
                    case Send(to, data):
                        if not forgotten:
                            self._send(to, data)
                    case Call(to, token) if written:
                        self._exchanges.call(to, token)
                    case Call(token=token):
                        self._node.on_no_answer(token, "the disk takes nothing", now_s=self._now_s())
                    case Persist(data, serial):
                        written = self._persist(data, serial)
                        forgotten = not written
                    case PeerChanged(peer):
                        self._log.info(
                            "peer changed",
                            extra={
                                "peer": str(peer.address),
                                "peer_name": peer.name,
                                "state": peer.state.value,
                                "reason": peer.reason,
                            },
                        )
                    case Noted(event, fields, serious) if not forgotten:
                        self._log.log(logging.ERROR if serious else logging.INFO, event, extra=dict(fields))
                    case EndpointsChanged():
                        self._endpoints_stale = True
                    case PeersChanged():
                        self._peers_stale = True
                    case PeerMoved(name, before, now):
                        places = {"before": str(before), "now": str(now)}
                        self._log.info("peer moved", extra={"peer_name": name} | places)
                        moved = True
                    case SpaceChanged():
                        space = True
            if space:
                space = False
                self._handlers.space_changed()
        if moved:
            self._handlers.peer_moved()
        if self._endpoints_stale or self._peers_stale:
            self._sync(gather=gather)
        if self._node.tag != self._tag:
            self._tag = self._node.tag
            self._control.sort(self._tag)
        self._set_timer()
        return written

    def _sync(self, *, gather: bool = False) -> None:
        """Bring the kernel's entries in line, now or a little later."""
        now_s = self._now_s()
        if gather and now_s < self._synced_s + GATHER_S:
            if self._sync_later is None:
                self._sync_later = asyncio.get_running_loop().call_at(self._synced_s + GATHER_S, self._sync)
            return
        if self._sync_later is not None:
            self._sync_later.cancel()
            self._sync_later = None
        peers, self._peers_stale, self._endpoints_stale = self._peers_stale, False, False
        try:
            self._handlers.sync_forwarding(peers=peers)
        except OSError as error:  # the next change, or the next start, writes everything again
            self._log.error("forwarding not written", extra={"reason": said_by(error)})
        self._synced_s = self._now_s()

    def kick(self) -> None:
        """Let the node act now on what it was told, not at its next turn."""
        self._on_timer()

    def _persist(self, data: bytes, serial: int) -> bool:
        try:
            self._handlers.persist(data)
        except WeaveError as error:
            if self._unwritten is None:
                self._log.error("ring not written", extra={"reason": str(error)})
            self._unwritten = data, serial
            return False
        self._unwritten = None
        self._node.council.on_persisted(serial)
        return True

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # --- datagrams and time ---------------------------------------------------------------------------------------
    def _on_readable(self) -> None:
        self._receive(self._control.members, _DATAGRAMS_PER_TURN_MAX)

    def _on_strangers(self) -> None:
        """Who does not know this life of the agent, or nothing at all: some, then a pause."""
        loop, strangers = asyncio.get_running_loop(), self._control.strangers
        assert strangers is not None
        self._strangers_later = None
        if self._receive(strangers, _STRANGERS_PER_TURN_MAX):
            self._node.counters.rejected["too many"] += self._control.newly_dropped()
            loop.remove_reader(strangers)
            self._strangers_later = loop.call_later(
                _STRANGERS_PAUSE_S, lambda: loop.add_reader(strangers, self._on_strangers)
            )

    def _receive(self, where: socket.socket, count_max: int) -> bool:
        """Take datagrams; False when there are no more."""
        now_s = asyncio.get_running_loop().time()
        more = True
        for _ in range(count_max):
            try:
                data, (host, port) = where.recvfrom(RELAY_BYTES_MAX + 1)
            except BlockingIOError:
                more = False
                break
            except OSError as error:  # an ICMP error of an earlier send, reported here by Linux
                self._log.debug("receive failed", extra={"reason": said_by(error)})
                continue
            if port == self._port:
                self._node.on_datagram(data, IPv4Address(host), now_s=now_s)
        self.flush(gather=True)
        return more

    def _on_timer(self) -> None:
        now_s = asyncio.get_running_loop().time()
        late_s = 0.0
        if self._timer is not None:
            late_s = max(0.0, now_s - self._timer.when())
            self._timer.cancel()
        self._timer = None
        self._node.on_timer(now_s=now_s, late_s=late_s)
        self.flush()

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        # A little later at the least: a timer that is always due must not take the processor.
        due_s = max(self._node.next_timer_s(), loop.time() + 0.002)
        if self._timer is not None:
            if abs(self._timer.when() - due_s) < 0.001:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due_s, self._on_timer)

    def _send(self, to: IPv4Address, data: bytes) -> None:
        try:
            self._control.members.sendto(data, (str(to), self._port))
        except OSError as error:
            # No route, a full buffer, an unreachable peer: what matters is sent again until it is confirmed.
            self._log.debug("send failed", extra={"peer": str(to), "reason": said_by(error)})
