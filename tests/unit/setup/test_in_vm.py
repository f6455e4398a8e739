"""`make` typed on the host, with a VM of this checkout: what vagrant is told, and what comes back."""

import tarfile

import pytest

# Answers as Vagrant does. FAKE_STATE is the VM's, FAKE_CODE what the command in it ends with; the reports are a tar file.
FAKE_VAGRANT = r"""
case "$1 $*" in
    status*) echo "1700000000,$2,metadata,provider,libvirt"; echo "1700000000,$2,state,${FAKE_STATE:-running}" ;;
    rsync*) [ -z "$FAKE_RSYNC_FAILS" ] || { echo "rsync: connection refused"; exit 1; } ;;
    ssh*tar*) cat "$REPORTS_TAR" ;;
    ssh*) echo "the lab's table"; exit "${FAKE_CODE:-0}" ;;
esac
"""


def make_vm(workshop, name="default"):
    machine = workshop.root / ".vagrant" / "machines" / name / "libvirt"
    machine.mkdir(parents=True)
    (machine / "id").write_text("0a1b2c")


@pytest.fixture
def vm(workshop, tmp_path):
    """A host: no Python, no lab tools, but vagrant and a VM with reports."""
    make_vm(workshop)
    workshop.fake("vagrant", FAKE_VAGRANT)
    (tmp_path / "report.html").write_text("<html>from the VM</html>")
    with tarfile.open(tmp_path / "reports.tar", "w") as archive:
        archive.add(tmp_path / "report.html", "./report.html")
    workshop.env["REPORTS_TAR"] = str(tmp_path / "reports.tar")
    return workshop


def commands(workshop):
    """What was run in the VM."""
    return [call.partition("--command ")[2] for call in workshop.calls("vagrant ssh") if "tar" not in call]


def test_make_scenario_syncs_runs_in_the_vm_and_brings_the_reports_back(vm):
    result = vm.run("make", "scenario")
    assert result.returncode == 0, result.stderr
    assert [call.split()[1] for call in vm.calls("vagrant")] == ["status", "rsync", "ssh", "ssh"]
    assert [command.strip() for command in commands(vm)] == [
        "cd /vagrant && bash testbed/setup/scenario.sh topologies/two-nodes.yaml"
    ]
    assert "the lab's table" in result.stdout
    assert (vm.root / "build/reports/report.html").read_text() == "<html>from the VM</html>"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_the_exit_code_is_that_of_the_command_in_the_vm(vm, code):
    assert vm.script("in-vm.sh", "scenario", FAKE_CODE=str(code)).returncode == code


@pytest.mark.parametrize(("code", "made"), [("0", 0), ("1", 1), ("2", 2), ("3", 2)])
def test_make_on_the_host_ends_as_make_in_the_vm_would(vm, code, made):
    assert vm.run("make", "scenario", FAKE_CODE=code).returncode == made


def test_reports_come_back_from_a_failed_run_too(vm):
    vm.run("make", "scenario", FAKE_CODE="1")
    assert (vm.root / "build/reports/report.html").exists()


def test_topology_and_arguments_reach_the_vm_whole(vm):
    vm.run("make", "scenario", "TOPOLOGY=topologies/my lab.yaml", "ARGS=--format json")
    assert commands(vm) == [r"cd /vagrant && bash testbed/setup/scenario.sh topologies/my\ lab.yaml --format json"]


def test_other_targets_run_as_make_targets_natively_in_the_vm(vm):
    vm.run("make", "down", "LAB=racks")
    assert commands(vm) == [
        "cd /vagrant && NATIVE=1 make --no-print-directory down TOPOLOGY=topologies/two-nodes.yaml LAB=racks"
    ]


def test_without_a_terminal_none_is_asked_for_in_the_vm(vm):
    vm.run("make", "demo", "ARGS=--auto")
    assert all("--no-tty" in call for call in vm.calls("vagrant ssh"))


@pytest.mark.parametrize("target", ["scenario", "demo", "test", "up", "down", "status", "cli"])
def test_these_targets_go_to_the_vm(vm, target):
    vm.run("make", target)
    assert len(commands(vm)) == 1


@pytest.mark.parametrize("why", ["NATIVE", "no vagrant", "no id"])
def test_without_a_vm_or_on_request_make_stays_on_this_machine(vm, why):
    if why == "no vagrant":
        (vm.bin / "vagrant").unlink()
    if why == "no id":
        (vm.root / ".vagrant/machines/default/libvirt/id").unlink()
    result = vm.run("make", "scenario", NATIVE="1" if why == "NATIVE" else "")
    assert vm.calls("vagrant") == []
    assert "no apt" in result.stderr  # the set-up of this machine has begun


def test_a_vm_that_is_off_is_named_with_both_ways_on(vm):
    result = vm.script("in-vm.sh", "scenario", FAKE_STATE="poweroff")
    assert result.returncode == 3
    assert "error: wanted the running VM 'default' of this checkout, found it poweroff" in result.stderr
    assert "vagrant up" in result.stderr
    assert "NATIVE=1 make scenario" in result.stderr
    assert commands(vm) == []


def test_a_folder_that_cannot_be_synced_is_not_tested_in_its_old_state(vm):
    result = vm.script("in-vm.sh", "scenario", FAKE_RSYNC_FAILS="yes")
    assert result.returncode == 3
    assert "rsync: connection refused" in result.stderr
    assert commands(vm) == []


def test_of_several_vms_the_first_is_used_or_the_one_that_is_named(workshop):
    for name in ("node1", "node2"):
        make_vm(workshop, name)
    workshop.fake("vagrant", FAKE_VAGRANT)
    workshop.run("make", "status")
    workshop.run("make", "status", WEAVELAB_VM="node2")
    assert [call.split()[2] for call in workshop.calls("vagrant ssh")] == ["node1", "node2"]


def test_fetch_alone_brings_the_reports(vm):
    result = vm.run("make", "fetch")
    assert result.returncode == 0, result.stderr
    assert commands(vm) == []
    assert (vm.root / "build/reports/report.html").exists()


def test_a_vm_without_reports_keeps_the_hosts_and_says_so(vm, tmp_path):
    with tarfile.open(tmp_path / "reports.tar", "w"):
        pass
    reports = vm.root / "build" / "reports"
    reports.mkdir(parents=True)
    (reports / "report.html").write_text("mine")
    result = vm.script("in-vm.sh", "--fetch")
    assert result.returncode == 3
    assert "found none there" in result.stderr
    assert (reports / "report.html").read_text() == "mine"
