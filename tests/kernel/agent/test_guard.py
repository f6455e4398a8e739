"""The guard's kernel objects: as they are wanted, and right again whatever was done to them."""

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from plugin.agent.dataplane.guard import Guard
from plugin.agent.store import Record
from plugin.core.cni.exemption import Exemption
from plugin.core.errors import MissingError
from plugin.core.forwarding.guard import Entry, Sender, wanted_entries
from plugin.core.ipam.allocator import Attachment
from plugin.link import guard, netns, pods, rtnl
from plugin.link.netlink import Netlink
from plugin.link.nfnetlink import BRIDGE, IPV4, Netfilter
from tests.support.node import bridge, device, pod_link
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
PLACE = guard.Place(
    bridge="weave", port_prefix=pods.HOST_PREFIX, pod_range=IPv4Network("10.32.0.0/12"), vxlan_port=6784,
    control_port=6783, api_port=6784,
)  # fmt: skip
ONE, TWO = IPv4Address("192.168.56.12"), IPv4Address("192.168.56.13")
RED, GREEN = IPv4Address("10.32.0.2"), IPv4Address("10.32.0.3")
EXEMPTIONS = {RED: None, GREEN: Exemption(any_mac=True, addresses=("10.40.0.9",))}


def shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


def listed() -> list[dict[str, Any]]:
    """Both tables as another reader shows them, without what a replacement changes."""
    found = []
    for family in ("bridge", "ip"):
        text = subprocess.check_output(["nft", "-j", "-n", "list", "table", family, "weave-guard"])
        found += json.loads(text)["nftables"][1:]
    for one in found:
        for value in one.values():
            value.pop("handle", None)
            if isinstance(value.get("elem"), list):
                value["elem"].sort(key=json.dumps)
    return found


def ports() -> dict[str, tuple[int, int]]:
    flags = {name: Witness().port_flags(name) for name in ("vethweplred", "vethweplgreen")}
    return {name: (found["LEARNING"], found["LOCKED"]) for name, found in flags.items()}


class Node:
    """A switch with two pods, and the guard of an agent that knows two members."""

    def __init__(self, netlink: Netlink) -> None:
        self.netlink = netlink
        self.records: dict[Attachment, Record] = {}
        self.members = {ONE, TWO}
        self.netfilter = Netfilter()
        device(netlink)
        for address, name in ((RED, "red"), (GREEN, "green")):
            with netns.new_netns() as fd:
                link = pod_link(address, host_ifname=f"vethwepl{name}")
                pods.attach(netlink, bridge(netlink), fd, link)
                self.kept = [*getattr(self, "kept", []), os.dup(fd)]
            record = Record(
                network="n", container_id=name, ifname="eth0", address=str(address), mac=pods.mac_for(address),
                host_ifname=f"vethwepl{name}", label=name, state="added", guard=EXEMPTIONS[address],
            )  # fmt: skip
            self.records[record.attachment] = record
        self.guard = self.agent()

    def agent(self) -> Guard:
        return Guard(
            netlink=self.netlink, netfilter=self.netfilter, place=PLACE, records=lambda: self.records,
            members=lambda: self.members, name_of=lambda _address: "", log=logging.getLogger("test-guard"),
        )  # fmt: skip

    @property
    def state(self) -> Any:
        return listed(), ports()

    def close(self) -> None:
        self.netfilter.close()
        for fd in self.kept:
            os.close(fd)


@pytest.fixture
def node(netlink: Netlink) -> Iterator[Node]:
    made = Node(netlink)
    yield made
    made.close()


def index(name: str) -> int:
    return int(Witness().link(name)["index"])


def test_both_tables_are_written_with_all_that_is_wanted(node: Node) -> None:
    assert node.guard.differs()
    assert node.guard.ensure()
    senders = [
        Sender(index(record.host_ifname), record.mac, record.addresses, record.guard or Exemption())
        for record in node.records.values()
    ]
    assert guard.observe_entries(node.netfilter) == wanted_entries(senders)
    assert guard.observe_members(node.netfilter) == {ONE, TWO}
    assert ports() == {"vethweplred": (0, 1), "vethweplgreen": (1, 0)}


def test_what_another_reader_sees_is_what_was_meant(node: Node) -> None:
    node.guard.ensure()
    sets = {one["set"]["name"]: one["set"].get("elem", []) for one in listed() if "set" in one}
    assert {"concat": ["vethweplred", pods.mac_for(RED), str(RED)]} in sets["sources"]
    assert {"concat": ["vethweplgreen", "10.40.0.9"]} in sets["any-mac"]
    assert sorted(sets["members"]) == [str(ONE), str(TWO)]


def test_twice_is_once(node: Node) -> None:
    node.guard.ensure()
    before, generation = node.state, node.netfilter.generation()
    for _ in range(3):
        assert not node.guard.differs()
        assert node.guard.ensure() == ()
    assert (node.state, node.netfilter.generation()) == (before, generation), "not even written"


DAMAGES = [
    "nft flush ruleset",
    "nft delete table bridge weave-guard",
    "nft delete table ip weave-guard",
    "nft flush chain bridge weave-guard prerouting",
    "nft flush chain ip weave-guard input",
    "nft insert rule bridge weave-guard prerouting accept",
    "nft add rule ip weave-guard forward accept",
    "nft add chain bridge weave-guard more",
    "nft flush set bridge weave-guard sources",
    "nft flush set bridge weave-guard macs",
    "nft flush set bridge weave-guard any-mac",
    "nft flush set ip weave-guard members",
    "nft flush set bridge weave-guard members",
    "nft add element ip weave-guard members '{ 192.168.56.66 }'",
    "nft add element bridge weave-guard promiscuous '{ vethweplred }'",
    "nft add element bridge weave-guard sources '{ vethweplred . 02:00:00:00:00:05 . 10.32.0.9 }'",
    "nft delete element bridge weave-guard macs '{ vethweplred . 0a:58:0a:20:00:02 }'",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_somebody_changes_is_noticed_and_put_right(node: Node, damage: str) -> None:
    node.guard.ensure()
    before = node.state
    shell(damage)
    assert node.guard.differs()
    assert len(node.guard.ensure()) == 1
    assert node.state == before
    assert not node.guard.differs()
    assert node.guard.ensure() == ()


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("vethweplred", {"learning": True}), ("vethweplred", {"locked": False}),
        ("vethweplgreen", {"learning": False}), ("vethweplgreen", {"locked": True}),
    ],
)  # fmt: skip
def test_a_port_that_somebody_opens_or_closes_is_put_right(node: Node, name: str, flags: dict[str, bool]) -> None:
    node.guard.ensure()
    before = node.state
    node.netlink.request(rtnl.port_flags_set(index(name), flags))
    assert node.guard.differs()
    assert node.guard.ensure() == (f"port {name}",)
    assert node.state == before
    assert not node.guard.differs()


def test_the_tables_of_others_are_no_damage_and_stay(node: Node) -> None:
    node.guard.ensure()
    shell("nft add table bridge other; nft add chain bridge other c; nft add table ip weave")
    assert not node.guard.differs()
    shell("nft delete table bridge weave-guard")
    node.guard.ensure()
    tables = subprocess.check_output(["nft", "list", "tables"], text=True).splitlines()
    assert {"table bridge other", "table ip weave"} <= set(tables)
    guard.remove_guard()
    guard.remove_guard()
    tables = subprocess.check_output(["nft", "list", "tables"], text=True).splitlines()
    assert set(tables) == {"table bridge other", "table ip weave"}


def test_another_agent_takes_over_what_one_has_left(node: Node) -> None:
    node.guard.ensure()
    before = node.state
    shell("nft add element bridge weave-guard promiscuous '{ vethweplred }'")
    node.members = {ONE}  # it does not know the other yet
    again = node.agent()
    again.ensure()
    assert node.state == before, "members that an earlier agent knew are heard for a while"
    assert not again.differs()


def test_members_come_and_go(node: Node) -> None:
    node.members = set()
    node.guard.members_changed()  # before there is anything to change
    node.guard.ensure()
    for members in ({ONE}, {ONE, TWO}, {TWO}, set()):
        node.members = members
        node.guard.members_changed()
        assert guard.observe_members(node.netfilter) == members
        assert not node.guard.differs(), "what we write is no damage"


def test_the_entries_of_a_pod_come_before_its_port_and_go_after_it(node: Node) -> None:
    node.guard.ensure()
    (_, red), *_ = node.records.items()
    before = guard.observe_entries(node.netfilter)
    link = node.netlink.link(red.host_ifname)
    assert link is not None
    node.guard.forget([red])
    assert {entry.port for entry in before - guard.observe_entries(node.netfilter)} == {link.index}
    assert node.guard.differs(), "it is there still, and has to be guarded"
    node.guard.admit(red, link)
    assert guard.observe_entries(node.netfilter) == before
    assert not node.guard.differs()


def test_a_pod_is_admitted_though_somebody_has_flushed_all_tables(node: Node) -> None:
    node.guard.ensure()
    before = node.state
    (_, red), *_ = node.records.items()
    shell("nft flush ruleset")
    link = node.netlink.link(red.host_ifname)
    assert link is not None
    node.guard.forget([red])  # nothing to forget is no failure
    node.guard.admit(red, link)
    assert node.state == before


def test_what_a_pod_was_exempted_from_is_read_from_the_kernel(node: Node) -> None:
    node.guard.ensure()
    for record in node.records.values():
        assert node.guard.observed(record.host_ifname, record.mac, record.addresses) == record.guard
    assert node.guard.observed("vethweplnobody", "", ()) is None


def test_an_entry_of_each_kind_is_read_as_it_was_written(node: Node) -> None:
    node.guard.ensure()
    entries = {
        Entry("sources", 77, "02:00:00:00:00:05", RED), Entry("macs", 77, "02:00:00:00:00:05"),
        Entry("any-mac", 77, address=RED), Entry("any-address", 77, "02:00:00:00:00:05"), Entry("promiscuous", 77),
    }  # fmt: skip
    before = guard.observe_entries(node.netfilter)
    for _ in range(2):
        guard.add_entries(node.netfilter, entries)
        assert guard.observe_entries(node.netfilter) == before | entries
    for _ in range(2):
        guard.delete_entries(node.netfilter, entries)
        assert guard.observe_entries(node.netfilter) == before


def test_a_thousand_pods_are_guarded_by_the_same_rules(node: Node) -> None:
    node.guard.ensure()
    rules = [one for one in listed() if "rule" in one]
    senders = [
        Sender(10_000 + number, pods.mac_for(RED + number), (RED + number,), Exemption(any_address=number % 2 == 0))
        for number in range(1000)
    ]
    guard.write_guard(PLACE, wanted_entries(senders), ())
    assert [one for one in listed() if "rule" in one] == rules
    assert guard.observe_entries(node.netfilter) == wanted_entries(senders)


def test_what_the_guard_uses_of_this_kernel_is_told(node: Node) -> None:
    node.guard.ensure()
    status = node.guard.status()
    assert (status["exempt"], status["members"], status["refused"]) == (1, 2, {})
    assert set(status["by"]) >= {"nft", "learning off"}
    assert ("locked" in status["by"]) is (Witness().port_flags("vethweplred").get("LOCKED") is not None)


def test_a_kernel_that_refuses_is_a_sentence_and_nothing_changes(node: Node) -> None:
    node.guard.ensure()
    before = node.state
    with pytest.raises(MissingError, match="the kernel refused the node's rules"):
        guard.write_guard(PLACE, [Entry("sources", 1, "no MAC", RED)], ())
    assert node.state == before


def test_a_table_that_is_not_there_has_no_figure_and_no_entries(node: Node) -> None:
    assert guard.rules_digest(node.netfilter) == b""
    assert guard.observe_entries(node.netfilter) == frozenset()
    refused = guard.observe_refused(node.netfilter)
    assert refused == guard.Refused({}, {}, {})
    assert node.netfilter.table_digest("weave-guard", BRIDGE) == node.netfilter.table_digest("weave", IPV4) == b""


def test_the_generation_counts_changes_of_anybody_and_no_packets(node: Node) -> None:
    before = node.netfilter.generation()
    assert node.netfilter.generation() == before
    shell("nft add table ip other")
    assert node.netfilter.generation() == before + 1
