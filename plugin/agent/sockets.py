"""The sockets of the control protocol: one for exchanges, and two for datagrams, between which the kernel sorts.

Datagrams that begin with what only members can know (`Node.tag`) come to one socket, all others to another one with a
short queue. So a flood of anybody else fills that queue and nothing more: the kernel drops the rest before the agent is
woken, at the sender's expense. Where the kernel cannot sort, one socket takes everything.
"""

import ctypes
import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import InputError, said_by
from plugin.core.messages.wire import TAG_OFFSET
from plugin.link.holders import taken_by

_MEMBERS_BUFFER_BYTES: Final = 1 << 20
_STRANGERS_BUFFER_BYTES: Final = 1 << 16
_BACKLOG: Final = 256

# socket(7), include/uapi/asm-generic/socket.h and linux/filter.h; Python names none of these.
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_MEMINFO: Final = 55
_IP_FREEBIND: Final = 15
_MEMINFO: Final = struct.Struct("@9I")
_MEMINFO_DROPS: Final = 8
_LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_INSTRUCTION: Final = struct.Struct("@HBBI")
_STRANGERS, _MEMBERS = 0, 1
"""The sockets' places in the group: in the order in which they were bound. A datagram too short to have a tag ends the
program with 0 (Documentation/networking/filter.rst), so strangers are first."""


@dataclass(slots=True)
class Control:
    """The sockets, all on the node address and the same port.

    Attributes:
        members: Datagrams with the tag that was sorted by last; everything is sent from here.
        strangers: All other datagrams; None where `members` has to take them.
        listener: Exchanges.
    """

    members: socket.socket
    strangers: socket.socket | None
    listener: socket.socket
    _dropped: int = 0

    @property
    def address(self) -> tuple[str, int]:
        """The node address and the port."""
        host, port = self.members.getsockname()
        return str(host), int(port)

    def sort(self, tag: bytes) -> None:
        """From now on only datagrams with this tag are for members."""
        if self.strangers is None:
            return
        program = b"".join(
            _INSTRUCTION.pack(*instruction)
            for instruction in (
                (_LOAD_WORD, 0, 0, TAG_OFFSET),
                (_JUMP_IF_EQUAL, 0, 1, int.from_bytes(tag, "big")),
                (_RETURN, 0, 0, _MEMBERS),
                (_RETURN, 0, 0, _STRANGERS),
            )
        )
        code = ctypes.create_string_buffer(program)
        described = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(code))
        self.members.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, described)

    def newly_dropped(self) -> int:
        """How many datagrams of strangers the kernel has dropped since this was asked last."""
        if self.strangers is None:
            return 0
        told = self.strangers.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        drops = int(_MEMINFO.unpack(told)[_MEMINFO_DROPS])
        new, self._dropped = (drops - self._dropped) & 0xFFFFFFFF, drops
        return new

    def close(self) -> None:
        """Free the port; safe to repeat."""
        for one in (self.members, self.strangers, self.listener):
            if one is not None:
                one.close()


def bind_control(address: IPv4Address, port: int, *, free: bool = False) -> Control:
    """The sockets of the control protocol, UDP and TCP, on the node address only.

    Args:
        address: The node address.
        port: For all of them.
        free: The node need not have the address (yet): what is sent is refused until it has (ip(7), IP_FREEBIND).

    Raises:
        InputError: The port is taken or the address is not on this node.
    """
    first = _bound(socket.SOCK_DGRAM, address, port, free=free)
    try:
        listener = _bound(socket.SOCK_STREAM, address, port, free=free)
    except InputError:
        first.close()
        raise
    second = _beside(first, address, port, free=free)
    if second is None:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MEMBERS_BUFFER_BYTES)
        return Control(first, None, listener)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STRANGERS_BUFFER_BYTES)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MEMBERS_BUFFER_BYTES)
    control = Control(second, first, listener)
    try:
        control.sort(b"\0\0\0\0")  # nobody's, until the agent has a life
    except OSError:
        first.close()
        return Control(second, None, listener)
    return control


def _bound(kind: socket.SocketKind, address: IPv4Address, port: int, *, free: bool) -> socket.socket:
    word = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    made = _new(kind, free=free)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(address), port))
        if kind == socket.SOCK_STREAM:
            made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise InputError(
            f"{word} port {port} on {address} cannot be used: {said_by(error, path=False)}"
            + (taken_by(word.lower(), port) if error.errno == errno.EADDRINUSE else ""),
            hint="is another agent running on this node?  ss -lntup",
        ) from error
    return made


def _beside(first: socket.socket, address: IPv4Address, port: int, *, free: bool) -> socket.socket | None:
    """A second socket on the port of the first; None when the kernel has no such thing.

    The first one was bound without SO_REUSEPORT, and so was alone there: two agents never share a port by mistake.
    """
    second = _new(socket.SOCK_DGRAM, free=free)
    try:
        for one in (first, second):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        second.bind((str(address), port))
    except OSError:
        second.close()
        return None
    return second


def _new(kind: socket.SocketKind, *, free: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    if free:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    return made


def way_to(address: IPv4Address) -> IPv4Address | None:
    """By which address of its own this node reaches another one; None: no route leads there. Nothing is sent."""
    with _new(socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))  # any port: connecting a UDP socket only looks the route up
        except OSError:
            return None
        return IPv4Address(probe.getsockname()[0])
