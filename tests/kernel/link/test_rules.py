"""Masquerade rules and sysctls of a node, in namespaces of their own, read back by `nft -j` and from /proc/sys."""

import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from plugin.core.errors import MissingError
from plugin.link import netns, rules, sysctls
from plugin.link.netlink import Netlink
from tests.support.node import bridge

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
RANGE = IPv4Network("10.32.0.0/12")
FOREIGN = """
table ip weave-not {
  chain postrouting {
    type nat hook postrouting priority 90;
    ip saddr 10.0.0.0/8 counter
  }
}
table inet filter {
  set seen {
    type ipv4_addr;
    elements = { 192.0.2.1 }
  }
  chain input {
    type filter hook input priority 0; policy accept;
    ip saddr @seen counter accept
  }
}
table ip6 weave {
  chain c {
    counter
  }
}
"""


@pytest.fixture(autouse=True)
def node() -> Iterator[int]:
    """The test runs inside a namespace of its own, whose firewall is empty."""
    with netns.new_netns() as fd, netns.entered(fd):
        yield fd


def nft(*arguments: str) -> list[dict[str, Any]]:
    """What nft lists, without its first line about itself and without handles, which a replacement changes."""
    listed = json.loads(subprocess.check_output(["nft", "-j", *arguments]))["nftables"][1:]
    for one in listed:
        for value in one.values():
            value.pop("handle", None)
    return listed


def foreign_tables() -> list[dict[str, Any]]:
    return [
        one for one in nft("list", "ruleset")
        for kind, value in one.items()
        if (value.get("family"), value.get("table", value["name"] if kind == "table" else "")) != ("ip", "weave")
    ]  # fmt: skip


def masquerade_of_pods() -> list[dict[str, Any]]:
    """The rules that translate what pods send to the outside."""
    found = [one["rule"] for one in nft("list", "table", "ip", "weave") if "rule" in one]
    return [rule for rule in found if rule.get("comment") == "pods to the outside"]


def test_pods_are_masqueraded_when_they_leave_the_range() -> None:
    rules.ensure_rules(RANGE, "weave")
    listed = nft("list", "table", "ip", "weave")
    assert listed[0]["table"]["name"] == "weave"
    chain = next(one["chain"] for one in listed if one.get("chain", {}).get("name") == "postrouting")
    assert chain.items() >= {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}.items()
    (rule,) = masquerade_of_pods()
    matches = [part["match"] for part in rule["expr"] if "match" in part]
    pods = {"prefix": {"addr": "10.32.0.0", "len": 12}}
    assert [(one["op"], one["right"]) for one in matches] == [
        ("==", pods), ("!=", "@plain"), ("!=", pods), ("!=", {"prefix": {"addr": "224.0.0.0", "len": 4}}), ("!=", "weave"),
    ]  # fmt: skip
    assert rule["expr"][-1] == {"masquerade": {"flags": "fully-random"}}


def test_addresses_are_kept_and_masqueraded_again_as_often_as_one_likes() -> None:
    rules.ensure_rules(RANGE, "weave")
    rules.keep_address([], keep=True)
    for _ in range(2):
        rules.keep_address([IPv4Address("10.32.0.2"), IPv4Address("10.32.0.3")], keep=True)
    for _ in range(2):
        rules.keep_address([IPv4Address("10.32.0.2")], keep=False)
    (plain,) = nft("list", "set", "ip", "weave", "plain")
    assert plain["set"]["elem"] == ["10.32.0.3"]


def test_a_repetition_leaves_one_rule_and_another_range_replaces_it() -> None:
    for pod_range in (RANGE, RANGE, IPv4Network("10.9.0.0/24")):
        rules.ensure_rules(pod_range, "weave")
    (rule,) = masquerade_of_pods()
    assert rule["expr"][0]["match"]["right"]["prefix"] == {"addr": "10.9.0.0", "len": 24}


def test_the_tables_of_others_are_not_touched() -> None:
    subprocess.run(["nft", "-f", "-"], input=FOREIGN, text=True, check=True)
    before = foreign_tables()
    rules.ensure_rules(RANGE, "weave")
    rules.ensure_rules(RANGE, "weave")
    assert foreign_tables() == before
    rules.remove_rules()
    assert nft("list", "ruleset") == before


def test_removing_what_is_not_there_is_no_failure() -> None:
    rules.remove_rules()
    rules.ensure_rules(RANGE, "weave")
    rules.remove_rules()
    rules.remove_rules()
    assert nft("list", "ruleset") == []


def test_a_refusal_changes_nothing_and_says_what_is_needed() -> None:
    rules.ensure_rules(RANGE, "weave")
    before = nft("list", "ruleset")
    with pytest.raises(MissingError, match="the kernel refused the node's rules: ") as raised:
        rules.ensure_rules(RANGE, "x" * 40)  # no interface has such a name
    assert "nf_tables" in raised.value.hint
    assert nft("list", "ruleset") == before


def test_a_missing_nft_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="the program nft was not found") as raised:
        rules.ensure_rules(RANGE, "weave")
    assert raised.value.hint == "install the package nftables"


def sysctl(name: str) -> str | None:
    path = Path("/proc/sys", name)
    return path.read_text().strip() if path.exists() else None


def test_the_nodes_sysctls_are_set_in_its_namespace_only() -> None:
    with netns.new_netns() as other:
        with netns.entered(other):
            before = {name: sysctl(name) for name, _ in sysctls.NODE}
        sysctls.apply_sysctls(sysctls.NODE)
        sysctls.apply_sysctls(sysctls.NODE)
        for name, value in sysctls.NODE:
            assert sysctl(name) in {value, None}, name
        with netns.entered(other):
            assert {name: sysctl(name) for name, _ in sysctls.NODE} == before
    assert sysctl("net/ipv4/ip_forward") == "1"


def test_the_sysctls_of_an_interface_turn_its_ipv6_off() -> None:
    with Netlink() as netlink:
        weave = bridge(netlink)
    for name, value in sysctls.interface(weave.name):
        assert sysctl(name) == value


def test_an_unknown_key_is_passed_over_and_a_refused_value_is_a_sentence() -> None:
    sysctls.apply_sysctls([("net/ipv4/no_such_key", "1"), ("net/ipv4/ip_forward", "1")])
    assert sysctl("net/ipv4/ip_forward") == "1"
    with pytest.raises(MissingError, match=r"sysctl net\.ipv4\.ip_forward could not be set to x: Invalid argument"):
        sysctls.apply_sysctls([("net/ipv4/ip_forward", "x")])
