"""The picture of a lab or a topology file as text, SVG, Mermaid and Graphviz; a file needs no root and no lab."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from testbed.cli.main import main
from testbed.report.graph import GRAPHS, dot_graph, mermaid_graph, svg_graph, text_graph
from testbed.report.view import planned_view
from testbed.scenario.results import LabView
from testbed.topology.load import load_topology
from tests.support.project import ROOT

RACKS = ROOT / "topologies" / "racks.yaml"


@pytest.fixture
def racks() -> LabView:
    return planned_view(load_topology(RACKS))


def test_the_tree_has_every_member_below_what_it_is_plugged_into(racks: LabView) -> None:
    assert text_graph("racks", racks).splitlines()[1:8] == [
        "├─ segment rack1 10.10.1.0/24",
        "│  ├─ router spine, leads to rack2, wan",
        "│  ├─ node1: eth0 10.10.1.11",
        "│  │  ├─ red",
        "│  │  └─ green",
        "│  └─ node2: eth0 10.10.1.12",
        "│     └─ blue",
    ]


def test_the_tree_needs_no_more_than_ascii(racks: LabView) -> None:
    assert text_graph("racks", racks, ascii_only=True).isascii()


@pytest.mark.parametrize("output", GRAPHS)
@pytest.mark.parametrize("topology", sorted((ROOT / "topologies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_picture_of_every_shipped_topology_names_everybody(topology: Path, output: str) -> None:
    loaded = load_topology(topology)
    drawn = GRAPHS[output](loaded.name, planned_view(loaded))
    shown = [*loaded.nodes, *loaded.underlay.routers, *loaded.underlay.segments, "outside"]
    assert [name for name in shown if not re.search(rf"\b{name}\b", drawn)] == []
    pods = [name for node in loaded.nodes for name in loaded.pods_on(node)[:9]]  # an SVG counts those beyond
    assert [name for name in pods if not re.search(rf"\b{name}\b", drawn)] == []


def test_the_svg_stands_alone(racks: LabView) -> None:
    text = svg_graph("racks", racks)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root.findtext("{http://www.w3.org/2000/svg}style")
    assert style is not None
    used = set(re.findall(r"var\((--[a-z-]+)\)", style))
    assert used <= set(re.findall(r"(--[a-z-]+):", style)), "every colour that is used is defined"
    assert "prefers-color-scheme: dark" in style
    classes = {word for element in root.iter() for word in element.get("class", "").split()}
    assert {
        name
        for name in ("node", "wire", "overlay", "underlay", "outside")
        if not re.search(rf"svg\.lab [\w ]*\.{name}\b", style)
    } == set()
    assert "wire" in classes


def test_names_that_a_language_knows_otherwise_are_names(racks: LabView) -> None:
    """`end` and `graph` are words of Mermaid and Graphviz, and `a-b` is a subtraction."""
    topology = load_topology(RACKS)
    text = mermaid_graph("end", planned_view(topology))
    assert not re.search(r"^\s*(end|graph|node)\b(?!$)", "\n".join(text.splitlines()[4:]), re.MULTILINE)
    assert re.fullmatch(r'graph "a-b" \{.*\}\n', dot_graph("a-b", racks), re.DOTALL)


def test_braces_and_brackets_are_closed(racks: LabView) -> None:
    for text in (mermaid_graph("racks", racks), dot_graph("racks", racks)):
        assert [text.count(one) for one in "([{"] == [text.count(one) for one in ")]}"]
    assert mermaid_graph("racks", racks).count("subgraph ") == mermaid_graph("racks", racks).count("\n  end\n")


def test_a_file_is_drawn_without_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["graph", str(RACKS)]) == 0
    assert "router spine" in capsys.readouterr().out
    assert main(["graph", str(RACKS), "-o", str(tmp_path / "racks.mmd")]) == 0
    assert (tmp_path / "racks.mmd").read_text().splitlines()[3] == "flowchart TB"
    assert main(["graph", "racks"]) == 3, "a running lab needs root"


def test_a_file_that_is_wrong_or_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert main(["graph", str(RACKS), "-o", str(tmp_path)]) == 2
    assert "found a directory" in capsys.readouterr().err
