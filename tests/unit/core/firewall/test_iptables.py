"""Which accept rules of ours go into the chains of iptables, and when."""

import shlex
from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.firewall.iptables import CHAINS, MARK, plan_rules, wanted_rules
from plugin.core.firewall.samples import Site
from tests.support.project import ROOT

SITE = Site(
    bridge="weave", uplink="eth0", pods=IPv4Network("10.32.0.0/12"), node=IPv4Address("192.168.56.11"),
    control_port=6783, vxlan_port=6784, tracked=True,
)  # fmt: skip
WANTED = wanted_rules(SITE)
OPEN = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n"
CLOSED = "-P INPUT DROP\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n"


def listing(text: str) -> str:
    """What `iptables -S` prints after a file of iptables-save's form was loaded."""
    text = text.partition("*filter\n")[2].partition("COMMIT")[0]
    lines = [line.split() for line in text.splitlines()]
    return "\n".join(
        (f"-P {line[0][1:]} {line[1]}" if line[1] != "-" else f"-N {line[0][1:]}")
        if line[0][0] == ":"
        else " ".join(line)
        for line in lines
    )


def carried_out(before: str, transaction: str) -> str:
    """The listing after a transaction, as iptables would have it."""
    lines = before.splitlines()
    for line in transaction.splitlines():
        words = shlex.split(line)
        if words[0] == "-D":
            found = next(one for one in lines if shlex.split(one)[1:] == words[1:] and one.startswith("-A"))
            lines.remove(found)
        elif words[0] == "-I":
            at = [n for n, one in enumerate(lines) if shlex.split(one)[:2] == ["-A", words[1]]]
            place = (at[0] if at else len(lines)) + int(words[2]) - 1
            lines.insert(place, shlex.join(["-A", words[1], *words[3:]]))
    return "\n".join(lines)


def ours(text: str, chain: str) -> list[int]:
    """The positions of our rules in a chain."""
    rules = [line for line in text.splitlines() if line.startswith(f"-A {chain} ")]
    return [number for number, rule in enumerate(rules) if MARK in rule]


def test_open_chains_are_left_alone() -> None:
    assert plan_rules(OPEN, WANTED) == ""
    assert plan_rules(OPEN + "-A FORWARD -i docker0 -j DROP\n-A INPUT -p tcp -j REJECT\n", WANTED) == ""


@pytest.mark.parametrize("name", ["docker.rules", "ufw.rules"])
def test_rules_come_first_where_a_chain_drops_and_stay_there(name: str) -> None:
    before = listing((ROOT / "tests/golden/firewalls" / name).read_text())
    after = carried_out(before, plan_rules(before, WANTED))
    for chain in CHAINS:
        expected = len(WANTED[chain]) if f"-P {chain} DROP" in before else 0
        assert ours(after, chain) == list(range(expected))
    assert plan_rules(after, WANTED) == ""
    assert carried_out(after, plan_rules(after, {})) == before, "and they go without a trace"


@pytest.mark.parametrize("target", ["REJECT --reject-with icmp-host-prohibited", "DROP"])
def test_a_last_rule_that_stops_everything_counts_as_a_policy(target: str) -> None:
    before = OPEN + f'-A FORWARD -m comment --comment "the rest" -j {target}\n'
    after = carried_out(before, plan_rules(before, WANTED))
    assert ours(after, "FORWARD") == [0, 1]
    hidden = after.replace(OPEN, OPEN + f"-A FORWARD -j {target}\n")
    assert ours(hidden, "FORWARD") == [1, 2]
    assert ours(carried_out(hidden, plan_rules(hidden, WANTED)), "FORWARD") == [0, 1]


def test_what_iptables_prints_in_another_order_is_the_same_rule() -> None:
    after = carried_out(CLOSED, plan_rules(CLOSED, WANTED))
    turned = after.replace("RELATED,ESTABLISHED,DNAT", "DNAT,ESTABLISHED,RELATED")
    turned = turned.replace("-s 10.32.0.0/12 -d 10.32.0.0/12 -i weave", "-i weave -d 10.32.0.0/12 -s 10.32.0.0/12")
    assert turned != after
    assert plan_rules(turned, WANTED) == ""


def test_rules_of_an_earlier_configuration_are_replaced_and_repeated_ones_removed() -> None:
    earlier = Site(
        bridge="pods", uplink="eth0", pods=IPv4Network("10.9.0.0/16"), node=IPv4Address("192.168.56.12"),
        control_port=7783, vxlan_port=7784, tracked=True,
    )  # fmt: skip
    before = carried_out(CLOSED, plan_rules(CLOSED, wanted_rules(earlier)))
    after = carried_out(before, plan_rules(before, WANTED))
    assert after == carried_out(CLOSED, plan_rules(CLOSED, WANTED))
    first = next(line for line in after.splitlines() if MARK in line)
    doubled = f"{after}\n{first}"
    assert carried_out(doubled, plan_rules(doubled, WANTED)).count(first) == 1


def test_rules_go_when_nothing_drops_any_more() -> None:
    after = carried_out(CLOSED, plan_rules(CLOSED, WANTED))
    opened = after.replace("DROP", "ACCEPT")
    assert carried_out(opened, plan_rules(opened, WANTED)) == OPEN.strip()
