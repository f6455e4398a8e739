"""What a lab with a real runtime is given: the image, the configuration, and what is said when something is absent."""

import io
import json
import subprocess
import tarfile
import tomllib
from pathlib import Path

import msgspec
import pytest

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.deploy.interpreter import plugin_interpreter
from testbed.deploy.plan import plan_deploy
from testbed.kubelet import needs
from testbed.kubelet.image import IMAGE, build_image
from testbed.kubelet.plan import RUNTIME_CONFIG_PATH, with_runtime
from testbed.nodes import cgroups
from testbed.nodes.mounts import Mount
from testbed.topology.load import parse_topology
from testbed.topology.model import Topology
from testbed.topology.underlay import plan_underlay

TEXT = "name: lab\nkubelet: containerd\nnodes: {node1: {}}\npods:\n  web: {node: node1, ports: [{host: 80, container: 8080}]}\n"


def topology(text: str = TEXT) -> Topology:
    return parse_topology(text, file="lab.yaml")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with everything that a real runtime needs, as far as it is looked at."""
    for name in (*needs.PROGRAMS, "busybox", "cni/loopback"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(elf(static=True))
        path.chmod(0o755)
    monkeypatch.setattr(needs, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(needs, "CNI_FOLDERS", (tmp_path / "cni",))
    monkeypatch.setattr(cgroups, "check_writable", lambda: None)
    return tmp_path


def elf(*, static: bool) -> bytes:
    """The headers of a 64-bit program: PT_LOAD, and PT_INTERP when it wants a loader."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    kinds = [1] if static else [1, 3]
    header[32:40] = (64).to_bytes(8, "little")
    header[54:58] = (56).to_bytes(2, "little") + len(kinds).to_bytes(2, "little")
    return bytes(header) + b"".join(kind.to_bytes(4, "little") + bytes(52) for kind in kinds)


# ---- the image


def unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}


def test_the_archive_names_its_image_and_the_parts_fit_together() -> None:
    files = unpack(build_image(b"program", ["sh", "ls"], machine="x86_64"))
    [manifest] = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == [IMAGE]
    config = json.loads(files[manifest["Config"]])
    [layer] = manifest["Layers"]
    digest = subprocess.run(["sha256sum"], input=files[layer], capture_output=True, check=True).stdout.split()[0]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest.decode()}"]
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["config"]["Cmd"][0] == "/bin/sh"


def test_the_layer_has_the_program_and_a_link_for_each_of_its_names() -> None:
    layer = unpack(build_image(b"program", ["sh", "busybox", "ls"]))["layer.tar"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries["bin/busybox"].mode == 0o755
    assert {name for name, entry in entries.items() if entry.issym()} == {"bin/sh", "bin/ls"}
    assert entries["bin/sh"].linkname == "/bin/busybox"
    assert entries["tmp"].mode == 0o1777


def test_the_same_program_makes_the_same_bytes() -> None:
    assert build_image(b"program", ["ls", "sh"]) == build_image(b"program", {"sh", "ls"})


def test_only_a_program_without_a_loader_counts_as_static() -> None:
    assert needs.is_static(elf(static=True))
    assert not needs.is_static(elf(static=False))
    assert not needs.is_static(b"#!/bin/sh\n")


# ---- files and service of a node


def plan(wanted: Topology) -> dict[str, bytes]:
    plans = plan_deploy(wanted, plan_underlay(wanted), "lab", interpreter=plugin_interpreter())
    [made] = with_runtime(plans, wanted)
    return {file.path: file.content for file in made.files}


def test_the_configuration_keeps_a_runtime_inside_its_node(machine: Path) -> None:
    files = plan(topology())
    config = tomllib.loads(files[RUNTIME_CONFIG_PATH].decode())
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["version"] == 2
    assert (config["root"], config["state"]) == ("/var/lib/containerd", "/run/containerd")
    assert config["grpc"]["address"] == "/run/containerd/containerd.sock"
    assert cri["sandbox_image"] == IMAGE
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["disable_apparmor"] is True
    assert cri["restrict_oom_score_adj"] is True
    assert cri["cni"] == {"bin_dir": "/opt/cni/bin", "conf_dir": "/etc/cni/net.d", "max_conf_num": 1}
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False}


def test_the_plugin_that_every_sandbox_needs_comes_along_and_ours_does_the_ports(machine: Path) -> None:
    files = plan(topology())
    [ours] = json.loads(files["/etc/cni/net.d/10-weave.conflist"])["plugins"]
    assert (ours["type"], ours["capabilities"]["portMappings"]) == ("weave-net", True)
    assert files["/opt/cni/bin/loopback"] == (machine / "cni/loopback").read_bytes()


def test_an_emulated_lab_without_ports_gets_none_of_it(machine: Path) -> None:
    files = plan(topology("name: lab\nnodes: {node1: {}}\npods: {red: {node: node1}}\n"))
    assert [plugin["type"] for plugin in json.loads(files["/etc/cni/net.d/10-weave.conflist"])["plugins"]] == [
        "weave-net"
    ]
    assert RUNTIME_CONFIG_PATH not in files
    assert "/opt/cni/bin/loopback" not in files


# ---- a machine that lacks something


def test_everything_that_is_absent_is_named_at_once_with_what_to_install(machine: Path) -> None:
    needs.check_machine(topology())
    (machine / "runc").unlink()
    (machine / "busybox").write_bytes(elf(static=False))
    (machine / "cni/loopback").unlink()
    with pytest.raises(MissingError) as caught:
        needs.check_machine(topology())
    assert caught.value.exit_code == 3
    assert "wants runc, a statically linked busybox, the CNI plugin loopback on this machine" in caught.value.message
    assert f"apt-get install {needs.PACKAGES}" in caught.value.hint


def test_an_emulated_lab_needs_nothing_of_it(machine: Path) -> None:
    for name in needs.PROGRAMS:
        (machine / name).unlink()
    needs.check_machine(topology("name: lab\nnodes: {node1: {}}\npods: {red: {node: node1}}\n"))
    needs.check_machine(msgspec.structs.replace(topology(), kubelet="emulated"))


def test_a_runtime_without_cgroups_is_refused_before_a_lab_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups.mounts, "mount_table", lambda: [Mount(Path("/proc/sys"), "proc", "proc")])
    with pytest.raises(MissingError, match="wanted cgroups that can be written, found none mounted"):
        cgroups.check_writable()


# ---- cgroups


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups.mounts, "mount_table", lambda: [Mount(tmp_path, "cgroup2", "cgroup2")])
    return tmp_path


def test_processes_are_found_in_a_cgroup_and_below_it(hierarchy: Path) -> None:
    inner = hierarchy / "lab" / "container"
    inner.mkdir(parents=True)
    (hierarchy / "other").mkdir()
    (hierarchy / "other" / "cgroup.procs").write_text("1\n")
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as two:
        (hierarchy / "lab" / "cgroup.procs").write_text(f"{one.pid}\n")
        (inner / "cgroup.procs").write_text(f"{two.pid}\n4194304\n")
        found = {process.pid for process in cgroups.members("lab")}
        one.kill()
        two.kill()
        assert found == {one.pid, two.pid}
    assert cgroups.members("absent") == []


def test_a_frozen_container_is_thawed_whatever_the_version(hierarchy: Path) -> None:
    for name, file, text in (("one", "freezer.state", "FROZEN"), ("two", "cgroup.freeze", "1")):
        (hierarchy / "lab" / name).mkdir(parents=True)
        (hierarchy / "lab" / name / file).write_text(text)
    cgroups.thaw("lab")
    assert (hierarchy / "lab/one/freezer.state").read_text() == "THAWED"
    assert (hierarchy / "lab/two/cgroup.freeze").read_text() == "0"
    assert not (hierarchy / "lab/one/cgroup.freeze").exists()


def test_a_cgroup_goes_with_all_below_it_and_twice_is_fine(hierarchy: Path) -> None:
    (hierarchy / "lab" / "pod" / "container").mkdir(parents=True)
    cgroups.remove("lab")
    assert list(hierarchy.iterdir()) == []
    cgroups.remove("lab")


def test_a_cgroup_that_stays_is_named(hierarchy: Path) -> None:
    (hierarchy / "lab").mkdir()
    (hierarchy / "lab" / "file").touch()  # stands for what a kernel would refuse to remove
    with pytest.raises(CheckError, match=f"the cgroup {hierarchy}/lab of the lab cannot be removed"):
        cgroups.remove("lab")


# ---- what a file may say


def test_a_restart_needs_containers_and_an_option_can_bring_them() -> None:
    text = "name: lab\nnodes: {a: }\npods: {red: {node: a}}\nscenarios: [{name: s, steps: [{pod: {on: red, do: restart}}]}]\n"
    with pytest.raises(InputError, match="pods of an emulated kubelet have no container"):
        topology(text)
    made = parse_topology(text, file="lab.yaml", kubelet="containerd")
    assert (made.kubelet, made.scenarios[0].steps[0].title) == ("containerd", "restart pod red")
