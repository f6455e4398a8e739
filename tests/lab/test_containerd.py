"""Labs whose pods are made by a real containerd on each node, through the commands that users type.

What other tests say of a lab holds here too; this file asks what is different: containers, ports, other callers of the
plugin, and that a runtime killed at any moment leaves nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.core.errors import MissingError
from testbed.kubelet import needs
from testbed.nodes import cgroups
from testbed.topology.load import load_topology
from tests.support.project import ROOT

TOPOLOGY = ROOT / "topologies" / "containerd.yaml"
RUN = Path(f"/run/wlctr-{os.getpid()}")
LAB = f"c{os.getpid() % 1000000}"
ENVIRONMENT = {**os.environ, "WEAVELAB_RUN": str(RUN)}
COMMAND = [sys.executable, "-m", "testbed"]
IMAGE = "localhost/weavelab/busybox:1"


def absent() -> str:
    """Why this machine cannot run these tests, or the empty string."""
    try:
        needs.check_machine(load_topology(TOPOLOGY))
    except MissingError as error:
        return error.message
    return ""


pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: labs are made of network namespaces"),
    pytest.mark.skipif(bool(absent()), reason=absent()),
    pytest.mark.timeout(300),
]


def weavelab(*arguments: str | Path, stdin: str = "", timeout_s: float = 200) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def ok(*arguments: str | Path, stdin: str = "") -> str:
    done = weavelab(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status() -> dict[str, Any]:
    # Its exit code is not asked for: on a busy machine an agent may not answer just now.
    (found,) = json.loads(weavelab("status", LAB, "--format", "json").stdout)["labs"]
    return dict(found)


def our_cgroups() -> list[str]:
    return [str(path) for root in cgroups._hierarchies() for path in root.glob(f"weavelab-{LAB}-*")]


def traces() -> list[str]:
    """Everything of ours on this machine: files, names, mounts, cgroups, and processes in namespaces of the lab."""
    found = [str(RUN)] if RUN.exists() else []
    found += [str(path) for path in Path("/run/netns").glob(f"{LAB}-*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(RUN) in line or f"/{LAB}-" in line]
    own = Path("/proc/self/ns/mnt").stat().st_ino
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns/mnt").stat().st_ino != own and str(RUN) in (entry / "mounts").read_text():
                found.append(f"{entry.name} {(entry / 'cmdline').read_text()}")
        except OSError:
            continue
    return found + our_cgroups()


@pytest.fixture(scope="module")
def lab() -> Iterator[dict[str, str]]:
    """A lab that is up for the tests of this file that only look or add; pods' addresses by name."""
    ok("up", TOPOLOGY, "--name", LAB)
    found = status()
    yield {pod["name"]: pod["address"] for pod in found["pods"]}
    left = ok("down", LAB)
    assert left == f"lab {LAB} is down\n"
    assert traces() == []


# ---- a lab that is up


def test_the_pods_are_sandboxes_of_the_nodes_own_containerd(lab: dict[str, str]) -> None:
    assert set(lab) == {"red", "green", "blue", "web"}
    found = status()
    for node, pods in (("node1", {"red", "green"}), ("node2", {"blue", "web"})):
        listed = ok("exec", node, "--", "ctr", "-n", "k8s.io", "containers", "ls", "-q").split()
        sandboxes = {pod["container_id"] for pod in found["pods"] if pod["name"] in pods}
        assert sandboxes < set(listed)
        assert len(listed) == 2 * len(pods), "a sandbox and a container for each pod, and no other node's"


def test_the_plugin_was_called_by_containerd(lab: dict[str, str]) -> None:
    found = status()
    red = next(pod for pod in found["pods"] if pod["name"] == "red")
    cached = json.loads(ok("exec", "node1", "--", "cat", f"/var/lib/cni/results/weave-{red['container_id']}-eth0"))
    assert ["K8S_POD_NAME", "red"] in cached["cniArgs"]
    assert "io.kubernetes.cri.pod-annotations" in cached["capabilityArgs"], "containerd alone offers this one"
    assert cached["result"]["ips"][0]["address"].startswith(f"{lab['red']}/")
    assert red["container_id"][:12] in ok("exec", "node1", "--", "weave", "ps")


def test_a_pod_is_added_and_deleted_by_containerd(lab: dict[str, str]) -> None:
    made = ok("pod", "add", "amber", "--node", "node1", "-v")
    assert made.startswith("containerd of node1: RunPodSandbox")
    address = next(pod["address"] for pod in status()["pods"] if pod["name"] == "amber")
    assert f'"address": "{address}/12"' in made
    assert ok("exec", "amber", "--", "hostname") == "amber\n"
    assert ok("pod", "delete", "amber", "-v").endswith(f"pod amber is gone from node1, and {address} with it\n")
    assert {pod["name"] for pod in status()["pods"]} == set(lab)
    assert "containerd successfully booted" in ok("logs", "--runtime", "node1", "--level", "debug")


def test_exec_runs_in_the_container(lab: dict[str, str]) -> None:
    assert ok("exec", "web", "--", "hostname") == "web\n"
    assert ok("exec", "web", "--", "cat", "/www/index.html") == "weavelab\n"
    assert f"inet {lab['web']}/" in ok("exec", "web", "--", "ip", "address", "show", "eth0")
    processes = ok("exec", "web", "--", "ps", "-o", "pid,comm").splitlines()[1:]
    assert processes[0].split() == ["1", "sh"]
    assert len(processes) < 6, "the machine's processes show"


def test_a_container_finds_the_members_of_the_lab_by_name_also_those_that_come_later(lab: dict[str, str]) -> None:
    everybody = {**lab, "node1": "192.168.56.11", "outside": "198.51.100.1"}
    for name, address in everybody.items():
        assert f"PING {name} ({address})" in ok("exec", "web", "--", "ping", "-c1", "-W2", name)
    assert weavelab("exec", "web", "--", "ping", "-c1", "nobody").returncode == 1
    assert "nameserver" not in ok("exec", "web", "--", "cat", "/etc/resolv.conf")
    before = ok("exec", "web", "--", "cat", "/etc/hosts")
    ok("run", "recreate", "--lab", LAB)
    ok("run", "restart", "--lab", LAB)
    listed = ok("exec", "red", "--", "cat", "/etc/hosts")
    assert sorted(listed.split()) != sorted(before.split()), "web has another address now"
    assert ok("exec", "node1", "--", "cat", "/etc/hosts") == listed == ok("exec", "blue", "--", "cat", "/etc/hosts")
    assert "1 packets received" in ok("exec", "red", "--", "ping", "-c1", "-W2", "web")


def test_a_step_on_several_containers_runs_in_all_of_them_at_once(tmp_path: Path) -> None:
    file = tmp_path / "waits.yaml"
    waits = "{exec: {on: all-pods, command: sleep 1.2}, within_s: 2}"
    file.write_text(
        f"name: waits\nkubelet: containerd\nnodes: {{node1: }}\npods: {{a: {{node: node1}}, b: {{node: node1}}, "
        f"c: {{node: node1}}}}\nscenarios: [{{name: waits, steps: [{waits}]}}]\n"
    )
    ok("run", "--topology", file, "--name", f"{LAB}w")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["nosuch"], 127, "error: the container of web has no command nosuch"),
        (["/etc/passwd"], 126, "error: /etc/passwd cannot be executed in the container of web"),
    ],
)
def test_exec_has_the_commands_own_exit_code(lab: dict[str, str], command: list[str], code: int, said: str) -> None:
    done = weavelab("exec", "web", "--", *command)
    assert (done.returncode, done.stderr.strip()) == (code, said)


@pytest.mark.parametrize("text", ["", "line\n" * 20000])
def test_exec_hands_its_input_on_and_sees_its_end(lab: dict[str, str], text: str) -> None:
    assert ok("exec", "web", "--", "cat", stdin=text) == text


def test_a_container_that_ended_is_named_and_a_restart_brings_it_back(lab: dict[str, str]) -> None:
    # Its own process ends when it is asked to; nobody restarts it by itself here.
    weavelab("exec", "red", "--", "kill", "1")  # which takes the one who asks along
    eventually(lambda: weavelab("exec", "red", "--", "true").returncode != 0)
    refused = weavelab("exec", "red", "--", "true")
    assert refused.returncode == 1
    assert "error: pod red has no running container to enter, found main exited" in refused.stderr
    assert "1 received" in ok("exec", "node1", "--", "ping", "-c1", "-W2", lab["red"]), "its sandbox is still there"
    ok("run", "--lab", LAB, "restart")
    assert f"inet {lab['red']}/" in ok("exec", "red", "--", "ip", "address", "show", "eth0")


def test_ctr_run_with_cni_gets_an_address_of_the_node(lab: dict[str, str]) -> None:
    # Debian's ctr looks for plugins in /usr/lib/cni, upstream's in /opt/cni/bin: both are fixed.
    script = (
        "mount --bind /opt/cni/bin /usr/lib/cni 2>/dev/null; "
        f"ctr -n k8s.io run --rm --cni {IMAGE} other sh -c 'ip -4 address show eth0; ping -c1 -W2 {lab['blue']}'"
    )
    said = ok("exec", "node1", "--", "sh", "-c", script)
    assert "inet 10." in said
    assert "1 packets received" in said
    assert len(ok("exec", "node1", "--", "weave", "ps").splitlines()) == 3, "the switch, red and green: it has gone"


PODMAN = """
set -e
mount -t tmpfs none /dev/shm
mkdir -p /run/podman-test; cd /run/podman-test
cat >image.tar
cat >containers.conf <<'TEXT'
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "weave"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
TEXT
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >policy.json
export CONTAINERS_CONF=$PWD/containers.conf
podman() { command podman --root "$PWD/store" --runroot "$PWD/run" --storage-driver overlay "$@"; }
podman load --quiet --signature-policy policy.json --input image.tar
podman run --rm --cgroup-parent "/$1/podman" "$2" sh -c "ip -4 address show eth0; ping -c1 -W2 $3"
"""


def test_podman_with_the_cni_backend_gets_an_address_of_the_node(lab: dict[str, str]) -> None:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    version = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    if int(version.partition(".")[0]) > 4:
        pytest.skip(f"podman {version} has no CNI backend any more; podman 4 has")
    from testbed.kubelet.daemon import lab_image

    cgroup = Path(our_cgroups()[0]).name
    done = subprocess.run(
        [*COMMAND, "exec", "node2", "--", "sh", "-c", PODMAN, "podman-test", cgroup, IMAGE, lab["red"]],
        cwd=ROOT,
        env=ENVIRONMENT,
        input=lab_image(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, said
    assert "inet 10." in said
    assert "1 packets received" in said
    assert len(ok("exec", "node2", "--", "weave", "ps").splitlines()) == 3


# ---- whole runs


def test_the_shipped_topology_holds_and_leaves_nothing() -> None:
    name = f"{LAB}s"
    said = ok("run", "--topology", TOPOLOGY, "--name", name)
    steps = sum(len(scenario.steps) for scenario in load_topology(TOPOLOGY).scenarios)
    assert f"{steps} steps: {steps} passed" in said
    assert not list(Path("/run/netns").glob(f"{name}-*"))
    assert not [path for root in cgroups._hierarchies() for path in root.glob(f"weavelab-{name}-*")]


def test_another_lab_runs_unchanged_with_containerd() -> None:
    ok("run", "--topology", "topologies/two-nodes.yaml", "--kubelet", "containerd", "--name", f"{LAB}t")


# ---- trouble


def state_step(name: str) -> str:
    try:
        return str(json.loads((RUN / name / "state.json").read_bytes())["step"])
    except (OSError, ValueError):
        return ""


def eventually(holds: Callable[[], object], *, within_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not become true"
        time.sleep(0.005)


@pytest.mark.parametrize("containers", [None, 0, 1, 3, 6])
def test_a_killed_bring_up_leaves_nothing_behind_after_down(tmp_path: Path, containers: int | None) -> None:
    """Killed while runtimes start (None), or when so many containers were made."""
    name = f"{LAB}k"
    command = [*COMMAND, "up", str(TOPOLOGY), "--name", name]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE) as process:
        if containers is None:
            eventually(lambda: state_step(name) == "runtimes" or process.poll() is not None)
        else:
            eventually(lambda: state_step(name) == "pods" or process.poll() is not None)
            eventually(lambda: made(name) >= containers or process.poll() is not None)
        process.kill()
    assert weavelab("down", name).returncode == 0
    assert not [path for root in cgroups._hierarchies() for path in root.glob(f"weavelab-{name}-*")]
    assert not list(Path("/run/netns").glob(f"{name}-*"))
    assert not (RUN / name).exists()
    assert not [line for line in traces() if name in line]


def made(name: str) -> int:
    """How many containers of a lab have a cgroup."""
    return max((len(list(root.glob(f"weavelab-{name}-*/*/"))) for root in cgroups._hierarchies()), default=0)


def test_a_frozen_container_does_not_keep_a_lab_from_going_down(tmp_path: Path) -> None:
    name = f"{LAB}f"
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nkubelet: containerd\nnodes: {node1: }\npods: {red: {node: node1}}\n")
    ok("up", path, "--name", name)
    frozen = 0
    for root in cgroups._hierarchies():
        for folder in root.glob(f"weavelab-{name}-*/*/"):
            for file, text in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
                if (folder / file).exists():
                    (folder / file).write_text(text)
                    frozen += 1
    assert frozen, "no container could be frozen"
    assert ok("down", name) == f"lab {name} is down\n"


def test_a_machine_without_containerd_says_so_and_does_the_rest() -> None:
    hide = f'mount --bind /dev/null {needs.program("containerd")} && exec "$@"'

    def without(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", hide, "sh", *COMMAND, *arguments],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = without("up", str(TOPOLOGY), "--name", f"{LAB}n")
    assert done.returncode == 3
    assert "error: `kubelet: containerd` wants containerd on this machine, found no such program" in done.stderr
    assert f"hint: apt-get install {needs.PACKAGES}" in done.stderr
    assert not (RUN / f"{LAB}n").exists()
    ran = without("run", "same-node", "--topology", "topologies/single-node.yaml", "--name", f"{LAB}n")
    assert ran.returncode == 0, ran.stdout + ran.stderr
