"""The configuration's sentences, and log lines as JSON."""

import json
import logging
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from plugin.agent.config import AgentConfig, load_config
from plugin.agent.logs import JsonFormatter
from plugin.core.errors import InputError

GOOD = {"name": "node1", "node_address": "192.168.56.11", "peers": ["192.168.56.12"]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nmae": 1}, "unknown field `nmae`"),
        ({"vni": 0}, "vni"),
        ({"name": "a b"}, "name"),
        ({"node_address": "x"}, "node_address must be an IPv4 address, found 'x'"),
        ({"peers": ["::1"]}, "peers must be an IPv4 address, found '::1'"),
        ({"range": "192.168.0.0/16"}, "contains the node address 192.168.56.11"),
        ({"range": "10.0.0.0/30"}, "between /8 and /29"),
        ({"range": "192.168.56.8/29", "node_address": "10.0.0.1"}, "contains the node address 192.168.56.12"),
        ({"initial_peers": -1}, "initial_peers"),
        ({"initial_peers": 4097}, "initial_peers"),
        ({"initial_peers": "3"}, "initial_peers"),
        ({"password": None}, "password"),
        ({"cluster": "c" * 64}, "cluster"),
        ({"mtu": 500}, "mtu must be 0 or 576 to 65485, found 500"),
        ({"mtu": 65500}, "mtu must be 0 or 576 to 65485, found 65500"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    (tmp_path / "agent.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(InputError) as raised:
        load_config(tmp_path / "agent.json")
    assert sentence in raised.value.message


def test_an_absent_file_and_one_that_is_no_json_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_config(tmp_path / "absent")
    (tmp_path / "agent.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        load_config(tmp_path / "agent.json")


def loaded(tmp_path: Path, **change: object) -> AgentConfig:
    (tmp_path / "agent.json").write_text(json.dumps(GOOD | change))
    return load_config(tmp_path / "agent.json")


def test_a_node_address_may_be_left_out_and_is_the_uplinks_then(tmp_path: Path) -> None:
    config = loaded(tmp_path, node_address="", uplink="eth0", mtu=1400)
    assert (config.address, config.uplink, config.mtu) == (None, "eth0", 1400)
    assert config.seeds == (IPv4Address("192.168.56.12"),)


def test_seeds_are_the_peers_without_this_node_and_without_doubles(tmp_path: Path) -> None:
    config = loaded(tmp_path, peers=["192.168.56.13", "192.168.56.11", "192.168.56.12", "192.168.56.12"])
    assert config.seeds == (IPv4Address("192.168.56.12"), IPv4Address("192.168.56.13"))


@pytest.mark.parametrize(
    ("change", "founders"),
    [
        ({"peers": []}, 1),
        ({"peers": ["192.168.56.11"]}, 1),
        ({}, 0),
        ({"initial_peers": 3}, 3),
        ({"peers": [], "initial_peers": 0}, 0),
        ({"initial_peers": None}, 0),
    ],
    ids=["alone", "only itself", "joins", "three together", "alone but waits", "null"],
)
def test_who_makes_the_first_agreement(tmp_path: Path, change: dict[str, object], founders: int) -> None:
    assert loaded(tmp_path, **change).founders == founders


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    record = logging.makeLogRecord({"msg": "pod\nattached", "levelname": "INFO", "pod": "red", "path": Path("/x")})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line).items() >= {"level": "info", "event": "pod\nattached", "pod": "red", "path": "/x"}.items()
