"""Real frames between two network namespaces: what we capture, what we decode, and what tcpdump says of the same file.

The rig: two nodes on one wire (veth), each with a VXLAN device that carries a pod address itself, so that every ping
between 10.32.0.1 and 10.40.0.1 crosses the wire in VXLAN.
"""

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from plugin.core.packet.checksum import Checksum, checksum_of
from plugin.core.packet.layers import Payload
from testbed.machine.space import Completed, Space, call, packet_socket, run, spawn
from testbed.probes import capture as capture_module
from testbed.probes.capture import Capture, CaptureError, Direction, Tap, capture
from testbed.probes.pcap import write_pcap
from testbed.probes.sighting import PodFacts, WireFacts
from testbed.probes.wire import judge_wire, marker_of

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces"),
]

MARKER = marker_of("tests/kernel/test_capture")
UPLINKS = {"node1": IPv4Address("192.168.56.11"), "node2": IPv4Address("192.168.56.12")}
PODS = {"node1": IPv4Address("10.32.0.1"), "node2": IPv4Address("10.40.0.1")}
MACS = {"node1": "02:00:00:00:20:01", "node2": "02:00:00:00:28:01"}


@dataclass(frozen=True)
class Rig:
    node1: Space
    node2: Space

    @property
    def taps(self) -> list[Tap]:
        return [Tap(self.node1), Tap(self.node2)]

    def ping(self, *options: str, to: IPv4Address = PODS["node2"]) -> Completed:
        return run(self.node1, ["ping", "-n", "-p", MARKER.hex(), *options, str(to)], timeout_s=20)

    def facts(self, session: Capture, *, count: int, answered: int) -> WireFacts:
        one, two = (PodFacts(f"pod-{node}", PODS[node], MACS[node], node) for node in ("node1", "node2"))
        return WireFacts(
            sender=one,
            target=two,
            uplinks=UPLINKS,
            watched=session.taps,
            marker=MARKER,
            count=count,
            answered=answered,
            frames_lost=session.lost,
        )


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    names = {node: f"wlt-{os.getpid()}-{node}" for node in UPLINKS}

    def ip(*words: str, node: str = "") -> None:
        subprocess.run(["ip", *(["-n", names[node]] if node else []), *words], check=True, capture_output=True)

    try:
        for name in names.values():
            ip("netns", "add", name)
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names["node2"], node="node1")
        for node, other in (("node1", "node2"), ("node2", "node1")):
            last = str(UPLINKS[node])[-2:]
            ip("link", "set", "eth0", "address", f"02:00:c0:a8:38:{last}", "up", node=node)
            ip("addr", "add", f"{UPLINKS[node]}/24", "dev", "eth0", node=node)
            vxlan = ["type", "vxlan", "id", "1", "dstport", "6784", "remote", str(UPLINKS[other]), "local"]
            ip("link", "add", "vxlan-6784", "address", MACS[node], *vxlan, str(UPLINKS[node]), node=node)
            ip("addr", "add", f"{PODS[node]}/12", "dev", "vxlan-6784", node=node)
            ip("link", "set", "vxlan-6784", "mtu", "1450", "up", node=node)
        rig = Rig(*(Space(name=node, net=Path("/run/netns") / names[node]) for node in UPLINKS))
        assert rig.ping("-c", "1", "-W", "5").returncode == 0
        yield rig
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_a_real_ping_through_vxlan_satisfies_the_judge(rig: Rig) -> None:
    with capture(rig.taps) as session:
        assert rig.ping("-c", "3", "-i", "0.01").returncode == 0
        session.drain(marker=MARKER)
    verdict = judge_wire(session.frames, rig.facts(session, count=3, answered=3), "cross-node")
    assert verdict.failed == ()
    assert [frame.place for frame in verdict.evidence] == [
        "node1 eth0 out",
        "node2 eth0 in",
        "node2 eth0 out",
        "node1 eth0 in",
    ]
    assert [frame.wire_bytes for frame in verdict.evidence] == [148] * 4
    # The stations between may swap by microseconds: two processors stamp the frames, each when it gets to it.
    times = [frame.time_ns for frame in verdict.evidence]
    assert times[0] < times[-1]
    assert "no router on the way" in verdict.notes[0]


def test_the_same_ping_does_not_pass_for_one_that_stayed_on_its_node(rig: Rig) -> None:
    with capture(rig.taps) as session:
        assert rig.ping("-c", "1").returncode == 0
    verdict = judge_wire(session.frames, rig.facts(session, count=1, answered=1), "same-node")
    assert not verdict.holds
    assert {check.name for check in verdict.failed} >= {"placement", "no frame of the probe on an uplink"}


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_we_read_a_vxlan_frame_as_tcpdump_does(rig: Rig, tmp_path: Path) -> None:
    with capture(rig.taps[:1]) as session:
        assert rig.ping("-c", "2", "-i", "0.01").returncode == 0
    frames = [f for f in session.frames if MARKER in f.data]
    assert write_pcap(tmp_path / "a.pcap", frames) == 4
    said = subprocess.run(
        ["tcpdump", "-r", tmp_path / "a.pcap", "-e", "-n", "-vv", "-T", "vxlan", "-tt", "--nano"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    entries = re.split(r"\n(?=\d+\.\d{9} )", said.strip())
    assert len(entries) == len(frames)
    for frame, entry in zip(frames, entries, strict=True):
        outer, inner = frame.packet, frame.packet.inner
        assert inner is not None
        wanted = [f"{frame.time_ns // 10**9}.{frame.time_ns % 10**9:09d} ", f"length {frame.wire_bytes}:"]
        wanted += [f"VXLAN, flags [I] (0x08), vni {outer.vxlan.vni}\n"]
        wanted += [f"{outer.ipv4.source}.{outer.udp.source_port} > {outer.ipv4.destination}.6784:"]
        for packet in (outer, inner):
            ethernet, ip = packet.ethernet, packet.ipv4
            wanted += [f"{ethernet.source} > {ethernet.destination}, ethertype IPv4"]
            wanted += [
                f"ttl {ip.ttl}, id {ip.identification}, offset {ip.fragment_offset}",
                f"flags [{'DF' if ip.dont_fragment else 'none'}]",
                f"proto {'UDP' if packet is outer else 'ICMP'} ({ip.protocol}), length {ip.total_length})",
            ]
        wanted += [
            f"{inner.ipv4.source} > {inner.ipv4.destination}: ICMP {inner.icmp.kind}, id {inner.icmp.identifier}"
        ]
        wanted += [f"seq {inner.icmp.sequence}, length 64"]
        assert [text for text in wanted if text not in entry] == []
        assert checksum_of(inner, inner.icmp) is Checksum.GOOD


def test_a_short_snap_length_keeps_the_length_on_the_wire(rig: Rig) -> None:
    with capture(rig.taps, snap_bytes=96) as session:
        assert rig.ping("-c", "1", "-s", "1000").returncode == 0
    frames = [f for f in session.frames if f.packet.inner is not None and f.packet.inner.icmp is not None]
    assert len(frames) == 4
    for frame in frames:
        assert (len(frame.data), frame.wire_bytes) == (96, 1092)
        assert frame.packet.truncated
        assert frame.packet.inner.wire_bytes == 1042
        assert frame.packet.inner.layer(Payload).wire_bytes == 1000


def test_a_full_capture_keeps_the_first_frames_and_counts_the_others(rig: Rig) -> None:
    with capture(rig.taps, frames_max=3) as session:
        assert rig.ping("-c", "5", "-i", "0.01").returncode == 0
    assert len(session.frames) == 3
    assert session.lost >= 17


def test_frames_that_the_kernel_dropped_are_counted(rig: Rig) -> None:
    tap = Tap(rig.node1)
    with packet_socket(tap.space, tap.ifname, receive_buffer_bytes=2048) as opened:
        listener = capture_module._Listener(tap, opened)
        assert rig.ping("-c", "50", "-i", "0.002").returncode == 0
        listener.count_drops()
        first = listener.dropped
        listener.count_drops()
    assert first > 50
    assert listener.dropped == first


def test_jumbo_pings_are_seen_as_fragments_of_one_packet(rig: Rig) -> None:
    with capture(rig.taps[:1]) as session:
        assert rig.ping("-c", "1", "-s", "3000", to=UPLINKS["node2"]).returncode == 0
    out = [f.packet for f in session.frames if f.direction is Direction.OUT and f.packet.ipv4 is not None]
    parts = [p for p in out if p.ipv4.is_fragment]
    assert [p.ipv4.fragment_offset for p in parts] == [0, 1480, 2960]
    assert parts[0].icmp.is_request
    assert checksum_of(parts[0], parts[0].icmp) is Checksum.UNKNOWN
    assert [p.icmp for p in parts[1:]] == [None, None]
    assert sum(len(p.payload) for p in parts) == 3000


def test_a_tcp_checksum_left_to_the_card_is_not_called_wrong(rig: Rig) -> None:
    with (
        capture(rig.taps[:1]) as session,
        call(rig.node2, lambda: socket.create_server((str(UPLINKS["node2"]), 0))) as server,
        call(rig.node1, lambda: socket.create_connection(server.getsockname(), timeout=5)) as client,
        server.accept()[0] as accepted,
    ):
        client.sendall(b"hello pod network")
        assert accepted.recv(100) == b"hello pod network"
    (sent,) = [f.packet for f in session.frames if f.direction is Direction.OUT and f.packet.payload]
    assert sent.payload == b"hello pod network"
    assert sent.tcp.flag_names == ("PSH", "ACK")
    assert checksum_of(sent, sent.tcp) is Checksum.OFFLOADED


def test_draining_waits_for_quiet_and_gives_up_at_its_deadline(rig: Rig) -> None:
    with capture(rig.taps) as session:
        noise = spawn(rig.node1, ["ping", "-q", "-i", "0.005", str(PODS["node2"])], stdout=subprocess.DEVNULL)
        try:
            while len(session.frames) < 4:
                assert noise.poll() is None
            assert not session.drain(quiet_s=0.2, within_s=0.4)
            assert session.drain(quiet_s=0.05, within_s=5, marker=MARKER)
        finally:
            noise.kill()
            noise.wait()
        assert session.drain(quiet_s=0.05, within_s=5)


def test_an_unknown_interface_is_an_error_that_names_it(rig: Rig) -> None:
    with (
        pytest.raises(CaptureError, match="cannot capture on eth7 of node1: No such device") as caught,
        capture([Tap(rig.node1), Tap(rig.node1, "eth7")]),
    ):
        pytest.fail("must not be entered")
    assert "ip link" in caught.value.hint


def test_an_interface_may_go_down_and_come_back_and_nothing_is_lost(rig: Rig) -> None:
    with capture([Tap(rig.node1, "lo")]) as session:
        for state in ("up", "down", "up"):
            assert run(rig.node1, ["ip", "link", "set", "lo", state], timeout_s=5).returncode == 0
            session.drain()
        assert rig.ping("-c", "1", to=IPv4Address("127.0.0.1")).returncode == 0
    assert session.lost == 0
    assert {f.packet.icmp.kind for f in session.frames if f.packet.icmp} == {"echo request", "echo reply"}


def test_a_deleted_interface_makes_the_capture_incomplete(rig: Rig) -> None:
    def ip(*words: str) -> None:
        assert run(rig.node1, ["ip", "link", *words], timeout_s=5).returncode == 0

    ip("add", "gone0", "type", "veth", "peer", "name", "gone1")
    with capture([Tap(rig.node1, "gone0")]) as session:
        ip("del", "gone0")
        session.drain()
    assert session.lost == 1


def test_nothing_runs_after_the_capture_and_its_frames_stay_readable(rig: Rig) -> None:
    before = set(threading.enumerate())
    with capture(rig.taps) as session:
        assert set(threading.enumerate()) - before
        rig.ping("-c", "1")
    assert set(threading.enumerate()) <= before
    assert session.frames == session.frames
    assert session.lost == 0


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"cannot write 0 frames to .*/nowhere/a\.pcap: No such file"):
        write_pcap(tmp_path / "nowhere" / "a.pcap", [])
