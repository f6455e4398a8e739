"""What a real node gets: its files, its configuration, its Python, its unit; and who starts the agent."""

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugin.agent.config import AgentConfig
from plugin.core.errors import InputError, MissingError
from testbed.deploy import service
from testbed.deploy.interpreter import choose_interpreter
from testbed.deploy.machine import LocalMachine, Said
from testbed.deploy.node import (
    AGENT_PATH,
    PARTS,
    UNIT_PATH,
    NodeFile,
    Settings,
    comes_first,
    configuration,
    plan_node,
)
from testbed.deploy.plan import CHAIN_PATH, CONFIG_PATH, PLUGIN_PATH
from testbed.deploy.procedure import Wanted, deploy_to, remove_from
from testbed.deploy.transport import DeployError
from tests.support.tree import LiveMachine, tree

HERE = Settings(name="node1", address="192.168.1.10")
OURS = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of files a test; that they are synced is asserted where they are written."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


def plan(*parts: str) -> list[NodeFile]:
    return plan_node(parts or PARTS, interpreter=Path("/usr/bin/python3"), config=b"{}", version="0.1.0")


def by_path(files: list[NodeFile]) -> dict[str, NodeFile]:
    return {file.path: file for file in files}


# ---- the files


def test_the_conflist_comes_last_and_the_agents_program_after_its_code() -> None:
    paths = [file.path for file in plan()]
    assert paths[-1] == CHAIN_PATH
    assert paths[-2] == PLUGIN_PATH
    assert all(path.startswith("/opt/weave/lib/") for path in paths[: paths.index(AGENT_PATH)])
    assert [path for path in paths if not path.startswith("/opt/weave/lib/")] == [
        AGENT_PATH, "/usr/local/bin/weave", CONFIG_PATH, UNIT_PATH, PLUGIN_PATH, CHAIN_PATH,
    ]  # fmt: skip


def test_a_part_is_installed_by_itself() -> None:
    assert [file.path for file in plan("plugin")] == [PLUGIN_PATH, CHAIN_PATH]
    assert [file.path for file in plan("config", "unit")] == [CONFIG_PATH, UNIT_PATH]


def test_only_root_may_read_the_configuration_which_may_hold_the_password() -> None:
    assert by_path(plan())[CONFIG_PATH].file.mode == 0o600


def test_other_code_goes_to_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(version: str) -> set[str]:
        return {Path(file.path).parts[4] for file in plan_node(
            ["agent"], interpreter=Path("/usr/bin/python3"), config=None, version=version
        ) if file.path.startswith("/opt/weave/lib/")}  # fmt: skip

    assert len(folder("1")) == 1
    assert folder("1") == folder("1")
    read = Path.read_bytes
    first = folder("1")
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: read(self) + (b"# changed" if self.name == "driver.py" else b"")
    )
    assert folder("1") != first


def test_the_copied_agent_runs_with_nothing_of_this_checkout(tmp_path: Path) -> None:
    """Also: every module of it can be imported, so no package is missing in the copy."""
    for file in plan("agent"):
        place = tmp_path / file.path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.file.content)
    launcher = tmp_path / AGENT_PATH.lstrip("/")
    launcher.write_text(launcher.read_text().replace("/opt/weave/lib", f"{tmp_path}/opt/weave/lib"))
    interpreter = os.path.realpath(sys.executable)
    (library,) = (tmp_path / "opt/weave/lib").iterdir()
    modules = [
        ".".join(path.relative_to(library).with_suffix("").parts)
        for path in (library / "plugin").rglob("*.py")
        if path.name not in {"__init__.py", "__main__.py"} and path.parent.name not in {"cni", "tool"}
    ]
    assert "plugin.agent.app" in modules
    code = f"import sys; sys.path.insert(0, {str(library)!r}); import {', '.join(modules)}; print(plugin.__file__)"
    done = subprocess.run(
        [interpreter, "-ISE", "-c", code], capture_output=True, text=True, check=False, cwd="/", timeout=60, env={}
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"{library}/plugin/__init__.py"), done.stderr
    done = subprocess.run(
        [interpreter, "-ISE", str(launcher), "--config", "/nonexistent"],
        capture_output=True, text=True, check=False, cwd="/", timeout=60, env={},
    )  # fmt: skip
    assert done.returncode == 2
    assert "the configuration /nonexistent cannot be read" in done.stdout + done.stderr


def test_python_takes_the_compiled_modules_as_they_are(tmp_path: Path) -> None:
    files = {file.path: file for file in plan("agent")}
    source = next(path for path in files if path.endswith("plugin/core/errors.py"))
    folder = Path(source).parent
    compiled = next(path for path in files if Path(path).parent == folder / "__pycache__" and "errors" in path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "errors.py").write_bytes(files[source].file.content)
    pyc = tmp_path / "__pycache__" / Path(compiled).name
    pyc.write_bytes(files[compiled].file.content)
    done = subprocess.run(
        [sys.executable, "-v", "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import errors"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"code object from '{pyc}'" in done.stderr


# ---- the configuration


def test_the_agent_understands_the_configuration() -> None:
    settings = Settings(
        name="node2", address="192.168.1.11", uplink="eth0", pod_range="10.64.0.0/16", peers=("192.168.1.10",),
        cluster="prod", password="secret",
    )  # fmt: skip
    config = msgspec.json.decode(json.dumps(configuration(settings, {})), type=AgentConfig)
    assert (config.name, config.node_address, config.uplink) == ("node2", "192.168.1.11", "eth0")
    assert (config.range, config.peers, config.cluster) == ("10.64.0.0/16", ("192.168.1.10",), "prod")
    assert (config.password, config.founders) == ("secret", 0)


@pytest.mark.parametrize(
    ("peers", "founders"),
    [
        (None, 1),
        (("192.168.1.10",), 1),
        (("192.168.1.10", "192.168.1.20", "192.168.1.30"), 3),
        (("192.168.1.20",), 0),
        (("192.168.1.20", "192.168.1.30"), 0),
    ],
    ids=["alone", "the only one named", "one of three named", "joins one", "joins two"],
)
def test_who_is_named_makes_the_first_agreement_and_the_rest_only_join(
    peers: tuple[str, ...] | None, founders: int
) -> None:
    settings = Settings(name="node1", address="192.168.1.10", peers=peers)
    config = msgspec.json.decode(json.dumps(configuration(settings, {})), type=AgentConfig)
    assert config.founders == founders
    assert "192.168.1.10" not in config.peers


def test_what_is_not_said_stays_as_it_is() -> None:
    existing = {"name": "old", "node_address": "192.168.1.9", "log_level": "debug", "peers": ["192.168.1.8"]}
    config = configuration(Settings(pod_range="10.64.0.0/16"), existing)
    assert config == existing | {"range": "10.64.0.0/16"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "--node-name: wanted 1 to 63"),
        ({"name": ""}, "--node-name: wanted 1 to 63"),
        ({"address": "node1"}, "--address: wanted the IPv4 address"),
        ({"address": "fe80::1"}, "--address: wanted the IPv4 address"),
        ({"peers": ("seed.example",)}, "--peer: wanted the IPv4 address"),
        ({"pod_range": "10.0.0.1/8"}, "--range: the pod range must be"),
        ({"pod_range": "10.32.0.0/30"}, "--range: the pod range must be between"),
        ({"cluster": ""}, "--cluster: wanted 1 to 63"),
        ({"initial_peers": -1}, "--initial-peers: wanted 0 to 4096"),
    ],
)
def test_wrong_values_name_their_option(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**{"name": "node1", "address": "192.168.1.10"} | change).check()


@pytest.mark.parametrize(
    ("settings", "existing", "message"),
    [
        (Settings(), {}, "wanted --node-name"),
        (Settings(name="a"), {}, "wanted --address"),
        (Settings(name="a", address="10.32.0.1"), {}, "contains the node address 10.32.0.1"),
        (Settings(name="a", address="10.1.0.1", peers=("10.32.0.9",)), {}, "contains the node address 10.32.0.9"),
        (Settings(name="a", address="10.1.0.1"), {"peers": ["x"]}, "--peer: wanted"),
        (Settings(name="a", address="10.1.0.1"), {"range": "x"}, "--range: the pod range"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: Settings, existing: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configuration(settings, existing)


def test_a_password_is_not_shown_where_settings_are() -> None:
    assert "secret" not in repr(Settings(password="secret"))


def test_networks_that_a_runtime_prefers() -> None:
    assert comes_first(["00-a.conf", "05-b.conflist", "09-c.txt", "10-weave.conflist", "87-podman.conflist"]) == [
        "00-a.conf", "05-b.conflist",
    ]  # fmt: skip


# ---- the Python


def python_at(root: Path, name: str, content: bytes | None = None) -> None:
    folder = root / "usr/bin"
    folder.mkdir(parents=True, exist_ok=True)
    head = Path(os.path.realpath(sys.executable)).read_bytes()[:64]
    (folder / name).write_bytes(head if content is None else content)
    (folder / "python3").symlink_to(f"/usr/bin/{name}")


def test_below_a_root_the_python_there_is_taken(tmp_path: Path) -> None:
    python_at(tmp_path, OURS)
    facts = choose_interpreter(LocalMachine(tmp_path), None, same_as_ours=True)
    assert (str(facts.interpreter), facts.checked) == ("/usr/bin/python3", True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("python3.9", None, r"/usr/bin/python3 is 3\.9"),
        ("python3.14", None, r"/usr/bin/python3 is 3\.14"),
        ("python", None, r"/usr/bin/python3 is of unknown version"),
        (OURS, b"#!/bin/sh\nexec pyenv", "is a script"),
    ],
)
def test_a_python_that_will_not_do_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    python_at(tmp_path, name, content)
    with pytest.raises(MissingError, match=message) as caught:
        choose_interpreter(LocalMachine(tmp_path), None, same_as_ours=False)
    assert "apt-get install python3" in caught.value.hint
    with pytest.raises(InputError, match=f"--interpreter: wanted .*{message}"):
        choose_interpreter(LocalMachine(tmp_path), Path("/usr/bin/python3"), same_as_ours=False)


def test_the_agent_needs_a_python_of_our_version_and_the_plugin_does_not(tmp_path: Path) -> None:
    other = "python3.12" if OURS != "python3.12" else "python3.13"
    python_at(tmp_path, other)
    assert choose_interpreter(LocalMachine(tmp_path), None, same_as_ours=False).checked
    with pytest.raises(MissingError, match="for which msgspec was installed here"):
        choose_interpreter(LocalMachine(tmp_path), None, same_as_ours=True)


def test_another_processors_python_will_not_do_for_the_agent(tmp_path: Path) -> None:
    head = bytearray(Path(os.path.realpath(sys.executable)).read_bytes()[:64])
    head[18] ^= 0xFF
    python_at(tmp_path, OURS, bytes(head))
    with pytest.raises(MissingError, match="is for another processor"):
        choose_interpreter(LocalMachine(tmp_path), None, same_as_ours=True)


def test_a_python_that_is_to_come_is_believed_only_where_no_program_is_yet(tmp_path: Path) -> None:
    facts = choose_interpreter(LocalMachine(tmp_path), Path("/usr/bin/python3"), same_as_ours=True)
    assert not facts.checked
    (tmp_path / "usr/bin").mkdir(parents=True)
    with pytest.raises(InputError, match="/usr/bin/python3 does not exist"):
        choose_interpreter(LocalMachine(tmp_path), Path("/usr/bin/python3"), same_as_ours=True)


@pytest.mark.parametrize("path", ["python3", "/opt/my python/python3"])
def test_a_python_must_be_able_to_stand_in_a_first_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "opt/my python").mkdir(parents=True)
    with pytest.raises(InputError, match="is no absolute path without blanks"):
        choose_interpreter(LocalMachine(), Path(path), same_as_ours=False)


def test_this_machines_python_tells_name_and_address(tmp_path: Path) -> None:
    real = Path(os.path.realpath(sys.executable))
    facts = choose_interpreter(LocalMachine(), real, same_as_ours=True, towards="127.0.0.1")
    assert (facts.interpreter, facts.name, facts.address) == (real, os.uname().nodename, "127.0.0.1")
    assert facts.root is (os.geteuid() == 0)
    facts = choose_interpreter(LocalMachine(), real, same_as_ours=True, uplink="lo")
    assert facts.address == "127.0.0.1"
    facts = choose_interpreter(LocalMachine(), real, same_as_ours=True, uplink="nope0")
    assert (facts.address, facts.problem) == ("", "No such device")


# ---- the unit


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(by_path(plan("unit"))[UNIT_PATH].file.content.decode())
    return parsed


def test_the_unit_starts_what_is_installed() -> None:
    program, option, config = unit()["Service"]["ExecStart"].split()
    assert {program, config} <= {file.path for file in plan()}
    assert option == "--config"


def test_the_unit_brings_a_crashed_agent_back_for_ever_and_a_departed_one_not() -> None:
    assert unit()["Service"]["Restart"] == "on-failure"
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_units_folders_are_those_of_the_agent() -> None:
    config = AgentConfig(name="a", node_address="192.168.1.1")
    service_ = unit()["Service"]
    assert f"/var/lib/{service_['StateDirectory']}" == config.state_directory
    assert f"/run/{service_['RuntimeDirectory']}" == str(Path(config.api_socket).parent)


def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    if not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("no systemd-analyze on this machine; the unit is parsed by the tests above")
    (tmp_path / "usr/bin").mkdir(parents=True)
    for file in plan():
        if not file.path.startswith("/opt/weave/lib"):
            place = tmp_path / file.path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.file.content)
            place.chmod(file.file.mode)
    (tmp_path / "etc/systemd/system/multi-user.target").write_text("[Unit]\nDescription=all\n")
    for target in (
        "sysinit.target",
        "basic.target",
        "shutdown.target",
        "network-online.target",
        "-.mount",
        "tmp.mount",
    ):
        (tmp_path / "etc/systemd/system" / target).write_text("[Unit]\nDescription=part of every machine\n" + (
            "[Mount]\nWhat=none\nWhere=" + ("/tmp" if target == "tmp.mount" else "/") + "\n" if "mount" in target else ""
        ))  # fmt: skip
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={tmp_path}", "weave.service"],
        capture_output=True, text=True, check=False, timeout=60, env={"PATH": os.environ["PATH"], "SYSTEMD_LOG_LEVEL": "warning"},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---- who starts it


def live(tmp_path: Path, *, systemd: bool = True, says: dict[str, Said] | None = None) -> LiveMachine:
    interpreter = os.path.realpath(sys.executable)
    facts = {
        "version": list(sys.version_info[:2]), "implementation": "cpython", "processor": os.uname().machine,
        "name": "vm", "address": "192.168.1.10", "root": True,
    }  # fmt: skip
    python_at(tmp_path, OURS)
    (tmp_path / "usr/bin/python3").unlink()
    (tmp_path / "usr/bin/python3").symlink_to(OURS)
    (tmp_path / "usr/sbin").mkdir()
    (tmp_path / "usr/sbin/nft").touch()
    (tmp_path / "var/lib").mkdir(parents=True)
    if systemd:
        (tmp_path / "run/systemd/system").mkdir(parents=True)
    return LiveMachine(tmp_path, (says or {}) | {
        "/usr/bin/python3 ": Said(0, json.dumps(facts)), f"{interpreter} ": Said(0, json.dumps(facts)),
        "systemctl is-active": Said(3, ""), "/usr/local/bin/weave report ready": Said(0, "true"),
        "/usr/local/bin/weave version": Said(1, "error: no agent answers"),
    })  # fmt: skip


def only_systemctl(machine: LiveMachine) -> list[str]:
    return [line for line in machine.ran if line.startswith("systemctl") and "is-active" not in line]


def test_with_systemd_the_agent_is_started_now_and_at_every_boot(tmp_path: Path) -> None:
    machine, lines = live(tmp_path), list[str]()
    assert deploy_to(machine, Wanted(Settings()), lines.append) == "192.168.1.10"
    assert only_systemctl(machine) == [
        "systemctl daemon-reload", "systemctl enable --quiet weave.service", "systemctl start weave.service",
    ]  # fmt: skip
    assert lines[-1] == "the agent is ready"
    config = json.loads((tmp_path / "etc/weave/agent.json").read_text())
    assert config == {"name": "vm", "node_address": "192.168.1.10"}


def test_an_agent_that_runs_is_restarted_only_when_its_files_have_changed(tmp_path: Path) -> None:
    machine = live(tmp_path)
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    machine.says["systemctl is-active"] = Said(0, "")
    machine.ran.clear()
    lines: list[str] = []
    deploy_to(machine, Wanted(Settings()), lines.append)
    assert "systemctl restart weave.service" not in machine.ran
    assert lines[-1] == "the agent runs already"
    deploy_to(machine, Wanted(Settings(peers=("192.168.1.11",))), lambda _line: None)
    assert machine.ran.count("systemctl restart weave.service") == 1
    assert json.loads((tmp_path / "etc/weave/agent.json").read_text())["peers"] == ["192.168.1.11"]


def test_settings_that_a_person_has_edited_survive_an_upgrade_with_other_options(tmp_path: Path) -> None:
    machine = live(tmp_path)
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    config = tmp_path / "etc/weave/agent.json"
    config.write_text('{"name":"vm","node_address":"192.168.1.10","log_level":"debug"}')
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    assert config.read_text() == '{"name":"vm","node_address":"192.168.1.10","log_level":"debug"}', (
        "not even reformatted"
    )
    deploy_to(machine, Wanted(Settings(cluster="prod")), lambda _line: None)
    assert json.loads(config.read_text()) == {
        "name": "vm", "node_address": "192.168.1.10", "log_level": "debug", "cluster": "prod",
    }  # fmt: skip


def test_a_node_address_that_somebody_has_taken_out_stays_out(tmp_path: Path) -> None:
    machine = live(tmp_path)
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    config = tmp_path / "etc/weave/agent.json"
    config.write_text('{"name":"vm","uplink":"eth0"}')
    assert deploy_to(machine, Wanted(Settings(cluster="prod")), lambda _line: None) == "192.168.1.10"
    assert json.loads(config.read_text()) == {"name": "vm", "uplink": "eth0", "cluster": "prod"}
    deploy_to(machine, Wanted(Settings(address="192.168.1.10")), lambda _line: None)
    assert json.loads(config.read_text())["node_address"] == "192.168.1.10", "said now"


@pytest.mark.parametrize(("content", "message"), [("{", "wanted JSON in"), ("[]", "wanted a JSON object in")])
def test_a_configuration_that_was_broken_is_bad_input(tmp_path: Path, content: str, message: str) -> None:
    machine = live(tmp_path)
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    (tmp_path / "etc/weave/agent.json").write_text(content)
    with pytest.raises(InputError, match=message):
        deploy_to(machine, Wanted(Settings()), lambda _line: None)


def test_without_systemd_it_says_what_to_run(tmp_path: Path) -> None:
    lines: list[str] = []
    deploy_to(live(tmp_path, systemd=False), Wanted(Settings()), lines.append)
    assert "run as root: /opt/weave/bin/weave-agent --config /etc/weave/agent.json" in lines[-1]


def test_it_can_be_told_not_to_start(tmp_path: Path) -> None:
    machine, lines = live(tmp_path), list[str]()
    deploy_to(machine, Wanted(Settings(), start=False), lines.append)
    assert only_systemctl(machine) == []
    assert "not started" in lines[-1]


def test_an_agent_that_does_not_become_ready_is_a_failed_check_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = live(tmp_path)
    machine.says = {
        "/usr/local/bin/weave report ready": Said(0, "false"),
        "/usr/local/bin/weave report ipam": Said(0, '"awaiting consensus (quorum 2, known 1)"'),
    }  # fmt: skip
    with pytest.raises(DeployError, match=r"not ready after 0 s: .*awaiting consensus") as caught:
        service.wait_ready(machine, ready_s=0)
    assert "journalctl" in caught.value.hint


def test_systemds_refusal_is_told_with_its_words(tmp_path: Path) -> None:
    machine = live(tmp_path, says={"systemctl start": Said(1, "Unit weave.service is masked.")})
    with pytest.raises(DeployError, match=r"ended with exit code 1 and said: Unit weave\.service is masked"):
        deploy_to(machine, Wanted(Settings()), lambda _line: None)
    assert (tmp_path / "opt/cni/bin/weave-net").exists()


def test_removing_stops_the_agent_first_and_leaves_nothing_but_what_it_wrote(tmp_path: Path) -> None:
    machine = live(tmp_path)
    before = tree(tmp_path)
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    (tmp_path / "var/lib/weave/ring.json").write_text("{}")
    machine.ran.clear()
    lines: list[str] = []
    remove_from(machine, purge=False, dry_run=False, say=lines.append)
    assert only_systemctl(machine) == [
        "systemctl disable --quiet --now weave.service", "systemctl daemon-reload", "systemctl reset-failed weave.service",
    ]  # fmt: skip
    assert tree(tmp_path).keys() - before.keys() == {"var/lib/weave", "var/lib/weave/ring.json"}
    assert "--purge removes it" in lines[-1]
    remove_from(machine, purge=True, dry_run=False, say=lines.append)
    assert tree(tmp_path) == before


def test_a_running_agent_keeps_its_files(tmp_path: Path) -> None:
    machine = live(tmp_path, systemd=False)
    deploy_to(machine, Wanted(Settings()), lambda _line: None)
    machine.says["/usr/local/bin/weave version"] = Said(0, "weavelab 0.1.0")
    before = tree(tmp_path)
    with pytest.raises(DeployError, match="found that its agent runs"):
        remove_from(machine, purge=True, dry_run=False, say=lambda _line: None)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("missing", ["root", "nft", "address"])
def test_what_the_machine_lacks_is_said_before_anything_is_written(tmp_path: Path, missing: str) -> None:
    machine = live(tmp_path)
    facts = json.loads(machine.says["/usr/bin/python3 "].text)
    if missing == "nft":
        (tmp_path / "usr/sbin/nft").unlink()
    else:
        facts |= {"root": False} if missing == "root" else {"address": "", "problem": "Network is unreachable"}
        machine.says["/usr/bin/python3 "] = Said(0, json.dumps(facts))
    before = tree(tmp_path)
    message = {"root": "wanted root on", "nft": "wanted the program nft", "address": "Network is unreachable"}[missing]
    with pytest.raises((MissingError, InputError), match=message):
        deploy_to(machine, Wanted(Settings()), lambda _line: None)
    assert tree(tmp_path) == before


def test_a_network_that_comes_before_ours_is_mentioned(tmp_path: Path) -> None:
    machine, lines = live(tmp_path), list[str]()
    (tmp_path / "etc/cni/net.d").mkdir(parents=True)
    (tmp_path / "etc/cni/net.d/05-cilium.conflist").write_text("{}")
    deploy_to(machine, Wanted(Settings(), start=False), lines.append)
    assert any("05-cilium.conflist comes before ours" in line for line in lines)
