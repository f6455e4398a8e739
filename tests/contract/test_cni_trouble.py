"""What may go wrong round a pod, and what has to hold all the same: the real executable, a real agent, real namespaces."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from tests.support.cluster import CONF, Cluster, wait_for
from tests.support.runtime import CONF_110, Ran, Runtime, at_once, descriptors

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


@pytest.fixture
def runtime(cluster: Cluster) -> Runtime:
    cluster.start(1)
    return Runtime(cluster)


def check(runtime: Runtime, container: str, sandbox: str, added: Ran, **options: Any) -> None:
    """The attachment is as its ADD made it, and the pod answers."""
    conf = CONF | {"prevResult": added.result}
    assert runtime.call("CHECK", container, sandbox, conf=conf, **options) == Ran(0, "")
    assert runtime.cluster.ping(runtime.cluster.nodes[runtime.number], added.address) == 0


# --- DEL ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("previous", [True, False], ids=["with prevResult", "without prevResult"])
@pytest.mark.parametrize("where", ["its namespace", "empty", "vanished", "a plain file", "a folder", "another pod's"])
def test_a_del_frees_everything_whatever_is_said_of_the_namespace_and_however_often(
    runtime: Runtime, tmp_path: Path, where: str, *, previous: bool
) -> None:
    sandbox, plain = runtime.sandbox(), tmp_path / "plain"
    plain.write_text("")
    other = runtime.sandbox()
    kept = runtime.call("ADD", "kept", other)
    before = runtime.traces()
    added = runtime.call("ADD", "gone", sandbox)
    said = {
        "its namespace": sandbox, "empty": "", "vanished": "/run/netns/vanished", "a plain file": str(plain),
        "a folder": "/", "another pod's": other,
    }[where]  # fmt: skip
    conf = CONF | ({"prevResult": added.result} if previous else {})
    for _ in range(3):  # containerd 2 says DEL three times
        runtime.delete("gone", said, conf=conf)
    runtime.assert_no_traces_but(before)
    check(runtime, "kept", other, kept)


def test_a_del_of_what_never_was_succeeds(runtime: Runtime) -> None:
    before = runtime.traces()
    runtime.delete("neverwas", runtime.sandbox())
    runtime.assert_no_traces_but(before)


def test_dels_of_one_pod_at_the_same_time_all_succeed(runtime: Runtime) -> None:
    before = runtime.traces()
    sandbox = runtime.sandbox()
    assert runtime.call("ADD", "red", sandbox).address
    at_once(4, lambda _: runtime.delete("red", sandbox), range(8))
    runtime.assert_no_traces_but(before)


def test_a_namespace_that_went_before_its_del_is_no_obstacle(runtime: Runtime) -> None:
    before = runtime.traces()
    with netns.new_netns() as fd:
        assert runtime.call("ADD", "red", f"/proc/{os.getpid()}/fd/{fd}").address
    runtime.delete("red", "/run/netns/vanished")
    runtime.assert_no_traces_but(before)


def test_a_namespace_that_goes_without_a_del_leaves_nothing_and_its_del_may_come_late(runtime: Runtime) -> None:
    before = runtime.traces()
    with netns.new_netns() as fd:
        assert runtime.call("ADD", "red", f"/proc/{os.getpid()}/fd/{fd}").address
    runtime.assert_no_traces_but(before)
    for _ in range(2):
        runtime.delete("red", "/run/netns/vanished")
    runtime.assert_no_traces_but(before)


# --- ADD ------------------------------------------------------------------------------------------------------------
def test_a_second_add_fails_and_harms_nothing(runtime: Runtime) -> None:
    sandbox = runtime.sandbox()
    added = runtime.call("ADD", "red", sandbox)
    before = runtime.traces()
    assert runtime.call("ADD", "red", sandbox).error["code"] == 100
    assert runtime.call("ADD", "other", sandbox).error["code"] == 100, "its eth0 is there, made for another container"
    runtime.assert_no_traces_but(before)
    runtime.delete("other", sandbox)
    runtime.assert_no_traces_but(before)
    check(runtime, "red", sandbox, added)


REFUSED = [
    # keys of the configuration, interface, code: refused by the rules, by the allocator, by the kernel, and by the rules
    # once more, for the kernel would make an eth0 of the last one
    ({"mtu": 9000}, "eth0", 7),
    ({"runtimeConfig": {"ips": ["10.32.0.1"]}}, "eth0", 101),
    ({"runtimeConfig": {"mac": "00:00:00:00:00:00"}}, "eth0", 102),
    ({}, "eth%d", 4),
]


@pytest.mark.parametrize(("keys", "ifname", "code"), REFUSED)
def test_a_failed_add_leaves_nothing_and_its_del_succeeds(
    runtime: Runtime, keys: dict[str, Any], ifname: str, code: int
) -> None:
    before = runtime.traces()
    sandbox = runtime.sandbox()
    assert runtime.call("ADD", "red", sandbox, ifname=ifname, conf=CONF | keys).error["code"] == code
    runtime.assert_no_traces_but(before)
    with netns.entered(fd := netns.open_netns(sandbox)), Netlink() as inside:
        assert [link.name for link in inside.links()] == ["lo"]
    os.close(fd)
    runtime.delete("red", sandbox)
    runtime.assert_no_traces_but(before)
    assert runtime.call("ADD", "red", sandbox).address


def test_two_interfaces_of_one_container_are_two_attachments(runtime: Runtime) -> None:
    sandbox = runtime.sandbox()
    before = runtime.traces()
    first = runtime.call("ADD", "red", sandbox)
    # A second default route would be refused: the first interface has it.
    second = runtime.call("ADD", "red", sandbox, ifname="net1", conf=CONF | {"ipam": {"routes": []}})
    assert first.address != second.address
    runtime.delete("red", sandbox, ifname="net1")
    check(runtime, "red", sandbox, first)
    assert runtime.recorded() == {("red", "eth0")}
    runtime.delete("red", sandbox)
    runtime.assert_no_traces_but(before)


def test_an_add_whose_caller_was_killed_while_it_waited_is_not_carried_out_after_its_del(cluster: Cluster) -> None:
    agent = cluster.start(2, wait=False)  # it waits for the first agent, and so does every ADD
    wait_for((cluster.tmp / "d2" / "weave.sock").exists, "the API")
    runtime = Runtime(cluster, 2)
    sandbox = runtime.sandbox()
    call = runtime.start("ADD", "red", sandbox)
    wait_for(lambda: descriptors(agent.pid, "net:"), "the agent has taken the call")
    call.signal(signal.SIGKILL)
    assert call.end().code == -signal.SIGKILL
    runtime.delete("red", sandbox)
    cluster.start(1)
    wait_for(lambda: cluster.ready(2), "the second agent has addresses")
    # An ADD that comes now is served behind the one that was given up.
    assert runtime.call("ADD", "blue", sandbox).address
    assert runtime.recorded() == {("blue", "eth0")}


# --- agent away -----------------------------------------------------------------------------------------------------
def test_without_an_agent_add_fails_after_its_time_and_del_is_done_later(runtime: Runtime, cluster: Cluster) -> None:
    before = runtime.traces()
    sandbox = runtime.sandbox()
    added = runtime.call("ADD", "red", sandbox)
    cluster.kill(1)
    error = runtime.call("ADD", "blue", runtime.sandbox(), WEAVE_ADD_WAIT_S="0.3").error
    assert error["code"] == 11
    assert "does not answer" in error["msg"]
    conf = CONF | {"prevResult": added.result}
    assert runtime.call("CHECK", "red", sandbox, conf=conf, WEAVE_ADD_WAIT_S="0.3").error["code"] == 11
    assert runtime.call("STATUS", "", conf=CONF_110).error["code"] == 50
    for _ in range(2):
        runtime.delete("red", sandbox)
    runtime.delete("blue")
    assert len(list(runtime.queue.iterdir())) == 2
    assert runtime.recorded() == {("red", "eth0")}
    cluster.start(1)
    runtime.assert_no_traces_but(before)


def test_a_restart_keeps_every_attachment(runtime: Runtime, cluster: Cluster) -> None:
    pods = {f"pod{number}": runtime.sandbox() for number in range(4)}
    added = {name: runtime.call("ADD", name, sandbox) for name, sandbox in pods.items()}
    before = runtime.traces()
    cluster.kill(1)
    cluster.start(1)
    runtime.assert_no_traces_but(before)
    for name, sandbox in pods.items():
        check(runtime, name, sandbox, added[name])
    assert runtime.call("ADD", "new", runtime.sandbox()).address not in {ran.address for ran in added.values()}


def test_after_a_reboot_the_addresses_of_the_pods_that_were_are_free(cluster: Cluster) -> None:
    cluster.start(1)
    runtime = Runtime(cluster)
    before = runtime.traces()
    with ExitStack() as pods:
        for number in range(3):
            path = f"/proc/{os.getpid()}/fd/{pods.enter_context(netns.new_netns())}"
            assert runtime.call("ADD", f"pod{number}", path).address
        cluster.kill(1)
    with cluster.netlink(cluster.nodes[1]) as node:  # namespaces, bridge and overlay are gone, the disk is kept
        made = [link for link in node.links() if link.name in {"weave", "vxlan-6784"}]
        node.request(*(rtnl.link_del(link.index) for link in made))
    wait_for(lambda: cluster.pod_links(1) == set(), "the kernel took the pods")
    cluster.start(1)
    runtime.assert_no_traces_but(before)
    assert runtime.call("ADD", "pod0", runtime.sandbox()).address


def test_a_kept_del_never_takes_away_what_was_attached_after_it(runtime: Runtime) -> None:
    """Podman attaches a container again under its old id when it restarts it."""
    sandbox = runtime.sandbox()
    assert runtime.call("ADD", "red", sandbox).address
    runtime.delete("red", sandbox, WEAVE_SOCKET="/nowhere")  # kept: the agent did not answer this one
    added = runtime.call("ADD", "red", sandbox)
    assert not list(runtime.queue.iterdir())
    check(runtime, "red", sandbox, added)


def test_what_a_killed_executable_left_in_the_queue_is_cleared_away(runtime: Runtime, cluster: Cluster) -> None:
    runtime.queue.mkdir(parents=True, exist_ok=True)
    old, young = runtime.queue / ".tmp-1-old", runtime.queue / ".tmp-2-young"
    for path in (old, young):
        path.write_bytes(b"DEL\0half")
    os.utime(old, (1, 1))
    wait_for(lambda: not old.exists(), "the old one is gone")
    assert young.exists(), "somebody may be writing it"


# --- GC -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def full(runtime: Runtime) -> Runtime:
    """Four attachments: two of the network weave, a second interface, one of another network."""
    red, blue = runtime.sandbox(), runtime.sandbox()
    assert runtime.call("ADD", "red", red).address
    assert runtime.call("ADD", "red", red, ifname="net1", conf=CONF | {"ipam": {"routes": []}}).address
    assert runtime.call("ADD", "blue", blue).address
    assert runtime.call("ADD", "green", runtime.sandbox(), conf=CONF | {"name": "other"}).address
    return runtime


ALL = {("red", "eth0"), ("red", "net1"), ("blue", "eth0"), ("green", "eth0")}
VALID, LEGACY = "cni.dev/valid-attachments", "cni.dev/attachments"


@pytest.mark.parametrize("key", [VALID, LEGACY])
@pytest.mark.parametrize(
    ("listed", "kept"),
    [
        ([], {("green", "eth0")}),
        ([("red", "net1")], {("red", "net1"), ("green", "eth0")}),
        ([("blue", "eth0"), ("stranger", "eth0"), ("red", "net7")], {("blue", "eth0"), ("green", "eth0")}),
        (sorted(ALL), ALL),
    ],
    ids=["empty", "one", "strangers too", "all"],
)
def test_gc_frees_exactly_what_is_not_listed_and_never_of_another_network(
    full: Runtime, key: str, listed: list[tuple[str, str]], kept: set[tuple[str, str]]
) -> None:
    full.gc(*listed, key=key)
    assert full.recorded() == kept
    assert len(full.cluster.held(1)) == len(full.cluster.pod_links(1)) == len(kept)


def test_gc_without_a_list_removes_nothing(full: Runtime) -> None:
    assert full.call("GC", "", conf=CONF_110) == Ran(0, "")
    assert full.recorded() == ALL


def test_gc_with_both_keys_goes_by_the_newer_one(full: Runtime) -> None:
    listed = [{"containerID": "blue", "ifname": "eth0"}]
    assert full.call("GC", "", conf=CONF_110 | {VALID: listed, LEGACY: []}) == Ran(0, "")
    assert full.recorded() == {("blue", "eth0"), ("green", "eth0")}


def test_gc_of_many_is_one_deletion_and_a_del_beside_it_succeeds(runtime: Runtime) -> None:
    before = runtime.traces()
    for number in range(12):
        assert runtime.call("ADD", f"pod{number}", runtime.sandbox()).address
    at_once(4, lambda work: work(), [runtime.gc, *(lambda n=n: runtime.delete(f"pod{n}") for n in range(3))])
    runtime.assert_no_traces_but(before)
