"""What an agent makes of what it finds after a crash: half an ADD, lost pods, a lost journal, queued DELs, a full disk."""

import json
import os
import random
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from plugin.link import netns, pods, rtnl
from testbed.machine.space import Space
from tests.support.cluster import CONF, Cluster, unpin, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
SEED = int(os.environ.get("WEAVELAB_SEED", "1"))
ROUNDS = 20 if os.environ.get("WEAVELAB_FUZZ", "") not in {"", "0"} else 3


def state(cluster: Cluster) -> Path:
    return cluster.tmp / "d1" / "state"


def ask_for(address: str) -> dict[str, object]:
    """The keys of a configuration that ask for one address: they tell whether it is free."""
    return {"runtimeConfig": {"ips": [address]}}


def queue_del(cluster: Cluster, name: str, pod: Space, body: bytes | None = None) -> Path:
    fields = ["DEL", pod.name * 3, str(pod.net), "eth0", "", "/opt/cni/bin"]
    path = state(cluster) / "del-queue" / name
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{name}").write_bytes("\0".join([*fields, json.dumps(CONF)]).encode() if body is None else body)
    path.with_name(f".{name}").rename(path)
    return path


def half_an_add(cluster: Cluster, pod: Space, address: str, *, link: bool) -> None:
    """What a crash in the middle of ADD leaves: a record that says `adding`, and the link or not yet."""
    record = {
        "network": "weave", "container_id": pod.name * 3, "ifname": "eth0", "address": address, "label": pod.name,
        "mac": pods.mac_for(IPv4Address(address)), "host_ifname": "vethwepl" + pod.name[:7], "netns": str(pod.net),
    }  # fmt: skip
    with (state(cluster) / "attachments.journal").open("ab") as journal:
        journal.write(json.dumps({"put": record}).encode() + b"\n")
    if link:
        fd = netns.open_netns(pod.net)
        with cluster.netlink(cluster.nodes[1]) as node:
            weave = next(one.index for one in node.links() if one.name == "weave")
            near = rtnl.VethEnd(name=record["host_ifname"], master=weave)
            node.request(rtnl.veth_add(near, rtnl.VethEnd(name="eth0", mac=record["mac"], netns_fd=fd)))
            outer = next(one.index for one in node.links() if one.name == record["host_ifname"])
            node.request(rtnl.bridge_fdb_set(outer, record["mac"]))  # the switch knows the pod already
        os.close(fd)


@pytest.mark.parametrize("link", [False, True], ids=["before the link", "after the link"])
def test_half_an_add_is_undone_and_its_address_can_be_given_again(cluster: Cluster, *, link: bool) -> None:
    cluster.start(1)
    kept, kept_address = cluster.add(1, "keptpod")
    cluster.kill(1)
    half = cluster.space("halfpod")
    half_an_add(cluster, half, "10.32.0.77", link=link)
    cluster.start(1)
    assert cluster.held(1) == {kept_address}
    assert cluster.pod_links(1) == {"vethweplkeptpod"}
    assert '"leftover removed"' in cluster.log(1)
    assert '"pod without a record kept"' not in cluster.log(1)
    status, text = cluster.cni(1, "ADD", half, **ask_for("10.32.0.77"))
    assert (status, json.loads(text).get("ips", [{}])[0].get("address")) == (200, "10.32.0.77/12")
    assert cluster.ping(half, kept_address) == 0
    assert cluster.cni(1, "CHECK", kept)[0] == 200


def churn(cluster: Cluster, chance: random.Random, stop: threading.Event, alive: set[str], spaces: list[Space]) -> None:
    """ADD and DEL at random until the agent is gone; `alive` are the pods whose ADD was confirmed."""
    while not stop.is_set():
        pod = chance.choice(spaces)
        command = "DEL" if pod.name in alive else "ADD"
        try:
            status, text = cluster.cni(1, command, pod)
        except (OSError, IndexError):  # killed before it answered: the outcome is unknown, as a runtime sees it
            alive.discard(pod.name)
            return
        assert status == 200, text
        (alive.add if command == "ADD" else alive.discard)(pod.name)


@pytest.mark.parametrize("seed", [f"{SEED}-{number}" for number in range(ROUNDS)])
def test_killed_at_a_random_moment_the_next_agent_puts_all_in_order(cluster: Cluster, seed: str) -> None:
    chance = random.Random(seed)  # the test's name holds it: WEAVELAB_SEED=<the first number> repeats it
    cluster.start(1)
    spaces = [cluster.space(f"pod{letter}pod") for letter in "abcdefgh"]
    alive: set[str] = set()
    stop = threading.Event()
    runtime = threading.Thread(target=churn, args=(cluster, chance, stop, alive, spaces))
    runtime.start()
    runtime.join(chance.uniform(0.05, 0.6))
    cluster.kill(1)
    stop.set()
    runtime.join(20)
    cluster.start(1)
    attachments = cluster.report(1)["attachments"]
    links = cluster.pod_links(1)
    without = [one for one in attachments if one["host_interface"] not in links]
    assert links <= {one["host_interface"] for one in attachments}, f"a record for every link\n{cluster.log(1)[-6000:]}"
    assert alive.isdisjoint(one["container_id"][:7] for one in without), "the link went in a DEL that broke off"
    assert alive <= {one["container_id"][:7] for one in attachments}, "what was confirmed is there"
    assert len(cluster.held(1)) == len(attachments), "no address twice"
    for pod in spaces:
        if pod.name in alive:
            assert cluster.cni(1, "CHECK", pod) == (200, "")
        else:
            assert cluster.cni(1, "DEL", pod) == (200, ""), "a runtime cleans up after an ADD without an answer"
            assert cluster.cni(1, "ADD", pod)[0] == 200
    assert len(cluster.held(1)) == len(spaces)
    assert all(cluster.ping(cluster.nodes[1], address) == 0 for address in cluster.held(1))


def test_dels_that_were_queued_while_no_agent_ran_are_done_before_it_is_ready(cluster: Cluster) -> None:
    cluster.start(1)
    red, _ = cluster.add(1, "redpod")
    _, green_address = cluster.add(1, "greenpod")
    cluster.kill(1)
    queued = [queue_del(cluster, "1", red), queue_del(cluster, "2", Space("neverwas", red.net))]
    cluster.start(1)
    assert cluster.held(1) == {green_address}
    assert cluster.pod_links(1) == {"vethweplgreenpo"}
    assert not any(path.exists() for path in queued)


def test_rubbish_in_the_queue_stops_neither_the_agent_nor_the_dels_behind_it(cluster: Cluster) -> None:
    cluster.start(1)
    red, _ = cluster.add(1, "redpod")
    cluster.kill(1)
    queue_del(cluster, "1", red, body=b"\xff\0rubbish")
    queue_del(cluster, "2", red)
    cluster.start(1)
    assert cluster.held(1) == set()
    assert '"queued DEL failed"' in cluster.log(1)


def test_pods_whose_namespaces_went_while_the_agent_was_down_are_freed(cluster: Cluster) -> None:
    cluster.mesh()
    blue, _ = cluster.add(2, "bluepod")
    _, kept_address = cluster.add(1, "keptpod")
    gone = [cluster.add(1, f"gone{number}pod") for number in range(3)]
    wait_for(lambda: all(cluster.knows(2, address) for _, address in gone), "node2 knows them")
    cluster.kill(1)
    for pod, _ in gone:
        unpin(pod.net)
    wait_for(lambda: cluster.pod_links(1) == {"vethweplkeptpod"}, "the kernel took the pairs away")
    cluster.start(1)
    assert cluster.held(1) == {kept_address}
    wait_for(lambda: not any(cluster.knows(2, address) for _, address in gone), "node2 forgot them")
    assert cluster.ping(blue, kept_address) == 0


def test_pods_without_a_journal_keep_their_addresses_and_can_be_deleted(cluster: Cluster) -> None:
    cluster.mesh()
    blue, _ = cluster.add(2, "bluepod")
    pods_then = [cluster.add(1, f"pod{number}xxx") for number in range(3)]
    cluster.kill(1)
    (state(cluster) / "attachments.journal").unlink()
    cluster.start(1)
    addresses = {address for _, address in pods_then}
    assert cluster.held(1) == addresses
    assert cluster.add(1, "newpod")[1] not in addresses
    for pod, address in pods_then:
        status, text = cluster.cni(1, "ADD", cluster.space(f"t{pod.name}"), **ask_for(address))
        assert (status, json.loads(text)["code"]) == (400, 101)
        wait_for(lambda address=address: cluster.ping(blue, address) == 0, "the pod is reached from the other node")
    first, first_address = pods_then[0]
    assert cluster.cni(1, "DEL", first) == (200, "")
    assert first_address not in cluster.held(1)
    assert "vethwepl" + first.name[:7] not in cluster.pod_links(1)


def test_a_damaged_journal_is_told_and_loses_no_pod(cluster: Cluster) -> None:
    cluster.start(1)
    _, red_address = cluster.add(1, "redpod")
    _, green_address = cluster.add(1, "greenpod")
    cluster.kill(1)
    journal = state(cluster) / "attachments.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(b"#" + line if b"redpod" in line else line for line in lines))
    cluster.start(1)
    assert '"state damaged"' in cluster.log(1)
    assert (state(cluster) / "attachments.damaged").exists()
    assert cluster.held(1) == {red_address, green_address}


def small_disk(cluster: Cluster) -> None:
    state(cluster).mkdir(parents=True)
    netns.mount("tmpfs", state(cluster), "tmpfs", options="size=64k")
    cluster.stack.callback(netns.umount, state(cluster), netns.MNT_DETACH)


def leave_room(cluster: Cluster, room_bytes: int) -> Path:
    """Use up the small disk except for so much at the journal's end; deleting the answer makes room again."""
    journal, filler = state(cluster) / "attachments.journal", state(cluster) / "filler"
    page = os.sysconf("SC_PAGE_SIZE")
    with journal.open("ab") as file:  # an empty entry and blanks, which the agent reads as nothing
        file.write(b"{}" + b" " * ((-journal.stat().st_size - room_bytes - 3) % page) + b"\n")
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
        while True:
            file.write(bytes(page))
    return filler


def test_a_del_on_a_full_disk_succeeds_and_is_finished_when_there_is_room(cluster: Cluster) -> None:
    small_disk(cluster)
    cluster.start(1)
    pod, address = cluster.add(1, "redpod")
    filler = leave_room(cluster, 0)
    assert cluster.cni(1, "DEL", pod) == (200, ""), "a pod's deletion never hangs on the network"
    assert cluster.pod_links(1) == set()
    assert cluster.held(1) == {address}, "what cannot be forgotten durably is not given away"
    assert '"detach will be repeated"' in cluster.log(1)
    filler.unlink()
    wait_for(lambda: cluster.held(1) == set(), "the DEL is finished")
    assert cluster.cni(1, "ADD", pod, **ask_for(address))[0] == 200


@pytest.mark.parametrize("more_bytes", [4, 60], ids=["not even for the undo", "for the undo"])
def test_a_disk_that_fills_up_within_an_add_leaves_nothing(cluster: Cluster, more_bytes: int) -> None:
    small_disk(cluster)
    cluster.start(1)
    cluster.add(1, "firstpod")
    first_line = (state(cluster) / "attachments.journal").read_bytes().split(b"\n")[0]
    filler = leave_room(cluster, len(first_line) + 1 + more_bytes)  # for the record `adding`, not for `added`
    pod = cluster.space("otherpod")  # a name as long as the first one's
    links = cluster.pod_links(1)
    status, text = cluster.cni(1, "ADD", pod)
    assert (status, json.loads(text)["code"]) == (400, 5), text
    assert cluster.pod_links(1) == links
    filler.unlink()
    wait_for(lambda: len(cluster.held(1)) == 1, "the address is free")
    assert cluster.cni(1, "ADD", pod, **ask_for("10.32.0.3"))[0] == 200


def test_a_read_only_state_directory_ends_the_agent_with_3_and_a_sentence(cluster: Cluster) -> None:
    ms_remount = 32
    state(cluster).mkdir(parents=True)
    netns.mount("tmpfs", state(cluster), "tmpfs")
    cluster.stack.callback(netns.umount, state(cluster), netns.MNT_DETACH)
    netns.mount("tmpfs", state(cluster), "tmpfs", netns.MS_RDONLY | ms_remount)
    agent = cluster.start(1, wait=False)
    assert agent.wait(20) == 3
    assert "cannot be written: Read-only file system" in cluster.log(1)
    with cluster.netlink(cluster.nodes[1]) as node:
        assert {link.name for link in node.links()} == {"lo", "eth0"}, "nothing was made"


def test_a_full_range_is_101_and_status_51_until_a_pod_goes(cluster: Cluster) -> None:
    cluster.start(1, range="10.9.0.0/29", peers=[])
    first, *_ = (cluster.add(1, f"pod{number}x")[0] for number in range(5))
    status, text = cluster.cni(1, "STATUS", first, cniVersion="1.1.0")
    assert (status, json.loads(text)["code"]) == (400, 51)
    extra = cluster.space("toomany")
    status, text = cluster.cni(1, "ADD", extra)
    assert json.loads(text)["code"] == 101
    assert "no address is left" in text
    assert len(cluster.pod_links(1)) == 5
    assert cluster.cni(1, "DEL", first) == (200, "")
    assert cluster.cni(1, "STATUS", first, cniVersion="1.1.0") == (200, "")
    assert cluster.cni(1, "ADD", extra)[0] == 200


def test_a_kill_leaves_a_socket_file_that_the_next_agent_replaces(cluster: Cluster) -> None:
    cluster.start(1)
    cluster.kill(1)
    assert (cluster.tmp / "d1" / "weave.sock").exists()
    cluster.start(1)
    assert cluster.ready(1)
