"""`python -m bench.mesh` (or `make bench-mesh`): real labs by size, from the start of the agents to the last ping."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import machine, write_json
from bench.options import guarded, number, sizes
from plugin.core.errors import WeaveError

SIZES: Final = (2, 10, 20, 40, 100)
ROUNDS: Final = 3
ROUNDS_UP_TO: Final = 40
"""Larger labs are measured once: they take long."""

IDLE_S: Final = 10
JSON_FILE: Final = Path("build/bench/mesh.json")
RUN: Final = "/run/wl-mesh"
"""Its own place, so that it never meets the labs of a person."""

PARTS: Final = {
    "meshed_s": "meshed, s", "attached_s": "pods attached, s", "first_ping_s": "first ping, s",
    "pinged_s": "pods answer, s", "cpu_s": "CPU, s", "pss_max_mb": "PSS, MB", "idle_percent": "idle, %",
}  # fmt: skip
BUDGETS: Final = (
    (2, "first_ping_s", 0.7),
    (40, "meshed_s", 3.0),
    (100, "pinged_s", 10.0),
    (0, "pss_max_mb", 20.0),
    (40, "idle_percent", 0.2),
)
"""Nodes (0: any), figure, the most it should be. They are compared with what was found; nothing fails over them."""

Rounds = dict[int, list[dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size, in turns; 1 when one of them could not be measured."""
    options = _options(arguments)
    os.environ["WEAVELAB_RUN"] = RUN  # before testbed.lab.paths is loaded
    return guarded(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> int:
    from testbed.machine.files import check_report_path  # noqa: PLC0415

    check_report_path(options.json)
    about = machine()
    rounds, failures = _measure(options)
    best = [
        {"nodes": nodes, **{part: min(one[part] for one in found) for part in PARTS}}
        for nodes, found in rounds.items()
        if found
    ]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    _print(console, best)
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    write_json(options.json, {"machine": about, "best": best, "rounds": rounds, "failures": failures})
    console.print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end; all in {options.json}", markup=False
    )
    return 1 if failures else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-mesh", description=__doc__, epilog="With make: make bench-mesh ARGS='--nodes 2,10 --rounds 1'."
    )
    parser.add_argument("--nodes", type=sizes, default=SIZES, help=f"sizes (default {','.join(map(str, SIZES))})")
    parser.add_argument("--rounds", type=number, default=ROUNDS, help=f"of sizes up to {ROUNDS_UP_TO} (%(default)s)")
    parser.add_argument("--idle", type=number, default=IDLE_S, help="seconds of doing nothing (%(default)s)")
    parser.add_argument("--json", type=Path, default=JSON_FILE, metavar="FILE", help="default %(default)s")
    return parser.parse_args(arguments)


def _measure(options: argparse.Namespace) -> tuple[Rounds, list[str]]:
    from bench.meshlab import measure_mesh  # noqa: PLC0415

    rounds: Rounds = {nodes: [] for nodes in options.nodes}
    failures: list[str] = []
    for turn in range(options.rounds):
        for nodes in options.nodes:
            if turn and nodes > ROUNDS_UP_TO:
                continue
            load = os.getloadavg()[0]
            try:
                found = measure_mesh(nodes, options.idle)
            except WeaveError as error:
                failures.append(f"{nodes} nodes, round {turn + 1}, load {load:.0f}: {error.message}")
                continue
            rounds[nodes].append({"load": load, **found})
            sys.stderr.write(f"{nodes} nodes, round {turn + 1}: meshed in {found['meshed_s']:.2f} s, load {load:.0f}\n")
    return rounds, failures


def _print(console: Console, best: Sequence[Mapping[str, float]]) -> None:
    table = Table(title="real labs, best of the rounds", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("nodes", *PARTS.values(), "budgets"):
        table.add_column(title, justify="right")
    for row in best:
        judged = [
            f"{PARTS[part]} <= {most:g} {'met' if row[part] <= most else 'missed'}"
            for nodes, part, most in BUDGETS
            if nodes in {0, row["nodes"]}
        ]
        table.add_row(str(row["nodes"]), *(f"{row[part]:.3g}" for part in PARTS), "\n".join(judged))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
