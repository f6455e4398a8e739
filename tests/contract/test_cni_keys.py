"""Every key, capability and argument of a configuration: what it does to the pod, or the error that says why not."""

import json
import os
from typing import Any

import pytest

from plugin.link import netns
from testbed.machine.space import Space, run
from tests.support.chain_runtime import Runtime
from tests.support.cluster import wait_for
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]


def capability(**values: Any) -> dict[str, Any]:
    """What a runtime makes of a capability that the configuration declares."""
    return {"capabilities": dict.fromkeys(values, True), "runtimeConfig": values}


def ranged(*texts: str, **keys: str) -> list[dict[str, str]]:
    return [{"subnet": text, **keys} for text in texts]


def switch(runtime: Runtime) -> str:
    return str(json.loads(runtime.cluster.api(1, "/status")[1])["bridge"]["address"])


# ---- addresses

ADDRESSES = [
    # what is asked for, environment, addresses in order
    (capability(ips=["10.32.4.5"]), {}, ["10.32.4.5/12"]),
    (capability(ips=["10.32.4.5/24"]), {}, ["10.32.4.5/12"]),
    ({"args": {"cni": {"ips": ["10.32.4.6"]}}}, {}, ["10.32.4.6/12"]),
    ({}, {"CNI_ARGS": "IP=10.32.4.7"}, ["10.32.4.7/12"]),
    (capability(ips=["10.32.4.5"]) | {"args": {"cni": {"ips": ["10.32.4.6"]}}}, {"CNI_ARGS": "IP=10.32.4.7"},
     ["10.32.4.5/12"]),
    ({"args": {"cni": {"ips": ["10.32.4.6"]}}}, {"CNI_ARGS": "IP=10.32.4.7"}, ["10.32.4.6/12"]),
    (capability(ips=["10.32.4.5", "10.32.9.1"]), {}, ["10.32.4.5/12", "10.32.9.1/12"]),
    ({}, {"CNI_ARGS": "IP=10.32.4.5,10.32.9.1"}, ["10.32.4.5/12", "10.32.9.1/12"]),
    ({"ipam": {"subnet": "10.33.0.0/16"}}, {}, ["10.33.0.1/12"]),
    ({"ipam": {"subnet": "10.33.0.0/16", "rangeStart": "10.33.7.20"}}, {}, ["10.33.7.20/12"]),
    ({"ipam": {"ranges": [ranged("10.33.5.0/24"), ranged("10.34.5.0/24")]}}, {}, ["10.33.5.1/12", "10.34.5.1/12"]),
    (capability(ipRanges=[ranged("10.33.5.0/24", rangeStart="10.33.5.9", rangeEnd="10.33.5.9")]), {},
     ["10.33.5.9/12"]),
    (capability(ipRanges=[ranged("10.35.0.0/24")]) | {"ipam": {"subnet": "10.33.0.0/16"}}, {}, ["10.35.0.1/12"]),
    (capability(ipRanges=[ranged("10.35.0.0/24")], ips=["10.35.0.77"]), {}, ["10.35.0.77/12"]),
]  # fmt: skip


@pytest.mark.parametrize(("conf", "env", "addresses"), ADDRESSES)
def test_the_addresses_that_are_asked_for(
    runtime: Runtime, conf: dict[str, Any], env: dict[str, str], addresses: list[str]
) -> None:
    pod, result = runtime.add(conf, "redpod", **env)
    assert [entry["address"] for entry in result["ips"]] == addresses
    assert {entry["interface"] for entry in result["ips"]} == {2}
    assert runtime.inside(pod).addresses() == sorted(addresses)
    assert runtime.cluster.held(1) == {addresses[0].partition("/")[0]}
    for address in addresses:
        assert runtime.cluster.ping(runtime.node, address.partition("/")[0]) == 0
    runtime.call("CHECK", conf | {"prevResult": result}, pod, **env).succeeded()
    runtime.call("DEL", conf, pod, **env).succeeded()
    runtime.nothing_left()


def test_alternative_ranges_are_used_in_turn(runtime: Runtime) -> None:
    tiny = {"rangeStart": "10.33.5.9", "rangeEnd": "10.33.5.9"}
    conf = capability(ipRanges=[[*ranged("10.33.5.0/24", **tiny), *ranged("10.34.0.0/24", gateway="10.34.0.254")]])
    _, first = runtime.add(conf, "redpod")
    assert first["ips"][0] == {"address": "10.33.5.9/12", "gateway": switch(runtime), "interface": 2}
    _, second = runtime.add(conf, "bluepod")
    assert second["ips"][0] == {"address": "10.34.0.1/12", "gateway": "10.34.0.254", "interface": 2}


def test_ranges_of_another_nodes_part_are_asked_from_it(runtime: Runtime) -> None:
    runtime.cluster.start(2)
    wait_for(lambda: runtime.cluster.peer(1)["state"] == "established", "mesh")
    runtime.cluster.add(2, "bluepod")  # node 2 owns addresses from here on
    other = Runtime(runtime.cluster, 2)
    owned = [json.loads(runtime.cluster.api(number, "/status")[1])["ipam"]["owned"] for number in (1, 2)]
    wish = capability(ipRanges=[ranged("10.32.77.0/24", rangeStart="10.32.77.20", rangeEnd="10.32.77.29")])
    for each in (runtime, other):
        _, result = each.add(wish, f"pod{each.number}pod")
        assert result["ips"][0]["address"].startswith("10.32.77.2"), owned


REFUSED = [
    # what is asked for, environment, code, words
    (capability(ips=["10.22.0.5"]), {}, 101, "no address for a pod of the range 10.32.0.0/12"),
    (capability(ips=["fd00::5"]), {}, 2, "is IPv6"),
    ({}, {"CNI_ARGS": "IP=fd00::5"}, 2, "is IPv6"),
    ({}, {"CNI_ARGS": "IP=red"}, 7, "must be an IPv4 address"),
    ({"ipam": {"subnet": "10.22.0.0/16"}}, {}, 7, "no part of the pod range"),
    (capability(ipRanges=[ranged("10.22.0.0/16")]), {}, 7, "no part of the pod range"),
    (capability(ipRanges=[ranged("fd00::/64")]), {}, 2, "is IPv6"),
    (capability(ipRanges=[ranged("10.33.0.0/16")], ips=["10.34.0.5"]), {}, 7, "in none of the ranges"),
    (capability(mac="red"), {}, 7, "a MAC address looks like"),
    ({"mtu": 9000}, {}, 7, "larger than the network carries"),
    ({"bridge": "cni0"}, {}, 2, "is not this agent's switch"),
    ({"vlan": 7}, {}, 2, 'unsupported field "vlan": 7'),
    ({"guard": {"macs": "all"}}, {}, 7, '"guard.macs" must be a list or "any"'),
    ({"guard": {"addresses": ["10.40.0.0/24"]}}, {}, 7, '"guard.addresses" must be an IPv4 address'),
    ({"macspoofchk": True, "guard": {"macs": "any"}}, {}, 7, '"macspoofchk" contradicts "guard"'),
    ({}, {"CNI_ARGS": "COLOUR=red"}, 4, "unknown args COLOUR"),
]


@pytest.mark.parametrize(("conf", "env", "code", "words"), REFUSED)
def test_what_cannot_be_done_is_refused_by_name_and_leaves_nothing(
    runtime: Runtime, conf: dict[str, Any], env: dict[str, str], code: int, words: str
) -> None:
    error = runtime.call("ADD", conf, runtime.cluster.space("redpod"), **env).error
    assert error["code"] == code, error
    assert words in error["msg"]
    runtime.nothing_left()


# ---- gateway and routes

ROUTES = [
    # configuration, gateway of the address (S: the switch), routes of the pod beside the connected one
    ({}, "S", {"0.0.0.0/0": "S"}),
    ({"isGateway": True, "ipMasq": True, "hairpinMode": True}, "S", {"0.0.0.0/0": "S"}),
    ({"isGateway": False}, None, {}),
    ({"isDefaultGateway": False}, "S", {}),
    ({"isDefaultGateway": True, "ipam": {"routes": [{"dst": "192.168.99.0/24"}]}}, "S",
     {"192.168.99.0/24": "S", "0.0.0.0/0": "S"}),
    ({"ipam": {"routes": []}}, "S", {}),
    ({"ipam": {"gateway": "10.32.0.77"}}, "10.32.0.77", {"0.0.0.0/0": "10.32.0.77"}),
    ({"ipam": {"routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.9"}, {"dst": "192.168.99.0/24"}]}}, "S",
     {"0.0.0.0/0": "10.32.0.9", "192.168.99.0/24": "S"}),
    ({"ipam": {"gateway": "172.30.0.1"}}, "172.30.0.1", {"172.30.0.1/32": None, "0.0.0.0/0": "172.30.0.1"}),
]  # fmt: skip


@pytest.mark.parametrize(("conf", "gateway", "routes"), ROUTES)
def test_gateway_and_routes(
    runtime: Runtime, conf: dict[str, Any], gateway: str | None, routes: dict[str, str | None]
) -> None:
    pod, result = runtime.add(conf, "redpod")
    own = switch(runtime)
    assert result["ips"][0].get("gateway") == (own if gateway == "S" else gateway)
    wanted = {destination: own if way == "S" else way for destination, way in routes.items()}
    found = runtime.inside(pod).routes()
    assert found.pop("10.32.0.0/12") is None
    assert found == wanted
    assert {entry["dst"]: entry.get("gw") for entry in result.get("routes", [])} == wanted
    runtime.call("CHECK", conf | {"prevResult": result}, pod).succeeded()


def set_of_the_plain(runtime: Runtime) -> set[str]:
    told = run(runtime.node, ["nft", "-j", "list", "set", "ip", "weave", "plain"], timeout_s=10).stdout
    (found,) = [one["set"] for one in json.loads(told)["nftables"] if "set" in one]
    return set(found.get("elem", []))


def test_without_masquerade_a_pod_leaves_the_range_as_who_it_is(runtime: Runtime) -> None:
    """Node 2 stands for the world outside: it sees the pod's own address, and answers by a route to it."""
    plain, result = runtime.add({"ipMasq": False}, "redpod")
    address = result["ips"][0]["address"].partition("/")[0]
    usual, _ = runtime.add({"ipMasq": True}, "bluepod")
    outside = runtime.cluster.nodes[2]

    def reaches(pod: Space) -> bool:
        return runtime.cluster.ping(pod, "192.168.56.12") == 0

    assert (reaches(plain), reaches(usual)) == (False, True), "nobody outside knows a way to a pod's address"
    done = run(outside, ["ip", "route", "add", f"{address}/32", "via", "192.168.56.11"], timeout_s=10)
    assert (done.returncode, reaches(plain)) == (0, True)
    assert set_of_the_plain(runtime) == {address}
    runtime.cluster.kill(1)
    runtime.cluster.start(1)
    assert set_of_the_plain(runtime) == {address}, "also after a restart, which writes the rules anew"
    runtime.call("DEL", {}, plain).succeeded()
    assert set_of_the_plain(runtime) == set()


# ---- the rest


@pytest.mark.parametrize(
    ("conf", "env"),
    [
        (capability(mac="02:AA:00:00:00:05"), {}),
        ({"args": {"cni": {"mac": "02:aa:00:00:00:05"}}}, {}),
        ({}, {"CNI_ARGS": "MAC=02:aa:00:00:00:05"}),
    ],
)
def test_the_mac_that_is_asked_for_once(runtime: Runtime, conf: dict[str, Any], env: dict[str, str]) -> None:
    pod, result = runtime.add(conf, "redpod", **env)
    assert result["interfaces"][2]["mac"] == runtime.inside(pod).links["eth0"].mac == "02:aa:00:00:00:05"
    assert runtime.cluster.ping(runtime.node, result["ips"][0]["address"].partition("/")[0]) == 0
    error = runtime.call("ADD", conf, runtime.cluster.space("bluepod"), **env).error
    assert (error["code"], "it is that of pod " in error["msg"]) == (7, True), "two would draw each other's frames"
    runtime.call("DEL", conf, pod).succeeded()
    runtime.add(conf, "greenpod", **env)


def test_a_pod_with_a_mac_of_its_own_keeps_its_address_when_the_journal_is_lost(runtime: Runtime) -> None:
    _, result = runtime.add(capability(mac="02:aa:00:00:00:05"), "redpod")
    runtime.cluster.kill(1)
    (runtime.folder / "state" / "attachments.journal").unlink()
    runtime.cluster.start(1)
    address = result["ips"][0]["address"].partition("/")[0]
    known = {one["address"]: one["mac"] for one in json.loads(runtime.cluster.api(1, "/endpoints")[1])}
    assert known[address] == "02:aa:00:00:00:05"


@pytest.mark.parametrize("hairpin", [True, False, None])
def test_hairpin_mode_is_on_unless_it_is_switched_off(runtime: Runtime, hairpin: bool | None) -> None:  # noqa: FBT001
    _, result = runtime.add({} if hairpin is None else {"hairpinMode": hairpin}, "redpod")
    fd = netns.open_netns(runtime.node.net)
    try:
        assert Witness(fd).port_flags(result["interfaces"][1]["name"])["MODE"] == int(hairpin is not False)
    finally:
        os.close(fd)


@pytest.mark.parametrize("mtu", [0, 68, 1200])
def test_mtu_is_the_pods_own_or_the_switchs(runtime: Runtime, mtu: int) -> None:
    pod, result = runtime.add({"mtu": mtu, "cniVersion": "1.1.0"}, "redpod")
    assert runtime.inside(pod).links["eth0"].mtu == result["interfaces"][2]["mtu"] == (mtu or 1450)


def test_bridge_may_name_the_switch_that_is_there(runtime: Runtime) -> None:
    _, result = runtime.add({"bridge": "weave"}, "redpod")
    assert result["interfaces"][0]["name"] == "weave"


@pytest.mark.parametrize(
    ("conf", "dns"),
    [
        ({"dns": {"nameservers": ["10.96.0.10"], "domain": "d", "search": ["svc"], "options": ["ndots:5"]}},
         {"nameservers": ["10.96.0.10"], "domain": "d", "search": ["svc"], "options": ["ndots:5"]}),
        (capability(dns={"servers": ["10.96.0.11"], "searches": ["x"], "options": ["y"]}) | {"dns": {"domain": "d"}},
         {"nameservers": ["10.96.0.11"], "search": ["x"], "options": ["y"]}),
    ],
)  # fmt: skip
def test_dns_is_passed_through_and_the_runtimes_replaces_it(
    runtime: Runtime, conf: dict[str, Any], dns: dict[str, Any]
) -> None:
    assert runtime.add(conf, "redpod")[1]["dns"] == dns


def test_the_names_that_kubernetes_gives_are_shown_wherever_pods_are(runtime: Runtime) -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=y"
    runtime.add({}, "redpod", CNI_ARGS=args)
    for path, part in (("/ps", None), ("/endpoints", None), ("/report", "attachments")):
        told = json.loads(runtime.cluster.api(1, path)[1])
        assert "shop/cart" in {one.get("label") for one in (told if part is None else told[part])}, path


def test_unknown_keys_and_args_of_others_are_none_of_our_business(runtime: Runtime) -> None:
    conf = {"args": {"cni": {"labels": [{"key": "a", "value": "b"}]}, "other": 7}, "cni.dev/x": 1, "unheardOf": {}}
    runtime.add(conf | capability(aliases=["a"], cgroupPath="/x"), "redpod", CNI_ARGS="IgnoreUnknown=true;X=y")
