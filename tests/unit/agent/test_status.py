"""What the agent says of itself: every documented key and no other, and metrics that Prometheus can read."""

import json
import os
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.agent.config import AgentConfig
from plugin.agent.status import Status
from plugin.agent.store import Record
from plugin.core import wire
from plugin.core.allocator import EXPOSE, ShareAllocator
from plugin.core.endpoints import Endpoint
from plugin.core.forward import Forwarding
from plugin.core.membership import StaticMembership
from plugin.core.node import Node
from plugin.core.shares import split
from plugin.link.netlink import Link
from plugin.link.switch import Uplink

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "agent.md"
ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
GATEWAY, POD, REMOTE = IPv4Address("10.32.0.1"), IPv4Address("10.32.0.2"), IPv4Address("10.40.0.2")
SEED = "00" * 8
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[^"\\\n]*",?)*)\})? (-?[0-9.]+)')


@pytest.fixture
def status() -> Status:
    """Node 1 of two: its bridge, one pod of its own, one of the other node."""
    config = AgentConfig(name="node1", node_address=str(ONE), peers=(str(ONE), str(TWO)))
    node = Node(name="node1", incarnation=1, seed=SEED, membership=StaticMembership("node1", [ONE, TWO], ONE))
    share = split(config.network, config.members)[ONE]
    allocator = ShareAllocator(IPv4Network(config.range), share)
    allocator.allocate(EXPOSE, now_s=0)
    record = Record(network="weave", container_id="c" * 64, ifname="eth0", address=str(POD), mac="0a:58:0a:20:00:02",
                    host_ifname="vethweplccccccc", netns="/run/netns/red", label="default/red", state="added")  # fmt: skip
    allocator.claim(record.attachment, POD)
    node.attach(GATEWAY, "02:00:00:00:00:01", "node1/weave")
    node.attach(POD, record.mac, record.label)
    node.on_datagram(wire.encode(wire.Hello("node2", 1, 1, True), SEED), TWO, now_s=0)
    table = wire.TablePart(1, 1, 0, 1, (Endpoint(REMOTE, "0a:58:0a:28:00:02", 1, "default/blue"),))
    node.on_datagram(wire.encode(table, SEED), TWO, now_s=0)
    node.on_datagram(b"rubbish", TWO, now_s=0)
    bridge = Link(index=2, name="weave", mac="02:00:00:00:00:01", mtu=1450, up=True, master=0, kind="bridge")
    device = Link(index=3, name="vxlan-6784", mac="02:00:00:00:00:02", mtu=1450, up=True, master=2, kind="vxlan")
    return Status(
        config=config, node=node, allocator=allocator, attachments=SimpleNamespace(records={record.attachment: record}),
        share=share, uplink=Uplink("eth0", 4, 1500), bridge=bridge, overlay=device, mtu_bytes=1450, gateway=str(GATEWAY),
    )  # fmt: skip


def section(heading: str) -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.split(r"\n##", text[text.index(heading) + len(heading) :])[0]


def documented(heading: str) -> dict[str, list[str]]:
    """The keys of the first column of a table, and what is in backquotes in the last one."""
    rows = [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("| `")]
    return {key: re.findall(r"`([^`]+)`", row[-1]) for row in rows for key in re.findall(r"`([^`]+)`", row[0])}


def test_status_has_the_documented_keys_and_no_others(status: Status) -> None:
    told, keys = status.status(), documented("### `/status`")
    assert set(told) == set(keys)
    for key in ("bridge", "overlay"):
        assert set(told[key]) == {name for name in keys[key] if name != "vxlan"}
    assert set(told["peers"][0]) == set(keys["peers"])
    assert (told["ready"], told["pid"], told["pods"], told["endpoints"]) == (False, os.getpid(), 1, 3)
    assert told["peers"] == [{"name": "node2", "address": str(TWO), "state": "established", "reason": ""}]


def test_report_has_the_documented_keys_beyond_status_and_no_others(status: Status) -> None:
    forwarding = Forwarding(frozenset({TWO}), {"0a:58:0a:28:00:02": TWO}, {REMOTE: "0a:58:0a:28:00:02"})
    told, keys = status.report(forwarding), documented("### `/report`, beyond `/status`")
    assert set(told) - set(status.status()) == set(keys)
    assert set(told["attachments"][0]) == set(keys["attachments"])
    for key in ("ipam", "forwarding", "control"):
        assert set(told[key]) == set(keys[key]), key
    assert told["forwarding"]["neighbours"] == {str(REMOTE): "0a:58:0a:28:00:02"}
    assert told["control"]["rejected"]["malformed"] == 1


def test_endpoints_say_who_is_where(status: Status) -> None:
    told = status.endpoints()
    assert set(told[0]) == {"address", "mac", "node", "local", "label"}
    assert [(one["address"], one["node"], one["local"]) for one in told] == [
        (str(GATEWAY), str(ONE), True), (str(POD), str(ONE), True), (str(REMOTE), str(TWO), False),
    ]  # fmt: skip


def test_everything_is_plain_json(status: Status) -> None:
    for value in (status.status(), status.report(Forwarding()), status.endpoints()):
        assert json.loads(json.dumps(value)) == value


def samples(text: str) -> dict[tuple[str, str], float]:
    """Prometheus' text format 0.0.4, read strictly: HELP and TYPE before the samples of each metric, and once."""
    found: dict[tuple[str, str], float] = {}
    helped: set[str] = set()
    kinds: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in helped
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped - set(kinds)
            assert kind in {"gauge", "counter"}
            assert (kind == "counter") == name.endswith("_total")
            kinds[name] = kind
        else:
            matched = SAMPLE.fullmatch(line)
            assert matched, line
            assert list(kinds)[-1] == matched[1], "samples stand together, behind their TYPE"
            assert (matched[1], matched[2]) not in found, "every sample once"
            found[matched[1], matched[2] or ""] = float(matched[3])
    return found


def test_metrics_can_be_read_and_are_the_documented_ones(status: Status) -> None:
    found = samples(status.metrics())
    assert {name for name, _ in found} == set(documented("## Metrics"))
    assert found["weave_connections", 'state="established",type="fastdp"'] == 1
    assert found["weave_ips", 'state="local-used"'] == 2
    assert found["weave_max_ips", ""] == 2**20
    assert found["weave_endpoints", ""] == 3
    assert found["weave_control_rejected_total", 'reason="malformed"'] == 1
    assert found["weave_control_messages_total", 'direction="received"'] == 3


def test_every_reason_of_the_counters_is_documented(status: Status) -> None:
    labels: dict[str, Any] = documented("## Metrics")
    reasons = {label.split('"')[1] for name, label in samples(status.metrics()) if name.endswith("rejected_total")}
    assert reasons == set(labels["weave_control_rejected_total"])
