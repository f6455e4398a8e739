"""The engine on a real kernel: bare nodes, the underlay between them, and what `up` says when a part fails."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.deploy import plan as deploy_plan
from testbed.lab import state
from testbed.lab.cni_call import CniCallError
from testbed.lab.paths import NETNS, LabPaths
from testbed.lab.progress import Silent
from testbed.life import down, up
from testbed.machine.space import Space, run
from testbed.nodes import engine, mounts, names
from testbed.nodes.nodespace import check_no_chroot
from testbed.topology.model import NodeSpec, PodSpec, Router, Segment, Topology, Underlay
from testbed.topology.underlay import UnderlayPlan, plan_underlay
from tests.support.project import ROOT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]

NAME = f"k{os.getpid() % 1000000}"
PATHS = LabPaths(NAME)
RACKS = Topology(
    name="racks",
    nodes={"node1": NodeSpec(segment="left"), "node2": NodeSpec(segment="right")},
    underlay=Underlay(
        mtu=1400,
        segments={"left": Segment(subnet="192.168.61.0/24"), "right": Segment(subnet="192.168.62.0/24")},
        routers={"router1": Router(segments=["left", "right"])},
    ),
)
ONE = Topology(name="one", nodes={"node1": NodeSpec()}, pods={"red": PodSpec(node="node1")})


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    left = [str(path) for path in (PATHS.directory,) if path.exists()]
    if left:
        down.tear_down(NAME)
    assert left == []
    assert not NETNS.exists() or not [entry.name for entry in NETNS.iterdir() if entry.name.startswith(f"{NAME}-")]


@pytest.fixture
def racks() -> Iterator[UnderlayPlan]:
    """Two bare nodes in two segments with a router between, built by the engine alone."""
    plan = plan_underlay(RACKS)
    with state.locked(PATHS, create=True):
        state.write(PATHS, state.new_state(PATHS, RACKS, topology_file="", members=engine.members(plan)))
        try:
            engine.build(PATHS, plan)
            yield plan
        finally:
            down.remove(PATHS)


def said(space: Space, *argv: str) -> str:
    done = run(space, argv, timeout_s=10)
    assert done.returncode == 0, done
    return done.stdout


def test_nodes_reach_each_other_through_the_router_and_nothing_else_was_made(racks: UnderlayPlan) -> None:
    node1, router = PATHS.node_space("node1"), PATHS.host_space("router1")
    far = racks.host("node2").uplink.address.ip
    assert "ttl=63" in said(node1, "ping", "-c1", "-W2", str(far))
    assert "ttl=6" in said(node1, "ping", "-c1", "-W2", "198.51.100.1")
    assert said(router, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
    assert said(node1, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
    assert said(node1, "cat", "/sys/class/net/eth0/mtu").strip() == "1400"
    devices = said(PATHS.underlay_space, "ip", "-br", "link")
    assert {line.split()[0].split("@")[0] for line in devices.splitlines()} >= {"br-left", "br-right", "node1", "node2"}


def test_full_sized_packets_of_the_underlays_mtu_pass_and_longer_ones_do_not(racks: UnderlayPlan) -> None:
    far = str(racks.host("node2").uplink.address.ip)
    node1 = PATHS.node_space("node1")
    said(node1, "ping", "-c1", "-W2", "-Mdo", "-s", str(1400 - 28), far)
    assert run(node1, ["ping", "-c1", "-W1", "-Mdo", "-s", str(1401 - 28), far], timeout_s=5).returncode != 0


@pytest.mark.usefixtures("racks")
def test_a_node_has_its_own_files_host_name_and_devices() -> None:
    node1, node2 = PATHS.node_space("node1"), PATHS.node_space("node2")
    assert said(node1, "hostname").strip() == "node1"
    assert said(node1, "cat", "/etc/hostname").strip() == "node1"
    assert "192.168.62.11\tnode2" in said(node1, "cat", "/etc/hosts")
    for place in ("/etc", "/opt", "/var/lib", "/var/log", "/run"):
        said(node1, "touch", f"{place}/mark-{NAME}")
        assert not Path(place, f"mark-{NAME}").exists()
        assert run(node2, ["test", "-e", f"{place}/mark-{NAME}"], timeout_s=5).returncode == 1
    assert sorted(said(node1, "ls", "/sys/class/net").split()) == ["eth0", "lo"]
    assert said(node1, "ls", "/sys/fs/cgroup") == "".join(
        f"{name}\n" for name in sorted(entry.name for entry in Path("/sys/fs/cgroup").iterdir())
    )
    assert said(node1, "cat", "/etc/passwd") == Path("/etc/passwd").read_text()


@pytest.mark.usefixtures("racks")
@pytest.mark.parametrize(
    ("space", "devices"),
    [
        (PATHS.host_space("router1"), ["eth0", "eth1", "lo"]),
        (PATHS.host_space("outside"), ["eth0", "lo"]),
        (PATHS.underlay_space, ["br-left", "br-right", "lo", "node1", "node2", "outside", "router1_0", "router1_1"]),
    ],
    ids=lambda value: value.name if isinstance(value, Space) else "",
)
def test_whoever_is_no_node_has_a_name_and_devices_of_its_own_too(space: Space, devices: list[str]) -> None:
    assert said(space, "hostname").strip() == space.name
    assert sorted(said(space, "ls", "/sys/class/net").split()) == devices
    assert sorted(said(space, "ls", "/sys/fs/cgroup").split()) == sorted(
        entry.name for entry in Path("/sys/fs/cgroup").iterdir()
    )
    said(space, "touch", f"/etc/mark-{NAME}")
    assert not Path(f"/etc/mark-{NAME}").exists()


@pytest.mark.usefixtures("racks")
@pytest.mark.parametrize(
    "space",
    [PATHS.host_space("node1"), PATHS.host_space("router1"), PATHS.underlay_space],
    ids=lambda space: space.name,
)
def test_names_are_looked_up_in_the_labs_list_and_no_name_server_is_asked(space: Space) -> None:
    for name, address in (("node2", "192.168.62.11"), ("router1", "192.168.61.1"), ("outside", "198.51.100.1")):
        assert said(space, "getent", "hosts", name).split()[0] == address
    names.add(PATHS, "red", "10.32.0.9")
    assert said(space, "getent", "hosts", "red").split()[0] == "10.32.0.9"
    names.remove(PATHS, "red")
    assert run(space, ["getent", "hosts", "red"], timeout_s=10).returncode == 2
    assert "nameserver" not in said(space, "cat", "/etc/resolv.conf")
    services = said(space, "cat", "/etc/nsswitch.conf").splitlines()
    assert [line.split(":")[1].split() for line in services if line.startswith("hosts")] == [["files"]]


@pytest.mark.usefixtures("racks")
def test_a_node_may_have_a_list_of_names_of_its_own_but_cannot_change_that_of_all() -> None:
    node1, node2 = PATHS.node_space("node1"), PATHS.node_space("node2")
    assert run(node1, ["sh", "-c", "echo 192.0.2.1 mine >> /etc/hosts"], timeout_s=5).returncode != 0
    own = "cp --remove-destination /run/names/hosts /etc/hosts && echo 192.0.2.1 mine >> /etc/hosts"
    assert own.partition(" && ")[0] in said(node1, "cat", "/etc/hosts"), "the file says how"
    said(node1, "sh", "-c", own)
    assert said(node1, "getent", "hosts", "mine").split()[0] == "192.0.2.1"
    assert run(node2, ["getent", "hosts", "mine"], timeout_s=10).returncode == 2


@pytest.mark.usefixtures("racks")
def test_what_is_mounted_in_a_copy_of_a_hosts_files_goes_with_the_process() -> None:
    outside = PATHS.host_space("outside")
    before = said(outside, "cat", "/proc/self/mounts")
    assert "copy" in said(PATHS.underlay_space, "sh", "-c", "mount -t tmpfs copy /run/lock && cat /proc/self/mounts")
    assert said(outside, "cat", "/proc/self/mounts") == before


@pytest.mark.usefixtures("racks")
def test_what_the_machine_has_of_other_networks_is_not_seen_in_a_node() -> None:
    node1 = PATHS.node_space("node1")
    for place in (
        "/etc/cni",
        "/opt/cni",
        "/var/lib/cni",
        "/var/lib/weave",
        "/etc/weave",
        "/var/log/weave",
        "/run/netns",
    ):
        assert said(node1, "ls", "-A", place) == ""


@pytest.mark.usefixtures("racks")
def test_a_node_holds_no_other_namespace_of_the_machine() -> None:
    table = said(PATHS.node_space("node1"), "cat", "/proc/self/mounts")
    assert "nsfs" not in table


@pytest.mark.usefixtures("racks")
def test_uplinks_stay_silent_in_ipv6() -> None:
    assert "inet6" not in said(PATHS.node_space("node1"), "ip", "address", "show", "dev", "eth0")


@pytest.mark.usefixtures("racks")
def test_namespaces_have_names_for_people() -> None:
    out = subprocess.run(
        ["ip", "netns", "exec", f"{NAME}-node1", "ip", "-br", "address", "show", "dev", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "192.168.61.11/24" in out.stdout


def test_a_failure_half_way_leaves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = mounts.pin, 0

    def fail_later(fd: int, path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(28, "No space left on device")
        real(fd, path)

    monkeypatch.setattr(mounts, "pin", fail_later)
    with pytest.raises(CheckError, match=r"the lab could not be built: .*No space left"):
        up.bring_up(ONE, name=NAME)
    assert not PATHS.directory.exists()


@pytest.mark.parametrize(
    ("number", "error"),
    [(95, MissingError), (1, MissingError), (5, CheckError)],
    ids=["no such link kind", "not permitted", "anything else"],
)
def test_what_the_kernel_refuses_is_a_sentence(
    number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(engine, "build", refuse)
    with pytest.raises(error, match=os.strerror(number)):
        up.bring_up(ONE, name=NAME)


def test_a_kernel_without_overlays_is_a_lack_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    real = engine.netns.mount

    def refuse(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
        if kind == "overlay":
            raise OSError(19, "No such device")
        real(source, target, kind, flags, options)

    monkeypatch.setattr(engine.netns, "mount", refuse)
    with pytest.raises(MissingError, match="a kernel without it") as caught:
        up.bring_up(ONE, name=NAME)
    assert "modprobe overlay" in caught.value.hint


def test_a_chroot_is_told_as_such_and_gets_no_lab(tmp_path: Path) -> None:
    script = """
import os, sys
os.chroot(sys.argv[1])
from plugin.core.errors import MissingError
from testbed.nodes.nodespace import check_no_chroot
try:
    check_no_chroot()
except MissingError as error:
    print(error.message)
"""
    inside = 'mount --rbind / "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside, "sh", str(tmp_path), sys.executable, script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "found a chroot" in done.stdout, done.stderr
    check_no_chroot()  # and this machine's own root is none


def agent_that(monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
    """Every node's agent is this program instead."""
    real = deploy_plan.agent_service
    monkeypatch.setattr(deploy_plan, "agent_service", lambda environment: replace(real(environment), argv=argv))


def test_an_agent_that_ends_is_told_with_its_reason_and_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """echo first; echo '{"event": "agent cannot run", "reason": "nft is not installed"}' >&2; exit 3"""
    agent_that(monkeypatch, "/bin/sh", "-c", script)
    with pytest.raises(
        CheckError, match="the agent of node1 ended instead of becoming ready: nft is not installed"
    ) as e:
        up.bring_up(ONE, name=NAME)
    assert "first" in e.value.hint
    assert "agent cannot run" in e.value.hint


def test_an_agent_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_that(monkeypatch, "/no/such/python")
    with pytest.raises(CheckError, match="/no/such/python"):
        up.bring_up(ONE, name=NAME)


def test_an_agent_that_stays_silent_is_given_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_that(monkeypatch, "/bin/sleep", "60")
    monkeypatch.setattr(up, "READY_S", 0.1)
    monkeypatch.setattr(up, "READY_S_PER_NODE", 0.0)
    with pytest.raises(CheckError, match="the agent of node1 does not answer"):
        up.bring_up(ONE, name=NAME)


def test_a_failed_lab_is_kept_when_asked_for_and_the_next_up_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        agent_that(patched, "/bin/false")
        with pytest.raises(CheckError):
            up.bring_up(ONE, name=NAME, keep_on_failure=True)
    kept = state.read(PATHS)
    assert kept is not None
    assert kept.phase == "failed"
    assert said(PATHS.node_space("node1"), "hostname").strip() == "node1"
    up.bring_up(ONE, name=NAME)
    down.tear_down(NAME)


def test_a_pod_whose_add_fails_is_the_plugins_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = """#!/bin/sh
# weave-net
cat >/dev/null
[ "$CNI_COMMAND" = DEL ] && exit 0
echo '{"cniVersion": "1.0.0", "code": 11, "msg": "no address left", "details": "the range is full"}'
exit 1
"""
    monkeypatch.setattr(deploy_plan, "plugin_executable", lambda _interpreter: plugin.encode())
    with pytest.raises(CniCallError, match="ADD of pod red failed: plugin weave-net says: no address left") as caught:
        up.bring_up(ONE, name=NAME)
    assert "the range is full" in caught.value.hint


def test_ctrl_c_does_not_wait_for_a_call_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = "#!/bin/sh\n# weave-net\nexec sleep 50\n"
    monkeypatch.setattr(deploy_plan, "plugin_executable", lambda _interpreter: plugin.encode())
    began_s = time.monotonic()

    class InterruptWhenPodsBegin(Silent):
        def phase(self, title: str, total: int = 0) -> None:
            if title == "pods":
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        up.bring_up(ONE, name=NAME, progress=InterruptWhenPodsBegin())
    assert time.monotonic() - began_s < 20


def test_two_builds_at_the_same_time_do_not_share_a_name() -> None:
    with state.locked(PATHS, create=True):
        try:
            with pytest.raises(CheckError, match="another weavelab command"):
                up.bring_up(ONE, name=NAME)
        finally:
            with contextlib.suppress(OSError):
                PATHS.directory.rmdir()


def test_a_lab_that_is_up_is_not_built_again() -> None:
    up.bring_up(ONE, name=NAME)
    try:
        with pytest.raises(InputError, match="is up already"):
            up.bring_up(ONE, name=NAME, progress=Silent())
        found = state.read(PATHS)
        assert found is not None
        assert found.phase == "ready"
    finally:
        down.tear_down(NAME)


def test_the_kernels_clean_up_can_be_waited_for() -> None:
    assert down.wait_for_kernel()
    assert not down.wait_for_kernel(timeout_s=0.0)
