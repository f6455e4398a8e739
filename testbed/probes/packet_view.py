"""Show a captured packet to people: layer by layer with byte counts, as bytes, or as values for HTML and JSON reports.

Pure: a `plugin.core.packet.frame.Packet` in, text or plain values out. `describe` gives the values; `render` and
`render_hex` give `rich` text that fits 80 columns, whose `.plain` has no colours. A frame that VXLAN carries is shown
inside its envelope: the layers before it are "outer", its own are "inner".
"""

import textwrap
from collections.abc import Iterator
from typing import Final, Literal, TypedDict

from rich.text import Text

from plugin.core.packet.checksum import Checksum, checksum_of
from plugin.core.packet.ethernet import Arp, Ethernet, Vlan
from plugin.core.packet.ip import IPv4, IPv6, IPv6Extension
from plugin.core.packet.layers import Cut, Layer, Malformed, Payload, Trailer
from plugin.core.packet.packet import Packet
from plugin.core.packet.transport import Icmp, Tcp, Udp, Vxlan
from testbed.machine import screen

COLUMNS: Final = 80
_HEX_ROW_BYTES: Final = 16
_PAYLOAD_ROWS_MAX: Final = 8

Role = Literal["outer", "inner", ""]


class FieldView(TypedDict):
    """One header field: see `plugin.core.packet.layers.Field`."""

    name: str
    offset: int
    width: int
    mask: int
    value: int | str
    text: str


class LayerView(TypedDict):
    """One layer.

    `offset` and `bytes` say which bytes of the frame it is (`hex` has them); `role` is "outer" for the envelope,
    "inner" for what the envelope carries, empty for a frame that is no tunnel's; `checksum` is empty if there is none.
    """

    name: str
    role: Role
    title: str
    offset: int
    bytes: int
    summary: str
    explanation: str
    checksum: str
    fields: list[FieldView]
    hex: str


class PacketView(TypedDict):
    """A frame: sizes in bytes, one line that says it all, and its layers by offset.

    `envelope_bytes` is what VXLAN added and `cargo_bytes` what the pod sent; without a tunnel 0 and `wire_bytes`.
    """

    wire_bytes: int
    captured_bytes: int
    envelope_bytes: int
    cargo_bytes: int
    headline: str
    summary: str
    layers: list[LayerView]


def describe(packet: Packet) -> PacketView:
    """The packet as plain values: what the HTML template walks through and what JSON reports contain."""
    cargo = packet.wire_bytes if packet.inner is None else packet.inner.wire_bytes
    return PacketView(
        wire_bytes=packet.wire_bytes,
        captured_bytes=packet.captured_bytes,
        envelope_bytes=packet.wire_bytes - cargo,
        cargo_bytes=cargo,
        headline=headline(packet),
        summary=packet.summary,
        layers=[_describe_layer(owner, layer, role) for owner, layer, role in _walk(packet)],
    )


def headline(packet: Packet) -> str:
    """How long the frame is and why: `148 bytes on the wire: 50 of envelope + 98 that the pod sent`."""
    text = f"{packet.wire_bytes} bytes on the wire"
    if packet.inner is not None:
        cargo = packet.inner.wire_bytes
        text += f": {packet.wire_bytes - cargo} of envelope + {cargo} that the pod sent"
    return f"{text} ({packet.captured_bytes} captured)" if packet.truncated else text


def render(packet: Packet, *, explain: bool = False, fields: bool = False) -> Text:
    """The frame taken apart, one line a layer, at most 80 columns wide.

    Args:
        packet: The frame.
        explain: Put a sentence under each layer.
        fields: Put every header field under its layer.
    """
    text = Text()
    text.append(headline(packet) + "\n", style=screen.TITLE)
    text.append_text(_boxes(packet))
    text.append("\noffset bytes  layer\n", style=screen.ASIDE)
    for view in describe(packet)["layers"]:
        text.append_text(_layer_text(view, explain=explain, fields=fields))
    text.rstrip()
    return text


def render_hex(packet: Packet, *, payload_rows_max: int = _PAYLOAD_ROWS_MAX) -> Text:
    """The captured bytes as `tcpdump -XX` prints them, but every layer begins a row and is named: 79 columns.

    Args:
        packet: The frame.
        payload_rows_max: Of long data this many rows are shown, and how many bytes follow.
    """
    text = Text()
    for owner, layer, role in _walk(packet):
        data = owner.bytes_of(layer)
        rows = range(0, len(data), _HEX_ROW_BYTES)
        style = _style(layer, role)
        for index, start in enumerate(rows):
            if isinstance(layer, Payload | Trailer) and index == payload_rows_max:
                text.append(f"{'':<15}       ... {len(data) - start} more bytes\n", style=screen.ASIDE)
                break
            row = data[start : start + _HEX_ROW_BYTES]
            label = _title(layer, role) if index == 0 else ""
            text.append(f"{label:<15} ", style=style)
            text.append(f"{layer.offset + start:04x}  ", style=screen.ASIDE)
            text.append(f"{row.hex(' ', -2):<39}  {_printable(row)}".rstrip() + "\n", style=style)
    text.rstrip()
    return text


# --------------------------------------------------------------------------------------------------------------- pieces


def _walk(packet: Packet) -> Iterator[tuple[Packet, Layer, Role]]:
    """Every layer by offset, with the packet it belongs to and its role."""
    if packet.inner is None:
        yield from ((packet, layer, "") for layer in packet.layers)
        return
    found: list[tuple[Packet, Layer, Role]] = [(packet, layer, "outer") for layer in packet.layers]
    found += [(owner, layer, "inner") for owner, layer, _ in _walk(packet.inner)]
    yield from sorted(found, key=lambda entry: entry[1].order)


def _describe_layer(packet: Packet, layer: Layer, role: Role) -> LayerView:
    checksum = checksum_of(packet, layer)
    return LayerView(
        name=_name(layer),
        role=role,
        title=_title(layer, role),
        offset=layer.offset,
        bytes=layer.header_bytes,
        summary=_summary(layer, checksum),
        explanation=explanation(layer, role),
        checksum="" if checksum is None else str(checksum),
        fields=[
            FieldView(name=f.name, offset=f.offset, width=f.width, mask=f.mask, value=f.value, text=f.text)
            for f in layer.fields
        ],
        hex=packet.bytes_of(layer).hex(),
    )


def _name(layer: Layer) -> str:
    return "ICMPv6" if isinstance(layer, Icmp) and layer.version == 6 else layer.name


def _title(layer: Layer, role: Role) -> str:
    """VXLAN itself needs no role, and data is data."""
    name = _name(layer)
    return name if not role or isinstance(layer, Vxlan | Payload | Trailer | Malformed | Cut) else f"{role} {name}"


def _summary(layer: Layer, checksum: Checksum | None) -> str:
    text = layer.summary
    match layer:
        case Udp():
            text = f"port {layer.source_port} > {layer.destination_port}"
        case Tcp():
            text = text.removeprefix("TCP ")
        case Vxlan():
            text = f"VNI {layer.vni}"
        case Icmp():
            text = text.removeprefix(_name(layer) + " ")
        case Arp():
            text = text.removeprefix("ARP ")
        case IPv4():
            text += f", TTL {layer.ttl}" + (", DF" if layer.dont_fragment else "")
        case IPv6():
            text += f", hop limit {layer.hop_limit}"
        case Malformed():
            text = f"{layer.protocol}: {layer.reason}"
        case _:
            pass
    return f"{text}, bad checksum" if checksum is Checksum.BAD else text


def _boxes(packet: Packet) -> Text:
    """The frame as boxes in one line: `[Ethernet 14|IPv4 20|UDP 8|VXLAN 8[Ethernet 14|IPv4 20|ICMP 8|data 56]]`."""
    text = Text("\n")
    depth = column = 0
    for owner, layer, role in _walk(packet):
        opens = isinstance(layer, Ethernet) or not depth
        closes = depth > 1 and owner is packet  # padding behind the inner frame
        depth += opens - closes
        size = layer.wire_bytes if isinstance(layer, Payload) else layer.header_bytes
        label = f"{'data' if isinstance(layer, Payload) else _name(layer)} {size}"
        if column + 1 + len(label) + depth > COLUMNS:
            text.append("\n ")
            column = 1
        text.append("[" if opens else "]" if closes else "|", style=screen.ASIDE)
        text.append(label, style=_style(layer, role))
        column += 1 + len(label)
    text.append("]" * depth + "\n", style=screen.ASIDE)
    return text


def _layer_text(view: LayerView, *, explain: bool, fields: bool) -> Text:
    text = Text()
    style = _STYLES["outer" if view["name"] == Vxlan.name else view["role"]]
    if view["name"] in {Malformed.name, Cut.name}:
        style = _STYLES["wrong"]
    head = f"{view['offset']:>6} {view['bytes']:>5}  "
    indent = " " * (len(head) + 16)
    lines = textwrap.wrap(view["summary"], COLUMNS - len(indent)) or [""]
    text.append(head, style=screen.ASIDE)
    text.append(f"{view['title']:<15} ", style=style)
    text.append(f"{lines[0]}\n".lstrip(), style=style)
    for line in lines[1:]:
        text.append(f"{indent}{line}\n", style=style)
    if explain:
        for line in textwrap.wrap(view["explanation"], COLUMNS - len(head)):
            text.append(f"{' ' * len(head)}{line}\n", style=screen.REMARK)
    if fields:
        for field in view["fields"]:
            place = f"{field['offset']:>6} {field['width']:>5}  "
            text.append(f"{place}  {field['name']:<17} {field['text']}"[:COLUMNS].rstrip() + "\n", style=screen.ASIDE)
    return text


_STYLES: Final = {
    "outer": screen.OUTER,
    "inner": screen.INNER,
    "": screen.INNER,
    "data": screen.ASIDE,
    "wrong": screen.BAD,
}


def _style(layer: Layer, role: Role) -> str:
    if isinstance(layer, Malformed | Cut):
        return _STYLES["wrong"]
    return _STYLES["data" if isinstance(layer, Payload | Trailer) else role]


def _printable(row: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)


# ------------------------------------------------------------------------------------------------------------ sentences


def explanation(layer: Layer, role: Role) -> str:
    """One sentence about this layer, for a learner: what it is for here, not what the RFC calls it."""
    told = _TOLD_BY_ROLE.get((type(layer), role))
    if told is not None:
        return told
    if isinstance(layer, Udp) and role == "outer":
        return (
            f"Port {layer.destination_port} says that VXLAN is inside; the source port is a hash of the inner flow, so"
            " that different flows may take different links."
        )
    if isinstance(layer, Icmp):
        return _icmp_sentence(layer)
    if isinstance(layer, Arp):
        return _arp_sentence(layer)
    return _TOLD.get(type(layer), "")


_TOLD_BY_ROLE: Final[dict[tuple[type[Layer], Role], str]] = {
    (Ethernet, "outer"): "From this node to the next machine of the underlay; every router on the way replaces it.",
    (Ethernet, "inner"): "The pod's own frame, carried unchanged, as if one switch joined all nodes.",
    (Ethernet, ""): "From one network card to another; a switch reads nothing else.",
    (IPv4, "outer"): "From node to node: the underlay routes by these addresses and never looks for a pod's.",
    (IPv4, "inner"): "From pod to pod, by the addresses that the pods see themselves: nothing is translated.",
    (IPv4, ""): "Who sends to whom; a router lowers the TTL by one and passes the packet on.",
}
_TOLD: Final[dict[type[Layer], str]] = {
    Vlan: "A tag that says which virtual LAN the frame belongs to.",
    IPv6: "Who sends to whom; a router lowers the hop limit by one and passes the packet on.",
    IPv6Extension: "An optional header between IPv6 and what it carries.",
    Udp: "Which program the datagram is for; delivery is not promised.",
    Tcp: "Which connection the segment belongs to, and where in the stream its bytes stand.",
    Vxlan: "The VNI names the overlay network; a node drops frames of a VNI that it does not have.",
    Payload: "The data itself; no header on the way is allowed to change it.",
    Trailer: "Bytes that no header counts, usually there to reach Ethernet's minimum of 60.",
    Malformed: "The headers before contradict what is here; a receiver drops such a frame.",
    Cut: "This part was sent too, but is not in this capture.",
}


def _icmp_sentence(layer: Icmp) -> str:
    if layer.is_request:
        return "ping asks: the other side must send the same data back."
    if layer.is_reply:
        return "ping's answer: the same identifier, sequence number and data as in the request."
    return f"A message of the network itself: {layer.kind}."


def _arp_sentence(layer: Arp) -> str:
    if layer.operation == 1:
        return "Asks everybody on the same switch for the MAC address that belongs to an IP address."
    return "Tells which MAC address belongs to an IP address."
