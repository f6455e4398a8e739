"""Topology files: the shipped ones load, bad ones are refused with exact messages, all problems at once.

The bad files are tests/golden/topologies/*.yaml. Each ends with the messages it has to give, a ``#! line:column: message``
a line; ``UPDATE_GOLDENS=1 pytest`` rewrites them.
"""

import os
import re
from pathlib import Path

import pytest

from plugin.core.errors import InputError
from testbed.topology.load import PROBLEMS_SHOWN_MAX, TopologyError, load_topology, parse_topology
from testbed.topology.underlay import plan_underlay
from tests.support.project import ROOT

SHIPPED = sorted((ROOT / "topologies").glob("*.yaml"))
BAD = sorted((ROOT / "tests/golden/topologies").glob("*.yaml"))
EXPECTED = "#! "


def problems_of(text: str) -> list[str]:
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, file="lab.yaml")
    return [line.removeprefix("lab.yaml:") for line in str(caught.value).splitlines() if line.startswith("lab.yaml:")]


# ------------------------------------------------------------------------------------------------------- shipped files


def test_the_topologies_that_were_promised_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= {"single-node", "two-nodes", "three-nodes", "racks", "jumbo"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_loads_and_plans(path: Path) -> None:
    topology = load_topology(path)
    assert topology.name == path.stem
    assert topology.description
    assert plan_underlay(topology).hosts


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_opens_with_its_schema_and_a_comment(path: Path) -> None:
    first, second, third, *_ = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    assert second == "#"
    assert third.startswith("# ")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_has_the_scenarios_that_were_promised(path: Path) -> None:
    topology = load_topology(path)
    steps = {scenario.name: scenario.steps for scenario in topology.scenarios}
    wanted = {"same-node", "every-pod", "outside"} | ({"cross-node"} if len(topology.nodes) > 1 else set())
    assert steps.keys() >= wanted
    for name in wanted & {"same-node", "cross-node"}:
        assert {step.kind for step in steps[name]} >= {"ping", "wire", "iperf"}
        assert all(step.wire.path == name for step in steps[name] if step.wire)
    pings = [step.ping for step in steps["every-pod"] if step.ping]
    assert any(ping.to == "all-pods" and ping.expect_source for ping in pings)
    assert any(ping.to == "own-node" for ping in pings)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_satisfies_the_published_schema(path: Path) -> None:
    import json

    import jsonschema
    from ruamel.yaml import YAML

    published = json.loads((ROOT / "topologies/schema.json").read_text())
    jsonschema.Draft202012Validator(published).validate(YAML(typ="safe").load(path.read_text()))


def test_stock_mininet_can_build_every_shipped_topology() -> None:
    pytest.importorskip("mininet.topo")
    script = ROOT / "topologies/mn.py"
    # As mn's --custom does: no module, no __file__.
    found: dict[str, object] = {}
    exec(compile(script.read_text(), str(script), "exec"), found)
    topos = found["topos"]
    assert isinstance(topos, dict)
    assert set(topos) == {f"weavelab-{path.stem}" for path in SHIPPED}
    racks = topos["weavelab-racks"]()
    assert racks.hosts() == ["node1", "node2", "node3", "node4", "outside", "spine"]
    assert len(racks.links()) == 8


# ----------------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_exact_messages(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith(EXPECTED))
    expected = [line.removeprefix(EXPECTED).rstrip("\n") for line in lines if line.startswith(EXPECTED)]
    found = problems_of(text)
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(text + "".join(f"{EXPECTED}{line}\n" for line in found))
        return
    assert found == expected


def test_an_error_is_an_input_error_and_knows_its_problems() -> None:
    with pytest.raises(InputError) as caught:
        parse_topology("name: lab\nnodes: {}\nmtu: 5\n", file="a/lab.yaml")
    assert isinstance(caught.value, TopologyError)
    assert caught.value.exit_code == 2
    assert caught.value.file == "a/lab.yaml"
    assert [(problem.mark.line, problem.mark.column) for problem in caught.value.problems if problem.mark] == [
        (2, 1),
        (3, 1),
    ]
    assert str(caught.value).splitlines()[0] == "2 problems in a/lab.yaml:"


def test_a_single_problem_is_a_single_line() -> None:
    with pytest.raises(TopologyError) as caught:
        parse_topology("name: lab\nnodes: {}\n", file="lab.yaml")
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("lab.yaml:2:1: ")


def test_hundreds_of_problems_are_counted_and_the_first_are_shown() -> None:
    pods = "".join(f"  pod{number}: {{node: nowhere}}\n" for number in range(100))
    with pytest.raises(TopologyError) as caught:
        parse_topology(f"name: lab\nnodes: {{node1: }}\npods:\n{pods}", file="lab.yaml")
    lines = caught.value.message.splitlines()
    assert lines[0] == "100 problems in lab.yaml:"
    assert lines[-1] == f"and {100 - PROBLEMS_SHOWN_MAX} more"
    assert len(lines) == PROBLEMS_SHOWN_MAX + 2


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file_says_so(text: str) -> None:
    with pytest.raises(TopologyError, match=r"lab\.yaml: the file is empty: wanted a topology with at least 'name'"):
        parse_topology(text, file="lab.yaml")


def test_a_file_that_is_absent_is_named_and_the_likely_one_suggested(tmp_path: Path) -> None:
    (tmp_path / "two-nodes.yaml").touch()
    with pytest.raises(TopologyError, match=re.escape(f"{tmp_path}/two-nodes.yml: no such file")) as caught:
        load_topology(tmp_path / "two-nodes.yml")
    assert caught.value.hint == f"did you mean {tmp_path}/two-nodes.yaml?"


def test_a_directory_is_no_topology(tmp_path: Path) -> None:
    (tmp_path / "red.yaml").touch()
    with pytest.raises(TopologyError, match="wanted a topology file, found a directory") as caught:
        load_topology(tmp_path)
    assert f"{tmp_path}/red.yaml" in caught.value.hint


def test_a_file_below_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TopologyError, match="cannot be read: Not a directory"):
        load_topology(tmp_path / "file" / "lab.yaml")


def test_a_binary_file_is_no_topology(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_bytes(b"\x7fELF\xff\xfe")
    with pytest.raises(TopologyError, match=r"wanted a text file \(UTF-8\), found byte 0xff"):
        load_topology(tmp_path / "lab.yaml")
    with pytest.raises(TopologyError, match="wanted a text file, found control characters"):
        parse_topology("name: \x00", file="lab.yaml")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("\ufeffname: lab\nnodes: {node1: }\n")
    assert load_topology(tmp_path / "lab.yaml").name == "lab"


def test_a_file_that_unfolds_into_billions_is_refused() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    assert any("more than 100000 values" in problem for problem in problems_of(laughs))


def test_a_value_that_contains_itself_is_refused() -> None:
    assert problems_of("name: &name [*name]\n")


def test_values_nested_a_thousand_deep_are_refused() -> None:
    assert problems_of("name: " + "[" * 5000)


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(TopologyError, match="wanted at most 1048576 bytes, found 2000007"):
        parse_topology("name: " + "x" * 2_000_000 + "\n", file="lab.yaml")


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(TopologyError, match="wanted at most 1048576 bytes, found more"):
        load_topology("/dev/zero")


def test_a_pod_range_that_is_too_small_says_for_what() -> None:
    text = "name: a\nnodes: {n1: , n2: }\nnetwork: {range: 10.32.0.0/31}\n"
    assert problems_of(text) == ["3:18: the pod range 10.32.0.0/31 has 0 usable addresses, needed are 2 (2 nodes)"]


def test_a_node_with_more_pods_than_a_bridge_has_ports_is_refused() -> None:
    pods = "".join(f"  p{number}: {{node: node1}}\n" for number in range(1023))
    assert problems_of(f"name: lab\nnodes: {{node1: }}\npods:\n{pods}") == [
        "2:9: node 'node1' has 1023 pods: a Linux bridge has ports for 1022"
    ]


# -------------------------------------------------------------------------------------------------------- good, though


def test_a_node_needs_nothing_behind_its_name() -> None:
    topology = parse_topology("name: lab\nnodes:\n  node1:\n  node2: {}\n", file="lab.yaml")
    assert list(topology.nodes) == ["node1", "node2"]


def test_a_key_with_nothing_behind_it_counts_as_left_out() -> None:
    topology = parse_topology("name: lab\ndescription:\nnodes: {node1: }\npods:\nunderlay:\n  mtu:\n", file="lab.yaml")
    assert topology.underlay.mtu == 1500
    assert not topology.pods


def test_the_key_on_is_text_and_not_true() -> None:
    text = "name: lab\nnodes: {node1: }\nscenarios: [{name: s, steps: [{exec: {on: node1, command: ls}}]}]\n"
    for version in ("", "%YAML 1.1\n---\n"):
        assert parse_topology(version + text, file="lab.yaml").scenarios[0].steps[0].title == "exec on node1: ls"


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert (
        parse_topology("name: lab\nnodes: {node1: }\nunderlay: {mtu: 9000.0}\n", file="lab.yaml").underlay.mtu == 9000
    )


def test_anchors_may_be_used() -> None:
    text = "name: lab\nnodes: {node1: }\npods: {red: &where {node: node1}, green: *where}\n"
    assert parse_topology(text, file="lab.yaml").pods_on("node1") == ("red", "green")


def test_the_smallest_mtu_and_the_largest_are_accepted() -> None:
    for mtu in (626, 65535):
        text = f"name: lab\nnodes: {{node1: }}\nunderlay: {{mtu: {mtu}}}\n"
        assert parse_topology(text, file="lab.yaml").underlay.mtu == mtu


def test_a_subnet_with_just_enough_addresses_is_accepted() -> None:
    text = "name: lab\nnodes: {node1: }\nunderlay: {segments: {lan: {subnet: 192.168.1.0/30}}}\n"
    assert (
        plan_underlay(parse_topology(text, file="lab.yaml")).host("node1").uplink.address.ip.compressed == "192.168.1.1"
    )
