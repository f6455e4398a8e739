"""The headers we read, as values: where each lies in the frame, what it says, its fields for a viewer. No parsing here.

`plugin.core.packet.frame` makes these from bytes. Every layer knows where it begins (`offset`, counted from the first
byte of the whole frame, inner layers too), how many captured bytes are its own (`header_bytes`), and its `fields`,
whose bytes a viewer can mark. MAC addresses are lower-case text, IP addresses are `ipaddress` values.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final

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

ETHERTYPE_NAMES: Final = {
    ETHERTYPE_IPV4: "IPv4",
    ETHERTYPE_ARP: "ARP",
    ETHERTYPE_VLAN: "802.1Q",
    ETHERTYPE_QINQ: "802.1ad",
    ETHERTYPE_IPV6: "IPv6",
}
PROTOCOL_NAMES: Final = {
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


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a header, so that a viewer can show it and mark its bytes.

    Attributes:
        name: As the RFC calls it, in lower case.
        offset: First byte, counted from the start of the whole frame.
        width: Number of bytes that hold it.
        value: Raw value: a number, or the text of an address or of bytes in hexadecimal.
        text: For people.
        mask: Which bits of those bytes are the field's; 0 means all.
    """

    name: str
    offset: int
    width: int
    value: int | str
    text: str
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """What all layers have: the place of their bytes in the frame, a name, a summary and fields.

    Attributes:
        offset: First byte, counted from the start of the whole frame.
        header_bytes: Its own captured bytes, without what it carries.
    """

    name: ClassVar[str] = "layer"

    offset: int
    header_bytes: int

    @property
    def order(self) -> tuple[int, int]:
        """Sorts layers as they lie in the frame; one of no bytes (a header that is absent) before what follows it."""
        return self.offset, self.header_bytes

    @property
    def summary(self) -> str:
        """One line that says what this layer says."""
        return self.name

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        return ()


@dataclass(frozen=True, slots=True)
class Ethernet(Layer):
    """Ethernet II, or 802.3 where `ethertype` is below 0x600 and then a length. MACs are lower-case text."""

    name: ClassVar[str] = "Ethernet"

    destination: str
    source: str
    ethertype: int

    @property
    def summary(self) -> str:
        """Who to whom, and what is inside."""
        return f"{self.source} > {self.destination}, {ethertype_text(self.ethertype)}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        return (
            Field("destination", at, 6, self.destination, self.destination),
            Field("source", at + 6, 6, self.source, self.source),
            Field(
                "ethertype",
                at + 12,
                2,
                self.ethertype,
                _numbered(ethertype_text(self.ethertype), f"0x{self.ethertype:04x}"),
            ),
        )


@dataclass(frozen=True, slots=True)
class Vlan(Layer):
    """An 802.1Q tag: the four bytes after the EtherType that announced it."""

    name: ClassVar[str] = "802.1Q"

    priority: int
    drop_eligible: bool
    vlan_id: int
    ethertype: int

    @property
    def summary(self) -> str:
        """The VLAN."""
        return f"VLAN {self.vlan_id}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        return (
            Field("priority", at, 2, self.priority, str(self.priority), mask=0xE000),
            Field("drop eligible", at, 2, int(self.drop_eligible), _yes(self.drop_eligible), mask=0x1000),
            Field("vlan id", at, 2, self.vlan_id, str(self.vlan_id), mask=0x0FFF),
            Field(
                "ethertype",
                at + 2,
                2,
                self.ethertype,
                _numbered(ethertype_text(self.ethertype), f"0x{self.ethertype:04x}"),
            ),
        )


@dataclass(frozen=True, slots=True)
class Arp(Layer):
    """ARP for IPv4 over Ethernet (RFC 826). Other kinds are shown as Payload."""

    name: ClassVar[str] = "ARP"

    operation: int
    sender_mac: str
    sender_address: IPv4Address
    target_mac: str
    target_address: IPv4Address

    @property
    def summary(self) -> str:
        """The question or the answer, as tcpdump words it."""
        if self.operation == 1:
            return f"ARP who has {self.target_address} tell {self.sender_address}"
        if self.operation == 2:
            return f"ARP {self.sender_address} is at {self.sender_mac}"
        return f"ARP operation {self.operation}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        sender, target = str(self.sender_address), str(self.target_address)
        return (
            Field("hardware type", at, 2, 1, "Ethernet"),
            Field("protocol type", at + 2, 2, ETHERTYPE_IPV4, "IPv4"),
            Field("hardware length", at + 4, 1, 6, "6 bytes"),
            Field("protocol length", at + 5, 1, 4, "4 bytes"),
            Field(
                "operation",
                at + 6,
                2,
                self.operation,
                _numbered(ARP_NAMES.get(self.operation, ""), str(self.operation)),
            ),
            Field("sender mac", at + 8, 6, self.sender_mac, self.sender_mac),
            Field("sender address", at + 14, 4, sender, sender),
            Field("target mac", at + 18, 6, self.target_mac, self.target_mac),
            Field("target address", at + 24, 4, target, target),
        )


@dataclass(frozen=True, slots=True)
class IPv4(Layer):
    """IPv4 (RFC 791). `fragment_offset` is in bytes; `options` are the raw bytes after the first 20."""

    name: ClassVar[str] = "IPv4"

    dscp: int
    ecn: int
    total_length: int
    identification: int
    dont_fragment: bool
    more_fragments: bool
    fragment_offset: int
    ttl: int
    protocol: int
    checksum: int
    source: IPv4Address
    destination: IPv4Address
    options: bytes
    reserved_flag: bool = False

    @property
    def is_fragment(self) -> bool:
        """Whether this is a part of a larger packet."""
        return self.more_fragments or self.fragment_offset > 0

    @property
    def summary(self) -> str:
        """Who to whom."""
        text = f"{self.source} > {self.destination}"
        return f"{text} (fragment at byte {self.fragment_offset})" if self.is_fragment else text

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        flags = self.reserved_flag << 2 | self.dont_fragment << 1 | self.more_fragments
        words = [w for w, on in (("don't fragment", self.dont_fragment), ("more fragments", self.more_fragments)) if on]
        source, destination = str(self.source), str(self.destination)
        base = (
            Field("version", at, 1, 4, "4", mask=0xF0),
            Field("header length", at, 1, self.header_bytes // 4, some(self.header_bytes, "byte"), mask=0x0F),
            Field("dscp", at + 1, 1, self.dscp, str(self.dscp), mask=0xFC),
            Field("ecn", at + 1, 1, self.ecn, str(self.ecn), mask=0x03),
            Field("total length", at + 2, 2, self.total_length, some(self.total_length, "byte")),
            Field("identification", at + 4, 2, self.identification, f"0x{self.identification:04x}"),
            Field("flags", at + 6, 2, flags, ", ".join(words) or "none", mask=0xE000),
            Field("fragment offset", at + 6, 2, self.fragment_offset // 8, f"byte {self.fragment_offset}", mask=0x1FFF),
            Field("time to live", at + 8, 1, self.ttl, some(self.ttl, "hop")),
            Field("protocol", at + 9, 1, self.protocol, _numbered(protocol_text(self.protocol), str(self.protocol))),
            Field("header checksum", at + 10, 2, self.checksum, f"0x{self.checksum:04x}"),
            Field("source", at + 12, 4, source, source),
            Field("destination", at + 16, 4, destination, destination),
        )
        if not self.options:
            return base
        return (
            *base,
            Field("options", at + 20, len(self.options), self.options.hex(), some(len(self.options), "byte")),
        )


@dataclass(frozen=True, slots=True)
class IPv6(Layer):
    """The fixed IPv6 header (RFC 8200)."""

    name: ClassVar[str] = "IPv6"

    traffic_class: int
    flow_label: int
    payload_length: int
    next_header: int
    hop_limit: int
    source: IPv6Address
    destination: IPv6Address

    @property
    def summary(self) -> str:
        """Who to whom."""
        return f"{self.source} > {self.destination}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        source, destination = str(self.source), str(self.destination)
        return (
            Field("version", at, 4, 6, "6", mask=0xF0000000),
            Field("traffic class", at, 4, self.traffic_class, str(self.traffic_class), mask=0x0FF00000),
            Field("flow label", at, 4, self.flow_label, f"0x{self.flow_label:05x}", mask=0x000FFFFF),
            Field("payload length", at + 4, 2, self.payload_length, some(self.payload_length, "byte")),
            Field(
                "next header",
                at + 6,
                1,
                self.next_header,
                _numbered(protocol_text(self.next_header), str(self.next_header)),
            ),
            Field("hop limit", at + 7, 1, self.hop_limit, some(self.hop_limit, "hop")),
            Field("source", at + 8, 16, source, source),
            Field("destination", at + 24, 16, destination, destination),
        )


@dataclass(frozen=True, slots=True)
class IPv6Extension(Layer):
    """A hop-by-hop, routing, destination or fragment header: skipped over, not interpreted."""

    name: ClassVar[str] = "IPv6 ext"

    kind: int
    next_header: int

    @property
    def summary(self) -> str:
        """Which extension."""
        return protocol_text(self.kind)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        return (
            Field(
                "next header",
                self.offset,
                1,
                self.next_header,
                _numbered(protocol_text(self.next_header), str(self.next_header)),
            ),
        )


@dataclass(frozen=True, slots=True)
class Icmp(Layer):
    """ICMP (RFC 792) or ICMPv6 (RFC 4443), eight bytes. `identifier` and `sequence` are None unless it is an echo."""

    name: ClassVar[str] = "ICMP"

    version: int
    type: int
    code: int
    checksum: int
    rest: int
    identifier: int | None
    sequence: int | None

    @property
    def is_request(self) -> bool:
        """Whether it is an echo request (of its own IP version)."""
        return self.type == (ECHO_REQUEST if self.version == 4 else ECHO_REQUEST_V6)

    @property
    def is_reply(self) -> bool:
        """Whether it is an echo reply (of its own IP version)."""
        return self.type == (ECHO_REPLY if self.version == 4 else ECHO_REPLY_V6)

    @property
    def kind(self) -> str:
        """The message in words."""
        return (ICMP_NAMES if self.version == 4 else ICMPV6_NAMES).get(self.type, f"type {self.type}")

    @property
    def summary(self) -> str:
        """The message, and which one of several echoes."""
        text = f"{'ICMP' if self.version == 4 else 'ICMPv6'} {self.kind}"
        return text if self.sequence is None else f"{text}, id {self.identifier}, seq {self.sequence}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        head = (
            Field("type", at, 1, self.type, _numbered(self.kind, str(self.type))),
            Field("code", at + 1, 1, self.code, str(self.code)),
            Field("checksum", at + 2, 2, self.checksum, f"0x{self.checksum:04x}"),
        )
        if self.identifier is None or self.sequence is None:
            return (*head, Field("rest of header", at + 4, 4, self.rest, f"0x{self.rest:08x}"))
        return (
            *head,
            Field("identifier", at + 4, 2, self.identifier, str(self.identifier)),
            Field("sequence", at + 6, 2, self.sequence, str(self.sequence)),
        )


@dataclass(frozen=True, slots=True)
class Udp(Layer):
    """UDP (RFC 768). `length` counts the header's own eight bytes; a checksum of 0 means that none was computed."""

    name: ClassVar[str] = "UDP"

    source_port: int
    destination_port: int
    length: int
    checksum: int

    @property
    def summary(self) -> str:
        """The ports."""
        return f"UDP {self.source_port} > {self.destination_port}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        return (
            Field("source port", at, 2, self.source_port, str(self.source_port)),
            Field("destination port", at + 2, 2, self.destination_port, str(self.destination_port)),
            Field("length", at + 4, 2, self.length, some(self.length, "byte")),
            Field("checksum", at + 6, 2, self.checksum, f"0x{self.checksum:04x}" if self.checksum else "none"),
        )


@dataclass(frozen=True, slots=True)
class Tcp(Layer):
    """TCP (RFC 9293). `flags` has FIN in bit 0; `options` are the raw bytes after the first 20."""

    name: ClassVar[str] = "TCP"

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    checksum: int
    urgent: int
    options: bytes
    reserved: int = 0

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags that are set, for example ("SYN", "ACK")."""
        return tuple(name for bit, name in enumerate(TCP_FLAGS) if self.flags >> bit & 1)

    @property
    def summary(self) -> str:
        """The ports and flags."""
        return f"TCP {self.source_port} > {self.destination_port} [{' '.join(self.flag_names) or 'no flags'}]"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        base = (
            Field("source port", at, 2, self.source_port, str(self.source_port)),
            Field("destination port", at + 2, 2, self.destination_port, str(self.destination_port)),
            Field("sequence", at + 4, 4, self.sequence, str(self.sequence)),
            Field("acknowledgement", at + 8, 4, self.acknowledgement, str(self.acknowledgement)),
            Field("header length", at + 12, 2, self.header_bytes // 4, some(self.header_bytes, "byte"), mask=0xF000),
            Field("reserved", at + 12, 2, self.reserved, str(self.reserved), mask=0x0E00),
            Field("flags", at + 12, 2, self.flags, ", ".join(self.flag_names) or "none", mask=0x01FF),
            Field("window", at + 14, 2, self.window, str(self.window)),
            Field("checksum", at + 16, 2, self.checksum, f"0x{self.checksum:04x}"),
            Field("urgent pointer", at + 18, 2, self.urgent, str(self.urgent)),
        )
        if not self.options:
            return base
        return (
            *base,
            Field("options", at + 20, len(self.options), self.options.hex(), some(len(self.options), "byte")),
        )


@dataclass(frozen=True, slots=True)
class Vxlan(Layer):
    """VXLAN (RFC 7348 section 5), the I flag checked. What it carries is the packet's `inner`."""

    name: ClassVar[str] = "VXLAN"

    flags: int
    reserved: int
    vni: int
    reserved_last: int

    @property
    def summary(self) -> str:
        """The network identifier."""
        return f"VXLAN VNI {self.vni}"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The header's fields in order of their offsets."""
        at = self.offset
        return (
            Field("flags", at, 1, self.flags, f"0x{self.flags:02x} (I: the VNI is valid)"),
            Field("reserved", at + 1, 3, self.reserved, str(self.reserved)),
            Field("vni", at + 4, 3, self.vni, str(self.vni)),
            Field("reserved", at + 7, 1, self.reserved_last, str(self.reserved_last)),
        )


@dataclass(frozen=True, slots=True)
class Payload(Layer):
    """Bytes that no header of ours explains: an application's data, or a protocol that we do not read.

    `header_bytes` is what was captured of it, `wire_bytes` what was sent.
    """

    name: ClassVar[str] = "payload"

    wire_bytes: int

    @property
    def summary(self) -> str:
        """Its size."""
        kept = "" if self.header_bytes == self.wire_bytes else f", {self.header_bytes} of them here"
        return f"{some(self.wire_bytes, 'byte')} of data{kept}"


@dataclass(frozen=True, slots=True)
class Trailer(Layer):
    """Bytes behind the end that the headers state: Ethernet padding to 60 bytes, usually."""

    name: ClassVar[str] = "trailer"

    @property
    def summary(self) -> str:
        """Its size."""
        return f"{some(self.header_bytes, 'byte')} of padding"


@dataclass(frozen=True, slots=True)
class Malformed(Layer):
    """Where the frame contradicts itself. Covers what is left of the part concerned."""

    name: ClassVar[str] = "malformed"

    protocol: str
    reason: str

    @property
    def summary(self) -> str:
        """What is wrong."""
        return f"malformed {self.protocol}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Cut(Layer):
    """A header that exists but is not here: the capture kept less, or it is in another IP fragment."""

    name: ClassVar[str] = "cut"

    protocol: str
    reason: str

    @property
    def summary(self) -> str:
        """What is missing."""
        return f"{self.protocol} not here: {self.reason}"


# ----------------------------------------------------------------------------------------------------------------- text


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
    return ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}")


def protocol_text(protocol: int) -> str:
    """`UDP`, or `protocol 99`."""
    return PROTOCOL_NAMES.get(protocol, f"protocol {protocol}")


def some(number: int, unit: str) -> str:
    """`1 byte`, `2 bytes`."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _numbered(name: str, number: str) -> str:
    """`IPv4 (0x0800)`: the name to understand, the number to find in the bytes; never the number twice."""
    if not name:
        return number
    return name if number in name else f"{name} ({number})"


def _yes(value: bool) -> str:  # noqa: FBT001 (a word for a flag)
    return "yes" if value else "no"
