"""Numbers to sentences: medians, ratios, the tables in the terminal and the JSON document. Measures nothing."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bench.cni import Cost

VERSION: Final = 1

BRINGUP_BUDGET: Final = 1 / 15
BRINGUP_BUDGET_NODES: Final = 100
THROUGHPUT_BUDGET: Final = 0.97
GUARD_BUDGETS: Final = {"TCP": 0.97, "packets": 0.95}
CNI_BUDGETS: Final = {
    ("one at a time", "ADD"): 0.65,
    ("one at a time", "DEL"): 0.5,
    ("burst", "ADD"): 0.6,
    ("burst", "DEL"): 0.8,
}
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


def guard_summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians (Mbit/s, thousands of packets a CPU second), and the medians of the rounds' ratios guarded : plain.

    Args:
        rounds: Of each the figures by the names of `bench.guard.guard_cost`.
    """
    names = [name.removesuffix(", guarded") for name in rounds[0] if name.endswith(", guarded")]
    found = {name: [r[f"{name}, guarded"] / r[f"{name}, plain"] for r in rounds] for name in names}
    return {
        "median": {name: _round(median(r[name] for r in rounds)) for name in rounds[0]},
        "ratio": {name: _round(median(ratios)) for name, ratios in found.items()},
        "ratio_min_max": {name: [_round(min(ratios)), _round(max(ratios))] for name, ratios in found.items()},
        "rounds": list(rounds),
    }


def cni_summary(rounds: Sequence[Mapping[str, Mapping[str, "Cost"]]], pods: int) -> dict[str, Any]:
    """Medians and lowest values in seconds a pod, and the ratios weavelab : reference.

    Args:
        rounds: Of each `{who: {"ADD": Cost, "DEL": Cost}}`.
        pods: How many pods a round had.
    """
    found: dict[str, Any] = {"pods": pods, "median": {}, "min": {}, "ratio": {}, "ratio_min_max": {}}
    for verb in ("ADD", "DEL"):
        for part in ("wall_s", "cpu_s"):
            name = f"{verb} {part}"
            taken = {who: [getattr(r[who][verb], part) / pods for r in rounds] for who in rounds[0]}
            ratios = [ours / theirs for ours, theirs in zip(taken["weavelab"], taken["reference"], strict=True)]
            found["median"][name] = {who: _round(median(values)) for who, values in taken.items()}
            found["min"][name] = {who: _round(min(values)) for who, values in taken.items()}
            found["ratio"][name] = _round(median(ratios))
            found["ratio_min_max"][name] = [_round(min(ratios)), _round(max(ratios))]
    found["rounds"] = [
        {
            who: {verb: {"wall_s": _round(c.wall_s), "cpu_s": _round(c.cpu_s)} for verb, c in of.items()}
            for who, of in r.items()
        }
        for r in rounds
    ]
    return found


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


def print_guard(console: Console, found: Mapping[str, Any]) -> None:
    """The table of what the guard costs."""
    table = Table(
        title="pods cannot pretend: TCP in Gbit/s, 64-byte packets in thousands a CPU second", title_justify="left",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for column in ("", "without", "with", "ratio", "lowest to highest", "budget"):
        table.add_column(column, justify="right" if column else "left")
    for name, ratio in found["ratio"].items():
        kind = name.partition(",")[0]
        scale, budget = 1000 if kind == "TCP" else 1, GUARD_BUDGETS[kind]
        table.add_row(
            name,
            *(f"{found['median'][f'{name}, {who}'] / scale:.1f}" for who in ("plain", "guarded")),
            f"{ratio:.3f}",
            "{:.2f} to {:.2f}".format(*found["ratio_min_max"][name]),
            f">= {budget} {'met' if ratio >= budget else 'missed'}",
        )
    console.print(table)


def print_cni(console: Console, found: Mapping[str, Any]) -> None:
    """The table of CNI calls."""
    table = Table(
        title="CNI, whole processes: milliseconds a pod, median [lowest]", title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in ("how", "what", "reference", "weavelab", "ratio", "lowest to highest", "CPU ratio", "budget"):
        table.add_column(column, justify="left" if column in {"how", "what"} else "right")
    for (how, verb), budget in CNI_BUDGETS.items():
        of = found[how]
        name, cpu = f"{verb} wall_s", f"{verb} cpu_s"
        shown = {
            who: f"{of['median'][name][who] * 1e3:.1f} [{of['min'][name][who] * 1e3:.1f}]" for who in of["median"][name]
        }
        pods = f"{of['pods']} pods, {found['at_once']} at once" if how == "burst" else how
        table.add_row(
            pods if verb == "ADD" else "",
            verb,
            shown["reference"],
            shown["weavelab"],
            f"{of['ratio'][name]:.2f}",
            "{:.2f} to {:.2f}".format(*of["ratio_min_max"][name]),
            f"{of['ratio'][cpu]:.2f}",
            f"<= {budget} {'met' if of['ratio'][name] <= budget else 'missed'}",
        )
    console.print(table)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document, as the user who called sudo if it was one.

    Raises:
        OSError: It cannot be written.
    """
    from testbed.machine.files import write_report  # noqa: PLC0415 - the same rules as for all reports

    write_report(path, json.dumps({"version": VERSION, **document}, indent=2) + "\n")
