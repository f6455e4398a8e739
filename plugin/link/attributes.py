"""Netlink attributes (length, type, value, padded to four bytes): how every family of netlink writes its fields.

Protocol: RFC 3549 section 2.2, netlink(7); include/uapi/linux/netlink.h, `struct nlattr`.
"""

import struct

from plugin.link import constants as c


def attr(kind: int, data: bytes) -> bytes:
    """One attribute."""
    length = 4 + len(data)
    return struct.pack("HH", length, kind) + data + b"\0" * (-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds others."""
    return attr(kind | c.NLA_NESTED, b"".join(attributes))


def u32(value: int) -> bytes:
    """A number in the byte order of this machine, as routing netlink has it."""
    return struct.pack("I", value)


def text(value: str) -> bytes:
    """A name, ending in NUL."""
    return value.encode() + b"\0"


def parse(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on by their types; of two of one type the last."""
    return dict(parse_list(data, offset))


def parse_list(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """The attributes from `offset` on, in order; a damaged rest is left out."""
    found = []
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("HH", data, offset)
        if length < 4:
            break
        found.append((kind & c.NLA_TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found
