"""Numbers of protocols and what people call them; MAC addresses as text."""

from typing import Final

from plugin.core.errors import InputError

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_VLAN: Final = 0x8100
ETHERTYPE_QINQ: Final = 0x88A8
ETHERTYPE_IPV6: Final = 0x86DD
ETHERTYPE_MIN: Final = 0x0600  # a smaller number is an 802.3 length (spanning tree frames have one)

PROTOCOL_ICMP: Final = 1
PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
PROTOCOL_ICMPV6: Final = 58

ECHO_REQUEST: Final = 8
ECHO_REPLY: Final = 0
ECHO_REQUEST_V6: Final = 128
ECHO_REPLY_V6: Final = 129

BROADCAST_MAC: Final = "ff:ff:ff:ff:ff:ff"

_ETHERTYPE_NAMES: Final = {
    ETHERTYPE_IPV4: "IPv4",
    ETHERTYPE_ARP: "ARP",
    ETHERTYPE_VLAN: "802.1Q",
    ETHERTYPE_QINQ: "802.1ad",
    ETHERTYPE_IPV6: "IPv6",
}
_PROTOCOL_NAMES: Final = {
    0: "hop-by-hop options",
    PROTOCOL_ICMP: "ICMP",
    2: "IGMP",
    4: "IPv4 in IP",
    PROTOCOL_TCP: "TCP",
    PROTOCOL_UDP: "UDP",
    43: "routing header",
    44: "fragment header",
    47: "GRE",
    50: "ESP",
    PROTOCOL_ICMPV6: "ICMPv6",
    59: "nothing",
    60: "destination options",
    132: "SCTP",
}
ICMP_NAMES: Final = {
    ECHO_REPLY: "echo reply",
    3: "destination unreachable",
    5: "redirect",
    ECHO_REQUEST: "echo request",
    11: "time exceeded",
    12: "parameter problem",
}
ICMPV6_NAMES: Final = {
    1: "destination unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    ECHO_REQUEST_V6: "echo request",
    ECHO_REPLY_V6: "echo reply",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    143: "multicast listener report",
}
ARP_NAMES: Final = {1: "request", 2: "reply"}
TCP_FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")


class FrameError(InputError):
    """A text is not the MAC address that was wanted."""


def mac_text(mac: bytes) -> str:
    """Six bytes as `0a:58:0a:20:00:01`."""
    assert len(mac) == 6
    return mac.hex(":")


def mac_bytes(text: str) -> bytes:
    """The six bytes of `0a:58:0a:20:00:01`; upper case and one-digit groups are fine.

    Raises:
        FrameError: It is no MAC address.
    """
    groups = text.strip().split(":")
    try:
        numbers = [int(group, 16) for group in groups if 1 <= len(group) <= 2 and group.isalnum()]
    except ValueError:
        numbers = []
    if len(groups) != 6 or len(numbers) != 6:
        raise FrameError(f"a MAC address like 0a:58:0a:20:00:01 is wanted, found {text!r}")
    return bytes(numbers)


def is_group_mac(text: str) -> bool:
    """Whether a MAC addresses many: broadcast or multicast (the lowest bit of the first byte)."""
    return bool(mac_bytes(text)[0] & 1)


def ethertype_text(ethertype: int) -> str:
    """`IPv4`, or the number in hexadecimal, or the 802.3 length."""
    if ethertype < ETHERTYPE_MIN:
        return f"802.3 length {ethertype}"
    return _ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}")


def protocol_text(protocol: int) -> str:
    """`UDP`, or `protocol 99`."""
    return _PROTOCOL_NAMES.get(protocol, f"protocol {protocol}")


def some(number: int, unit: str) -> str:
    """`1 byte`, `2 bytes`."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def numbered(name: str, number: str) -> str:
    """`IPv4 (0x0800)`: the name to understand, the number to find in the bytes; never the number twice."""
    if not name:
        return number
    return name if number in name else f"{name} ({number})"


def yes_or_no(value: bool) -> str:  # noqa: FBT001 (a word for a flag)
    """A word for a flag."""
    return "yes" if value else "no"
