"""Bandwidth limits of a real agent: what TCP really gets through them, what CHECK notices, and that nothing is left."""

import json
import os
import socket
import threading
import time
from typing import Any

import pytest

from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.link import rtnl
from plugin.link.shaping import LATENCY_S, observe_bandwidth
from testbed.machine.space import Space, call, run
from tests.support.cluster import Cluster, unpin, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
MBIT = 1_000_000
UNSTATED = 2**32 - 1  # what containerd sends


def limits(ingress: int = 0, egress: int = 0, burst: int = UNSTATED) -> dict[str, Any]:
    bandwidth: dict[str, int] = {}
    if ingress:
        bandwidth |= {"ingressRate": ingress, "ingressBurst": burst}
    if egress:
        bandwidth |= {"egressRate": egress, "egressBurst": burst}
    return {"runtimeConfig": {"bandwidth": bandwidth}}


def add(cluster: Cluster, number: int, name: str, **conf: Any) -> tuple[Space, str]:
    pod = cluster.space(name)
    status, text = cluster.cni(number, "ADD", pod, **conf)
    assert status == 200, text
    return pod, json.loads(text)["ips"][0]["address"].partition("/")[0]


def ifbs(cluster: Cluster, number: int = 1) -> set[str]:
    with cluster.netlink(cluster.nodes[number]) as node:
        return {link.name for link in node.links() if link.kind == "ifb"}


class Traffic:
    """What TCP gets through in a second or two, by the receiver's count and clock."""

    def __init__(self, sender: Space, receiver: Space, address: str, *, at_least_s: float = 2.0) -> None:
        self._stop = threading.Event()
        with call(receiver, lambda: socket.create_server((address, 5001))) as server:
            client = call(sender, lambda: socket.create_connection((address, 5001), timeout=30))
            connection, _ = server.accept()
        with client, connection:
            sending = threading.Thread(target=self._send, args=(client,))
            sending.start()
            connection.settimeout(30)
            got_bytes, begin_s = 0, time.monotonic()
            while (took_s := time.monotonic() - begin_s) < at_least_s:
                got_bytes += len(connection.recv(1 << 20))
            self._stop.set()
            connection.shutdown(socket.SHUT_RDWR)
            sending.join()
        self.bits, self.seconds = got_bytes * 8, took_s

    @property
    def rate_bits(self) -> float:
        return self.bits / self.seconds

    def _send(self, client: socket.socket) -> None:
        client.settimeout(0.2)
        while not self._stop.is_set():
            try:
                client.send(bytes(65536))
            except TimeoutError:
                continue
            except OSError:
                return


RATE = 4 * MBIT
LIMIT = Limit(RATE // 8, 11_712)


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("peer_node", [1, 2], ids=["same node", "other node"])
def test_tcp_gets_the_rate_in_the_limited_direction_and_more_in_the_other(
    cluster: Cluster, direction: str, peer_node: int
) -> None:
    cluster.mesh()
    limited, limited_address = add(cluster, 1, "limitedpod", **limits(**{direction: RATE}))
    free, free_address = add(cluster, peer_node, "freepod")
    wait_for(lambda: cluster.ping(free, limited_address) == 0, "the pods reach each other")
    into, out_of = (free, limited, limited_address), (limited, free, free_address)
    slow, fast = (into, out_of) if direction == "ingress" else (out_of, into)
    sent = Traffic(*slow)
    # Whatever the load of the machine: no more than the rate, the bucket and the queue let through.
    assert sent.bits <= RATE * (sent.seconds + LATENCY_S) + 2 * LIMIT.burst_bytes * 8
    wait_for(lambda: 0.85 <= Traffic(*slow).rate_bits / RATE <= 1.05, "the rate that was asked for", deadline_s=90)
    wait_for(lambda: Traffic(*fast).rate_bits > 3 * RATE, "the other direction is not limited", deadline_s=90)


def test_the_keys_of_the_configuration_serve_when_the_runtime_says_nothing(cluster: Cluster) -> None:
    cluster.start(1)
    keys = {"ingressRate": 1_000_000, "ingressBurst": 800_000, "egressRate": 2_000_000, "egressBurst": 1_600_000}
    add(cluster, 1, "redpod", **keys)
    add(cluster, 1, "greenpod", **keys, **limits(ingress=RATE))
    with cluster.netlink(cluster.nodes[1]) as node:
        assert observe_bandwidth(node, "vethweplredpodr") == Bandwidth(Limit(125_000, 100_000), Limit(250_000, 200_000))
        assert observe_bandwidth(node, "vethweplgreenpo") == Bandwidth(LIMIT)


def test_the_kernel_shows_what_was_asked_for_to_another_reader(cluster: Cluster) -> None:
    cluster.start(1)
    add(cluster, 1, "redpod", **limits(ingress=10 * MBIT, egress=20 * MBIT, burst=8_000_000))
    shown = run(cluster.nodes[1], ["tc", "-j", "qdisc"], timeout_s=10).stdout
    buckets = {one["dev"]: one["options"] for one in json.loads(shown) if one["kind"] == "tbf"}
    assert {dev: (one["rate"], one["burst"]) for dev, one in buckets.items()} == {
        "vethweplredpodr": (1_250_000, 1_000_000), "ifbweplredpodr": (2_500_000, 1_000_000),
    }  # fmt: skip


def test_a_del_a_gc_and_a_failed_add_leave_no_device(cluster: Cluster) -> None:
    cluster.start(1)
    pods = [add(cluster, 1, f"pod{number}pod", **limits(ingress=RATE, egress=RATE))[0] for number in range(3)]
    assert len(ifbs(cluster)) == 3
    assert cluster.cni(1, "DEL", pods[0]) == (200, "")
    assert cluster.cni(1, "DEL", pods[0]) == (200, "")
    assert ifbs(cluster) == {"ifbweplpod1pod", "ifbweplpod2pod"}
    valid = [{"containerID": pods[1].name * 3, "ifname": "eth0"}]
    assert cluster.cni(1, "GC", pods[1], cniVersion="1.1.0", **{"cni.dev/valid-attachments": valid}) == (200, "")
    assert ifbs(cluster) == {"ifbweplpod1pod"}
    with cluster.netlink(cluster.nodes[1]) as node:  # what is in the way of the last step
        node.request(rtnl.bridge_add("ifbweplpod0pod"))
    status, text = cluster.cni(1, "ADD", pods[0], **limits(ingress=RATE, egress=RATE))
    assert (status, json.loads(text)["code"]) == (400, 102)
    assert cluster.pod_links(1) == {"vethweplpod1pod"}


def test_a_burst_below_one_frame_is_refused_before_anything_is_made(cluster: Cluster) -> None:
    cluster.start(1)
    status, text = cluster.cni(1, "ADD", cluster.space("redpod"), **limits(egress=RATE, burst=8 * 1463))
    assert (status, json.loads(text)["code"]) == (400, 7)
    assert "egressBurst" in text
    assert cluster.pod_links(1) == set()
    add(cluster, 1, "greenpod", **limits(egress=RATE, burst=8 * 1464))


SABOTAGE = [
    ("tc qdisc del dev vethweplredpodr root", "what the pod receives must be limited to 4000000 bit/s"),
    ("tc qdisc replace dev vethweplredpodr root tbf rate 1mbit burst 64k latency 25ms", "found 1000000 bit/s"),
    ("tc qdisc del dev vethweplredpodr ingress", "what the pod sends must be limited to 4000000 bit/s"),
    ("tc qdisc del dev ifbweplredpodr root", "what the pod sends must be limited"),
    ("ip link del ifbweplredpodr", "what the pod sends must be limited"),
    ("ip link set ifbweplredpodr down", "what the pod sends must be limited"),
]


@pytest.mark.parametrize(("command", "told"), SABOTAGE, ids=[command for command, _ in SABOTAGE])
def test_a_check_notices_a_missing_limit_and_a_del_bears_it(cluster: Cluster, command: str, told: str) -> None:
    cluster.start(1, repair=False)
    pod, _ = add(cluster, 1, "redpod", **limits(ingress=RATE, egress=RATE))
    assert cluster.cni(1, "CHECK", pod) == (200, "")
    done = run(cluster.nodes[1], command.split(), timeout_s=10)
    assert done.returncode == 0, done.stderr
    status, text = cluster.cni(1, "CHECK", pod)
    assert (status, json.loads(text)["code"]) == (400, 103)
    assert told in text
    assert cluster.cni(1, "DEL", pod) == (200, "")
    assert (ifbs(cluster), cluster.pod_links(1)) == (set(), set())


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_limit_outlives_the_agent_and_goes_with_its_pod(cluster: Cluster, journal: str) -> None:
    cluster.start(1)
    red, _ = add(cluster, 1, "redpod", **limits(ingress=RATE, egress=RATE))
    gone, _ = add(cluster, 1, "gonepod", **limits(egress=RATE))
    cluster.kill(1)
    unpin(gone.net)
    wait_for(lambda: cluster.pod_links(1) == {"vethweplredpodr"}, "the other pod's link went")
    if journal == "lost":
        (cluster.tmp / "d1" / "state" / "attachments.journal").unlink()
    cluster.start(1)
    assert ifbs(cluster) == {"ifbweplredpodr"}, "that of the pod that ended meanwhile is gone"
    with cluster.netlink(cluster.nodes[1]) as node:
        assert observe_bandwidth(node, "vethweplredpodr") == Bandwidth(LIMIT, LIMIT)
    assert cluster.cni(1, "DEL", red) == (200, "")
    assert ifbs(cluster) == set()
