"""What the specification and runtimes demand of ADD, DEL, GC and STATUS, with a real agent: one test a rule."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugin.core.cni.types import VERSIONS
from tests.support.chain_runtime import Answer, Runtime
from tests.support.cluster import unpin, wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
NEW = {"cniVersion": "1.1.0"}
IP4 = r"^([0-9]{1,3}\.){3}[0-9]{1,3}$"
CIDR = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$"
MAC = "^([0-9a-f]{2}:){5}[0-9a-f]{2}$"


def schema(version: str) -> dict[str, Any]:
    """The result of ADD at one version, by the specification's own tables; no other keys."""

    def closed(required: list[str], **properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def text(pattern: str = "") -> dict[str, Any]:
        return {"type": "string"} | ({"pattern": pattern} if pattern else {})

    texts = {"type": "array", "items": text()}
    dns = closed([], nameservers=texts, domain=text(), search=texts, options=texts)
    route = closed(["dst"], dst=text(CIDR), gw=text(IP4))
    if version in {"0.1.0", "0.2.0"}:
        routes = {"type": "array", "items": route}
        family = closed(["ip"], ip=text(CIDR), gateway=text(IP4), routes=routes)
        return closed(["cniVersion", "ip4"], cniVersion={"const": version}, ip4=family, dns=dns)
    interface = {"name": text("^.{1,15}$"), "mac": text(MAC), "sandbox": text()}
    if version == "1.1.0":
        interface |= {"mtu": {"type": "integer", "minimum": 68}}
    address = {"address": text(CIDR), "gateway": text(IP4), "interface": {"type": "integer", "minimum": 0}}
    if version in {"0.3.0", "0.3.1", "0.4.0"}:
        address |= {"version": {"const": "4"}}
    needed = ["address", "version"] if "version" in address else ["address"]
    return closed(
        ["cniVersion", "interfaces", "ips"],
        cniVersion={"const": version},
        interfaces={"type": "array", "items": closed(["name"], **interface)},
        ips={"type": "array", "items": closed(needed, **address)},
        routes={"type": "array", "items": route},
        dns=dns,
    )


DELEGATED = '#!/bin/sh\n[ $CNI_COMMAND = ADD ] && echo \'{"ips": [{"address": "10.32.7.9/24"}]}\' || true\n'


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ipam", ["own", "delegated", "several"])
def test_a_result_is_valid_at_every_version_and_deleted_by_it(runtime: Runtime, version: str, ipam: str) -> None:
    from jsonschema import Draft202012Validator

    runtime.install("fake", DELEGATED)
    conf: dict[str, Any] = {"cniVersion": version, "dns": {"nameservers": ["10.96.0.10"]}}
    conf |= {"own": {}, "delegated": {"ipam": {"type": "fake"}},
             "several": {"runtimeConfig": {"ips": ["10.32.7.9", "10.32.7.10"]}}}[ipam]  # fmt: skip
    pod, result = runtime.add(conf, "redpod")
    Draft202012Validator(schema(version)).validate(result)
    if "interfaces" in result:
        sandboxes = [entry.get("sandbox", "") for entry in result["interfaces"]]
        assert sandboxes == ["", "", str(pod.net)], "verbatim, and only for what is inside"
        assert {result["interfaces"][entry["interface"]]["name"] for entry in result["ips"]} == {"eth0"}
        assert len(result["ips"]) == (2 if ipam == "several" else 1)
    if version not in {"0.1.0", "0.2.0", "0.3.0", "0.3.1"}:
        runtime.call("CHECK", conf | {"prevResult": result}, pod).succeeded()
    runtime.call("DEL", conf | {"prevResult": result}, pod).succeeded()
    runtime.nothing_left()


# ---- ADD


def test_a_second_add_fails_and_the_first_attachment_works_on(runtime: Runtime) -> None:
    pod, result = runtime.add({}, "redpod")
    error = runtime.call("ADD", {}, pod).error
    assert error["code"] == 100
    runtime.call("CHECK", {"prevResult": result}, pod).succeeded()
    assert runtime.cluster.ping(runtime.node, result["ips"][0]["address"].partition("/")[0]) == 0


def test_two_interfaces_of_a_container_are_two_attachments(runtime: Runtime) -> None:
    pod, first = runtime.add({}, "redpod")
    second = runtime.attach({}, pod, CNI_IFNAME="net1")
    assert len(runtime.cluster.held(1)) == 2
    runtime.call("CHECK", {"prevResult": second}, pod, CNI_IFNAME="net1").succeeded()
    runtime.call("DEL", {}, pod, CNI_IFNAME="net1").succeeded()
    runtime.call("CHECK", {"prevResult": first}, pod).succeeded()
    assert set(runtime.inside(pod).links) == {"lo", "eth0"}


def test_one_container_in_two_networks_is_two_attachments(runtime: Runtime) -> None:
    pod, _ = runtime.add({}, "redpod")
    runtime.attach({"name": "other"}, pod, CNI_IFNAME="net1")
    runtime.call("DEL", {}, pod).succeeded()
    assert set(runtime.inside(pod).links) == {"lo", "net1"}


def test_an_interface_that_is_there_is_not_touched(runtime: Runtime) -> None:
    pod = runtime.cluster.space("redpod")
    runtime.attach({"name": "other"}, pod)
    before = runtime.inside(pod).links["eth0"]
    assert runtime.call("ADD", {}, pod).error["code"] == 100
    assert runtime.inside(pod).links["eth0"] == before
    runtime.call("DEL", {}, pod).succeeded()
    assert runtime.inside(pod).links["eth0"] == before, "the DEL after a failed ADD is of the other network"


def test_many_at_once_get_addresses_of_their_own(runtime: Runtime) -> None:
    pods = [runtime.cluster.space(f"pod{number:02}x") for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda pod: runtime.attach({}, pod), pods))
    addresses = {result["ips"][0]["address"].partition("/")[0] for result in results}
    assert len(addresses) == len(pods)
    assert all(runtime.cluster.ping(runtime.node, address) == 0 for address in addresses)
    with ThreadPoolExecutor(8) as pool:
        done: list[Answer] = list(pool.map(lambda pod: runtime.call("DEL", {}, pod), pods))
    assert {answer.code for answer in done} == {0}
    runtime.nothing_left()


def test_a_range_without_a_free_address_is_a_clear_error_and_status_51(runtime: Runtime) -> None:
    runtime.cluster.kill(1)
    for path in (runtime.folder / "state").iterdir():
        path.unlink()
    runtime.cluster.start(1, range="10.9.0.0/29")
    for number in range(5):
        runtime.add(NEW, f"pod{number}xx")
    pod = runtime.cluster.space("redpod")
    error = runtime.call("ADD", NEW, pod).error
    assert error["code"] == 101
    assert "no address is left" in error["msg"]
    assert set(runtime.inside(pod).links) == {"lo"}
    assert runtime.call("STATUS", NEW).error["code"] == 51


# ---- DEL


@pytest.mark.parametrize("netns", ["there", "empty", "vanished", "plain file", "another pod's"])
@pytest.mark.parametrize("previous", [True, False], ids=["with prevResult", "without"])
def test_a_del_frees_everything_whatever_its_netns(
    runtime: Runtime, tmp_path: Path, netns: str, *, previous: bool
) -> None:
    pod, result = runtime.add({}, "redpod")
    plain = tmp_path / "plain"
    plain.touch()
    if netns == "vanished":
        unpin(pod.net)
    path = {
        "empty": "", "vanished": str(tmp_path / "nowhere"), "plain file": str(plain),
        "another pod's": str(runtime.cluster.space("bluepod").net),
    }.get(netns, str(pod.net))  # fmt: skip
    conf = {"prevResult": result} if previous else {}
    for _ in range(3):  # containerd calls it three times for every sandbox
        runtime.call("DEL", conf, pod, CNI_NETNS=path).succeeded()
    runtime.nothing_left()


def test_a_del_of_what_never_was_succeeds(runtime: Runtime) -> None:
    runtime.call("DEL", {}, runtime.cluster.space("redpod")).succeeded()


def test_a_del_after_somebody_deleted_the_interface_frees_the_address(runtime: Runtime) -> None:
    pod, _ = runtime.add({}, "redpod")
    with runtime.cluster.netlink(pod) as inside:
        from plugin.link import rtnl

        inside.request(rtnl.link_del(runtime.inside(pod).links["eth0"].index))
    runtime.call("DEL", {}, pod).succeeded()
    runtime.nothing_left()


def test_a_del_with_an_edited_configuration_still_deletes(runtime: Runtime) -> None:
    pod, _ = runtime.add({}, "redpod")
    runtime.call("DEL", {"bridge": 7, "mtu": "x", "vlan": 9, "ipam": 3, "isGateway": "?"}, pod).succeeded()
    runtime.nothing_left()


def test_after_a_reboot_nothing_is_held_for_pods_that_are_gone(runtime: Runtime) -> None:
    pods = [runtime.add({}, f"pod{number}xx")[0] for number in range(3)]
    runtime.cluster.kill(1)
    for pod in pods:
        unpin(pod.net)
    wait_for(lambda: not runtime.cluster.pod_links(1), "the kernel took the pairs away")
    runtime.cluster.start(1)
    runtime.nothing_left()
    for pod in pods:  # what the runtime does when it is back
        runtime.call("DEL", {}, pod).succeeded()


# ---- GC

LISTS = [
    # keys of the call, pods of the network that are left of red and blue
    ({}, {"redpod", "bluepod"}),
    ({"cni.dev/valid-attachments": None}, {"redpod", "bluepod"}),
    ({"cni.dev/valid-attachments": []}, set()),
    ({"cni.dev/valid-attachments": [{"containerID": "redpod" * 3, "ifname": "eth0"}]}, {"redpod"}),
    ({"cni.dev/attachments": [{"containerID": "bluepod" * 3, "ifname": "eth0"}]}, {"bluepod"}),
    ({"cni.dev/valid-attachments": [{"containerID": "redpod" * 3, "ifname": "net1"}]}, set()),
    ({"cni.dev/valid-attachments": [{"containerID": "strange", "ifname": "eth0"}]}, set()),
]


@pytest.mark.parametrize(("keys", "left"), LISTS)
def test_gc_frees_exactly_what_is_not_listed_and_nothing_of_another_network(
    runtime: Runtime, keys: dict[str, Any], left: set[str]
) -> None:
    for name in ("redpod", "bluepod"):
        runtime.add(NEW, name)
    runtime.add(NEW | {"name": "other"}, "greenpod")
    runtime.call("GC", NEW | keys).succeeded()
    attached = {
        one["container_id"][: len(one["container_id"]) // 3] for one in runtime.cluster.report(1)["attachments"]
    }
    assert attached == left | {"greenpod"}


def test_gc_below_1_1_0_is_refused_and_so_is_status(runtime: Runtime) -> None:
    for verb in ("GC", "STATUS"):
        error = runtime.call(verb, {"cniVersion": "1.0.0"}).error
        assert (error["code"], error["msg"]) == (1, f"config version does not allow {verb}")


def test_gc_with_a_list_that_cannot_be_read_removes_nothing(runtime: Runtime) -> None:
    runtime.add(NEW, "redpod")
    error = runtime.call("GC", NEW | {"cni.dev/valid-attachments": [{"containerID": "x"}]}).error
    assert error["code"] == 7
    assert len(runtime.cluster.held(1)) == 1


# ---- STATUS


def test_status_is_0_with_an_agent_and_50_without(runtime: Runtime) -> None:
    runtime.call("STATUS", NEW).succeeded()
    runtime.cluster.kill(1)
    error = runtime.call("STATUS", NEW).error
    assert error["code"] == 50
    assert "does not answer" in error["msg"]


def test_a_failing_status_gates_neither_add_nor_del(runtime: Runtime) -> None:
    script = '#!/bin/sh\ncase $CNI_COMMAND in STATUS) echo \'{"code": 50, "msg": "no"}\'; exit 1;; ADD) echo \'RESULT\';; esac\n'
    runtime.install("fake", script.replace("RESULT", json.dumps({"ips": [{"address": "10.32.7.9/24"}]})))
    conf = NEW | {"ipam": {"type": "fake"}}
    assert runtime.call("STATUS", conf).error["code"] == 50
    pod, _ = runtime.add(conf, "redpod")
    runtime.call("DEL", conf, pod).succeeded()
