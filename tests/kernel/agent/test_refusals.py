"""An agent that must not run says why and ends with 2; agents that were set up differently refuse each other."""

import json
import os
import signal
import socket
from ipaddress import IPv4Address

import pytest

from plugin.link import rtnl
from testbed.machine.space import call
from tests.support.cluster import Cluster, wait_for
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"node_address": "192.168.56.99"}, "192.168.56.99 is on no interface of this node; its addresses are: "),
        ({"uplink": "eth1"}, "192.168.56.11 was expected on eth1, found on eth0"),
        ({"range": "192.168.0.0/16"}, "the pod range 192.168.0.0/16 contains the node address 192.168.56.11"),
        ({"range": "10.32.0.1/12"}, "10.32.0.1/12 has host bits set"),
        ({"range": "10.9.0.0/30"}, "between /8 and /29"),
        ({"http_address": "192.0.2.1:80"}, "the API address 192.0.2.1:80 cannot be used"),
        ({"http_address": "no port"}, "the API address no port cannot be used"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"peers": ["node2"]}, "peers must be an IPv4 address, found 'node2'"),
        ({"api_socket": "/proc/no/weave.sock"}, "the API socket /proc/no/weave.sock cannot be made"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_configuration_ends_the_agent_with_2_and_a_sentence(
    cluster: Cluster, wrong: dict[str, object], sentence: str
) -> None:
    agent = cluster.start(1, wait=False, **wrong)
    assert agent.wait(20) == 2, cluster.log(1)
    last = json.loads(cluster.log(1).splitlines()[-1])
    assert last["event"] == "agent cannot run"
    assert sentence in last["reason"]
    assert "Traceback" not in cluster.log(1)


def test_an_underlay_too_small_for_vxlan_is_named(cluster: Cluster) -> None:
    cluster.set_underlay_mtu(100)
    assert "100" in cluster.refusal(1)


def test_a_port_that_somebody_else_has_is_named(cluster: Cluster) -> None:
    def occupy() -> socket.socket:
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("192.168.56.11", 6783))
        return taken

    with call(cluster.nodes[1], occupy):
        assert "UDP port 6783 on 192.168.56.11 cannot be used: Address already in use" in cluster.refusal(1)
    cluster.start(1)


def test_a_link_that_bears_our_bridges_name_is_not_touched(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        node.request(rtnl.veth_add(rtnl.VethEnd(name="weave"), rtnl.VethEnd(name="far")))
    assert "weave exists on this node and is a veth interface, not a bridge" in cluster.refusal(1)
    with cluster.netlink(cluster.nodes[1]) as node:
        assert {link.name: link.kind for link in node.links()} == {
            "lo": "",
            "eth0": "veth",
            "weave": "veth",
            "far": "veth",
        }


def test_a_vni_that_another_network_has_is_refused(cluster: Cluster) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        node.request(rtnl.vxlan_add("foreign", vni=1, local=IPv4Address("192.168.56.11"), port=6784))
    assert "VNI 1 on UDP port 6784 belongs to another device of this node" in cluster.refusal(1)
    cluster.start(1, vni=2)


def test_a_second_agent_leaves_the_first_one_undisturbed(cluster: Cluster) -> None:
    cluster.start(1)
    pod, _ = cluster.add(1, "redpod")
    pid = json.loads(cluster.api(1, "/status")[1])["pid"]
    assert "another agent answers at" in cluster.refusal(1)
    assert json.loads(cluster.api(1, "/status")[1])["pid"] == pid
    assert cluster.cni(1, "CHECK", pod) == (200, "")


def test_a_second_agent_with_a_socket_of_its_own_changes_nothing_either(cluster: Cluster) -> None:
    cluster.start(1)
    other = {"api_socket": str(cluster.tmp / "other.sock"), "vni": 7, "range": "10.48.0.0/12"}
    cluster.refusal(1, **other, state_directory=str(cluster.tmp / "other"))
    vni = call(cluster.nodes[1], lambda: Witness().kind_values("vxlan-6784")["IFLA_VXLAN_ID"])
    addresses = call(cluster.nodes[1], lambda: Witness().addresses("weave"))
    assert (vni, addresses) == (1, ["10.32.0.1/12"]), "the network of the agent that runs is as it was"


def test_a_second_agent_does_not_take_the_firsts_journal_away(cluster: Cluster) -> None:
    cluster.start(1)
    cluster.add(1, "redpod")
    cluster.refusal(1, api_socket=str(cluster.tmp / "other.sock"))
    cluster.add(1, "greenpod")
    journal = (cluster.tmp / "d1" / "state" / "attachments.journal").read_text()
    assert "greenpod" in journal, "what the first agent remembers reaches the file that the next one reads"


def test_another_range_is_refused_while_pods_hold_addresses_of_the_old_one(cluster: Cluster) -> None:
    cluster.start(1)
    pod, address = cluster.add(1, "redpod")
    cluster.kill(1)
    sentence = cluster.refusal(1, range="10.48.0.0/12")
    assert "the pod range was changed from 10.32.0.0/12 to 10.48.0.0/12, and 1 pods of this node" in sentence
    assert address in sentence
    cluster.start(1)  # with the old range all is well
    assert cluster.cni(1, "CHECK", pod) == (200, "")
    assert cluster.cni(1, "DEL", pod) == (200, "")
    cluster.kill(1)
    cluster.start(1, range="10.48.0.0/12")
    assert cluster.add(1, "bluepod")[1].startswith("10.48.")


def test_pods_never_lose_their_gateway_when_the_peers_change(cluster: Cluster) -> None:
    cluster.start(2, initial_peers=1)
    pod, address = cluster.add(2, "redpod")
    gateway = cluster.report(2)["bridge"]["address"]
    assert cluster.ping(pod, gateway) == 0
    cluster.kill(2)
    cluster.start(2, peers=[])
    assert cluster.report(2)["bridge"]["address"] == gateway
    assert cluster.ping(pod, gateway) == 0, f"{address} has its default route by {gateway}"
    assert cluster.cni(2, "CHECK", pod) == (200, "")


def refuses(cluster: Cluster, number: int) -> bool:
    """Whether the node shows the other one as refused; who was never heard is not shown at all."""
    peers = json.loads(cluster.api(number, "/status")[1])["peers"]
    return [peer["state"] for peer in peers] == ["refused"]


@pytest.mark.parametrize(
    "other",
    [{"vni": 7}, {"range": "10.48.0.0/12"}, {"vxlan_port": 6999}, {"cluster": "other"}, {"password": "other"}],
    ids=lambda other: next(iter(other)),
)
def test_agents_that_differ_refuse_each_other_and_say_why(cluster: Cluster, other: dict[str, object]) -> None:
    cluster.start(1)
    cluster.start(2, initial_peers=1, **other)
    pod, address = cluster.add(2, "bluepod")
    for number in (1, 2):
        wait_for(lambda number=number: refuses(cluster, number), f"agent {number} shows the other as refused")
        reason = cluster.peer(number)["reason"]
        assert "password" in reason if "password" in other else "cluster" in reason, reason
    assert not cluster.knows(1, address), "what a refused peer says of its pods does not count"
    kind = "other password" if "password" in other else "other cluster"
    assert cluster.report(1)["control"]["rejected"][kind] > 0
    # Set up alike again, they find each other without a restart of the first.
    assert cluster.cni(2, "DEL", pod) == (200, "")
    cluster.kill(2)
    cluster.start(2)
    for number in (1, 2):
        wait_for(lambda number=number: cluster.peer(number)["state"] == "established", f"agent {number} is content")
        assert cluster.peer(number)["reason"] == ""
    assert cluster.report(1)["ipam"]["ring"] == cluster.report(2)["ipam"]["ring"], "one ring, not two"


def test_members_need_not_be_listed_to_be_found(cluster: Cluster) -> None:
    cluster.start(1)  # without peers: it learns of the second one from that one
    cluster.start(2)
    for number in (1, 2):
        wait_for(lambda number=number: cluster.peer(number)["state"] == "established", f"agent {number} is content")
    assert (cluster.peer(1)["outbound"], cluster.peer(2)["outbound"]) == (False, True)


def test_an_agent_that_only_joins_waits_for_the_others_and_says_so(cluster: Cluster) -> None:
    cluster.start(2, wait=False)
    wait_for((cluster.tmp / "d2" / "weave.sock").exists, "the API")
    status, text = cluster.api(2, "/status")
    told = json.loads(text)
    assert (status, told["ready"], told["bridge"]["address"]) == (503, False, None)
    assert told["ipam"]["status"].startswith("awaiting a ring")
    cluster.start(1)
    wait_for(lambda: cluster.ready(2), "agent 2 ready")


def test_sigterm_ends_an_agent_with_0_and_its_socket_goes(cluster: Cluster) -> None:
    agent = cluster.start(1)
    cluster.add(1, "redpod")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    assert not (cluster.tmp / "d1" / "weave.sock").exists()
    assert cluster.pod_links(1) == {"vethweplredpodr"}, "pods keep their network"
