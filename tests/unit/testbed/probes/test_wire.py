"""The judge of captured frames: it agrees with a right network, and every check of it can fail, for the right reason."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from plugin.core.packet.build import (
    build_arp_frame,
    build_ethernet,
    build_ipv4,
    build_ping_frame,
    build_udp,
    build_vxlan_frame,
)
from plugin.core.packet.frame import dissect
from plugin.core.packet.names import ETHERTYPE_IPV4, PROTOCOL_UDP
from testbed.probes.capture import CapturedFrame, Direction
from testbed.probes.sighting import PodFacts, WireFacts
from testbed.probes.wire import MARKER_BYTES, WireVerdict, judge_wire, marker_of

MARKER = marker_of("test")
RED = PodFacts("red", IPv4Address("10.32.0.1"), "02:00:00:00:20:01", "node1")
BLUE = PodFacts("blue", IPv4Address("10.40.0.1"), "02:00:00:00:28:01", "node2")
NEIGHBOUR = replace(BLUE, name="green", address=IPv4Address("10.32.0.2"), mac="02:00:00:00:20:02", node="node1")
UPLINKS = {f"node{n}": IPv4Address(f"192.168.56.1{n}") for n in (1, 2, 3)}
FACTS = WireFacts(
    sender=RED, target=BLUE, uplinks=UPLINKS, watched=frozenset(UPLINKS), marker=MARKER, count=2, answered=2
)
SAME = replace(FACTS, target=NEIGHBOUR)


def uplink_mac(node: str) -> str:
    return f"02:00:c0:a8:38:1{node[-1]}"


def echo(sequence: int, *, reply: bool = False, facts: WireFacts = FACTS) -> bytes:
    a, b = (facts.target, facts.sender) if reply else (facts.sender, facts.target)
    payload = bytes(16) + MARKER * 2 + MARKER[:8]
    return build_ping_frame(
        a.mac, b.mac, a.address, b.address, identifier=9, sequence=sequence, payload=payload, reply=reply
    )


def wrap(inner: bytes, source: str, destination: str, **options: Any) -> bytes:
    macs = uplink_mac(source), uplink_mac(destination)
    return build_vxlan_frame(*macs, UPLINKS[source], UPLINKS[destination], inner, **options)


class Wire:
    """Frames as the uplinks of three nodes would see them."""

    def __init__(self) -> None:
        self.frames: list[CapturedFrame] = []

    def see(self, node: str, direction: Direction, data: bytes) -> None:
        time_ns = 1_700_000_000_000_000_000 + len(self.frames) * 10_000
        self.frames.append(CapturedFrame(node, "eth0", time_ns, direction, len(data), data, dissect(data)))

    def cross(self, data: bytes, source: str, destination: str, *, arrived: bytes | None = None) -> None:
        self.see(source, Direction.OUT, data)
        self.see(destination, Direction.IN, data if arrived is None else arrived)


def healthy(*, count: int = 2, skip: Callable[[int, bool], bool] = lambda *_: False, **options: Any) -> Wire:
    wire = Wire()
    for sequence in range(1, count + 1):
        for reply in (False, True):
            ends = ("node2", "node1") if reply else ("node1", "node2")
            if not skip(sequence, reply):
                wire.cross(wrap(echo(sequence, reply=reply), *ends, **options), *ends)
    return wire


def cross(wire: Wire, facts: WireFacts = FACTS) -> WireVerdict:
    return judge_wire(wire.frames, facts, "cross-node")


def same(wire: Wire, facts: WireFacts = SAME) -> WireVerdict:
    return judge_wire(wire.frames, facts, "same-node")


def failed(verdict: WireVerdict) -> dict[str, str]:
    assert verdict.holds is (not verdict.failed)
    return {check.name: check.found for check in verdict.failed}


def test_a_right_exchange_holds_and_shows_its_four_frames() -> None:
    verdict = cross(healthy())
    assert failed(verdict) == {}
    assert [frame.place for frame in verdict.evidence] == [
        "node1 eth0 out",
        "node2 eth0 in",
        "node2 eth0 out",
        "node1 eth0 in",
    ]
    assert [frame.packet.inner.icmp.kind for frame in verdict.evidence] == ["echo request"] * 2 + ["echo reply"] * 2
    assert {frame.packet.inner.icmp.sequence for frame in verdict.evidence} == {1}


def test_every_check_says_what_was_wanted_and_found() -> None:
    checks = {check.name: (check.wanted, check.found) for check in cross(healthy()).checks}
    assert checks == {
        "placement": ("two nodes", "red on node1, blue on node2"),
        "probe answered": ("2 of 2", "2 of 2"),
        "every uplink watched": ("3 uplinks", "3 uplinks"),
        "nothing lost by the capture": ("0 frames", "0 frames"),
        "request leaves node1": ("2 of 2 in VXLAN, each once", "2 of 2"),
        "request arrives at node2": ("2 of 2 in VXLAN, each once", "2 of 2"),
        "reply leaves node2": ("2 of 2 in VXLAN, each once", "2 of 2"),
        "reply arrives at node1": ("2 of 2 in VXLAN, each once", "2 of 2"),
        "outer addresses": ("192.168.56.11 > 192.168.56.12 and back", "in all 8 frames"),
        "UDP port": ("6784", "in all 8 frames"),
        "VNI": ("1", "in all 8 frames"),
        "inner addresses": ("10.32.0.1 > 10.40.0.1 and back", "in all 8 frames"),
        "inner MACs": ("02:00:00:00:20:01 > 02:00:00:00:28:01 and back", "in all 8 frames"),
        "overhead": ("50 bytes", "in all 8 frames"),
        "nothing unencapsulated": ("0 frames of the pair outside VXLAN", "0 frames"),
        "nothing to other nodes": ("0 frames of the pair sent there", "0 frames"),
    }


def test_other_traffic_on_the_uplinks_does_not_matter() -> None:
    wire = healthy()
    wire.cross(build_arp_frame(1, uplink_mac("node1"), UPLINKS["node1"], "", UPLINKS["node2"]), "node1", "node3")
    other = build_ping_frame("02:00:00:00:20:09", BLUE.mac, IPv4Address("10.32.0.9"), BLUE.address)
    wire.cross(wrap(other, "node1", "node3"), "node1", "node3")
    wire.see("node3", Direction.IN, b"\x00" * 7)
    verdict = cross(wire)
    assert failed(verdict) == {}
    assert "no part of the probe: 1x node1, 1x node3" in verdict.notes[-1]


def test_routers_between_the_nodes_are_allowed_and_noted() -> None:
    wire = Wire()
    for sequence in (1, 2):
        for reply, a, b in ((False, "node1", "node2"), (True, "node2", "node1")):
            sent = wrap(echo(sequence, reply=reply), a, b, ttl=64)
            arrived = build_vxlan_frame(
                "02:aa:aa:aa:aa:aa", uplink_mac(b), UPLINKS[a], UPLINKS[b], echo(sequence, reply=reply), ttl=63
            )
            wire.cross(sent, a, b, arrived=arrived)
    verdict = cross(wire)
    assert failed(verdict) == {}
    assert verdict.notes[0] == "outer TTL 64 when sent, 63 on arrival: 1 router on the way"


def test_notes_tell_the_flags_and_source_ports_of_the_envelopes() -> None:
    notes = cross(healthy(source_port=51000)).notes
    assert "outer don't-fragment flag set in 0 of 8 frames" in notes
    assert any(note.startswith("outer UDP source port 51000") for note in notes)


def test_a_wrong_vni_is_found() -> None:
    assert failed(cross(healthy(vni=7))) == {"VNI": "8x 7 (in 8 of 8 frames)"}


def test_a_wrong_vni_in_one_direction_is_found() -> None:
    wire = healthy(skip=lambda _, reply: reply)
    for sequence in (1, 2):
        wire.cross(wrap(echo(sequence, reply=True), "node2", "node1", vni=2), "node2", "node1")
    assert failed(cross(wire)) == {"VNI": "4x 2 (in 4 of 8 frames)"}


def test_a_wrong_port_is_found_and_the_frame_is_still_read_as_vxlan() -> None:
    assert failed(cross(healthy(destination_port=4789))) == {"UDP port": "8x 4789 (in 8 of 8 frames)"}


def test_another_port_can_be_the_right_one() -> None:
    assert failed(cross(healthy(destination_port=4789), replace(FACTS, port=4789))) == {}


def test_an_unencapsulated_probe_is_found() -> None:
    wire = Wire()
    for sequence in (1, 2):
        wire.cross(echo(sequence), "node1", "node2")
        wire.cross(echo(sequence, reply=True), "node2", "node1")
    found = failed(cross(wire))
    assert found["nothing unencapsulated"].startswith("8 frames: 2x node1 eth0 in, 2x node1 eth0 out")
    assert found["request leaves node1"] == "0 of 2"
    assert found["VNI"] == "no frame to look at"


def test_one_bare_frame_beside_right_ones_is_found_and_shown_first() -> None:
    wire = healthy()
    wire.see("node1", Direction.OUT, echo(1))
    verdict = cross(wire)
    assert failed(verdict) == {"nothing unencapsulated": "1 frame: 1x node1 eth0 out"}
    assert verdict.evidence[0] is wire.frames[-1]
    assert len(verdict.evidence) == 5


def test_a_probe_that_was_translated_and_sent_bare_is_found_by_its_marker() -> None:
    wire = healthy()
    hidden = build_ping_frame(
        uplink_mac("node1"), uplink_mac("node2"), UPLINKS["node1"], BLUE.address, payload=bytes(16) + MARKER
    )
    wire.see("node1", Direction.OUT, hidden)
    assert set(failed(cross(wire))) == {"nothing unencapsulated"}


def test_bare_arp_of_the_pair_is_found() -> None:
    wire = healthy()
    wire.see("node1", Direction.OUT, build_arp_frame(1, RED.mac, RED.address, "", BLUE.address))
    assert set(failed(cross(wire))) == {"nothing unencapsulated"}


def test_replies_that_do_not_come_back_are_found() -> None:
    wire = healthy(skip=lambda _, reply: reply)
    found = failed(cross(wire, replace(FACTS, answered=0)))
    assert found == {"probe answered": "0 of 2", "reply leaves node2": "0 of 2, missing: sequence 1, 2"} | {
        "reply arrives at node1": "0 of 2, missing: sequence 1, 2"
    }


def test_a_request_that_leaves_and_never_arrives_is_found() -> None:
    wire = healthy(skip=lambda sequence, _: sequence == 2)
    wire.see("node1", Direction.OUT, wrap(echo(2), "node1", "node2"))
    found = failed(cross(wire, replace(FACTS, answered=1)))
    assert found["request arrives at node2"] == "1 of 2, missing: sequence 2"
    assert "request leaves node1" not in found


def test_a_doubled_frame_is_found() -> None:
    wire = healthy()
    wire.see("node2", Direction.IN, wrap(echo(2), "node1", "node2"))
    assert failed(cross(wire)) == {"request arrives at node2": "2 of 2, more than once: sequence 2"}


def test_a_copy_for_a_third_node_is_found_even_if_the_right_one_arrives() -> None:
    wire = healthy()
    wire.cross(wrap(echo(1), "node1", "node3"), "node1", "node3")
    found = failed(cross(wire))
    assert found["nothing to other nodes"] == "1 frame: 1x node3 eth0 in"
    assert found["request leaves node1"] == "2 of 2, more than once: sequence 1"
    assert found["outer addresses"] == "1x 192.168.56.11 > 192.168.56.13 (in 1 of 9 frames)"


def test_an_arp_question_flooded_to_a_third_node_is_found() -> None:
    wire = healthy()
    wire.see("node3", Direction.IN, wrap(build_arp_frame(1, RED.mac, RED.address, "", BLUE.address), "node1", "node3"))
    assert set(failed(cross(wire))) == {"nothing to other nodes"}


def test_an_envelope_that_the_underlays_switch_flooded_is_noted_and_no_fault_of_the_overlay() -> None:
    wire = healthy()
    wire.see("node3", Direction.OVERHEARD, wrap(echo(1), "node1", "node2"))
    verdict = cross(wire)
    assert failed(verdict) == {}
    assert "flooded by the underlay's switch to other nodes, whose network cards refuse it: 1x node3" in verdict.notes


def test_a_bare_frame_overheard_by_a_third_node_is_found() -> None:
    wire = healthy()
    wire.see("node3", Direction.OVERHEARD, echo(1))
    assert set(failed(cross(wire))) == {"nothing unencapsulated", "nothing to other nodes"}


def test_arp_of_the_pair_in_vxlan_between_the_two_nodes_is_noted() -> None:
    wire = healthy()
    wire.cross(
        wrap(build_arp_frame(2, RED.mac, RED.address, BLUE.mac, BLUE.address), "node1", "node2"), "node1", "node2"
    )
    verdict = cross(wire)
    assert failed(verdict) == {}
    assert "besides the echoes, in VXLAN between the same pods: 2x ARP" in verdict.notes


def test_a_wrong_overhead_is_found() -> None:
    wire = healthy(skip=lambda _, reply: not reply)
    for sequence in (1, 2):
        tunnel = wrap(echo(sequence), "node1", "node2")
        datagram = build_udp(UPLINKS["node1"], UPLINKS["node2"], 50000, 6784, tunnel[42:])
        packet = build_ipv4(UPLINKS["node1"], UPLINKS["node2"], PROTOCOL_UDP, datagram, options=bytes(4))
        frame = build_ethernet(uplink_mac("node1"), uplink_mac("node2"), ETHERTYPE_IPV4, packet)
        wire.cross(frame, "node1", "node2")
    assert failed(cross(wire)) == {"overhead": "4x 54 bytes (in 4 of 8 frames)"}


def test_bytes_that_were_added_inside_the_envelope_are_found() -> None:
    wire = healthy(skip=lambda _, reply: not reply)
    for sequence in (1, 2):
        wire.cross(wrap(echo(sequence) + bytes(6), "node1", "node2"), "node1", "node2")
    assert failed(cross(wire)) == {"overhead": "4x 56 bytes (in 4 of 8 frames)"}


def test_translated_pod_addresses_are_found() -> None:
    wire = healthy(skip=lambda _, reply: not reply)
    payload = bytes(16) + MARKER
    for sequence in (1, 2):
        inner = build_ping_frame(
            RED.mac,
            BLUE.mac,
            IPv4Address("10.32.0.254"),
            BLUE.address,
            identifier=9,
            sequence=sequence,
            payload=payload,
        )
        wire.cross(wrap(inner, "node1", "node2"), "node1", "node2")
    assert failed(cross(wire)) == {"inner addresses": "4x 10.32.0.254 > 10.40.0.1 (in 4 of 8 frames)"}


def test_a_wrong_inner_mac_is_found() -> None:
    facts = replace(FACTS, target=replace(BLUE, mac="02:00:00:00:99:99"))
    assert set(failed(cross(healthy(), facts))) == {"inner MACs"}


def test_mac_addresses_may_be_written_in_upper_case() -> None:
    assert failed(cross(healthy(), replace(FACTS, sender=replace(RED, mac=RED.mac.upper())))) == {}


def test_envelopes_between_wrong_uplinks_are_found() -> None:
    facts = replace(FACTS, uplinks=UPLINKS | {"node2": IPv4Address("192.168.56.99")})
    assert set(failed(cross(healthy(), facts))) == {"outer addresses"}


@pytest.mark.parametrize(
    ("change", "check", "found"),
    [
        ({"answered": 1}, "probe answered", "1 of 2"),
        ({"watched": {"node1", "node2"}}, "every uplink watched", "not watched: node3"),
        ({"frames_lost": 4}, "nothing lost by the capture", "4 frames"),
    ],
)
def test_neither_verdict_holds_on_weak_ground(change: dict[str, Any], check: str, found: str) -> None:
    assert failed(cross(healthy(), replace(FACTS, **change))) == {check: found}
    assert failed(same(Wire(), replace(SAME, **change))) == {check: found}


def test_pods_on_the_wrong_nodes_are_found() -> None:
    assert failed(same(Wire(), FACTS)) == {"placement": "red on node1, blue on node2"}
    assert failed(cross(Wire(), SAME))["placement"] == "red on node1, green on node1"


def test_silent_uplinks_hold_for_one_node_and_never_for_two() -> None:
    assert failed(same(Wire())) == {}
    assert len(failed(cross(Wire()))) == 10


def test_traffic_of_others_on_the_uplinks_does_not_matter_for_one_node() -> None:
    wire = healthy()
    wire.see("node1", Direction.OUT, build_arp_frame(1, uplink_mac("node1"), UPLINKS["node1"], "", UPLINKS["node2"]))
    multicast = build_ping_frame(RED.mac, "01:00:5e:00:00:01", RED.address, IPv4Address("224.0.0.1"))
    wire.see("node1", Direction.OUT, wrap(multicast, "node1", "node2"))
    quiet = replace(SAME, marker=marker_of("another probe"))
    verdict = same(wire, quiet)
    assert failed(verdict) == {}
    assert verdict.evidence == ()


LEAKS = {
    "no frame of the probe on an uplink": build_ping_frame(
        uplink_mac("node1"), uplink_mac("node2"), UPLINKS["node1"], UPLINKS["node2"], payload=MARKER
    ),
    "the pods' addresses on no uplink": build_ping_frame(
        uplink_mac("node1"), uplink_mac("node2"), NEIGHBOUR.address, RED.address
    ),
    "the pods' MACs on no uplink": build_ping_frame(
        RED.mac, NEIGHBOUR.mac, IPv4Address("10.32.0.77"), IPv4Address("10.32.0.78")
    ),
    "no ARP of the pair on an uplink": build_arp_frame(1, RED.mac, RED.address, "", NEIGHBOUR.address),
}


@pytest.mark.parametrize("check", LEAKS)
@pytest.mark.parametrize("carrier", ["bare", "in VXLAN"])
@pytest.mark.parametrize(("node", "direction"), [("node1", Direction.OUT), ("node3", Direction.IN)])
def test_each_kind_of_leak_of_a_same_node_probe_is_found_and_shown(
    check: str, carrier: str, node: str, direction: Direction
) -> None:
    leak = wrap(LEAKS[check], "node1", "node3") if carrier == "in VXLAN" else LEAKS[check]
    wire = Wire()
    wire.see(node, direction, leak)
    verdict = same(wire)
    assert failed(verdict) == {check: f"1 frame: 1x {node} eth0 {direction}"}
    assert verdict.evidence == tuple(wire.frames)


def test_markers_are_sixteen_bytes_and_differ_by_token() -> None:
    assert len(marker_of("a")) == MARKER_BYTES
    assert marker_of("a") == marker_of("a") != marker_of("b")
