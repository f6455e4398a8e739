"""The lab as a picture: inline SVG made from a `LabView`, coloured by the page it stands in.

From top to bottom as a packet goes down: pods, the switch of their node, its VXLAN device and uplink, the segment, then
routers and the outside host. What belongs to the overlay has the class `overlay`, the rest `underlay`; the page's CSS
gives both a colour (templates/report.html.j2). Pure: a value in, text out.
"""

from dataclasses import dataclass
from html import escape
from typing import Final

from testbed.scenario.results import LabView, NodeView, SegmentView

_POD_W: Final = 112
_POD_H: Final = 42
_POD_COLUMNS: Final = 3
PODS_MAX: Final = 9
WIDTH_MAX: Final = 1240
"""What a picture for a page as wide as a screen may measure; it is shown a little smaller there."""

_NODES_MAX: Final = 24
"""Per segment; a picture of 100 nodes explains nothing that the sentence "and 76 more" does not."""

_GAP: Final = 12
_PAD: Final = 16
_NODE_W_MIN: Final = 236
_HEAD_H: Final = 34
_SWITCH_H: Final = 34
_PORT_H: Final = 30
_DROP_H: Final = 34
_BAR_H: Final = 30
_ROW_GAP: Final = 20
_NODE_GAP: Final = 28
_SEGMENT_GAP: Final = 48
_TRUNK_W: Final = 14
"""Left of the rows of a segment that has several: what joins its bars passes there."""

SCALE_MIN: Final = 0.62
"""A page that is narrower than that share of the picture scrolls it: smaller text could not be read."""

_BELOW_W: Final = 190
_ADDRESS_CHARACTER_W: Final = 7.3  # of the monospaced 12 px in which addresses are written
_LABEL_CHARACTER_W: Final = 8.0  # of the bold text in the bars of segments
_BELOW_H: Final = 46
_MARGIN: Final = 8


@dataclass(frozen=True, slots=True)
class _Bar:
    """A drawn segment: where lines from below may end."""

    left: float
    right: float
    bottom: float

    @property
    def centre(self) -> float:
        return (self.left + self.right) / 2


def lab_picture(view: LabView, *, width_max: float = WIDTH_MAX) -> str:
    """The SVG element as text; its natural width is in its `width` attribute.

    Args:
        view: The lab.
        width_max: How wide it should be at most. Nodes form as many rows as that takes; segments stand side by side
            all the same, so that a picture of several can become wider.
    """
    parts: list[str] = []
    bars: dict[str, _Bar] = {}
    left = float(_MARGIN)
    rows = {segment.name: _rows(view, segment, width_max) for segment in view.segments}
    depth = max((_depth(found) for found in rows.values()), default=0.0)
    for segment in view.segments:
        found = rows[segment.name]
        bar = _segment(parts, view, segment, found, left, _MARGIN + depth - _depth(found))
        bars[segment.name] = bar
        left = bar.right + _SEGMENT_GAP
    depth += _MARGIN
    right = max(left - _SEGMENT_GAP, *_below(parts, view, bars, depth)) + _MARGIN
    has_below = bool(view.routers or view.outside_address)
    height = depth + (_DROP_H + 14 + _BELOW_H if has_below else 0) + _MARGIN
    title = escape(f"The lab: {len(view.nodes)} nodes, {sum(len(node.pods) for node in view.nodes)} pods")
    return (
        f'<svg class="lab" role="img" aria-label="{title}" viewBox="0 0 {right:g} {height:g}" '
        f'width="{right:g}" height="{height:g}" style="min-width:{right * SCALE_MIN:.0f}px" xmlns="http://www.w3.org/2000/svg">\n'
        f"<title>{title}</title>\n" + "\n".join(parts) + "\n</svg>"
    )


def _rows(view: LabView, segment: SegmentView, width_max: float) -> list[list[NodeView]]:
    """The nodes of a segment in rows of about one length, each no wider than the segment's share of the picture."""
    nodes = _nodes_of(view, segment)
    if not nodes:
        return [[]]
    taken = sum(_label_width(view, other) for other in view.segments if not _nodes_of(view, other))
    peopled = sum(bool(_nodes_of(view, other)) for other in view.segments)
    share = (width_max - 2 * _MARGIN - taken - _SEGMENT_GAP * (len(view.segments) - 1)) / peopled
    widest = max(map(_node_width, nodes))
    fitting = max(1, int((share - _TRUNK_W + _NODE_GAP) // (widest + _NODE_GAP)))
    length = -(-len(nodes) // -(-len(nodes) // fitting))
    return [nodes[start : start + length] for start in range(0, len(nodes), length)]


def _nodes_of(view: LabView, segment: SegmentView) -> list[NodeView]:
    return [node for node in view.nodes if node.segment == segment.name][:_NODES_MAX]


def _label(view: LabView, segment: SegmentView) -> str:
    more = sum(node.segment == segment.name for node in view.nodes) - _NODES_MAX
    return f"{segment.name} · {segment.subnet} · MTU {view.underlay_mtu}" + (f" · and {more} more" if more > 0 else "")


def _label_width(view: LabView, segment: SegmentView) -> float:
    return max(len(_label(view, segment)) * _LABEL_CHARACTER_W + 2 * _PAD, float(_NODE_W_MIN))


def _depth(rows: list[list[NodeView]]) -> float:
    """How far down the last bar of a segment ends, from its first row's top."""
    return sum(_row_height(row) + _DROP_H + _BAR_H for row in rows) + _ROW_GAP * (len(rows) - 1)


def _segment(
    parts: list[str], view: LabView, segment: SegmentView, rows: list[list[NodeView]], left: float, top: float
) -> _Bar:
    trunk = _TRUNK_W if len(rows) > 1 else 0
    width = max(*(_row_width(row) + trunk for row in rows), _label_width(view, segment))
    bar_top = top
    for row in rows:
        if row is not rows[0]:  # the trunk that makes several bars one segment
            below = bar_top + _BAR_H + _ROW_GAP + _row_height(row) + _DROP_H
            parts.append(_line(left + 5, bar_top + _BAR_H, left + 5, below, "underlay"))
            top = bar_top + _BAR_H + _ROW_GAP
        bar_top = top + _row_height(row) + _DROP_H
        x = left + trunk + (width - trunk - _row_width(row)) / 2
        for node in row:
            _node(parts, view, node, x, bar_top - _DROP_H - _PORT_H / 2 - _node_height(node), bar_top)
            x += _node_width(node) + _NODE_GAP
        parts.append(_box(left, bar_top, width, _BAR_H, "segment underlay", 6))
    parts.append(_text(left + width / 2, bar_top + 20, _label(view, segment), "label middle"))
    return _Bar(left, left + width, bar_top + _BAR_H)


def _node(parts: list[str], view: LabView, node: NodeView, x: float, y: float, bar_top: float) -> None:
    width, height = _node_width(node), _node_height(node)
    inner = width - 2 * _PAD
    middle = x + width / 2
    parts.append(_box(x, y, width, height, "node", 10))
    parts.append(_text(x + _PAD, y + 23, node.name, "name"))
    pods_top = y + _HEAD_H
    switch_top = y + height - _PORT_H / 2 - 18 - _SWITCH_H
    _pods(parts, node, x + _PAD, inner, pods_top, switch_top)
    parts.append(_line(middle, switch_top + _SWITCH_H, middle, bar_top, "underlay"))
    parts.append(_box(x + _PAD, switch_top, inner, _SWITCH_H, "switch overlay", 6))
    parts.append(_text(x + _PAD + 10, switch_top + 22, "weave", "label"))
    parts.append(_text(x + _PAD + inner - 10, switch_top + 22, node.bridge_address, "address end"))
    port_top = y + height - _PORT_H / 2
    port_width = min(inner, 190)
    parts.append(_box(middle - port_width / 2, port_top, port_width, _PORT_H, "port underlay", 6))
    parts.append(_text(middle, port_top + 20, f"eth0 {node.uplink_address}".strip(), "address middle"))
    parts.append(_text(middle + 8, switch_top + _SWITCH_H + 13, f"VXLAN, VNI {view.vni}", "note"))


def _pods(parts: list[str], node: NodeView, left: float, inner: float, top: float, switch_top: float) -> None:
    shown, more = node.pods[:PODS_MAX], len(node.pods) - PODS_MAX
    columns = min(_POD_COLUMNS, max(1, len(shown)))
    start = left + (inner - columns * _POD_W - (columns - 1) * _GAP) / 2
    boxes: list[str] = []
    for index, pod in enumerate(shown):
        x = start + (index % columns) * (_POD_W + _GAP)
        y = top + (index // columns) * (_POD_H + _GAP)
        parts.append(_line(x + _POD_W / 2, y + _POD_H, x + _POD_W / 2, switch_top, "overlay"))
        boxes.append(_box(x, y, _POD_W, _POD_H, "pod overlay", 8))
        boxes.append(_text(x + _POD_W / 2, y + 18, pod.name, "label middle"))
        boxes.append(_text(x + _POD_W / 2, y + 34, pod.address, "address middle"))
    parts += boxes  # over the lines: those of upper rows pass behind the pods of lower ones
    if not shown:
        parts.append(_text(left + inner / 2, top + 26, "no pods", "note middle"))
    if more > 0:
        parts.append(_text(left + inner, top - 10, f"and {more} more pods", "note end"))


@dataclass(frozen=True, slots=True)
class _Below:
    """A router or the outside host: what it says, the bars it is plugged into, and where it would like to be."""

    name: str
    note: str
    classes: str
    bars: tuple[_Bar, ...]
    centre: float


def _below(parts: list[str], view: LabView, bars: dict[str, _Bar], depth: float) -> list[float]:
    """Routers and the outside host under the segments; the right edges of what was drawn."""
    wanted = []
    for router in view.routers:
        joined = tuple(bars[name] for name in router.segments if name in bars)
        centre = sum(bar.centre for bar in joined) / max(len(joined), 1)
        wanted.append(_Below(router.name, f"routes {' ↔ '.join(router.segments)}", "router underlay", joined, centre))
    if view.outside_address and view.outside_segment in bars:
        bar = bars[view.outside_segment]
        centre = bar.left + _BELOW_W / 2 if wanted else bar.centre
        wanted.append(_Below("outside", view.outside_address, "outside", (bar,), centre))
    top = depth + _DROP_H + 14
    edges = [0.0]
    for item in sorted(wanted, key=lambda item: item.centre):
        width = max(_BELOW_W, len(item.note) * _ADDRESS_CHARACTER_W + 2 * _PAD)
        left = max(item.centre - width / 2, edges[-1] + _GAP if edges[-1] else _MARGIN)
        middle = left + width / 2
        for bar in item.bars:
            at = min(max(middle, bar.left + 12), bar.right - 12)
            curve = f"M{middle:g} {top:g} C{middle:g} {top - 28:g} {at:g} {bar.bottom + 28:g} {at:g} {bar.bottom:g}"
            parts.append(f'<path class="wire underlay" d="{curve}"/>')
        parts.append(_box(left, top, width, _BELOW_H, item.classes, 23))
        parts.append(_text(middle, top + 20, item.name, "label middle"))
        parts.append(_text(middle, top + 36, item.note, "address middle"))
        edges.append(left + width)
    return edges


def _node_width(node: NodeView) -> float:
    columns = min(_POD_COLUMNS, max(1, len(node.pods)))
    return max(_NODE_W_MIN, 2 * _PAD + columns * _POD_W + (columns - 1) * _GAP)


def _node_height(node: NodeView) -> float:
    rows = max(1, -(-min(len(node.pods), PODS_MAX) // _POD_COLUMNS))
    return _HEAD_H + rows * (_POD_H + _GAP) + 8 + _SWITCH_H + 18 + _PORT_H / 2


def _row_width(row: list[NodeView]) -> float:
    return sum(_node_width(node) for node in row) + _NODE_GAP * max(len(row) - 1, 0)


def _row_height(row: list[NodeView]) -> float:
    return max((_node_height(node) + _PORT_H / 2 for node in row), default=80.0)


def _box(x: float, y: float, width: float, height: float, classes: str, radius: float) -> str:
    return f'<rect class="{classes}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<path class="wire {classes}" d="M{x1:g} {y1:g} L{x2:g} {y2:g}"/>'


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{x:g}" y="{y:g}">{escape(text)}</text>'
