"""What IP carries, as values: ICMP, UDP, TCP, and VXLAN, which UDP carries. See layers.py."""

from dataclasses import dataclass
from typing import ClassVar

from plugin.core.packet.layers import Field, Layer
from plugin.core.packet.names import (
    ECHO_REPLY,
    ECHO_REPLY_V6,
    ECHO_REQUEST,
    ECHO_REQUEST_V6,
    ICMP_NAMES,
    ICMPV6_NAMES,
    TCP_FLAGS,
    numbered,
    some,
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
            Field("type", at, 1, self.type, numbered(self.kind, str(self.type))),
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
