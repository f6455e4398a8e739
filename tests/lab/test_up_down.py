"""Labs as users make and end them: what is there, what is left behind, what a kill at any moment does.

Every test works in a run directory of its own (WEAVELAB_RUN) with names of its own, so it never meets a lab of a person.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
]

RUN = Path(f"/run/wltest-{os.getpid()}")
LAB = f"t{os.getpid() % 1000000}"
OTHER = f"u{os.getpid() % 1000000}"
NETNS = Path("/run/netns")
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": str(RUN)}
COMMAND = [sys.executable, "-m", "testbed"]

TWO = """
name: two
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
"""


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    return path


def weavelab(
    *arguments: str | Path, stdin: str = "", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=environment or ENVIRONMENT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ok(*arguments: str | Path) -> str:
    done = weavelab(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def processes_of_ours() -> list[str]:
    """Processes that see a mount of ours: nodes' overlays lie in the run directory, whichever namespace they are in."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                mounts = (entry / "mounts").read_text()
                if str(RUN) in mounts and (entry / "ns/mnt").stat().st_ino != Path("/proc/self/ns/mnt").stat().st_ino:
                    found.append(f"{entry.name} {(entry / 'cmdline').read_text()}")
            except OSError:
                continue
    return found


def traces() -> list[str]:
    """Everything of ours on this machine."""
    found = [str(path) for path in (RUN,) if path.exists()]
    if NETNS.is_dir():
        found += [entry.name for entry in NETNS.iterdir() if entry.name.startswith((f"{LAB}-", f"{OTHER}-"))]
    words = (str(RUN), f"/run/netns/{LAB}-", f"/run/netns/{OTHER}-")
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if any(word in line for word in words)]
    return found + processes_of_ours()


@contextlib.contextmanager
def namespace_of_somebody(name: str) -> Iterator[None]:
    """A namespace that `ip netns` made, and afterwards no more of it than was there before."""
    netns_was_there = NETNS.is_dir()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
        if not netns_was_there and not any(NETNS.iterdir()):
            subprocess.run(["umount", str(NETNS)], check=True)
            NETNS.rmdir()


def eventually(holds: Callable[[], object], *, within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not become true"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    netns_was_there = NETNS.is_dir()
    yield
    found = traces()
    if found:
        weavelab("down", "--all")
    assert found == []
    if not netns_was_there and NETNS.is_dir():
        assert list(NETNS.iterdir()), "we made /run/netns, nobody uses it, and it is still there"


def links_of_the_machine() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout


def test_a_lab_comes_up_works_and_leaves_nothing(topology: Path) -> None:
    links, hostname = links_of_the_machine(), os.uname().nodename
    printed = ok("up", topology, "--name", LAB)
    assert f"lab {LAB} is up: 2 nodes, 3 pods" in printed
    assert links_of_the_machine() == links
    assert os.uname().nodename == hostname
    (lab,) = json.loads(ok("status", "--format", "json"))["labs"]
    assert lab["phase"] == "ready"
    assert [node["ready"] for node in lab["nodes"]] == [True, True]
    pods = {pod["name"]: pod["address"] for pod in lab["pods"]}
    for source in pods:
        for address in pods.values():
            ok("exec", source, "--", "ping", "-c1", "-W2", address)
    assert ok("exec", "node1", "hostname").strip() == "node1"
    assert ok("exec", "red", "--", "cat", "/etc/hostname").strip() == "node1"
    assert {f"{LAB}-{name}" for name in ("underlay", "node1", "node2", "outside", "red", "green", "blue")} == {
        entry.name for entry in NETNS.iterdir() if entry.name.startswith(f"{LAB}-")
    }
    subprocess.run(["ip", "netns", "exec", f"{LAB}-red", "ping", "-c1", "-W2", pods["blue"]], check=True)
    assert ok("down") == f"lab {LAB} is down\n"
    assert traces() == []
    assert weavelab("down", LAB).returncode == 2


def test_a_labs_agents_have_a_password_that_only_root_can_read_and_nobody_is_told(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    kept = RUN / LAB / "password"
    password = kept.read_text().strip()
    assert len(bytes.fromhex(password)) == 32
    assert kept.stat().st_mode & 0o777 == 0o600
    config = ok("exec", "--lab", LAB, "node1", "--", "stat", "-c", "%a", "/etc/weave/agent.json")
    assert config.strip() == "600"
    told = ok("exec", "--lab", LAB, "node1", "--", "weave", "status")
    assert "Password: set" in told
    shown = [told, ok("status", LAB), ok("status", LAB, "--format", "json"), (RUN / LAB / "state.json").read_text()]
    shown.append(ok("exec", "--lab", LAB, "node1", "--", "weave", "report"))
    shown.append(ok("exec", "--lab", LAB, "node1", "--", "cat", "/var/log/weave/agent.log"))
    assert not [text for text in shown if password in text]
    ok("agent", "kill", "--lab", LAB, "node2")
    ok("agent", "start", "--lab", LAB, "node2")
    ok("down", LAB)
    assert not kept.exists()


def test_a_lab_without_a_password_says_so(tmp_path: Path) -> None:
    open_lab = tmp_path / "open.yaml"
    open_lab.write_text(TWO + 'password: ""\n')
    ok("up", open_lab, "--name", LAB)
    assert "Password: none" in ok("exec", "--lab", LAB, "node1", "--", "weave", "status")
    assert not (RUN / LAB / "password").exists()
    ok("down", LAB)


def test_progress_and_results_go_to_different_streams(topology: Path) -> None:
    done = weavelab("up", topology, "--name", LAB)
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == [
        "nodes",
        "deploy",
        "agents",
        "pods",
        "endpoints",
    ]
    assert "is up" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    ok("down", LAB)


def test_down_can_wait_for_the_kernel(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    ok("down", LAB, "--wait")


def echo_requests(lab: str, pod: str) -> int:
    """How many echo requests reached the pod since it came up."""
    names, values = (
        line.split() for line in ok("exec", "--lab", lab, pod, "cat", "/proc/net/snmp").splitlines() if "Icmp:" in line
    )
    return int(values[names.index("InEchos")])


def test_two_labs_of_the_same_topology_never_meet(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    ok("up", topology, "--name", OTHER)
    one, other = sorted(json.loads(ok("status", "--format", "json"))["labs"], key=lambda lab: lab["name"] != LAB)
    assert [pod["address"] for pod in one["pods"]] == [pod["address"] for pod in other["pods"]]
    assert {pod["container_id"] for pod in one["pods"]}.isdisjoint(pod["container_id"] for pod in other["pods"])
    for lab in (one, other):
        assert all(node["endpoints"] == 5 and len(node["peers"]) == 1 for node in lab["nodes"])
    # A mark on a node of one is not seen in the other; nor are the other's mounts, which would keep it alive.
    ok("exec", "--lab", LAB, "node1", "--", "sh", "-c", "echo one > /etc/mark; echo one > /var/lib/mark")
    assert weavelab("exec", "--lab", OTHER, "node1", "--", "cat", "/etc/mark").returncode == 1
    assert not Path("/etc/mark").exists()
    assert LAB not in ok("exec", "--lab", OTHER, "node1", "--", "cat", "/proc/mounts")
    # What is pinged in one is not answered in the other, whose pods have the same addresses.
    blue = one["pods"][2]["address"]
    ok("exec", "--lab", LAB, "red", "--", "ping", "-c3", "-i0.01", "-W2", blue)
    assert [echo_requests(lab, "blue") for lab in (LAB, OTHER)] == [3, 0]
    assert "several labs are up" in weavelab("exec", "red", "true").stderr
    ok("down", LAB)
    ok("exec", "red", "--", "ping", "-c1", "-W2", other["pods"][2]["address"])
    assert ok("down", "--all") == f"lab {OTHER} is down\n"


def test_a_second_lab_of_the_same_name_is_refused_and_the_first_lives_on(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    done = weavelab("up", topology, "--name", LAB)
    assert done.returncode == 2
    assert f"a lab named {LAB} is up already" in done.stderr
    assert f"weavelab down {LAB}" in done.stderr
    ok("exec", "red", "--", "ping", "-c1", "-W2", "198.51.100.1")
    ok("down", LAB)


def test_a_namespace_name_of_somebody_else_is_refused_and_stays(topology: Path) -> None:
    with namespace_of_somebody(f"{LAB}-node2"):
        done = weavelab("up", topology, "--name", LAB)
        assert done.returncode == 2
        assert f"{LAB}-node2" in done.stderr
        assert (NETNS / f"{LAB}-node2").exists()
        assert not RUN.exists()


def test_run_netns_goes_with_the_last_lab_if_we_made_it_and_nobody_uses_it(topology: Path) -> None:
    weavelab_line = " ".join(COMMAND)
    script = f"""
    mount -t tmpfs none /run                        # a machine on which nobody has used `ip netns` yet
    {weavelab_line} up {topology} --name {LAB}
    ip netns list | grep -q {LAB}-red
    {weavelab_line} up {topology} --name {OTHER}
    {weavelab_line} down {LAB}
    test -d /run/netns
    {weavelab_line} down {OTHER}
    test ! -e /run/netns
    {weavelab_line} up {topology} --name {LAB}
    ip netns add somebody                           # then it is theirs, and nothing of ours remains
    {weavelab_line} down --all
    ip netns exec somebody true
    ip netns delete somebody
    test ! -e {RUN}
    """
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-exc", script],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_processes_left_in_the_lab_end_with_it(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    left = [
        subprocess.Popen([*COMMAND, "exec", *arguments], cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
        for arguments in (["red", "sleep", "300"], ["node1", "--", "sh", "-c", "trap '' TERM HUP; sleep 300"])
    ]
    eventually(lambda: len([text for text in processes_of_ours() if "sleep\x00300" in text]) >= 2)
    ok("down", LAB)
    assert all(process.wait(timeout=5) != 0 for process in left)


STEPS = ["begin", "nodes", "deploy", "agents", "pods"]


def started(topology: Path, *, until_step: str) -> "subprocess.Popen[str]":
    """An `up` that has reached a step."""
    process = subprocess.Popen(
        [*COMMAND, "up", str(topology), "--name", LAB],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted = STEPS[STEPS.index(until_step) :]

    def reached() -> bool:
        try:
            step = json.loads((RUN / LAB / "state.json").read_text())["step"]
        except (OSError, ValueError):
            return process.poll() is not None
        return step in wanted or step == "" or process.poll() is not None

    eventually(reached)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("step", STEPS[1:])
def test_an_interrupted_up_leaves_nothing(topology: Path, step: str, number: signal.Signals) -> None:
    process = started(topology, until_step=step)
    process.send_signal(number)
    process.send_signal(number)  # a second one does not stop the tear-down
    _out, err = process.communicate(timeout=30)
    if process.returncode == 0:  # it was faster
        ok("down", LAB)
        return
    assert process.returncode == 128 + number
    assert "interrupted" in err
    assert "Traceback" not in err
    assert traces() == []


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize("later_s", [0.0, 0.03])
def test_a_killed_up_is_cleaned_up_by_down_all(topology: Path, step: str, later_s: float) -> None:
    process = started(topology, until_step=step)
    time.sleep(later_s)  # not a wait for anything: another moment to be killed at
    process.kill()
    process.communicate()
    done = weavelab("down", "--all")
    assert done.returncode == 0, done.stderr
    assert traces() == []


def test_up_clears_what_a_killed_up_left(topology: Path) -> None:
    process = started(topology, until_step="agents")
    process.kill()
    process.communicate()
    done = weavelab("up", topology, "--name", LAB)
    assert done.returncode == 0, done.stderr
    assert f"removing what an earlier command left of lab {LAB}" in done.stderr or process.returncode == 0
    ok("exec", "red", "--", "ping", "-c1", "-W2", "198.51.100.1")
    ok("down", LAB)


def begun_down() -> "subprocess.Popen[str]":
    """A `down` that has begun to remove the lab."""
    process = subprocess.Popen(
        [*COMMAND, "down", LAB],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def has_begun() -> bool:
        try:
            return '"removing"' in (RUN / LAB / "state.json").read_text()
        except FileNotFoundError:
            return True

    eventually(has_begun)
    return process


def test_an_interrupted_down_takes_the_lab_down_all_the_same(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    process = begun_down()
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) in {(130, "interrupted"), (0, "")}  # it may have been faster
    assert traces() == []


@pytest.mark.parametrize("later_s", [0.0, 0.01, 0.04])
def test_a_killed_down_is_finished_by_the_next(topology: Path, later_s: float) -> None:
    ok("up", topology, "--name", LAB)
    process = begun_down()
    time.sleep(later_s)  # not a wait for anything: another moment to be killed at
    process.kill()
    process.communicate()
    ok("down", "--all")
    assert traces() == []


def test_a_down_that_was_killed_when_the_lab_was_gone_already_is_finished_too() -> None:
    with namespace_of_somebody(f"{OTHER}-x"):  # so that /run/netns stays what it is
        RUN.mkdir()
        (RUN / ".made-netns-directory").touch()
        ok("down", "--all")
        assert not RUN.exists()
    assert traces() == []


@pytest.mark.parametrize("damage", ["empty", "absent", "old names"])
def test_a_lab_with_a_damaged_state_file_can_be_removed(topology: Path, damage: str) -> None:
    with namespace_of_somebody(f"{OTHER}-x"):
        ok("up", topology, "--name", LAB)
        state = RUN / LAB / "state.json"
        if damage == "absent":
            state.unlink()
        elif damage == "empty":
            state.write_text("")
        else:
            content = json.loads(state.read_text())  # it names what is not the lab's
            state.write_text(json.dumps(content | {"netns_names": [f"{OTHER}-x"], "processes": []}))
        ok("down", "--all")
        assert (NETNS / f"{OTHER}-x").exists()


def test_status_tells_of_a_half_built_lab(topology: Path) -> None:
    process = started(topology, until_step="agents")
    process.kill()
    process.communicate()
    done = weavelab("status", "--format", "json")
    (lab,) = json.loads(done.stdout)["labs"]
    if lab["phase"] != "ready":
        assert done.returncode == 1
        assert lab["phase"] == "building"
    ok("down", "--all")


def test_status_tells_of_a_dead_agent(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    (lab,) = json.loads(ok("status", "--format", "json"))["labs"]
    os.kill(lab["nodes"][1]["agent"]["pid"], signal.SIGKILL)
    eventually(lambda: weavelab("status").returncode == 1)
    assert "not running" in weavelab("status").stdout
    ok("exec", "red", "--", "ping", "-c1", "-W2", lab["pods"][2]["address"])  # the data plane outlives it
    ok("down", LAB)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.parametrize("options", ["size=64k", "size=64k,ro"], ids=["full", "read-only"])
def test_a_disk_that_takes_nothing_is_told_as_such(topology: Path, options: str) -> None:
    place = Path(tempfile.mkdtemp())  # pytest's folders are too deep: below them the agents' sockets have no room
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)
    try:
        if "ro" not in options:
            fill(place / "filler")
        done = weavelab("up", topology, "--name", LAB, environment={**ENVIRONMENT, "WEAVELAB_RUN": str(place / "run")})
        assert done.returncode == 3, done.stderr
        assert "No space left" in done.stderr or "Read-only" in done.stderr
        assert "hint:" in done.stderr
        assert not (place / "run").exists()
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def test_exec_has_the_commands_own_exit_code_and_streams(topology: Path) -> None:
    ok("up", topology, "--name", LAB)
    assert weavelab("exec", "red", "--", "sh", "-c", "exit 7").returncode == 7
    assert weavelab("exec", "red", "nope").returncode == 127
    assert weavelab("exec", "red", "/etc/hosts").returncode == 126
    assert weavelab("exec", "nobody", "true").returncode == 2
    assert weavelab("exec", "red").returncode == 2
    done = weavelab("exec", "red", "--", "cat", stdin="through\n")
    assert done.stdout == "through\n"
    assert "192.168.56.0/24" in ok("exec", "outside", "ip", "route")
    assert "10.32.0.0/12" not in ok("exec", "outside", "ip", "route")
    assert "br-lan" in ok("exec", "underlay", "--", "ip", "-br", "link")
    ok("down", LAB)


def test_bad_input_makes_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\nnodes: {node1: {adress: 1.2.3.4}}\n")
    for arguments in (
        ["up", bad],
        ["up", tmp_path / "none.yaml"],
        ["up", tmp_path],
        ["down"],
        ["cli"],
        ["status", "x"],
    ):
        done = weavelab(*arguments)
        assert done.returncode == 2, arguments
        assert "error: " in done.stderr
        assert "Traceback" not in done.stderr
    assert traces() == []
