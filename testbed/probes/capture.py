"""Collect frames on interfaces of a lab while something runs: `with capture([Tap(space, "eth0")]) as session: ...`.

Uses packet sockets, not tcpdump: no process to wait for, no output to parse, and the kernel tells of each frame when it
passed, in which direction, how long it really was, and how many it had to drop. Frames are kept, not judged here: that
is `testbed.probes.wire`.

Memory is bounded. When `frames_max` or `bytes_max` is reached, later frames are counted, not kept: `lost` tells. A
proof that something did *not* pass is worth nothing without `lost == 0`.
"""

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plugin.core.errors import CheckError, MissingError, said_by
from plugin.core.packet.frame import dissect
from plugin.core.packet.packet import Packet
from testbed.machine import interrupts
from testbed.machine.space import Space, packet_socket

# A whole frame of a 1500-byte underlay fits; of a jumbo frame the headers, a ping's marker and the length are kept.
_SNAP_BYTES: Final = 2048
_FRAMES_MAX: Final = 20_000
_BYTES_MAX: Final = 64 << 20
_RECEIVE_BUFFER_BYTES: Final = 8 << 20

# One turn of reading takes at most this many frames of one socket: a flooded interface cannot starve the others.
_TURN_FRAMES: Final = 4096

# linux/if_packet.h and asm-generic/socket.h; the socket module does not name them.
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_OTHERHOST: Final = 3
_PACKET_OUTGOING: Final = 4
# The variant with 64-bit seconds on every architecture (Linux 5.1); its value is also the type of the control message.
_SO_TIMESTAMPNS_NEW: Final = 64
_TIMESPEC: Final = struct.Struct("=qq")
_STATISTICS: Final = struct.Struct("=II")


class CaptureError(CheckError):
    """A capture cannot begin, or its file cannot be written."""


class Direction(StrEnum):
    """Which way a frame passed an interface, as its owner sees it."""

    OUT = "out"
    IN = "in"
    OVERHEARD = "overheard"
    """It came in but is addressed to another MAC: a switch flooded it. The owner's IP layer never sees it."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Where to listen.

    Attributes:
        space: Who owns the interface.
        ifname: The interface, as it is called in there.
        name: How frames of this tap are labelled; default: the space's name.
    """

    space: Space
    ifname: str = "eth0"
    name: str = ""

    @property
    def label(self) -> str:
        """What `CapturedFrame.tap` will be."""
        return self.name or self.space.name


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One frame as it passed an interface.

    Attributes:
        tap: The tap's label: for an uplink, the node's name.
        ifname: The interface.
        time_ns: When, by the kernel's clock, nanoseconds since 1970.
        direction: Which way.
        wire_bytes: Its length, without the Ethernet checksum. A frame that the kernel has not cut into MTU-sized ones
            yet (TSO) counts as one long frame: that is how it passes a veth.
        data: Its first bytes, at most the capture's `snap_bytes`.
        packet: Those bytes taken apart.
    """

    tap: str
    ifname: str
    time_ns: int
    direction: Direction
    wire_bytes: int
    data: bytes
    packet: Packet

    @property
    def time_s(self) -> float:
        """When, in seconds since 1970."""
        return self.time_ns / 1e9

    @property
    def place(self) -> str:
        """Where and which way, for people: `node1 eth0 out`."""
        return f"{self.tap} {self.ifname} {self.direction}"


@contextmanager
def capture(
    taps: Sequence[Tap],
    *,
    snap_bytes: int = _SNAP_BYTES,
    frames_max: int = _FRAMES_MAX,
    bytes_max: int = _BYTES_MAX,
) -> Iterator["Capture"]:
    """Listen on all taps from now to the end of the block. What has been collected stays readable afterwards.

    Listening has begun when the block is entered, and every frame that passed before its end is there: the kernel
    queues a frame to us before it delivers it, so a ping that has its answer has left all its traces. For stragglers (a
    copy that another CPU is still flooding) call `drain` before the block ends.

    Args:
        taps: Where to listen; each adds one socket.
        snap_bytes: How many bytes of each frame are kept.
        frames_max: How many frames are kept over all taps; later ones are counted in `lost`.
        bytes_max: How many bytes are kept over all taps; likewise.

    Raises:
        CaptureError: An interface does not exist.
        MissingError: Not root.
    """
    with ExitStack() as stack:
        listeners = [_Listener(tap, stack.enter_context(_open(tap))) for tap in taps]
        session = Capture(listeners, snap_bytes=snap_bytes, frames_max=frames_max, bytes_max=bytes_max)
        try:
            session.start()
            yield session
        finally:
            session.stop()


class Capture:
    """A running capture; made by `capture`, whose block it lives in."""

    def __init__(self, listeners: "Sequence[_Listener]", *, snap_bytes: int, frames_max: int, bytes_max: int) -> None:
        self._listeners = tuple(listeners)
        self._buffer = bytearray(snap_bytes)
        self._frames_max = frames_max
        self._bytes_max = bytes_max
        self._raw: list[_Raw] = []
        self._bytes = 0
        self._discarded = 0
        self._frames: tuple[CapturedFrame, ...] = ()
        self._stopped = False
        # Guards all of the above: the reader thread and the caller both read sockets.
        self._arrived = threading.Condition()
        self._wake_fd = -1
        self._reader = threading.Thread(target=self._read_until_stopped, name="capture", daemon=True)

    @property
    def taps(self) -> tuple[str, ...]:
        """The labels of all taps: what a judge may say was watched."""
        return tuple(listener.tap.label for listener in self._listeners)

    @property
    def lost(self) -> int:
        """How many frames were not kept because a buffer was full; an interface that was deleted counts as one."""
        with self._arrived:
            if not self._stopped:
                self._count_drops()
            return self._discarded + sum(listener.dropped + listener.gone for listener in self._listeners)

    @property
    def frames(self) -> tuple[CapturedFrame, ...]:
        """All frames so far, in the order of their time."""
        with self._arrived:
            if not self._stopped:
                self._sweep()
            if len(self._frames) != len(self._raw):
                done = list(self._frames)
                done += [raw.captured() for raw in self._raw[len(done) :]]
                # Kept in the order of arrival here, so that the next call takes apart only what is new.
                self._frames = tuple(done)
            return tuple(sorted(self._frames, key=lambda frame: frame.time_ns))

    @property
    def gone(self) -> tuple[Tap, ...]:
        """Where nothing more will be seen: the interface was deleted."""
        with self._arrived:
            if not self._stopped:
                self._count_drops()
            return tuple(listener.tap for listener in self._listeners if listener.gone)

    def take(self, *, within_s: float = 0.0) -> tuple[CapturedFrame, ...]:
        """The frames that came since this was called last, in the order of their time; they are kept no longer.

        So a capture may go on for ever. If there are none, wait for some for at most `within_s` seconds.
        """
        with self._arrived:
            if not self._stopped:
                self._sweep()
            if not self._raw and not self._stopped:
                self._arrived.wait(within_s)
            taken, self._raw, self._bytes, self._frames = self._raw, [], 0, ()
        return tuple(sorted((raw.captured() for raw in taken), key=lambda frame: frame.time_ns))

    def drain(self, *, quiet_s: float = 0.05, within_s: float = 1.0, marker: bytes = b"") -> bool:
        """Wait until no frame has come for `quiet_s` seconds, for at most `within_s`.

        Args:
            quiet_s: How long it must be quiet.
            within_s: When to give up.
            marker: Only frames with these bytes count as noise: agents talk all the time.

        Returns:
            Whether it became quiet.
        """
        deadline_s = time.monotonic() + within_s
        with self._arrived:
            self._sweep()
            quiet_since_s = time.monotonic()
            seen = len(self._raw)
            while True:
                now_s = time.monotonic()
                if now_s - quiet_since_s >= quiet_s:
                    return True
                if now_s >= deadline_s:
                    return False
                self._arrived.wait(min(quiet_since_s + quiet_s, deadline_s) - now_s)
                self._sweep()
                if any(marker in raw.data for raw in self._raw[seen:]):
                    quiet_since_s = time.monotonic()
                seen = len(self._raw)

    def start(self) -> None:
        """Begin reading. Called by `capture`."""
        with interrupts.postponed():
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
            self._reader.start()

    def stop(self) -> None:
        """Read what the kernel still holds, then end. Called by `capture`."""
        if self._wake_fd >= 0:  # else an interruption came before `start`
            os.eventfd_write(self._wake_fd, 1)
            self._reader.join()
            os.close(self._wake_fd)
        with self._arrived:
            self._sweep(turns=16)
            self._count_drops()
            self._stopped = True

    def _read_until_stopped(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_fd, selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener.socket, selectors.EVENT_READ)
            while self._wake_fd not in {key.fd for key, _ in selector.select()}:
                with self._arrived:
                    self._sweep()
                    self._arrived.notify_all()

    def _sweep(self, turns: int = 1) -> None:
        """Take what the sockets hold; the lock is held. More than one turn only to finish."""
        for _ in range(turns):
            if sum(self._sweep_one(listener) for listener in self._listeners) == 0:
                return

    def _sweep_one(self, listener: "_Listener") -> int:
        count = 0
        while count < _TURN_FRAMES:
            raw = listener.receive(self._buffer)
            if raw is None:
                break
            count += 1
            if len(self._raw) >= self._frames_max or self._bytes + len(raw.data) > self._bytes_max:
                self._discarded += 1
                continue
            self._raw.append(raw)
            self._bytes += len(raw.data)
        return count

    def _count_drops(self) -> None:
        for listener in self._listeners:
            listener.count_drops()


@dataclass(frozen=True, slots=True)
class _Raw:
    """A frame before it is taken apart: the reader must keep up with the kernel."""

    tap: Tap
    time_ns: int
    direction: Direction
    wire_bytes: int
    data: bytes

    def captured(self) -> CapturedFrame:
        return CapturedFrame(
            tap=self.tap.label,
            ifname=self.tap.ifname,
            time_ns=self.time_ns,
            direction=self.direction,
            wire_bytes=self.wire_bytes,
            data=self.data,
            packet=dissect(self.data, wire_bytes=self.wire_bytes),
        )


class _Listener:
    """One packet socket."""

    def __init__(self, tap: Tap, opened: socket.socket) -> None:
        self.tap = tap
        self.socket = opened
        self.dropped = 0
        self.gone = False
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS_NEW, 1)

    def receive(self, buffer: bytearray) -> _Raw | None:
        """The next frame, or None if there is none."""
        try:
            # recvmsg_into, not recvmsg: with MSG_TRUNC the kernel returns the frame's own length, and only this one
            # copes with a length beyond the buffer. It is the length on the wire that we want.
            size, control, _, address = self.socket.recvmsg_into([buffer], socket.CMSG_SPACE(16), socket.MSG_TRUNC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            # ENETDOWN, told once. Nothing passes while the interface is down; the kernel listens again when it is up.
            return None
        kind = address[2]
        direction = {_PACKET_OUTGOING: Direction.OUT, _PACKET_OTHERHOST: Direction.OVERHEARD}.get(kind, Direction.IN)
        return _Raw(self.tap, _time_ns(control), direction, size, bytes(buffer[:size]))

    def count_drops(self) -> None:
        """Add what the kernel dropped since the last call: reading the counter clears it."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        self.dropped += _STATISTICS.unpack(statistics)[1]
        # An interface that was deleted is lost to this socket, even if another of that name follows.
        self.gone = not self.socket.getsockname()[0]


def _time_ns(control: Iterable[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS_NEW:
            seconds, nanoseconds = _TIMESPEC.unpack(data[: _TIMESPEC.size])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()  # cannot happen once the option is set; a time nearby beats an exception in a reader


def _open(tap: Tap) -> socket.socket:
    try:
        return packet_socket(tap.space, tap.ifname, receive_buffer_bytes=_RECEIVE_BUFFER_BYTES)
    except PermissionError as error:
        raise MissingError(
            f"capturing on {tap.ifname} of {tap.label} needs root, found an ordinary user", hint="run it with sudo"
        ) from error
    except OSError as error:
        raise CaptureError(
            f"cannot capture on {tap.ifname} of {tap.label}: {said_by(error, path=False)}",
            hint=f"look at the interfaces there: weavelab exec {tap.label} -- ip link",
        ) from error
