"""What is on the wire between two real agents: no ARP floods, who is masqueraded, no IPv6, jumbo frames."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from plugin.core.packet.packet import Packet
from testbed.machine.space import Space, call, run
from testbed.probes.capture import Capture, Tap, capture
from tests.support.calls import OUTSIDE, outside
from tests.support.cluster import Cluster, wait_for
from tests.support.witness import Witness

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
ECHO_REQUEST = 8
INET6 = 10


def witness(space: Space, function: str, *arguments: object) -> object:
    """One question to pyroute2 inside a space."""
    return call(space, lambda: getattr(Witness(), function)(*arguments))


def uplinks(cluster: Cluster) -> list[Tap]:
    return [Tap(node, "eth0") for node in cluster.nodes.values()]


def wrapped(session: Capture) -> list[Packet]:
    """The frames inside VXLAN that were seen; all of them, or the test has no proof."""
    session.drain()
    assert session.lost == 0
    return [frame.packet.inner for frame in session.frames if frame.packet.inner is not None]


def arps(packets: Iterable[Packet]) -> list[str]:
    return [packet.summary for packet in packets if packet.arp is not None]


def echo_sources(session: Capture, tap: str, destination: str) -> set[str]:
    """Who the echo requests for `destination` come from, as seen at one tap."""
    session.drain()
    found = [frame.packet for frame in session.frames if frame.tap == tap and frame.packet.inner is None]
    return {
        str(packet.ipv4.source)
        for packet in found
        if packet.icmp is not None and packet.icmp.type == ECHO_REQUEST
        and packet.ipv4 is not None and str(packet.ipv4.destination) == destination
    }  # fmt: skip


def test_the_first_packet_to_a_remote_pod_floods_no_arp(cluster: Cluster) -> None:
    cluster.mesh()
    red, _ = cluster.add(1, "redpod")
    _, blue_address = cluster.add(2, "bluepod")
    wait_for(lambda: cluster.knows(1, blue_address), "node1 knows the pod of node2")
    with capture(uplinks(cluster)) as session:
        assert cluster.ping(red, blue_address) == 0
        seen = wrapped(session)
        assert any(packet.icmp is not None for packet in seen), "the capture saw the ping itself"
        assert arps(seen) == []
        # The control: an address that nobody has is asked for on all nodes, and this capture does see it.
        assert cluster.ping(red, "10.32.7.7") != 0
        assert arps(wrapped(session)) != []


def test_a_pods_questions_for_its_own_node_never_leave_it(cluster: Cluster) -> None:
    cluster.mesh()
    red, red_address = cluster.add(1, "redpod")
    _, green_address = cluster.add(1, "greenpod")
    with capture(uplinks(cluster)) as session:
        for target in (green_address, "10.32.0.1"):
            assert cluster.ping(red, target) == 0, target
        # What the bridge announces by itself, its multicast groups (IGMP), goes to all nodes, as on any switch; and
        # the agents probe the way between the switches, which is none of the pod's business.
        assert [
            packet.summary
            for packet in wrapped(session)
            if packet.arp is not None or (packet.icmp is not None and red_address in packet.summary)
        ] == []


def test_nobody_on_the_pod_network_speaks_ipv6(cluster: Cluster) -> None:
    with capture(uplinks(cluster)) as session:
        cluster.mesh()
        red, _ = cluster.add(1, "redpod")
        _, blue_address = cluster.add(2, "bluepod")
        wait_for(lambda: cluster.ping(red, blue_address) == 0, "the pods reach each other")
        assert [packet.summary for packet in wrapped(session) if packet.ipv6 is not None] == []
    assert witness(red, "addresses", "eth0", INET6) == []
    for name in ("weave", "vxlan-6784", *cluster.pod_links(1)):
        assert witness(cluster.nodes[1], "addresses", name, INET6) == [], name
        disabled = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        assert call(cluster.nodes[1], disabled.read_text).strip() == "1", name


def test_pods_are_masqueraded_towards_the_outside_and_nowhere_else(cluster: Cluster) -> None:
    world = outside(cluster)
    cluster.mesh()
    red, red_address = cluster.add(1, "redpod")
    blue, blue_address = cluster.add(2, "bluepod")
    green, green_address = cluster.add(1, "greenpod")
    wait_for(lambda: cluster.knows(1, blue_address), "node1 knows the pod of node2")
    with capture([Tap(world, "eth0"), Tap(cluster.nodes[2], "eth0"), Tap(blue, "eth0"), Tap(green, "eth0")]) as session:
        for target in (OUTSIDE, "192.168.56.12", blue_address, green_address):
            assert cluster.ping(red, target) == 0, target
        assert echo_sources(session, "outside", OUTSIDE) == {"192.168.56.11"}
        assert echo_sources(session, "node2", "192.168.56.12") == {"192.168.56.11"}
        assert echo_sources(session, "bluepod", blue_address) == {red_address}
        assert echo_sources(session, "greenpod", green_address) == {red_address}


def test_nodes_and_pods_reach_each_other_with_their_own_addresses(cluster: Cluster) -> None:
    cluster.mesh()
    red, red_address = cluster.add(1, "redpod")
    wait_for(lambda: cluster.knows(2, red_address), "node2 knows the pod of node1")
    bridges = {
        number: cluster.report(number)["bridge"]["address"] for number in cluster.nodes
    }  # fmt: skip
    with capture([Tap(red, "eth0")]) as session:
        for node in cluster.nodes.values():
            assert cluster.ping(node, red_address) == 0, node.name
        assert echo_sources(session, "redpod", red_address) == set(bridges.values())
    for address in bridges.values():
        assert cluster.ping(red, address) == 0, address


def test_jumbo_frames_of_the_underlay_reach_the_pods(cluster: Cluster) -> None:
    cluster.set_underlay_mtu(9000)
    cluster.mesh()
    red, _ = cluster.add(1, "redpod")
    _, blue_address = cluster.add(2, "bluepod")
    wait_for(lambda: cluster.ping(red, blue_address) == 0, "the pods reach each other")
    assert cluster.report(1)["overlay"]["mtu"] == 8950
    for space, name in ((red, "eth0"), (cluster.nodes[1], "weave"), (cluster.nodes[1], "vxlan-6784")):
        assert witness(space, "link", name).get_attr("IFLA_MTU") == 8950, name
    headers = 20 + 8  # IPv4 and ICMP
    assert cluster.ping(red, blue_address, "-Mdo", "-s", str(8950 - headers)) == 0
    too_long = run(red, ["ping", "-c1", "-W2", "-Mdo", "-s", str(8951 - headers), blue_address], timeout_s=10)
    assert too_long.returncode != 0
    assert "message too long" in (too_long.stdout + too_long.stderr).lower()  # some add the MTU


def test_an_underlay_that_shrinks_before_a_restart_shrinks_the_overlay(cluster: Cluster) -> None:
    cluster.set_underlay_mtu(9000)
    cluster.start(1)
    cluster.kill(1)
    cluster.set_underlay_mtu(1500)
    cluster.start(1)
    for name in ("weave", "vxlan-6784"):
        assert witness(cluster.nodes[1], "link", name).get_attr("IFLA_MTU") == 1450, name


def test_a_pod_that_asks_for_a_small_mtu_leaves_the_others_theirs(cluster: Cluster) -> None:
    cluster.mesh()
    _, red_address = cluster.add(1, "redpod")
    small = cluster.space("smallpod")
    assert cluster.cni(1, "ADD", small, mtu=1000)[0] == 200
    blue, _ = cluster.add(2, "bluepod")
    wait_for(lambda: cluster.knows(2, red_address), "node2 knows the pod of node1")
    assert cluster.ping(blue, red_address, "-Mdo", "-s", str(1450 - 28)) == 0
    assert cluster.ping(cluster.nodes[1], red_address, "-Mdo", "-s", str(1450 - 28)) == 0
    assert witness(cluster.nodes[1], "link", "weave").get_attr("IFLA_MTU") == 1450


def test_offloads_of_the_uplink_stay_as_they_were(cluster: Cluster) -> None:
    if shutil.which("ethtool") is None:
        pytest.skip("ethtool is not installed")

    def features() -> dict[str, str]:
        text = call(cluster.nodes[1], lambda: subprocess.check_output(["ethtool", "-k", "eth0"], text=True))
        return dict(re.findall(r"^\t?([a-z0-9-]+): (\w+)", text, re.MULTILINE))

    before = features()
    assert before["tcp-segmentation-offload"] == before["tx-checksumming"] == "on"
    cluster.start(1)
    cluster.add(1, "redpod")
    assert features() == before
