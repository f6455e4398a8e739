"""Addresses from another IPAM plugin: every verb is passed on, every failure is undone, nothing is held twice."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plugin.core.cni.types import VERSIONS
from testbed.machine.space import Space, run, spawn
from tests.support import dhcp_server
from tests.support.chain_runtime import DEBIAN_PLUGINS, Runtime, needs_plugins
from tests.support.cluster import end, unpin, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
real_host_local = needs_plugins("host-local")
SUBNET, FIRST, GATEWAY = "10.32.5.0/24", "10.32.5.2", "10.32.5.1"


def host_local(runtime: Runtime, **keys: Any) -> dict[str, Any]:
    """A configuration whose reservations are kept in the test's own folder."""
    return {"ipam": {"type": "host-local", "subnet": SUBNET, "dataDir": str(runtime.folder / "networks"), **keys}}


def reserved(runtime: Runtime, network: str = "weave") -> set[str]:
    """The addresses that host-local has given away."""
    folder = runtime.folder / "networks" / network
    return {path.name for path in folder.iterdir() if path.name[0].isdigit()} if folder.exists() else set()


# ---- a stand-in of which every call is seen

SCRIPT = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >>{log}
env >{log}.env
cat >{log}.stdin
{body}
"""
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.32.7.9/24", "gateway": "10.32.7.1"}]}


class Fake:
    """An IPAM plugin `fake` that notes its calls and answers ADD with `result`; `broken` are sh commands by verb."""

    def __init__(self, runtime: Runtime, result: object = RESULT, **broken: str) -> None:
        self.log = runtime.folder / "fake.log"
        answer = result if isinstance(result, str) else json.dumps(result)
        cases = [f"{verb}) {command};;" for verb, command in broken.items()]
        body = "\n".join(["case $CNI_COMMAND in", *cases, f"ADD) cat <<'END'\n{answer}\nEND\n;;", "esac"])
        runtime.install("fake", SCRIPT.format(log=self.log, body=body))

    @property
    def verbs(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in Path(f"{self.log}.env").read_text().splitlines() if "=" in line)

    @property
    def stdin(self) -> dict[str, Any]:
        return json.loads(Path(f"{self.log}.stdin").read_text())


FAKE: dict[str, Any] = {"ipam": {"type": "fake"}}


def failing(code: int, message: str = "no", details: str = "") -> str:
    error = {"cniVersion": "1.0.0", "code": code, "msg": message, "details": details}
    return f"echo '{json.dumps(error)}'; exit 1"


def test_pods_are_told_that_an_address_of_another_plugin_came_back_with_the_mac_of_its_next_pod(
    runtime: Runtime,
) -> None:
    address = "10.32.7.9"
    Fake(runtime, {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/12"}]})
    talker, _ = runtime.cluster.add(1, "talkerpod")
    red, first = runtime.add(FAKE, "redpod")
    wait_for(lambda: runtime.cluster.ping(talker, address) == 0, "the first answer")
    runtime.call("DEL", FAKE, red).succeeded()
    _, second = runtime.add(FAKE, "bluepod")
    before, now = (result["interfaces"][2]["mac"] for result in (first, second))
    assert before != now

    def believed() -> bool:
        return now in run(talker, ["ip", "neighbour", "show", address], timeout_s=10).stdout

    wait_for(believed, "the new pair", 5)
    assert runtime.cluster.ping(talker, address) == 0


def test_an_address_of_another_plugin_that_a_pod_of_another_node_has_is_refused_by_its_name(runtime: Runtime) -> None:
    runtime.cluster.start(2)
    wait_for(lambda: runtime.cluster.peer(1)["state"] == "established", "mesh")
    _, address = runtime.cluster.add(2, "bluepod")
    wait_for(lambda: runtime.cluster.knows(1, address), "node 1 knows the pod")
    Fake(runtime, {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/12"}]})
    error = runtime.call("ADD", FAKE, runtime.cluster.space("redpod")).error
    assert error["code"] == 101
    assert error["msg"] == f"the IPAM plugin fake gave {address}: it is taken by pod bluepodbluep of node2"


# ---- real plugins


@real_host_local
def test_an_address_of_host_local_is_the_pods_and_goes_back_with_it(runtime: Runtime) -> None:
    conf = host_local(runtime)
    pod, result = runtime.add(conf, "redpod")
    assert result["ips"] == [{"address": f"{FIRST}/24", "gateway": GATEWAY, "interface": 2}]
    assert runtime.inside(pod).addresses() == [f"{FIRST}/24"]
    assert runtime.inside(pod).routes()["0.0.0.0/0"] == GATEWAY
    assert reserved(runtime) == {FIRST}
    (attachment,) = runtime.cluster.report(1)["attachments"]
    assert (attachment["addresses"], attachment["ipam"]) == ([f"{FIRST}/24"], "host-local")
    runtime.call("CHECK", conf | {"prevResult": result}, pod).succeeded()
    for _ in range(2):
        runtime.call("DEL", conf, pod).succeeded()
        runtime.nothing_left()
        assert reserved(runtime) == set()


@real_host_local
def test_pods_of_other_subnets_and_nodes_reach_each_other_and_the_gateway(runtime: Runtime) -> None:
    runtime.cluster.start(2)
    other = Runtime(runtime.cluster, 2)
    wait_for(lambda: runtime.cluster.peer(1)["state"] == "established", "mesh")
    red, _ = runtime.add(host_local(runtime), "redpod")
    _, blue = other.add(host_local(other, subnet="10.32.6.0/24"), "bluepod")
    green, green_address = runtime.cluster.add(2, "greenpod")
    address = blue["ips"][0]["address"].partition("/")[0]
    assert address == "10.32.6.2"
    for pod, target in ((red, address), (red, green_address), (green, FIRST), (red, GATEWAY)):
        wait_for(lambda pod=pod, target=target: runtime.cluster.ping(pod, target) == 0, f"{pod.name} reaches {target}")


@needs_plugins("static")
def test_several_addresses_routes_and_dns_of_static_are_all_put_on(runtime: Runtime) -> None:
    conf = {
        "ipam": {
            "type": "static",
            "addresses": [{"address": "10.32.5.7/24", "gateway": "10.32.5.254"}, {"address": "10.32.9.7/16"}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.99.0/24", "gw": "10.32.5.3"}],
            "dns": {"nameservers": ["10.32.0.10"], "search": ["svc"]},
        }
    }
    pod, result = runtime.add(conf, "redpod")
    inside = runtime.inside(pod)
    assert inside.addresses() == ["10.32.5.7/24", "10.32.9.7/16"]
    assert {"0.0.0.0/0": "10.32.5.254", "192.168.99.0/24": "10.32.5.3"}.items() <= inside.routes().items()
    assert [one["address"] for one in result["ips"]] == ["10.32.5.7/24", "10.32.9.7/16"]
    assert result["dns"] == {"nameservers": ["10.32.0.10"], "search": ["svc"]}
    endpoints = {one["address"]: one["mac"] for one in json.loads(runtime.cluster.api(1, "/endpoints")[1])}
    assert endpoints["10.32.5.7"] == endpoints["10.32.9.7"] == result["interfaces"][2]["mac"]
    assert runtime.cluster.ping(runtime.node, "10.32.9.7") == 0
    runtime.call("CHECK", conf | {"prevResult": result}, pod).succeeded()
    blue = runtime.cluster.space("bluepod")
    error = runtime.call("ADD", {"runtimeConfig": {"ips": ["10.32.9.7"]}}, blue).error
    assert error["code"] == 101, "the second address is held like the first"
    runtime.call("DEL", conf, pod).succeeded()
    runtime.attach({"runtimeConfig": {"ips": ["10.32.9.7"]}}, blue)


@pytest.mark.parametrize("version", VERSIONS[:-1])  # those of the package speak up to 1.0.0
@real_host_local
def test_every_version_of_a_delegated_result_has_the_shape_of_that_version(runtime: Runtime, version: str) -> None:
    conf = host_local(runtime, routes=[{"dst": "0.0.0.0/0"}]) | {"cniVersion": version}
    pod, result = runtime.add(conf, "redpod")
    assert result["cniVersion"] == version
    if version in {"0.1.0", "0.2.0"}:
        routes = [{"dst": "0.0.0.0/0", "gw": GATEWAY}]
        assert result["ip4"] == {"ip": f"{FIRST}/24", "gateway": GATEWAY, "routes": routes}
        assert "interfaces" not in result
    else:
        (address,) = result["ips"]
        assert address.pop("version", None) == (None if version == "1.0.0" else "4")
        assert address == {"address": f"{FIRST}/24", "gateway": GATEWAY, "interface": 2}
    runtime.call("DEL", conf, pod).succeeded()
    assert reserved(runtime) == set()


@real_host_local
def test_two_interfaces_of_a_pod_are_two_reservations(runtime: Runtime) -> None:
    conf = host_local(runtime)
    pod, _ = runtime.add(conf, "redpod")
    second = runtime.attach(conf, pod, CNI_IFNAME="net1")
    assert second["ips"][0]["address"] == "10.32.5.3/24"
    runtime.call("CHECK", conf | {"prevResult": second}, pod, CNI_IFNAME="net1").succeeded()
    runtime.call("DEL", conf, pod).succeeded()
    assert reserved(runtime) == {"10.32.5.3"}
    assert runtime.inside(pod).addresses("net1") == ["10.32.5.3/24"]


# ---- what a plugin is told, and by whom it is executed


def test_a_plugin_gets_the_runtimes_environment_and_configuration(runtime: Runtime) -> None:
    fake = Fake(runtime)
    conf = FAKE | {"runtimeConfig": {"ips": ["10.32.7.9/24"]}, "args": {"cni": {"x": "y"}}}
    args = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=red", "TRACEPARENT": "00-1"}
    pod, result = runtime.add(conf, "redpod", **args)
    told = fake.environment
    assert {name: told[name] for name in ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS")} == {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "redpod" * 3, "CNI_IFNAME": "eth0", "CNI_NETNS": str(pod.net),
    }  # fmt: skip
    assert (told["CNI_PATH"], told["CNI_ARGS"], told["TRACEPARENT"]) == (runtime.path, *args.values())
    assert fake.stdin == {"cniVersion": "1.0.0", "name": "weave", "type": "weave-net", **conf}
    runtime.call("CHECK", conf | {"prevResult": result}, pod, **args).succeeded()
    assert fake.environment["CNI_COMMAND"] == "CHECK"
    assert fake.stdin["prevResult"] == result
    runtime.call("DEL", conf | {"prevResult": result}, pod, **args).succeeded()
    assert fake.environment["CNI_NETNS"] == str(pod.net)
    assert fake.verbs == ["ADD", "CHECK", "DEL"]
    runtime.nothing_left()


def test_the_interface_is_there_before_the_plugin_is_asked(runtime: Runtime) -> None:
    """As dhcp needs it, which sends from the pod's interface."""
    seen = runtime.folder / "seen"
    Fake(runtime, ADD=f"nsenter --net=$CNI_NETNS cat /sys/class/net/eth0/carrier >{seen}; echo '{json.dumps(RESULT)}'")
    _, result = runtime.add(FAKE, "redpod")
    assert seen.exists()
    assert result["ips"][0]["address"] == "10.32.7.9/24"


def test_a_mac_that_is_asked_for_is_the_interfaces_from_the_start(runtime: Runtime) -> None:
    Fake(runtime)
    conf = FAKE | {"runtimeConfig": {"mac": "02:aa:00:00:00:05"}}
    pod, result = runtime.add(conf, "redpod")
    assert result["interfaces"][2]["mac"] == runtime.inside(pod).links["eth0"].mac == "02:aa:00:00:00:05"
    assert runtime.cluster.ping(runtime.node, "10.32.7.9") == 0


def test_a_pod_without_delegation_asks_nobody(runtime: Runtime) -> None:
    fake = Fake(runtime)
    pod, _ = runtime.add({}, "redpod")
    runtime.call("DEL", {}, pod).succeeded()
    assert fake.verbs == []


# ---- failures of the plugin


@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [
        ({"ADD": failing(11, "in a moment", "the pool moves")}, 11, "in a moment"),
        ({"ADD": "echo oops >&2; exit 3"}, 104, "ended with exit code 3 and said oops"),
        ({"ADD": "kill -9 $$"}, 104, "was ended by signal 9"),
        ({"ADD": "true"}, 104, "cannot be read"),
        ({"ADD": "echo '[1]'"}, 104, "cannot be read"),
        ({"ADD": """echo '{"ips": [{"address": "red"}]}'"""}, 104, "cannot be read"),
        ({"ADD": """echo '{"ips": []}'"""}, 104, "gave no address"),
        ({"ADD": """echo '{"ips": [{"address": "fd00::2/64"}]}'"""}, 2, "IPv6"),
        ({"ADD": """echo '{"ips": [{"address": "10.32.7.9/24"}, {"address": "fd00::2/64"}]}'"""}, 2, "IPv6"),
        ({"ADD": """echo '{"ips": [{"address": "10.22.0.5/16"}]}'"""}, 101, "not in the pod range 10.32.0.0/12"),
        ({"ADD": """echo '{"ips": [{"address": "10.32.0.1/12"}]}'"""}, 101, "is held by"),
        (
            {"ADD": """echo '{"ips": [{"address": "10.32.7.9/24"}], "routes": [{"dst": "0.0.0.0/0", "table": 7}]}'"""},
            2,
            "table",
        ),
    ],
    ids=[
        "its own error", "no JSON", "killed", "nothing", "a list", "no address", "empty", "IPv6", "dual stack",
        "outside the range", "the switch's", "route attribute",
    ],
)  # fmt: skip
def test_an_add_that_fails_at_or_behind_the_plugin_is_undone_whole(
    runtime: Runtime, broken: dict[str, str], code: int, words: str
) -> None:
    fake = Fake(runtime, **broken)
    pod = runtime.cluster.space("redpod")
    error = runtime.call("ADD", FAKE, pod).error
    assert error["code"] == code, error
    assert words in error["msg"]
    assert error["cniVersion"] == "1.0.0"
    assert fake.verbs == ["ADD", "DEL"], "the specification: a failed ADD of a delegate is followed by its DEL"
    assert set(runtime.inside(pod).links) == {"lo"}
    runtime.nothing_left()


def test_an_undo_that_fails_as_well_is_told_and_the_del_of_the_runtime_repeats_it(runtime: Runtime) -> None:
    fake = Fake(runtime, ADD=failing(11, "full"), DEL=failing(12, "stuck"))
    pod = runtime.cluster.space("redpod")
    error = runtime.call("ADD", FAKE, pod).error
    assert (error["code"], error["msg"]) == (11, "full")
    assert "the undo failed as well: stuck (code 12)" in error["details"]
    assert runtime.call("DEL", FAKE, pod).error["code"] == 12
    Fake(runtime)
    runtime.call("DEL", FAKE, pod).succeeded()
    assert fake.verbs == ["ADD", "DEL", "DEL", "DEL"]
    runtime.nothing_left()


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_a_plugin_that_is_not_there_is_named_with_where_it_was_looked_for(runtime: Runtime, verb: str) -> None:
    fake = Fake(runtime)
    pod = runtime.cluster.space("redpod")
    conf = dict(FAKE)
    if verb != "ADD":
        conf["prevResult"] = runtime.attach(FAKE, pod)
    (runtime.bin / "fake").unlink()
    error = runtime.call(verb, conf, pod).error
    assert error["code"] == 104
    assert "failed to find the IPAM plugin fake in CNI_PATH" in error["msg"]
    assert str(runtime.bin) in error["msg"]
    assert fake.verbs == ([] if verb == "ADD" else ["ADD"])


@pytest.mark.parametrize("kind", ["../fake", "/bin/true", "weave-net", ".."])
def test_a_type_that_is_no_plugins_name_is_refused_and_never_executed(runtime: Runtime, kind: str) -> None:
    pod = runtime.cluster.space("redpod")
    error = runtime.call("ADD", {"ipam": {"type": kind}}, pod).error
    assert error["code"] == 7
    assert "is not the name of an IPAM plugin" in error["msg"]
    runtime.call("DEL", {"ipam": {"type": kind}}, pod).succeeded()


def test_a_program_that_cannot_be_executed_is_a_sentence(runtime: Runtime) -> None:
    runtime.install("fake", "no program at all").chmod(0o644)
    error = runtime.call("ADD", FAKE, runtime.cluster.space("redpod")).error
    assert error["code"] == 104
    assert "cannot be executed" in error["msg"]
    runtime.nothing_left()


def test_what_a_plugin_says_beside_its_result_goes_to_stderr_only(runtime: Runtime) -> None:
    Fake(runtime, ADD=f"echo chatter >&2; echo '{json.dumps(RESULT)}'")
    ran = runtime.call("ADD", FAKE, runtime.cluster.space("redpod"))
    assert ran.stderr == "chatter\n"
    assert ran.result["ips"]


# ---- addresses that somebody has


@real_host_local
def test_an_address_that_a_pod_holds_is_never_given_a_second_time(runtime: Runtime) -> None:
    taken = runtime.cluster.space("bluepod")
    runtime.attach({"runtimeConfig": {"ips": [FIRST]}}, taken)
    pod = runtime.cluster.space("redpod")
    error = runtime.call("ADD", host_local(runtime), pod).error
    assert error["code"] == 101
    assert f"{FIRST} is held by" in error["msg"]
    assert reserved(runtime) == set()
    assert runtime.attach(host_local(runtime), pod)["ips"][0]["address"] == "10.32.5.3/24", "the next one"


def test_an_address_of_another_nodes_part_is_asked_from_its_owner(runtime: Runtime) -> None:
    cluster = runtime.cluster
    cluster.start(2, initial_peers=0)
    wait_for(lambda: cluster.peer(1)["state"] == "established", "mesh")
    cluster.add(2, "bluepod")
    other = Runtime(cluster, 2)
    Fake(other)
    _, result = other.add(FAKE, "redpod")
    assert result["ips"][0]["address"] == "10.32.7.9/24"
    Fake(runtime)
    pod = cluster.space("greenpod")
    error = runtime.call("ADD", FAKE, pod).error
    assert error["code"] == 101, "the other node's pod has it"
    assert cluster.pod_links(1) == set()


# ---- gateways


def test_the_switch_answers_for_the_gateway_unless_the_configuration_says_no(runtime: Runtime) -> None:
    Fake(runtime)
    pod, result = runtime.add(FAKE | {"isGateway": False}, "redpod")
    assert result["ips"][0]["gateway"] == "10.32.7.1"
    assert "0.0.0.0/0" not in runtime.inside(pod).routes()
    assert runtime.cluster.ping(pod, "10.32.7.1") != 0
    runtime.call("DEL", FAKE, pod).succeeded()
    pod, _ = runtime.add(FAKE, "bluepod")
    assert runtime.inside(pod).routes()["0.0.0.0/0"] == "10.32.7.1"
    assert runtime.cluster.ping(pod, "10.32.7.1") == 0
    green = runtime.cluster.space("greenpod")
    assert runtime.call("ADD", {"runtimeConfig": {"ips": ["10.32.7.1"]}}, green).error["code"] == 101


def test_a_result_without_gateway_and_routes_gets_the_switch_as_default_route(runtime: Runtime) -> None:
    Fake(runtime, {"ips": [{"address": "10.32.7.9/24"}]})
    pod, result = runtime.add(FAKE, "redpod")
    switch = json.loads(runtime.cluster.api(1, "/status")[1])["bridge"]["address"]
    assert result["ips"][0]["gateway"] == switch
    routes = runtime.inside(pod).routes()
    assert (routes["0.0.0.0/0"], routes[f"{switch}/32"]) == (switch, None), "off the subnet, so with a way to it"
    assert runtime.cluster.ping(pod, switch) == 0


def test_what_hide_takes_away_expose_gives_back_also_to_another_plugins_pods(runtime: Runtime) -> None:
    Fake(runtime)
    pod, _ = runtime.add(FAKE, "redpod")
    own = json.loads(runtime.cluster.api(1, "/status")[1])["bridge"]["address"]
    plain, _ = runtime.add({}, "bluepod")
    assert [runtime.cluster.ping(plain, own), runtime.cluster.ping(pod, "10.32.7.1")] == [0, 0]
    assert runtime.cluster.api(1, "/hide", b"{}")[0] == 200
    assert runtime.cluster.ping(plain, own) != 0
    assert runtime.cluster.ping(pod, "10.32.7.1") != 0, "the switch has no way back to pods now"
    assert runtime.cluster.api(1, "/expose", b"{}")[0] == 200
    assert [runtime.cluster.ping(plain, own), runtime.cluster.ping(pod, "10.32.7.1")] == [0, 0]


# ---- trouble


@real_host_local
def test_an_agent_restart_keeps_delegated_pods_and_their_gateway(runtime: Runtime) -> None:
    conf = host_local(runtime)
    pod, result = runtime.add(conf, "redpod")
    runtime.cluster.kill(1)
    assert runtime.cluster.ping(pod, GATEWAY) == 0
    runtime.cluster.start(1)
    runtime.call("CHECK", conf | {"prevResult": result}, pod).succeeded()
    assert runtime.cluster.held(1) == {FIRST}
    blue = runtime.cluster.space("bluepod")
    for address in (FIRST, GATEWAY):
        assert runtime.call("ADD", {"runtimeConfig": {"ips": [address]}}, blue).error["code"] == 101
    runtime.call("DEL", conf, pod).succeeded()
    runtime.nothing_left()
    assert reserved(runtime) == set()


def test_pods_keep_all_addresses_when_the_journal_is_lost(runtime: Runtime) -> None:
    addresses = [{"address": "10.32.7.9/24"}, {"address": "10.32.8.9/24"}]
    Fake(runtime, {"ips": addresses})
    _, result = runtime.add(FAKE, "redpod")
    runtime.cluster.kill(1)
    (runtime.folder / "state" / "attachments.journal").unlink()
    runtime.cluster.start(1)
    found = {one["address"]: one["mac"] for one in json.loads(runtime.cluster.api(1, "/endpoints")[1])}
    assert found["10.32.7.9"] == found["10.32.8.9"] == result["interfaces"][2]["mac"]
    blue = runtime.cluster.space("bluepod")
    assert runtime.call("ADD", {"runtimeConfig": {"ips": ["10.32.8.9"]}}, blue).error["code"] == 101


@real_host_local
@pytest.mark.parametrize("netns", ["there", "vanished", "empty"])
def test_a_del_without_an_agent_gives_the_address_back_at_once_and_the_interface_later(
    runtime: Runtime, netns: str
) -> None:
    conf = host_local(runtime)
    pod, _ = runtime.add(conf, "redpod")
    runtime.cluster.kill(1)
    if netns == "vanished":
        unpin(pod.net)
    runtime.call("DEL", conf, pod, **({"CNI_NETNS": ""} if netns == "empty" else {})).succeeded()
    assert reserved(runtime) == set()
    assert len(list(runtime.queue.iterdir())) == 1
    runtime.cluster.start(1)
    runtime.nothing_left()


@real_host_local
def test_an_add_without_an_agent_asks_no_plugin(runtime: Runtime) -> None:
    runtime.cluster.kill(1)
    error = runtime.call("ADD", host_local(runtime), runtime.cluster.space("redpod"), WEAVE_ADD_WAIT_S="0").error
    assert error["code"] == 11
    assert reserved(runtime) == set()


def test_an_agent_that_restarts_while_the_plugin_works_finishes_the_add(runtime: Runtime) -> None:
    gate = runtime.folder / "gate"
    os.mkfifo(gate)
    Fake(runtime, ADD=f"cat {gate} >/dev/null; echo '{json.dumps(RESULT)}'")
    pod = runtime.cluster.space("redpod")
    adding = begin(runtime, "ADD", pod)
    with gate.open("w"):  # the plugin waits in its ADD now
        runtime.cluster.kill(1)
        runtime.cluster.start(1)
    stdout, _ = adding.communicate(timeout=40)
    assert json.loads(stdout)["ips"][0]["address"] == "10.32.7.9/24"
    assert runtime.inside(pod).addresses() == ["10.32.7.9/24"]
    assert runtime.cluster.held(1) == {"10.32.7.9"}


def begin(runtime: Runtime, verb: str, pod: Space) -> Any:
    process = spawn(
        runtime.node, [str(runtime.bin / "weave-net")], stdin=-1, stdout=-1, stderr=-1,
        env=runtime.environment(verb, pod),
    )  # fmt: skip
    process.stdin.write(json.dumps({"cniVersion": "1.0.0", "name": "weave", "type": "weave-net", **FAKE}).encode())
    process.stdin.close()
    process.stdin = None
    return process


def test_a_del_after_a_kill_waits_for_the_plugin_that_is_still_at_work(runtime: Runtime) -> None:
    """The plugin outlives the killed executable and reserves an address after the runtime's DEL has begun."""
    gate, pool = runtime.folder / "gate", runtime.folder / "pool"
    os.mkfifo(gate)
    fake = Fake(runtime, ADD=f"cat {gate} >/dev/null; touch {pool}; echo '{json.dumps(RESULT)}'", DEL=f"rm -f {pool}")
    pod = runtime.cluster.space("redpod")
    adding = begin(runtime, "ADD", pod)
    with gate.open("w"):
        adding.send_signal(signal.SIGKILL)
        adding.communicate()
        deleting = begin(runtime, "DEL", pod)
        wait_for(lambda: not runtime.cluster.pod_links(1), "the agent's part of DEL")
        assert fake.verbs == ["ADD"], "the plugin's DEL waits"
    stdout, _ = deleting.communicate(timeout=30)
    assert (deleting.returncode, stdout) == (0, b"")
    assert fake.verbs == ["ADD", "DEL"]
    assert not pool.exists()
    runtime.nothing_left()


@real_host_local
@pytest.mark.parametrize("attempt", range(6))
def test_killed_at_any_moment_an_add_followed_by_a_del_leaves_nothing(runtime: Runtime, attempt: int) -> None:
    conf = host_local(runtime)
    pod = runtime.cluster.space("redpod")
    process = spawn(
        runtime.node, [str(runtime.bin / "weave-net")], stdin=-1, stdout=-1, stderr=-1,
        env=runtime.environment("ADD", pod),
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps({"cniVersion": "1.0.0", "name": "weave", "type": "weave-net", **conf}).encode())
    process.stdin.close()
    process.stdin = None
    time.sleep(0.03 * attempt)  # no condition to wait for: any moment will do
    process.kill()
    process.communicate()
    runtime.call("DEL", conf, pod).succeeded()
    assert reserved(runtime) == set()
    runtime.nothing_left()
    assert set(runtime.inside(pod).links) == {"lo"}


def test_an_address_goes_back_to_who_gave_it_although_the_file_says_otherwise_by_now(runtime: Runtime) -> None:
    fake = Fake(runtime)
    pod, _ = runtime.add(FAKE | {"ipam": {"type": "fake", "pool": "a"}}, "redpod")
    runtime.call("DEL", {}, pod).succeeded()
    assert fake.verbs == ["ADD", "DEL"]
    assert fake.stdin["ipam"] == {"type": "fake", "pool": "a"}
    own, _ = runtime.add({}, "bluepod")
    runtime.call("DEL", FAKE, own).succeeded()
    assert fake.verbs == ["ADD", "DEL"], "the agent gave that one"


# ---- GC and STATUS

NEW = FAKE | {"cniVersion": "1.1.0"}


def valid(*names: str) -> dict[str, Any]:
    return {"cni.dev/valid-attachments": [{"containerID": name * 3, "ifname": "eth0"} for name in names]}


def test_gc_gives_back_what_it_removes_then_lets_the_plugin_collect(runtime: Runtime) -> None:
    fake = Fake(runtime)
    runtime.add(NEW, "redpod")
    runtime.add({"name": "other"}, "bluepod")
    runtime.call("GC", NEW | valid("redpod")).succeeded()
    assert fake.verbs == ["ADD", "GC"]
    assert fake.stdin["cni.dev/valid-attachments"] == valid("redpod")["cni.dev/valid-attachments"]
    runtime.call("GC", NEW).succeeded()
    assert fake.verbs == ["ADD", "GC", "GC"], "without a list nothing is removed here"
    assert runtime.cluster.held(1) >= {"10.32.7.9"}
    runtime.call("GC", NEW | valid()).succeeded()
    calls = fake.log.read_text().splitlines()
    assert calls[3:] == ["DEL " + "redpod" * 3 + " eth0", "GC  "]
    assert runtime.cluster.pod_links(1) == {"vethweplbluepod"}, "never another network's"


def test_gc_carries_on_after_errors_and_tells_them_all(runtime: Runtime) -> None:
    fake = Fake(runtime, DEL=failing(12, "stuck"), GC=failing(13, "no list"))
    runtime.add(NEW, "redpod")
    error = runtime.call("GC", NEW | valid()).error
    assert (error["code"], error["msg"]) == (12, "stuck; no list")
    assert fake.verbs == ["ADD", "DEL", "GC"]
    assert runtime.cluster.pod_links(1) == set()


def test_gc_without_an_agent_is_still_the_plugins(runtime: Runtime) -> None:
    fake = Fake(runtime)
    runtime.cluster.kill(1)
    runtime.call("GC", NEW | valid()).succeeded()
    assert fake.verbs == ["GC"]


def test_status_is_the_agents_and_the_plugins(runtime: Runtime) -> None:
    fake = Fake(runtime)
    runtime.call("STATUS", NEW).succeeded()
    assert fake.verbs == ["STATUS"]
    Fake(runtime, STATUS=failing(51, "pool exhausted"))
    error = runtime.call("STATUS", NEW).error
    assert (error["code"], error["msg"]) == (51, "pool exhausted")
    (runtime.bin / "fake").unlink()
    assert runtime.call("STATUS", NEW).error["code"] == 50, "not available, as the specification numbers it"
    runtime.cluster.kill(1)
    assert runtime.call("STATUS", NEW, WEAVE_ADD_WAIT_S="0").error["code"] == 50


def test_check_is_the_agents_and_the_plugins(runtime: Runtime) -> None:
    Fake(runtime, CHECK=failing(42, "not reserved"))
    pod, result = runtime.add(FAKE, "redpod")
    error = runtime.call("CHECK", FAKE | {"prevResult": result}, pod).error
    assert (error["code"], error["msg"]) == (42, "not reserved")
    assert "said by the IPAM plugin" in error["details"]


# ---- dhcp, which sends from the pod's interface before it has an address


@needs_plugins("dhcp")
def test_an_address_of_dhcp_is_leased_by_the_pods_own_interface(runtime: Runtime) -> None:
    cluster = runtime.cluster
    cluster.start(2)
    wait_for(lambda: cluster.peer(1)["state"] == "established", "mesh")
    # On the other node: the question goes through the overlay. Only a pod that is exempt may answer.
    server = cluster.space("serverpod")
    assert cluster.cni(2, "ADD", server, guard={"promiscuous": True})[0] == 200
    address = cluster.results["serverpod"]["ips"][0]["address"].partition("/")[0]
    script = Path(dhcp_server.__file__)
    serving = spawn(server, [sys.executable, str(script), "eth0", address, "10.32.7.9", "10.32.7.1"], stdout=-1)
    cluster.stack.callback(end, serving)
    assert serving.stdout is not None
    cluster.stack.callback(serving.stdout.close)
    assert serving.stdout.readline() == b"ready\n"
    daemon_socket = runtime.folder / "dhcp.sock"
    daemon = spawn(runtime.node, [str(DEBIAN_PLUGINS / "dhcp"), "daemon", "-socketpath", str(daemon_socket)])
    cluster.stack.callback(end, daemon)
    wait_for(daemon_socket.exists, "the plugin's daemon listens")
    conf = {"ipam": {"type": "dhcp", "daemonSocketPath": str(daemon_socket)}}
    pod, result = runtime.add(conf, "redpod")
    assert result["ips"][0]["address"] == "10.32.7.9/24"
    assert runtime.inside(pod).addresses() == ["10.32.7.9/24"]
    wait_for(lambda: cluster.ping(server, "10.32.7.9") == 0, "the server's node reaches the pod")
    runtime.call("CHECK", conf | {"prevResult": result}, pod).succeeded()
    runtime.call("DEL", conf, pod).succeeded()
    runtime.nothing_left()
