"""`python -m bench.flood` (or `make bench-flood`): what a stranger with one core does to an agent, attack by attack.

A lab of three nodes; on the same segment a fourth machine, whose one process takes a whole processor and sends to port
6783 of the first node whatever bench/attacker.py knows. Watched are that agent's processor time, how long its API takes
to answer (its event loop does one thing at a time), and whether any agent lost another.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.attacker import ATTACKS
from bench.figures import machine, write_json
from bench.options import guarded, number

if TYPE_CHECKING:
    from testbed.lab.running import Lab

NODES: Final = 3
SECONDS: Final = 5
CALM_S: Final = 1.0
LOOK_S: Final = 0.05
JSON_FILE: Final = Path("build/bench/flood.json")
RUN: Final = "/run/wl-flood"
"""Its own place, so that it never meets the labs of a person."""

NOTHING: Final = "nothing"
SOURCES: Final = [f"10.99.255.{number}" for number in range(1, 41)]
"""The attacker's addresses: with one alone it would have 8 connections."""

PARTS: Final = {
    "attack": "attack", "rate": "a second", "cpu_percent": "agent, % of a core", "answer_ms": "API answers in, ms",
    "answer_max_ms": "at most, ms", "rejected": "refused and counted", "lost": "peers lost",
}  # fmt: skip

Figures = dict[str, float | str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every attack, print, write; nothing is gated."""
    parser = argparse.ArgumentParser(prog="make bench-flood", description=__doc__)
    parser.add_argument("--seconds", type=number, default=SECONDS, help="of each attack (%(default)s)")
    parser.add_argument("--json", type=Path, default=JSON_FILE, metavar="FILE", help="default %(default)s")
    options = parser.parse_args(arguments)
    os.environ["WEAVELAB_RUN"] = RUN  # before testbed.lab.paths is loaded
    return guarded(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> int:
    from testbed.machine.files import check_report_path  # noqa: PLC0415

    check_report_path(options.json)
    about = machine()
    with _lab() as lab:
        found = [_measure(lab, attack, options.seconds) for attack in (NOTHING, *ATTACKS)]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"{options.seconds} s of each, one attacker", title_justify="left", box=box.SIMPLE_HEAD)
    for title in PARTS.values():
        table.add_column(title, justify="right")
    for row in found:
        table.add_row(*(value if isinstance(value := row[part], str) else f"{value:,.4g}" for part in PARTS))
    console.print(table)
    console.print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end; all in {options.json}", markup=False
    )
    write_json(options.json, {"machine": about, "attacks": found})
    return 0


@contextmanager
def _lab() -> Iterator["Lab"]:
    from bench.meshlab import mesh_topology  # noqa: PLC0415
    from plugin.link import rtnl  # noqa: PLC0415
    from plugin.link.netlink import Netlink  # noqa: PLC0415
    from testbed.lab.paths import LabPaths  # noqa: PLC0415
    from testbed.life.down import tear_down  # noqa: PLC0415
    from testbed.life.up import bring_up  # noqa: PLC0415
    from testbed.machine import interrupts  # noqa: PLC0415
    from testbed.machine.space import call  # noqa: PLC0415
    from testbed.topology.names import OUTSIDE  # noqa: PLC0415

    name = f"f{os.getpid() % 1_000_000}"

    def give_addresses() -> None:
        with Netlink() as inside:
            index = next(link.index for link in inside.links() if link.name == "eth0")
            for source in SOURCES:
                inside.request(rtnl.address_add(index, IPv4Interface(f"{source}/16")), what=f"give it {source}")

    try:
        lab = bring_up(mesh_topology(name, NODES), name=name, owned=True)
        call(lab.space(OUTSIDE), give_addresses)
        yield lab
    finally:
        if LabPaths(name).directory.exists():
            with interrupts.held_off():
                tear_down(name)


def _measure(lab: "Lab", attack: str, seconds: int) -> Figures:
    from bench.meshlab import cpu_s  # noqa: PLC0415
    from testbed.machine.space import spawn  # noqa: PLC0415
    from testbed.topology.names import OUTSIDE  # noqa: PLC0415

    target = next(iter(lab.nodes.values()))
    pid = lab.state.processes[0].pid
    time.sleep(CALM_S)
    lines = {node.name: len(node.log.read_text(encoding="utf-8").splitlines()) for node in lab.nodes.values()}
    refused = _refused(lab)
    attacker = None
    if attack != NOTHING:
        argv = [sys.executable, "-m", "bench.attacker", attack, str(target.uplink_address), str(seconds)]
        argv += ["--tag", _tag(lab) if attack == "listened" else "00000000", "--from", *SOURCES]
        attacker = spawn(lab.space(OUTSIDE), argv, stdout=subprocess.PIPE, cwd=str(Path.cwd()))
    began_s, before_s, answers = time.monotonic(), cpu_s(pid), []
    while time.monotonic() < began_s + seconds if attacker is None else attacker.poll() is None:
        asked_s = time.monotonic()
        target.api_get("/status/targets")
        answers.append(1000 * (time.monotonic() - asked_s))
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began_s
    count = 0 if attacker is None else int(attacker.communicate()[0])
    return {
        "attack": attack,
        "rate": count / seconds,
        "cpu_percent": 100 * (cpu_s(pid) - before_s) / took_s,
        "answer_ms": median(answers),
        "answer_max_ms": max(answers),
        "rejected": _refused(lab) - refused,
        "lost": sum(_lost(node.log, lines[node.name]) for node in lab.nodes.values()),
    }


def _refused(lab: "Lab") -> int:
    report = next(iter(lab.nodes.values())).api_get("/report")
    assert isinstance(report, dict)
    return int(sum(report["control"]["rejected"].values()))


def _lost(log: Path, since: int) -> int:
    """How often an agent has said that a peer is not established any more; strangers that it refuses do not count."""
    told = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[since:]]
    return sum(one["event"] == "peer changed" and one["state"] not in {"established", "refused"} for one in told)


def _tag(lab: "Lab") -> str:
    """What somebody who listens on the underlay sees at the beginning of every datagram for the first node."""
    from plugin.core.messages.keys import Keys  # noqa: PLC0415
    from plugin.core.messages.values import Member  # noqa: PLC0415

    node = next(iter(lab.nodes.values()))
    report = node.api_get("/report")
    assert isinstance(report, dict)
    me = report["members"][0]
    member = Member(me["name"], me["uid"], node.uplink_address, me["life"])
    network = lab.topology.network
    overlay = f"{network.vni}/{report['overlay']['port']}"
    password = lab.paths.password_file.read_text(encoding="utf-8").strip()
    return Keys(lab.name, IPv4Network(network.range), overlay, password).tag(member.session).hex()


if __name__ == "__main__":
    sys.exit(main())
