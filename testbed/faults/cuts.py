"""Cuts a node off from the others, or blocks its overlay: a table of nft inside the node, held by a process of ours.

The table lives as long as the pipe between that process and this command: it goes when it is dropped here, and just as
well when this command is killed, for the kernel closes the pipe then.
"""

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import CheckError, said_by
from testbed.machine.space import Space, kill_group, run, spawn

_TABLES: Final = {"cut-node": "weavelab_chaos_node", "cut-overlay": "weavelab_chaos_overlay"}
_OVERLAY_PORT: Final = 6784

_NFT_S: Final = 10.0
_HOLD: Final = 'nft "$1" && echo cut && read -r _; nft delete table ip "$2" 2>/dev/null'


def table_text(kind: str, others: Iterable[IPv4Address]) -> str:
    """The commands for nft that make a cut.

    Args:
        kind: `cut-node` or `cut-overlay`.
        others: The uplink addresses of the other nodes.
    """
    name = _TABLES[kind]
    listed = ", ".join(str(address) for address in others)
    rules = {
        "cut-node": (f"ip saddr {{ {listed} }} drop", f"ip daddr {{ {listed} }} drop"),
        "cut-overlay": (f"udp dport {_OVERLAY_PORT} drop",) * 2,
    }[kind]
    lines = [f"add table ip {name}"]
    for hook, rule in zip(("input", "output"), rules, strict=True):
        lines.append(f"add chain ip {name} {hook} {{ type filter hook {hook} priority -10; }}")
        lines.append(f"add rule ip {name} {hook} {rule}")
    return "; ".join(lines)


class Cut:
    """A cut that is in effect. `drop` ends it.

    Raises:
        CheckError: nft refused.
    """

    def __init__(self, node: Space, kind: str, others: Iterable[IPv4Address]) -> None:
        argv = ["sh", "-c", _HOLD, "sh", table_text(kind, others), _TABLES[kind]]
        self._process = spawn(
            node, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment()
        )
        said = self._first_line()
        if said != "cut":
            self.drop()
            raise CheckError(f"nft did not cut {node.name} off: {said or 'it said nothing'}")

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            if not waiting.select(_NFT_S):
                return f"nothing in {_NFT_S:.0f} s"
        return self._process.stdout.readline().decode(errors="replace").strip()

    def drop(self) -> None:
        """Remove the table. Safe to repeat; `drop_all` finds what this could not remove."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(_NFT_S)
        except subprocess.TimeoutExpired:
            kill_group(self._process)
            self._process.wait(_NFT_S)


def drop_all(nodes: Iterable[Space], *, wait_s: float = _NFT_S) -> list[str]:
    """Remove every table of ours from the nodes, whoever left it; returns what could not be removed, as sentences."""
    problems = []
    for node in nodes:
        until_s = time.monotonic() + wait_s
        try:
            found = _tables(node)
            for name in found:
                run(node, ["nft", "delete", "table", "ip", name], timeout_s=wait_s, env=_environment())
            while found and (found := _tables(node)) and time.monotonic() < until_s:
                time.sleep(0.05)
        except OSError as error:
            problems.append(f"the cuts of {node.name} could not be removed: {said_by(error)}")
            continue
        problems += [f"the table {name} of {node.name} could not be removed" for name in found]
    return problems


def _tables(node: Space) -> list[str]:
    listed = run(node, ["nft", "list", "tables", "ip"], timeout_s=_NFT_S, env=_environment()).stdout.split()
    return [name for name in _TABLES.values() if name in listed]


def _environment() -> dict[str, str]:
    return {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
