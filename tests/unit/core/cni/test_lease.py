"""What a pod is given: by the agent's own choice, and by another plugin's result at any version."""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from plugin.core.cni.ipam import IpamCall, IpamPlan, delegate_of, own_ipam, subnet_complaint
from plugin.core.cni.lease import ADDRESSES_MAX, delegated_lease, own_lease
from plugin.core.cni.types import IPAM_FAILED, AddressRange, CniError, Delegate, Dns, IpamConfig, NetworkConfig, Route

RANGE, SWITCH = IPv4Network("10.32.0.0/12"), IPv4Address("10.32.0.1")
POD, GATEWAY = IPv4Address("10.32.5.2"), IPv4Address("10.32.5.1")
EVERYWHERE, ELSEWHERE = IPv4Network("0.0.0.0/0"), IPv4Network("192.168.99.0/24")


def own(config: NetworkConfig, *addresses: IPv4Address) -> Any:
    return own_lease(addresses or (POD,), config, pod_range=RANGE, switch=SWITCH)


def delegated(result: object, config: NetworkConfig | None = None) -> Any:
    printed = result if isinstance(result, bytes) else json.dumps(result).encode()
    return delegated_lease(printed, "fake", config or NetworkConfig(), switch=SWITCH)


def refused(result: object, config: NetworkConfig | None = None) -> CniError:
    with pytest.raises(CniError) as told:
        delegated(result, config)
    return told.value


# ---- the agent's own


def test_the_switch_is_the_gateway_and_the_way_to_everywhere() -> None:
    lease = own(NetworkConfig(), POD, POD + 1)
    assert lease.addresses == tuple((IPv4Interface((address, 12)), SWITCH) for address in (POD, POD + 1))
    assert (lease.routes, lease.dns) == ((Route(EVERYWHERE, SWITCH),), Dns())


@pytest.mark.parametrize(
    ("config", "gateway", "routes"),
    [
        (NetworkConfig(is_gateway=False), None, ()),
        (NetworkConfig(default_gateway=False), SWITCH, ()),
        (NetworkConfig(ipam=IpamConfig(routes=())), SWITCH, ()),
        (NetworkConfig(ipam=IpamConfig(gateway=GATEWAY)), GATEWAY, (Route(EVERYWHERE, GATEWAY),)),
        (NetworkConfig(ipam=IpamConfig(routes=(Route(ELSEWHERE),))), SWITCH, (Route(ELSEWHERE, SWITCH),)),
        (
            NetworkConfig(ipam=IpamConfig(routes=(Route(ELSEWHERE),)), default_gateway=True),
            SWITCH,
            (Route(ELSEWHERE, SWITCH), Route(EVERYWHERE, SWITCH)),
        ),
        (
            NetworkConfig(ipam=IpamConfig(routes=(Route(EVERYWHERE, POD),)), default_gateway=True),
            SWITCH,
            (Route(EVERYWHERE, POD),),
        ),
        (NetworkConfig(is_gateway=False, ipam=IpamConfig(routes=(Route(ELSEWHERE),))), None, (Route(ELSEWHERE),)),
    ],
)
def test_what_a_configuration_makes_of_gateway_and_routes(
    config: NetworkConfig, gateway: IPv4Address | None, routes: tuple[Route, ...]
) -> None:
    lease = own(config)
    assert (lease.addresses[0][1], lease.routes) == (gateway, routes)


def test_a_gateway_of_the_range_an_address_is_from_is_used_and_its_way_comes_first() -> None:
    ranges = ((AddressRange(IPv4Network("10.32.5.0/24"), gateway=IPv4Address("172.30.0.1")),),)
    lease = own(NetworkConfig(ipam=IpamConfig(ranges=ranges, gateway=GATEWAY)), POD, IPv4Address("10.33.0.1"))
    assert [gateway for _, gateway in lease.addresses] == [IPv4Address("172.30.0.1"), GATEWAY]
    assert lease.routes == (
        Route(IPv4Network("172.30.0.1/32")), Route(EVERYWHERE, IPv4Address("172.30.0.1")),
    )  # fmt: skip


# ---- another plugin's

RESULTS = [
    {"ip4": {"ip": "10.32.5.2/24", "gateway": "10.32.5.1", "routes": [{"dst": "192.168.99.0/24"}]}},
    {
        "cniVersion": "0.4.0",
        "ips": [{"version": "4", "address": "10.32.5.2/24", "gateway": "10.32.5.1"}],
        "routes": [{"dst": "192.168.99.0/24"}],
    },
    {
        "cniVersion": "1.1.0",
        "ips": [{"address": "10.32.5.2/24", "gateway": "10.32.5.1", "interface": 0}],
        "routes": [{"dst": "192.168.99.0/24", "gw": None, "mtu": None}],
        "dns": None,
    },
]


@pytest.mark.parametrize("result", RESULTS, ids=["0.2.0", "0.4.0", "1.1.0"])
def test_a_result_of_any_version_is_read(result: dict[str, object]) -> None:
    lease = delegated(result)
    assert lease.addresses == ((IPv4Interface("10.32.5.2/24"), GATEWAY),)
    assert lease.routes == (Route(ELSEWHERE, GATEWAY),)


def test_the_way_to_a_gateway_may_be_told_by_the_plugin_itself() -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "169.254.1.1/32"}]
    lease = delegated({"ips": [{"address": "10.32.5.2/32", "gateway": "169.254.1.1"}], "routes": routes})
    way = IPv4Network("169.254.1.1/32")
    assert lease.routes == (Route(way), Route(EVERYWHERE, IPv4Address("169.254.1.1")))


def test_the_configurations_dns_is_stronger_than_the_plugins() -> None:
    result = {"ips": [{"address": "10.32.5.2/24"}], "dns": {"domain": "theirs"}}
    assert delegated(result).dns == Dns(domain="theirs")
    assert delegated(result, NetworkConfig(dns=Dns(domain="ours"))).dns == Dns(domain="ours")


def test_without_gateway_the_switch_serves_unless_it_must_not() -> None:
    result = {"ips": [{"address": "10.32.5.2/24"}]}
    assert delegated(result).addresses[0][1] == SWITCH
    assert delegated(result).routes == (Route(IPv4Network(SWITCH)), Route(EVERYWHERE, SWITCH))
    lease = delegated(result, NetworkConfig(is_gateway=False))
    assert (lease.addresses[0][1], lease.routes) == (None, ())


UNREADABLE: list[tuple[object, int, str]] = [
    (b"", 104, "cannot be read"),
    (b"\xff", 104, "cannot be read"),
    (b"[" * 100_000, 104, "cannot be read"),
    ([], 104, "cannot be read"),
    ({"ips": 7}, 104, "cannot be read"),
    ({"ips": [{"address": 7}]}, 104, "cannot be read"),
    ({"ips": [{"address": "10.32.5.2/99"}]}, 104, "cannot be read"),
    ({"ips": [{"address": "10.32.5.2/24", "gateway": "red"}]}, 104, "cannot be read"),
    ({"ips": [{"address": "10.32.5.2/24"}], "routes": [{"dst": "red"}]}, 104, "cannot be read"),
    ({"ips": [{"address": "10.32.5.2/24"}], "dns": 7}, 104, "cannot be read"),
    ({}, 104, "gave no address"),
    ({"ips": [{"address": f"10.32.5.{number}/24"} for number in range(ADDRESSES_MAX + 1)]}, 2, "gave 17 addresses"),
    ({"ip6": {"ip": "fd00::2/64"}}, 2, "IPv6"),
    ({"ips": [{"address": "10.32.5.2/24", "gateway": "fd00::1"}]}, 2, "IPv6"),
    ({"ips": [{"address": "10.32.5.2/24"}], "routes": [{"dst": "::/0"}]}, 2, "IPv6"),
    ({"ips": [{"address": "10.32.5.2/24"}], "routes": [{"dst": "0.0.0.0/0", "scope": 0}]}, 2, "scope"),
]


@pytest.mark.parametrize(("result", "code", "words"), UNREADABLE)
def test_what_is_no_result_or_cannot_be_had_is_told_with_the_plugins_name(
    result: object, code: int, words: str
) -> None:
    error = refused(result)
    assert (error.code, "fake" in error.message) == (code, True)
    assert words in error.message


# ---- ipam


def test_only_a_plain_name_is_another_plugin() -> None:
    assert delegate_of({"ipam": {"type": "host-local", "x": 1}}, strict=True) == Delegate(
        "host-local", {"type": "host-local", "x": 1}
    )
    for ipam in ({}, {"type": ""}, {"type": None}, {"type": "weave-ipam"}, None):
        assert delegate_of({"ipam": ipam}, strict=True) is None
    for odd in (7, {"type": 7}, {"type": "a/b"}, {"type": "weave-net"}, {"type": ".."}):
        assert delegate_of({"ipam": odd}, strict=False) is None
        with pytest.raises(CniError):
            delegate_of({"ipam": odd}, strict=True)


def test_the_runtimes_ranges_replace_those_of_the_configuration() -> None:
    conf = {"subnet": "10.32.5.0/24", "rangeStart": "10.32.5.9", "ranges": [[{"subnet": "10.33.0.0/16"}]]}
    (from_ranges,), (from_runtime,) = (
        own_ipam(conf, given).ranges for given in ({}, {"ipRanges": [[{"subnet": "10.34.0.0/16"}]]})
    )
    assert [str(one) for one in (*from_ranges, *from_runtime)] == ["10.33.0.0/16", "10.34.0.0/16"]
    del conf["ranges"]
    ((alone,),) = own_ipam(conf, {}).ranges
    assert str(alone) == "10.32.5.9-10.32.5.254"
    assert (IPv4Address("10.32.5.9") in alone, IPv4Address("10.32.5.8") in alone) == (True, False)


@pytest.mark.parametrize(
    ("subnet", "fits"), [("10.32.0.0/12", True), ("10.33.0.0/30", True), ("10.33.0.0/31", False), ("10.0.0.0/8", False)]
)
def test_a_range_has_to_be_a_part_of_the_pod_range_with_room(subnet: str, *, fits: bool) -> None:
    complaint = subnet_complaint(AddressRange(IPv4Network(subnet)), RANGE, 30)
    assert (complaint == "") is fits
    assert fits or subnet in complaint


def test_a_plan_names_only_what_differs_from_the_call_itself() -> None:
    plan = IpamPlan((IpamCall("a", "DEL", ("x", "eth0"), {"type": "a"}), IpamCall("b", "GC")))
    assert json.loads(plan.to_json()) == {
        "calls": [
            {"type": "a", "command": "DEL", "containerID": "x", "ifname": "eth0", "ipam": {"type": "a"}},
            {"type": "b", "command": "GC"},
        ]
    }


def test_code_104_is_ours() -> None:
    assert IPAM_FAILED == 104
