"""Host ports and bandwidth by the real reference plugins, chained behind ours, which then leaves them alone.

Their binaries are those of the distribution (Debian: containernetworking-plugins); the agent, its executable and the
namespaces are real as well. Only the runtime is the lab's.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from plugin.executables import plugin_executable
from plugin.link.shaping import observe_bandwidth
from testbed.kubelet.cni_runtime import CniRuntime
from testbed.kubelet.sandbox import Sandbox
from testbed.lab.cni_call import CniCallError
from testbed.machine.space import Space, call, run
from tests.support.cluster import Cluster

REFERENCE = Path("/usr/lib/cni")
ABSENT = [name for name in ("portmap", "bandwidth") if not (REFERENCE / name).exists()]
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
    pytest.mark.skipif(bool(ABSENT), reason=f"needs the reference plugins {ABSENT} in {REFERENCE}"),
]
NODE1, NODE2 = "192.168.56.11", "192.168.56.12"
WEAVE = {"type": "weave-net"}
PORTMAP = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
BANDWIDTH = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
MBIT = 1_000_000
WANTED = {
    "portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": ""},
    ],
    "bandwidth": {"ingressRate": 4 * MBIT, "ingressBurst": MBIT, "egressRate": 8 * MBIT, "egressBurst": MBIT},
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        made = Cluster(tmp_path, stack)
        made.start(1)
        yield made


def runtime(cluster: Cluster, *plugins: dict[str, Any]) -> CniRuntime:
    """The runtime of node1 with this chain; our executable is told where the test's agent listens."""
    folder = cluster.tmp / "runtime"
    (folder / "bin").mkdir(parents=True)
    (folder / "conf").mkdir()
    program, start = folder / "weave-net", folder / "bin" / "weave-net"
    program.write_bytes(plugin_executable(os.path.realpath(sys.executable)))
    start.write_text(f"#!/bin/sh\nWEAVE_SOCKET={cluster.tmp}/d1/weave.sock exec {program}\n")
    for path in (program, start):
        path.chmod(0o755)
    conflist = {"cniVersion": "1.0.0", "name": "weave", "plugins": plugins}
    (folder / "conf" / "10-weave.conflist").write_text(json.dumps(conflist))
    bin_dirs = [str(folder / "bin"), str(REFERENCE)]
    return CniRuntime(cluster.nodes[1], conf_dir=folder / "conf", bin_dirs=bin_dirs, cache_dir=folder / "results")


def sandbox(cluster: Cluster, name: str) -> tuple[Space, Sandbox]:
    space = cluster.space(name)
    return space, Sandbox(pod=name, container_id=name * 3, netns=str(space.net))


def on_node(cluster: Cluster, *command: str) -> str:
    done = run(cluster.nodes[1], command, timeout_s=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers(space: Space, address: str, port: int, server: socket.socket) -> bool:
    with call(space, lambda: socket.create_connection((address, port), timeout=5)) as client:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"yes")
            return client.recv(10) == b"yes"


def check_of_ours(kubelet: CniRuntime, pod: Sandbox) -> int:
    """The exit code of our CHECK. That of portmap 1.1.1 looks for IPv6 rules that its ADD never makes for IPv4 pods."""
    try:
        calls = kubelet.check(pod, capabilities=WANTED)
    except CniCallError as error:
        calls = error.calls
    return next(recorded.exit_code for recorded in calls if recorded.plugin == "weave-net")


def test_portmap_chained_behind_ours_makes_the_host_ports(cluster: Cluster) -> None:
    kubelet = runtime(cluster, WEAVE, PORTMAP)
    space, pod = sandbox(cluster, "webpod")
    near, _ = cluster.add(1, "nearpod")
    added = kubelet.add(pod, capabilities=WANTED)
    assert [(recorded.plugin, recorded.exit_code) for recorded in added.calls] == [("weave-net", 0), ("portmap", 0)]
    assert "runtimeConfig" not in added.calls[0].stdin
    with call(space, lambda: socket.create_server(("0.0.0.0", 80))) as server:
        for caller, address in [(cluster.nodes[2], NODE1), (cluster.nodes[1], NODE1), (near, NODE1), (space, NODE1)]:
            assert answers(caller, address, 8080, server)
        assert answers(cluster.nodes[1], "127.0.0.1", 8080, server)
    assert check_of_ours(kubelet, pod) == 0
    assert "elements" not in on_node(cluster, "nft", "list", "map", "ip", "weave", "ports"), "ours has made none"
    kubelet.delete(pod, capabilities=WANTED)
    assert "8080" not in on_node(cluster, "iptables-save")
    assert cluster.held(1) == {str(cluster.results["nearpod"]["ips"][0]["address"]).partition("/")[0]}


def test_bandwidth_chained_behind_ours_limits_the_pod(cluster: Cluster) -> None:
    kubelet = runtime(cluster, WEAVE, BANDWIDTH)
    _, pod = sandbox(cluster, "redpod")
    added = kubelet.add(pod, capabilities=WANTED)
    buckets = [one for one in json.loads(on_node(cluster, "tc", "-j", "qdisc")) if one["kind"] == "tbf"]
    assert sorted(one["options"]["rate"] for one in buckets) == [4 * MBIT // 8, 8 * MBIT // 8]
    assert added.host_ifname
    assert {recorded.exit_code for recorded in kubelet.check(pod, capabilities=WANTED)} == {0}
    kubelet.delete(pod, capabilities=WANTED)
    assert '"ifb"' not in on_node(cluster, "ip", "-j", "-d", "link")
    assert cluster.held(1) == set()


def test_the_same_wishes_are_fulfilled_by_ours_alone(cluster: Cluster) -> None:
    """The very capabilities that the two plugins were given, and no plugin behind ours."""
    kubelet = runtime(cluster, WEAVE | {"capabilities": {"portMappings": True, "bandwidth": True}})
    space, pod = sandbox(cluster, "webpod")
    added = kubelet.add(pod, capabilities=WANTED)
    with call(space, lambda: socket.create_server(("0.0.0.0", 80))) as server:
        for caller, address in [(cluster.nodes[2], NODE1), (cluster.nodes[1], "127.0.0.1"), (space, NODE1)]:
            assert answers(caller, address, 8080, server)
    with cluster.netlink(cluster.nodes[1]) as node:
        limits = observe_bandwidth(node, "vethweplwebpodw")
    assert limits.ingress is not None
    assert limits.egress is not None
    assert (limits.ingress.rate_bits, limits.egress.rate_bits) == (4 * MBIT, 8 * MBIT)
    assert added.calls[-1].plugin == "weave-net"
    kubelet.check(pod, capabilities=WANTED)
    kubelet.delete(pod, capabilities=WANTED)
    assert '"ifb"' not in on_node(cluster, "ip", "-j", "-d", "link")


def test_a_host_port_of_one_pod_is_refused_to_another_with_a_cni_error(cluster: Cluster) -> None:
    kubelet = runtime(cluster, WEAVE | {"capabilities": {"portMappings": True}})
    _, first = sandbox(cluster, "firstpod")
    _, second = sandbox(cluster, "secondpod")
    kubelet.add(first, capabilities=WANTED)
    with pytest.raises(CniCallError) as told:
        kubelet.add(second, capabilities=WANTED)
    assert told.value.code == 110
    assert "pod default/firstpod" in told.value.message
    kubelet.delete(first, capabilities=WANTED)
    kubelet.add(second, capabilities=WANTED)


@pytest.mark.parametrize(
    ("capabilities", "key"),
    [
        ({"portMappings": [{"hostPort": 99999, "containerPort": 1}]}, "hostPort"),
        ({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]}, "protocol"),
        ({"bandwidth": {"ingressRate": -1}}, "ingressRate"),
        ({"bandwidth": {"egressBurst": 1}}, "egressBurst"),
    ],
)
def test_an_impossible_wish_is_error_7_and_leaves_nothing(cluster: Cluster, capabilities: Any, key: str) -> None:
    kubelet = runtime(cluster, WEAVE | {"capabilities": {"portMappings": True, "bandwidth": True}})
    _, pod = sandbox(cluster, "redpod")
    with pytest.raises(CniCallError, match=key) as told:
        kubelet.add(pod, capabilities=capabilities)
    assert told.value.code == 7
    assert (cluster.held(1), cluster.pod_links(1)) == (set(), set())
