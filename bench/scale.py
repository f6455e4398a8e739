"""`python -m bench.scale` (or `make bench-scale`): what a simulated cluster costs and how fast it is, by its size.

Agents are `plugin.core.node.Node` over the network of tests/support/simulation.py: no root, no sockets, seeded time. A
cluster starts joined: every table of members and the ring are put in place directly, because joining is not measured.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.options import sizes
from plugin.core.ipam.ring import Ring
from plugin.core.messages.values import Member, MemberState, RingState, Seat
from plugin.core.node import Node
from tests.support.simulation import Machine, World

SIZES: Final = (10, 100, 500, 2000)
SEED: Final = 1
JSON_FILE: Final = Path("build/bench/scale.json")
NETWORK: Final = IPv4Network("10.32.0.0/12")
WARM_S: Final = 5.0
QUIET_S: Final = 20.0
LIMIT_S: Final = 60.0
STEP_S: Final = 0.05
"""How finely times are read."""

Figures = dict[str, float]


class Joined(World):
    """A cluster that is joined already, quiet, without pods."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__(seed, count + 1, network=NETWORK)
        *members, self.newcomer = self.machines.values()
        for machine in self.machines.values():
            machine.uid, machine.life = f"{self.rng.getrandbits(64):016x}", 1
        seats = tuple(sorted(Seat(one.uid, one.name, one.address) for one in members))
        state = RingState("0" * 16, 1, seats, (), Ring(NETWORK).found([one.uid for one in members]))
        records = [_record(one) for one in members]
        for machine in members:
            node = self.raise_node(machine)
            node.council.adopt(state)
            self.settle(machine)  # nobody is known yet, so nobody is told
            for record in records:
                if record.name != machine.name:
                    node.members.learn(record)
            node.members._news.clear()  # noqa: SLF001 - that it is all known already is the point
        self.members = members

    def raise_node(self, machine: Machine) -> Node:
        """An agent without pods and without a wish for addresses."""
        seeds = [next(iter(self.machines.values())).address] if machine is self.newcomer else []
        machine.node = Node(me=_record(machine), keys=self.keys, seeds=seeds, founders=0, chance=self.rng)
        return machine.node

    def check_owners(self) -> None:
        """Not here: it looks at every address of every agent."""

    def took(self, holds: Callable[[Node], bool], what: str) -> float:
        """Until it holds for every member that runs."""
        nodes = [machine.node for machine in self.members if machine.node is not None]
        return self.run_until(lambda: all(holds(node) for node in nodes), LIMIT_S, what, step_s=STEP_S)


def _record(machine: Machine) -> Member:
    return Member(machine.name, machine.uid, machine.address, machine.life)


def measure_quiet(world: Joined) -> Figures:
    """Messages and bytes per node and second while nothing happens."""
    world.run(WARM_S)
    before = dict(world.sent)
    world.run(QUIET_S)
    share = QUIET_S * len(world.members)
    sent = {key: (world.sent[key] - before[key]) / share for key in before}
    return {"messages": sent["datagrams"] + sent["calls"], "bytes": sent["bytes"]}


def measure(count: int, seed: int) -> Figures:
    """All figures of one size."""
    world = Joined(seed, count)
    found = measure_quiet(world)
    first, last = world.members[0], world.members[-1]

    before = world.sent["datagrams"] + world.sent["calls"]
    pod = ("weave", "pod", "eth0")
    assert world.attach(first, pod), "the first node owns addresses"
    address = first.pods[pod]
    found["pod_known_s"] = world.took(lambda node: node.directory.locate(address) is not None, "the pod is known")
    found["pod_messages"] = world.sent["datagrams"] + world.sent["calls"] - before

    newcomer = world.newcomer
    world.raise_node(newcomer)
    world.settle(newcomer)
    found["agent_known_s"] = world.took(lambda node: newcomer.name in node.members.others, "the newcomer is known")

    world.crash(last, disk=True, pods=True)
    found["dead_known_s"] = world.took(
        lambda node: node.members.others[last.name].state is MemberState.FAILED, "the dead agent is known as failed"
    )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size, print, write."""
    parser = argparse.ArgumentParser(
        prog="make bench-scale", description=__doc__, epilog="With make: make bench-scale ARGS='--nodes 10,100'."
    )
    parser.add_argument("--nodes", type=sizes, default=SIZES, help=f"sizes (default {','.join(map(str, SIZES))})")
    parser.add_argument("--seed", type=int, default=SEED, help="default %(default)s")
    parser.add_argument("--json", type=Path, default=JSON_FILE, metavar="FILE", help="default %(default)s")
    options = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    for count in options.nodes:
        found.append({"nodes": count, **measure(count, options.seed)})
        sys.stderr.write(f"{count} nodes: done\n")
    growth = {key: found[-1][key] / found[0][key] for key in ("messages", "bytes")}
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    table = Table(title=f"simulated agents, seed {options.seed}", title_justify="left", box=box.SIMPLE_HEAD)
    columns = {
        "nodes": "nodes", "messages": "messages/node/s", "bytes": "bytes/node/s", "agent_known_s": "new agent, s",
        "pod_known_s": "new pod, s", "pod_messages": "its messages", "dead_known_s": "dead agent, s",
    }  # fmt: skip
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in found:
        table.add_row(*(f"{row[key]:.5g}" for key in columns))
    console.print(table)
    console.print(
        f"a quiet node of {found[-1]['nodes']} sends {growth['messages']:.2f} times the messages and "
        f"{growth['bytes']:.2f} times the bytes of one of {found[0]['nodes']} (budget: 2)",
        markup=False,
    )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"version": 1, "seed": options.seed, "cpus": os.cpu_count(), "sizes": found, "growth": growth}
    options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
