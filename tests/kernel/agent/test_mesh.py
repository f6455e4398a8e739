"""Two real agents on a real kernel: pods come and go, agents stop and return, bad input is answered."""

import json
import os
import signal
import socket

import pytest

from plugin.link import netns, rtnl
from testbed.machine.space import call
from tests.support.cluster import CONF, Cluster, unpin, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


def test_pods_reach_each_other_and_keep_doing_so_while_no_agent_runs(cluster: Cluster) -> None:
    cluster.mesh()
    red, red_address = cluster.add(1, "redpod")
    _, green_address = cluster.add(1, "greenpod")
    blue, blue_address = cluster.add(2, "bluepod")
    assert cluster.cni(1, "CHECK", red)[0] == 200
    for target in (green_address, blue_address, "10.32.0.1"):
        assert cluster.ping(red, target) == 0, target
    assert cluster.ping(red, blue_address, "-Mdo", "-s", str(1450 - 28)) == 0
    assert cluster.ping(red, blue_address, "-Mdo", "-s", str(1451 - 28)) != 0
    for agent in cluster.agents.values():
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
    assert cluster.ping(red, blue_address) == 0
    cluster.mesh()
    assert cluster.cni(1, "CHECK", red)[0] == 200
    assert len({red_address, green_address, cluster.add(1, "newpod")[1]}) == 3
    assert cluster.ping(blue, red_address) == 0
    assert cluster.cni(1, "DEL", red) == (200, "")
    assert cluster.cni(1, "DEL", red) == (200, "")


def test_a_lost_journal_gives_no_living_pods_address_away(cluster: Cluster) -> None:
    cluster.start(1)
    _, address = cluster.add(1, "redpod")
    cluster.agents[1].kill()
    cluster.agents[1].wait()
    (cluster.tmp / "d1" / "state" / "attachments.journal").unlink()
    cluster.start(1)
    assert cluster.add(1, "bluepod")[1] != address


def test_adding_twice_is_100_and_a_full_range_101(cluster: Cluster) -> None:
    cluster.start(1, range="10.9.0.0/29", peers=[])
    pods = [cluster.add(1, f"pod{number}x") for number in range(5)]
    status, text = cluster.cni(1, "ADD", pods[0][0])
    assert (status, json.loads(text)["code"]) == (400, 100)
    status, text = cluster.cni(1, "ADD", cluster.space("toomany"))
    assert json.loads(text)["code"] == 101
    assert "no address is left" in text
    assert cluster.ping(pods[0][0], pods[1][1]) == 0


def test_a_second_agent_and_a_wrong_address_end_with_a_sentence_and_2(cluster: Cluster) -> None:
    cluster.start(1)
    assert cluster.start(1, wait=False).wait(20) == 2
    assert "another agent answers" in cluster.log(1)
    assert cluster.start(2, wait=False, node_address="192.168.56.99").wait(20) == 2
    assert "is on no interface of this node" in cluster.log(2)


def refuses(cluster: Cluster, number: int) -> bool:
    """Whether the node shows the other one as refused; who was never heard is not shown at all."""
    peers = json.loads(cluster.api(number, "/status")[1])["peers"]
    return [peer["state"] for peer in peers] == ["refused"]


def test_agents_that_were_set_up_differently_say_why_they_refuse(cluster: Cluster) -> None:
    cluster.start(1, cluster="a")
    cluster.start(2, cluster="b", initial_peers=1)
    for number in (1, 2):
        wait_for(lambda number=number: refuses(cluster, number), f"agent {number} shows the other as refused")
        assert cluster.peer(number)["reason"], "a refusal says why"


def test_garbage_from_a_member_is_counted_and_harmless(cluster: Cluster) -> None:
    cluster.start(1)

    def shout() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("192.168.56.12", 6783))
            for number in range(2000):
                sender.sendto(b"WV\x01" + os.urandom(number % 600), ("192.168.56.11", 6783))

    call(cluster.nodes[2], shout)
    wait_for(lambda: json.loads(cluster.api(1, "/report")[1])["control"]["rejected"]["malformed"] > 0, "count")
    assert cluster.ready(1)


def test_a_full_disk_fails_the_add_with_code_5_and_leaves_nothing(cluster: Cluster) -> None:
    state = cluster.tmp / "d1" / "state"
    state.mkdir(parents=True)
    netns.mount("tmpfs", state, "tmpfs", options="size=64k")
    cluster.stack.callback(netns.umount, state, netns.MNT_DETACH)
    cluster.start(1)
    with (state / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            filler.write(bytes(4096))
    # The journal's last page has room for some records; the first that needs another page cannot be remembered.
    for number in range(30):
        pod = cluster.space(f"pod{number:02}xx")
        status, text = cluster.cni(1, "ADD", pod)
        if status != 200:
            break
    assert (status, json.loads(text)["code"]) == (400, 5)
    (state / "filler").unlink()
    with cluster.netlink(cluster.nodes[1]) as node:
        assert len([link.name for link in node.links() if link.name.startswith("vethwepl")]) == number
    assert cluster.cni(1, "ADD", pod)[0] == 200


@pytest.mark.parametrize("lives", [True, False])
def test_a_pod_whose_link_went_while_the_agent_was_down_is_forgotten_unless_it_lives(
    cluster: Cluster,
    lives: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    cluster.start(1)
    pod, address = cluster.add(1, "redpod")
    cluster.agents[1].kill()
    cluster.agents[1].wait()
    with cluster.netlink(cluster.nodes[1]) as node:
        gone = next(link.index for link in node.links() if link.name.startswith("vethwepl"))
        node.request(rtnl.link_del(gone))
    if not lives:
        unpin(pod.net)
    cluster.start(1)
    assert cluster.held(1) == ({address} if lives else set())
    if lives:
        wait_for(lambda: "is gone" in cluster.api(1, "/status")[1], "the loss of its link is told")


def test_a_queued_del_is_carried_out_while_the_agent_runs(cluster: Cluster) -> None:
    cluster.start(1)
    pod, _ = cluster.add(1, "redpod")
    fields = ["DEL", pod.name * 3, str(pod.net), "eth0", "", "/opt/cni/bin"]
    queue = cluster.tmp / "d1" / "state" / "del-queue"
    queue.mkdir(exist_ok=True)
    (queue / ".new").write_bytes("\0".join([*fields, json.dumps(CONF)]).encode())
    (queue / ".new").rename(queue / "one")
    wait_for(lambda: not json.loads(cluster.api(1, "/report")[1])["attachments"], "queued DEL")
    assert not (queue / "one").exists()
