"""Pods' packets on a node whose other software has a firewall: accept rules of ours where they count, else the reason.

The accept rules are a part of the data plane like others (plugin/agent/dataplane/parts.py). What they cannot help
against is only told. While no rule of anybody changes, a look is one question to the kernel.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from plugin.core.errors import MissingError
from plugin.core.firewall.advice import troubles
from plugin.core.firewall.iptables import plan_rules, wanted_rules
from plugin.core.firewall.judge import BaseChain
from plugin.core.firewall.samples import Site, samples
from plugin.core.upkeep.items import Concern, Damage
from plugin.link import firewalls
from plugin.link.netlink import NetlinkError
from plugin.link.nfnetlink import Netfilter
from plugin.link.snapshot import Snapshot
from plugin.link.xtables import legacy_digest

_RULES: Final = "iptables"
_PERIOD_S: Final = 60.0
"""Everything is looked at so often although no rule has changed: what sets hold is not compared."""


class Passage:
    """The accept rules, and what is told of firewalls.

    Args:
        netfilter: A netfilter socket in the node's namespace.
        site: What makes the node's packets its own, now.
        now_s: Seconds that pass.
    """

    concerns = Concern.RULES | Concern.SYSCTLS
    """With the latter it is asked twice a second, for legacy iptables sends no notices."""

    def __init__(
        self, netfilter: Netfilter, site: Callable[[], Site], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._netfilter = netfilter
        self._site = site
        self._now_s = now_s
        self._asked: object = None
        self._seen: object = None
        self._again_at_s = float("-inf")
        self._transactions: dict[str, str] = {}
        self._to_judge: Sequence[BaseChain] | None = None
        self._unusable: dict[str, tuple[str, str]] = {}
        self._stopped: dict[str, tuple[str, str]] = {}

    def place(self) -> None:
        """Put the rules where they are missing, at a start; what cannot be done is told later."""
        try:
            self.mend(None, [one.name for one in self.damage(None)])
        except MissingError as error:
            self._unusable[_RULES] = error.message, error.hint

    def names(self) -> Iterable[str]:
        """See `Part`: one object for each kind of iptables that is in use."""
        return [_name(kind) for kind in self._transactions]

    def damage(self, seen: Snapshot | None) -> list[Damage]:  # noqa: ARG002 - it asks for what no other part asks for
        """See `Part`."""
        self._look()
        return [Damage(_name(kind), "accept rules missing") for kind, text in self._transactions.items() if text]

    def mend(self, seen: Snapshot | None, names: Collection[str]) -> None:  # noqa: ARG002 - as above
        """See `Part`."""
        for kind, text in self._transactions.items():
            if text and _name(kind) in names:
                self._asked = self._seen = None
                firewalls.change_rules(firewalls.iptables_program(kind), text)

    def troubles(self, seen: Snapshot | None) -> Mapping[str, tuple[str, str]]:  # noqa: ARG002 - as above
        """See `Troubles`: chains that stop packets, and programs that are missing."""
        self._look()
        if self._to_judge is not None:
            self._stopped = self._judged(self._to_judge)
            self._to_judge = None
        return self._unusable | self._stopped

    def _look(self) -> None:
        """Find out what there is, unless it cannot have changed."""
        site, legacy, now_s = self._site(), legacy_digest(), self._now_s()
        asked, is_due = (site, legacy, self._netfilter.generation()), now_s >= self._again_at_s
        if asked == self._asked and not is_due:
            return
        chains = firewalls.base_chains(self._netfilter)
        try:
            seen = site, legacy, firewalls.structure(self._netfilter, chains)
        except NetlinkError:  # a table went while we read: the next look is about that
            return
        self._asked = asked
        if seen == self._seen and not is_due:
            return
        self._seen = seen
        kinds = firewalls.iptables_in_use(chains)
        self._again_at_s = now_s + _PERIOD_S
        self._unusable.clear()
        self._transactions = {kind: self._planned(kind, site) for kind in kinds}
        self._to_judge = chains

    def _planned(self, kind: str, site: Site) -> str:
        try:
            return plan_rules(firewalls.list_rules(firewalls.iptables_program(kind)), wanted_rules(site))
        except MissingError as error:
            self._unusable[_name(kind)] = error.message, error.hint
            return ""

    def _judged(self, chains: Sequence[BaseChain]) -> dict[str, tuple[str, str]]:
        site = self._site()
        try:
            found = firewalls.refusals(self._netfilter, chains, samples(site))
        except MissingError as error:
            return {"firewall": (error.message, error.hint)}
        return {one.name: (one.cause, one.advice) for one in troubles(found, site)}


def _name(kind: str) -> str:
    return f"{_RULES} {kind}"


def remove_passage(netfilter: Netfilter) -> None:
    """Take our rules out of the chains of iptables: the agent leaves this node for good.

    Raises:
        MissingError: They cannot be written.
    """
    for kind in firewalls.iptables_in_use(firewalls.base_chains(netfilter)):
        program = firewalls.iptables_program(kind)
        transaction = plan_rules(firewalls.list_rules(program), {})
        if transaction:
            firewalls.change_rules(program, transaction)
