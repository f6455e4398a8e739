"""Listings: whole in a pipe, folded on a narrow terminal, the columns and keys that the documentation names."""

import io
import json
import re
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from ruamel.yaml import YAML

from testbed.lab import state, status, tables
from testbed.lab.listing import Screen, clock, show_values, some
from testbed.lab.paths import LabPaths
from testbed.topology.load import load_topology
from tests.support.project import ROOT


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def observed(**changes: Any) -> dict[str, Any]:
    """What `status` finds of a lab whose agents do not answer, with some values changed."""
    topology = load_topology(ROOT / "topologies" / "two-nodes.yaml")
    paths = LabPaths("nowhere")
    made = state.new_state(paths, topology, topology_file="topologies/two-nodes.yaml", members=())
    pods = {
        name: state.PodRecord(
            node=spec.node, container_id="c" * 64, address="10.32.0.2", mac="0a:58:0a:20:00:02", host_ifname="vethweplccccccc"
        )
        for name, spec in topology.pods.items()
    }  # fmt: skip
    found = msgspec.structs.replace(made, phase="ready", step="", pods=pods)
    with patch.object(state, "read", return_value=found), patch.object(state, "labs", return_value=["nowhere"]):
        (lab,) = status.observe("nowhere")
    return lab | changes


def shown(labs: list[dict[str, Any]], stream: io.StringIO, *, wide: bool = False) -> str:
    tables.print_tables(labs, wide=wide, screen=Screen(stream))
    return stream.getvalue()


def many(count: int) -> dict[str, Any]:
    """A lab of many nodes, each with a pod, of which no two agents see each other."""
    lab = observed()
    names = [f"node{number}" for number in range(1, count + 1)]
    pods = [lab["pods"][0] | {"name": f"pod{number}", "node": name} for number, name in enumerate(names, start=1)]
    pairs = [{"from": a, "to": b, "state": "failed", "reason": "no answer"} for a in names for b in names if a != b]
    return lab | {
        "nodes": [lab["nodes"][0] | {"name": name} for name in names],
        "pods": pods,
        "pairs_in_trouble": pairs,
    }


@pytest.mark.parametrize("columns", ["20", "80"])
@pytest.mark.parametrize("wide", [False, True])
def test_in_a_pipe_nothing_is_cut_and_no_line_ends_with_blanks(
    monkeypatch: pytest.MonkeyPatch, columns: str, *, wide: bool
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    reason = "words that go on and on " * 20
    problem = {"object": "uplink", "cause": reason, "advice": "wait", "since": "2026-11-28T15:30:00+00:00"}
    lab = observed()
    lab["nodes"][0]["problems"] = [problem]
    text = shown([lab], io.StringIO(), wide=wide)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert reason.strip() in text
    assert text.count("0a:58:0a:20:00:02") == len(lab["pods"])
    assert not re.search(r"…|\x1b", text)
    assert ("c" * 64 in text) == wide


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, lab: dict[str, Any], *, wide: bool = False) -> list[str]:
    """The lines that a terminal so wide is sent, without colours."""
    monkeypatch.setenv("COLUMNS", str(columns))
    return re.sub(r"\x1b\[[0-9;]*m", "", shown([lab], Terminal(), wide=wide)).splitlines()


@pytest.mark.parametrize(("columns", "wide"), [(20, False), (40, False), (80, True)])
def test_on_a_terminal_without_room_for_the_words_a_row_is_a_few_lines(
    monkeypatch: pytest.MonkeyPatch, columns: int, *, wide: bool
) -> None:
    lines = on_terminal(monkeypatch, columns, observed(), wide=wide)
    start = lines.index("red")
    assert lines[start : start + 4] == [
        "red",
        "  node       node1",
        "  address    10.32.0.2",
        "  mac        0a:58:0a:20:00:02",
    ]
    assert ("  container  " + "c" * 64 in lines) == wide


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_sentences_go_on_in_their_column(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    reason = " ".join(f"word{number}" for number in range(30))
    lab = observed()
    lab["pairs_in_trouble"] = [{"from": "node1", "to": "node2", "state": "failed", "reason": reason}]
    lines = on_terminal(monkeypatch, columns, lab)
    table = lines[lines.index("peers in trouble") : lines.index("nodes")]
    assert max(map(len, table)) <= columns
    assert re.findall(r"word\d+", " ".join(table)) == reason.split()
    assert any(line.endswith("0a:58:0a:20:00:02   vethweplccccccc") for line in lines), "and MACs stay whole"


def test_no_text_is_an_order_to_rich_or_to_the_terminal() -> None:
    lab = observed()
    lab["nodes"][0]["problems"] = [
        {
            "object": "state",
            "cause": "[Errno 28] [red]no[/red] space\x1b[2J",
            "advice": "",
            "since": "2026-11-28T15:30:00Z",
        }
    ]
    assert "[Errno 28] [red]no[/red] space\\x1b[2J" in shown([lab], io.StringIO())


def test_a_hundred_nodes_are_a_line_each_and_what_is_left_out_is_said() -> None:
    lab = many(100)
    text = shown([lab], io.StringIO())
    assert len(text.splitlines()) < 100 + 100 + 40
    assert f"{(100 - 20) * 99} more pairs are in trouble: `--format wide` shows all" in text
    assert len(shown([lab], io.StringIO(), wide=True).splitlines()) > 100 * 99


def test_what_many_agents_say_of_one_is_one_line() -> None:
    lab = many(100)
    lab["pairs_in_trouble"] = [pair for pair in lab["pairs_in_trouble"] if pair["to"] == "node7"]
    text = shown([lab], io.StringIO())
    assert re.search(r"node1, node2, node3, .+ and 91 more +node7 +failed +no answer", text)
    assert "more pairs" not in text
    assert len(re.findall(r"node7 +failed +no answer", shown([lab], io.StringIO(), wide=True))) == 99


def test_programs_get_the_same_value_as_json_and_as_yaml() -> None:
    lab = observed()
    as_json, as_yaml = io.StringIO(), io.StringIO()
    show_values({"labs": [lab]}, "json", as_json)
    show_values({"labs": [lab]}, "yaml", as_yaml)
    assert json.loads(as_json.getvalue()) == {"labs": [lab]}
    assert YAML(typ="safe", pure=True).load(as_yaml.getvalue()) == {"labs": [lab]}
    assert list(json.loads(as_json.getvalue())["labs"][0]) == list(lab), "in the order in which they are documented"


def test_a_lab_that_is_not_whole_is_not_said_to_be_so_since_it_was_made() -> None:
    """When an agent died nobody has seen; the lab's creation is told as what it is."""
    lab = observed(created="2026-11-28T12:18:17Z")
    assert not status.healthy(lab)
    first = shown([lab], io.StringIO()).splitlines()[0]
    assert first.startswith("nowhere: not whole, created ")
    assert "since" not in shown([lab], io.StringIO())
    assert re.search(rf"created {re.escape(clock('2026-11-28T12:18:17Z'))}\b", first)


def test_the_time_of_a_problem_is_when_an_agent_first_saw_it() -> None:
    lab = observed(created="2026-11-28T12:18:17Z")
    lab["nodes"][0]["problems"] = [
        {"object": "uplink", "cause": "down", "advice": "", "since": "2026-11-28T12:18:22+00:00"}
    ]
    text = shown([lab], io.StringIO())
    assert "seen since" in text
    assert clock("2026-11-28T12:18:22Z") in text


def test_few_names_are_all_named_and_of_many_the_first() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([f"n{number}" for number in range(100)]).endswith("n7 and 92 more")
    assert some([f"n{number}" for number in range(100)], all_of_them=True).endswith("n99")


# ------------------------------------------------------------------------------------------------------- documentation


def documented(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading of a page, without its head."""
    text = (ROOT / page).read_text()
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section[1].splitlines() if line[:1] == "|"
    ]
    return [row for row in rows if not row[0].startswith("--")]


def test_the_reference_lists_every_column_with_its_key() -> None:
    told = {
        (table, column, key.strip("`"), wide == "wide")
        for table, column, key, wide in (row for row in documented("docs/reference/cli.md", "status") if len(row) == 4)
        if table in {"nodes", "pods", "problems", "peers in trouble"}
    }
    there = {
        (listing.title, column.title, column.key, column.wide)
        for listing in (tables.NODES, tables.PODS, tables.PROBLEMS, tables.PAIRS)
        for column in listing.columns
    }
    assert told == there


def test_the_guide_lists_every_key() -> None:
    lab = observed()
    named = {
        (first.strip("`").removesuffix("[]"), rest)
        for cells, rest in (row for row in documented("docs/guide/lab.md", "What is there") if len(row) == 2)
        for first in cells.split(", ")
        if first != "key"
    }
    assert {name for name, _ in named} == set(lab)
    explained = dict(named)
    for key in ("nodes", "pods"):
        names = set(re.findall(r"`([a-z_]+)(?:\[\])?`", explained[key]))
        assert set(lab[key][0]) <= names, key
