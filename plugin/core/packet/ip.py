"""The headers of the network layer as values: IPv4, IPv6 and its extensions. See layers.py."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar

from plugin.core.packet.layers import Field, Layer
from plugin.core.packet.names import numbered, protocol_text, some


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
            Field("protocol", at + 9, 1, self.protocol, numbered(protocol_text(self.protocol), str(self.protocol))),
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
                numbered(protocol_text(self.next_header), str(self.next_header)),
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
                numbered(protocol_text(self.next_header), str(self.next_header)),
            ),
        )
