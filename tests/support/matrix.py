"""The rows of the matrix of tests/lab/test_matrix.py: one a command, with what it is given there and what it may need.

A command that is not part of this tree yet may have its row; one that is there has to have one.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from testbed.cli.main import weavelab
from tests.support import confined

LAB = f"m{os.getpid() % 1000000}"
"""The lab that all rows share; nothing in the matrix may hurt it."""

OWN = f"n{os.getpid() % 1000000}"
"""The lab of a row that makes one, or takes one down."""

TOPOLOGY = """
name: matrix
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
scenarios:
  - name: pings
    steps:
      - ping: {from: red, to: blue, count: 1}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One command.

    Attributes:
        arguments: A call that holds; `FILE` stands for the topology.
        lacking: A capability that it cannot do without; None when it needs no root at all.
        prints: Whether such a call says something on standard output.
        before: Calls that have to come first.
        after: Calls that put things right again.
        writes: Whether it writes into the folder of labs, and so fails on a full disk.
    """

    arguments: tuple[str, ...]
    lacking: int | None = confined.CAP_SYS_ADMIN
    prints: bool = True
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    writes: bool = False


UP_OWN = ("up", "FILE", "--name", OWN)
DOWN_OWN = ("down", OWN)

ROWS: dict[str, Row] = {
    "check": Row(("check", "FILE"), lacking=None),
    "up": Row(UP_OWN, lacking=confined.CAP_NET_ADMIN, after=(DOWN_OWN,), writes=True),
    "down": Row(DOWN_OWN, lacking=confined.CAP_SYS_PTRACE, before=(UP_OWN,), after=(DOWN_OWN,)),
    "status": Row(("status", LAB)),
    "exec": Row(("exec", "--lab", LAB, "red", "--", "echo", "hello"), lacking=confined.CAP_SYS_CHROOT),
    "cli": Row(("cli", LAB, "-c", "red echo hello", "-c", "pods"), lacking=confined.CAP_SYS_CHROOT),
    "pod add": Row(
        ("pod", "add", "pink", "--node", "node1", "--lab", LAB),
        after=(("pod", "delete", "pink", "--lab", LAB),),
        writes=True,
    ),
    "pod delete": Row(
        ("pod", "delete", "grey", "--lab", LAB),
        before=(("pod", "add", "grey", "--node", "node2", "--lab", LAB),),
        after=(("pod", "delete", "grey", "--lab", LAB),),
        writes=True,
    ),
    "pod list": Row(("pod", "list", "--lab", LAB)),
    "agent": Row(
        ("agent", "restart", "node2", "--lab", LAB),
        lacking=confined.CAP_KILL,
        after=(("agent", "start", "node2", "--lab", LAB),),
        writes=True,
    ),
    "logs": Row(("logs", "node1", "--lab", LAB)),
    "capture": Row(("capture", "red", "--lab", LAB, "--for", "0.2"), prints=False),
    "graph": Row(("graph", LAB)),
    "run": Row(("run", "--topology", "FILE", "--name", OWN), lacking=confined.CAP_NET_RAW, writes=True),
    "demo": Row(("demo", "--auto", "--name", OWN), lacking=confined.CAP_SYS_ADMIN, writes=True),
    "deploy": Row(("deploy", "--manifest", "--peer", "192.0.2.1"), lacking=None),
    "completion": Row(("completion", "bash"), lacking=None),
}


def commands() -> list[str]:
    """Every command and every command below one, as this tree has them."""
    found: list[str] = []
    context = click.Context(weavelab)
    for name in weavelab.list_commands(context):
        command = weavelab.get_command(context, name)
        if isinstance(command, click.Group):
            found += [f"{name} {below}" for below in command.list_commands(context)]
        else:
            found.append(name)
    return found


def filled(arguments: tuple[str, ...], topology: Path) -> list[str]:
    """The arguments with the topology's path in its place."""
    return [str(topology) if word == "FILE" else word for word in arguments]
