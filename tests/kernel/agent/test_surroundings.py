"""Looking at what others do on a node, without an agent: what is told, what it costs, when it is over."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from plugin.agent.config import AgentConfig
from plugin.agent.dataplane.passage import Passage, remove_passage
from plugin.agent.dataplane.surroundings import Surroundings
from plugin.core.firewall.samples import Site
from plugin.link import firewalls, netns, rtnl, rules, xtables
from plugin.link.netlink import Netlink
from plugin.link.nfnetlink import Netfilter
from plugin.link.snapshot import Observer

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
    pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="needs iptables"),
]
CONFIG = AgentConfig(name="node1", node_address="192.168.56.11")
SITE = Site(
    bridge="weave", uplink="eth0", pods=CONFIG.network, node=CONFIG.address, control_port=6783, vxlan_port=6784,
    tracked=True,
)  # fmt: skip


class Node:
    """A namespace with a switch and an uplink, and who looks at it."""

    def __init__(self, netlink: Netlink, netfilter: Netfilter) -> None:
        self.netlink, self.netfilter, self.now_s = netlink, netfilter, 0.0
        self.passage = Passage(netfilter, lambda: SITE, lambda: self.now_s)
        self.surroundings = Surroundings(netlink, CONFIG)

    def problems(self) -> dict[str, str]:
        """What a look tells."""
        seen = Observer(self.netlink, self.netfilter).look()
        told = dict(self.passage.troubles(seen)) | dict(self.surroundings.troubles(seen))
        return {name: cause for name, (cause, _) in told.items()}

    def damaged(self) -> list[str]:
        return [one.name for one in self.passage.damage(None)]


@pytest.fixture
def node() -> Iterator[Node]:
    with netns.new_netns() as fd, netns.entered(fd), Netlink() as netlink, Netfilter() as netfilter:
        netlink.request(
            rtnl.link_set(1, up=True),
            rtnl.veth_add(rtnl.VethEnd(name="eth0", index=2, up=True), rtnl.VethEnd(name="far", index=3)),
            rtnl.link_set(3, up=True),
            rtnl.bridge_add("weave", index=4),
            rtnl.address_add(4, IPv4Interface("10.32.0.1/12")),
        )
        yield Node(netlink, netfilter)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that were started to look."""
    started: list[str] = []
    run = firewalls._run

    def counted(arguments: list[str], stdin: str = "") -> tuple[int, str]:
        started.append(arguments[0])
        return run(arguments, stdin)

    monkeypatch.setattr(firewalls, "_run", counted)
    return started


def iptables(*words: str) -> str:
    return subprocess.check_output(["iptables-nft", *words], text=True)


def test_routes_and_addresses_are_told_until_they_are_gone(node: Node) -> None:
    assert node.problems() == {}
    route, address = IPv4Network("10.40.0.0/16"), IPv4Interface("172.16.9.1/24")
    node.netlink.request(rtnl.route_add(route, index=2), rtnl.address_add(4, address))
    assert set(node.problems()) == {"pod range", "foreign address"}
    assert "the existing route 10.40.0.0/16 of this node by eth0" in node.problems()["pod range"]
    node.netlink.request(rtnl.address_del(4, address))
    subprocess.run(["ip", "route", "del", str(route)], check=True)
    assert node.problems() == {}


def test_who_has_no_firewall_pays_for_no_process(node: Node, processes: list[str]) -> None:
    rules.ensure_rules(CONFIG.network, "weave")
    for _ in range(100):
        node.now_s += 2
        assert (node.damaged(), node.problems()) == ([], {})
    rules.keep_address([IPv4Address("10.32.0.9")], keep=True)
    assert node.problems() == {}
    assert processes == []


def test_a_firewall_is_read_when_its_rules_have_changed_and_now_and_then(node: Node, processes: list[str]) -> None:
    text = (
        "table inet mine { set s { type ipv4_addr; }; chain f { type filter hook forward priority 0; policy drop; }; }"
    )
    subprocess.run(["nft", text], check=True)
    for _ in range(3):
        assert "the chain f of the nftables table inet mine drops what pods" in node.problems()["forward policy"]
        subprocess.run(["nft", "add element inet mine s { 192.0.2.1 }"], check=True)
    assert processes == ["nft"], "its set has changed since, its rules have not"
    node.now_s += 100
    assert set(node.problems()) == {"forward policy"}
    assert processes == ["nft", "nft"]
    subprocess.run(["nft", "add rule inet mine f accept"], check=True)
    assert node.problems() == {}


def test_a_table_that_is_made_anew_is_another(node: Node) -> None:
    for policy in ("accept", "drop", "accept"):
        chain = "chain f { type filter hook forward priority 0; policy accept; counter VERDICT; }"
        subprocess.run(["nft", "flush ruleset"], check=True)
        subprocess.run(["nft", "table inet mine { " + chain.replace("VERDICT", policy) + "; }"], check=True)
        assert ("forward policy" in node.problems()) is (policy == "drop")


def test_a_table_of_very_many_rules_is_read_where_packets_come_to(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewalls, "_WHOLE_MAX", 3)
    text = """
    table inet mine {
      map states { type ct_state : verdict; elements = { established : accept, new : goto fresh } }
      chain f { type filter hook forward priority 0; policy drop; ct state vmap @states; }
      chain fresh { iifname "weave" jump pods; }
      chain pods { oifname { "weave", "eth0" } accept; }
      chain never { jump pods; jump pods; jump pods; }
    }"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    assert node.problems() == {}
    subprocess.run(["nft", "flush chain inet mine pods"], check=True)
    assert set(node.problems()) == {"forward policy"}


def test_rules_that_somebody_takes_away_are_damage_until_they_are_there_again(node: Node) -> None:
    iptables("-P", "FORWARD", "DROP")
    for _ in range(2):
        assert node.damaged() == node.damaged() == ["iptables nf_tables"]
        assert set(node.problems()) == {"forward policy"}, "what is not mended hides nothing"
        node.passage.mend(None, ["iptables nf_tables"])
        assert iptables("-S", "FORWARD").count("weavelab: ") == 2
        assert (node.damaged(), node.problems()) == ([], {})
        iptables("-F", "FORWARD")
    node.passage.mend(None, ["something else"])
    assert iptables("-S", "FORWARD").count("weavelab: ") == 0
    assert list(node.passage.names()) == ["iptables nf_tables"]


def test_rules_of_legacy_iptables_are_looked_at_when_they_have_changed(node: Node, processes: list[str]) -> None:
    def legacy(*words: str) -> str:
        return subprocess.check_output(["iptables-legacy", *words], text=True)

    if subprocess.run(["iptables-legacy", "-S"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this kernel has no legacy iptables")
    assert xtables.has_legacy_filter()
    legacy("-P", "FORWARD", "DROP")
    legacy("-A", "OUTPUT", "-o", "lo", "-j", "ACCEPT")
    assert node.damaged() == ["iptables legacy"]
    node.passage.mend(None, ["iptables legacy"])
    assert node.damaged() == []
    placed = legacy("-S")
    assert placed.count("weavelab: ") == 2
    before, count = xtables.legacy_digest(), len(processes)
    subprocess.run(["ping", "-c1", "-W1", "127.0.0.1"], check=True, capture_output=True)
    assert legacy("-L", "OUTPUT", "-v", "-n", "-x") != "", "a counter has counted"
    assert (xtables.legacy_digest(), node.damaged(), len(processes)) == (before, [], count)
    legacy("-D", "FORWARD", "1")
    assert xtables.legacy_digest() != before
    assert node.damaged() == ["iptables legacy"]


def test_who_has_never_used_legacy_iptables_is_not_given_it(node: Node) -> None:
    assert (node.damaged(), xtables.has_legacy_filter(), xtables.legacy_digest()) == ([], False, b"")


def test_our_rules_go_and_others_stay(node: Node) -> None:
    iptables("-P", "FORWARD", "DROP")
    iptables("-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT")
    before = iptables("-S")
    node.passage.place()
    assert iptables("-S") != before
    with Netfilter() as netfilter:
        remove_passage(netfilter)
        remove_passage(netfilter)
    assert iptables("-S") == before
