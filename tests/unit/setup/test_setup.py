"""What setup.sh installs, what it leaves alone, and what it says when something cannot be had."""

import time

import pytest

UNREACHABLE = "WARNING: Retrying (Retry(total=0)) after NewConnectionError: Temporary failure in name resolution"


def test_a_fresh_machine_gets_an_environment_and_no_package_it_already_has(debian):
    result = debian.script("setup.sh", "run")
    assert result.returncode == 0, result.stderr
    assert debian.calls("apt-get") == []
    assert debian.calls("python3 -m venv") == [f"python3 -m venv --clear {debian.venv}"]
    [pip] = debian.calls("python -m pip")
    assert pip.endswith(f"--editable {debian.root}")
    assert result.stdout.splitlines()[-1] == "setup: ready"


def test_a_second_run_says_that_there_is_nothing_to_do_and_installs_nothing(debian):
    debian.script("setup.sh", "run")
    before = len(debian.calls("python -m pip"))
    started_s = time.monotonic()
    result = debian.script("setup.sh", "run")
    assert result.stdout == "setup: nothing to do\n"
    assert len(debian.calls("python -m pip")) == before
    assert time.monotonic() - started_s < 10  # well under one second on an idle machine


def test_quiet_says_nothing_when_there_is_nothing_to_do(debian):
    debian.script("setup.sh", "run")
    result = debian.script("setup.sh", "run", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_only_missing_packages_are_installed_without_recommended_ones_and_without_questions(workshop):
    workshop.fake_debian("iproute2", "iputils-ping", "tcpdump", "procps", "util-linux")
    result = workshop.script("setup.sh", "run")
    assert result.returncode == 0, result.stderr
    assert "setup: installing system packages: iperf3 nftables\n" in result.stdout
    update, install = workshop.calls("apt-get")
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends iperf3 nftables")
    assert "DPkg::Lock::Timeout=300" in install
    assert "--yes" in install


def test_a_machine_without_python_gets_the_distributions_one(debian):
    debian.fake("python3", "exit 127")
    # the package brings the interpreter
    brings = f'case "$*" in *" install "*python3*) cp "{debian.bin}/real" "{debian.bin}/python3" ;; esac'
    debian.fake("real", 'case "$1 $2" in -c*) echo ok ;; "-m venv") exit 0 ;; esac')
    debian.fake("apt-get", brings)
    debian.script("setup.sh", "run")
    assert any(call.endswith("python3 python3-venv") for call in debian.calls("apt-get"))
    assert debian.calls("python3 -m venv")


def test_a_python_of_the_wrong_version_or_a_dead_shim_is_passed_over_for_the_next_on_the_path(debian):
    (debian.bin / "python3").rename(debian.bin / "python3.12")
    debian.fake("python3", 'echo "3.9"')
    debian.fake("python3.13", 'echo "pyenv: python3.13: command not found" >&2; exit 127')
    result = debian.script("setup.sh", "run")
    assert result.returncode == 0, result.stderr
    assert f"with {debian.bin}/python3.12\n" in result.stdout


def test_when_no_python_fits_every_one_found_is_named_with_its_reason(debian):
    debian.fake("python3", 'echo "3.9"')
    debian.fake("python3.13", "exit 127")
    result = debian.script("setup.sh", "run")
    assert result.returncode == 3
    assert "wanted Python 3.11, 3.12 or 3.13" in result.stderr
    assert "python3 (3.9)" in result.stderr
    assert "python3.13 (does not start)" in result.stderr
    assert "hint: " in result.stderr


def test_the_test_level_installs_the_development_tools_and_run_keeps_them(debian):
    debian.script("setup.sh", "test")
    assert debian.calls("python -m pip")[-1].endswith("[dev]")
    assert debian.script("setup.sh", "run").stdout == "setup: nothing to do\n"


def test_what_only_tests_want_is_tried_once_and_its_absence_stops_nothing(workshop):
    workshop.fake_debian("iproute2", "iputils-ping", "iperf3", "tcpdump", "nftables", "procps", "util-linux")
    result = workshop.script("setup.sh", "test", FAKE_APT_FAILS="yes", CI="")
    assert result.returncode == 0, result.stderr
    assert "note: could not install ruby rsync shellcheck iptables mininet" in result.stdout
    assert "vagrant" not in result.stdout
    tried = len(workshop.calls("apt-get"))
    assert workshop.script("setup.sh", "test", FAKE_APT_FAILS="yes", CI="").stdout == "setup: nothing to do\n"
    assert len(workshop.calls("apt-get")) == tried
    assert "vagrant-libvirt" in workshop.script("setup.sh", "test", CI="true").stdout


def test_changed_requirements_are_installed_with_the_extras_the_environment_had(debian):
    debian.script("setup.sh", "test")
    with (debian.root / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    debian.script("setup.sh", "run")
    assert len(debian.calls("python -m pip")) == 2
    assert debian.calls("python -m pip")[-1].endswith("[dev]")


def test_the_bench_level_adds_what_is_compared_with(debian):
    debian.script("setup.sh", "bench")
    assert debian.calls("apt-get")[-1].endswith("mininet bridge-utils ethtool net-tools containernetworking-plugins")


def test_a_package_that_cannot_be_had_is_an_answer_of_the_environment(workshop):
    workshop.fake_debian()
    result = workshop.script("setup.sh", "run", FAKE_APT_FAILS="yes")
    assert result.returncode == 3
    assert "E: Unable to locate package" in result.stderr
    assert "error: wanted the packages iproute2" in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.parametrize(
    ("pip_text", "said"),
    [(UNREACHABLE, "could not reach its package registry"), ("No space left on device", "could not install them")],
)
def test_a_failing_pip_is_explained_and_tried_again_next_time(debian, pip_text, said):
    result = debian.script("setup.sh", "run", FAKE_PIP_CODE="1", FAKE_PIP_TEXT=pip_text)
    assert result.returncode == 3
    assert said in result.stderr
    assert pip_text in result.stderr
    assert debian.script("setup.sh", "run").stdout.endswith("setup: ready\n")


def test_a_fresh_vm_whose_daily_update_holds_the_package_lists_is_waited_for(workshop):
    workshop.fake_debian("iproute2")
    workshop.fake("sleep")
    busy = (
        '[ -e "$INSTALLED.seen" ] || { touch "$INSTALLED.seen"; echo "E: Could not get lock /lists/lock"; exit 100; }'
    )
    workshop.fake("apt-get", f"{busy}\n" + (workshop.bin / "apt-get").read_text().partition("\n")[2].partition("\n")[2])
    result = workshop.script("setup.sh", "run")
    assert result.returncode == 0, result.stderr
    assert workshop.calls("sleep") == ["sleep 5"]
    assert [call.split()[-1] for call in workshop.calls("apt-get")][:2] == ["update", "update"]


def test_provisioning_a_vm_adds_make_the_command_and_the_modules_that_exist(debian):
    written = debian.root.parent / "written"
    debian.fake("tee", f'cat >"{written}"')
    debian.fake("ln")
    debian.fake("readlink", "echo nothing")
    debian.fake("modprobe", 'case "$*" in *--dry-run*openvswitch) exit 1 ;; esac')
    debian.fake("install")
    result = debian.script("setup.sh", "test", "--provision")
    assert result.returncode == 0, result.stderr
    assert any(call.endswith("--no-install-recommends make") for call in debian.calls("apt-get"))
    assert debian.calls("ln") == [f"ln -sfn {debian.venv}/bin/weavelab {debian.destination}/usr/local/bin/weavelab"]
    assert debian.calls("tee") == ["tee /etc/modules-load.d/weavelab.conf"]
    modules = written.read_text().splitlines()[1:]
    assert "vxlan" in modules
    assert "openvswitch" not in modules
    assert "setup: kernel" in result.stdout


def test_an_ordinary_user_installs_packages_through_sudo_but_not_the_environment(workshop):
    workshop.fake_debian("iproute2")
    workshop.fake("sudo", 'exec "$@"')
    result = workshop.script("setup.sh", "run", FAKE_UID="1000")
    assert result.returncode == 0, result.stderr
    assert any("apt-get" in call and "DEBIAN_FRONTEND=noninteractive" in call for call in workshop.calls("sudo"))
    assert not any("pip" in call or "venv" in call for call in workshop.calls("sudo"))


def test_without_root_and_sudo_a_missing_package_is_a_clear_end(workshop):
    workshop.fake_debian()
    result = workshop.script("setup.sh", "run", FAKE_UID="1000")
    assert result.returncode == 3
    assert "error: wanted root to install the packages: iproute2" in result.stderr
    assert "found user student and no sudo" in result.stderr
    assert workshop.calls("apt-get") == []


def test_checks_and_unit_tests_need_no_root_on_a_machine_that_is_set_up(debian):
    debian.script("setup.sh", "test")
    result = debian.script("setup.sh", "test", "--quiet", FAKE_UID="1000")
    assert (result.returncode, result.stderr) == (0, "")


def test_another_python_asked_for_replaces_the_environment(debian):
    debian.script("setup.sh", "run")
    answering = (debian.bin / "python3").read_text()
    (debian.bin / "python3.13").write_text(answering)
    (debian.bin / "python3.13").chmod(0o755)
    # the environment's interpreter says that it is not of the version asked for
    in_venv = debian.venv / "bin" / "python"
    in_venv.write_text(in_venv.read_text().replace("exit 0 ;;", "exit 1 ;;"))
    result = debian.script("setup.sh", "run", WEAVELAB_PYTHON="python3.13")
    assert result.returncode == 0, result.stderr
    assert f"making the virtual environment {debian.venv} with {debian.bin}/python3.13" in result.stdout


def test_a_machine_without_apt_is_told_which_tools_it_lacks(workshop):
    result = workshop.script("setup.sh", "run")
    assert result.returncode == 3
    assert "iperf3" in result.stderr
    assert "no apt" in result.stderr


def test_a_kernel_without_vxlan_is_named(debian):
    result = debian.script("setup.sh", "run", FAKE_KERNEL="vxlan")
    assert result.returncode == 3
    assert "without: vxlan" in result.stderr
    assert "linux-modules-extra" in result.stderr
    assert debian.calls("modprobe --quiet --all veth")  # it was given the chance to load


def test_a_container_that_may_make_no_namespace_is_named(debian):
    result = debian.script("setup.sh", "run", FAKE_KERNEL="forbidden")
    assert result.returncode == 3
    assert "Operation not permitted" in result.stderr
    assert "privileged" in result.stderr


def test_a_kernel_without_nft_masquerade_or_netem_still_runs_labs(debian):
    result = debian.script("setup.sh", "run", FAKE_KERNEL="masquerade netem")
    assert result.returncode == 0
    assert "no nft masquerade" in result.stdout


def test_the_kernel_is_only_ever_tried_in_a_namespace_of_its_own(debian):
    debian.script("setup.sh", "run")
    assert [call for call in debian.calls() if call.startswith(("ip ", "nft ", "tc ", "mount "))] == []
    [probe] = debian.calls("unshare")
    assert probe.startswith("unshare --net --mount sh -c")


def test_of_two_set_ups_at_once_the_second_waits_and_finds_everything_done(debian):
    both = "bash testbed/setup/setup.sh run & bash testbed/setup/setup.sh run; wait"
    python = debian.bin / "python3"
    python.write_text(python.read_text().replace('echo "$FAKE_PIP_TEXT"', "sleep 1"))
    result = debian.run("bash", "-c", both)
    assert {"setup: nothing to do", "setup: ready"} <= set(result.stdout.splitlines())
    assert len(debian.calls("python -m pip")) == 1
    assert sorted(path.name for path in debian.root.iterdir()) == ["Makefile", "pyproject.toml", "testbed"]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_explains_the_levels_and_changes_nothing(debian, option):
    result = debian.script("setup.sh", option)
    assert result.returncode == 0
    assert "usage: setup.sh [run|test|bench]" in result.stdout
    assert debian.calls() == []


def test_an_unknown_argument_is_wrong_usage(debian):
    result = debian.script("setup.sh", "everything")
    assert result.returncode == 2
    assert "found everything" in result.stderr


RUNTIME_PACKAGES = "containerd runc busybox-static containernetworking-plugins"


@pytest.fixture
def topologies(debian):
    """A topology that asks for a real runtime, and one that does not."""
    (debian.root / "real.yaml").write_text("name: real\nkubelet: containerd\nnodes:\n  node1:\n")
    (debian.root / "plain.yaml").write_text("name: plain\n# kubelet: containerd\nnodes:\n  node1:\n")
    return debian


def test_a_topology_with_containerd_brings_its_packages_and_another_does_not(topologies):
    assert topologies.script("setup.sh", "run", "--for=plain.yaml").returncode == 0
    assert topologies.calls("apt-get") == []
    result = topologies.script("setup.sh", "run", "--for=real.yaml")
    assert result.returncode == 0, result.stderr
    assert topologies.calls("apt-get")[-1].endswith(f" install --no-install-recommends {RUNTIME_PACKAGES}")
    assert topologies.script("setup.sh", "run", "--runtime").stdout == "setup: nothing to do\n"


def test_the_service_of_containerd_is_neither_started_nor_enabled(topologies):
    topologies.fake("systemctl")
    assert topologies.script("setup.sh", "run", "--for=real.yaml").returncode == 0
    calls = [call for call in topologies.calls() if call.startswith(("systemctl", "apt-get"))]
    assert [call.split()[2:] for call in calls if call.startswith("systemctl")] == [
        ["mask", "containerd.service"],
        ["unmask", "containerd.service"],
        ["disable", "containerd.service"],
    ]
    (installed,) = (at for at, call in enumerate(calls) if "--yes" in call and " install " in call)
    assert "systemctl --quiet mask containerd.service" in calls[:installed]
    assert "systemctl --quiet unmask containerd.service" in calls[installed:]


def test_a_service_of_containerd_that_is_there_already_is_left_alone(topologies):
    with topologies.installed.open("a") as file:
        file.write("containerd\n")
    topologies.fake("systemctl")
    assert topologies.script("setup.sh", "run", "--for=real.yaml").returncode == 0
    assert topologies.calls("systemctl") == []


def test_dockers_containerd_is_taken_as_it_is(topologies):
    with topologies.installed.open("a") as file:
        file.write("containerd.io\n")
    assert topologies.script("setup.sh", "run", "--for=real.yaml").returncode == 0
    assert topologies.calls("apt-get")[-1].endswith("recommends busybox-static containernetworking-plugins")


def test_nothing_but_the_other_busybox_is_removed_for_a_runtime(topologies):
    plain = (topologies.bin / "apt-get").read_text().partition("\n")[2].partition("\n")[2]
    simulate = 'case " $* " in *" --simulate "*) echo "Remv busybox [1]"; echo "$REMOVED"; exit ;; esac\n'
    topologies.fake("apt-get", simulate + plain)
    refused = topologies.script("setup.sh", "run", "--for=real.yaml", REMOVED="Remv docker-ce [24]")
    assert refused.returncode == 3
    assert "apt-get would remove docker-ce" in refused.stderr
    assert topologies.script("setup.sh", "run", "--for=real.yaml").returncode == 0


def test_a_runtime_that_tests_cannot_have_stops_nothing_and_is_tried_once(debian):
    result = debian.script("setup.sh", "test", FAKE_APT_FAILS="yes", CI="")
    assert result.returncode == 0, result.stderr
    assert "tests with containerd are skipped" in result.stdout
    assert debian.script("setup.sh", "test", FAKE_APT_FAILS="yes", CI="").stdout == "setup: nothing to do\n"
