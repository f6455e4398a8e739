"""Probes through the overlay of two nodes without agents: the peer's kernel answers, the network in between misbehaves."""

import asyncio
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from plugin.agent.dataplane.probing import Prober
from plugin.core.errors import InputError
from plugin.core.forwarding.forward import Forwarding, changes
from plugin.core.forwarding.paths import SMALL_BYTES, Path, PathState
from plugin.link import overlay, rtnl, switch
from plugin.link.echo import Echo
from plugin.link.netlink import Link, Netlink
from testbed.machine.space import call, run
from testbed.probes.capture import Tap, capture
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
LOG = logging.getLogger("test-paths")
MTU, PORT = 1450, 6784
NODES = {number: IPv4Address(f"192.168.56.{10 + number}") for number in (1, 2)}
BRIDGES = {number: IPv4Address(f"10.32.0.{number}") for number in (1, 2)}
MACS = {number: f"02:00:00:00:00:0{number}" for number in (1, 2)}
POD, POD_MAC = IPv4Address("10.32.0.9"), "0a:58:0a:20:00:09"
QUIET, QUIET_MAC = IPv4Address("10.32.0.8"), "0a:58:0a:20:00:08"
WITHIN_S = 3.0
SLACK_S = 1.0
DEADLINE_S = 20


class Plane:
    """The data planes of both nodes, each with entries for the other's bridge and two pods that nobody answers for."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.netlinks: dict[int, Netlink] = {}
        self.bridges: dict[int, Link] = {}
        self.devices: dict[int, Link] = {}
        for number, node in cluster.nodes.items():
            self.netlinks[number] = stack.enter_context(cluster.netlink(node))
            call(node, lambda number=number: self.build(number))

    def build(self, number: int) -> None:
        netlink, other = self.netlinks[number], 3 - number
        bridge = switch.ensure_bridge(netlink, "weave", mac=MACS[number], mtu_bytes=MTU)
        switch.ensure_address(netlink, bridge, IPv4Interface((BRIDGES[number], 12)))
        device = overlay.ensure_overlay(netlink, bridge=bridge, vni=1, local=NODES[number], port=PORT, mtu_bytes=MTU)
        remote, neighbours = {MACS[other]: NODES[other]}, {BRIDGES[other]: MACS[other]}
        if number == 1:
            remote |= {POD_MAC: NODES[2], QUIET_MAC: NODES[2]}
            neighbours |= {POD: POD_MAC, QUIET: QUIET_MAC}
        wanted = Forwarding(frozenset({NODES[other]}), remote, neighbours)
        overlay.apply_forwarding(netlink, changes(Forwarding(), wanted), bridge=bridge, overlay=device)
        self.bridges[number], self.devices[number] = bridge, device

    def inside(self, function: Callable[[], Any]) -> Any:
        return call(self.cluster.nodes[1], function)

    @contextmanager
    def echo(self, source: IPv4Address = BRIDGES[1], device: str = "weave", icmp_id: int = 7) -> Iterator[Echo]:
        opened: Echo = self.inside(lambda: Echo(source, device, icmp_id=icmp_id))
        try:
            yield opened
        finally:
            opened.close()

    # --- what goes wrong ------------------------------------------------------------------------------------------
    def nft(self, rules: str) -> None:
        done = run(self.cluster.underlay, ["nft", "-f", "-"], stdin=rules.encode(), timeout_s=10)
        assert done.returncode == 0, done.stderr

    def drop(self, what: str) -> None:
        """The segment between the nodes swallows what matches."""
        self.nft(f"table bridge t {{ chain c {{ type filter hook forward priority 0; {what} counter drop; }}; }}")

    def heal(self) -> None:
        self.nft("delete table bridge t")

    def port_mtu(self, mtu_bytes: int) -> None:
        """The port of the segment to node2: a bridge drops silently what does not fit one."""
        with self.cluster.netlink(self.cluster.underlay) as underlay:
            port = underlay.link("n2")
            assert port is not None
            underlay.request(rtnl.link_set(port.index, mtu=mtu_bytes))


@pytest.fixture
def plane(cluster: Cluster) -> Iterator[Plane]:
    with ExitStack() as stack:
        yield Plane(cluster, stack)


class Watch:
    """A running prober of node1, and what it told."""

    def __init__(self, prober: Prober, told: list[tuple[float, Path]]) -> None:
        self.prober, self.told = prober, told

    @property
    def path(self) -> Path:
        return self.prober.paths[NODES[2]]

    @property
    def is_busy(self) -> bool:
        return NODES[2] in self.prober._paths._busy

    async def until(self, state: PathState) -> float:
        """How long it took."""
        return await self.hold(lambda: self.path.state is state)

    async def hold(self, holds: Callable[[], bool]) -> float:
        began_s = time.monotonic()
        while not holds():
            assert time.monotonic() < began_s + DEADLINE_S, self.path
            await asyncio.sleep(0.01)
        return time.monotonic() - began_s


def probing(plane: Plane, body: Callable[[Watch], Awaitable[None]], *, busy: bool = False) -> list[Path]:
    """Run `body` beside a prober of node1; `busy`: while node1 sends to a pod of node2. All changes are handed back."""
    told: list[tuple[float, Path]] = []

    async def traffic() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pod:
            while True:
                pod.sendto(b"x", (str(POD), 9))
                await asyncio.sleep(0.1)

    async def main() -> None:
        prober = Prober(
            netlink=plane.netlinks[1], device=plane.devices[1], mtu_bytes=MTU, port=PORT,
            targets=lambda: {NODES[2]: (BRIDGES[2], MACS[2])}, log=LOG,
            on_changed=lambda path: told.append((time.monotonic(), path)),
        )  # fmt: skip
        prober.use(BRIDGES[1])
        sending = asyncio.get_running_loop().create_task(traffic()) if busy else None
        try:
            watch = Watch(prober, told)
            await watch.until(PathState.UP)
            if busy:
                # Entries count as used when they are made: what is seen later is the traffic.
                await asyncio.sleep(3)
                assert watch.is_busy
            await body(watch)
        finally:
            prober.stop()
            if sending is not None:
                sending.cancel()
        assert prober.paths == {}

    plane.inside(lambda: asyncio.run(main()))
    return [path for _, path in told]


# --- the prober -------------------------------------------------------------------------------------------------------
def test_a_path_is_up_by_the_peers_kernel_alone(plane: Plane) -> None:
    async def body(watch: Watch) -> None:
        path = watch.path
        assert (path.mtu_bytes, path.reason, path.target) == (MTU, "", BRIDGES[2])
        assert path.rtt_s is not None
        assert 0 < path.rtt_s < 0.5

    assert [path.state for path in probing(plane, body)] == [PathState.UP]


@pytest.mark.parametrize(
    "what", ["udp dport 6784", 'iifname "n1" udp dport 6784', 'iifname "n2" udp dport 6784'], ids=["both", "out", "in"]
)
def test_a_blocked_udp_port_is_noticed_within_three_seconds_while_pods_send(plane: Plane, what: str) -> None:
    async def body(watch: Watch) -> None:
        plane.drop(what)
        assert await watch.until(PathState.DOWN) < WITHIN_S + SLACK_S / 2
        assert "UDP 6784" in watch.path.reason
        plane.heal()
        assert await watch.until(PathState.UP) < 0.5 + SLACK_S

    assert [path.state for path in probing(plane, body, busy=True)] == [PathState.UP, PathState.DOWN, PathState.UP]


def test_a_link_with_a_smaller_mtu_in_between_is_a_hole_not_a_blocked_way(plane: Plane) -> None:
    async def body(watch: Watch) -> None:
        plane.port_mtu(1400)
        assert await watch.until(PathState.MTU) < WITHIN_S + SLACK_S / 2
        assert watch.path.mtu_bytes == SMALL_BYTES
        assert "packets of 1450 bytes do not pass, of 100 bytes do" in watch.path.reason
        plane.port_mtu(1500)
        assert await watch.until(PathState.UP) < 0.5 + SLACK_S
        assert watch.path.mtu_bytes == MTU

    assert [path.state for path in probing(plane, body, busy=True)] == [PathState.UP, PathState.MTU, PathState.UP]


def test_a_filter_for_large_packets_is_a_hole_for_idle_peers_too(plane: Plane) -> None:
    async def body(watch: Watch) -> None:
        await watch.hold(lambda: not watch.is_busy)
        plane.drop("meta length > 1450")
        assert await watch.until(PathState.MTU) < 1 + WITHIN_S + SLACK_S / 2
        plane.heal()
        assert await watch.until(PathState.UP) < 1 + SLACK_S

    assert [path.state for path in probing(plane, body)] == [PathState.UP, PathState.MTU, PathState.UP]


def test_a_bridge_that_is_down_is_told_in_the_kernels_words(plane: Plane) -> None:
    async def body(watch: Watch) -> None:
        plane.netlinks[1].request(rtnl.link_set(plane.bridges[1].index, up=False))
        await watch.until(PathState.DOWN)
        assert watch.path.reason.startswith("this node cannot send them: ")
        plane.netlinks[1].request(rtnl.link_set(plane.bridges[1].index, up=True))
        # Its neighbours went when it did: the agent would write them again.
        plane.netlinks[1].request(rtnl.neighbour_set(plane.bridges[1].index, BRIDGES[2], MACS[2]))
        await watch.until(PathState.UP)

    assert [path.state for path in probing(plane, body)] == [PathState.UP, PathState.DOWN, PathState.UP]


def test_an_overlay_device_that_is_gone_stops_no_probing(plane: Plane) -> None:
    async def body(watch: Watch) -> None:
        plane.netlinks[1].request(rtnl.link_del(plane.devices[1].index))
        await watch.until(PathState.DOWN)
        plane.inside(lambda: plane.build(1))
        await watch.until(PathState.UP)

    assert [path.state for path in probing(plane, body)] == [PathState.UP, PathState.DOWN, PathState.UP]


def test_an_address_that_the_node_does_not_have_is_logged_and_probes_nobody(plane: Plane, caplog) -> None:
    async def main() -> None:
        prober = Prober(
            netlink=plane.netlinks[1], device=plane.devices[1], mtu_bytes=MTU, port=PORT,
            targets=lambda: {NODES[2]: (BRIDGES[2], MACS[2])}, log=LOG,
        )  # fmt: skip
        prober.use(POD)
        await asyncio.sleep(0.1)
        assert prober.paths == {}
        prober.use(BRIDGES[1])
        await asyncio.sleep(0.5)
        assert prober.paths[NODES[2]].state is PathState.UP
        prober.stop()

    plane.inside(lambda: asyncio.run(main()))
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == ["overlay not probed"]


# --- the socket -------------------------------------------------------------------------------------------------------
def answers(echo: Echo, *, within_s: float = 2.0) -> list[int]:
    ready, _, _ = select.select([echo], [], [], within_s)
    return echo.receive() if ready else []


def test_a_probe_is_as_long_as_asked_for_and_not_to_be_fragmented(plane: Plane) -> None:
    with plane.echo() as echo, capture([Tap(plane.cluster.nodes[1], "eth0")]) as session:
        for identifier, size_bytes in ((70_000, MTU), (2, SMALL_BYTES)):
            echo.send(BRIDGES[2], identifier, size_bytes)
            assert answers(echo) == [identifier]
        session.drain()
        inner = [frame.packet.inner for frame in session.frames if frame.packet.inner is not None]
    requests = [packet.ipv4 for packet in inner if packet.icmp is not None and packet.icmp.type == 8]
    assert [(ip.total_length, ip.dont_fragment) for ip in requests if ip] == [(MTU, True), (SMALL_BYTES, True)]


def test_what_does_not_fit_the_overlay_is_refused_at_once(plane: Plane) -> None:
    with plane.echo() as echo:
        with pytest.raises(OSError) as raised:
            echo.send(BRIDGES[2], 1, MTU + 1)
        assert raised.value.errno == errno.EMSGSIZE


def test_the_answers_to_others_do_not_count(plane: Plane) -> None:
    with plane.echo(icmp_id=7) as one, plane.echo(icmp_id=7) as other:
        assert plane.cluster.ping(plane.cluster.nodes[1], str(BRIDGES[2])) == 0
        one.send(BRIDGES[2], 5, SMALL_BYTES)
        found: list[int] = []
        deadline_s = time.monotonic() + 2
        while not found and time.monotonic() < deadline_s:
            found = answers(one)
        assert found == [5]
        assert answers(other, within_s=0.2) == [], "the same ICMP id and address, another token"


def test_with_the_bridge_down_no_probe_leaves_by_the_default_route(plane: Plane) -> None:
    plane.netlinks[1].request(rtnl.route_add(IPv4Network("0.0.0.0/0"), gateway=NODES[2]))
    with plane.echo() as echo, capture([Tap(plane.cluster.nodes[1], "eth0")]) as session:
        plane.netlinks[1].request(rtnl.link_set(plane.bridges[1].index, up=False))
        with pytest.raises(OSError) as raised:
            echo.send(BRIDGES[2], 1, SMALL_BYTES)
        assert raised.value.errno in {errno.ENETUNREACH, errno.ENETDOWN}
        session.drain()
        sent = [frame.packet for frame in session.frames if frame.packet.ipv4 is not None]
        assert [packet.summary for packet in sent if packet.icmp is not None] == []


def test_an_address_or_device_that_is_not_there_is_refused_with_a_sentence(plane: Plane) -> None:
    for source, device in ((POD, "weave"), (BRIDGES[1], "nothing")):
        with (
            pytest.raises(InputError, match=f"cannot be probed from {source} on {device}: "),
            plane.echo(source, device),
        ):
            pass


# --- to whom pods send ------------------------------------------------------------------------------------------------
def test_the_kernel_says_which_static_entry_traffic_has_used(plane: Plane) -> None:
    def unused_s() -> dict[str, float]:
        found = [entry for entry in plane.netlinks[1].fdb() if entry.index == plane.devices[1].index and entry.address]
        return {entry.mac: entry.unused_s for entry in found}

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pod:
            pod.sendto(b"x", (str(POD), 9))

    def sent_to(*except_macs: str) -> set[IPv4Address]:
        return overlay.nodes_sent_to(plane.netlinks[1], plane.devices[1], within_s=0.5, except_macs=except_macs)

    time.sleep(1.2)
    assert min(unused_s()[mac] for mac in (POD_MAC, QUIET_MAC)) > 1
    assert sent_to() == set()
    plane.inside(send)
    after = unused_s()
    assert after[POD_MAC] < 0.5
    assert after[QUIET_MAC] > 1
    assert sent_to() == {NODES[2]}
    assert sent_to(POD_MAC) == set()
