"""The types of a topology file, the schema made from them, and what names in steps stand for."""

import json

import msgspec
import pytest

from testbed.topology.load import parse_topology
from testbed.topology.model import Topology
from testbed.topology.schema import schema, schema_text
from testbed.topology.steps import KINDS, Exec, Iperf, Ping, Step, Wire
from testbed.topology.targets import Pair, expand, pairs
from tests.support.project import ROOT


def lab() -> Topology:
    return parse_topology(
        """
name: lab
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
""",
        file="lab.yaml",
    )


def test_the_published_schema_is_the_one_the_types_make() -> None:
    published = json.loads((ROOT / "topologies/schema.json").read_text())
    assert published == json.loads(schema_text()), (
        "topologies/schema.json is out of date: python -m testbed.topology.schema > topologies/schema.json"
    )


def test_the_schema_is_a_valid_schema() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_type_and_key_of_the_schema_is_described() -> None:
    for name, part in schema()["$defs"].items():
        assert part["description"], name
        for key, value in part["properties"].items():
            assert "description" in value or key in KINDS, f"{name}.{key}"


def test_every_mapping_of_the_schema_refuses_unknown_keys() -> None:
    assert all(part["additionalProperties"] is False for part in schema()["$defs"].values())


def test_defaults_make_the_smallest_topology_a_whole_lab() -> None:
    smallest = parse_topology("{name: tiny, nodes: {node1: }}", file="tiny.yaml")
    assert smallest.network.range == "10.32.0.0/12"
    assert smallest.underlay.mtu == 1500
    assert smallest.overlay_mtu == 1450
    assert list(smallest.underlay.segments) == ["lan"]
    assert smallest.segment_of("node1") == smallest.outside_segment == "lan"


def test_types_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        lab().name = "other"  # type: ignore[misc]


def test_a_topology_survives_json() -> None:
    text = msgspec.json.encode(lab())
    assert msgspec.json.decode(text, type=Topology) == lab()


def test_pods_are_listed_by_node_in_the_order_of_the_file() -> None:
    assert lab().pods_on("node1") == ("red", "green")
    assert lab().pods_on("node2") == ("blue",)


@pytest.mark.parametrize(
    ("step", "kind", "title"),
    [
        (Step(ping=Ping(from_="red", to="blue")), "ping", "ping red -> blue"),
        (Step(ping=Ping(from_=["red", "green"], to="own-node")), "ping", "ping red, green -> own-node"),
        (Step(iperf=Iperf(from_="red", to="blue", protocol="udp")), "iperf", "iperf udp red -> blue"),
        (Step(wire=Wire(from_="red", to="blue", path="cross-node")), "wire", "wire red -> blue (cross-node)"),
        (Step(exec=Exec(on="red", command=["ip", "link"])), "exec", "exec on red: ip link"),
        (Step(name="my own", exec=Exec(on="red", command="ip link")), "exec", "my own"),
    ],
)
def test_a_step_knows_its_kind_and_makes_a_title(step: Step, kind: str, title: str) -> None:
    assert (step.kind, step.title) == (kind, title)
    assert step.action is getattr(step, kind)


def test_groups_are_expanded_once_and_in_order() -> None:
    assert expand(lab(), ["blue", "all-pods", "outside"]) == ("blue", "red", "green", "outside")
    assert expand(lab(), "all-nodes") == ("node1", "node2")


def test_nobody_pings_itself() -> None:
    found = pairs(lab(), Ping(from_="all-pods", to="all-pods"))
    assert len(found) == 6
    assert all(pair.source != pair.target for pair in found)


def test_own_node_is_the_node_of_each_sender() -> None:
    assert pairs(lab(), Ping(from_=["red", "blue"], to="own-node")) == (
        Pair("red", "node1", own_node=True),
        Pair("blue", "node2", own_node=True),
    )
