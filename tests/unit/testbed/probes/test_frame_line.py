"""A captured frame in one line by the names of who speaks, and which frames conditions let through."""

import io
from pathlib import Path

import pytest

from plugin.core.packet.frame import dissect
from testbed.probes.capture import CapturedFrame, Direction
from testbed.probes.frame_line import Kind, Wanted, frame_line
from testbed.probes.pcap import append_pcap, begin_pcap, is_pcap, write_pcap
from tests.unit.testbed.probes.test_packet_view import golden

NAMES = {
    "10.32.0.1": "red",
    "10.40.0.1": "blue",
    "192.168.56.11": "node1",
    "192.168.56.12": "node2",
    "02:00:00:00:00:01": "node1",
}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vxlan-echo-request", "red > blue ICMP echo request, id 1452, seq 1, in VXLAN node1 > node2"),
        ("vxlan-echo-cut", "red > blue ICMP echo request, id 1483, seq 1, in VXLAN node1 > node2"),
        ("vxlan-tcp-syn", "red > blue TCP 46908 > 5001 [SYN], in VXLAN node1 > node2"),
        ("vxlan-arp-request", "ARP who has blue? asks red, in VXLAN node1 > node2"),
        ("vlan-arp-reply", "ARP 10.32.0.2 tells red: at 02:00:00:00:20:02"),
        ("tcp-checksum-offloaded", "node1 > node2 TCP 46358 > 5001 [PSH ACK]"),
        ("ipv4-last-fragment", "node1 > node2 IPv4 fragment at byte 1480"),
        ("ipv4-length-too-long", "red > blue malformed IPv4: the total length is 1500, but 8 bytes follow the header"),
        ("switch-spanning-tree", "node1 > 01:80:c2:00:00:00 802.3 length 38"),
        ("vxlan-multicast-listener", ":: > ff02::16 ICMPv6 multicast listener report, in VXLAN node2 > node1"),
    ],
)
def test_a_frame_in_one_line(name: str, line: str) -> None:
    assert frame_line(golden(name), NAMES) == line


def test_without_names_the_addresses_stand() -> None:
    assert frame_line(golden("vxlan-echo-reply"), {}) == (
        "10.40.0.1 > 10.32.0.1 ICMP echo reply, id 1452, seq 1, in VXLAN 192.168.56.12 > 192.168.56.11"
    )


def test_a_frame_of_nothing_is_a_line_too() -> None:
    assert frame_line(dissect(b"\1\2\3"), NAMES)


RED, BLUE, NODE1, GREEN = (frozenset([a]) for a in ("10.32.0.1", "10.40.0.1", "192.168.56.11", "10.32.0.9"))


@pytest.mark.parametrize(
    ("name", "wanted", "fits"),
    [
        ("vxlan-echo-request", Wanted(), True),
        ("vxlan-echo-request", Wanted(kinds=frozenset[Kind](["icmp"])), True),
        ("vxlan-echo-request", Wanted(kinds=frozenset[Kind](["tcp", "icmp"])), True),
        ("vxlan-echo-request", Wanted(kinds=frozenset[Kind](["udp"])), False),  # only its envelope is
        ("vxlan-echo-request", Wanted(vxlan=True, kinds=frozenset[Kind](["icmp"])), True),
        ("tcp-checksum-offloaded", Wanted(vxlan=True), False),
        ("vxlan-echo-request", Wanted(hosts=(RED,)), True),
        ("vxlan-echo-request", Wanted(hosts=(NODE1,)), True),
        ("vxlan-echo-request", Wanted(hosts=(RED, BLUE)), True),
        ("vxlan-echo-request", Wanted(hosts=(RED, GREEN)), False),
        ("vxlan-arp-request", Wanted(hosts=(RED, BLUE), kinds=frozenset[Kind](["arp"])), True),
        ("vxlan-tcp-syn", Wanted(ports=frozenset([5001])), True),
        ("vxlan-tcp-syn", Wanted(ports=frozenset([6784])), True),
        ("vxlan-tcp-syn", Wanted(ports=frozenset([80, 443])), False),
        ("vxlan-echo-cut", Wanted(kinds=frozenset[Kind](["icmp"])), True),
        ("switch-spanning-tree", Wanted(hosts=(RED,)), False),
    ],
)
def test_every_condition_has_to_hold(name: str, wanted: Wanted, fits: bool) -> None:  # noqa: FBT001 - a column of the table
    assert wanted.takes(golden(name)) == fits


def test_a_file_that_grows_is_the_file_that_is_written_at_once(tmp_path: Path) -> None:
    packet = golden("vxlan-echo-request")
    frames = [
        CapturedFrame("node1", "eth0", number, Direction.OUT, packet.wire_bytes, packet.data, packet)
        for number in (1, 2_000_000_003)
    ]
    growing = io.BytesIO()
    begin_pcap(growing)
    for frame in frames:
        append_pcap(growing, [frame])
    write_pcap(tmp_path / "whole.pcap", frames)
    assert growing.getvalue() == (tmp_path / "whole.pcap").read_bytes()
    assert is_pcap(tmp_path / "whole.pcap")
    (tmp_path / "text").write_text("no frames")
    assert not is_pcap(tmp_path / "text")
