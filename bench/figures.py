"""Numbers to sentences: medians, ratios, the tables in the terminal and the JSON document. Measures nothing."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

VERSION: Final = 1

BRINGUP_BUDGET: Final = 1 / 15
BRINGUP_BUDGET_NODES: Final = 100
THROUGHPUT_BUDGET: Final = 0.97
"""The project's goals as ratios. They are compared with what was found; nothing fails because of them."""


def machine() -> dict[str, Any]:
    """What the figures were measured on: without it they say little."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def bringup_summary(nodes: int, rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """One size: medians in seconds, and the median of the rounds' ratios weavelab : Mininet.

    Args:
        nodes: How many.
        rounds: Of each `{"weavelab": {"up_s", "down_s", "freed_s"}, "mininet": {...}}`.
    """
    parts = ("up_s", "down_s", "freed_s")
    medians = {who: {part: _round(median(r[who][part] for r in rounds)) for part in parts} for who in rounds[0]}
    ratios = {part: _round(median(r["weavelab"][part] / r["mininet"][part] for r in rounds)) for part in parts}
    return {"nodes": nodes, "median": medians, "ratio": ratios, "rounds": list(rounds)}


def throughput_summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians in Mbit/s, and the medians of the rounds' ratios.

    Args:
        rounds: Of each Mbit/s by the names of `bench.throughput.PATHS`.
    """
    pairs = {
        "same node : hand-made bridge": ("same node", "hand-made bridge"),
        "cross node : hand-made VXLAN": ("cross node", "hand-made VXLAN"),
        "same node : underlay": ("same node", "underlay"),
        "cross node : underlay": ("cross node", "underlay"),
        "hand-made VXLAN : underlay": ("hand-made VXLAN", "underlay"),
    }
    found = {name: [r[ours] / r[theirs] for r in rounds] for name, (ours, theirs) in pairs.items()}
    return {
        "median_mbit": {path: _round(median(r[path] for r in rounds)) for path in rounds[0]},
        "ratio": {name: _round(median(ratios)) for name, ratios in found.items()},
        "ratio_min_max": {name: [_round(min(ratios)), _round(max(ratios))] for name, ratios in found.items()},
        "rounds": list(rounds),
    }


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def print_bringup(console: Console, sizes: Sequence[Mapping[str, Any]]) -> None:
    """The table of bring-up and tear-down."""
    table = Table(title="bare nodes: seconds, median", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("nodes", "what", "stock Mininet", "weavelab", "ratio", "budget"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for size in sizes:
        for part, what in (("up_s", "up"), ("down_s", "down"), ("freed_s", "down, kernel done")):
            ratio = size["ratio"][part]
            judged = part == "up_s" and size["nodes"] == BRINGUP_BUDGET_NODES
            table.add_row(
                str(size["nodes"]) if part == "up_s" else "",
                what,
                f"{size['median']['mininet'][part]:.3f}",
                f"{size['median']['weavelab'][part]:.3f}",
                f"1/{1 / ratio:.1f}" if ratio < 1 else f"{ratio:.2f}",
                f"<= 1/15 {'met' if ratio <= BRINGUP_BUDGET else 'missed'}" if judged else "",
            )
    console.print(table)


def print_throughput(console: Console, found: Mapping[str, Any]) -> None:
    """The tables of throughput."""
    rates = Table(title="TCP, one stream: Gbit/s, median", title_justify="left", box=box.SIMPLE_HEAD)
    rates.add_column("path")
    rates.add_column("Gbit/s", justify="right")
    for path, mbit in found["median_mbit"].items():
        rates.add_row(path, f"{mbit / 1000:.2f}")
    ratios = Table(title="ratios within a round, median", title_justify="left", box=box.SIMPLE_HEAD)
    ratios.add_column("")
    ratios.add_column("ratio", justify="right")
    ratios.add_column("lowest to highest", justify="right")
    ratios.add_column("budget", justify="right")
    for name, ratio in found["ratio"].items():
        judged = name.endswith(("hand-made bridge", ": hand-made VXLAN"))
        verdict = "met" if ratio >= THROUGHPUT_BUDGET else "missed"
        ratios.add_row(
            name,
            f"{ratio:.3f}",
            "{:.2f} to {:.2f}".format(*found["ratio_min_max"][name]),
            f">= {THROUGHPUT_BUDGET} {verdict}" if judged else "",
        )
    console.print(rates)
    console.print(ratios)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document, as the user who called sudo if it was one.

    Raises:
        OSError: It cannot be written.
    """
    from testbed.report.files import write_report  # noqa: PLC0415 - the same rules as for all reports

    write_report(path, json.dumps({"version": VERSION, **document}, indent=2) + "\n")
