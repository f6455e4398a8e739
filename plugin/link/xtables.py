"""The rules of legacy iptables, as a check sum: it tells nobody of a change, and its programs take milliseconds.

Numbers and structures come from include/uapi/linux/netfilter_ipv4/ip_tables.h. Python's `getsockopt` cannot pass what
this one asks for, hence ctypes.
"""

import ctypes
import hashlib
import os
import socket
import struct
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO: Final = struct.Struct("32sI5I5III")  # struct ipt_getinfo
_ENTRIES_HEADER: Final = struct.Struct("32sI4x")  # struct ipt_get_entries, up to its entries
_NEXT_OFFSET: Final = 90  # within struct ipt_entry
_COUNTERS: Final = slice(96, 112)
_TABLE: Final = b"filter"
_TABLES: Final = "/proc/thread-self/net/ip_tables_names"


def has_legacy_filter() -> bool:
    """Whether somebody has used the table `filter` of legacy iptables in the calling thread's namespace.

    To ask iptables itself would make the table.
    """
    try:
        file = os.open(_TABLES, os.O_RDONLY | os.O_CLOEXEC)  # twice a second: pathlib would cost more than the kernel
    except OSError:
        return False  # the kernel has no legacy iptables
    try:
        return _TABLE in os.read(file, 4096).split()
    finally:
        os.close(file)


def legacy_digest() -> bytes:
    """Another value when the rules of that table are others; what they have counted is no part of it.

    Empty when there is no such table, or the kernel does not tell.
    """
    if not has_legacy_filter():
        return b""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as asking:
            info = _asked(asking, _GET_INFO, bytearray(_INFO.pack(_TABLE, *(0,) * 13)))
            size = _INFO.unpack(info)[-1]
            entries = _asked(asking, _GET_ENTRIES, bytearray(_ENTRIES_HEADER.pack(_TABLE, size) + bytes(size)))
    except OSError:
        return b""  # it was changed between the two questions: then it is asked again soon
    return hashlib.sha256(_without_counters(entries[_ENTRIES_HEADER.size :])).digest()


def _asked(asking: socket.socket, option: int, content: bytearray) -> bytearray:
    buffer = (ctypes.c_char * len(content)).from_buffer(content)
    length = ctypes.c_uint32(len(content))
    if _LIBC.getsockopt(asking.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return content


def _without_counters(entries: bytearray) -> bytes:
    offset = 0
    while offset + _COUNTERS.stop <= len(entries):
        entries[offset + _COUNTERS.start : offset + _COUNTERS.stop] = bytes(_COUNTERS.stop - _COUNTERS.start)
        step = struct.unpack_from("H", entries, offset + _NEXT_OFFSET)[0]
        if step == 0:
            break
        offset += step
    return bytes(entries)
