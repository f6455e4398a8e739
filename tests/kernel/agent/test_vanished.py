"""Pods whose namespaces go without a DEL: what they had comes back; what only looks like an end frees nothing."""

import json
import os
from pathlib import Path

import pytest

from plugin.link import netns, rtnl
from testbed.machine.space import Space
from tests.support.cluster import Cluster, unpin, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
SOON_S = 10
"""Less than the half minute after which everything is looked at: the kernel's word was heard."""

WEB = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}


def attached(cluster: Cluster, name: str, **conf: object) -> tuple[Space, str]:
    pod = cluster.space(name)
    status, text = cluster.cni(1, "ADD", pod, **conf)
    assert status == 200, text
    return pod, json.loads(text)["ips"][0]["address"].partition("/")[0]


def delete_link(cluster: Cluster, name: str) -> None:
    with cluster.netlink(cluster.nodes[1]) as node:
        link = node.link(name)
        assert link is not None
        node.request(rtnl.link_del(link.index))


def moved(pod: Space, path: Path) -> Space:
    """The same namespace at another path only."""
    path.touch()
    netns.mount(str(pod.net), path, flags=netns.MS_BIND)
    unpin(pod.net)
    return Space(pod.name, path, None, None)


def test_what_a_pod_had_is_free_soon_after_its_namespace_is_gone_and_its_port_at_once(cluster: Cluster) -> None:
    cluster.mesh()
    pod, address = attached(cluster, "webpod", **WEB)
    wait_for(lambda: cluster.knows(2, address), "node 2 knows the pod")
    unpin(pod.net)
    replacement = cluster.space("webpod2")  # the same host port, in the next moment
    # The plugin waits a second for a namespace that is ending; on a busy machine the runtime asks again.
    wait_for(lambda: cluster.cni(1, "ADD", replacement, **WEB)[0] == 200, "the port is free", SOON_S)
    wait_for(lambda: address not in cluster.held(1), "the address is free", SOON_S)
    wait_for(lambda: not cluster.knows(2, address), "the endpoint is withdrawn", SOON_S)
    assert '"pod ended without DEL"' in cluster.log(1)
    assert "weave_pods_vanished_total 1\n" in cluster.api(1, "/metrics")[1]
    assert cluster.api(1, "/cni", _del(pod))[0] == 200, "its runtime may say DEL later"
    assert cluster.cni(1, "CHECK", replacement, **WEB) == (200, "")


def _del(pod: Space) -> bytes:
    conf = {"cniVersion": "1.0.0", "name": "weave", "type": "weave-net"}
    return "\0".join(["DEL", pod.name * 3, str(pod.net), "eth0", "", "/opt/cni/bin", json.dumps(conf)]).encode()


def test_a_pod_that_ends_while_no_agent_runs_is_given_back_by_the_next(cluster: Cluster) -> None:
    cluster.start(1)
    pod, _ = attached(cluster, "webpod", **WEB)
    kept, address = attached(cluster, "keptpod")
    cluster.kill(1)
    unpin(pod.net)
    wait_for(lambda: cluster.pod_links(1) == {"vethweplkeptpod"}, "the end of its link")
    cluster.start(1)
    assert cluster.held(1) == {address}
    attached(cluster, "webpod2", **WEB)
    assert cluster.cni(1, "CHECK", kept) == (200, "")


@pytest.mark.parametrize("running", [True, False], ids=["heard", "found at the start"])
def test_a_deleted_link_frees_nothing_as_long_as_the_namespace_lives(
    cluster: Cluster, tmp_path: Path, *, running: bool
) -> None:
    cluster.start(1)
    pod, address = attached(cluster, "webpod", **WEB)
    renamed = moved(pod, tmp_path / "elsewhere")
    cluster.stack.callback(unpin, renamed.net)
    if not running:
        cluster.kill(1)
    delete_link(cluster, "vethweplwebpodw")
    if not running:
        cluster.start(1)
    wait_for(lambda: '"pod lost its interface"' in cluster.log(1), "it is told", SOON_S)
    assert cluster.held(1) == {address}
    assert json.loads(cluster.cni(1, "ADD", cluster.space("webpod2"), **WEB)[1])["code"] == 110
    assert cluster.cni(1, "DEL", renamed)[0] == 200
    assert cluster.held(1) == set()


def test_a_namespace_that_is_only_renamed_keeps_its_pod(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start(1)
    pod, address = attached(cluster, "webpod", **WEB)
    gateway = cluster.report(1)["bridge"]["address"]
    renamed = moved(pod, tmp_path / "elsewhere")
    cluster.stack.callback(unpin, renamed.net)
    assert json.loads(cluster.cni(1, "ADD", cluster.space("webpod2"), **WEB)[1])["code"] == 110
    assert cluster.held(1) == {address}
    assert cluster.ping(renamed, gateway) == 0
