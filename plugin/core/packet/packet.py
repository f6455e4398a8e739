"""A frame that was taken apart: its layers in order, and quick ways to those that are asked for. Decides nothing."""

from dataclasses import dataclass
from typing import Final, TypeVar

from plugin.core.packet.ethernet import Arp, Ethernet, Vlan
from plugin.core.packet.ip import IPv4, IPv6
from plugin.core.packet.layers import Cut, Layer, Malformed, Payload
from plugin.core.packet.transport import Icmp, Tcp, Udp, Vxlan

_L = TypeVar("_L", bound=Layer)


_TOLD: Final = (Arp, IPv4, IPv6, Icmp, Udp, Tcp, Vxlan, Malformed, Cut)


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame, or the frame inside a VXLAN frame.

    Attributes:
        data: The captured bytes of the whole outermost frame; every offset counts from its first byte.
        offset: Where this packet begins in `data` (0 unless it is an inner one).
        captured_bytes: How many bytes of it were captured.
        wire_bytes: How long it was on the wire (for an inner packet: as the outer UDP header says).
        layers: Its layers in order of their offsets, without those of `inner`.
        inner: The frame that a VXLAN layer carries.
    """

    data: bytes
    offset: int
    captured_bytes: int
    wire_bytes: int
    layers: "tuple[Layer, ...]"
    inner: "Packet | None"

    @property
    def all_layers(self) -> "tuple[Layer, ...]":
        """The layers of this packet and of the packets inside it, by offset: they tile the captured bytes."""
        if self.inner is None:
            return self.layers
        return tuple(sorted(self.layers + self.inner.all_layers, key=lambda layer: layer.order))

    @property
    def innermost(self) -> "Packet":
        """The packet that nobody carries further: what the pod sent. The packet itself if it is not a tunnel's."""
        return self if self.inner is None else self.inner.innermost

    @property
    def truncated(self) -> bool:
        """Whether the capture (or an IP fragment) holds less than was on the wire."""
        return self.captured_bytes < self.wire_bytes

    @property
    def ethernet(self) -> "Ethernet | None":
        """The Ethernet header; None only for a frame shorter than one."""
        return self.layer(Ethernet)

    @property
    def vlan(self) -> "Vlan | None":
        """The first 802.1Q tag, if there is one."""
        return self.layer(Vlan)

    @property
    def arp(self) -> "Arp | None":
        """The ARP message, if it is one."""
        return self.layer(Arp)

    @property
    def ipv4(self) -> "IPv4 | None":
        """The IPv4 header, if there is one."""
        return self.layer(IPv4)

    @property
    def ipv6(self) -> "IPv6 | None":
        """The IPv6 header, if there is one."""
        return self.layer(IPv6)

    @property
    def icmp(self) -> "Icmp | None":
        """The ICMP or ICMPv6 header, if there is one."""
        return self.layer(Icmp)

    @property
    def udp(self) -> "Udp | None":
        """The UDP header, if there is one."""
        return self.layer(Udp)

    @property
    def tcp(self) -> "Tcp | None":
        """The TCP header, if there is one."""
        return self.layer(Tcp)

    @property
    def vxlan(self) -> "Vxlan | None":
        """The VXLAN header, if there is one: then `inner` is set."""
        return self.layer(Vxlan)

    @property
    def payload(self) -> bytes:
        """What follows the last header that was understood, as far as it was captured; b"" if nothing does."""
        found = self.layer(Payload)
        return b"" if found is None else self.bytes_of(found)

    @property
    def malformed(self) -> "Malformed | None":
        """Where and why the frame (or the one inside it) contradicts itself, if it does."""
        found = self.layer(Malformed)
        return found if found is not None or self.inner is None else self.inner.malformed

    @property
    def summary(self) -> str:
        """One line for logs and lists: the headers that matter, outermost first."""
        names = [layer.summary for layer in self.layers if isinstance(layer, _TOLD)]
        if not names or isinstance(self.layers[-1], Malformed):
            names = [layer.summary for layer in self.layers]
        text = ", ".join(names)
        return text if self.inner is None else f"{text} [ {self.inner.summary} ]"

    def layer(self, kind: "type[_L]") -> "_L | None":
        """The first layer of this kind in this packet (not in `inner`)."""
        for layer in self.layers:
            if isinstance(layer, kind):
                return layer
        return None

    def bytes_of(self, layer: "Layer") -> bytes:
        """The captured bytes of one of its layers."""
        return self.data[layer.offset : layer.offset + layer.header_bytes]
