"""The loop round the decisions: two drivers on loopback addresses, real datagrams, no root and no sleeping."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from plugin.agent.driver import Driver, bind_control
from plugin.core.errors import InputError
from plugin.core.membership import PeerState, StaticMembership
from plugin.core.node import Node

ONE, TWO, GONE = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2"), IPv4Address("255.255.255.255")
POD, MAC = IPv4Address("10.40.0.2"), "0a:58:0a:28:00:02"
LOG = logging.getLogger("test-driver")
DEADLINE_S = 10


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ONE), 0))
        return probe.getsockname()[1]


class Agent:
    """A driver with its node; `synced` counts how often forwarding was written."""

    def __init__(self, own: IPv4Address, port: int, *, members: tuple[IPv4Address, ...] = (ONE, TWO)) -> None:
        self.synced = 0
        self.refusal: OSError | None = None
        membership = StaticMembership(f"node-{own}", members, own)
        self.node = Node(name=f"node-{own}", incarnation=1, seed="00" * 8, membership=membership)
        self.driver = Driver(node=self.node, control=bind_control(own, port), sync_forwarding=self.sync, log=LOG)

    def sync(self) -> None:
        self.synced += 1
        if self.refusal is not None:
            raise self.refusal


@contextmanager
def running(*agents: Agent) -> Iterator[None]:
    for agent in agents:
        agent.driver.start()
    try:
        yield
    finally:
        for agent in agents:
            agent.driver.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


def test_two_drivers_mesh_and_tell_each_other_of_pods() -> None:
    async def main() -> None:
        port = free_port()
        one, two = Agent(ONE, port), Agent(TWO, port)
        with running(one, two):
            await until(lambda: one.node.peers[TWO].state is two.node.peers[ONE].state is PeerState.ESTABLISHED)
            two.node.attach(POD, MAC, "blue")
            two.driver.flush()
            await until(lambda: POD in one.node.located())
            assert one.node.located()[POD].node == TWO
            assert one.synced > 0

    asyncio.run(main())


def test_many_changes_of_one_turn_are_written_once() -> None:
    agent = Agent(ONE, free_port(), members=(ONE,))
    for number in range(5):
        agent.node.attach(POD + number, MAC, "blue")
    agent.driver.flush()
    agent.driver.flush()
    assert agent.synced == 1
    agent.driver._socket.close()


def test_forwarding_that_cannot_be_written_is_logged_and_the_agent_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        port = free_port()
        one, two = Agent(ONE, port), Agent(TWO, port)
        one.refusal = OSError(105, "No buffer space available")
        with running(one, two):
            two.node.attach(POD, MAC, "blue")
            two.driver.flush()
            await until(lambda: one.synced > 0 and one.node.peers[TWO].state is PeerState.ESTABLISHED)

    asyncio.run(main())
    assert "forwarding not written" in caplog.text


def test_a_datagram_from_another_port_is_not_heard() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port)
        with running(agent), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((str(TWO), 0))
            other.sendto(b"x", (str(ONE), port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind((str(TWO), port))
                peer.sendto(b"x", (str(ONE), port))
                await until(lambda: agent.node.counters.received > 0)
            assert agent.node.counters.received == 1
            assert agent.node.counters.rejected["malformed"] == 1

    asyncio.run(main())


def test_a_flood_leaves_the_loop_turns_for_others() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port)
        turns: list[int] = []

        def look() -> None:
            turns.append(agent.node.counters.received)
            asyncio.get_running_loop().call_soon(look)

        with running(agent), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((str(TWO), port))
            for _ in range(1000):
                peer.sendto(b"x", (str(ONE), port))
            look()
            await until(lambda: agent.node.counters.received >= 1000)
        assert max(later - earlier for earlier, later in pairwise(turns)) <= 256

    asyncio.run(main())


def test_a_peer_that_cannot_be_reached_stops_nothing() -> None:
    async def main() -> None:
        port = free_port()
        one, two = Agent(ONE, port, members=(ONE, GONE, TWO)), Agent(TWO, port)
        with running(one, two):  # no broadcast permission: sending to GONE fails at once
            await until(lambda: one.node.peers[TWO].state is PeerState.ESTABLISHED)
            assert one.node.peers[GONE].state is PeerState.CONNECTING

    asyncio.run(main())


def test_a_stopped_driver_is_silent_and_its_port_free() -> None:
    async def main() -> None:
        port = free_port()
        for _ in range(2):
            with running(Agent(ONE, port)):
                pass
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_taken_port_and_a_foreign_address_are_sentences() -> None:
    port = free_port()
    first = Agent(ONE, port)
    with pytest.raises(InputError, match=f"UDP port {port} on 127.0.0.1 cannot be used: Address already in use"):
        Agent(ONE, port)
    with pytest.raises(InputError, match="cannot be used: Cannot assign requested address"):
        Agent(IPv4Address("192.0.2.1"), port)
    first.driver._socket.close()
