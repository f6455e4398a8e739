"""The key `guard`: what may be asked for, and what is refused with a sentence."""

import json
from typing import Any

import pytest

from plugin.core.cni.exemption import Exemption
from plugin.core.cni.request import parse_request
from plugin.core.cni.types import INVALID_CONFIG, CniError

MAC = "02:00:00:00:00:05"


def asked(**keys: Any) -> Exemption:
    config = json.dumps({"cniVersion": "1.1.0", "name": "weave", **keys})
    call = "\0".join(["ADD", "f00d" * 16, "/run/netns/red", "eth0", "", "/opt/cni/bin", config])
    return parse_request(call.encode()).config.exemption


@pytest.mark.parametrize(
    ("keys", "exemption"),
    [
        ({}, Exemption()),
        ({"guard": None}, Exemption()),
        ({"guard": {}}, Exemption()),
        ({"guard": {"macs": [], "addresses": None, "promiscuous": False}}, Exemption()),
        ({"guard": {"macs": "any"}}, Exemption(any_mac=True)),
        ({"guard": {"macs": [MAC.upper(), MAC]}}, Exemption(macs=(MAC,))),
        ({"guard": {"addresses": "any"}}, Exemption(any_address=True)),
        ({"guard": {"addresses": ["10.40.0.9", "10.40.0.9"]}}, Exemption(addresses=("10.40.0.9",))),
        ({"guard": {"addresses": ["192.0.2.7"], "macs": "any"}}, Exemption(any_mac=True, addresses=("192.0.2.7",))),
        ({"guard": {"promiscuous": True}}, Exemption(promiscuous=True)),
        ({"macspoofchk": True}, Exemption()),
        ({"macspoofchk": False, "guard": {"macs": "any"}}, Exemption(any_mac=True)),
        ({"macspoofchk": True, "guard": {"addresses": "any"}}, Exemption(any_address=True)),
    ],
)
def test_what_a_pod_may_send_beside_its_own(keys: dict[str, Any], exemption: Exemption) -> None:
    assert asked(**keys) == exemption


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"guard": "off"}, '"guard" must be an object'),
        ({"guard": False}, '"guard" must be an object'),
        ({"guard": {"mac": MAC}}, '"guard" has no mac'),
        ({"guard": {"macs": MAC}}, '"guard.macs" must be a list or "any"'),
        ({"guard": {"macs": 1}}, '"macs" must be a list'),
        ({"guard": {"macs": ["red"]}}, '"guard.macs" lists MAC addresses of interfaces'),
        ({"guard": {"macs": ["01:00:5e:00:00:01"]}}, '"guard.macs" lists MAC addresses of interfaces'),
        ({"guard": {"macs": [f"02:00:00:00:00:{number:02x}" for number in range(17)]}}, "lists 17, more than 16"),
        ({"guard": {"addresses": ["fd00::1"]}}, '"guard.addresses" must be an IPv4 address'),
        ({"guard": {"addresses": ["10.40.0.0/24"]}}, '"guard.addresses" must be an IPv4 address'),
        ({"guard": {"addresses": [7]}}, 'each of "addresses" must be a string'),
        ({"guard": {"promiscuous": "yes"}}, '"promiscuous" must be true or false'),
        ({"guard": {"promiscuous": True, "macs": "any"}}, "promiscuous includes macs"),
        ({"guard": {"addresses": "any", "macs": "any"}}, "leaves nothing to check"),
        ({"macspoofchk": 1}, '"macspoofchk" must be true or false'),
        ({"macspoofchk": True, "guard": {"macs": [MAC]}}, '"macspoofchk" contradicts "guard"'),
        ({"macspoofchk": True, "guard": {"promiscuous": True}}, '"macspoofchk" contradicts "guard"'),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(CniError, match=words.replace("(", r"\(")) as raised:
        asked(**keys)
    assert raised.value.code == INVALID_CONFIG


def test_a_del_reads_none_of_it() -> None:
    config = json.dumps({"cniVersion": "1.1.0", "name": "weave", "guard": "off"})
    call = "\0".join(["DEL", "f00d" * 16, "", "eth0", "", "/opt/cni/bin", config])
    assert parse_request(call.encode()).command == "DEL"
