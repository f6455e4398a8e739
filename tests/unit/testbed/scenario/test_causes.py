"""How causes are found, piece by piece: the way of a pair, where probes end, which rule counted, what comes first."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.core.firewall.samples import Sample
from testbed.lab.paths import LabPaths
from testbed.machine.space import Space
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.causes import counters
from testbed.scenario.causes.filters import HOOKS, stopped_meanwhile, stopping
from testbed.scenario.causes.find import Found, find_causes
from testbed.scenario.causes.rulesets import RuleName, Ruleset, find_rule, parse_legacy, parse_ruleset
from testbed.scenario.causes.trace import COUNT, Loss, Trace
from testbed.scenario.causes.values import Pair
from testbed.scenario.causes.way import Place, Way, way_of
from testbed.scenario.members import Member
from testbed.scenario.results import CommandEvidence
from testbed.topology.load import parse_topology
from testbed.topology.steps import Step
from testbed.topology.underlay import plan_underlay

RACKS = """
name: racks
underlay:
  segments: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.2.0.0/24}}
  routers: {spine: {segments: [a, b]}}
nodes: {node1: {segment: a}, node2: {segment: b}, node3: {segment: a}}
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
"""

RED, GREEN = Member("red", "pod", "node1", "10.32.0.2"), Member("green", "pod", "node1", "10.32.0.3")
BLUE = Member("blue", "pod", "node2", "10.40.0.2")
NODE1, NODE2 = Member("node1", "node", "node1", "10.1.0.11"), Member("node2", "node", "node2", "10.2.0.11")
SWITCH1, SWITCH2 = (
    Member("node1", "node", "node1", "10.32.0.1", "weave"),
    Member("node2", "node", "node2", "10.40.0.1", "weave"),
)
OUTSIDE = Member("outside", "outside", None, "198.51.100.1")


def lab() -> Any:
    """A lab of names: its plan is real, and nobody lives in its namespaces."""
    topology = parse_topology(RACKS, file="racks.yaml")
    plan = plan_underlay(topology)

    def space(name: str) -> Space:
        return Space(name, net=Path("/nowhere") / name)

    pods = {
        one.name: SimpleNamespace(
            name=one.name, node=one.node, host_ifname=f"veth-{one.name}", address=one.address, ifname="eth0",
            mac="02:00:00:00:00:01", space=space(one.name),
        )
        for one in (RED, GREEN, BLUE)
    }  # fmt: skip
    nodes = {
        name: SimpleNamespace(
            name=name, uplink_address=plan.host(name).uplink.address.ip, uplink_ifname="eth0",
            api_socket=Path("/nowhere/socket"), bridge_address=None,
        )
        for name in topology.nodes
    }  # fmt: skip
    paths = LabPaths("nowhere")
    state = SimpleNamespace(processes=())
    return SimpleNamespace(
        name="x",
        topology=topology,
        pods=pods,
        nodes=nodes,
        underlay=plan,
        space=space,
        paths=paths,
        state=state,
        routers=("spine",),
    )


def places(source: Member, target: Member) -> tuple[str, list[str]]:
    way = way_of(lab(), Pair(source, target))
    return way.kind, [f"{place.on}/{place.ifname}{'*' if place.wrapped else ''}" for place in way.places]


THROUGH = [
    "node1/eth0*", "underlay/node1*", "underlay/spine_0*", "spine/eth0*",
    "spine/eth1*", "underlay/spine_1*", "underlay/node2*", "node2/eth0*",
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target", "kind", "expected"),
    [
        (RED, GREEN, "switch", ["red/eth0", "node1/veth-red", "node1/veth-green", "green/eth0"]),
        (RED, SWITCH1, "switch", ["red/eth0", "node1/veth-red", "node1/weave"]),
        (RED, BLUE, "overlay", ["red/eth0", "node1/veth-red", "node1/vxlan-6784", *THROUGH, "node2/vxlan-6784",
                                "node2/veth-blue", "blue/eth0"]),
        (NODE1, BLUE, "overlay", ["node1/weave", "node1/vxlan-6784", *THROUGH, "node2/vxlan-6784", "node2/veth-blue",
                                  "blue/eth0"]),
        (RED, SWITCH2, "overlay", ["red/eth0", "node1/veth-red", "node1/vxlan-6784", *THROUGH, "node2/vxlan-6784",
                                   "node2/weave"]),
        (NODE1, NODE2, "routed", [place.removesuffix("*") for place in THROUGH]),
        (RED, OUTSIDE, "routed", ["red/eth0", "node1/veth-red", "node1/weave", "node1/eth0", "underlay/node1",
                                  "underlay/outside", "outside/eth0"]),
    ],
)  # fmt: skip
def test_the_way_of_a_pair_is_that_of_the_plan(source: Member, target: Member, kind: str, expected: list[str]) -> None:
    assert places(source, target) == (kind, expected)


# --- where probes end ---------------------------------------------------------------------------------------------
A, B, C = Place("red", "eth0"), Place("node1", "veth"), Place("green", "eth0")


def traced(**counts: tuple[int, int, int]) -> Trace:
    way = Way(Pair(RED, GREEN), (A, B, C), "switch")
    return Trace(
        way, way.places, {what: counts.get(what, (0, 0, 0)) for what in ("request", "reply", "question", "answer")}
    )


@pytest.mark.parametrize(
    ("found", "loss"),
    [
        (traced(request=(3, 3, 3), reply=(3, 3, 3)), None),
        (traced(request=(3, 3, 0)), Loss("request", B, C, 0, 3)),
        (traced(request=(3, 1, 1), reply=(1, 1, 1)), Loss("request", A, B, 1, 3)),
        (traced(request=(3, 3, 3), reply=(0, 0, 3)), Loss("reply", C, B, 0, 3)),
        (traced(request=(3, 3, 3)), Loss("reply", C, None, 0, 3)),
        (traced(), Loss("request", None, A, 0, COUNT)),
        (traced(question=(1, 1, 0)), Loss("question", B, C, 0, 1)),
        (traced(question=(1, 1, 1)), Loss("answer", C, None, 0, 1)),
        (traced(question=(1, 1, 1), answer=(0, 0, 1)), Loss("answer", C, B, 0, 1)),
    ],
)  # fmt: skip
def test_probes_end_where_they_were_seen_last(found: Trace, loss: Loss | None) -> None:
    assert found.loss == loss


def test_a_loss_is_within_a_member_or_between_two() -> None:
    assert Loss("request", Place("n", "a"), Place("n", "b"), 0, 3).on == "n"
    assert not Loss("request", A, B, 0, 3).on
    assert Loss("reply", C, None, 0, 3).on == "green"


# --- rules --------------------------------------------------------------------------------------------------------
RULES = """{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "inet", "name": "f", "handle": 1}},
{"chain": {"family": "inet", "table": "f", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
{"set": {"family": "inet", "name": "ports", "table": "f", "type": "inet_service", "handle": 9, "elem": [6784]}},
{"rule": {"family": "inet", "table": "f", "chain": "in", "handle": 4, "expr": [
  {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": "@ports"}},
  {"counter": {"packets": %d, "bytes": 10}}, {"drop": null}]}},
{"rule": {"family": "inet", "table": "f", "chain": "in", "handle": 5, "expr": [{"counter": {"packets": %d, "bytes": 1}}, {"accept": null}]}}]}"""

TEXT = """table inet f { # handle 1
\tset ports { # handle 9
\t\ttype inet_service
\t\telements = { 6784 }
\t}

\tchain in { # handle 1
\t\ttype filter hook input priority filter; policy accept;
\t\tudp dport @ports counter packets 12 bytes 10 drop # handle 4
\t\tcounter packets 9 bytes 1 accept # handle 5
\t}
}
"""


def test_the_rule_that_counted_meanwhile_is_found_and_named_as_nft_writes_it() -> None:
    before, after = parse_ruleset(RULES % (3, 5)), parse_ruleset(RULES % (12, 90))
    name = RuleName("inet", "f", "in", 4)
    assert stopped_meanwhile(before, after) == {name: 9}, "a rule that accepts stops nothing"
    assert find_rule(TEXT, name) == "udp dport @ports counter drop"
    assert name.where == "the chain in of the nftables table inet f"
    assert not find_rule(TEXT, RuleName("inet", "f", "out", 4))


def test_rules_without_counters_are_gone_through() -> None:
    node, other = lab().underlay.host("node1").uplink.address.ip, lab().underlay.host("node2").uplink.address.ip
    packet = Sample(what="", hook="", iif="eth0", source=other, destination=node, protocol="udp", port=6784)
    found = stopping(parse_ruleset(RULES % (0, 0)), packet, HOOKS["in"])
    assert found is not None
    assert (found[0].name, found[1].verb, found[1].by_policy) == ("in", "drops", False)
    assert stopping(parse_ruleset(RULES % (0, 0)), packet, HOOKS["out"]) is None


def test_legacy_rules_and_policies_that_drop_are_read() -> None:
    found = parse_legacy(LEGACY_TEXT)
    rule, policy = sorted(found.stopped, key=lambda name: name.chain, reverse=True)
    assert (found.texts[rule], found.stopped[rule]) == ("-A INPUT -p udp -m udp --dport 6784 -j DROP", 7)
    assert (found.texts[policy], found.stopped[policy]) == ("-P FORWARD DROP", 2)
    assert rule.where == "the chain INPUT of the table filter of legacy iptables"


LEGACY_TEXT = """# Generated by iptables-save v1.8.9
*filter
:INPUT ACCEPT [5:10]
:FORWARD DROP [2:20]
[7:70] -A INPUT -p udp -m udp --dport 6784 -j DROP
[9:70] -A INPUT -p udp -m udp --dport 6783 -j ACCEPT
COMMIT
"""


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[]", '{"nftables": []}'])
def test_what_is_no_ruleset_is_an_empty_one(text: str) -> None:
    assert parse_ruleset(text) == Ruleset()


def test_counters_of_packets_that_ended_are_read() -> None:
    found = counters.read()
    assert {"UdpNoPorts", "UdpInErrors", "IpInDiscards", "lo rx_dropped", "lo tx_errors"} <= found.keys()


# --- all together -------------------------------------------------------------------------------------------------
def step_of(text: str) -> Step:
    return (
        parse_topology(f"{RACKS}scenarios: [{{name: s, steps: [{{{text}}}]}}]\n", file="r.yaml").scenarios[0].steps[0]
    )


def causes_of(text: str, **attempt: Any) -> tuple[str, ...]:
    run = Run(lab=lab())
    return find_causes(run, step_of(text), Attempt(ok=False, seen="", **attempt), seconds_ago=1.0).causes


def command(**changes: Any) -> CommandEvidence:
    said = {
        "on": "red",
        "command": "x",
        "ok": False,
        "ended": "exit code 127",
        "stdout": "",
        "stderr": "",
        "seconds": 0.1,
    }
    return CommandEvidence(**said | changes)


def test_a_member_that_is_gone_is_the_cause() -> None:
    found = causes_of("ping: {from: red, to: blue}")
    assert "the network namespace of the pod red is gone (/nowhere/red)" in found
    assert causes_of("healthy: {on: node1}")[0].startswith("node1's agent does not run: nobody answers")


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        (command(stderr="sh: 1: frob: not found\n"), "the program frob is not there on red: exit code 127"),
        (
            command(stderr="bash: line 1: frob: command not found"),
            "the program frob is not there on red: exit code 127",
        ),
        (
            command(stderr='exec: "frob": executable file not found in $PATH'),
            "the program frob is not there on red: exit code 127",
        ),
        (
            command(ended="exit code 126", stderr="sh: 1: /etc/passwd: Permission denied"),
            "/etc/passwd cannot be executed on red: Permission denied",
        ),
        (
            command(ended="killed at its deadline after 2.0 s", seconds=2.0),
            "the command on red did not end within 2.0 s, and was killed",
        ),
    ],
)
def test_a_command_that_could_not_run_says_why(evidence: CommandEvidence, cause: str) -> None:
    assert causes_of("exec: {on: red, command: x}", evidence=(evidence,))[0] == cause


@pytest.mark.parametrize(
    "evidence", [command(), command(ended="exit code 3"), command(stderr="the file x was not found")]
)
def test_what_only_looks_like_it_is_not_claimed(evidence: CommandEvidence) -> None:
    assert not any("program" in one for one in causes_of("exec: {on: red, command: x}", evidence=(evidence,)))


def test_looking_for_causes_never_makes_a_step_fail_otherwise() -> None:
    """A lab of which nothing at all is as it should be: no cause, no error."""
    run = Run(lab=SimpleNamespace(name="x", topology=lab().topology, pods={}, nodes={}))  # type: ignore[arg-type]
    found = find_causes(run, step_of("ping: {from: red, to: blue}"), Attempt(ok=False, seen=""), seconds_ago=1.0)
    assert found == Found()
