"""The internet checksum (RFC 1071), computed; plugin/core/packet/checksum.py judges those of captured packets."""

import struct


def internet_checksum(data: bytes, initial: int = 0) -> int:
    """The 16-bit ones' complement of the ones' complement sum. Over data that includes a right checksum it is 0.

    Args:
        data: An odd length is padded with a zero byte.
        initial: A sum to begin with, for example `pseudo_sum(...)`.
    """
    return ~_ones_sum(data, initial) & 0xFFFF


def _ones_sum(data: bytes, initial: int = 0) -> int:
    """The 16-bit ones' complement sum, not complemented."""
    if len(data) % 2:
        data += b"\0"
    total: int = initial + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """Sum of the pseudo-header that TCP, UDP and ICMPv6 checksums include (RFC 9293 3.1, RFC 8200 8.1).

    Args:
        source: Packed IP address, 4 or 16 bytes.
        destination: Packed IP address of the same version.
        protocol: IP protocol number.
        length: Bytes of the transport header and its data.
    """
    return _ones_sum(source + destination + struct.pack("!II", length, protocol))
