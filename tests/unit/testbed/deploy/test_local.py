"""What goes onto a node of a lab, and what a deployment refuses to overwrite."""

import json
import os
import sys
from pathlib import Path

import msgspec
import pytest

from plugin.agent.config import AgentConfig
from plugin.core.errors import InputError
from testbed.deploy import plan
from testbed.deploy.interpreter import plugin_interpreter
from testbed.deploy.plan import DeployFile, DeployPlan, parents, plan_deploy
from testbed.deploy.transport import is_ours
from testbed.topology.model import Network, NodeSpec, Topology
from testbed.topology.underlay import plan_underlay

TOPOLOGY = Topology(
    name="two", network=Network(range="10.64.0.0/16", vni=7), nodes={"node1": NodeSpec(), "node2": NodeSpec()}
)


def plans() -> list[DeployPlan]:
    return plan_deploy(TOPOLOGY, plan_underlay(TOPOLOGY), "labname", interpreter=Path("/usr/bin/python3"))


def test_every_node_gets_the_plugin_the_conflist_and_its_own_agent_configuration() -> None:
    one, two = plans()
    paths = [
        "/opt/cni/bin/weave-net", "/etc/cni/net.d/10-weave.conflist", "/etc/weave/agent.json", "/opt/weave/bin/weave",
    ]  # fmt: skip
    assert [file.path for file in one.files] == [file.path for file in two.files] == paths
    assert [file.mode for file in one.files] == [0o755, 0o644, 0o600, 0o755]
    assert one.files[:2] == two.files[:2]


def test_the_agent_understands_its_configuration() -> None:
    config = msgspec.json.decode(plans()[1].files[2].content, type=AgentConfig)
    assert (config.name, config.node_address) == ("node2", ""), "its address is the uplink's, whatever that is"
    assert (config.range, config.vni, config.cluster) == ("10.64.0.0/16", 7, "labname")
    assert config.peers == ("192.168.56.11",), "one address is all that it is told of the others"
    assert config.initial_peers == 2
    assert config.uplink == "eth0"
    assert config.password == ""
    given = plan_deploy(TOPOLOGY, plan_underlay(TOPOLOGY), "lab", interpreter=Path("/x"), password='a"b')
    assert [msgspec.json.decode(plan.files[2].content, type=AgentConfig).password for plan in given] == ['a"b'] * 2


def test_the_conflist_names_the_plugin() -> None:
    conflist = json.loads(plans()[0].files[1].content)
    assert [entry["type"] for entry in conflist["plugins"]] == ["weave-net"]
    assert conflist["plugins"][0]["capabilities"].items() >= {"portMappings": True, "bandwidth": True}.items()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{{ name", r"agent\.json\.j2:1: unexpected end of template"),
        ("{{ nope }}", r"agent\.json\.j2: 'nope' is undefined"),
        (None, r"wanted the template .*agent\.json\.j2, found no such file"),
    ],
)
def test_a_template_that_was_broken_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, message: str
) -> None:
    (tmp_path / "10-weave.conflist.j2").write_text("{}")
    if content is not None:
        (tmp_path / "agent.json.j2").write_text(content)
    monkeypatch.setattr(plan, "TEMPLATES", tmp_path)
    plan._environment_of_templates.cache_clear()
    try:
        with pytest.raises(InputError, match=message):
            plans()
    finally:
        plan._environment_of_templates.cache_clear()


def test_the_plugin_names_its_interpreter_absolutely() -> None:
    assert plans()[0].files[0].content.startswith(b"#!/usr/bin/python3 -ISE\n")


def test_the_agent_runs_with_our_interpreter_and_nothing_of_the_callers_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "surprise")
    agent = plans()[0].agent
    assert agent.argv[0] == sys.executable
    assert agent.argv[-2:] == ("--config", "/etc/weave/agent.json")
    assert "PYTHONSTARTUP" not in agent.environment


def test_the_folders_of_all_files_and_of_the_log_are_made() -> None:
    plan = plans()[0]
    assert parents(plan.files, plan.agent) == [
        "/etc/cni/net.d",
        "/etc/weave",
        "/opt/cni/bin",
        "/opt/weave/bin",
        "/var/log/weave",
    ]


@pytest.mark.parametrize("file", plans()[0].files, ids=lambda file: Path(file.path).name)
def test_files_of_an_earlier_deployment_are_ours_and_others_are_not(file: DeployFile) -> None:
    assert is_ours(file.content, file)
    assert is_ours(file.content + b"\n", file)
    assert not is_ours(b"#!/bin/sh\necho calico\n", file)
    assert not is_ours(b"", file)


def python_at(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    link = folder / "python3"
    link.symlink_to(name)
    return link


def test_the_distributions_python_runs_the_plugin(tmp_path: Path) -> None:
    system = python_at(tmp_path, "python3.11", b"\x7fELF...")
    assert plugin_interpreter(system) == system


@pytest.mark.parametrize(
    ("name", "content"),
    [("python3.9", b"\x7fELF"), ("python3.12", b"#!/bin/sh\nexec pyenv"), ("python", b"\x7fELF")],
    ids=["too old", "a shim", "of unknown age"],
)
def test_another_python_does_not_and_then_it_is_the_program_behind_ours(
    tmp_path: Path, name: str, content: bytes
) -> None:
    chosen = plugin_interpreter(python_at(tmp_path, name, content))
    assert chosen == Path(os.path.realpath(sys.executable))
    assert chosen.read_bytes()[:4] == b"\x7fELF"


def test_without_any_system_python_it_is_ours(tmp_path: Path) -> None:
    assert plugin_interpreter(tmp_path / "none") == Path(os.path.realpath(sys.executable))
