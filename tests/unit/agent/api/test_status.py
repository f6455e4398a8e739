"""What the agent says of itself: every documented key and no other, and metrics that Prometheus can read."""

import json
import os
import random
import re
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from plugin.agent.api.status import Status
from plugin.agent.config import AgentConfig
from plugin.agent.store import Record
from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.cni.hostports import PortMapping
from plugin.core.forwarding import paths
from plugin.core.forwarding.forward import Forwarding
from plugin.core.forwarding.uplink import Plan, Uplink
from plugin.core.ipam.allocator import EXPOSE
from plugin.core.ipam.ring import Ring
from plugin.core.membership.switches import bridge_mac
from plugin.core.messages import kinds, values
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Endpoint, Member
from plugin.core.node import Node
from plugin.core.outbox import Persist
from plugin.core.upkeep.ledger import Ledger
from plugin.link.netlink import Link
from tests.support.project import ROOT
from tests.support.sealing import CHALLENGE, encode

DOCUMENT = ROOT / "docs" / "reference" / "agent.md"
ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
GATEWAY, POD, REMOTE = IPv4Address("10.32.0.1"), IPv4Address("10.32.0.2"), IPv4Address("10.40.0.2")
ME, OTHER = Member("node1", "1" * 16, ONE, 1), Member("node2", "2" * 16, TWO, 1)
PORTS = (PortMapping(host_port=8080, container_port=80), PortMapping(host_port=53, container_port=53, protocol="udp"))
OVERLAY = paths.Path(TWO, IPv4Address("10.40.0.1"), paths.PathState.UP, "", 0.00025, 1450)
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[^"\\\n]*",?)*)\})? (-?[0-9.]+(?:e-?[0-9]+)?)')


class Parts:
    """Node 1 of two: its bridge, one pod of its own, one of the other node; each owns half of the range."""

    def __init__(self) -> None:
        config = AgentConfig(name="node1", node_address=str(ONE), peers=(str(ONE), str(TWO)))
        keys = Keys(config.cluster, config.network)
        node = self.node = Node(me=ME, keys=keys, seeds=config.seeds, founders=0, chance=random.Random(1))
        seats = tuple(values.Seat(member.uid, member.name, member.address) for member in (ME, OTHER))
        state = values.RingState("f" * 16, 3, seats, (), Ring(config.network).found([ME.uid, OTHER.uid]))
        tables = (values.Table("node2", 1, 1, (Endpoint(REMOTE, "0a:58:0a:28:00:02", 1, "default/blue"),)),)
        sync = kinds.Sync((OTHER,), (), (), tables, (), state, False)
        assert node.on_request(encode(sync, OTHER, keys, ME), CHALLENGE, TWO, now_s=0) is not None
        ping = kinds.Ping(1, values.Brief(0, 0, 1, 4))
        node.on_datagram(encode(ping, OTHER, keys, ME), TWO, now_s=0)
        node.on_datagram(b"rubbish", TWO, now_s=0)
        for effect in node.effects():
            if isinstance(effect, Persist):
                node.council.on_persisted(effect.serial)
        assert node.allocator.allocate(EXPOSE, now_s=0) == GATEWAY
        record = Record(network="weave", container_id="c" * 64, ifname="eth0", address=str(POD),
                        mac="0a:58:0a:20:00:02", host_ifname="vethweplccccccc", netns="/run/netns/red",
                        label="default/red", state="added", ports=PORTS,
                        bandwidth=Bandwidth(ingress=Limit(1_250_000, 12_000)))  # fmt: skip
        node.allocator.claim(record.attachment, POD)
        node.attach(GATEWAY, "02:00:00:00:00:01", "node1/weave", now_s=0)
        node.attach(POD, record.mac, record.label, now_s=0)
        bridge = Link(index=2, name="weave", mac="02:00:00:00:00:01", mtu=1450, up=True, master=0, kind="bridge")
        device = Link(index=3, name="vxlan-6784", mac="02:00:00:00:00:02", mtu=1450, up=True, master=2, kind="vxlan")
        self.paths = {TWO: OVERLAY}
        self.gateway = SimpleNamespace(address=GATEWAY, hidden=False)
        self.space = SimpleNamespace(pending=0)
        self.ledger = Ledger()
        self.status = Status(
            config=config, node=node, targets=SimpleNamespace(addresses=(TWO,)), space=self.space, gateway=self.gateway,
            attachments=SimpleNamespace(vanished=0, records={record.attachment: record}), ledger=self.ledger,
            paths=lambda: self.paths,
            uplink=lambda: Plan(Uplink(ONE, "eth0", 4, 1500), 1450), bridge=bridge, overlay=device, guard=GUARD,
        )  # fmt: skip

    def peer(self) -> dict[str, Any]:
        (only,) = self.status.peers()
        return only


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def status(parts: Parts) -> Status:
    return parts.status


GUARD = SimpleNamespace(
    look=lambda: None,
    refused=lambda record: {"mac": 3, "arp": 1} if record.ports else {},
    status=lambda: {
        "by": ["nft", "learning off"], "exempt": 0, "members": 1, "refused": {"mac": 3, "arp": 1, "stranger": 2},
    },
)  # fmt: skip


def test_what_was_refused_to_pods_is_told_by_pod_and_reason(status: Status) -> None:
    told = status.attachments()[1]
    assert (told["guard"], told["refused"]) == ("", {"mac": 3, "arp": 1})
    found = samples(status.metrics())
    counted = {labels: value for (name, labels), value in found.items() if name == "weave_guard_refused_frames_total"}
    assert sorted(counted.values()) == [1, 3]
    assert all('reason="' in labels and 'pod="' in labels for labels in counted)
    assert found["weave_guard_refused_strangers_total", ""] == 2


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
    for key in ("bridge", "overlay", "guard"):
        assert set(told[key]) == {name for name in keys[key] if name != "vxlan"}
    assert set(told["peers"][0]) == set(keys["peers"])


def test_ports_and_limits_are_told(status: Status) -> None:
    shown = ["0.0.0.0:8080->80/tcp", "0.0.0.0:53->53/udp"]
    (attached,) = status.report(Forwarding(frozenset(), {}, {}))["attachments"]
    assert (attached["ports"], attached["bandwidth"]) == (shown, {"ingress": 10_000_000, "egress": None})
    assert [one.get("ports") for one in status.attachments()] == [None, shown]
    told = samples(status.metrics())
    assert (told["weave_host_ports", ""], told["weave_limited_pods", ""]) == (2, 1)


def test_troubles_repairs_and_holds_are_told(parts: Parts) -> None:
    parts.ledger.trouble("uplink", "eth0 is down", "ip link set eth0 up", 1_800_000_000.0)
    parts.ledger.repaired("nft table weave", 1_800_000_001.0, "gone")
    parts.ledger.hold("link", "exercise 3", 1_800_000_002.0)
    told = parts.status.status()
    (problem,), (repair,), (held,) = told["problems"], told["repairs"], told["held"]
    assert {key: problem[key] for key in ("object", "cause", "advice")} == {
        "object": "uplink", "cause": "eth0 is down", "advice": "ip link set eth0 up",
    }  # fmt: skip
    assert datetime.fromisoformat(problem["since"]).timestamp() == 1_800_000_000.0
    assert (repair["object"], repair["count"], repair["was"]) == ("nft table weave", 1, "gone")
    assert (held["object"], held["reason"]) == ("link", "exercise 3")
    told_metrics = samples(parts.status.metrics())
    assert (told_metrics["weave_problems", ""], told_metrics["weave_repairs_total", 'kind="nft"']) == (1, 1)


def test_status_counts_pods_and_endpoints(status: Status) -> None:
    told = status.status()
    assert (told["ready"], told["pid"], told["pods"], told["endpoints"]) == (False, os.getpid(), 1, 3)


def test_a_peer_is_shown_with_what_the_probes_say(status: Status) -> None:
    assert status.peers() == [
        {
            "name": "node2", "peer": bridge_mac("weave", "node2"), "uid": OTHER.uid, "address": str(TWO),
            "state": "established", "reason": "", "via": "", "outbound": True, "control": "established",
            "path": {"state": "up", "reason": "", "mtu": 1450, "rtt_ms": 0.25},
        }
    ]  # fmt: skip
    assert status.status()["connections"] == {"established": 1}


def test_a_peer_whose_overlay_is_down_has_failed_though_it_speaks(parts: Parts) -> None:
    parts.paths = {TWO: replace(OVERLAY, state=paths.PathState.DOWN, reason="is UDP 6784 open?", rtt_s=None)}
    told = parts.peer()
    assert (told["state"], told["reason"], told["control"]) == ("failed", "is UDP 6784 open?", "established")
    assert told["path"]["rtt_ms"] is None


def test_a_peer_with_a_small_path_is_established_and_says_so(parts: Parts) -> None:
    parts.paths = {TWO: replace(OVERLAY, state=paths.PathState.MTU, reason="only 1280 bytes pass", mtu_bytes=1280)}
    told = parts.peer()
    assert (told["state"], told["reason"], told["path"]["mtu"]) == ("established", "only 1280 bytes pass", 1280)


def test_a_peer_that_was_not_probed_yet_has_no_path(parts: Parts) -> None:
    parts.paths = {}
    assert (parts.peer()["state"], parts.peer()["path"]) == ("established", None)


def test_a_password_is_never_told(parts: Parts) -> None:
    parts.status._config = AgentConfig(name="node1", node_address=str(ONE), password="secret")
    assert parts.status.status()["password"] is True
    assert "secret" not in json.dumps(parts.status.report(Forwarding()))


def test_ipam_says_who_owns_what(status: Status) -> None:
    told = status.ipam()
    assert (told["status"], told["ring"], told["epoch"], told["addresses"]) == ("ready", "f" * 16, 3, 2**20)
    assert told["owned"] == ["10.32.0.0-10.39.255.255"]
    assert (told["held"], told["pending"]) == (2, 0)
    assert [seat["name"] for seat in told["seats"]] == ["node1", "node2"]
    shown = [(one["name"], one["addresses"], one["percent"], one["self"], one["trouble"]) for one in told["owners"]]
    assert shown == [("node1", 2**19, 50.0, True, ""), ("node2", 2**19, 50.0, False, "")]
    assert told["owners"][0]["peer"] == status.status()["peer"]


def test_attachments_are_the_switch_and_the_pods_and_the_switch_goes_when_it_is_hidden(parts: Parts) -> None:
    told = parts.status.attachments()
    assert [(one["id"], one["addresses"]) for one in told] == [
        ("weave:expose", [f"{GATEWAY}/12"]), ("c" * 64, [f"{POD}/12"]),
    ]  # fmt: skip
    parts.gateway.hidden = True
    assert [one["id"] for one in parts.status.attachments()] == ["c" * 64]
    assert parts.status.status()["bridge"]["exposed"] is False


def test_without_a_gateway_the_bridge_has_no_address(parts: Parts) -> None:
    parts.gateway.address = None
    assert parts.status.status()["bridge"]["address"] is None
    assert [one["id"] for one in parts.status.attachments()] == ["c" * 64]


def test_report_has_the_documented_keys_beyond_status_and_no_others(status: Status) -> None:
    forwarding = Forwarding(frozenset({TWO}), {"0a:58:0a:28:00:02": TWO}, {REMOTE: "0a:58:0a:28:00:02"})
    told, keys = status.report(forwarding), documented("### `/report`, beyond `/status`")
    assert set(told) - set(status.status()) == set(keys)
    assert set(told["attachments"][0]) == set(keys["attachments"])
    for key in ("forwarding", "control"):
        assert set(told[key]) == set(keys[key]), key


def test_the_report_has_members_ring_and_what_the_kernel_was_told(status: Status) -> None:
    forwarding = Forwarding(frozenset({TWO}), {"0a:58:0a:28:00:02": TWO}, {REMOTE: "0a:58:0a:28:00:02"})
    told = status.report(forwarding)
    assert [(one["name"], one["state"]) for one in told["members"]] == [("node1", "alive"), ("node2", "alive")]
    assert told["broken_links"] == []
    assert [one["owner"] for one in told["ring_segments"]] == [ME.uid, OTHER.uid]
    assert told["forwarding"]["flood"] == [str(TWO)]
    assert told["forwarding"]["neighbours"] == {str(REMOTE): "0a:58:0a:28:00:02"}
    assert told["control"]["rejected"]["malformed"] == 1


def test_endpoints_say_who_is_where(status: Status) -> None:
    told = status.endpoints()
    assert set(told[0]) == {"address", "mac", "node", "local", "label"}
    assert [(one["address"], one["node"], one["local"]) for one in told] == [
        (str(GATEWAY), str(ONE), True), (str(POD), str(ONE), True), (str(REMOTE), str(TWO), False),
    ]  # fmt: skip


def test_everything_is_plain_json(status: Status) -> None:
    for value in (status.status(), status.report(Forwarding()), status.endpoints(), status.attachments()):
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
    assert {name for name, _ in samples(status.metrics())} == set(documented("## Metrics"))


def test_metrics_have_the_values_of_status(parts: Parts) -> None:
    parts.space.pending = 3
    found = samples(parts.status.metrics())
    assert found["weave_connections", 'state="established",type="fastdp",encryption=""'] == 1
    assert found["weave_connections", 'state="failed",type="fastdp",encryption=""'] == 0
    assert found["weave_ips", 'state="local-owned"'] == parts.node.allocator.capacity
    assert found["weave_ipam_unreachable_count", ""] == 0
    assert found["weave_ipam_pending_allocates", ""] == 3
    assert found["weave_ipam_epoch", ""] == 3
    assert found["weave_endpoints_unconfirmed_peers", ""] == 1
    assert found["weave_path_round_trip_seconds", 'peer="node2"'] == 0.00025
    assert found["weave_ips", 'state="local-used"'] == 2
    assert found["weave_max_ips", ""] == 2**20
    assert found["weave_endpoints", ""] == 3
    assert found["weave_control_rejected_total", 'reason="malformed"'] == 1
    assert found["weave_control_messages_total", 'direction="received"'] == 2


def test_every_reason_of_the_counters_is_documented(status: Status) -> None:
    labels: dict[str, Any] = documented("## Metrics")
    reasons = {label.split('"')[1] for name, label in samples(status.metrics()) if name.endswith("rejected_total")}
    assert reasons == set(labels["weave_control_rejected_total"])


def test_owners_that_do_not_answer_are_counted_with_their_share(parts: Parts) -> None:
    parts.node.on_timer(now_s=1)
    for second in range(2, 120):
        parts.node.on_timer(now_s=second)
        parts.node.effects()
    found = samples(parts.status.metrics())
    assert found["weave_ipam_unreachable_count", ""] == 1
    assert found["weave_ipam_unreachable_percentage", ""] == 50
    assert found["weave_connections", 'state="failed",type="fastdp",encryption=""'] == 1
    assert "weave rmpeer node2" in parts.status.ipam()["owners"][1]["trouble"]
