"""Files of captured frames that Wireshark and `tcpdump -r` open.

The format does not know interfaces and directions: write one file a tap to keep them apart. To have UDP 6784 read as
VXLAN: `tcpdump -T vxlan -r FILE`, or in Wireshark "Decode As".
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from plugin.core.errors import said_by
from testbed.probes.capture import CapturedFrame, CaptureError

# https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html: magic of the variant with nanoseconds, version 2.4,
# two unused fields, the largest frame, link type 1 (Ethernet).
_HEADER: Final = struct.pack("=IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
_FRAME: Final = struct.Struct("=IIII")
_MAGICS: Final = frozenset(
    magic.to_bytes(4, order) for magic in (0xA1B23C4D, 0xA1B2C3D4) for order in ("little", "big")
)


def write_pcap(path: Path, frames: Iterable[CapturedFrame]) -> int:
    """Write frames to a file, in the order of their time; gives their number.

    Raises:
        CaptureError: The file cannot be written.
    """
    ordered = sorted(frames, key=lambda frame: frame.time_ns)
    try:
        with path.open("wb") as file:
            begin_pcap(file)
            append_pcap(file, ordered)
    except OSError as error:
        raise CaptureError(
            f"cannot write {len(ordered)} frames to {path}: {said_by(error, path=False)}",
            hint="name a file in a folder that exists and has room",
        ) from error
    return len(ordered)


def begin_pcap(file: BinaryIO) -> None:
    """Write what such a file begins with.

    Raises:
        OSError: It cannot be written.
    """
    file.write(_HEADER)


def append_pcap(file: BinaryIO, frames: Iterable[CapturedFrame]) -> None:
    """Write frames behind those that are there.

    Raises:
        OSError: They cannot be written.
    """
    for frame in frames:
        seconds, nanoseconds = divmod(frame.time_ns, 1_000_000_000)
        file.write(_FRAME.pack(seconds, nanoseconds, len(frame.data), frame.wire_bytes))
        file.write(frame.data)


def is_pcap(path: Path) -> bool:
    """Whether the file is one of captured frames, whoever wrote it."""
    with path.open("rb") as file:
        return file.read(4) in _MAGICS
