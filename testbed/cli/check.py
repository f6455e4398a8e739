"""`weavelab check`: is a topology file right, what does it have, what does this machine lack for it? Makes nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from testbed.cli.topology_file import file_argument, one_file
from testbed.topology.model import KUBELET_KINDS, KubeletKind

if TYPE_CHECKING:
    from testbed.topology.load import TopologyError
    from testbed.topology.model import Topology

_EXAMPLES: Final = """
\b
Examples:
  weavelab check topologies/racks.yaml
  weavelab check - < topologies/racks.yaml
  weavelab check topologies/racks.yaml --format json

\b
Exit code: 0 the file is right (whatever the machine lacks), 2 it is not.
"""


@click.command(epilog=_EXAMPLES, short_help="Check a topology file, and this machine for it; needs no root.")
@file_argument
@click.option("--kubelet", type=click.Choice(KUBELET_KINDS), help="Who makes pods, instead of whom the file names.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or programs.",
)
def check(file: Path | None, topology: Path | None, kubelet: KubeletKind | None, output: str) -> int:
    """Check a topology file: every mistake that `up` and `run` would find, with its line and column.

    Shows what the file has, and as notes what this machine lacks for it: root, programs, links that the kernel cannot
    make, a container runtime. Nothing is made, and no lab is needed.
    """
    from testbed.cli.lab import default_topology  # noqa: PLC0415 - `--help` must not wait for the lab's imports
    from testbed.life.lacks import lacks_of  # noqa: PLC0415
    from testbed.scenario.choice import tools_of  # noqa: PLC0415
    from testbed.topology.load import TopologyError, load_topology  # noqa: PLC0415

    path = one_file(file, topology) or default_topology()
    try:
        found = load_topology(path, kubelet=kubelet)
    except TopologyError as error:
        if output == "table":
            raise
        click.echo(json.dumps(_wrong(error), indent=2))
        return error.exit_code
    lacks = [{"message": one.message, "hint": one.hint} for one in lacks_of(found, tools_of(found.scenarios))]
    has = _contents(found)
    if output == "json":
        click.echo(json.dumps({"valid": True, "file": str(path), "problems": [], **has, "lacks": lacks}, indent=2))
        return 0
    click.echo(f"{path} is right: {found.name}" + (f", {found.description}" if found.description else ""))
    for label, text in _lines(has):
        click.echo(f"  {label:10} {text}")
    if not lacks:
        click.echo("this machine has what it needs")
    for lack in lacks:
        click.echo(f"note: {lack['message']}" + (f"\n      {lack['hint']}" if lack["hint"] else ""))
    return 0


def _wrong(error: "TopologyError") -> dict[str, Any]:
    problems = [
        {
            "line": None if one.mark is None else one.mark.line,
            "column": None if one.mark is None else one.mark.column,
            "message": one.message,
        }
        for one in error.problems
    ]
    return {"valid": False, "file": error.file, "problems": problems}


def _contents(topology: "Topology") -> dict[str, Any]:
    """What the file has; these are the keys of the JSON output."""
    return {
        "name": topology.name,
        "description": topology.description,
        "kubelet": topology.kubelet,
        "range": topology.network.range,
        "mtu": topology.overlay_mtu,
        "nodes": list(topology.nodes),
        "pods": {name: pod.node for name, pod in topology.pods.items()},
        "segments": {name: segment.subnet for name, segment in topology.underlay.segments.items()},
        "routers": list(topology.underlay.routers),
        "scenarios": [
            {"name": one.name, "steps": len(one.steps), "tags": one.tags, "description": one.description}
            for one in topology.scenarios
        ],
    }


def _lines(has: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people, without what is not there."""
    from testbed.nearest import listing  # noqa: PLC0415

    scenarios = has["scenarios"]
    tags = dict.fromkeys(tag for one in scenarios for tag in one["tags"])
    lines = [
        ("nodes", _counted(has["nodes"])),
        ("pods", _counted([f"{pod} on {node}" for pod, node in has["pods"].items()])),
        ("segments", _counted([f"{name} {subnet}" for name, subnet in has["segments"].items()])),
        ("routers", _counted(has["routers"])),
        ("pod range", f"{has['range']}, MTU {has['mtu']}"),
        ("kubelet", has["kubelet"]),
        ("scenarios", _counted([one["name"] for one in scenarios])),
        ("steps", str(sum(one["steps"] for one in scenarios))),
        ("tags", listing(tags) if tags else ""),
    ]
    return [(label, text) for label, text in lines if text not in {"", "0"}]


def _counted(names: list[str]) -> str:
    from testbed.nearest import listing  # noqa: PLC0415

    return f"{len(names)}: {listing(names)}" if names else ""
