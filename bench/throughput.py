"""TCP throughput, one stream: weavelab's pods, the hand-made rig's, and both underlays, in turns.

Every round measures every path once; odd rounds in the opposite order, so that a machine that gets busier (or cooler)
favours nobody. Ratios are taken within a round.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from bench.handmade import ADDRESSES, HandMade, hand_made
from plugin.core.errors import CheckError
from testbed.cli.lab import default_topology
from testbed.lab.paths import LabPaths
from testbed.lab.running import Lab
from testbed.life.down import tear_down
from testbed.life.up import bring_up
from testbed.machine import interrupts
from testbed.machine.space import Space
from testbed.probes.command import Processes
from testbed.probes.iperf import Transfer, measure
from testbed.topology.load import load_topology

OVERTIME_S: Final = 10.0
ATTEMPTS: Final = 2

Path = tuple[Space, Space, str]
"""From whom, to whom, at which address."""


def throughput(rounds: int, seconds: int, told: Callable[[str], None]) -> list[dict[str, float]]:
    """Measure; a list of rounds, each Mbit/s by path.

    Raises:
        CheckError: A path does not work.
    """
    with ExitStack() as stack:
        processes = Processes()
        stack.callback(processes.stop)
        lab = stack.enter_context(_lab())
        paths = _paths(lab, stack.enter_context(hand_made()))
        found: list[dict[str, float]] = []
        for number in range(rounds):
            order = list(paths) if number % 2 == 0 else list(reversed(paths))
            measured = {name: _measure(processes, name, paths[name], seconds) for name in order}
            found.append({name: measured[name] for name in paths})
            told(
                f"throughput, round {number + 1} of {rounds}: "
                + ", ".join(f"{v / 1000:.1f}" for v in found[-1].values())
            )
    return found


@contextmanager
def _lab() -> Iterator[Lab]:
    """The two-nodes lab, agents and CNI and all."""
    topology = msgspec.structs.replace(load_topology(default_topology()), scenarios=[])
    name = f"bench{os.getpid() % 1_000_000}"
    try:
        yield bring_up(topology, name=name, owned=True)
    finally:
        if LabPaths(name).directory.exists():
            with interrupts.held_off():
                tear_down(name)


def _paths(lab: Lab, rig: HandMade) -> dict[str, Path]:
    red, green, blue = (lab.pods[name] for name in ("red", "green", "blue"))
    one, two = (lab.nodes[name] for name in ("node1", "node2"))
    hand = rig.spaces
    return {
        "same node": (red.space, green.space, str(green.address)),
        "hand-made bridge": (hand["a"], hand["b"], ADDRESSES["b"]),
        "cross node": (red.space, blue.space, str(blue.address)),
        "hand-made VXLAN": (hand["a"], hand["c"], ADDRESSES["c"]),
        "underlay": (one.space, two.space, str(two.uplink_address)),
        "hand-made underlay": (hand["h1"], hand["h2"], ADDRESSES["h2"]),
    }


def _measure(processes: Processes, name: str, path: Path, seconds: int) -> float:
    client, server, address = path
    for _ in range(ATTEMPTS):
        found = measure(processes, client, server, address, Transfer(seconds=seconds), timeout_s=seconds + OVERTIME_S)
        if not found.result.error and found.result.mbit > 0:
            return found.result.mbit
        time.sleep(0.5)
    raise CheckError(f"throughput, {name}: {found.result.error or 'nothing arrived'}")
