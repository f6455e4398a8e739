"""Host ports and bandwidth: what a runtime may ask for, in which words, and which of it stands in whose way."""

import json
from typing import Any

import pytest

from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.cni.capabilities import MAPPINGS_MAX, fitted, parse_bandwidth, parse_port_mappings
from plugin.core.cni.hostports import PortMapping, first_overlap
from plugin.core.cni.request import parse_request
from plugin.core.cni.types import CniError, CniRequest

CONTAINERD_BURST = 2**32 - 1


def mappings(*entries: Any) -> tuple[PortMapping, ...]:
    return parse_port_mappings({"portMappings": list(entries)})


def refusal(*entries: Any) -> str:
    with pytest.raises(CniError) as raised:
        mappings(*entries)
    assert raised.value.code == 7
    return raised.value.message


WEB = {"hostPort": 8080, "containerPort": 80}


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        (WEB, "0.0.0.0:8080->80/tcp"),
        (WEB | {"protocol": "tcp", "hostIP": ""}, "0.0.0.0:8080->80/tcp"),
        (WEB | {"protocol": None, "hostIP": None}, "0.0.0.0:8080->80/tcp"),
        (WEB | {"protocol": "UDP", "hostIP": "0.0.0.0"}, "0.0.0.0:8080->80/udp"),
        (WEB | {"protocol": "sctp", "hostIP": "192.168.56.11"}, "192.168.56.11:8080->80/sctp"),
        ({"hostPort": 65535, "containerPort": 1, "anything": "else"}, "0.0.0.0:65535->1/tcp"),
    ],
)
def test_a_mapping_is_read_with_its_defaults(entry: dict[str, Any], wanted: str) -> None:
    assert [str(mapping) for mapping in mappings(entry)] == [wanted]


@pytest.mark.parametrize("runtime_config", [{}, {"portMappings": None}, {"portMappings": []}])
def test_nothing_asked_for_is_nothing(runtime_config: dict[str, Any]) -> None:
    assert parse_port_mappings(runtime_config) == ()


@pytest.mark.parametrize("entry", [{}, {"containerPort": 80}, {"hostPort": 0, "containerPort": 80, "protocol": "x"}])
def test_an_entry_without_a_host_port_is_passed_over(entry: dict[str, Any]) -> None:
    assert mappings(entry, WEB) == mappings(WEB)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"hostPort": -1, "containerPort": 80}, "hostPort"),
        ({"hostPort": 65536, "containerPort": 80}, "hostPort"),
        ({"hostPort": "80", "containerPort": 80}, "hostPort"),
        ({"hostPort": True, "containerPort": 80}, "hostPort"),
        ({"hostPort": 80.0, "containerPort": 80}, "hostPort"),
        ({"hostPort": 80}, "containerPort"),
        ({"hostPort": 80, "containerPort": 0}, "containerPort"),
        ({"hostPort": 80, "containerPort": 65536}, "containerPort"),
        (WEB | {"protocol": "icmp"}, "protocol"),
        (WEB | {"protocol": 6}, "protocol"),
        (WEB | {"hostIP": "localhost"}, "hostIP"),
        (WEB | {"hostIP": "::"}, "hostIP"),
        (WEB | {"hostIP": "10.0.0.0/8"}, "hostIP"),
        ("8080:80", "portMappings"),
    ],
)
def test_an_impossible_value_is_refused_by_the_name_of_its_key(entry: Any, key: str) -> None:
    assert key in refusal(entry)


def test_a_list_that_is_none_and_one_without_end_are_refused() -> None:
    with pytest.raises(CniError, match="portMappings"):
        parse_port_mappings({"portMappings": WEB})
    many = [{"hostPort": number + 1, "containerPort": 1} for number in range(MAPPINGS_MAX + 1)]
    assert str(MAPPINGS_MAX) in refusal(*many)
    assert len(mappings(*many[:-1])) == MAPPINGS_MAX


def test_the_same_mapping_twice_is_one_and_two_that_contradict_each_other_are_refused() -> None:
    assert mappings(WEB, dict(WEB)) == mappings(WEB)
    assert "twice" in refusal(WEB, WEB | {"containerPort": 81})
    assert "twice" in refusal(WEB, WEB | {"hostIP": "192.168.56.11"})
    assert len(mappings(WEB, WEB | {"protocol": "udp"}, WEB | {"hostPort": 8081})) == 3
    assert len(mappings(WEB | {"hostIP": "127.0.0.1"}, WEB | {"hostIP": "192.168.56.11"})) == 2


ANY, ONE, TWO = (PortMapping(host_port=80, container_port=1, host_ip=ip) for ip in ("0.0.0.0", "10.1.1.1", "10.1.1.2"))
UDP = PortMapping(host_port=80, container_port=1, protocol="udp")


@pytest.mark.parametrize(
    ("wanted", "taken", "rival"),
    [
        (ANY, [ANY], ANY),
        (ANY, [ONE], ONE),
        (ONE, [ANY], ANY),
        (ONE, [TWO, ONE], ONE),
        (ONE, [TWO], None),
        (ANY, [UDP], None),
        (ANY, [PortMapping(host_port=81, container_port=1)], None),
        (PortMapping(host_port=80, container_port=2), [ANY], ANY),  # what it leads to does not matter
        (ANY, [], None),
    ],
)
def test_any_address_overlaps_with_each_one(
    wanted: PortMapping, taken: list[PortMapping], rival: PortMapping | None
) -> None:
    other = PortMapping(host_port=443, container_port=1)
    assert first_overlap([other, wanted], taken) == (rival and (wanted, rival))
    assert first_overlap([], taken) is None


# ---- bandwidth


def bandwidth(**keys: Any) -> Bandwidth:
    return parse_bandwidth({}, {"bandwidth": keys})


def test_bits_become_bytes_and_a_direction_without_a_rate_has_no_limit() -> None:
    assert bandwidth(ingressRate=8_000_000, ingressBurst=80_000) == Bandwidth(Limit(1_000_000, 10_000), None)
    assert bandwidth(egressRate=8_000_000, egressBurst=80_001) == Bandwidth(None, Limit(1_000_000, 10_001))
    assert not bandwidth(ingressRate=0, ingressBurst=0)
    assert not parse_bandwidth({}, {})


def test_the_runtimes_word_replaces_the_configurations_as_a_whole() -> None:
    raw = {"ingressRate": 8_000, "ingressBurst": 80_000, "egressRate": 16_000}
    assert parse_bandwidth(raw, {}) == Bandwidth(Limit(1_000, 10_000), Limit(2_000))
    assert parse_bandwidth(raw, {"bandwidth": {}}) == parse_bandwidth(raw, {})
    assert parse_bandwidth(raw, {"bandwidth": {"egressRate": 8_000}}) == Bandwidth(None, Limit(1_000))


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"ingressRate": -1}, "ingressRate"),
        ({"ingressRate": 999}, "ingressRate"),
        ({"egressRate": 10**15 + 1}, "egressRate"),
        ({"egressRate": 1e6}, "egressRate"),
        ({"egressRate": "1M"}, "egressRate"),
        ({"ingressRate": True}, "ingressRate"),
        ({"ingressBurst": 8_000}, "ingressBurst"),
        ({"egressRate": 8_000, "egressBurst": -1}, "egressBurst"),
        ({"egressRate": 8_000, "egressBurst": 2**35}, "egressBurst"),
    ],
)
def test_an_impossible_rate_or_burst_is_refused_by_the_name_of_its_key(keys: dict[str, Any], key: str) -> None:
    with pytest.raises(CniError) as raised:
        bandwidth(**keys)
    assert raised.value.code == 7
    assert key in raised.value.message


@pytest.mark.parametrize("burst", [0, CONTAINERD_BURST])
@pytest.mark.parametrize(
    ("rate", "mtu_bytes", "wanted_bytes"),
    [
        (10**9, 1450, 625_000),  # 5 ms of a gigabit
        (10**6, 1450, 8 * 1464),
        (10**6, 8950, 12_000),
        (10**6, 64950, 64964),  # a single frame
        (10**15, 1450, 2**32 - 1),
    ],
)
def test_a_burst_that_nobody_stated_is_chosen(rate: int, mtu_bytes: int, wanted_bytes: int, burst: int) -> None:
    chosen = fitted(bandwidth(ingressRate=rate, ingressBurst=burst), mtu_bytes)
    assert chosen == Bandwidth(Limit(rate // 8, wanted_bytes))


def test_a_burst_that_is_stated_is_obeyed_unless_no_frame_would_fit() -> None:
    assert fitted(bandwidth(egressRate=8_000, egressBurst=1464 * 8), 1450) == Bandwidth(None, Limit(1_000, 1464))
    with pytest.raises(CniError, match="egressBurst") as raised:
        fitted(bandwidth(egressRate=8_000, egressBurst=1463 * 8), 1450)
    assert raised.value.code == 7


# ---- in a whole request


def request(verb: str, **conf: Any) -> CniRequest:
    stdin = {"cniVersion": "1.0.0", "name": "weave", "prevResult": {"ips": []}} | conf
    fields = [verb, "c1", "/run/netns/c1", "eth0", "", "/opt/cni/bin", json.dumps(stdin)]
    return parse_request("\0".join(fields).encode())


def test_a_request_carries_both() -> None:
    config = request("ADD", runtimeConfig={"portMappings": [WEB]}, ingressRate=8_000).config
    assert [str(mapping) for mapping in config.ports] == ["0.0.0.0:8080->80/tcp"]
    assert config.bandwidth == Bandwidth(Limit(1_000))


def test_a_del_never_fails_over_them() -> None:
    assert request("DEL", runtimeConfig={"portMappings": 7, "bandwidth": []}, egressRate=-1).config.ports == ()


def test_capabilities_are_understood_as_containerd_writes_them() -> None:
    """Go reads keys in any case, and containerd 1.6 passes its structures on without JSON names."""
    read = request(
        "ADD",
        runtimeConfig={
            "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {"IngressRate": 8_000_000, "IngressBurst": 2**32 - 1, "EgressRate": 0, "EgressBurst": 0},
            "dns": {"Servers": ["10.96.0.10"], "Searches": ["cluster.local"], "Options": []},
        },
    ).config
    assert [str(mapping) for mapping in read.ports] == ["0.0.0.0:8080->80/tcp"]
    assert read.bandwidth.ingress is not None
    assert (read.dns.nameservers, read.dns.search) == (("10.96.0.10",), ("cluster.local",))


def test_a_key_that_is_written_right_wins_over_one_in_another_case() -> None:
    both = {"hostPort": 8080, "HOSTPORT": 9090, "containerPort": 80}
    assert request("ADD", runtimeConfig={"portMappings": [both]}).config.ports[0].host_port == 8080
