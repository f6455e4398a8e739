"""A real installation on a machine made of namespaces: the agent from there, a pod through the plugin from there, and away.

What is installed must not need this checkout: while it works, the checkout is concealed.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from plugin.link import netns
from testbed.deploy.kubernetes import manifest
from testbed.deploy.record import RECORD_PATH
from testbed.kubelet.cni_runtime import CniRuntime
from testbed.kubelet.sandbox import Sandbox, container_id
from testbed.machine.space import Completed, Space, call, run, spawn
from tests.support.cluster import end, wait_for
from tests.support.project import ROOT
from tests.support.tree import tree

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]

WEAVELAB = [sys.executable, "-P", "-m", "testbed"]
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MS_REMOUNT = 0x20
PLACES = ("etc", "opt", "usr/local", "var/lib")
"""Where an installation writes; each a layer over the real one, so that nothing of this machine changes."""

MAKE_MACHINE = """
set -e
mount -t tmpfs layers /mnt
for place in {places}; do
    mkdir -p /mnt/$place/upper /mnt/$place/work
    mount -t overlay -o lowerdir=/$place,upperdir=/mnt/$place/upper,workdir=/mnt/$place/work layers /$place
done
mount -t tmpfs run /run
mkdir -p /run/netns
rm -rf /etc/cni /etc/weave /opt/cni /opt/weave /var/lib/cni /var/lib/weave
ip link set lo up
ip link add eth0 type veth peer name far
ip link set eth0 up
ip link set far up
ip address add 192.168.77.11/24 dev eth0
ip route add default via 192.168.77.1
echo ready
exec sleep 300
"""


@pytest.fixture
def machine() -> Iterator[Space]:
    """A machine with an address, a default route, and no network of pods. It ends with its one process."""
    script = MAKE_MACHINE.format(places=" ".join(PLACES))
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "bash", "-c", script], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield Space("machine", Path(f"/proc/{holder.pid}/ns/net"), Path(f"/proc/{holder.pid}/ns/mnt"))
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def written(machine: Space) -> dict[str, tuple[int, bytes]]:
    """Everything that differs from the real machine's files: made, changed or removed. (Folders that both have do not.)"""

    def look() -> dict[str, tuple[int, bytes]]:
        layers = {place: tree(Path("/mnt", place, "upper")) for place in PLACES}
        return {f"/{place}/{path}": entry for place, layer in layers.items() for path, entry in layer.items()}

    return {
        path: entry
        for path, entry in call(machine, look).items()
        if not (stat.S_ISDIR(entry[0]) and Path(path).is_dir())
    }


def weavelab(machine: Space, *words: str) -> Completed:
    environment = {"PYTHONPATH": str(ROOT), "PATH": PATH}
    return run(machine, [*WEAVELAB, *words], timeout_s=60, env=environment)


def ok(done: Completed) -> str:
    assert done.returncode == 0, f"{done.argv}: {done.stdout}{done.stderr}"
    return done.stdout


def conceal_checkout(machine: Space, stack: ExitStack) -> None:
    call(machine, lambda: netns.mount("concealed", ROOT, "tmpfs"))
    stack.callback(call, machine, lambda: netns.umount(ROOT, netns.MNT_DETACH))


def start_agent(machine: Space, stack: ExitStack, *before: str) -> None:
    """As systemd would: by the unit's command line, with its capabilities and no environment."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(call(machine, lambda: Path("/etc/systemd/system/weave.service").read_text(encoding="utf-8")))
    kept = unit["Service"]["CapabilityBoundingSet"].lower().replace("cap_", "+").split()
    bounded = ["setpriv", f"--bounding-set=-all,{','.join(kept)}", "--no-new-privs", *before]
    log = call(machine, lambda: os.open("/mnt/agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    command = [*bounded, *shlex.split(unit["Service"]["ExecStart"])]
    agent = spawn(machine, command, stdout=log, stderr=log, env={"PATH": PATH})
    os.close(log)
    stack.callback(end, agent)

    def ready() -> bool:
        assert agent.poll() is None, call(machine, lambda: Path("/mnt/agent.log").read_text(encoding="utf-8"))
        return run(machine, ["/usr/local/bin/weave", "report", "ready"], timeout_s=20).stdout.strip() == "true"

    wait_for(ready, "the installed agent is ready")


def attach_a_pod(machine: Space) -> None:
    """Through the conflist and the plugin that are installed; its gateway answers; then it goes again."""
    kubelet = CniRuntime(machine)
    sandbox = Sandbox("red", container_id("installed", "machine", "red"), str(kubelet.make_sandbox("red")))
    try:
        added = kubelet.add(sandbox)
        kubelet.check(sandbox)
        assert added.address is not None
        assert machine.mnt is not None
        pod = Space("red", Path(f"/proc/{machine.mnt.parts[2]}/root{sandbox.netns}"))
        gateway = str(added.result["ips"][0]["gateway"])
        ok(run(pod, ["ping", "-c1", "-W5", gateway], timeout_s=20))
    finally:
        kubelet.delete(sandbox)
        kubelet.remove_sandbox("red")
    call(machine, lambda: shutil.rmtree("/var/lib/cni"))  # the runtime's own


def test_a_machine_is_installed_works_without_the_checkout_and_is_as_before_afterwards(machine: Space) -> None:
    before = written(machine)
    out = ok(weavelab(machine, "deploy", "--local", "--node-name", "node1", "--range", "10.64.0.0/16"))
    assert "no systemd runs on this machine" in out
    installed = written(machine)
    config = json.loads(installed["/etc/weave/agent.json"][1])
    assert config == {"name": "node1", "node_address": "192.168.77.11", "range": "10.64.0.0/16"}, "asked of its routes"
    texts = [content for path, (_, content) in installed.items() if not path.startswith("/opt/weave/lib")]
    assert not [text for text in texts if str(ROOT).encode() in text], "no path of the checkout"
    with ExitStack() as stack:
        conceal_checkout(machine, stack)
        start_agent(machine, stack)
        attach_a_pod(machine)
        status = ok(run(machine, ["/usr/local/bin/weave", "status"], timeout_s=20))
        assert "10.64.0.0/16" in status
    with ExitStack() as stack:
        start_agent(machine, stack)
        refused = weavelab(machine, "deploy", "--local", "--uninstall")
        assert refused.returncode == 1
        assert "its agent runs" in refused.stderr
        assert "nothing was started" in ok(weavelab(machine, "deploy", "--local")), "the same again changes nothing"
    assert {path: entry for path, entry in written(machine).items() if path in installed} == installed
    assert "removed the agent's state" in ok(weavelab(machine, "deploy", "--local", "--uninstall", "--purge"))
    assert written(machine) == before


KILLED = """
import os, signal
from testbed.cli.main import main
from testbed.deploy import machine
write, left = machine._write_synced, {left}
def until_killed(path, content, mode):
    global left
    write(path, content, mode)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
machine._write_synced = until_killed
main({words})
"""


@pytest.mark.parametrize("left", [1, 2, 150])
def test_a_killed_installation_is_finished_or_taken_back(machine: Space, left: int) -> None:
    """Killed between a file's writing and its renaming."""
    before = written(machine)
    words = ["deploy", "--local", "--node-name", "node1"]
    script = KILLED.format(left=left, words=words)
    for finish in (True, False):
        killed = run(
            machine, [sys.executable, "-P", "-c", script], timeout_s=60, env={"PYTHONPATH": str(ROOT), "PATH": PATH}
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert any(path.endswith(".weavelab") for path in written(machine))
        if finish:
            ok(weavelab(machine, *words))
            assert json.loads(call(machine, Path(RECORD_PATH).read_bytes))["complete"]
            assert not any(path.endswith(".weavelab") for path in written(machine))
        ok(weavelab(machine, "deploy", "--local", "--uninstall"))
        assert written(machine) == before


def test_a_folder_that_is_read_only_is_exit_code_3_and_names_the_file(machine: Space) -> None:
    def read_only() -> None:
        Path("/opt/cni").mkdir()
        netns.mount("closed", Path("/opt/cni"), "tmpfs", netns.MS_RDONLY)

    call(machine, read_only)
    done = weavelab(machine, "deploy", "--local", "--only", "plugin")
    assert done.returncode == 3
    assert "error: wanted to make the folder /opt/cni/bin on this machine, found: Read-only file system" in done.stderr
    assert "give the same command again" in done.stderr
    call(machine, lambda: netns.umount(Path("/opt/cni")))
    ok(weavelab(machine, "deploy", "--local", "--only", "plugin"))
    call(machine, lambda: Path("/opt/cni/bin/weave-net").stat())


def test_what_the_daemonset_runs_does_what_the_node_needs(machine: Space) -> None:
    """Its init container's command, with the mounts it has, no capability; then the agent with what that has written."""
    before = written(machine)
    ok(weavelab(machine, "deploy", "--local", "--only", "agent", "--no-start"))  # what the image holds
    documents = list(YAML(typ="safe").load_all(manifest(peers=["192.168.77.11"], pod_range="10.64.0.0/16")))
    pod = documents[1]["spec"]["template"]["spec"]
    (install,), (agent,) = pod["initContainers"], pod["containers"]
    node = {"NODE_NAME": "node1", "NODE_ADDRESS": "192.168.77.11"}
    words = [re.sub(r"\$\((\w+)\)", lambda found: node[found[1]], word) for word in install["command"]]
    host = Path("/mnt/host")  # for /host: this machine's root itself gets no folder
    words[words.index("--root=/host")] = f"--root={host}"
    folders = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod["volumes"]}

    def mount_volumes() -> None:
        host.mkdir()
        netns.mount("root of the image", host, "tmpfs")
        for mount in install["volumeMounts"]:
            place, folder = Path(f"/mnt{mount['mountPath']}"), folders[mount["name"]]
            place.mkdir(parents=True)
            if folder is None:
                netns.mount("memory", place, "tmpfs")
                continue
            Path(folder).mkdir(parents=True, exist_ok=True)
            netns.mount(folder, place, flags=netns.MS_BIND)
        netns.mount("none", host, flags=_MS_REMOUNT | netns.MS_RDONLY | netns.MS_BIND)

    call(machine, mount_volumes)
    bare = ["setpriv", "--bounding-set=-all", "--no-new-privs", *WEAVELAB, *words[1:]]
    environment = {"PYTHONPATH": str(ROOT), "PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}
    ok(run(machine, bare, timeout_s=60, env=environment))
    call(machine, lambda: Path("/etc/weave").mkdir())
    call(machine, lambda: netns.mount(f"{host}/etc/weave", Path("/etc/weave"), flags=netns.MS_BIND))
    ok(weavelab(machine, "deploy", "--local", "--only", "unit", "--no-start"))  # only for its list of capabilities
    with ExitStack() as stack:
        assert agent["command"] == ["/opt/weave/bin/weave-agent", "--config", "/etc/weave/agent.json"]
        start_agent(machine, stack)
        attach_a_pod(machine)
        for probe in (agent["readinessProbe"], agent["livenessProbe"]):
            asked = probe["httpGet"]
            ok(run(machine, ["python3", "-c", (
                f"import urllib.request as r; r.urlopen('http://{asked['host']}:{asked['port']}{asked['path']}')"
            )], timeout_s=20))  # fmt: skip
    call(machine, lambda: netns.umount(Path("/etc/weave"), netns.MNT_DETACH))
    call(machine, Path("/etc/weave").rmdir)
    ok(weavelab(machine, "deploy", "--local", "--uninstall", "--purge"))
    left = written(machine).keys() - before.keys()
    assert left <= {"/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin"}, "folders that the volumes have made"
