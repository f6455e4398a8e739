"""Rules in a namespace that stop packets: those that have counted some, and those that would stop one.

Rules are read with their counters before and after a few packets: a drop rule that has counted meanwhile dropped them.
Where no rule counts, plugin/core/firewall/judge.py goes through them as the kernel would.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from plugin.core.firewall.judge import BaseChain, Missing, Refusal, judge
from plugin.core.firewall.samples import Sample
from testbed.machine.space import Space, call
from testbed.probes.command import Processes
from testbed.scenario.causes.rulesets import RuleName, Ruleset, find_rule, parse_legacy, parse_ruleset

_NFT_S: Final = 1.5
_LEGACY_TABLES: Final = Path("/proc/thread-self/net/ip_tables_names")

HOOKS: Final[Mapping[str, tuple[str, ...]]] = {
    "in": ("ingress", "prerouting", "input"),
    "out": ("output", "postrouting", "egress"),
    "through": ("ingress", "prerouting", "forward", "postrouting", "egress"),
    "all": ("ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"),
}
"""The hooks that a packet passes which comes to this host, leaves it, or passes through."""


def read_rules(processes: Processes, space: Space) -> Ruleset:
    """The rules of a namespace; none where nft is absent.

    Raises:
        StoppedError: The run was stopped.
        OSError: The namespace is gone.
    """
    network = Space(space.name, net=space.net)
    done = processes.run(network, ["nft", "-j", "list", "ruleset"], timeout_s=_NFT_S)
    rules = parse_ruleset(done.stdout) if done.returncode == 0 else Ruleset()
    if not call(network, _has_legacy):  # to ask would make the tables
        return rules
    done = processes.run(network, ["iptables-legacy-save", "-c"], timeout_s=_NFT_S)
    legacy = parse_legacy(done.stdout)
    return replace(rules, stopped={**rules.stopped, **legacy.stopped}, texts=legacy.texts)


def _has_legacy() -> bool:
    try:
        return bool(_LEGACY_TABLES.read_text(encoding="ascii").strip())
    except OSError:
        return False  # the kernel has no legacy iptables


def stopped_meanwhile(before: Ruleset, after: Ruleset) -> dict[RuleName, int]:
    """The rules that have stopped packets between two looks, and how many, the most first."""
    grown = {name: packets - before.stopped.get(name, 0) for name, packets in after.stopped.items()}
    return dict(sorted(((name, more) for name, more in grown.items() if more > 0), key=lambda one: -one[1]))


def unjudged(rules: Ruleset) -> BaseChain | None:
    """A chain for frames that has rules which stop some, and of which it is not known whether they stop this one."""
    for base in rules.bases:
        statements = rules.known[base.family, base.table].chains.get(base.name, [])
        stops = base.policy == "drop" or any({"drop", "reject"} & set(one) for rule in statements for one in rule)
        if base.family == "bridge" and stops:
            return base
    return None


def stopping(rules: Ruleset, packet: Sample, hooks: Iterable[str]) -> tuple[BaseChain, Refusal] | None:
    """The first chain at one of these hooks that stops a packet, as far as its rules can be understood."""
    wanted = list(hooks)
    for base in sorted((one for one in rules.bases if one.hook in wanted), key=lambda one: wanted.index(one.hook)):
        if base.family == "bridge":
            continue  # the judge knows no MACs
        hook = {"prerouting": "input", "ingress": "input", "postrouting": "output", "egress": "output"}
        verdict = judge(
            base, rules.known[base.family, base.table], replace(packet, hook=hook.get(base.hook, base.hook))
        )
        if verdict is not None and not isinstance(verdict, Missing):
            return base, verdict
    return None


def rule_text(processes: Processes, space: Space, rules: Ruleset, name: RuleName) -> str:
    """A rule as its program writes it, without what it has counted; empty when it is gone.

    Raises:
        StoppedError: The run was stopped.
        OSError: The namespace is gone.
    """
    if name in rules.texts:
        return rules.texts[name]
    done = processes.run(Space(space.name, net=space.net), ["nft", "-a", "list", "ruleset"], timeout_s=_NFT_S)
    return find_rule(done.stdout, name)
