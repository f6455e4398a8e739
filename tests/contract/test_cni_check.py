"""CHECK notices each kind of sabotage and names it; it passes right after ADD, and again when all is as it was."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from testbed.machine.space import Space, run
from tests.support.chain_runtime import Runtime
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
NEW = {"cniVersion": "1.1.0"}  # tells the MTU as well
Sabotage = Callable[[Runtime, Space, dict[str, Any]], None]


@pytest.fixture
def runtime(cluster: Cluster) -> Runtime:
    """The runtime of node 1, whose agent leaves broken what is broken: what is tested is that CHECK sees it."""
    cluster.start(1, repair=False)
    return Runtime(cluster, 1)


def ip(space: Space, *arguments: str) -> None:
    done = run(space, ["ip", *arguments], timeout_s=10)
    assert done.returncode == 0, done.stderr


def in_pod(*arguments: str) -> Sabotage:
    return lambda _runtime, pod, _result: ip(pod, *arguments)


def on_node(*arguments: str) -> Sabotage:
    """`HOST` stands for the name of the pod's link on the node."""

    def act(runtime: Runtime, _pod: Space, result: dict[str, Any]) -> None:
        host = result["interfaces"][1]["name"]
        ip(runtime.node, *(argument.replace("HOST", host) for argument in arguments))

    return act


def swapped(runtime: Runtime, _pod: Space, result: dict[str, Any]) -> None:
    host = result["interfaces"][1]["name"]
    ip(runtime.node, "link", "set", host, "name", "gone0")
    ip(runtime.node, "link", "add", host, "type", "veth", "peer", "name", "other0")
    ip(runtime.node, "link", "set", host, "master", "weave", "up")


def another_bridge(runtime: Runtime, pod: Space, result: dict[str, Any]) -> None:
    ip(runtime.node, "link", "add", "cni0", "type", "bridge")
    on_node("link", "set", "HOST", "master", "cni0")(runtime, pod, result)


def hairpin_off(runtime: Runtime, _pod: Space, result: dict[str, Any]) -> None:
    done = run(
        runtime.node, ["bridge", "link", "set", "dev", result["interfaces"][1]["name"], "hairpin", "off"], timeout_s=10
    )
    assert done.returncode == 0, done.stderr


SABOTAGE: list[tuple[str, Sabotage, str]] = [
    ("deleted in the pod", in_pod("link", "del", "eth0"), "interface eth0 is missing in the pod"),
    ("deleted on the node", on_node("link", "del", "HOST"), "interface eth0 is missing in the pod"),
    ("renamed", lambda r, p, _: [ip(p, "link", "set", "eth0", *step) for step in (("down",), ("name", "x0"))],
     "interface eth0 is missing in the pod"),
    ("down in the pod", in_pod("link", "set", "eth0", "down"), "interface eth0 in the pod is down"),
    ("down on the node", on_node("link", "set", "HOST", "down"), "is down"),
    ("address flushed", in_pod("addr", "flush", "dev", "eth0"), "is missing in the pod, found none"),
    ("address changed", lambda r, p, _: [ip(p, "addr", "flush", "dev", "eth0"),
                                         ip(p, "addr", "add", "10.32.0.99/12", "dev", "eth0")],
     "is missing in the pod, found 10.32.0.99/12"),
    ("prefix changed", lambda r, p, result: [ip(p, "addr", "flush", "dev", "eth0"),
                                             ip(p, "addr", "add", result["ips"][0]["address"][:-2] + "24",
                                                "dev", "eth0")],
     "is missing in the pod, found 10.32.0."),
    ("route removed", in_pod("route", "del", "default"), "route to 0.0.0.0/0 via 10.32.0.1 is missing in the pod"),
    ("route by another gateway", in_pod("route", "replace", "default", "via", "10.32.0.77"), "it goes via 10.32.0.77"),
    ("off the bridge", on_node("link", "set", "HOST", "nomaster"), "must be a port of bridge weave, it is a port of no"),
    ("on another bridge", another_bridge, "must be a port of bridge weave"),
    ("not the other end", swapped, "is not the other end of eth0"),
    ("hairpin off", hairpin_off, "hairpin mode of"),
    ("MTU", in_pod("link", "set", "eth0", "mtu", "1300"), "has MTU 1300, it was given 1450"),
    ("MAC", in_pod("link", "set", "eth0", "address", "02:00:00:00:00:99"), "has MAC 02:00:00:00:00:99"),
]  # fmt: skip


@pytest.mark.parametrize(("sabotage", "words"), [row[1:] for row in SABOTAGE], ids=[row[0] for row in SABOTAGE])
def test_check_names_what_was_done_to_a_pod(runtime: Runtime, sabotage: Sabotage, words: str) -> None:
    pod, result = runtime.add(NEW, "redpod")
    runtime.call("CHECK", NEW | {"prevResult": result}, pod).succeeded()
    sabotage(runtime, pod, result)
    error = runtime.call("CHECK", NEW | {"prevResult": result}, pod).error
    assert error["code"] == 103, error
    assert words in error["details"]
    runtime.call("DEL", NEW | {"prevResult": result}, pod).succeeded()
    assert runtime.cluster.held(1) == set(), "and DEL copes with it"


def test_check_misses_a_reservation_that_was_lost(runtime: Runtime) -> None:
    """The pod lives, but the agent knows nothing of it: another pod could be given its address."""
    pod, result = runtime.add(NEW, "redpod")
    other = runtime.cluster.space("bluepod")
    runtime.call("DEL", NEW, pod).succeeded()
    runtime.attach(NEW, other)
    error = runtime.call("CHECK", NEW | {"prevResult": result}, pod).error
    assert error["code"] == 3, "container unknown"
    assert "is not attached to network weave here" in error["msg"]


def test_check_sees_a_reservation_for_another_address(runtime: Runtime) -> None:
    pod, result = runtime.add(NEW, "redpod")
    changed = json.loads(json.dumps(result))
    changed["ips"][0]["address"] = "10.32.0.99/12"
    ip(pod, "addr", "add", "10.32.0.99/12", "dev", "eth0")
    error = runtime.call("CHECK", NEW | {"prevResult": changed}, pod).error
    assert "address 10.32.0.99/12 is not reserved for this pod: another pod could be given it" in error["details"]


def test_check_without_an_agent_says_that_the_agent_is_missing(runtime: Runtime) -> None:
    pod, result = runtime.add(NEW, "redpod")
    runtime.cluster.kill(1)
    error = runtime.call("CHECK", NEW | {"prevResult": result}, pod).error
    assert (error["code"], "does not answer" in error["msg"]) == (11, True)
    runtime.cluster.start(1)
    runtime.call("CHECK", NEW | {"prevResult": result}, pod).succeeded()


def test_check_of_a_namespace_that_is_gone_is_code_8(runtime: Runtime) -> None:
    pod, result = runtime.add(NEW, "redpod")
    error = runtime.call("CHECK", NEW | {"prevResult": result}, pod, CNI_NETNS="/run/netns/nobody").error
    assert error["code"] == 8


def test_check_names_several_differences_in_one_answer(runtime: Runtime) -> None:
    pod, result = runtime.add(NEW, "redpod")
    ip(pod, "route", "del", "default")
    ip(pod, "link", "set", "eth0", "mtu", "1300")
    details = runtime.call("CHECK", NEW | {"prevResult": result}, pod).error["details"]
    assert "MTU 1300" in details
    assert "route to 0.0.0.0/0" in details


def test_what_others_add_to_a_pod_is_none_of_checks_business(runtime: Runtime) -> None:
    pod, result = runtime.add(NEW, "redpod")
    ip(pod, "link", "add", "own0", "type", "bridge")
    ip(pod, "addr", "add", "10.99.0.1/24", "dev", "eth0")
    ip(pod, "route", "add", "192.168.99.0/24", "via", "10.32.0.1")
    later = result | {"interfaces": [*result["interfaces"], {"name": "own0", "sandbox": str(pod.net)}]}
    runtime.call("CHECK", NEW | {"prevResult": later}, pod).succeeded()
