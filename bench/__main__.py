"""`python -m bench` (or `make bench`): options, the order of the measurements, and what is printed at the end."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench.figures import (
    bringup_summary,
    cni_summary,
    guard_summary,
    machine,
    print_bringup,
    print_cni,
    print_guard,
    print_throughput,
    throughput_summary,
    write_json,
)
from bench.options import guarded, number, sizes
from plugin.core.errors import MissingError

SIZES: Final = (10, 50, 100)
BRINGUP_ROUNDS: Final = 3
THROUGHPUT_ROUNDS: Final = 8
"""Many short ones: single transfers differ by a tenth and more, whatever is measured."""

CNI_ROUNDS: Final = 30
CNI_ROUNDS_A_BURST: Final = 6
"""A burst is a hundred calls: fewer of them tell as much."""

PODS: Final = 100
AT_ONCE: Final = 8
SECONDS: Final = 1
JSON_FILE: Final = Path("build/bench/bench.json")
STOCK_TOOLS: Final = ("mnexec", "brctl", "ifconfig", "ethtool", "unshare")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 0 whatever the figures are."""
    options = _options(arguments)
    return guarded(lambda: _bench(options))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, epilog="With make: make bench ARGS='--quick'. Exit code 0: measured."
    )
    parser.add_argument("--quick", action="store_true", help="10 nodes, 10 pods, 1 round: does it work at all?")
    parser.add_argument("--only", choices=["bringup", "throughput", "guard", "cni"], help="leave the others out")
    parser.add_argument(
        "--rounds",
        type=number,
        help=f"default {BRINGUP_ROUNDS} of bring-up, {THROUGHPUT_ROUNDS} of throughput and of guard, {CNI_ROUNDS} of "
        f"single CNI calls; of CNI bursts one for {CNI_ROUNDS_A_BURST} of these",
    )
    parser.add_argument("--nodes", type=sizes, help=f"sizes of the bring-up (default {','.join(map(str, SIZES))})")
    parser.add_argument("--seconds", type=number, default=SECONDS, help=f"of each transfer (default {SECONDS})")
    parser.add_argument("--pods", type=number, help=f"pods of a CNI burst (default {PODS})")
    parser.add_argument("--at-once", type=number, default=AT_ONCE, help=f"its processes at a time (default {AT_ONCE})")
    parser.add_argument("--json", type=Path, default=JSON_FILE, metavar="FILE", help=f"default {JSON_FILE}")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else None)
    options.pods = options.pods or (10 if options.quick else PODS)
    options.nodes = options.nodes or (SIZES[:1] if options.quick else SIZES)
    return options


def _bench(options: argparse.Namespace) -> int:
    from testbed.machine.files import check_report_path  # noqa: PLC0415

    check_report_path(options.json)
    document: dict[str, Any] = {"machine": machine()}
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    if options.only in {None, "bringup"}:
        document["bringup"] = _bringup(options)
        print_bringup(console, document["bringup"])
    if options.only in {None, "throughput"}:
        from bench.throughput import throughput  # noqa: PLC0415

        rounds = throughput(options.rounds or THROUGHPUT_ROUNDS, options.seconds, _tell)
        document["throughput"] = {"seconds": options.seconds, **throughput_summary(rounds)}
        print_throughput(console, document["throughput"])
    if options.only in {None, "guard"}:
        from bench.guard import guard_cost  # noqa: PLC0415

        rounds = guard_cost(options.rounds or THROUGHPUT_ROUNDS, options.seconds, _tell)
        document["guard"] = {"seconds": options.seconds, **guard_summary(rounds)}
        print_guard(console, document["guard"])
    if options.only in {None, "cni"}:
        document["cni"] = _cni(options)
        print_cni(console, document["cni"])
    write_json(options.json, document)
    load = os.getloadavg()[0]
    console.print(f"{os.cpu_count()} CPUs, load {load:.1f} at the end; all figures in {options.json}", markup=False)
    return 0


def _bringup(options: argparse.Namespace) -> list[dict[str, Any]]:
    from bench.bringup import stock_mininet, weavelab  # noqa: PLC0415

    missing = [tool for tool in STOCK_TOOLS if shutil.which(tool) is None]
    if missing:
        raise MissingError(
            f"stock Mininet needs {', '.join(missing)}, which this machine does not have",
            hint="`make bench` installs them (packages mininet, bridge-utils, net-tools, ethtool); "
            "or leave it out: --only throughput, --only cni",
        )
    found, total = [], options.rounds or BRINGUP_ROUNDS
    for nodes in options.nodes:
        rounds = []
        for turn in range(total):
            order = [("weavelab", weavelab), ("mininet", stock_mininet)]
            rounds.append({who: take(nodes) for who, take in (order if turn % 2 == 0 else order[::-1])})
            ours, theirs = rounds[-1]["weavelab"], rounds[-1]["mininet"]
            _tell(
                f"{nodes} nodes, round {turn + 1} of {total}: up {ours['up_s']:.2f} s, "
                f"stock Mininet {theirs['up_s']:.2f} s"
            )
        found.append(bringup_summary(nodes, rounds))
    return found


def _cni(options: argparse.Namespace) -> dict[str, Any]:
    from bench.cni import cni  # noqa: PLC0415

    rounds = options.rounds or CNI_ROUNDS
    bursts = -(-rounds // CNI_ROUNDS_A_BURST)
    found = cni(rounds, bursts, options.pods, options.at_once, _tell)
    return {
        "at_once": options.at_once,
        "one at a time": cni_summary(found["one at a time"], 1),
        "burst": cni_summary(found["burst"], options.pods),
    }


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
