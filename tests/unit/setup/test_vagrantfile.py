"""What the Vagrantfile asks of each provider, with each variable: read by plain ruby, and by Vagrant where it is installed."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import ROOT

PROVIDERS = ("virtualbox", "libvirt", "vmware_desktop", "parallels", "hyperv", "qemu")


def environment(**variables):
    """The machine's own, without WEAVELAB_ variables but with these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WEAVELAB_", "VAGRANT_"))}
    return {**kept, **{f"WEAVELAB_{name}": value for name, value in variables.items()}}


@pytest.fixture
def folder(tmp_path):
    """A checkout of which only the Vagrantfile matters."""
    shutil.copy(ROOT / "Vagrantfile", tmp_path / "Vagrantfile")
    return tmp_path


@pytest.fixture
def load(folder):
    """load(provider, VARIABLE=value...): the machines that the Vagrantfile describes, by name."""
    ruby = shutil.which("ruby") or pytest.skip("ruby is not installed")
    stub = Path(__file__).parent / "vagrant_stub.rb"

    def machines(provider="virtualbox", **variables):
        argv = [ruby, str(stub), str(folder / "Vagrantfile"), provider]
        result = subprocess.run(argv, env=environment(**variables), capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return machines


@pytest.fixture
def refused(folder):
    """refused(VARIABLE=value): what the Vagrantfile says to that."""
    ruby = shutil.which("ruby") or pytest.skip("ruby is not installed")
    stub = Path(__file__).parent / "vagrant_stub.rb"

    def message(**variables):
        argv = [ruby, str(stub), str(folder / "Vagrantfile"), "virtualbox"]
        result = subprocess.run(argv, env=environment(**variables), capture_output=True, text=True, check=False)
        assert result.returncode != 0
        return result.stderr

    return message


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_gets_a_box_two_cpus_and_two_gib(load, provider):
    machine = load(provider)["default"]
    assert machine["box"] == ("cloud-image/debian-13" if provider in {"libvirt", "qemu"} else "bento/debian-12")
    settings = machine["provider"]
    cpus, memory = {
        "vmware_desktop": lambda: (settings["vmx"]["numvcpus"], settings["vmx"]["memsize"]),
        "qemu": lambda: (settings["smp"], settings["memory"].removesuffix("M")),
    }.get(provider, lambda: (settings["cpus"], settings["memory"]))()
    assert (int(cpus), int(memory)) == (2, 2048)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_variable_reaches_every_provider(load, provider):
    machine = load(provider, BOX="mine/box", BOX_VERSION="1.2", CPUS="4", MEMORY="4096", BOOT_TIMEOUT="60")["default"]
    assert (machine["box"], machine["box_version"], machine["boot_timeout"]) == ("mine/box", "1.2", 60)
    assert "4" in json.dumps(machine["provider"])
    assert "4096" in json.dumps(machine["provider"])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_is_set_that_a_box_may_know_better(load, provider):
    machine = load(provider)["default"]
    assert set(machine["provider"]) <= {"cpus", "memory", "vmx", "smp", "linked_clone", "graphics_type", "driver"}
    assert machine["provider"].get("driver") in {None, "qemu"}
    assert machine["boot_timeout"] >= 600
    assert not {"hostname", "box_version", "ssh"} & set(machine)
    assert machine["networks"] == []


def test_the_libvirt_driver_is_set_on_request_and_where_kvm_cannot_be(load):
    assert load("libvirt", LIBVIRT_DRIVER="qemu")["default"]["provider"]["driver"] == "qemu"
    assert load("libvirt", LIBVIRT_DRIVER="kvm")["default"]["provider"]["driver"] == "kvm"
    expected = None if Path("/dev/kvm").exists() else "qemu"
    assert load("libvirt")["default"]["provider"].get("driver") == expected


def test_the_folder_is_copied_without_what_belongs_to_one_machine(load):
    [(guest, options)] = load()["default"]["folders"].items()
    assert (guest, options["type"]) == ("/vagrant", "rsync")
    assert {".git/", ".venv", ".vagrant/", "/build/", "__pycache__/"} <= set(options["rsync__exclude"])
    assert load(SYNC="virtualbox")["default"]["folders"] == {"/vagrant": {"type": "virtualbox", "host": "."}}


def test_the_copy_takes_what_it_should(folder, load, tmp_path):
    """The excludes as rsync itself reads them."""
    rsync = shutil.which("rsync") or pytest.skip("rsync is not installed")
    source, target = tmp_path / "source", tmp_path / "target"
    kept = ("testbed/build/plan.py", "docs/guide/build.md", ".ci/run", "templates/.keep")
    left = (".git/HEAD", ".venv/bin/python", "build/reports/report.html", "plugin/__pycache__/a.pyc", ".mypy_cache/x")
    for name in kept + left:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    options = load()["default"]["folders"]["/vagrant"]
    excludes = [word for pattern in options["rsync__exclude"] for word in ("--exclude", pattern)]
    subprocess.run([rsync, *options["rsync__args"], *excludes, f"{source}/", target], check=True)
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == set(kept)


def test_provisioning_is_the_set_up_script_of_make_as_the_ordinary_user(load):
    [provisioner] = load()["default"]["provisioners"]
    assert provisioner["privileged"] is False
    assert provisioner["inline"] == "bash /vagrant/testbed/setup/setup.sh test --provision"


def test_three_vms_are_nodes_on_a_private_network_that_virtualbox_allows(load):
    machines = load(VMS="3")
    assert list(machines) == ["node1", "node2", "node3"]
    assert [machine["hostname"] for machine in machines.values()] == ["node1", "node2", "node3"]
    addresses = [network["ip"] for machine in machines.values() for network in machine["networks"]]
    assert addresses == ["192.168.56.11", "192.168.56.12", "192.168.56.13"]
    assert machines["node1"]["primary"]
    assert machines["node3"]["box"] == "bento/debian-12"


def test_vms_that_exist_are_meant_without_the_variable_too(folder, load):
    for name in ("node1", "node2"):
        (folder / ".vagrant/machines" / name / "libvirt").mkdir(parents=True)
        (folder / ".vagrant/machines" / name / "libvirt" / "id").write_text("x")
    assert list(load()) == ["node1", "node2"]
    assert list(load(VMS="3")) == ["node1", "node2", "node3"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CPUS", "two"), ("CPUS", "0"), ("MEMORY", "2G"), ("MEMORY", "64"), ("VMS", "-1"), ("BOOT_TIMEOUT", "1.5")],
)
def test_a_mistyped_number_is_answered_with_what_was_wanted_and_found(refused, variable, value):
    message = refused(**{variable: value})
    assert f"wanted WEAVELAB_{variable} to be a whole number from" in message
    assert f'found "{value}"' in message


def test_an_empty_variable_is_as_good_as_none(load):
    assert load(CPUS="", BOX=" ") == load()


@pytest.mark.slow
@pytest.mark.parametrize("vms", ["1", "3"])
@pytest.mark.parametrize("provider", ["any", "libvirt", "virtualbox"])
def test_vagrant_itself_finds_the_file_valid(folder, provider, vms):
    vagrant = shutil.which("vagrant") or pytest.skip("vagrant is not installed")
    env = {**environment(VMS=vms), "VAGRANT_HOME": str(folder / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    argv = [vagrant, "validate"]
    if provider == "any":
        env["VAGRANT_NO_PLUGINS"] = "1"
        argv.append("--ignore-provider")
    else:
        env["VAGRANT_DEFAULT_PROVIDER"] = provider
    if provider == "virtualbox":
        stub = folder / "bin" / "VBoxManage"
        stub.parent.mkdir()
        stub.write_text("#!/bin/sh\necho 6.1.50r161033\n")
        stub.chmod(0o755)
        env["PATH"] = f"{stub.parent}:{env['PATH']}"
    if provider == "libvirt":
        plugins = subprocess.run(
            [vagrant, "plugin", "list"], cwd=folder, env=env, capture_output=True, text=True, check=False
        )
        if "vagrant-libvirt" not in plugins.stdout:
            pytest.skip("vagrant-libvirt is not installed")
    result = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Vagrantfile validated successfully." in result.stdout
