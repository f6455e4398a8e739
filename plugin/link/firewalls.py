"""The firewalls of other software on the node: which chains can stop packets, read with `nft` and `iptables`.

plugin/core/firewall judges them and says which accept rules are ours. Only the chains of iptables, which all programs
share, get such rules; a table of nftables belongs to who made it and is only read.
"""

import json
import shutil
import socket
import struct
import subprocess
from collections.abc import Collection, Sequence
from typing import Any, Final

from plugin.core.errors import MissingError
from plugin.core.firewall.iptables import CHAINS
from plugin.core.firewall.judge import BaseChain, Known, Missing, Refusal, judge
from plugin.core.firewall.samples import Sample
from plugin.link.attributes import attr, parse, text
from plugin.link.netlink import NetlinkError
from plugin.link.nfnetlink import Netfilter
from plugin.link.xtables import has_legacy_filter

_SUBSYSTEM: Final = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET = (_SUBSYSTEM + number for number in (1, 4, 7, 10))
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER: Final = 1
_TABLE_NAME, _TABLE_HANDLE = 1, 4
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE = 1, 2, 3
_SET_TABLE, _SET_NAME = 1, 2
_FAMILIES: Final = {1: "inet", 2: "ip"}
_HOOKS: Final = {1: "input", 2: "forward", 3: "output"}
_DROP: Final = 0
_TIMEOUT_S: Final = 20.0
_WHOLE_MAX: Final = 1000
"""A table of so many rules is listed as a whole; of a larger one (kube-proxy's) only the chains that are come to."""

_OURS: Final = "weave"
"""Tables of this name, or of one that begins with it and a hyphen, are our own."""


# --- nftables -----------------------------------------------------------------------------------------------------
def base_chains(netfilter: Netfilter) -> list[BaseChain]:
    """The chains of all tables of others that may stop what is forwarded, received or sent by this node in IPv4."""
    found = []
    try:
        bodies = list(netfilter.dump(_GETCHAIN, _header(socket.AF_UNSPEC)))
    except NetlinkError:
        return []  # the kernel has not even loaded nf_tables
    for body in bodies:
        chain = parse(body, 4)
        hook = int.from_bytes(parse(chain.get(_CHAIN_HOOK, b"")).get(_HOOK_NUMBER, b"\xff"))
        kind = chain.get(_CHAIN_TYPE, b"").rstrip(b"\0")
        if body[0] in _FAMILIES and hook in _HOOKS and kind == b"filter":
            table, name = _name(chain[_CHAIN_TABLE]), _name(chain[_CHAIN_NAME])
            if table == _OURS or table.startswith(f"{_OURS}-"):
                continue
            policy = "drop" if int.from_bytes(chain.get(_CHAIN_POLICY, b"\1")) == _DROP else "accept"
            found.append(BaseChain(_FAMILIES[body[0]], table, name, _HOOKS[hook], policy))
    return found


def structure(netfilter: Netfilter, chains: Sequence[BaseChain]) -> object:
    """Another value when any rule of the tables of these chains is another; what sets hold and counters count is none.

    Rules and tables have numbers that are never used again: nothing of them has to be read.
    """
    tables = {(_number_of(chain.family), chain.table) for chain in chains}
    found: list[tuple[object, ...]] = [(chain.family, chain.table, chain.name, chain.policy) for chain in chains]
    for body in netfilter.dump(_GETTABLE, _header(socket.AF_UNSPEC)) if tables else ():
        table = parse(body, 4)
        if (body[0], _name(table[_TABLE_NAME])) in tables:
            found.append((body[0], table[_TABLE_NAME], table.get(_TABLE_HANDLE)))
    for family, name in sorted(tables):
        for body in netfilter.dump(_GETRULE, _header(family) + attr(_RULE_TABLE, text(name))):
            rule = parse(body, 4)
            found.append((family, name, rule.get(_RULE_CHAIN), rule.get(_RULE_HANDLE)))
    return tuple(found)


def names_in_table(netfilter: Netfilter, table: str) -> frozenset[str] | None:
    """The names of all chains, sets and maps of an IPv4 table; None when there is no such table, nothing for an empty.

    An empty table cannot be told from none by that, and need not be.
    """
    header = _header(socket.AF_INET)
    try:
        chains = [parse(body, 4) for body in netfilter.dump(_GETCHAIN, header)]
        sets = [parse(body, 4) for body in netfilter.dump(_GETSET, header + attr(_SET_TABLE, text(table)))]
    except NetlinkError:
        return None
    names = {_name(one[_CHAIN_NAME]) for one in chains if _name(one[_CHAIN_TABLE]) == table}
    return frozenset(names | {_name(one[_SET_NAME]) for one in sets})


def refusals(
    netfilter: Netfilter, chains: Sequence[BaseChain], packets: Collection[Sample]
) -> list[tuple[Sample, BaseChain, Refusal]]:
    """Who stops which of these packets; a table that goes or changes meanwhile is looked at when it has changed.

    Raises:
        MissingError: `nft` is absent.
    """
    known: dict[tuple[str, str], Known] = {}
    found = []
    for base in chains:
        of_table = known.setdefault((base.family, base.table), Known())
        for packet in packets:
            if packet.hook == base.hook:
                verdict = _judged(netfilter, base, of_table, packet)
                if verdict is not None:
                    found.append((packet, base, verdict))
    return found


def _judged(netfilter: Netfilter, base: BaseChain, known: Known, packet: Sample) -> Refusal | None:
    while True:
        verdict = judge(base, known, packet)
        if not isinstance(verdict, Missing):
            return verdict
        _read(netfilter, base, known, verdict)


def _read(netfilter: Netfilter, base: BaseChain, known: Known, missing: Missing) -> None:
    """Read what the judge asks for, and whatever comes with it; what is not there is empty."""
    known.chains.setdefault(missing.name, []) if missing.is_chain else known.sets.setdefault(missing.name, [])
    whole = _rule_count(netfilter, base) <= _WHOLE_MAX
    for kind in ("table",) if whole else ("chain",) if missing.is_chain else ("set", "map"):
        for one in _listed(kind, base.family, base.table, *(() if whole else (missing.name,))):
            if "chain" in one:
                known.chains[one["chain"]["name"]] = []
            elif "rule" in one:
                known.chains.setdefault(one["rule"]["chain"], []).append(one["rule"].get("expr", []))
            elif "set" in one or "map" in one:
                content = one.get("set") or one["map"]
                known.sets[content["name"]] = content.get("elem", [])


def _rule_count(netfilter: Netfilter, base: BaseChain) -> int:
    header = _header(_number_of(base.family)) + attr(_RULE_TABLE, text(base.table))
    try:
        return sum(1 for _ in netfilter.dump(_GETRULE, header))
    except NetlinkError:
        return 0


def _number_of(family: str) -> int:
    return next(number for number, name in _FAMILIES.items() if name == family)


def _listed(kind: str, *names: str) -> list[dict[str, Any]]:
    status, told = _run(["nft", "--json", "list", kind, *names])
    if status != 0:
        return []
    listed = json.loads(told)["nftables"]
    assert isinstance(listed, list)
    return listed


# --- iptables -----------------------------------------------------------------------------------------------------
def iptables_in_use(chains: Sequence[BaseChain]) -> list[str]:
    """The kinds of iptables whose table `filter` there is: `nf_tables`, `legacy`, both, or none."""
    shared = any((one.family, one.table) == ("ip", "filter") and one.name in CHAINS for one in chains)
    kinds = ["nf_tables"] if shared else []
    return [*kinds, "legacy"] if has_legacy_filter() else kinds


def iptables_program(kind: str) -> str:
    """The program that speaks to this kind of iptables.

    Raises:
        MissingError: There is none.
    """
    name = {"nf_tables": "iptables-nft", "legacy": "iptables-legacy"}[kind]
    if shutil.which(name) is not None:
        return name
    if shutil.which("iptables") is not None and kind in _run(["iptables", "--version"])[1]:
        return "iptables"
    raise MissingError(
        f"wanted {name}, to read and write the rules of iptables on this node; it was not found",
        hint="install the package iptables where the agent runs",
    )


def list_rules(program: str) -> str:
    """What `iptables -S` prints of the table `filter`.

    Raises:
        MissingError: It cannot.
    """
    return _succeed([program, "-w", "5", "-S"])


def change_rules(program: str, transaction: str) -> None:
    """Carry out lines of iptables-save(8), all or none; rules that they do not name stay.

    Raises:
        MissingError: They were refused.
    """
    _succeed([f"{program}-restore", "-w", "5", "--noflush"], transaction)


def _succeed(arguments: Sequence[str], stdin: str = "") -> str:
    status, told = _run(arguments, stdin)
    if status != 0:
        hint = "the rules of iptables stay as they are; run it by hand to see more"
        raise MissingError(f"{' '.join(arguments)} failed: {told.strip() or status}", hint=hint)
    return told


def _run(arguments: Sequence[str], stdin: str = "") -> tuple[int, str]:
    """Exit status, and what was printed: the answer, or the error."""
    try:
        done = subprocess.run(
            arguments, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise MissingError(f"the program {arguments[0]} was not found", hint="install nftables and iptables") from None
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {_TIMEOUT_S:g} s"
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def _header(family: int) -> bytes:
    return struct.pack(">BBH", family, 0, 0)


def _name(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")
