"""Services as kube-proxy makes them, and processes of a node with any of its addresses: who reaches pods, and as whom."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from plugin.link import netns, rtnl, rules, sysctls
from testbed.machine.space import Space, call, run
from tests.support.calls import Server
from tests.support.cluster import Cluster, wait_for
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
    pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="needs iptables"),
]
NODE1, NODE2 = "192.168.56.11", "192.168.56.12"
NEAR, FAR = "10.96.0.10", "10.96.0.11"
LOOPBACK = "172.31.0.1"
PODS = IPv4Network("10.32.0.0/12")
KUBE_PROXY = (ROOT / "tests/golden/firewalls/kube-proxy.rules").read_text()


@dataclass
class Pods:
    """A caller and a backend on node 1, another backend on node 2, and the switches."""

    cluster: Cluster
    stack: ExitStack
    caller: tuple[Space, str]
    near: tuple[Space, str]
    far: tuple[Space, str]

    def switch(self, number: int = 1) -> str:
        return str(json.loads(self.cluster.api(number, "/status")[1])["bridge"]["address"]).partition("/")[0]

    def servers(self, protocol: str) -> tuple[Server, Server]:
        near, far = (Server(pod, protocol, 80, self.stack) for pod, _ in (self.near, self.far))
        return near, far

    def services(self, protocol: str, *, by: str = "kube-proxy") -> None:
        """kube-proxy of node 1 makes the two Services anew; or somebody with two bare rules."""
        if by == "rules":
            done = run(self.cluster.nodes[1], ["nft", "-f", "-"], stdin=self.bare(protocol).encode(), timeout_s=20)
            assert done.returncode == 0, done.stderr
            return
        text = KUBE_PROXY.replace("NEAR", self.near[1]).replace("FAR", self.far[1]).replace("PROTOCOL", protocol)
        done = run(self.cluster.nodes[1], ["iptables-nft-restore"], stdin=text.encode(), timeout_s=20)
        assert done.returncode == 0, done.stderr

    def bare(self, protocol: str) -> str:
        rules = "".join(
            f"ip daddr {service} {protocol} dport 80 dnat to {pod}:80; "
            for service, pod in ((NEAR, self.near[1]), (FAR, self.far[1]))
        )
        chains = "".join(
            f"chain {hook} {{ type nat hook {hook} priority -100; {rules} }}; " for hook in ("prerouting", "output")
        )
        return f"table ip services {{ {chains} }}"


@pytest.fixture
def pods(cluster: Cluster) -> Iterator[Pods]:
    for node in cluster.nodes.values():
        with cluster.netlink(node) as inside:  # a node has a way to everywhere, Services too
            inside.request(rtnl.route_add(IPv4Network("0.0.0.0/0"), index=2))
    with ExitStack() as stack:
        cluster.mesh()
        made = Pods(
            cluster, stack, cluster.add(1, "callpod"), cluster.add(1, "nearpod"), cluster.add(2, "farpod")
        )  # fmt: skip
        wait_for(lambda: cluster.knows(1, made.far[1]), "node1 knows the pod of node2")
        wait_for(lambda: all(cluster.knows(2, one[1]) for one in (made.caller, made.near)), "and the other way round")
        wait_for(lambda: cluster.knows(2, made.switch(1)), "node2 knows the switch of node1")
        yield made


@pytest.mark.parametrize("by", ["kube-proxy", "rules"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_service_is_reached_from_pods_and_nodes_and_pods_are_seen_as_who_they_are(
    pods: Pods, protocol: str, by: str
) -> None:
    pods.services(protocol, by=by)
    near, far = pods.servers(protocol)
    switch, node1 = pods.switch(1), pods.cluster.nodes[1]
    rows = [
        ("a pod, backend on its node", pods.caller[0], NEAR, near, pods.caller[1]),
        ("a pod, backend on another node", pods.caller[0], FAR, far, pods.caller[1]),
        ("the backend itself", pods.near[0], NEAR, near, switch),
        ("the node, backend of its own", node1, NEAR, near, switch),
        ("the node, backend on another node", node1, FAR, far, switch),
    ]
    for _ in range(2):
        seen = {who: server.visit(caller, service, port=80) for who, caller, service, server, _ in rows}
        assert seen == {who: wanted for who, _, _, _, wanted in rows}
        pods.cluster.kill(1)
        pods.cluster.start(1)  # a start of the agent changes nothing of it


def test_a_pod_calls_another_directly_while_it_also_calls_it_by_a_service(pods: Pods) -> None:
    pods.services("tcp")
    near, far = pods.servers("tcp")
    for server, service, address in ((near, NEAR, pods.near[1]), (far, FAR, pods.far[1])):
        for target in (service, address, service):
            assert server.visit(pods.caller[0], target) == pods.caller[1], target


def test_a_kernel_without_br_netfilter_leads_services_by_the_switch(pods: Pods) -> None:
    pods.services("tcp")
    near, far = pods.servers("tcp")
    switch = pods.switch(1)
    for number in (1, 2):
        pods.cluster.kill(number)

    def without() -> None:
        netns.write_sysctl(sysctls.BRIDGED_IPV4, "0")
        assert not sysctls.is_bridged_tracked()
        rules.ensure_rules(PODS, "weave", tracked=False)

    call(pods.cluster.nodes[1], without)
    for caller in (pods.caller, pods.near):
        assert near.visit(caller[0], NEAR) == switch
        assert far.visit(caller[0], FAR) == switch
    assert near.visit(pods.caller[0], pods.near[1]) == pods.caller[1], "and nothing else"
    assert far.visit(pods.caller[0], pods.far[1]) == pods.caller[1]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_process_of_a_node_reaches_pods_from_each_of_its_addresses(pods: Pods, protocol: str) -> None:
    near, far = pods.servers(protocol)
    node1 = pods.cluster.nodes[1]
    with pods.cluster.netlink(node1) as inside:
        inside.request(rtnl.address_add(1, IPv4Interface(f"{LOOPBACK}/32")))
    switch = pods.switch(1)
    for source in ("", NODE1, LOOPBACK, switch):
        assert near.visit(node1, pods.near[1], source) == switch, source
        assert far.visit(node1, pods.far[1], source) == switch, source


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_pods_reach_processes_of_every_node_at_each_of_its_addresses(pods: Pods, protocol: str) -> None:
    node1 = pods.cluster.nodes[1]
    with pods.cluster.netlink(node1) as inside:
        inside.request(rtnl.address_add(1, IPv4Interface(f"{LOOPBACK}/32")))
    with pods.cluster.netlink(pods.cluster.nodes[2]) as inside:
        inside.request(rtnl.route_add(IPv4Network(f"{LOOPBACK}/32"), gateway=IPv4Address(NODE1)))
    server = Server(node1, protocol, 7000, pods.stack)
    for address in (NODE1, LOOPBACK):
        if protocol == "tcp":  # an answer of UDP comes from the address that its route has, as everywhere
            assert server.visit(pods.near[0], address) == pods.near[1]
            assert server.visit(pods.far[0], address) == NODE2
    assert server.visit(pods.near[0], pods.switch(1)) == pods.near[1]
    assert server.visit(pods.far[0], pods.switch(1)) == pods.far[1]
