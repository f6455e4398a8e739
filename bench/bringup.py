"""Bring-up and tear-down of N bare nodes: weavelab's engine and stock Mininet in turns.

What counts, weavelab: planning the underlay, the state file, and `testbed.nodes.engine.build`, which is all that
`weavelab up` does before it deploys agents: namespaces (network, mount, UTS), each node's own /etc /opt /var /run
/sys, cables, addresses, names below /run/netns. Down: the whole of `testbed.life.down.tear_down`, as `weavelab down`
calls it.

What counts, stock Mininet: `Mininet(topo=SingleSwitchTopo(N), switch=LinuxBridge, controller=None)`, `start()`;
`stop()`. Both are checked by a ping from the first node to the last. After each, the kernel's clean-up is waited for,
so that one does not pay for the other's namespaces; `freed_s` is the time until then, from the beginning of the down.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError
from testbed.lab import state
from testbed.lab.paths import LabPaths
from testbed.life.down import tear_down, wait_for_kernel
from testbed.machine import interrupts
from testbed.machine.space import kill_group, run
from testbed.nodes import engine
from testbed.topology.model import NodeSpec, Segment, Topology, Underlay
from testbed.topology.underlay import plan_underlay

PING_S: Final = 5.0
STOCK_S: Final = 300.0
STOCK_S_PER_NODE: Final = 2.0

Times = dict[str, float]


def bare_topology(name: str, nodes: int) -> Topology:
    """So many nodes on one segment, and nothing else."""
    return Topology(
        name=name,
        underlay=Underlay(segments={"lan": Segment(subnet="10.99.0.0/16")}),
        nodes={f"n{number}": NodeSpec() for number in range(1, nodes + 1)},
    )


def weavelab(nodes: int) -> Times:
    """One round of ours.

    Raises:
        CheckError: The nodes do not reach each other.
    """
    topology = bare_topology(f"bench{os.getpid() % 1_000_000}", nodes)
    paths = LabPaths(topology.name)
    with _gone_afterwards(paths):
        began_s = time.monotonic()
        with state.locked(paths, create=True):
            plan = plan_underlay(topology)
            members = engine.members(plan)
            engine.check_names_free(paths, members)
            state.write(paths, state.new_state(paths, topology, topology_file="", members=members))
            engine.build(paths, plan)
        up_s = time.monotonic() - began_s
        last = str(plan.host(f"n{nodes}").uplink.address.ip)
        pinged = run(paths.node_space("n1"), ["ping", "-n", "-c1", last], timeout_s=PING_S)
        if pinged.returncode != 0:
            raise CheckError(f"weavelab's first node does not reach the last of {nodes}: {pinged.stdout}")
        began_s = time.monotonic()
        tear_down(topology.name)
        down_s = time.monotonic() - began_s
    wait_for_kernel()
    return {"up_s": up_s, "down_s": down_s, "freed_s": time.monotonic() - began_s}


@contextmanager
def _gone_afterwards(paths: LabPaths) -> Iterator[None]:
    try:
        yield
    finally:
        if paths.directory.exists():
            with interrupts.held_off():
                tear_down(paths.lab)


def stock_mininet(nodes: int) -> Times:
    """One round of stock Mininet, in network, mount and process namespaces of its own: all of it dies with them.

    Raises:
        CheckError: It failed.
    """
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    # brctl and ifconfig want the /sys of the namespace they work in
    argv += ["sh", "-c", 'mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"', "sh"]
    argv += [sys.executable, "-m", "bench.stock_mininet", str(nodes)]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "BENCH_MACHINE_NETNS": str(Path("/proc/self/ns/net").stat().st_ino)},
        start_new_session=True,
    )
    try:
        printed, said = process.communicate(timeout=STOCK_S + STOCK_S_PER_NODE * nodes)
    except BaseException:
        kill_group(process)
        process.wait()
        raise
    ended_s = time.monotonic()
    try:
        found: Times = json.loads(printed)
    except ValueError:
        words = said.decode(errors="replace").strip().splitlines()[-3:]
        raise CheckError(
            f"stock Mininet with {nodes} nodes failed: {' / '.join(words) or process.returncode}"
        ) from None
    if found.pop("loss") != 0:
        raise CheckError(f"stock Mininet's first node does not reach the last of {nodes}")
    wait_for_kernel()
    return {**found, "freed_s": found["down_s"] + time.monotonic() - ended_s}
