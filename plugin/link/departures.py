"""Hearing which links are gone, while the call that deletes them still waits inside the kernel.

Deleting a veth pair takes the kernel about a millisecond: then it is off its bridge, its name is free, no frame passes,
and everybody who listens is told (RTM_DELLINK, net/core/dev.c, unregister_netdevice_many_notify). The call goes on
waiting until nobody can hold a pointer to what was freed (rcu_barrier, some 15 ms more), which is of no interest to us.
"""

import contextlib
import ctypes
import socket
import struct
from typing import Final

from plugin.link import constants as c
from plugin.link.netlink import parse_link

_SO_ATTACH_FILTER: Final = 26
_RECEIVED_MAX: Final = 1024
"""Messages read in one turn: whoever makes links without end must not keep us busy for ever."""


class Departures:
    """A socket that hears of every link that goes, in the namespace in which it was made."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        _hear_only(self._socket, c.DELLINK)
        self._socket.bind((0, c.RTMGRP_LINK))

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the socket; twice is harmless."""
        self._socket.close()

    def receive(self) -> list[str]:
        """The names of the links that went since the last call.

        After a flood of them some may be missing (ENOBUFS): who waits for one must not rely on this alone.
        """
        names = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_RECEIVED_MAX):
                try:
                    data = self._socket.recv(1 << 16)
                except BlockingIOError:
                    raise
                except OSError:
                    continue  # ENOBUFS: told once, then it goes on
                # A port that leaves its bridge is announced likewise, with another family.
                if len(data) >= 32 and data[16] == socket.AF_UNSPEC:
                    names.append(parse_link(data[16:]).name)
        return names


def _hear_only(listener: socket.socket, kind: int) -> None:
    """Let the kernel drop all other messages: an ADD alone makes ten of them (socket(7), SO_ATTACH_FILTER)."""
    # The filter sees numbers in network order: load the type, skip one instruction unless it is ours, take it, drop it.
    program = (
        (0x28, 0, 0, 4),
        (0x15, 0, 1, socket.htons(kind)),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    fprog = struct.pack("HP", len(program), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
