"""Accept rules of ours in the chains of iptables, where a policy of DROP would stop pods.

The table `filter` of iptables belongs to nobody: Docker, ufw, kube-proxy and people put rules into the same chains, and
each marks its own. Ours are marked by the comment that each has, stand first, and are there only when something in the
chain would stop packets that match no rule.
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Final

from plugin.core.firewall.samples import Site

CHAINS: Final = ("FORWARD", "INPUT")
MARK: Final = "weavelab: "
"""How the comments of our rules begin."""

_REFUSING: Final = frozenset({"DROP", "REJECT"})
_FINAL: Final = _REFUSING | {"ACCEPT"}
_QUOTED: Final = re.compile(r'(["\\])')
_ESCAPED: Final = r"\\\1"
_TRACKED: Final = ("-m", "conntrack", "--ctstate")

Rule = tuple[str, ...]
"""The words of a rule after the name of its chain."""


def wanted_rules(site: Site) -> dict[str, list[Rule]]:
    """Our rules by chain, in their order: no more than the pod network needs.

    What pods send goes anywhere; to pods comes what answers them and what a host port or a Service leads there. Of the
    node itself: the agents' ports, the overlay's, echo requests between pods and switches, answers to its own calls.
    """
    node, pods = f"{site.node}/32", str(site.pods)
    ports = [("udp", site.control_port), ("tcp", site.control_port), ("udp", site.vxlan_port)]
    return {
        "FORWARD": [
            _rule("what pods send", "-i", site.bridge),
            _rule("answers, host ports and Services", "-o", site.bridge, *_TRACKED, "RELATED,ESTABLISHED,DNAT"),
        ],
        "INPUT": [
            *(
                _rule("other nodes", "-d", node, "-p", protocol, "-m", protocol, "--dport", str(port))
                for protocol, port in ports
            ),
            _rule(
                "other nodes answer", "-d", node, "-p", "tcp", "-m", "tcp", "--sport", str(site.control_port),
                *_TRACKED, "ESTABLISHED",
            ),
            _rule("pods answer", "-i", site.bridge, *_TRACKED, "RELATED,ESTABLISHED"),
            _rule("echo requests", "-s", pods, "-d", pods, "-i", site.bridge, "-p", "icmp"),
        ],
    }  # fmt: skip


def _rule(what: str, *words: str) -> Rule:
    return (*words, "-m", "comment", "--comment", MARK + what, "-j", "ACCEPT")


def plan_rules(listing: str, wanted: dict[str, list[Rule]]) -> str:
    """What `iptables-restore --noflush` has to be told so that our rules stand where they count; empty: nothing.

    Args:
        listing: What `iptables -S` prints.
        wanted: Our rules by chain; empty takes them all away.
    """
    changes: list[str] = []
    for chain in CHAINS:
        policy, rules = _chain(listing, chain)
        ours = [rule for rule in rules if _is_ours(rule)]
        aim = wanted.get(chain, []) if _is_refusing(policy, rules) else []
        if _normal(ours) == _normal(aim) and not _is_hidden(rules):
            continue
        changes += [f"-D {chain} {_text(rule)}" for rule in ours]
        changes += [f"-I {chain} {number} {_text(rule)}" for number, rule in enumerate(aim, start=1)]
    return "\n".join(["*filter", *changes, "COMMIT", ""]) if changes else ""


def _chain(listing: str, chain: str) -> tuple[str, list[Rule]]:
    """The policy of a chain and its rules."""
    policy, rules = "ACCEPT", []
    for line in listing.splitlines():
        words = shlex.split(line)
        if words[:2] == ["-P", chain] and len(words) > 2:
            policy = words[2]
        elif words[:2] == ["-A", chain]:
            rules.append(tuple(words[2:]))
    return policy, rules


def _is_refusing(policy: str, rules: Iterable[Rule]) -> bool:
    """Whether the chain stops what no rule of it speaks of."""
    return policy in _REFUSING or any(_everything(rule) in _REFUSING for rule in rules)


def _is_hidden(rules: Sequence[Rule]) -> bool:
    """Whether a rule of ours stands behind one that leaves it nothing."""
    ends = [number for number, rule in enumerate(rules) if _everything(rule) in _FINAL]
    return bool(ends) and any(_is_ours(rule) for rule in rules[ends[0] :])


def _everything(rule: Rule) -> str:
    """Where a rule without any condition sends all packets; empty for the others."""
    words = list(rule)
    if "--comment" in words:
        at = words.index("--comment")
        del words[at - 2 : at + 2]
    return words[1] if words[:1] == ["-j"] and len(words) >= 2 else ""


def _text(rule: Rule) -> str:
    """As iptables-save(8) writes it: `iptables-restore` keeps words together by double quotes alone."""
    return " ".join(f'"{re.sub(_QUOTED, _ESCAPED, word)}"' if " " in word else word for word in rule)


def _is_ours(rule: Rule) -> bool:
    return any(word.startswith(MARK) for word in rule)


def _normal(rules: Iterable[Rule]) -> list[list[str]]:
    """Rules that say the same compare equal: iptables prints the words in an order of its own."""
    return [sorted(word for part in rule for word in part.split(",")) for rule in rules]
