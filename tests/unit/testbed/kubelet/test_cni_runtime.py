"""The lab's kubelet executes real programs; only the entering of a node's namespaces is left out here."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TypeVar

import pytest

from plugin.executables import plugin_executable
from testbed.kubelet import cni_runtime, execution, result_cache
from testbed.kubelet.cni_runtime import CniRuntime
from testbed.kubelet.sandbox import Sandbox, container_id
from testbed.lab.cni_call import CniCallError
from testbed.machine.space import Completed, Space
from testbed.topology.cni_conf import NetworkListError, parse_network_list

T = TypeVar("T")
SANDBOX = Sandbox(pod="red", container_id=container_id("lab", "one", "red", "1"), netns="/run/netns/red")

# A plugin that answers as its configuration says, and notes each call in the file `calls`.
FAKE_PLUGIN = """#!{python} -ISE
import json, os, sys
config = json.load(sys.stdin)
verb = os.environ["CNI_COMMAND"]
with open({calls!r}, "a") as calls:
    print(verb, config["type"] + config.get("tag", ""), file=calls)
answer = config.get("answers", {{}}).get(verb, [0, ""])
if answer == "pass":
    answer = [0, json.dumps(config.get("prevResult"))]
print(answer[1], end="")
sys.exit(answer[0])
"""
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "weave", "mac": "0a:00:00:00:00:01"},
        {"name": "vethwepl1234567", "mac": "0a:00:00:00:00:02"},
        {"name": "eth0", "mac": "0a:00:00:00:00:03", "sandbox": "/run/netns/red"},
    ],
    "ips": [{"address": "10.32.0.2/12", "gateway": "10.32.0.1", "interface": 2}],
}
FIRST = {"type": "fake", "answers": {"ADD": [0, json.dumps(RESULT)]}}
SECOND = {"type": "fake", "tag": "2", "answers": {"ADD": "pass"}}


def local_run(
    _node: Space, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Completed:
    started = time.monotonic()
    try:
        done = subprocess.run(argv, input=stdin, env=env, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Completed(tuple(argv), -9, "", "", time.monotonic() - started, timed_out=True)
    out, err = done.stdout.decode(), done.stderr.decode()
    return Completed(tuple(argv), done.returncode, out, err, time.monotonic() - started, timed_out=False)


def local_call(_node: Space, function: Callable[[], T]) -> T:
    return function()


@dataclass
class Node:
    """A node's folders without its namespaces."""

    root: Path
    runtime: CniRuntime

    def configure(self, *plugins: object, name: str = "10-weave.conflist", **keys: object) -> None:
        text = json.dumps({"cniVersion": "1.0.0", "name": "weave", "plugins": plugins, **keys})
        (self.root / "net.d" / name).write_text(text)

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def cached(self) -> list[Path]:
        return sorted((self.root / "results").glob("*"))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(execution, "run", local_run)
    for module in (cni_runtime, execution, result_cache):
        monkeypatch.setattr(module, "call", local_call)
    (tmp_path / "net.d").mkdir()
    (tmp_path / "bin").mkdir()
    python = os.path.realpath(sys.executable)
    install(tmp_path / "bin" / "fake", FAKE_PLUGIN.format(python=python, calls=str(tmp_path / "calls")).encode())
    install(tmp_path / "bin" / "weave-net", plugin_executable(python))
    made = CniRuntime(
        Space("one", tmp_path),
        conf_dir=tmp_path / "net.d",
        bin_dirs=("/nowhere", str(tmp_path / "bin")),
        cache_dir=tmp_path / "results",
        netns_dir=tmp_path / "netns",
        timeout_s=20,
    )
    return Node(tmp_path, made)


def install(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    path.chmod(0o755)


# ---- which configuration


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["20-b.conflist", "10-a.conflist"], "10-a.conflist"),
        (["10-a.conflist", "05-z.conf"], "05-z.conf"),
        (["20-b.json", "10-a.json"], "10-a.json"),
        (["00-notes.txt", "10-a.conflist.bak", "30-c.conflist"], "30-c.conflist"),
    ],
)
def test_the_first_configuration_by_name_is_used(node: Node, names: list[str], chosen: str) -> None:
    for name in names:
        (node.root / "net.d" / name).write_text(
            json.dumps({"cniVersion": "1.0.0", "name": name, "type": "fake", "plugins": [FIRST]})
        )
    assert node.runtime.network().name == chosen


def test_without_a_configuration_the_network_is_uninitialized(node: Node) -> None:
    with pytest.raises(CniCallError, match=r"cni config uninitialized: no network config found in .* of node one"):
        node.runtime.add(SANDBOX)


BAD_CONFIGURATIONS = [
    ("{", "is not valid JSON"),
    ("[]", "must hold a JSON object"),
    ('{"plugins": [{"type": "x"}]}', 'has no "name"'),
    ('{"name": "weave"}', "has no networks"),
    ('{"name": "weave", "plugins": []}', "has no networks"),
    ('{"name": "weave", "plugins": [{}]}', 'has no "type"'),
    ('{"name": "weave", "plugins": [{"type": "x"}], "cniVersion": "9.0.0"}', 'wants cniVersion "9.0.0"'),
    ('{"name": "weave", "plugins": [{"type": "x"}], "cniVersion": [1]}', "wants cniVersion [1]"),
]


@pytest.mark.parametrize(("source", "complaint"), BAD_CONFIGURATIONS)
def test_an_invalid_configuration_is_an_error_that_names_the_file(source: str, complaint: str) -> None:
    with pytest.raises(NetworkListError) as told:
        parse_network_list(Path("/etc/cni/net.d/10-weave.conflist"), source)
    assert complaint in told.value.message
    assert "/etc/cni/net.d/10-weave.conflist" in told.value.message


def test_the_highest_version_that_a_list_offers_is_used() -> None:
    source = '{"name": "weave", "cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "7.0.0"], "plugins": [{"type": "x"}]}'
    assert parse_network_list(Path("a.conflist"), source).cni_version == "1.1.0"


# ---- ADD


def test_an_add_executes_the_chain_in_order_and_hands_on_the_result(node: Node) -> None:
    node.configure(FIRST, SECOND)
    added = node.runtime.add(SANDBOX)
    assert node.calls == ["ADD fake", "ADD fake2"]
    assert "prevResult" not in added.calls[0].stdin
    assert added.calls[1].stdin["prevResult"] == RESULT == added.result
    assert {call.stdin["name"] for call in added.calls} == {"weave"}
    assert {call.stdin["cniVersion"] for call in added.calls} == {"1.0.0"}
    assert added.address == IPv4Interface("10.32.0.2/12")
    assert (added.mac, added.host_ifname) == ("0a:00:00:00:00:03", "vethwepl1234567")


def test_a_plugin_gets_the_environment_of_a_runtime(node: Node) -> None:
    node.configure(FIRST)
    (call,) = node.runtime.add(SANDBOX).calls
    args = call.environment["CNI_ARGS"].split(";")
    assert args[:3] == ["IgnoreUnknown=1", "K8S_POD_NAMESPACE=default", "K8S_POD_NAME=red"]
    assert [arg.partition("=")[0] for arg in args[3:]] == ["K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"]
    assert {name: value for name, value in call.environment.items() if name != "CNI_ARGS"} == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": SANDBOX.container_id,
        "CNI_NETNS": "/run/netns/red",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": f"/nowhere:{node.root}/bin",
    }


def test_capabilities_reach_only_plugins_that_declare_them(node: Node) -> None:
    node.configure(FIRST, SECOND | {"capabilities": {"portMappings": True, "dns": False}})
    wanted = {"portMappings": [{"hostPort": 80}], "dns": {}, "mac": "x"}
    calls = node.runtime.add(SANDBOX, capabilities=wanted).calls
    assert "runtimeConfig" not in calls[0].stdin
    assert calls[1].stdin["runtimeConfig"] == {"portMappings": [{"hostPort": 80}]}


def test_the_result_is_cached_as_libcni_caches_it(node: Node) -> None:
    node.configure(FIRST)
    node.runtime.add(SANDBOX, capabilities={"mac": "x"})
    (path,) = node.cached
    assert path.name == f"weave-{SANDBOX.container_id}-eth0"
    entry = json.loads(path.read_text())
    assert json.loads(base64.b64decode(entry.pop("config")))["name"] == "weave"
    assert entry == {
        "kind": "cniCacheV1",
        "containerId": SANDBOX.container_id,
        "ifName": "eth0",
        "networkName": "weave",
        "netns": "/run/netns/red",
        "cniArgs": [list(pair) for pair in SANDBOX.cni_args],
        "capabilityArgs": {"mac": "x"},
        "result": RESULT,
    }


def test_a_failed_add_is_undone_in_reverse_and_leaves_no_result(node: Node) -> None:
    error = json.dumps({"cniVersion": "1.0.0", "code": 11, "msg": "no agent", "details": "start it"})
    node.configure(FIRST, SECOND | {"answers": {"ADD": [1, error], "DEL": [1, "{}"]}}, {"type": "fake", "tag": "3"})
    with pytest.raises(CniCallError) as told:
        node.runtime.add(SANDBOX)
    assert told.value.message == "ADD of pod red failed: plugin fake says: no agent (code 11)"
    assert (told.value.hint, told.value.code) == ("start it", 11)
    assert node.calls == ["ADD fake", "ADD fake2", "DEL fake3", "DEL fake2", "DEL fake"]
    assert [call.command for call in told.value.calls] == ["ADD", "ADD", "DEL", "DEL", "DEL"]
    assert node.cached == []


FAILURES = [
    ({"type": "absent"}, 'failed to find plugin "absent" in path'),
    ({"type": "../bin/fake"}, "may not be a path"),
    ({"type": "fake", "answers": {"ADD": [0, "hello"]}}, "printed no JSON result"),
    ({"type": "fake", "answers": {"ADD": [0, "[]"]}}, "is not a JSON object"),
    ({"type": "fake", "answers": {"ADD": [3, "boom"]}}, "ended with exit code 3 and said boom"),
    ({"type": "fake", "answers": 7}, "ended with exit code 1 and said Traceback"),
]


@pytest.mark.parametrize(("plugin", "message"), FAILURES)
def test_a_plugin_that_fails_in_another_way_is_a_sentence_too(
    node: Node, plugin: dict[str, object], message: str
) -> None:
    node.configure(plugin)
    with pytest.raises(CniCallError) as told:
        node.runtime.add(SANDBOX)
    assert message in told.value.message


def test_a_missing_interpreter_is_a_sentence(node: Node) -> None:
    install(node.root / "bin" / "fake", b"#!/nowhere/python\n")
    node.configure(FIRST)
    with pytest.raises(CniCallError, match='cannot execute plugin "fake"') as told:
        node.runtime.add(SANDBOX)
    assert "first line" in told.value.hint


def test_a_plugin_that_hangs_is_killed_and_named(node: Node) -> None:
    install(node.root / "bin" / "slow", b"#!/bin/sh\nexec sleep 20\n")
    node.configure({"type": "slow"})
    hasty = CniRuntime(
        node.runtime.node, conf_dir=node.root / "net.d", bin_dirs=[str(node.root / "bin")], timeout_s=0.3
    )
    with pytest.raises(CniCallError, match="plugin slow did not end within"):
        hasty.add(SANDBOX)


def test_the_real_plugin_without_an_agent_is_a_sentence_with_its_code(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_PATH", "/usr/bin:/bin")
    node.configure({"type": "weave-net"})
    with pytest.raises(CniCallError) as told:
        node.runtime.add(SANDBOX)  # /run/netns/red does not exist here
    assert told.value.code == 8
    assert "plugin weave-net says: failed to open netns" in told.value.message
    assert "/run/netns/red" in told.value.hint


# ---- CHECK and DEL


def test_check_and_del_get_the_last_result_and_del_goes_backwards(node: Node) -> None:
    node.configure(FIRST, SECOND)
    node.runtime.add(SANDBOX)
    checked = node.runtime.check(SANDBOX)
    deleted = node.runtime.delete(SANDBOX)
    assert node.calls[2:] == ["CHECK fake", "CHECK fake2", "DEL fake2", "DEL fake"]
    assert all(call.stdin["prevResult"] == RESULT for call in (*checked, *deleted))
    assert node.cached == []


def test_a_del_may_be_repeated_and_then_has_no_previous_result(node: Node) -> None:
    node.configure(FIRST)
    node.runtime.add(SANDBOX)
    node.runtime.delete(SANDBOX)
    (call,) = node.runtime.delete(SANDBOX)
    assert "prevResult" not in call.stdin


def test_a_failed_del_keeps_the_result_for_the_next_attempt(node: Node) -> None:
    node.configure(FIRST)
    node.runtime.add(SANDBOX)
    node.configure(FIRST | {"answers": {"DEL": [1, '{"code": 5, "msg": "disk full"}']}})
    with pytest.raises(CniCallError, match=r"DEL of pod red failed: plugin fake says: disk full \(code 5\)"):
        node.runtime.delete(SANDBOX)
    assert len(node.cached) == 1


def test_check_without_add_is_an_error(node: Node) -> None:
    node.configure(FIRST)
    with pytest.raises(CniCallError, match="needs the result of its ADD"):
        node.runtime.check(SANDBOX)


@pytest.mark.parametrize("word", [True, "true"])
def test_a_list_may_disable_check(node: Node, word: object) -> None:
    node.configure(FIRST, disableCheck=word)
    assert node.runtime.check(SANDBOX) == ()


def test_versions_before_0_4_0_get_no_previous_result_in_del(node: Node) -> None:
    node.configure(FIRST, cniVersion="0.3.1")
    node.runtime.add(SANDBOX)
    (call,) = node.runtime.delete(SANDBOX)
    assert "prevResult" not in call.stdin


# ---- names


def test_a_container_id_is_64_hex_digits_and_the_same_every_time() -> None:
    one = container_id("lab", "one", "red", "1")
    assert one == container_id("lab", "one", "red", "1")
    assert one != container_id("lab", "one", "red", "2")
    assert len(one) == 64
    assert int(one, 16)
