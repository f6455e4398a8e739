"""The event loop round plugin.core.node: the only file that knows both sockets and decisions.

Datagrams (UDP 6783), exchanges (TCP 6783) and time go in; effects come out and are carried out at once, in their order:
what must be on the disk is there before anything behind it is sent. Endpoint changes of one turn of the loop are
written to the kernel together.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from ipaddress import IPv4Address
from typing import Final, Protocol

from plugin.agent.streams import hung_up
from plugin.core.errors import InputError, WeaveError
from plugin.core.messages.wire import FRAME_BYTES_MAX, LENGTH, RELAY_BYTES_MAX
from plugin.core.node import Node
from plugin.core.outbox import (
    Call,
    EndpointsChanged,
    Noted,
    PeerChanged,
    PeersChanged,
    Persist,
    Send,
    SpaceChanged,
)
from plugin.link.holders import taken_by

CALL_TIMEOUT_S: Final = 1.5
"""How long an exchange may take, connecting included: less than a round of agreement (council.ROUND_S)."""

SERVED_MAX: Final = 64
"""Callers served at the same time; further ones wait in the kernel's queue."""

CALLS_MAX: Final = 32
"""Exchanges of our own at the same time; further ones wait here."""

_RECEIVE_BUFFER_BYTES: Final = 1 << 20
_DATAGRAMS_PER_TURN_MAX: Final = 256
"""A flood of datagrams must not keep the API from answering: the loop gets a turn after this many."""

_BACKLOG: Final = 256

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


def bind_control(address: IPv4Address, port: int) -> tuple[socket.socket, socket.socket]:
    """The sockets of the control protocol, UDP and TCP, on the node address only.

    Raises:
        InputError: The port is taken or the address is not on this node.
    """
    made: list[socket.socket] = []
    for kind, word in ((socket.SOCK_DGRAM, "UDP"), (socket.SOCK_STREAM, "TCP")):
        control = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        made.append(control)
        try:
            if kind == socket.SOCK_DGRAM:
                control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            else:
                control.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            control.bind((str(address), port))
            if kind == socket.SOCK_STREAM:
                control.listen(_BACKLOG)
        except OSError as error:
            for one in made:
                one.close()
            raise InputError(
                f"{word} port {port} on {address} cannot be used: {error.strerror}"
                + (taken_by(word.lower(), port) if error.errno == errno.EADDRINUSE else ""),
                hint="is another agent running on this node?  ss -lntup",
            ) from error
    return made[0], made[1]


class Driver:
    """Feeds the node and carries out its effects.

    Args:
        node: The decisions.
        control: From `bind_control`; all nodes use the same port. They are closed by `stop`.
        handlers: What else is to be done.
        log: Where events go.
    """

    def __init__(
        self,
        *,
        node: Node,
        control: tuple[socket.socket, socket.socket],
        handlers: Handlers,
        log: logging.Logger,
    ) -> None:
        self._node = node
        self._socket, self._listener = control
        self._port = int(self._socket.getsockname()[1])
        self._own = str(self._socket.getsockname()[0])
        self._handlers = handlers
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._unwritten: tuple[bytes, int] | None = None
        self._peers_stale = self._endpoints_stale = False
        self._synced_s = float("-inf")
        self._sync_later: asyncio.TimerHandle | None = None
        self._serving = 0
        self._accepting = False
        self._calling = asyncio.Semaphore(CALLS_MAX)

    def start(self) -> None:
        """Begin to listen and speak; call it inside the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)
        self._accept()
        self._on_timer()

    async def stop(self) -> None:
        """Fall silent. Forwarding entries stay: pods keep talking while no agent runs."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_reader(self._listener)
        for timer in (self._timer, self._sync_later):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        self._listener.close()

    def flush(self, *, gather: bool = False) -> bool:  # noqa: C901, PLR0912 - a case an effect
        """Carry out what the node wants done; call it after whatever was asked of it.

        Args:
            gather: The kernel's entries may wait up to GATHER_S for more of the kind.

        Returns:
            False when something could not be written down: what should have followed was dropped.
        """
        space = False
        # What could not be written is tried again first; until it is on the disk no exchange may speak of it.
        written = self._unwritten is None or self._persist(*self._unwritten)
        while effects := self._node.effects():
            forgotten = False  # nobody may hear of what could not be written down
            for effect in effects:
                match effect:
                    case Send(to, data):
                        if not forgotten:
                            self._send(to, data)
                    case Call(to, token, data) if written:
                        self._spawn(self._call(to, token, data))
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
                    case SpaceChanged():
                        space = True
            if space:
                space = False
                self._handlers.space_changed()
        if self._endpoints_stale or self._peers_stale:
            self._sync(gather=gather)
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
            self._log.error("forwarding not written", extra={"reason": str(error)})
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
        now_s = asyncio.get_running_loop().time()
        for _ in range(_DATAGRAMS_PER_TURN_MAX):
            try:
                data, (host, port) = self._socket.recvfrom(RELAY_BYTES_MAX + 1)
            except BlockingIOError:
                break
            except OSError as error:  # an ICMP error of an earlier send, reported here by Linux
                self._log.debug("receive failed", extra={"reason": error.strerror})
                continue
            if port == self._port:
                self._node.on_datagram(data, IPv4Address(host), now_s=now_s)
        self.flush(gather=True)

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
            self._socket.sendto(data, (str(to), self._port))
        except OSError as error:
            # No route, a full buffer, an unreachable peer: what matters is sent again until it is confirmed.
            self._log.debug("send failed", extra={"peer": str(to), "reason": error.strerror})

    # --- exchanges ------------------------------------------------------------------------------------------------
    async def _call(self, to: IPv4Address, token: int, data: bytes) -> None:
        """One request and its answer."""
        loop = asyncio.get_running_loop()
        async with self._calling:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    with contextlib.closing(_stream()) as stream:
                        stream.bind((self._own, 0))
                        await loop.sock_connect(stream, (str(to), self._port))
                        await loop.sock_sendall(stream, LENGTH.pack(len(data)) + data)
                        answer = await _read_frame(stream)
            except (OSError, TimeoutError, struct.error) as error:
                number = error.errno if isinstance(error, OSError) else None
                reason = os.strerror(number).lower() if number else str(error).lower() or "timed out"
                self._node.on_no_answer(token, reason, now_s=loop.time())
            else:
                self._node.on_answer(token, answer, to, now_s=loop.time())
        self.flush()

    def _accept(self) -> None:
        if not self._accepting:
            self._accepting = True
            asyncio.get_running_loop().add_reader(self._listener, self._on_connection)

    def _on_connection(self) -> None:
        while self._serving < SERVED_MAX:
            try:
                stream, (host, _) = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor left, or the caller is gone: the next one may fare better
                self._log.warning("connection refused", extra={"reason": error.strerror})
                return
            stream.setblocking(False)
            self._serving += 1
            self._spawn(self._serve(stream, IPv4Address(host)))
        # The listener stays readable while callers wait: without this the loop would do nothing else.
        self._accepting = False
        asyncio.get_running_loop().remove_reader(self._listener)

    async def _serve(self, stream: socket.socket, source: IPv4Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                request = await _read_frame(stream)
                if hung_up(stream):
                    return  # it waited too long: the work would be for nothing, when there is most of it
                answer = self._node.on_request(request, source, now_s=loop.time())
                if self.flush() and answer is not None:
                    await loop.sock_sendall(stream, LENGTH.pack(len(answer)) + answer)
        except (OSError, TimeoutError) as error:
            self._log.debug("exchange broken off", extra={"peer": str(source), "reason": str(error)})
        finally:
            stream.close()
            self._serving -= 1
            if not loop.is_closed() and self._listener.fileno() >= 0:
                self._accept()

    def _spawn(self, work: "asyncio.coroutines.Coroutine[None, None, None]") -> None:  # type: ignore[name-defined]
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("exchange failed, this is a bug", exc_info=error)


def _stream() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


async def _read_frame(stream: socket.socket) -> bytes:
    """What stands behind its length.

    Raises:
        OSError: The other side hung up, or announces more than anybody may say.
    """
    (length,) = LENGTH.unpack(await _read(stream, LENGTH.size))
    if length > FRAME_BYTES_MAX:
        raise ConnectionError(0, f"wanted at most {FRAME_BYTES_MAX} bytes, {length} are announced")
    return await _read(stream, length)


async def _read(stream: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        piece = await loop.sock_recv(stream, min(count - len(data), 65536))
        if not piece:
            raise ConnectionError(0, "it hung up")
        data += piece
    return bytes(data)
