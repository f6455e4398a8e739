"""What people are told when a firewall stops packets: which chain does, and what its owner is to be told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plugin.core.firewall.judge import BaseChain, Refusal
from plugin.core.firewall.samples import Sample, Site


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong, under the name of an object."""

    name: str
    cause: str
    advice: str


def troubles(found: Iterable[tuple[Sample, BaseChain, Refusal]], site: Site) -> list[Trouble]:
    """One trouble a hook; of several chains the first is named, for the packet would not come to the others."""
    by_hook: dict[str, list[tuple[Sample, BaseChain, Refusal]]] = {}
    for one in found:
        by_hook.setdefault(one[1].hook, []).append(one)
    return [Trouble(f"{hook} policy", _cause(stops), _advice(stops, site)) for hook, stops in by_hook.items()]


def _cause(stops: Sequence[tuple[Sample, BaseChain, Refusal]]) -> str:
    _, base, refusal = stops[0]
    kinds = list(dict.fromkeys(packet.what for packet, chain, _ in stops if chain == base))
    where = f"the chain {refusal.chain} of the nftables table {base.family} {base.table}"
    how = " by its policy" if refusal.by_policy else ""
    return f"{where} {refusal.verb} {'; '.join(kinds)}{how}"


def _advice(stops: Sequence[tuple[Sample, BaseChain, Refusal]], site: Site) -> str:
    base = stops[0][1]
    if base.table == "firewalld":
        return (
            f"firewall-cmd --permanent --zone=trusted --add-interface={site.bridge}"
            if base.hook == "forward"
            else "firewall-cmd --permanent "
            f"--add-port={site.control_port}/udp --add-port={site.control_port}/tcp --add-port={site.vxlan_port}/udp"
        ) + "; firewall-cmd --reload"
    ports = f"{{ {site.control_port}, {site.vxlan_port} }}"
    table = f"{base.family} {base.table} {base.name}"
    rules = {
        "forward": (
            f'iifname "{site.bridge}" accept',
            f'oifname "{site.bridge}" ct state established,related accept',
            f'oifname "{site.bridge}" ct status dnat accept',
        ),
        "input": (
            f"ip daddr {site.node} meta l4proto {{ tcp, udp }} th dport {ports} accept",
            f'iifname "{site.bridge}" ip protocol icmp accept',
        ),
        "output": (
            f"ip saddr {site.node} meta l4proto {{ tcp, udp }} th sport {ports} accept",
            f'oifname "{site.bridge}" accept',
        ),
    }[base.hook]
    return "let them pass where that table is made, before the rule that stops them, or for now: " + "; ".join(
        f"nft 'insert rule {table} {rule}'" for rule in rules
    )
