"""The headers of the link layer as values: Ethernet, 802.1Q, ARP. See layers.py for what every layer can say."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar

from plugin.core.packet.layers import Field, Layer
from plugin.core.packet.names import ARP_NAMES, ETHERTYPE_IPV4, ethertype_text, numbered, yes_or_no


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
                numbered(ethertype_text(self.ethertype), f"0x{self.ethertype:04x}"),
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
            Field("drop eligible", at, 2, int(self.drop_eligible), yes_or_no(self.drop_eligible), mask=0x1000),
            Field("vlan id", at, 2, self.vlan_id, str(self.vlan_id), mask=0x0FFF),
            Field(
                "ethertype",
                at + 2,
                2,
                self.ethertype,
                numbered(ethertype_text(self.ethertype), f"0x{self.ethertype:04x}"),
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
                numbered(ARP_NAMES.get(self.operation, ""), str(self.operation)),
            ),
            Field("sender mac", at + 8, 6, self.sender_mac, self.sender_mac),
            Field("sender address", at + 14, 4, sender, sender),
            Field("target mac", at + 18, 6, self.target_mac, self.target_mac),
            Field("target address", at + 24, 4, target, target),
        )
