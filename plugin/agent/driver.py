"""The event loop round plugin.core.node: the only file that knows both sockets and decisions.

Datagrams and time go in; effects come out and are carried out at once: sends on UDP 6783, forwarding entries in the
kernel, log lines. Endpoint changes of one turn of the loop are written together.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import InputError
from plugin.core.node import EndpointsChanged, Node, PeerChanged, Send

_RECEIVE_BUFFER_BYTES: Final = 1 << 20
_DATAGRAMS_PER_TURN_MAX: Final = 256
"""A flood of datagrams must not keep the API from answering: the loop gets a turn after this many."""


def bind_control(address: IPv4Address, port: int) -> socket.socket:
    """The socket of the control protocol, on the node address only.

    Raises:
        InputError: The port is taken or the address is not on this node.
    """
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        control.bind((str(address), port))
    except OSError as error:
        control.close()
        raise InputError(
            f"UDP port {port} on {address} cannot be used: {error.strerror}",
            hint="is another agent running on this node?  ss -lunp",
        ) from error
    return control


class Driver:
    """Feeds the node and carries out its effects.

    Args:
        node: The decisions.
        control: From `bind_control`; all nodes use the same port. It is closed by `stop`.
        sync_forwarding: Called when forwarding has to be brought in line with the node's view.
        log: Where events go.
    """

    def __init__(
        self, *, node: Node, control: socket.socket, sync_forwarding: Callable[[], None], log: logging.Logger
    ) -> None:
        self._node = node
        self._socket = control
        self._port = int(control.getsockname()[1])
        self._sync_forwarding = sync_forwarding
        self._log = log
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen and greet; call it inside the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._on_readable)
        self._on_timer()

    def stop(self) -> None:
        """Fall silent. Forwarding entries stay: pods keep talking while no agent runs."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def flush(self) -> None:
        """Carry out what the node wants done; call it after every `attach` and `detach`."""
        sync = False
        for effect in self._node.effects():
            match effect:
                case Send(to, data):
                    self._send(to, data)
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
                case EndpointsChanged():
                    sync = True
        if sync:
            try:
                self._sync_forwarding()
            except OSError as error:  # the next change, or the next start, writes everything again
                self._log.error("forwarding not written", extra={"reason": str(error)})

    def _on_readable(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for _ in range(_DATAGRAMS_PER_TURN_MAX):
            try:
                data, (host, port) = self._socket.recvfrom(2048)
            except BlockingIOError:
                break
            except OSError as error:  # an ICMP error of an earlier send, reported here by Linux
                self._log.debug("receive failed", extra={"reason": error.strerror})
                continue
            if port == self._port:
                self._node.on_datagram(data, IPv4Address(host), now_s=now_s)
        self.flush()

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._node.on_timer(now_s=loop.time())
        self.flush()
        self._timer = loop.call_at(self._node.next_timer_s(), self._on_timer)

    def _send(self, to: IPv4Address, data: bytes) -> None:
        try:
            self._socket.sendto(data, (str(to), self._port))
        except OSError as error:
            # No route, a full buffer, an unreachable peer: the next greeting repairs what this one lost.
            self._log.debug("send failed", extra={"peer": str(to), "reason": error.strerror})
