"""What nft and legacy iptables print of a namespace's rules, taken apart: chains, sets, what dropping rules counted."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from plugin.core.firewall.judge import BaseChain, Known

_HANDLE: Final = re.compile(r"^\s*(?P<text>.+?) # handle (?P<number>\d+)$")
_TABLE: Final = re.compile(r"^table (?P<family>\S+) (?P<name>\S+) \{")
_CHAIN: Final = re.compile(r"^\tchain (?P<name>\S+) \{")
_DYNAMIC: Final = re.compile(r"counter packets \d+ bytes \d+")
_ENDINGS: Final = frozenset({"drop", "reject"})


_LEGACY_TABLE: Final = re.compile(r"^\*(?P<name>\S+)$")
_LEGACY_POLICY: Final = re.compile(r"^:(?P<chain>\S+) DROP \[(?P<packets>\d+):\d+\]$")
_LEGACY_RULE: Final = re.compile(r"^\[(?P<packets>\d+):\d+\] (?P<text>-A (?P<chain>\S+) .*-j (?:DROP|REJECT)\b.*)$")
LEGACY: Final = "legacy"
"""The family of rules of legacy iptables, which no nft knows."""


@dataclass(frozen=True, slots=True, order=True)
class RuleName:
    """Where a rule stands."""

    family: str
    table: str
    chain: str
    handle: int

    @property
    def where(self) -> str:
        """For people."""
        if self.family == LEGACY:
            return f"the chain {self.chain} of the table {self.table} of legacy iptables"
        return f"the chain {self.chain} of the nftables table {self.family} {self.table}"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All rules of a namespace.

    Attributes:
        stopped: The packets that rules which stop them have counted.
        bases: The chains that the kernel calls.
        known: The statements of all chains, by table.
        texts: Rules as their program writes them, where that is known already.
    """

    stopped: Mapping[RuleName, int] = field(default_factory=dict[RuleName, int])
    bases: tuple[BaseChain, ...] = ()
    known: Mapping[tuple[str, str], Known] = field(default_factory=dict[tuple[str, str], Known])
    texts: Mapping[RuleName, str] = field(default_factory=dict[RuleName, str])


def parse_ruleset(text: str) -> Ruleset:
    """What `nft -j list ruleset` prints (libnftables-json(5)); nothing for what is no such text."""
    try:
        listed: list[dict[str, Any]] = json.loads(text)["nftables"]
    except (ValueError, KeyError, TypeError):
        return Ruleset()
    stopped: dict[RuleName, int] = {}
    bases: list[BaseChain] = []
    known: dict[tuple[str, str], Known] = {}
    for entry in listed:
        kind, one = _first(entry)
        if kind not in {"chain", "rule", "set", "map"}:
            continue
        table = known.setdefault((one["family"], one["table"]), Known())
        if kind == "chain":
            table.chains.setdefault(one["name"], [])
            if "hook" in one:
                policy = one.get("policy", "accept")
                bases.append(BaseChain(one["family"], one["table"], one["name"], one["hook"], policy))
        elif kind == "rule":
            statements = one.get("expr", [])
            table.chains.setdefault(one["chain"], []).append(statements)
            packets = _counted(statements)
            if packets is not None:
                stopped[RuleName(one["family"], one["table"], one["chain"], one["handle"])] = packets
        else:
            table.sets[one["name"]] = one.get("elem", [])
    return Ruleset(stopped, tuple(bases), known)


def _first(entry: Mapping[str, Any]) -> tuple[str, Any]:
    """An object of nft is named by its only key."""
    return next(iter(entry.items()), ("", None))


def _counted(statements: Sequence[Mapping[str, Any]]) -> int | None:
    """What a rule that stops packets has counted; None: it stops none, or does not count."""
    packets, stops = None, False
    for statement in statements:
        kind, content = _first(statement)
        if kind == "counter" and isinstance(content, Mapping):
            packets = content.get("packets")
        stops |= kind in _ENDINGS or (kind == "xt" and (content or {}).get("name") in {"DROP", "REJECT"})
    return packets if stops and isinstance(packets, int) else None


def find_rule(text: str, name: RuleName) -> str:
    """The rule of that name in what `nft -a list ruleset` prints."""
    table, chain = ("", ""), ""
    for line in text.splitlines():
        if (found := _TABLE.match(line)) is not None:
            table = found["family"], found["name"]
        elif (found := _CHAIN.match(line)) is not None:
            chain = found["name"]
        elif (table, chain) == ((name.family, name.table), name.chain):
            rule = _HANDLE.match(line)
            if rule is not None and int(rule["number"]) == name.handle:
                return _DYNAMIC.sub("counter", rule["text"])
    return ""


def parse_legacy(text: str) -> Ruleset:
    """What `iptables-legacy-save -c` prints: the rules and policies that stop packets."""
    stopped: dict[RuleName, int] = {}
    texts: dict[RuleName, str] = {}
    table = ""
    for number, line in enumerate(text.splitlines()):
        if (found := _LEGACY_TABLE.match(line)) is not None:
            table = found["name"]
        elif (found := _LEGACY_POLICY.match(line) or _LEGACY_RULE.match(line)) is not None:
            name = RuleName(LEGACY, table, found["chain"], number)
            stopped[name] = int(found["packets"])
            texts[name] = found.groupdict().get("text") or f"-P {found['chain']} DROP"
    return Ruleset(stopped=stopped, texts=texts)
