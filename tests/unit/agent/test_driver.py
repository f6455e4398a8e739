"""The loop round the decisions: two drivers on loopback addresses, real datagrams, no root and no sleeping."""

import asyncio
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

import pytest

from plugin.agent.driver import Driver
from plugin.agent.exchanges import CALL_TIMEOUT_S
from plugin.agent.guests import PER_ADDRESS_MAX
from plugin.agent.sockets import bind_control
from plugin.core.errors import InputError, MissingError
from plugin.core.membership.members import PeerState
from plugin.core.messages import kinds, values, wire
from plugin.core.messages.exchange import GREETING, Calling, greeting
from plugin.core.messages.keys import Keys
from plugin.core.messages.kinds import Kind
from plugin.core.messages.values import Member
from plugin.core.messages.wire import FRAME_BYTES_MAX, HEADER, LENGTH, Head
from plugin.core.node import Node
from plugin.core.outbox import Call, Noted, Persist, Send

ONE, TWO, GONE = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2"), IPv4Address("255.255.255.255")
POD, MAC = IPv4Address("10.40.0.2"), "0a:58:0a:28:00:02"
KEYS = Keys("test", IPv4Network("10.32.0.0/12"))
STRANGER = Member("stranger", "ab" * 8, TWO, 7)
LOG = logging.getLogger("test-driver")
DEADLINE_S = 10


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ONE), 0))
        return probe.getsockname()[1]


class Agent:
    """A driver with its node and hands that count; `refusal` and `disk` are what the kernel and the disk answer."""

    def __init__(
        self, own: IPv4Address, port: int, *, seeds: tuple[IPv4Address, ...] = (ONE, TWO), founders: int = 2
    ) -> None:
        self.synced = self.spaces = self.moved = 0
        self.refusal: OSError | None = None
        self.disk: MissingError | None = None
        self.written: list[bytes] = []
        me = Member(f"node-{own}", f"{int(own):016x}", own, 1)
        self.node = Node(me=me, keys=KEYS, seeds=seeds, founders=founders, chance=random.Random(int(own)))
        self.driver = Driver(node=self.node, control=bind_control(own, port), handlers=self, log=LOG)

    def sync_forwarding(self, *, peers: bool) -> None:
        self.synced += 1
        if self.refusal is not None:
            raise self.refusal

    def persist(self, data: bytes) -> None:
        if self.disk is not None:
            raise self.disk
        self.written.append(data)

    def space_changed(self) -> None:
        self.spaces += 1

    def peer_moved(self) -> None:
        self.moved += 1


@asynccontextmanager
async def running(*agents: Agent) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for agent in agents:
            agent.driver.start()
            stack.push_async_callback(agent.driver.stop)
        yield


@asynccontextmanager
async def idle(port: int) -> AsyncIterator[Agent]:
    """An agent that was never started: what it wants is carried out when the test says so."""
    agent = Agent(ONE, port, seeds=(), founders=0)
    try:
        yield agent
    finally:
        await agent.driver.stop()


async def frame(stream: asyncio.StreamReader) -> bytes:
    (length,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
    return await stream.readexactly(length)


async def dial(port: int, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, wait to be greeted, and say this."""
    reader, writer = await asyncio.open_connection(str(ONE), port, local_addr=(str(TWO), 0))
    await reader.readexactly(GREETING.size)
    writer.write(data)
    return reader, writer


SYNC = kinds.Sync((STRANGER,), (), (), (), (), values.RingState("", 0, (), (), ()), False)
"""What an agent that knows nothing asks when it joins."""


async def ask(port: int, keys: Keys = KEYS) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Calling]:
    """Connect, and ask that."""
    reader, writer = await asyncio.open_connection(str(ONE), port, local_addr=(str(TWO), 0))
    calling = Calling(keys, STRANGER.session, 1, await reader.readexactly(GREETING.size))
    data = calling.request(Kind.SYNC, wire.body_of(SYNC, STRANGER))
    writer.write(LENGTH.pack(len(data)) + data)
    return reader, writer, calling


async def answered(port: int) -> kinds.Answer:
    """What somebody who joins is told."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer, calling = await ask(port)
        received = wire.parse(calling.open(await frame(reader)))
        writer.close()
    assert isinstance(received, wire.Received)
    return received.message


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)


def test_two_drivers_mesh_agree_and_tell_each_other_of_pods() -> None:
    async def main() -> None:
        port = free_port()
        one, two = Agent(ONE, port), Agent(TWO, port)
        async with running(one, two):
            await until(lambda: meshed(one, two))
            two.node.attach(POD, MAC, "blue", now_s=asyncio.get_running_loop().time())
            two.driver.flush()
            await until(lambda: POD in one.node.located())
            assert one.node.located()[POD].node == TWO
            assert one.synced > 0
            await until(lambda: one.node.council.status() == two.node.council.status() == "ready")
            assert one.node.council.ring_id == two.node.council.ring_id != ""
            assert one.written, "the ring is on the disk"
            assert one.spaces > 0, "who waits for addresses was told"

    asyncio.run(main())


def meshed(one: Agent, two: Agent) -> bool:
    peers = one.node.peers.get(TWO), two.node.peers.get(ONE)
    return all(peer is not None and peer.state is PeerState.ESTABLISHED for peer in peers)


def test_a_driver_that_moves_is_followed_and_its_old_sockets_are_free() -> None:
    async def main() -> None:
        port, three = free_port(), IPv4Address("127.0.0.3")
        one, two = Agent(ONE, port), Agent(TWO, port)
        async with running(one, two):
            await until(lambda: meshed(one, two))
            two.node.attach(POD, MAC, "blue", now_s=asyncio.get_running_loop().time())
            two.driver.flush()
            two.node.move(three, now_s=asyncio.get_running_loop().time())
            two.driver.move(bind_control(three, port))
            await until(lambda: POD in one.node.located() and one.node.located()[POD].node == three)
            await until(lambda: one.node.peers[three].state is PeerState.ESTABLISHED)
            assert one.moved == 1
            assert three in one.node.seeds
            assert TWO not in one.node.seeds
            bind_control(TWO, port).close()

    asyncio.run(main())


def test_many_changes_of_one_turn_are_written_once() -> None:
    async def main() -> None:
        async with idle(free_port()) as agent:
            for number in range(5):
                agent.node.attach(POD + number, MAC, "blue", now_s=0)
            agent.driver.flush()
            agent.driver.flush()
            assert agent.synced == 1

    asyncio.run(main())


def test_forwarding_that_cannot_be_written_is_logged_and_the_agent_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        port = free_port()
        one, two = Agent(ONE, port), Agent(TWO, port)
        one.refusal = OSError(105, "No buffer space available")
        async with running(one, two):
            two.node.attach(POD, MAC, "blue", now_s=asyncio.get_running_loop().time())
            two.driver.flush()
            await until(lambda: one.synced > 0 and meshed(one, two))

    asyncio.run(main())
    assert "forwarding not written" in caplog.text


def test_a_datagram_from_another_port_is_not_heard() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            with datagrams(0) as other, datagrams(port) as peer:
                other.sendto(b"x", (str(ONE), port))
                peer.sendto(b"x", (str(ONE), port))
                await until(lambda: agent.node.counters.received > 0)
            assert agent.node.counters.received == 1
            assert agent.node.counters.rejected["malformed"] == 1

    asyncio.run(main())


def datagrams(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((str(TWO), port))
    return made


def forged(agent: Agent) -> bytes:
    """What somebody can send who has listened on the underlay and does not know the password."""
    head = Head(Kind.PULL, KEYS.mark, agent.node.tag, STRANGER.session, 1, b"")
    return wire.sealed(head, b"{}", b"guess")


@pytest.mark.parametrize(("members", "most"), [(True, 256), (False, 16)], ids=["forged", "rubbish"])
def test_a_flood_leaves_the_loop_turns_for_others(*, members: bool, most: int) -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        turns: list[int] = []

        def look() -> None:
            turns.append(agent.node.counters.received)
            asyncio.get_running_loop().call_soon(look)

        async with running(agent):
            data = forged(agent) if members else b"x"
            with datagrams(port) as peer:
                for _ in range(500):
                    peer.sendto(data, (str(ONE), port))
                look()
                await until(lambda: agent.node.counters.received >= 100)
        assert max(later - earlier for earlier, later in pairwise(turns)) <= most

    asyncio.run(main())


def test_datagrams_of_strangers_that_nobody_has_time_for_are_dropped_by_the_kernel_and_counted() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            with datagrams(port) as peer:
                for _ in range(2000):
                    peer.sendto(bytes(1000), (str(ONE), port))
                # All of it happened before the agent looked: members' datagrams have not been lost for it.
                peer.sendto(forged(agent), (str(ONE), port))
                await until(lambda: agent.node.counters.rejected["other password"] > 0)
                await until(lambda: agent.node.counters.rejected["too many"] > 1000)
                assert agent.node.counters.received < 1000

    asyncio.run(main())


def test_a_new_life_is_heard_at_once() -> None:
    """The kernel sorts by the life of an agent, and is told when it has another one."""

    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            agent.node._census.renew()
            agent.driver.flush()
            with datagrams(port) as peer:
                for _ in range(500):
                    peer.sendto(b"x", (str(ONE), port))
                peer.sendto(forged(agent), (str(ONE), port))
                await until(lambda: agent.node.counters.rejected["other password"] > 0)
                assert agent.node.counters.received < 100, "it has not waited behind the others"

    asyncio.run(main())


def test_a_seed_that_cannot_be_reached_stops_nothing_and_is_told() -> None:
    async def main() -> None:
        port = free_port()
        one, two = Agent(ONE, port, seeds=(GONE, TWO)), Agent(TWO, port)
        async with running(one, two):  # a broadcast address: connecting to GONE fails at once
            await until(lambda: meshed(one, two))
            await until(lambda: "no answer on TCP port" in one.node.peers[GONE].reason)
            assert one.node.peers[GONE].state is PeerState.CONNECTING

    asyncio.run(main())


def test_a_stopped_driver_is_silent_and_its_port_free() -> None:
    async def main() -> None:
        port = free_port()
        for _ in range(2):
            async with running(Agent(ONE, port)):
                pass

    asyncio.run(main())


def test_an_agent_that_moves_listens_at_the_new_address_and_not_at_the_old_one() -> None:
    async def main() -> None:
        port, there = free_port(), IPv4Address("127.0.0.3")
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            agent.driver.move(bind_control(there, port, free=True))
            bind_control(ONE, port).close()  # it is free
            reader, writer = await asyncio.open_connection(str(there), port, local_addr=(str(TWO), 0))
            assert (await reader.readexactly(GREETING.size))[:12] == agent.node.greeting(bytes(8))[:12]
            writer.close()
            with datagrams(port) as peer:
                for data in (b"x", forged(agent)):
                    peer.sendto(data, (str(there), port))
                await until(lambda: agent.node.counters.received == 2)

    asyncio.run(main())


def test_sockets_can_be_made_for_an_address_that_is_still_to_come() -> None:
    bind_control(IPv4Address("192.0.2.1"), free_port(), free=True).close()


def test_a_taken_port_and_a_foreign_address_are_sentences() -> None:
    port = free_port()
    taken = bind_control(ONE, port)
    with pytest.raises(InputError, match=f"UDP port {port} on 127.0.0.1 cannot be used: Address already in use"):
        bind_control(ONE, port)
    with pytest.raises(InputError, match="cannot be used: Cannot assign requested address"):
        bind_control(IPv4Address("192.0.2.1"), port)
    taken.members.close()
    assert taken.strangers is not None
    with pytest.raises(InputError, match=f"UDP port {port} on 127.0.0.1 cannot be used: Address already in use"):
        bind_control(ONE, port)
    taken.strangers.close()
    with pytest.raises(InputError, match=f"TCP port {port} on 127.0.0.1 cannot be used: Address already in use"):
        bind_control(ONE, port)
    taken.close()
    bind_control(ONE, port).close()


# --- the disk ----------------------------------------------------------------------------------------------------------
FULL = MissingError("the agent's state cannot be written: No space left on device", hint="free disk space")


class Script:
    """In a node's place: `flush` is given these effects."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns: list[list[object]] = []
        self.unanswered: list[tuple[int, str]] = []
        self.persisted: list[int] = []
        self.answered: list[tuple[int, bytes, IPv4Address]] = []
        node = agent.node
        monkeypatch.setattr(node, "effects", lambda: self.turns.pop(0) if self.turns else [])
        monkeypatch.setattr(node, "on_no_answer", lambda token, why, *, now_s: self.unanswered.append((token, why)))
        monkeypatch.setattr(
            node, "on_answer", lambda token, data, to, *, now_s: self.answered.append((token, data, to))
        )
        monkeypatch.setattr(node, "on_greeting", lambda _token, _said: b"hello")
        monkeypatch.setattr(node.council, "on_persisted", self.persisted.append)


def test_what_follows_a_ring_that_cannot_be_written_is_dropped_and_nobody_hears_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        port = free_port()
        async with idle(port) as agent:
            script = Script(agent, monkeypatch)
            agent.disk = FULL
            script.turns = [[Send(TWO, b"before"), Persist(b"ring", 1), Send(TWO, b"behind"), Noted("behind")]]
            with datagrams(port) as peer:
                peer.setblocking(False)
                assert agent.driver.flush() is False
                assert peer.recv(100) == b"before"
                with pytest.raises(BlockingIOError):
                    peer.recv(100)
            assert script.persisted == []

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    assert [record.message for record in caplog.records] == ["ring not written"]


def test_no_exchange_is_begun_until_the_ring_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with idle(free_port()) as agent:
            script = Script(agent, monkeypatch)
            agent.disk = FULL
            script.turns = [[Persist(b"ring", 4)]]
            agent.driver.flush()
            script.turns = [[Call(TWO, 17)]]
            assert agent.driver.flush() is False
            assert script.unanswered == [(17, "the disk takes nothing")]
            agent.disk = None
            assert agent.driver.flush() is True
            assert agent.written == [b"ring"]
            assert script.persisted == [4]
            script.turns = [[Call(TWO, 18)]]
            agent.driver.flush()
            await until(lambda: len(script.unanswered) == 2)
            token, reason = script.unanswered[1]
            assert token == 18
            assert "the disk" not in reason, "it was tried, nobody listens there"

    asyncio.run(main())


def test_an_exchange_that_was_dropped_behind_a_ring_has_no_answer_and_the_node_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with idle(free_port()) as agent:
            script = Script(agent, monkeypatch)
            agent.disk = FULL
            script.turns = [[Persist(b"ring", 1), Call(TWO, 17)]]
            agent.driver.flush()
            assert script.unanswered == [(17, "the disk takes nothing")], "or it waits for that answer for ever"

    asyncio.run(main())


def test_of_two_rings_that_could_not_be_written_the_later_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with idle(free_port()) as agent:
            script = Script(agent, monkeypatch)
            agent.disk = FULL
            for serial in (1, 2):
                script.turns = [[Persist(b"ring %d" % serial, serial)]]
                assert agent.driver.flush() is False
            agent.disk = None
            assert agent.driver.flush() is True
            assert (agent.written, script.persisted) == ([b"ring 2"], [2])

    asyncio.run(main())


def test_a_caller_is_not_answered_while_what_it_asked_for_is_not_on_the_disk() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=(), founders=1)
        agent.disk = FULL
        async with running(agent):
            reader, writer, _ = await ask(port)
            assert await reader.read() == b""
            writer.close()
            agent.disk = None
            assert isinstance(await answered(port), kinds.Sync)

    asyncio.run(main())


# --- exchanges ---------------------------------------------------------------------------------------------------------
def test_a_call_and_its_answer_over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        port = free_port()
        async with idle(port) as agent:
            script = Script(agent, monkeypatch)
            asked: list[tuple[bytes, str]] = []

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(greeting(STRANGER.session, bytes(8)))
                asked.append((await frame(reader), writer.get_extra_info("peername")[0]))
                writer.write(LENGTH.pack(5) + b"world")
                writer.close()

            async with await asyncio.start_server(answer, str(TWO), port):
                script.turns = [[Call(TWO, 3)]]
                agent.driver.flush()
                await until(lambda: bool(script.answered))
            assert asked == [(b"hello", str(ONE))], "it comes from the node address, whatever else the node has"
            assert script.answered == [(3, b"world", TWO)]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"", "it hung up"), (b"\0\0\0\x09half", "it hung up"), (struct.pack(">I", FRAME_BYTES_MAX + 1), "are announced")],
    ids=["nothing", "half an answer", "too much"],
)
def test_a_call_with_a_broken_answer_is_unanswered(monkeypatch: pytest.MonkeyPatch, said: bytes, reason: str) -> None:
    async def main() -> None:
        port = free_port()
        async with idle(port) as agent:
            script = Script(agent, monkeypatch)

            async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(greeting(STRANGER.session, bytes(8)))
                await frame(reader)
                writer.write(said)
                writer.close()

            async with await asyncio.start_server(answer, str(TWO), port):
                script.turns = [[Call(TWO, 3)]]
                agent.driver.flush()
                await until(lambda: bool(script.unanswered))
            assert script.answered == []
            assert script.unanswered[0][0] == 3
            assert reason in script.unanswered[0][1]

    asyncio.run(main())


def test_a_call_that_nobody_answers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.agent.exchanges.CALL_TIMEOUT_S", 0.05)

    async def main() -> None:
        port = free_port()
        async with idle(port) as agent:
            script = Script(agent, monkeypatch)
            with socket.create_server((str(TWO), port)):
                script.turns = [[Call(TWO, 3)]]
                agent.driver.flush()
                await until(lambda: bool(script.unanswered))
            assert script.unanswered == [(3, "timed out")]

    asyncio.run(main())


def test_a_request_over_tcp_is_answered_with_everything_this_agent_knows() -> None:
    async def main() -> None:
        port = free_port()
        async with running(Agent(ONE, port, seeds=())):
            told = await answered(port)
            assert isinstance(told, kinds.Sync)
            assert {member.name for member in told.members} == {f"node-{ONE}", "stranger"}

    asyncio.run(main())


def test_a_caller_that_hung_up_while_it_waited_costs_no_answer() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            # The agent is busy: all of it happens before it looks.
            with socket.create_connection((str(ONE), port)) as caller:
                caller.sendall(LENGTH.pack(100) + bytes(100))
            assert isinstance(await answered(port), kinds.Sync)
            assert agent.node.counters.received_bytes == HEADER.size + len(wire.body_of(SYNC, STRANGER))

    asyncio.run(main())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: w\r\n\r\n",
        LENGTH.pack(4) + b"junk",
        LENGTH.pack(0),
        LENGTH.pack(FRAME_BYTES_MAX + 1) + b"x",
        LENGTH.pack(0xFFFFFFFF),
    ],
    ids=["http", "junk", "nothing", "oversized", "huge"],
)
def test_garbage_on_tcp_is_hung_up_on_and_stops_nothing(data: bytes) -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            reader, writer = await dial(port, data)
            async with asyncio.timeout(CALL_TIMEOUT_S / 2):  # at once, not when its time is up
                said = await ended(reader)
            writer.close()
            assert said == b""
            assert isinstance(await answered(port), kinds.Sync)

    asyncio.run(main())


async def ended(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:  # unread bytes were left when it hung up
        return b""


def test_who_calls_too_often_at_a_time_is_sent_away_and_idle_callers_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("plugin.agent.exchanges.CALL_TIMEOUT_S", 0.5)

    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        rejected, guests = agent.node.counters.rejected, agent.driver._exchanges.guests
        async with running(agent):
            silent = [await dial(port, b"\0") for _ in range(PER_ADDRESS_MAX)]
            assert guests.count == PER_ADDRESS_MAX
            reader, writer = await asyncio.open_connection(str(ONE), port, local_addr=(str(TWO), 0))
            assert await reader.read() == b"", "not even greeted"
            assert rejected["too many"] == 1
            writer.close()
            await until(lambda: guests.count == 0)
            assert rejected["too slow"] == PER_ADDRESS_MAX
            assert isinstance(await answered(port), kinds.Sync)
            for _, one in silent:
                one.close()

    asyncio.run(main())


def test_a_request_that_trickles_in_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; the whole does not."""
    monkeypatch.setattr("plugin.agent.exchanges.CALL_TIMEOUT_S", 0.3)

    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            reader, writer = await dial(port, LENGTH.pack(1000))

            def trickle() -> None:
                if not writer.is_closing():
                    writer.write(b"x")
                    asyncio.get_running_loop().call_later(0.02, trickle)

            trickle()
            async with asyncio.timeout(DEADLINE_S):
                assert await ended(reader) == b""
            writer.close()
            assert agent.node.counters.rejected["too slow"] == 1

    asyncio.run(main())


def test_of_a_long_request_no_more_is_read_than_shows_that_no_member_makes_it() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            reader, writer = await dial(port, LENGTH.pack(FRAME_BYTES_MAX) + bytes(HEADER.size))
            async with asyncio.timeout(DEADLINE_S):
                assert await ended(reader) == b""
            writer.close()
            assert agent.node.counters.rejected["other password"] == 1
            assert agent.node.counters.received_bytes == 0

    asyncio.run(main())


def test_strangers_may_not_announce_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.agent.guests.STRANGERS_BYTES_MAX", 150_000)

    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            _, first = await dial(port, LENGTH.pack(100_000))
            await until(lambda: agent.driver._exchanges.guests._strangers_bytes == 100_000)
            reader, second = await dial(port, LENGTH.pack(100_000))
            async with asyncio.timeout(DEADLINE_S):
                assert await ended(reader) == b""
            assert agent.node.counters.rejected["too many"] == 1
            first.close()
            second.close()
            await until(lambda: agent.driver._exchanges.guests.count == 0)

    asyncio.run(main())


def test_with_another_password_nobody_gets_in_and_is_told_so() -> None:
    async def main() -> None:
        port = free_port()
        agent = Agent(ONE, port, seeds=())
        async with running(agent):
            reader, writer, calling = await ask(port, Keys("test", KEYS.network, "", "another"))
            opened = calling.open(await frame(reader))
            writer.close()
            assert (opened.head.kind, opened.sealed) == (Kind.REFUSE, False)
            assert agent.node.members.others == {}

    asyncio.run(main())
