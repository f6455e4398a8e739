"""`weavelab run --list`: what a topology's scenarios are, for people or programs. Reads nothing but the topology."""

import json
from collections.abc import Sequence
from typing import Any

from testbed.topology.model import Topology
from testbed.topology.steps import Scenario


def as_text(topology: Topology, scenarios: Sequence[Scenario]) -> str:
    """A line a scenario: name, steps, tags, what it shows. Nothing is cut."""
    rows = [
        (one.name, f"{len(one.steps)} step{'s' * (len(one.steps) != 1)}", ", ".join(one.tags), one.description)
        for one in scenarios
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    number = len(scenarios)
    return "\n".join([f"{topology.name}: {number} scenario{'s' * (number != 1)}", *(f"  {line}" for line in lines)])


def as_json(topology: Topology, topology_file: str, scenarios: Sequence[Scenario]) -> str:
    """The same as one JSON object; its keys are documented in docs/reference/cli.md."""
    listed: list[dict[str, Any]] = [
        {
            "name": one.name,
            "description": one.description,
            "tags": one.tags,
            "steps": [{"name": step.title, "kind": step.kind} for step in one.steps],
        }
        for one in scenarios
    ]
    return json.dumps({"topology": topology.name, "topology_file": topology_file, "scenarios": listed}, indent=2)
