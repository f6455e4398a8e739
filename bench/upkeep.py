"""`python -m bench.upkeep` (or `make bench-upkeep`): what keeping a node right costs, and how soon it is mended.

One node with its agent and so many pods. Idle: the agent's processor time while nothing happens, long enough for at
least one full look. Mending: from the command that breaks something to the moment that the kernel has it again; the
processor time of all that, too.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import machine, write_json
from bench.options import guarded, number, sizes
from plugin.core.errors import CheckError
from testbed.machine.space import Space, run

SIZES: Final = (2, 100, 1000)
ROUNDS: Final = 3
IDLE_S: Final = 35
"""Longer than the agent's slow look at everything (plugin/agent/dataplane/upkeep.py)."""

_MENDED_S: Final = 20.0
_PAUSE_S: Final = 0.01
_IDLE_BUDGET_PERCENT: Final = 0.2
_MENDED_BUDGET_S: Final = 1.0
JSON_FILE: Final = Path("build/bench/upkeep.json")
RUN: Final = "/run/wl-upkeep"

# What is broken, and what says that it is whole.
_DAMAGE: Final = {
    "nft flush ruleset": ("nft flush ruleset", "nft list table ip weave"),
    "ip_forward = 0": ("echo 0 > /proc/sys/net/ipv4/ip_forward", "grep -q 1 /proc/sys/net/ipv4/ip_forward"),
    "overlay deleted": ("ip link del vxlan-6784", "ip link show vxlan-6784 up | grep -q weave"),
    "switch down": ("ip link set weave down", "ip link show weave up | grep -q UP"),
    "address flushed": ("ip addr flush dev weave", "ip -4 addr show weave | grep -q inet"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size; 1 when one of them could not be measured."""
    options = _options(arguments)
    os.environ["WEAVELAB_RUN"] = RUN  # before testbed.lab.paths is loaded
    return guarded(lambda: _bench(options))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-upkeep", description=__doc__, epilog="With make: make bench-upkeep ARGS='--pods 2,100'."
    )
    parser.add_argument("--pods", type=sizes, default=SIZES, help=f"default {','.join(map(str, SIZES))}")
    parser.add_argument("--rounds", type=number, default=ROUNDS, help=f"of each damage (default {ROUNDS})")
    parser.add_argument("--idle", type=number, default=IDLE_S, help=f"seconds (default {IDLE_S})")
    parser.add_argument("--json", type=Path, default=JSON_FILE, metavar="FILE", help=f"default {JSON_FILE}")
    return parser.parse_args(arguments)


def _bench(options: argparse.Namespace) -> int:
    from testbed.machine.files import check_report_path  # noqa: PLC0415

    check_report_path(options.json)
    about = machine()
    found = [_measure(pods, options.rounds, options.idle) for pods in options.pods]
    write_json(options.json, {"machine": about, "upkeep": found})
    _show(Console(highlight=False, width=None if sys.stdout.isatty() else 100), found)
    return 0


def _measure(pods: int, rounds: int, idle_s: int) -> dict[str, Any]:
    from bench.meshlab import cpu_s, pss_mb  # noqa: PLC0415 - they load testbed.lab.paths

    with _lab(pods) as (pid, node):
        _watch(pid, lambda: None, 5)  # what the start has left to do
        idle_cpu_s = _watch(pid, lambda: None, idle_s)
        mended: dict[str, float] = {}
        before_s = cpu_s(pid)
        for what, (command, whole) in _DAMAGE.items():
            mended[what] = median(_mending_s(node, command, whole) for _ in range(rounds))
        spent_s = cpu_s(pid) - before_s
        memory_mb = pss_mb(pid)
    sys.stderr.write(f"{pods} pods: idle {100 * idle_cpu_s / idle_s:.2f} % of a core\n")
    return {
        "pods": pods,
        "idle_percent": 100 * idle_cpu_s / idle_s,
        "mended_s": mended,
        "cpu_a_damage_s": spent_s / (rounds * len(_DAMAGE)),
        "pss_mb": memory_mb,
    }


def _watch(pid: int, act: Callable[[], object], seconds: float) -> float:
    from bench.meshlab import cpu_s  # noqa: PLC0415

    before_s = cpu_s(pid)
    act()
    time.sleep(seconds)
    return cpu_s(pid) - before_s


def _mending_s(node: Space, command: str, whole: str) -> float:
    """From the damage to the moment that it is whole again, asked for all the time.

    Raises:
        CheckError: It is not mended.
    """
    # One shell for both: starting programs must not be what is measured.
    script = f"{command}; until {whole} >/dev/null 2>&1; do sleep {_PAUSE_S}; done"
    began_s = time.monotonic()
    done = run(node, ["sh", "-c", script], timeout_s=_MENDED_S)
    if done.returncode != 0:
        raise CheckError(f"`{command}` was not mended within {_MENDED_S:g} s", hint=done.stderr.strip())
    took_s = time.monotonic() - began_s
    time.sleep(_PAUSE_S)
    return took_s


@contextmanager
def _lab(pods: int) -> Iterator[tuple[int, Space]]:
    from testbed.lab.paths import LabPaths  # noqa: PLC0415
    from testbed.lab.progress import Silent  # noqa: PLC0415
    from testbed.life.down import tear_down, wait_for_kernel  # noqa: PLC0415
    from testbed.life.up import bring_up  # noqa: PLC0415
    from testbed.machine import interrupts  # noqa: PLC0415
    from testbed.topology.model import NodeSpec, PodSpec, Topology  # noqa: PLC0415

    name = f"u{os.getpid() % 1_000_000}"
    topology = Topology(
        name=name, nodes={"n1": NodeSpec()}, pods={f"p{one}": PodSpec(node="n1") for one in range(1, pods + 1)}
    )
    try:
        lab = bring_up(topology, name=name, progress=Silent(), owned=True)
        (agent,) = [record.pid for record in lab.state.processes]
        yield agent, lab.nodes["n1"].space
    finally:
        if LabPaths(name).directory.exists():
            with interrupts.held_off():
                tear_down(name)
        wait_for_kernel()


def _show(console: Console, found: Sequence[dict[str, Any]]) -> None:
    table = Table(
        box=box.SIMPLE_HEAD, title="one node: what its agent costs, and how soon it mends", title_justify="left"
    )
    for column in ("pods", "idle, %", *_DAMAGE, "CPU a damage, s", "PSS, MB"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(
            str(one["pods"]),
            f"{one['idle_percent']:.2f}",
            *(f"{one['mended_s'][what]:.2f} s" for what in _DAMAGE),
            f"{one['cpu_a_damage_s']:.3f}",
            f"{one['pss_mb']:.1f}",
        )
    console.print(table)
    idle = max(one["idle_percent"] for one in found)
    slowest = max(max(one["mended_s"].values()) for one in found)
    for text, value, budget in (
        ("idle, % of a core", idle, _IDLE_BUDGET_PERCENT),
        ("mended, s", slowest, _MENDED_BUDGET_S),
    ):
        console.print(f"{text}: {value:.2f}, budget {budget:g}: {'met' if value <= budget else 'missed'}")


if __name__ == "__main__":
    sys.exit(main())
