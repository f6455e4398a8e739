"""Exchanges of the control protocol (TCP 6783): calls of this agent, and callers that are served. It decides nothing.

A caller has not proved to be anybody before its request is read. So there are bounds on how many are served, for how
long, and on what is read of them; what they ask goes to the node, and what it answers waits until it is on the disk.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any, Final

from plugin.agent.guests import Guest, Guests
from plugin.agent.sockets import Control
from plugin.agent.streams import hung_up
from plugin.core.errors import said_by
from plugin.core.messages.codec import WireError
from plugin.core.messages.exchange import CHALLENGE_BYTES, GREETING
from plugin.core.messages.keys import TAG_BYTES
from plugin.core.messages.wire import FRAME_BYTES_MAX, HEADER, LENGTH, TAG_OFFSET
from plugin.core.node import Node

CALL_TIMEOUT_S: Final = 1.5
"""How long an exchange may take, connecting included: less than a round of agreement (council.ROUND_S)."""

CALLS_MAX: Final = 32
"""Exchanges of our own at the same time; further ones wait here."""

_ACCEPTED_PER_TURN_MAX: Final = 16
_UNPROVED_BYTES_MAX: Final = 1 << 16
"""A request that is longer is read only when its first bytes are those that a member knows."""

_WARN_EVERY_S: Final = 10.0


class Exchanges:
    """Calls, and serves.

    Args:
        node: The decisions.
        control: The sockets; `listener` is read here.
        flush: Carries out what the node wants; False when something could not be written down.
        log: Where events go.
    """

    def __init__(self, node: Node, control: Control, flush: Callable[[], bool], log: logging.Logger) -> None:
        self._node = node
        self._control = control
        self._flush = flush
        self._log = log
        self._own, self._port = control.address
        self._tasks: set[asyncio.Task[None]] = set()
        self._calling = asyncio.Semaphore(CALLS_MAX)
        self._listening = self._accepting = False
        self._warned_s = float("-inf")
        self.guests = Guests(node.is_member)

    def listen(self, control: Control) -> None:
        """Begin to listen on these sockets, and to call from their address; call it inside the running loop."""
        self._control = control
        self._own, self._port = control.address
        self._listening = True
        self._accept()

    def deafen(self) -> None:
        """Listen no more; exchanges that have begun go on. Closing the sockets is their owner's."""
        self._listening = self._accepting = False
        asyncio.get_running_loop().remove_reader(self._control.listener)

    async def stop(self) -> None:
        """End all exchanges."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def call(self, to: IPv4Address, token: int) -> None:
        """Begin an exchange; the node is told how it went."""
        self._spawn(self._call(to, token))

    async def _call(self, to: IPv4Address, token: int) -> None:
        """One request and its answer; who is called greets first."""
        loop = asyncio.get_running_loop()
        async with self._calling:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    with contextlib.closing(_stream()) as stream:
                        stream.bind((self._own, 0))
                        await loop.sock_connect(stream, (str(to), self._port))
                        request = self._node.on_greeting(token, await _read(stream, GREETING.size))
                        await loop.sock_sendall(stream, LENGTH.pack(len(request)) + request)
                        length = await _read_length(stream)
                        if length > FRAME_BYTES_MAX:
                            raise ConnectionError(0, f"wanted at most {FRAME_BYTES_MAX} bytes, {length} are announced")
                        answer = await _read(stream, length)
            except WireError as error:
                self._node.on_no_answer(token, error.message, now_s=loop.time())
            except (OSError, TimeoutError, struct.error) as error:
                number = error.errno if isinstance(error, OSError) else None
                reason = os.strerror(number).lower() if number else said_by(error).lower() or "timed out"
                self._node.on_no_answer(token, reason, now_s=loop.time())
            else:
                self._node.on_answer(token, answer, to, now_s=loop.time())
        self._flush()

    def _accept(self) -> None:
        if self._listening and not self._accepting:
            self._accepting = True
            asyncio.get_running_loop().add_reader(self._control.listener, self._on_connection)

    def _on_connection(self) -> None:
        for _ in range(_ACCEPTED_PER_TURN_MAX):
            if self.guests.is_full:
                # The listener stays readable while callers wait: without this the loop would do nothing else.
                self._accepting = False
                asyncio.get_running_loop().remove_reader(self._control.listener)
                return
            try:
                stream, (host, _) = self._control.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor left, or the caller is gone: the next one may fare better
                self._on_refusal(said_by(error, path=False))
                return
            guest = self.guests.enter(IPv4Address(host))
            if guest is None:
                self._node.counters.rejected["too many"] += 1
                stream.close()
                continue
            stream.setblocking(False)
            self._spawn(self._serve(stream, guest))

    async def _serve(self, stream: socket.socket, guest: Guest) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                challenge = os.urandom(CHALLENGE_BYTES)
                stream.send(self._node.greeting(challenge))
                request = await self._read_request(stream, guest)
                if request is None or hung_up(stream):
                    return  # it waited too long: the work would be for nothing, when there is most of it
                answer = self._node.on_request(request, challenge, guest.address, now_s=loop.time())
                if self._flush() and answer is not None:
                    await loop.sock_sendall(stream, LENGTH.pack(len(answer)) + answer)
        except TimeoutError:
            self._node.counters.rejected["too slow"] += 1
        except OSError as error:
            self._log.debug("exchange broken off", extra={"peer": str(guest.address), "reason": said_by(error)})
        finally:
            stream.close()
            guest.leaves()
            self._accept()

    async def _read_request(self, stream: socket.socket, guest: Guest) -> bytes | None:
        """What a caller asks; None when it announces more than it may send.

        Raises:
            OSError: It hung up.
        """
        length = await _read_length(stream)
        if length > FRAME_BYTES_MAX:
            self._node.counters.rejected["too large"] += 1
            return None
        if not guest.announces(length):
            self._node.counters.rejected["too many"] += 1
            return None
        if length <= _UNPROVED_BYTES_MAX:
            return await _read(stream, length)
        head = await _read(stream, HEADER.size)
        if head[TAG_OFFSET : TAG_OFFSET + TAG_BYTES] != self._node.tag:
            self._node.counters.rejected["other password"] += 1
            return None
        return head + await _read(stream, length - len(head))

    def _on_refusal(self, reason: str) -> None:
        """What can go on for long is logged now and then."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = now_s
            self._log.warning("connection refused", extra={"reason": reason})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("exchange failed, this is a bug", exc_info=error)


def _stream() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


async def _read_length(stream: socket.socket) -> int:
    """How many bytes follow, as the other side says."""
    (length,) = LENGTH.unpack(await _read(stream, LENGTH.size))
    return int(length)


async def _read(stream: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < count:
        piece = await loop.sock_recv(stream, min(count - len(data), 65536))
        if not piece:
            raise ConnectionError(0, "it hung up")
        data += piece
    return bytes(data)
