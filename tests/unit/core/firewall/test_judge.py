"""What nftables rules do to a packet, from nft's own JSON."""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

import pytest

from plugin.core.firewall.judge import BaseChain, Known, Missing, Refusal, judge
from plugin.core.firewall.samples import Sample

WEB = Sample(
    what="what pods send", hook="forward", iif="weave", oif="eth0", source=IPv4Address("10.32.0.2"),
    destination=IPv4Address("198.51.100.1"), protocol="tcp", port=443,
)  # fmt: skip
PING = Sample(
    what="echo requests", hook="input", iif="weave", source=IPv4Address("10.32.0.2"),
    destination=IPv4Address("10.32.0.1"), protocol="icmp",
)  # fmt: skip
ANSWER = Sample(
    what="answers", hook="forward", iif="eth0", oif="weave", source=IPv4Address("198.51.100.1"),
    destination=IPv4Address("10.32.0.2"), protocol="tcp", source_port=443, port=40000, state="established",
)  # fmt: skip
DROPPING = BaseChain("inet", "filter", "forward", "forward", "drop")
ACCEPTING = BaseChain("inet", "filter", "forward", "forward", "accept")
ACCEPT, DROP, REJECT, RETURN = ({word: None} for word in ("accept", "drop", "reject", "return"))
BY_POLICY = Refusal("forward", "drops", by_policy=True)


def match(left: Mapping[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def chains(*rules: list[Mapping[str, Any]], **others: list[list[Mapping[str, Any]]]) -> Known:
    return Known({"forward": list(rules), **others})


@pytest.mark.parametrize(
    "condition",
    [
        match(meta("iifname"), "weave"),
        match(meta("iifname"), "we*"),
        match(meta("iifname"), {"set": ["lo", "weave"]}),
        match(meta("oifname"), "docker0", "!="),
        match(meta("l4proto"), {"set": ["tcp", "udp"]}),
        match(meta("nfproto"), "ipv4"),
        match({"&": [meta("mark"), 16384]}, 0),
        match(payload("ip", "saddr"), {"prefix": {"addr": "10.32.0.0", "len": 12}}),
        match(payload("ip", "daddr"), {"range": ["198.51.100.0", "198.51.100.9"]}),
        match(payload("ip", "daddr"), "198.51.100.1"),
        match(payload("tcp", "dport"), {"range": [400, 500]}),
        match(payload("th", "dport"), 443),
        match(payload("tcp", "dport"), {"set": [80, {"elem": {"val": 443, "counter": {}}}]}),
        match({"concat": [payload("ip", "saddr"), payload("tcp", "dport")]}, {"set": [{"concat": ["10.32.0.2", 443]}]}),
        match({"ct": {"key": "state"}}, ["new", "untracked"], "in"),
        match({"ct": {"key": "status"}}, "dnat", "!="),
        match({"fib": {"result": "type", "flags": ["daddr"]}}, "unicast"),
        match(payload("ip", "saddr"), "@friends"),
    ],
)
def test_a_rule_that_matches_lets_the_packet_pass(condition: Mapping[str, Any]) -> None:
    known = chains([condition, {"counter": {"packets": 0, "bytes": 0}}, ACCEPT])
    known.sets["friends"] = ["10.32.0.2"]
    assert judge(DROPPING, known, WEB) is None
    known.chains["forward"] = [[condition, DROP]]
    assert judge(ACCEPTING, known, WEB) == Refusal("forward", "drops", by_policy=False)


@pytest.mark.parametrize(
    "condition",
    [
        match(meta("iifname"), "docker0"),
        match(meta("iifname"), "weave", "!="),
        match(meta("iifgroup"), 0),  # nobody knows
        match(payload("udp", "dport"), 443),
        match(payload("ip6", "saddr"), {"prefix": {"addr": "fe80::", "len": 64}}),
        match(payload("ip", "saddr"), {"prefix": {"addr": "fe80::", "len": 64}}),
        match(payload("ip", "daddr"), {"range": ["no", "address"]}),
        match({"ct": {"key": "state"}}, ["established", "related"], "in"),
        match({"ct": {"key": "status"}}, "dnat", "in"),
        match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
        match({"fib": {"result": "oif", "flags": ["saddr"]}}, False),
        match({"concat": [payload("ip", "saddr"), payload("udp", "dport")]}, {"set": [{"concat": ["10.32.0.2", 443]}]}),
        match({"&": [meta("iifgroup"), 1]}, 1),
        {"xt": {"type": "match", "name": "set"}},
        {"xt": {"type": "match", "name": "conntrack"}},
    ],
)
def test_a_rule_that_does_not_match_or_is_not_understood_says_nothing(condition: Mapping[str, Any]) -> None:
    assert judge(DROPPING, chains([condition, ACCEPT]), WEB) == BY_POLICY
    assert judge(ACCEPTING, chains([condition, DROP]), WEB) is None


def test_the_first_verdict_counts() -> None:
    assert judge(ACCEPTING, chains([REJECT], [ACCEPT]), WEB) == Refusal("forward", "rejects", by_policy=False)
    assert judge(DROPPING, chains([ACCEPT], [REJECT]), WEB) is None
    assert judge(DROPPING, chains([{"queue": {}}]), WEB) is None
    assert judge(DROPPING, chains([{"log": {"prefix": "x"}}], []), WEB) == BY_POLICY


def test_jumps_come_back_and_gotos_do_not() -> None:
    jump, goto = {"jump": {"target": "zone"}}, {"goto": {"target": "zone"}}
    assert judge(DROPPING, chains([jump], [ACCEPT], zone=[[RETURN], [DROP]]), WEB) is None
    assert judge(DROPPING, chains([goto], [ACCEPT], zone=[[match(meta("oifname"), "eth1"), ACCEPT]]), WEB) == BY_POLICY
    assert judge(ACCEPTING, chains([jump], [ACCEPT], zone=[[DROP]]), WEB) == Refusal("zone", "drops", by_policy=False)
    assert judge(DROPPING, chains([RETURN], [ACCEPT]), WEB) == BY_POLICY


def test_verdict_maps_lead_on() -> None:
    table = {"set": [["lo", ACCEPT], ["weave", {"goto": {"target": "zone"}}]]}
    known = chains([{"vmap": {"key": meta("iifname"), "data": table}}], zone=[[ACCEPT]])
    assert judge(DROPPING, known, WEB) is None
    named = chains([{"vmap": {"key": {"ct": {"key": "state"}}, "data": "@states"}}])
    assert judge(DROPPING, named, WEB) == Missing("states", is_chain=False)
    named.sets["states"] = [["invalid", DROP], ["new", ACCEPT]]
    assert judge(DROPPING, named, WEB) is None


def test_what_is_not_known_is_asked_for_when_the_packet_comes_to_it() -> None:
    assert judge(DROPPING, Known(), WEB) == Missing("forward", is_chain=True)
    known = chains([match(meta("iifname"), "docker0"), {"jump": {"target": "docker"}}], [{"jump": {"target": "zone"}}])
    assert judge(DROPPING, known, WEB) == Missing("zone", is_chain=True)


def test_a_circle_of_jumps_ends() -> None:
    found = judge(ACCEPTING, chains([{"jump": {"target": "forward"}}]), WEB)
    assert isinstance(found, Refusal)


def test_echo_requests_have_a_type_and_no_ports() -> None:
    base = BaseChain("inet", "filter", "forward", "input", "drop")
    assert judge(base, chains([match(payload("icmp", "type"), {"set": ["echo-request"]}), ACCEPT]), PING) is None
    assert judge(base, chains([match(payload("th", "dport"), 0), ACCEPT]), PING) == BY_POLICY
    assert judge(base, chains([match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), ACCEPT]), PING) is None


def test_of_xtables_what_is_safe_to_say_is_said() -> None:
    comment, tracked = ({"xt": {"type": "match", "name": name}} for name in ("comment", "conntrack"))
    reject, mark = ({"xt": {"type": "target", "name": name}} for name in ("REJECT", "MARK"))
    assert judge(DROPPING, chains([comment, ACCEPT]), WEB) is None
    assert judge(DROPPING, chains([tracked, ACCEPT]), ANSWER) is None
    assert judge(ACCEPTING, chains([tracked, DROP]), ANSWER) is None
    assert judge(ACCEPTING, chains([mark], [reject]), WEB) == Refusal("forward", "rejects", by_policy=False)
    nameless = {"xt": None}  # as older versions of nft write all of them
    assert judge(DROPPING, chains([nameless, ACCEPT]), WEB) is None
    assert judge(ACCEPTING, chains([nameless, DROP]), WEB) is None


def test_answers_are_of_a_connection_that_is_known() -> None:
    known = chains([match({"ct": {"key": "state"}}, {"set": ["established", "related"]}), ACCEPT])
    assert judge(DROPPING, known, ANSWER) is None
    assert judge(DROPPING, chains([match({"ct": {"key": "direction"}}, "reply"), ACCEPT]), ANSWER) is None
