"""One real lab from the start of its agents to the last answered ping, and what its agents cost meanwhile.

The clock starts when the first agent is started: nodes and their files are there by then, and count for nothing. What
is measured comes from /proc: the processor time of every agent (stat) and its share of the memory (smaps_rollup).
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from plugin.core.errors import CheckError
from testbed.lab.paths import LabPaths
from testbed.lab.progress import Silent
from testbed.lab.running import Lab
from testbed.life.down import tear_down, wait_for_kernel
from testbed.life.up import bring_up
from testbed.machine import interrupts
from testbed.machine.space import Space, run
from testbed.topology.model import NodeSpec, PodSpec, Segment, Topology, Underlay

PODS_A_NODE: Final = 2
SAMPLE: Final = 20
"""Pods that are pinged, evenly spread over the nodes: a ping is a process of its own, and must not be what is seen."""

PING_S: Final = 5.0
ANSWERED_S: Final = 30.0
SETTLE_S: Final = 5.0
"""Between the last ping and the idle measurement: what was still to be told is told by then."""

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]


class _Clock(Silent):
    """Notes when each phase of the bring-up began."""

    def __init__(self) -> None:
        self.began_s: dict[str, float] = {}

    def phase(self, title: str, total: int = 0) -> None:
        """See `Progress.phase`."""
        del total
        self.began_s.setdefault(title, time.monotonic())


def mesh_topology(name: str, nodes: int) -> Topology:
    """So many nodes on one segment, two pods on each."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    return Topology(
        name=name,
        underlay=Underlay(segments={"lan": Segment(subnet="10.99.0.0/16")}),
        nodes={node: NodeSpec() for node in names},
        pods={f"{node}-p{number}": PodSpec(node=node) for node in names for number in range(1, PODS_A_NODE + 1)},
    )


def measure_mesh(nodes: int, idle_s: float) -> Figures:
    """One lab, brought up, looked at and taken down.

    Args:
        nodes: How many, at least 2.
        idle_s: How long its agents are watched doing nothing.

    Raises:
        CheckError: It does not come up in the time it has, or a pod does not answer.
    """
    clock = _Clock()
    with _lab(nodes, clock) as lab:
        known_s = time.monotonic()
        first_s, pinged_s = _ping_sample(lab)
        agents = [record.pid for record in lab.state.processes]
        start_cpu_s = [cpu_s(pid) for pid in agents]
        time.sleep(SETTLE_S)
        before_s = [cpu_s(pid) for pid in agents]
        time.sleep(idle_s)
        idle = [100 * (cpu_s(pid) - was_s) / idle_s for pid, was_s in zip(agents, before_s, strict=True)]
        memory = [pss_mb(pid) for pid in agents]
    began_s = clock.began_s["agents"]
    return {
        "meshed_s": clock.began_s["pods"] - began_s,
        "attached_s": clock.began_s["endpoints"] - began_s,
        "known_s": known_s - began_s,
        "first_ping_s": first_s - began_s,
        "pinged_s": pinged_s - began_s,
        "cpu_s": sum(start_cpu_s),
        "cpu_max_s": max(start_cpu_s),
        "pss_mb": median(memory),
        "pss_max_mb": max(memory),
        "idle_percent": sum(idle) / nodes,
        "idle_max_percent": max(idle),
    }


@contextmanager
def _lab(nodes: int, clock: _Clock) -> Iterator[Lab]:
    name = f"m{os.getpid() % 1_000_000}"
    try:
        yield bring_up(mesh_topology(name, nodes), name=name, progress=clock, owned=True)
    finally:
        if LabPaths(name).directory.exists():
            with interrupts.held_off():
                tear_down(name)
        wait_for_kernel()


def _ping_sample(lab: Lab) -> tuple[float, float]:
    """Ping pods from the node after theirs; when the first has answered, and the last."""
    pods = list(lab.pods.values())
    step = max(1, len(pods) // SAMPLE)
    answered: list[float] = []
    for number in range(0, len(pods), step):
        target = pods[number]
        source = pods[(number + PODS_A_NODE) % len(pods)]
        _ping(source.space, str(target.address))
        answered.append(time.monotonic())
    return answered[0], answered[-1]


def _ping(source: Space, address: str) -> None:
    until_s = time.monotonic() + ANSWERED_S
    argv: Sequence[str] = ["ping", "-n", "-c1", "-W1", address]
    while run(source, argv, timeout_s=PING_S).returncode != 0:
        if time.monotonic() > until_s:
            raise CheckError(f"the pod at {address} does not answer a ping from another node")


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system.

    Raises:
        CheckError: It is gone.
    """
    try:
        fields = Path("/proc", str(pid), "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError as error:
        raise CheckError(f"the agent with pid {pid} has ended during the measurement") from error
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def pss_mb(pid: int) -> float:
    """Its memory, pages that it shares counted in shares.

    Raises:
        CheckError: It is gone.
    """
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CheckError(f"the agent with pid {pid} has ended during the measurement") from error
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
