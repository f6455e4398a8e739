"""The uplink changes under running agents: address, MTU, name, state, routes. Pods keep theirs, and all is told."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from plugin.link import netns, pods
from testbed.machine.space import Space, call, run, spawn
from tests.support.cluster import Cluster, end, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
FOLLOW = {"node_address": "", "uplink": "eth0"}


class Trio(Cluster):
    """Three nodes whose agents follow their uplinks, and a pod on each."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        super().__init__(tmp, stack, count=3)
        self.pods: dict[int, tuple[Space, str]] = {}

    def up(self, **other: object) -> None:
        for number in self.nodes:
            self.start(number, **(FOLLOW | {"initial_peers": 3} | other), wait=False)
        for number in self.nodes:
            wait_for(lambda number=number: self.ready(number), f"agent {number} ready")
        for number in self.nodes:
            self.pods[number] = self.add(number, f"pod{number}x")
        self.wait_established()

    def ip(self, number: int, *words: str) -> None:
        done = run(self.nodes[number], ["ip", *words], timeout_s=10)
        assert done.returncode == 0, (words, done.stderr)

    def status(self, number: int) -> dict[str, Any]:
        return json.loads(self.api(number, "/status")[1])

    def states(self, number: int) -> dict[str, tuple[str, str]]:
        """State and reason of the peers, by their addresses."""
        return {peer["address"]: (peer["state"], peer["reason"]) for peer in self.status(number)["peers"]}

    def wait_established(self, *addresses: str, deadline_s: float = 20) -> None:
        """Every node has both others, over both control and overlay, and nobody else; `addresses` are among them."""

        def holds() -> bool:
            told = {number: self.status(number)["peers"] for number in self.nodes}
            paths = [peer["path"] for peers in told.values() for peer in peers]
            found = {peer["address"] for peers in told.values() for peer in peers}
            return (
                all(len(peers) == 2 for peers in told.values())
                and all(peer["state"] == "established" for peers in told.values() for peer in peers)
                and all(path is not None and path["state"] == "up" for path in paths)
                and found >= set(addresses)
            )

        try:
            wait_for(holds, "all are in touch", deadline_s)
        except AssertionError as error:
            raise AssertionError({number: self.states(number) for number in self.nodes}) from error

    def reach(self, *options: str) -> None:
        """Every pod reaches every other one."""
        for number, (pod, _) in self.pods.items():
            for other, (_, address) in self.pods.items():
                assert number == other or self.ping(pod, address, *options) == 0, (
                    f"pod {number} to pod {other} {options}"
                )

    def mtus(self, number: int) -> set[int]:
        """Of everything of ours on a node: switch, overlay device, both ends of its pod's cable."""
        ours = "weave", "vxlan-6784", pods.host_ifname(self.pods[number][0].name * 3, "eth0")
        links = dict(self.links(self.nodes[number]))
        return {links[name] for name in ours} | {dict(self.links(self.pods[number][0]))["eth0"]}

    def links(self, space: Space) -> list[tuple[str, int]]:
        with self.netlink(space) as inside:
            return [(link.name, link.mtu) for link in inside.links()]

    def events(self, number: int, event: str) -> list[dict[str, Any]]:
        return [line for text in self.log(number).splitlines() if (line := json.loads(text))["event"] == event]

    def trouble(self, number: int, name: str) -> str:
        """The cause of a problem that status shows; the empty text when there is none of that name."""
        return next((one["cause"] for one in self.status(number)["problems"] if one["object"] == name), "")

    def is_over(self, number: int, name: str) -> bool:
        return not self.trouble(number, name)

    @contextmanager
    def undisturbed(self, one: int, other: int) -> Iterator[None]:
        """The pods of two nodes talk to each other all the time, and not a packet is missing."""
        argv = ["ping", "-i", "0.05", "-W", "1", self.pods[other][1]]
        talk = spawn(self.pods[one][0], argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield
            talk.send_signal(signal.SIGINT)
            said = talk.communicate(timeout=10)[0].decode()
        finally:
            end(talk)
        counted = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert counted is not None, said
        sent, received = map(int, counted.groups())
        assert sent > 5
        assert received >= sent - 1, said  # the last one may be under way


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    with ExitStack() as stack:
        yield Trio(tmp_path, stack)


def identity(trio: Trio, number: int) -> tuple[Any, ...]:
    status = trio.status(number)
    held = sorted((one["label"], one["address"], one["mac"]) for one in trio.report(number)["attachments"])
    return status["pid"], status["uid"], status["bridge"]["address"], held


# --- another address --------------------------------------------------------------------------------------------------
def test_a_new_lease_is_followed_within_seconds_and_pods_keep_everything(trio: Trio) -> None:
    trio.up()
    before = identity(trio, 2)
    with trio.undisturbed(1, 3):
        trio.ip(2, "address", "del", "192.168.56.12/24", "dev", "eth0")
        trio.ip(2, "address", "add", "192.168.56.50/24", "dev", "eth0")
        trio.wait_established("192.168.56.50", deadline_s=8)
    trio.reach()
    assert identity(trio, 2) == before
    assert trio.status(2)["node_address"] == "192.168.56.50"
    with trio.netlink(trio.nodes[2]) as node:
        device = node.link("vxlan-6784")
    assert device is not None
    assert device.vxlan_local == IPv4Address("192.168.56.50")
    for number in (1, 3):
        forwarding = trio.report(number)["forwarding"]
        assert "192.168.56.50" in forwarding["flood"]
        assert "192.168.56.12" not in {*forwarding["flood"], *forwarding["remote"].values()}
    assert trio.events(2, "node address changed")
    assert trio.events(1, "peer moved")
    late, _ = trio.add(2, "latepodx")
    assert trio.ping(late, trio.pods[1][1]) == 0
    assert trio.ping(trio.pods[3][0], trio.pods[2][1]) == 0


def test_an_address_that_was_added_first_is_taken_when_the_old_one_goes_and_back(trio: Trio) -> None:
    trio.up()
    trio.ip(2, "address", "add", "192.168.56.50/24", "dev", "eth0")
    # As DHCP clients set it: otherwise the second address of a network goes with the first one.
    assert (
        run(trio.nodes[2], ["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"], timeout_s=10).returncode == 0
    )
    trio.ip(2, "address", "del", "192.168.56.12/24", "dev", "eth0")
    trio.wait_established("192.168.56.50", deadline_s=8)
    trio.ip(2, "address", "del", "192.168.56.50/24", "dev", "eth0")
    trio.ip(2, "address", "add", "192.168.56.12/24", "dev", "eth0")
    trio.wait_established("192.168.56.12", deadline_s=8)
    trio.reach()


def test_two_nodes_that_change_addresses(trio: Trio) -> None:
    trio.up()
    before = [identity(trio, number) for number in (2, 3)]
    for number in (2, 3):
        trio.ip(number, "address", "flush", "dev", "eth0")
    trio.ip(2, "address", "add", "192.168.56.13/24", "dev", "eth0")
    trio.ip(3, "address", "add", "192.168.56.12/24", "dev", "eth0")

    def believed(number: int) -> dict[str, str]:
        return {peer["name"]: peer["address"] for peer in trio.status(number)["peers"]}

    places = {"node1": "192.168.56.11", "node2": "192.168.56.13", "node3": "192.168.56.12"}
    for number in trio.nodes:
        others = {name: address for name, address in places.items() if name != f"node{number}"}
        wait_for(lambda number=number, others=others: believed(number) == others, f"node {number} knows who is where")
    trio.wait_established()
    trio.reach()
    assert [identity(trio, number) for number in (2, 3)] == before


def test_all_nodes_one_after_the_other_into_another_subnet_and_then_restarted(trio: Trio) -> None:
    for number in trio.nodes:
        for subnet in ("192.168.56.0/24", "172.20.0.0/24"):
            trio.ip(number, "route", "replace", subnet, "dev", "eth0", "table", "main", "metric", "99")
    trio.up()
    for number in trio.nodes:
        trio.ip(number, "address", "flush", "dev", "eth0")
        for subnet in ("192.168.56.0/24", "172.20.0.0/24"):
            trio.ip(number, "route", "replace", subnet, "dev", "eth0", "metric", "99")
        trio.ip(number, "address", "add", f"172.20.0.{number}/24", "dev", "eth0")
        trio.wait_established(f"172.20.0.{number}", deadline_s=10)
    trio.reach()
    assert trio.status(2)["targets"] == trio.status(3)["targets"] == ["172.20.0.1"], "the first one moved, too"
    for number in (2, 3):
        wait_for(
            lambda number=number: (
                {seat["address"] for seat in trio.status(number)["ipam"]["seats"]}
                == {"172.20.0.1", "172.20.0.2", "172.20.0.3"}
            ),
            "the seats follow",
        )
    end(trio.agents.pop(2)) if 2 in trio.agents else stop(trio, 2)
    trio.start(2, **(FOLLOW | {"initial_peers": 3}))
    trio.wait_established()
    trio.reach()


def stop(trio: Trio, number: int) -> None:
    pid = trio.status(number)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not trio.ready(number), f"agent {number} is gone")


def test_a_configured_address_that_goes_is_told_and_all_goes_on_when_it_is_back(trio: Trio) -> None:
    trio.up()
    stop(trio, 2)
    trio.start(2)  # node_address in its configuration
    trio.wait_established()
    with trio.undisturbed(1, 3):
        trio.ip(2, "address", "del", "192.168.56.12/24", "dev", "eth0")
        trio.ip(2, "address", "add", "192.168.56.50/24", "dev", "eth0")
        cause = "the node address 192.168.56.12 is on no interface of this node: eth0 has 192.168.56.50"
        wait_for(lambda: trio.trouble(2, "node address") == cause, "it is told")
        wait_for(lambda: all(told == ("failed", cause) for told in trio.states(2).values()), "and is the reason")
        assert trio.status(2)["node_address"] == "192.168.56.12"
        trio.ip(2, "address", "add", "192.168.56.12/24", "dev", "eth0")
        wait_for(lambda: trio.is_over(2, "node address"), "it is over")
        trio.wait_established("192.168.56.12")
    trio.reach()


def test_an_address_whose_port_is_taken_is_used_as_soon_as_it_is_free(trio: Trio) -> None:
    trio.up()

    def occupy() -> socket.socket:
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("192.168.56.50", 6783))
        return taken

    trio.ip(2, "address", "add", "192.168.56.50/32", "dev", "eth0")
    with call(trio.nodes[2], occupy):
        trio.ip(2, "address", "del", "192.168.56.12/24", "dev", "eth0")
        wait_for(
            lambda: trio.trouble(2, "uplink").startswith("the node address 192.168.56.50 cannot be used"), "told", 5
        )
        trio.ip(2, "route", "add", "192.168.56.0/24", "dev", "eth0")
    trio.wait_established("192.168.56.50", deadline_s=10)
    assert trio.is_over(2, "uplink")


# --- what else happens to an uplink -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("harm", "name", "cause", "heal", "cuts"),
    [
        (
            [("link", "set", "eth0", "down")], "uplink", "the uplink eth0 is down",
            [("link", "set", "eth0", "up")], True,
        ),
        (
            [("link", "set", "eth0", "down"), ("link", "set", "eth0", "name", "ens3"), ("link", "set", "ens3", "up")],
            "uplink", "the uplink eth0 is called ens3 now",
            [("link", "set", "ens3", "down"), ("link", "set", "ens3", "name", "eth0"), ("link", "set", "eth0", "up")], False,
        ),
        (
            [("address", "del", "192.168.56.12/24", "dev", "eth0")], "uplink", "the uplink eth0 has no IPv4 address",
            [("address", "add", "192.168.56.12/24", "dev", "eth0")], True,
        ),
        (
            [("address", "del", "192.168.56.12/24", "dev", "eth0"), ("address", "add", "192.168.56.12/32", "dev", "lo")],
            "uplink", "the node address 192.168.56.12 is on lo, and was expected on eth0",
            [("address", "del", "192.168.56.12/32", "dev", "lo"), ("address", "add", "192.168.56.12/24", "dev", "eth0")],
            False,
        ),
        (
            [("route", "del", "default")], "default route",
            "the default route of this node is gone: pods do not reach the outside",
            [("route", "add", "default", "via", "192.168.56.11")], False,
        ),
        (
            [("route", "add", "unreachable", "192.168.56.13/32")], "routes", "no route of this node leads to 192.168.56.13",
            [("route", "del", "unreachable", "192.168.56.13/32")], False,
        ),
    ],
    ids=["down", "renamed", "no address", "on lo", "no default route", "no route to one"],
)  # fmt: skip
def test_what_happens_to_an_uplink_is_told_with_its_cause_and_heals(
    trio: Trio, harm: list[tuple[str, ...]], name: str, cause: str, heal: list[tuple[str, ...]], *, cuts: bool
) -> None:
    trio.ip(2, "route", "add", "default", "via", "192.168.56.11")
    trio.up()
    with trio.undisturbed(1, 3):
        for words in harm:
            trio.ip(2, *words)
        wait_for(lambda: trio.trouble(2, name) == cause, "it is told", 3)
        if cuts:
            wait_for(lambda: all(told == ("failed", cause) for told in trio.states(2).values()), "and is the reason")
        for words in heal:
            trio.ip(2, *words)
        if ("link", "set", "eth0", "up") in heal:
            trio.ip(2, "route", "add", "default", "via", "192.168.56.11")
        wait_for(lambda: trio.is_over(2, name), "it is over", 3)
        trio.wait_established("192.168.56.12", deadline_s=10)
    trio.reach()


def test_an_uplink_that_vanishes_and_comes_back(trio: Trio) -> None:
    trio.up()
    cause = "the uplink eth0 is gone, and with it the node address 192.168.56.12"
    held = netns.open_netns(trio.space("drawer").net)
    home = netns.open_netns(trio.nodes[2].net)
    try:
        with trio.netlink(trio.nodes[2]) as node, trio.undisturbed(1, 3):
            trio.ip(2, "link", "set", "eth0", "netns", str(trio.tmp / "drawer"))
            wait_for(lambda: trio.trouble(2, "uplink") == cause, "it is told", 3)
            wait_for(lambda: all(told == ("failed", cause) for told in trio.states(2).values()), "and is the reason")
            assert node.link("eth0") is None
            done = run(Space("drawer", trio.tmp / "drawer", None, None),
                       ["ip", "link", "set", "eth0", "netns", str(trio.nodes[2].net)], timeout_s=10)  # fmt: skip
            assert done.returncode == 0, done.stderr
            trio.ip(2, "address", "add", "192.168.56.50/24", "dev", "eth0")
            trio.ip(2, "link", "set", "eth0", "up")
            trio.wait_established("192.168.56.50", deadline_s=10)
            assert trio.is_over(2, "uplink")
    finally:
        os.close(held)
        os.close(home)
    trio.reach()


def test_an_agent_with_pods_starts_without_its_uplink_and_one_without_refuses(trio: Trio) -> None:
    trio.up()
    stop(trio, 2)
    trio.ip(2, "address", "del", "192.168.56.12/24", "dev", "eth0")
    trio.start(2, **(FOLLOW | {"initial_peers": 3}))
    assert trio.trouble(2, "uplink") == "the uplink eth0 has no IPv4 address"
    assert trio.status(2)["node_address"] == "192.168.56.12"
    trio.ip(2, "address", "add", "192.168.56.50/24", "dev", "eth0")
    trio.wait_established("192.168.56.50")
    trio.reach()


# --- the MTU ------------------------------------------------------------------------------------------------------------
def full(mtu_bytes: int) -> tuple[str, ...]:
    """Options of ping for the largest packet that may not be cut."""
    return "-M", "do", "-s", str(mtu_bytes - 28)


def resized(trio: Trio, number: int, mtu_bytes: int) -> Callable[[], bool]:
    return lambda: trio.mtus(number) == {mtu_bytes} and trio.status(number)["overlay"]["mtu"] == mtu_bytes


def test_a_smaller_uplink_shrinks_living_pods_and_a_larger_one_lets_them_grow(trio: Trio) -> None:
    trio.up()
    trio.reach(*full(1450))
    for uplink_mtu in (1400, 1500, 1450):
        trio.set_underlay_mtu(uplink_mtu)
        for number in trio.nodes:
            wait_for(resized(trio, number, uplink_mtu - 50), f"node {number} has followed", 5)
        trio.reach(*full(uplink_mtu - 50))
        late, address = trio.add(1, f"late{uplink_mtu}x")
        assert trio.ping(trio.pods[1][0], address, *full(uplink_mtu - 50)) == 0, "an old and a new pod of one node"
        for number in trio.nodes:
            assert trio.cni(number, "CHECK", trio.pods[number][0])[0] == 200
        assert trio.cni(1, "DEL", late)[0] == 200
    assert [trio.status(number)["repairs"] for number in trio.nodes] == [[], [], []], "nobody thought it damaged"
    wait_for(lambda: {peer["path"]["mtu"] for peer in trio.status(1)["peers"]} == {1400}, "the paths carry it")


def test_an_agent_that_was_away_while_the_uplink_shrank_shrinks_what_it_finds(trio: Trio) -> None:
    trio.up()
    stop(trio, 2)
    with trio.netlink(trio.nodes[2]) as node:
        eth0 = node.link("eth0")
    assert eth0 is not None
    trio.ip(2, "link", "set", "eth0", "mtu", "1400")
    trio.start(2, **(FOLLOW | {"initial_peers": 3}))
    wait_for(resized(trio, 2, 1350), "its pods are small", 5)
    stop(trio, 2)
    trio.ip(2, "link", "set", "eth0", "mtu", "1500")
    trio.start(2, **(FOLLOW | {"initial_peers": 3}))
    wait_for(resized(trio, 2, 1450), "its pods are large again", 5)


def test_the_mtu_of_a_route_to_one_peer_counts_and_not_the_links(trio: Trio) -> None:
    trio.up()
    trio.ip(2, "route", "add", "192.168.56.13/32", "dev", "eth0", "mtu", "1300")
    wait_for(resized(trio, 2, 1250), "the lowest way counts", 5)
    assert trio.status(2)["overlay"]["uplink_mtu"] == 1300
    trio.ip(2, "route", "del", "192.168.56.13/32")
    wait_for(resized(trio, 2, 1450), "and no longer", 5)


def test_a_pod_that_asked_for_less_keeps_it(trio: Trio) -> None:
    trio.up()
    small = trio.space("smallpod")
    assert trio.cni(1, "ADD", small, mtu=1300)[0] == 200
    for uplink_mtu, mtu_bytes in ((1400, 1300), (1300, 1250), (1500, 1300)):
        trio.set_underlay_mtu(uplink_mtu)
        wait_for(resized(trio, 1, uplink_mtu - 50), "the others have all of it", 5)
        wait_for(lambda mtu_bytes=mtu_bytes: dict(trio.links(small))["eth0"] == mtu_bytes, "it has what it may", 5)
        assert trio.cni(1, "CHECK", small, mtu=1300)[0] == 200


def test_a_configured_mtu_stays_and_is_contradicted(trio: Trio) -> None:
    trio.up(mtu=1400)
    assert trio.mtus(1) == {1400}
    trio.set_underlay_mtu(1400)
    cause = "pods have the configured MTU of 1400 bytes, and the way to other nodes carries 1350"
    wait_for(lambda: trio.trouble(1, "mtu") == cause, "it is told", 5)
    assert trio.mtus(1) == {1400}
    trio.set_underlay_mtu(1500)
    wait_for(lambda: trio.is_over(1, "mtu"), "it is over", 5)


def test_a_pod_whose_side_cannot_be_reached_is_told_and_check_says_so(trio: Trio) -> None:
    trio.up()
    pod, _ = trio.pods[2]
    fd = netns.open_netns(pod.net)  # the descriptor keeps it alive; its path leads nowhere any more
    try:
        netns.umount(pod.net, netns.MNT_DETACH)
        trio.set_underlay_mtu(1400)
        wait_for(lambda: any(one["object"].startswith("mtu ") for one in trio.status(2)["problems"]), "it is told", 5)
        (told,) = trio.status(2)["problems"]
        assert "the MTU of pod" in told["cause"]
        assert "cannot be entered from the agent" in told["cause"]
        assert "delete the pod" in told["advice"]
        netns.mount(f"/proc/self/fd/{fd}", pod.net, flags=netns.MS_BIND)
        assert trio.mtus(2) == {1350, 1450}, "both ends of its cable are as they were"
        assert trio.ping(pod, trio.pods[1][1]) == 0, "what is small passes as before"
        status, text = trio.cni(2, "CHECK", pod)
        assert status == 400
        assert "has MTU 1450, the network carries 1350 now" in text
    finally:
        os.close(fd)
