"""The agent's API: HTTP/1.1 on a unix socket (everything) and on 127.0.0.1:6784 (reading only).

One table of handlers serves both. A descriptor may travel with a request on the unix socket (SCM_RIGHTS, unix(7)): that
is how a pod's namespace reaches the agent whatever mount namespace it is named in. HTTP itself is parsed by h11; every
answer closes its connection, since each caller asks one thing.
"""

import asyncio
import contextlib
import fcntl
import inspect
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import h11

from plugin.agent.streams import hung_up
from plugin.core.cni.types import BODY_BYTES_MAX
from plugin.core.errors import InputError, WeaveError, said_by

_PAUSE_S: Final = 0.2
"""How long nobody is accepted after the process has run out of descriptors."""

_READ_BYTES: Final = 65536
_DESCRIPTORS_MAX: Final = 1
_BACKLOG: Final = 256


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    `headers` have lower-case names. `descriptor` came with the request or is None; it is closed when the answer has
    been sent. `gone` tells whether the caller has hung up meanwhile.
    """

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    descriptor: int | None
    gone: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `content_type` is JSON unless said otherwise."""

    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener may cost the agent.

    Attributes:
        connections: Callers served at the same time; further ones wait in the kernel's queue.
        request_s: How long a caller may take for its request and to read the answer.
        body_bytes: The largest body; more is answered 413.
    """

    connections: int = 256
    request_s: float = 30.0
    body_bytes: int = BODY_BYTES_MAX


READ_ONLY: Final = Limits(connections=32, request_s=5.0, body_bytes=4096)
"""For the listener that everybody on the node reaches: it must never keep the CNI plugin from being answered."""


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]
Routes: TypeAlias = Mapping[tuple[str, str], Handler]


def json_response(value: object, status: int = 200) -> Response:
    """An answer in JSON, ending in a newline so that it reads well in a terminal."""
    return Response(status, json.dumps(value).encode() + b"\n")


class Server:
    """Listens on one socket.

    Args:
        listener: A bound, listening, non-blocking stream socket.
        routes: What is served: (method, path) to handler.
        log: Where events go.
        limits: What callers may cost.
    """

    def __init__(
        self, listener: socket.socket, routes: Routes, log: logging.Logger, *, limits: Limits | None = None
    ) -> None:
        self._listener = listener
        self._routes = routes
        self._log = log
        self._limits = limits or Limits()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def start(self) -> None:
        """Begin to accept; call it inside the running loop."""
        asyncio.get_running_loop().add_reader(self._listener, self._on_connection)

    async def stop(self) -> None:
        """Accept nothing more and wait for the answers under way, briefly."""
        self._stopped = True
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_connection(self) -> None:
        while len(self._tasks) < self._limits.connections:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor left, or the caller is gone: the next one may fare better
                self._log.warning("connection refused", extra={"reason": said_by(error)})
                self._pause()
                asyncio.get_running_loop().call_later(_PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._on_served)
        self._pause()

    def _on_served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._resume()

    def _pause(self) -> None:
        """The listener stays readable while callers wait: without this the loop would do nothing else."""
        asyncio.get_running_loop().remove_reader(self._listener)

    def _resume(self) -> None:
        if not self._stopped:
            self.start()

    async def _serve(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            async with asyncio.timeout(self._limits.request_s):
                response = await self._answer(connection, descriptors)
                await asyncio.get_running_loop().sock_sendall(connection, _encoded(response))
        except (OSError, TimeoutError) as error:
            self._log.debug("connection lost", extra={"reason": said_by(error)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()

    async def _answer(self, connection: socket.socket, descriptors: list[int]) -> Response:
        try:
            request = await _read_request(connection, descriptors, self._limits.body_bytes)
        except h11.RemoteProtocolError as error:
            return json_response({"error": f"bad HTTP request: {error}"}, error.error_status_hint)
        handler = self._routes.get((request.method, request.path))
        if handler is None:
            known = sorted({path for _, path in self._routes})
            return json_response({"error": f"nothing at {request.method} {request.path}", "known": known}, 404)
        try:
            answer = handler(request)
            return await answer if inspect.isawaitable(answer) else answer
        except WeaveError as error:
            code = 400 if error.exit_code == InputError.exit_code else 500
            return json_response({"error": error.message, "hint": error.hint, "exit_code": error.exit_code}, code)
        except Exception:  # noqa: BLE001 - one bad request must not take the agent down; the log has it whole
            self._log.exception("request failed", extra={"path": request.path})
            return json_response({"error": "internal error, see the agent's log"}, 500)


async def _read_request(connection: socket.socket, descriptors: list[int], body_bytes_max: int) -> Request:
    parser = h11.Connection(h11.SERVER)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            parser.receive_data(await _receive(connection, descriptors))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > body_bytes_max:
                raise h11.RemoteProtocolError(f"a body has at most {body_bytes_max} bytes", 413)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            path = head.target.decode("ascii", "replace").partition("?")[0]
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            descriptor = descriptors[0] if descriptors else None
            method = head.method.decode("latin-1")
            return Request(method, path, bytes(body), headers, descriptor, lambda: hung_up(connection))
        else:
            raise h11.RemoteProtocolError("the connection ended before the request did")


async def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    """The next bytes, and any descriptor that came with them; asyncio has no call for that."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            if connection.family != socket.AF_UNIX:
                return connection.recv(_READ_BYTES)
            data, received, _, _ = socket.recv_fds(connection, _READ_BYTES, _DESCRIPTORS_MAX)
        except BlockingIOError:
            readable = loop.create_future()
            loop.add_reader(connection, _set, readable)
            try:
                await readable
            finally:
                loop.remove_reader(connection)
            continue
        for descriptor in received:
            os.set_inheritable(descriptor, False)
            descriptors.append(descriptor)
        return data


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _encoded(response: Response) -> bytes:
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\nContent-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + response.body


def unix_listener(path: Path) -> socket.socket:
    """A listener that only root can reach; the file of a dead agent is replaced, that of a living one is not.

    Raises:
        InputError: Another agent answers there, or the directory cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two agents that start at the same moment must not replace each other's file.
        with _held(path.parent):
            if not _answers(path):
                path.unlink(missing_ok=True)
                listener.bind(str(path))
                path.chmod(0o600)
                listener.listen(_BACKLOG)
                return listener
    except OSError as error:
        listener.close()
        raise InputError(f"the API socket {path} cannot be made: {said_by(error, path=False)}") from error
    listener.close()
    raise InputError(f"another agent answers at {path}", hint="stop it first; one node has one agent")


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove_socket(path: Path) -> None:
    """Remove the socket's file at the end, unless a successor has made its own by then."""
    if not _answers(path):
        path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def tcp_listener(address: str) -> socket.socket:
    """A listener at `address:port`.

    Raises:
        InputError: The address has another form or is taken.
    """
    host, _, port = address.rpartition(":")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(_BACKLOG)
    except (OSError, ValueError, OverflowError) as error:  # OverflowError: a port outside 0 to 65535
        listener.close()
        raise InputError(
            f"the API address {address} cannot be used: {said_by(error)}", hint="is another agent running on this node?"
        ) from error
    return listener
