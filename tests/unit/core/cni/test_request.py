"""The rules of CNI: requests in, results and differences out."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from plugin.core.cni.request import parse_request, queue_name
from plugin.core.cni.result import check_differences, check_failed, converted, normalized, result_json
from plugin.core.cni.types import (
    TRY_AGAIN_LATER,
    VERBS,
    VERSIONS,
    AddressRange,
    Attached,
    CniError,
    CniRequest,
    Dns,
    IpamConfig,
    NetworkConfig,
    Observed,
    ObservedLink,
    Route,
    at_least,
)

ID = "f00d" * 16
NETNS = "/run/netns/red"
GATEWAY = IPv4Address("10.32.0.1")
DEFAULT_ROUTE = Route(IPv4Network("0.0.0.0/0"), GATEWAY)


def body(verb: str = "ADD", config: object = None, cni_args: str = "", netns: str = NETNS, **keys: object) -> bytes:
    """A call as the executable sends it: a good one, but for what is given."""
    if config is None:
        config = {"cniVersion": "1.1.0", "name": "weave", **keys}
    stdin = config if isinstance(config, bytes) else json.dumps(config).encode()
    return f"{verb}\0{ID}\0{netns}\0eth0\0{cni_args}\0/opt/cni/bin\0".encode() + stdin


def request(verb: str = "ADD", **keys: object) -> CniRequest:
    return parse_request(body(verb, **keys))


def refused(call: bytes) -> CniError:
    with pytest.raises(CniError) as told:
        parse_request(call)
    error = json.loads(told.value.to_json())
    assert error["code"] == told.value.code
    assert error["cniVersion"] in VERSIONS
    return told.value


# ---- requests


def test_a_plain_request_has_weaves_defaults() -> None:
    asked = request()
    assert asked.attachment == ("weave", ID, "eth0")
    assert (asked.netns, asked.cni_version, asked.previous, asked.args) == (NETNS, "1.1.0", None, {})
    assert asked.config == NetworkConfig(bridge="weave", mtu_bytes=0, hairpin=True)


def test_every_key_is_read() -> None:
    asked = request(
        bridge="br0",
        mtu=1376,
        hairpinMode=False,
        isGateway=False,
        ipMasq=False,
        ipam={"type": "", "subnet": "10.40.0.0/16", "gateway": "10.40.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        dns={"nameservers": ["10.96.0.10"], "domain": "cluster.local", "search": ["svc"], "options": ["ndots:5"]},
        runtimeConfig={"ips": ["10.40.0.9/16"], "mac": "0A:58:0A:28:00:09"},
    )
    assert asked.config == NetworkConfig(
        bridge="br0",
        mtu_bytes=1376,
        hairpin=False,
        ipam=IpamConfig(
            ((AddressRange(IPv4Network("10.40.0.0/16"), gateway=IPv4Address("10.40.0.1")),),),
            IPv4Address("10.40.0.1"),
            (Route(IPv4Network("0.0.0.0/0")),),
        ),
        dns=Dns(("10.96.0.10",), "cluster.local", ("svc",), ("ndots:5",)),
        requested_addresses=(IPv4Address("10.40.0.9"),),
        requested_mac="0a:58:0a:28:00:09",
        is_gateway=False,
        masquerade=False,
    )


def test_an_empty_list_of_routes_is_not_the_same_as_none() -> None:
    assert request(ipam={"routes": []}).config.ipam.routes == ()
    assert request(ipam={}).config.ipam.routes is None
    assert request(ipam=None).config.ipam.routes is None


def test_a_dns_of_the_runtime_replaces_that_of_the_configuration() -> None:
    asked = request(dns={"domain": "a"}, runtimeConfig={"dns": {"servers": ["1.1.1.1"], "searches": ["b"]}})
    assert asked.config.dns == Dns(nameservers=("1.1.1.1",), search=("b",))


def test_the_runtime_is_stronger_than_args_and_args_than_the_environment() -> None:
    sources: dict[str, object] = {
        "runtimeConfig": {"ips": ["10.32.0.1"], "mac": "02:00:00:00:00:01"},
        "args": {"cni": {"ips": ["10.32.0.2"], "mac": "02:00:00:00:00:02"}},
    }
    by_environment = "IP=10.32.0.3/12;MAC=02:00:00:00:00:03"
    found = []
    for dropped in ([], ["runtimeConfig"], ["runtimeConfig", "args"]):
        keys = {key: value for key, value in sources.items() if key not in dropped}
        config = parse_request(body(cni_args=by_environment, **keys)).config
        found.append((str(config.requested_addresses[0])[-1], config.requested_mac[-1]))
    assert found == [("1", "1"), ("2", "2"), ("3", "3")]


def test_the_pods_name_is_known_when_the_runtime_tells_it() -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_INFRA_CONTAINER_ID=x;OTHER=y"
    asked = parse_request(body(cni_args=args))
    assert (asked.pod, asked.args["OTHER"]) == ("shop/cart", "y")
    assert request().pod == ""


REFUSED = [
    # why, call, code, part of the message
    ("too few fields", b"ADD\0" + ID.encode(), 6, "parted by NUL"),
    ("empty", b"", 6, "parted by NUL"),
    ("unknown verb", body("UPDATE"), 4, "unknown CNI_COMMAND"),
    ("VERSION is not the agent's", body("VERSION"), 4, "unknown CNI_COMMAND"),
    ("no netns", body(netns=""), 4, "required env variables [CNI_NETNS] missing"),
    ("no JSON", body(config=b"{"), 6, "not valid JSON"),
    ("UTF-16", body(config='{"name": "weave"}'.encode("utf-16")), 6, "not valid JSON"),
    ("no object", body(config=[1]), 6, "must be a JSON object, found [1]"),
    ("no name", body(config={}), 7, "missing network name"),
    ("odd name", body(name="a/b"), 7, "invalid characters found in network name"),
    ("unknown version", body(cniVersion="1.2.0"), 1, "incompatible CNI versions"),
    ("args without =", body(cni_args="A"), 4, "invalid pair 'A'"),
    ("args with two =", body(cni_args="A=b=c"), 4, "invalid pair"),
    ("args ending in ;", body(cni_args="IP=10.32.0.9;"), 4, "invalid pair ''"),
    ("unknown args", body(cni_args="A=b"), 4, "unknown args A"),
    ("odd IgnoreUnknown", body(cni_args="IgnoreUnknown=yes"), 4, "IgnoreUnknown must be"),
    ("gateway truth", body(isGateway=1), 7, '"isGateway" must be true or false'),
    ("masquerade truth", body(ipMasq="yes"), 7, '"ipMasq" must be true or false'),
    ("vlan", body(vlan=7), 2, 'unsupported field "vlan": 7'),
    ("port isolation", body(portIsolation=True), 2, 'unsupported field "portIsolation": true'),
    ("type of ipam", body(ipam={"type": 7}), 7, '"type" must be a string'),
    ("ipam is ourselves", body(ipam={"type": "weave-net"}), 7, "is not the name of an IPAM plugin"),
    ("ipam is a path", body(ipam={"type": "../x"}), 7, "is not the name of an IPAM plugin"),
    ("attribute of a route", body(ipam={"routes": [{"dst": "0.0.0.0/0", "mtu": 9}]}), 2, '"ipam.routes[].mtu": 9'),
    ("IPv6 route", body(ipam={"routes": [{"dst": "::/0"}]}), 2, "is IPv6"),
    ("IPv6 address", body(runtimeConfig={"ips": ["fd00::1"]}), 2, "is IPv6"),
    ("an address twice", body(runtimeConfig={"ips": ["10.32.0.2", "10.32.0.2/16"]}), 7, "asked for twice"),
    ("ranges", body(runtimeConfig={"ipRanges": {}}), 7, '"runtimeConfig.ipRanges" must be a list'),
    ("range set", body(runtimeConfig={"ipRanges": [{}]}), 7, 'each of "runtimeConfig.ipRanges" must be a list'),
    ("empty set", body(runtimeConfig={"ipRanges": [[]]}), 7, "needs a range"),
    ("no subnet", body(runtimeConfig={"ipRanges": [[{}]]}), 7, '"runtimeConfig.ipRanges.subnet" must be an IPv4'),
    ("IPv6 range", body(runtimeConfig={"ipRanges": [[{"subnet": "fd00::/64"}]]}), 2, "is IPv6"),
    (
        "start outside",
        body(ipam={"subnet": "10.32.5.0/24", "rangeStart": "10.32.6.1"}),
        7,
        '"ipam.rangeStart": 10.32.6.1 is not in the subnet 10.32.5.0/24',
    ),
    (
        "start behind end",
        body(ipam={"subnet": "10.32.5.0/24", "rangeStart": "10.32.5.9", "rangeEnd": "10.32.5.8"}),
        7,
        "is behind rangeEnd",
    ),
    (
        "address outside the ranges",
        body(ipam={"subnet": "10.32.5.0/24"}, runtimeConfig={"ips": ["10.32.6.1"]}),
        7,
        "10.32.6.1 that is asked for is in none of the ranges 10.32.5.0/24",
    ),
    ("bridge name", body(bridge="a/b"), 7, '"bridge"'),
    ("long bridge name", body(bridge="b" * 16), 7, "too long"),
    ("bridge type", body(bridge=1), 7, '"bridge" must be a string, found 1'),
    ("mtu type", body(mtu="1500"), 7, '"mtu" must be a whole number, found "1500"'),
    ("mtu truth", body(mtu=True), 7, '"mtu" must be a whole number, found true'),
    ("small mtu", body(mtu=60), 7, '"mtu" must be 0 or 68 to 65535'),
    ("negative mtu", body(mtu=-1), 7, '"mtu" must be 0 or'),
    ("hairpin", body(hairpinMode=1), 7, '"hairpinMode" must be true or false'),
    ("subnet", body(ipam={"subnet": "10.32.0.0/33"}), 7, '"ipam.subnet" must be an IPv4 network'),
    ("gateway address", body(ipam={"gateway": "fd00::1"}), 7, '"ipam.gateway" must be an IPv4 address'),
    ("route", body(ipam={"routes": [{"gw": "10.32.0.1"}]}), 7, '"ipam.routes[].dst"'),
    ("routes", body(ipam={"routes": {}}), 7, '"ipam.routes" must be a list'),
    ("dns", body(dns={"search": [1]}), 7, 'each of "search" must be a string'),
    ("runtime ips", body(runtimeConfig={"ips": ["x"]}), 7, '"requested address" must be an IPv4 address'),
    ("mac", body(runtimeConfig={"mac": "02:00"}), 7, "a MAC address looks like"),
    ("multicast mac", body(runtimeConfig={"mac": "01:00:00:00:00:01"}), 7, "multicast"),
    ("prevResult", body(prevResult=[]), 6, "prevResult must be an object"),
    ("part of prevResult", body(prevResult={"ips": [{}]}), 7, 'each of "prevResult.ips" needs an "address"'),
    ("interface of prevResult", body(prevResult={"interfaces": [7]}), 7, 'each of "prevResult.interfaces" must be'),
    ("CHECK without prevResult", body("CHECK"), 7, "required prevResult missing"),
    ("GC list", body("GC", **{"cni.dev/valid-attachments": [{"ifname": "eth0"}]}), 7, "needs containerID and ifname"),
    ("GC list type", body("GC", **{"cni.dev/valid-attachments": {}}), 7, "must be a list"),
    ("too long", body(config=b" " * (16 << 20)), 6, "at most"),
]


@pytest.mark.parametrize(("call", "code", "part"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_bad_request_is_refused_with_its_code(call: bytes, code: int, part: str) -> None:
    error = refused(call)
    assert error.code == code
    assert part in error.message


@pytest.mark.parametrize("verb", ["DEL", "GC", "STATUS"])
def test_keys_that_only_add_reads_never_stop_another_verb(verb: str) -> None:
    asked = parse_request(body(verb, cni_args="A;B=c", isGateway=True, mtu="x", prevResult=7, runtimeConfig=1))
    assert (asked.config, asked.previous, asked.args) == (NetworkConfig(), None, {"B": "c"})


@pytest.mark.parametrize(("verb", "since"), VERBS.items())
def test_a_verb_exists_from_its_version_on(verb: str, since: str) -> None:
    for version in VERSIONS:
        call = body(verb, cniVersion=version, prevResult={"cniVersion": version})
        if at_least(version, since):
            assert parse_request(call).cni_version == version
        else:
            error = refused(call)
            assert (error.code, error.message) == (1, f"config version does not allow {verb}")
            assert error.cni_version == version


@pytest.mark.parametrize(
    "config", [{"name": "weave"}, {"name": "weave", "cniVersion": ""}, {"name": "weave", "cniVersion": None}]
)
def test_no_version_is_the_oldest(config: dict[str, object]) -> None:
    assert parse_request(body(config=config)).cni_version == "0.1.0"


GC_LISTS = [
    ({}, None),
    ({"cni.dev/valid-attachments": None}, None),
    ({"cni.dev/valid-attachments": []}, frozenset()),
    ({"cni.dev/attachments": [{"containerID": "a", "ifname": "eth0"}]}, frozenset({("a", "eth0")})),
    (
        {"cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth1"}], "cni.dev/attachments": []},
        frozenset({("b", "eth1")}),
    ),
]


@pytest.mark.parametrize(("keys", "expected"), GC_LISTS)
def test_gc_tells_no_list_from_an_empty_one(
    keys: dict[str, object], expected: frozenset[tuple[str, str]] | None
) -> None:
    assert parse_request(body("GC", **keys)).valid_attachments == expected


def test_names_in_the_queue_are_unambiguous_and_fit_a_file_system() -> None:
    assert queue_name("a-b", "c", "eth0") != queue_name("a", "b-c", "eth0")
    assert len(queue_name("weave", "a" * 1000, "eth0")) == 64


# ---- errors


def test_an_error_names_its_version_code_message_and_details() -> None:
    error = CniError(TRY_AGAIN_LATER, "not now", "in a second")
    assert json.loads(error.to_json()) == {
        "cniVersion": "1.1.0",
        "code": 11,
        "msg": "not now",
        "details": "in a second",
    }
    assert json.loads(error.to_json("0.4.0"))["cniVersion"] == "0.4.0"
    assert "details" not in json.loads(CniError(11, "not now").to_json())


# ---- results

ATTACHED = Attached(
    bridge="weave",
    bridge_mac="0a:00:00:00:00:01",
    host_ifname="vethweplf00df00",
    host_mac="0a:00:00:00:00:02",
    ifname="eth0",
    mac="0a:00:00:00:00:03",
    sandbox=NETNS,
    mtu_bytes=1450,
    addresses=((IPv4Interface("10.32.0.2/12"), GATEWAY),),
    routes=(DEFAULT_ROUTE,),
)
INTERFACES = [
    {"name": "weave", "mac": "0a:00:00:00:00:01"},
    {"name": "vethweplf00df00", "mac": "0a:00:00:00:00:02"},
    {"name": "eth0", "mac": "0a:00:00:00:00:03", "sandbox": NETNS},
]
WITH_MTU = [*INTERFACES[:2], INTERFACES[2] | {"mtu": 1450}]
IPS = [{"address": "10.32.0.2/12", "gateway": "10.32.0.1", "interface": 2}]
IPS_4 = [{"version": "4", **IPS[0]}]
ROUTES = [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}]
OLD = {"ip4": {"ip": "10.32.0.2/12", "gateway": "10.32.0.1", "routes": ROUTES}, "dns": {}}
SHAPES = {
    "0.1.0": OLD,
    "0.2.0": OLD,
    "0.3.0": {"interfaces": INTERFACES, "ips": IPS_4, "routes": ROUTES, "dns": {}},
    "0.3.1": {"interfaces": INTERFACES, "ips": IPS_4, "routes": ROUTES, "dns": {}},
    "0.4.0": {"interfaces": INTERFACES, "ips": IPS_4, "routes": ROUTES, "dns": {}},
    "1.0.0": {"interfaces": INTERFACES, "ips": IPS, "routes": ROUTES},
    "1.1.0": {"interfaces": WITH_MTU, "ips": IPS, "routes": ROUTES},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_result_has_the_shape_of_the_requests_version(version: str) -> None:
    printed = result_json(request(cniVersion=version), ATTACHED)
    assert printed.endswith("}\n")
    assert json.loads(printed) == {"cniVersion": version, **SHAPES[version]}


@pytest.mark.parametrize("version", VERSIONS)
def test_converting_a_result_there_and_back_loses_only_what_the_version_lacks(version: str) -> None:
    printed = json.loads(result_json(request(cniVersion=version), ATTACHED))
    again = converted(normalized(printed), version)
    assert again == printed


def test_dns_is_passed_through() -> None:
    attached = replace(ATTACHED, dns=Dns(nameservers=("10.96.0.10",), search=("svc",)))
    assert json.loads(result_json(request(), attached))["dns"] == {"nameservers": ["10.96.0.10"], "search": ["svc"]}


def test_the_oldest_versions_cannot_say_that_there_is_no_address() -> None:
    with pytest.raises(CniError, match="no valid IP addresses"):
        result_json(request(cniVersion="0.2.0"), replace(ATTACHED, addresses=()))


def test_a_result_of_an_earlier_plugin_is_kept_and_ours_comes_after_it() -> None:
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "dummy0", "sandbox": NETNS, "mac": "02:00:00:00:00:09"}],
        "ips": [{"address": "10.99.0.1/24", "interface": 0}],
        "routes": [{"dst": "10.99.0.0/16"}],
        "dns": {"domain": "kept"},
    }
    result = json.loads(result_json(request(prevResult=previous), ATTACHED))
    assert [entry["name"] for entry in result["interfaces"]] == ["dummy0", "weave", "vethweplf00df00", "eth0"]
    assert [entry["interface"] for entry in result["ips"]] == [0, 3]
    assert [entry["dst"] for entry in result["routes"]] == ["10.99.0.0/16", "0.0.0.0/0"]
    assert result["dns"] == {"domain": "kept"}


def test_both_families_of_a_dual_stack_chain_are_told_apart() -> None:
    previous = {"ips": [{"address": "fd00::2/64", "gateway": "fd00::1"}], "routes": [{"dst": "::/0", "priority": 7}]}
    result = json.loads(result_json(request(cniVersion="0.2.0", prevResult=previous), ATTACHED))
    assert result["ip6"] == {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]}
    assert result["ip4"] == OLD["ip4"]


# ---- CHECK

LINK = ObservedLink("eth0", "0a:00:00:00:00:03", 1450, up=True)
HOST = ObservedLink("vethweplf00df00", "0a:00:00:00:00:02", 1450, up=True)
AS_MADE = Observed(
    container=LINK,
    host_ifname=HOST.ifname,
    host=HOST,
    host_master="weave",
    hairpin=True,
    addresses=(IPv4Interface("10.32.0.2/12"),),
    routes=(DEFAULT_ROUTE, Route(IPv4Network("10.32.0.0/12"))),
    reserved=(IPv4Address("10.32.0.2"),),
)


def checked(**keys: object) -> CniRequest:
    previous = json.loads(result_json(request(), ATTACHED))
    return request("CHECK", **{"prevResult": previous, **keys})


@pytest.mark.parametrize("version", VERSIONS[4:])
def test_check_finds_nothing_right_after_add(version: str) -> None:
    previous = json.loads(result_json(request(cniVersion=version), ATTACHED))
    assert check_differences(request("CHECK", cniVersion=version, prevResult=previous), AS_MADE) == []


SABOTAGE = [
    ({"container": None}, ["interface eth0 is missing in the pod: it was deleted or renamed"]),
    ({"container": replace(LINK, up=False)}, ["interface eth0 in the pod is down"]),
    (
        {"container": replace(LINK, mac="02:00:00:00:00:ff")},
        ["interface eth0 in the pod has MAC 02:00:00:00:00:ff, it was given 0a:00:00:00:00:03"],
    ),
    ({"container": replace(LINK, mtu_bytes=1500)}, ["interface eth0 in the pod has MTU 1500, it was given 1450"]),
    ({"host": None}, ["host interface vethweplf00df00 is missing on the node"]),
    ({"host": replace(HOST, up=False)}, ["host interface vethweplf00df00 is down"]),
    ({"paired": False}, ["host interface vethweplf00df00 is not the other end of eth0"]),
    (
        {"host_master": ""},
        ["host interface vethweplf00df00 must be a port of bridge weave, it is a port of no bridge"],
    ),
    (
        {"host_master": "docker0"},
        ["host interface vethweplf00df00 must be a port of bridge weave, it is a port of docker0"],
    ),
    ({"hairpin": False}, ["hairpin mode of vethweplf00df00 is off, it must be on"]),
    ({"hairpin": None}, []),
    ({"addresses": ()}, ["address 10.32.0.2/12 is missing in the pod, found none"]),
    (
        {"addresses": (IPv4Interface("10.32.0.2/16"),)},
        ["address 10.32.0.2/12 is missing in the pod, found 10.32.0.2/16"],
    ),
    ({"addresses": (*AS_MADE.addresses, IPv4Interface("10.9.9.9/24"))}, []),
    ({"reserved": ()}, ["address 10.32.0.2/12 is not reserved for this pod: another pod could be given it"]),
    ({"routes": ()}, ["route to 0.0.0.0/0 via 10.32.0.1 is missing in the pod"]),
    (
        {"routes": (Route(IPv4Network("0.0.0.0/0"), IPv4Address("10.32.0.66")),)},
        ["route to 0.0.0.0/0 via 10.32.0.1 is missing in the pod, it goes via 10.32.0.66"],
    ),
]


@pytest.mark.parametrize(("changes", "expected"), SABOTAGE)
def test_check_names_each_kind_of_sabotage(changes: dict[str, object], expected: list[str]) -> None:
    observed = replace(AS_MADE, **changes)  # type: ignore[arg-type]
    assert check_differences(checked(), observed) == expected


def test_check_looks_at_what_later_plugins_changed_through_their_result() -> None:
    previous = json.loads(result_json(request(), ATTACHED))
    previous["interfaces"][2]["mac"] = "02:00:00:00:00:77"  # tuning
    previous["interfaces"].append({"name": "bwp0", "mac": "02:00:00:00:00:78"})  # bandwidth
    previous["ips"].append({"address": "192.0.2.7/24", "interface": 3})
    observed = replace(AS_MADE, container=replace(LINK, mac="02:00:00:00:00:77"))
    assert check_differences(checked(prevResult=previous), observed) == []


def test_check_says_when_prevresult_is_of_another_attachment() -> None:
    assert check_differences(checked(prevResult={"interfaces": [{"name": "net1", "sandbox": NETNS}]}), AS_MADE) == [
        f"prevResult names no interface eth0 in {NETNS}"
    ]


def test_a_failed_check_puts_the_first_difference_in_the_message_and_all_in_the_details() -> None:
    error = check_failed(["a is gone", "b is gone"])
    assert (error.code, error.message) == (103, "the attachment is not as it was made: a is gone")
    assert error.details == "a is gone; b is gone"
