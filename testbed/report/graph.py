"""The lab as a picture that stands alone: a tree of text, SVG, Mermaid, Graphviz. Pure: a `LabView` in, text out.

All four show the same: who is plugged into what, with the addresses that are known. The SVG is that of the HTML report
(`testbed.report.picture`) with the rules of its page that it needs.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from testbed.machine.checkout import TEMPLATES
from testbed.report.picture import lab_picture
from testbed.scenario.results import LabView, NodeView

_COLOURS: Final = re.compile(
    r"^:root \{.*?^\}\n|^@media \(prefers-color-scheme: dark\) \{.*?^\}\n", re.DOTALL | re.MULTILINE
)
_OWN_RULES: Final = re.compile(r"^svg\.lab .*\n", re.MULTILINE)


class _Branches(NamedTuple):
    """What the lines of a tree begin with."""

    fork: str
    last: str
    trunk: str


_DRAWN: Final = _Branches("├─ ", "└─ ", "│  ")
_TYPED: Final = _Branches("|- ", "`- ", "|  ")


class _Twig(NamedTuple):
    """A line of a tree and what hangs below it."""

    text: str
    below: "Sequence[_Twig]" = ()


# ----------------------------------------------------------------------------------------------------------------- text


def text_graph(name: str, view: LabView, *, ascii_only: bool = False) -> str:
    """A tree for a terminal: segments, the machines in them, pods under their node."""
    head = (
        f"{name}: pod range {view.pod_range}, VNI {view.vni}, MTU of pods {view.overlay_mtu}, "
        f"of the underlay {view.underlay_mtu}"
    )
    segments = [_Twig(f"segment {one.name} {one.subnet}", _in_segment(view, one.name)) for one in view.segments]
    return "\n".join([head, *_lines(segments, _TYPED if ascii_only else _DRAWN)]) + "\n"


def _in_segment(view: LabView, segment: str) -> list[_Twig]:
    found = []
    for router in view.routers:
        others = ", ".join(other for other in router.segments if other != segment)
        if segment in router.segments:
            found.append(_Twig(f"router {router.name}" + (f", leads to {others}" if others else "")))
    found += [_Twig(_node_text(node), _pods(node)) for node in view.nodes if node.segment == segment]
    if view.outside_segment == segment:
        found.append(_Twig(f"outside {view.outside_address}, beyond the cluster"))
    return found


def _node_text(node: NodeView) -> str:
    switch = f", switch weave {node.bridge_address}" if node.bridge_address else ""
    return f"{node.name}: eth0 {node.uplink_address}{switch}"


def _pods(node: NodeView) -> list[_Twig]:
    width = max((len(pod.name) for pod in node.pods), default=0)
    return [_Twig(f"{pod.name:<{width}}  {pod.address}".rstrip()) for pod in node.pods]


def _lines(twigs: Sequence[_Twig], branches: _Branches) -> Iterator[str]:
    for twig in twigs:
        last = twig is twigs[-1]
        yield (branches.last if last else branches.fork) + twig.text
        for line in _lines(twig.below, branches):
            yield (" " * len(branches.trunk) if last else branches.trunk) + line


# ------------------------------------------------------------------------------------------------------------------ svg


def svg_graph(name: str, view: LabView) -> str:
    """The picture of the HTML report as a file of its own; dark where the reader's desktop is."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    rules = "".join([*_COLOURS.findall(css), *_OWN_RULES.findall(css)])
    font = 'svg.lab { background: var(--card); font-family: system-ui, "Noto Sans", "DejaVu Sans", sans-serif; }\n'
    head, title, body = lab_picture(view).partition("<title>")
    return f"{head}<!-- {name} -->\n<style>\n{rules}{font}</style>\n{title}{body}\n"


# -------------------------------------------------------------------------------------------------------------- mermaid


def mermaid_graph(name: str, view: LabView) -> str:
    """A flowchart of Mermaid, as GitHub and GitLab draw it in Markdown."""
    lines = ["---", f"title: {name}", "---", "flowchart TB"]
    for node in view.nodes:
        lines.append(f'  subgraph {_id("node", node.name)}["{node.name}"]')
        lines.append(f'    {_id("weave", node.name)}["weave<br>{node.bridge_address or "switch"}"]')
        lines.append(f'    {_id("eth0", node.name)}["eth0<br>{node.uplink_address}"]')
        for pod in node.pods:
            label = "<br>".join(filter(None, (pod.name, pod.address)))
            lines.append(f'    {_id("pod", pod.name)}(["{label}"]) --- {_id("weave", node.name)}')
        lines.append(f'    {_id("weave", node.name)} -. "VXLAN {view.vni}" .- {_id("eth0", node.name)}')
        lines.append("  end")
    lines += [f'  {_id("segment", one.name)}[["{one.name}<br>{one.subnet}"]]' for one in view.segments]
    lines += [f"  {_id('eth0', node.name)} --- {_id('segment', node.segment)}" for node in view.nodes]
    for router in view.routers:
        lines.append(f'  {_id("router", router.name)}{{{{"{router.name}"}}}}')
        lines += [f"  {_id('segment', segment)} --- {_id('router', router.name)}" for segment in router.segments]
    if view.outside_address:
        lines.append(f'  outside(("outside<br>{view.outside_address}")) --- {_id("segment", view.outside_segment)}')
    return "\n".join(lines) + "\n"


def _id(kind: str, name: str) -> str:
    """A word that neither Mermaid nor Graphviz knows otherwise; names have no underscore."""
    return f"{kind}_{name.replace('-', '_')}"


# ------------------------------------------------------------------------------------------------------------- graphviz


def dot_graph(name: str, view: LabView) -> str:
    """A graph of Graphviz: `weavelab graph --format dot | dot -Tpng`."""
    lines = [
        f'graph "{name}" {{',
        f'  label="{name}: pod range {view.pod_range}, VNI {view.vni}"',
        '  node [shape=box, style=rounded, fontname="sans-serif"]',
    ]
    for node in view.nodes:
        weave, eth0 = _id("weave", node.name), _id("eth0", node.name)
        lines.append(f"  subgraph cluster_{_id('node', node.name)} {{")
        lines.append(f'    label="{node.name}"')
        lines.append(f'    {weave} [label="weave\\n{node.bridge_address or "switch"}"]')
        lines.append(f'    {eth0} [label="eth0\\n{node.uplink_address}"]')
        for pod in node.pods:
            label = "\\n".join(filter(None, (pod.name, pod.address)))
            lines.append(f'    {_id("pod", pod.name)} [label="{label}", shape=ellipse]')
            lines.append(f"    {_id('pod', pod.name)} -- {weave}")
        lines.append(f'    {weave} -- {eth0} [style=dashed, label="VXLAN"]')
        lines.append("  }")
    lines += [
        f'  {_id("segment", segment.name)} [label="{segment.name}\\n{segment.subnet}", shape=box3d]'
        for segment in view.segments
    ]
    lines += [f"  {_id('eth0', node.name)} -- {_id('segment', node.segment)}" for node in view.nodes]
    for router in view.routers:
        lines.append(f'  {_id("router", router.name)} [label="{router.name}", shape=diamond]')
        lines += [f"  {_id('segment', segment)} -- {_id('router', router.name)}" for segment in router.segments]
    if view.outside_address:
        lines.append(f'  outside [label="outside\\n{view.outside_address}", shape=doublecircle]')
        lines.append(f"  {_id('segment', view.outside_segment)} -- outside")
    return "\n".join([*lines, "}"]) + "\n"


GRAPHS: Final[dict[str, Callable[[str, LabView], str]]] = {
    "text": text_graph,
    "svg": svg_graph,
    "mermaid": mermaid_graph,
    "dot": dot_graph,
}
"""By the name of the format."""
