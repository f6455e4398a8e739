"""Whole frames, sent out of an interface of the node (packet(7)): how a node speaks to its pods in another's name."""

import contextlib
import socket
from collections.abc import Iterable


class FrameSender:
    """A packet socket that hears nothing.

    Args:
        device: The interface. It is looked up for every frame, so it may go and come back.

    Raises:
        OSError: CAP_NET_RAW is missing.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)  # protocol 0: nothing is delivered to it

    def close(self) -> None:
        """Release the socket; twice is harmless."""
        self._socket.close()

    def send(self, frames: Iterable[bytes]) -> None:
        """Send them in order; what an interface that is down or gone does not take is lost, as on any Ethernet."""
        for frame in frames:
            ethertype = int.from_bytes(frame[12:14])
            with contextlib.suppress(OSError):
                self._socket.sendto(frame, (self._device, ethertype))
