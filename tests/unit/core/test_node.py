"""One agent's decisions: datagrams and time in, effects out."""

from ipaddress import IPv4Address

from plugin.core import wire
from plugin.core.endpoints import Endpoint
from plugin.core.membership import PeerState, StaticMembership
from plugin.core.node import MISSED_HELLOS_MAX, EndpointsChanged, Node, PeerChanged, Send

ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
A, B = IPv4Address("10.32.0.1"), IPv4Address("10.40.0.1")
MAC = "0a:58:0a:20:00:01"
SEED, FOREIGN = "00" * 8, "11" * 8


def agent(own: IPv4Address = ONE, name: str = "node1", incarnation: int = 1, seed: str = SEED) -> Node:
    return Node(name=name, incarnation=incarnation, seed=seed, membership=StaticMembership(name, [ONE, TWO], own))


def tell(node: Node, message: wire.Message, *, now_s: float = 0, seed: str = SEED) -> list[object]:
    node.on_datagram(wire.encode(message, seed), TWO, now_s=now_s)
    return list(node.effects())


def hello(version: int = 0, *, heard: bool = True, incarnation: int = 1, name: str = "node2") -> wire.Hello:
    return wire.Hello(name, incarnation, version, heard)


def sent(effects: list[object]) -> list[wire.Message]:
    return [wire.decode(effect.data) for effect in effects if isinstance(effect, Send)]


def exchange(one: Node, two: Node) -> int:
    """Deliver until nobody has anything to say; how many datagrams that took."""
    count = 0
    while batch := [(one, two, e) for e in one.effects()] + [(two, one, e) for e in two.effects()]:
        for sender, receiver, effect in batch:
            if isinstance(effect, Send):
                receiver.on_datagram(effect.data, ONE if sender is one else TWO, now_s=0)
                count += 1
        assert count < 50, "the two never stop talking"
    return count


def test_two_agents_mesh_from_one_greeting_and_then_fall_silent() -> None:
    one, two = agent(), agent(TWO, "node2")
    two.attach(B, MAC, "blue")
    one.on_timer(now_s=0)
    exchange(one, two)
    assert one.peers[TWO].state is two.peers[ONE].state is PeerState.ESTABLISHED
    place = one.located()[B]
    assert (place.node, place.endpoint.label) == (TWO, "blue")


def test_a_change_is_pushed_as_one_step() -> None:
    one = agent()
    tell(one, hello())
    one.attach(A, MAC, "red")
    effects = list(one.effects())
    assert EndpointsChanged() in effects
    assert sent(effects) == [wire.Step(1, 0, 1, (Endpoint(A, MAC, 1, "red"),), ())]
    one.detach(A)
    assert sent(list(one.effects())) == [wire.Step(1, 1, 2, (), (A,))]
    one.detach(A)
    assert one.effects() == []


def test_nobody_is_told_before_anybody_was_heard() -> None:
    one = agent()
    one.attach(A, MAC, "red")
    assert one.effects() == [EndpointsChanged()]


def test_a_step_that_does_not_fit_asks_for_the_whole_table_once() -> None:
    one = agent()
    tell(one, hello(), now_s=-9)
    step = wire.Step(1, 4, 5, (), ())
    assert sent(tell(one, step)) == [wire.Pull(1)]
    assert sent(tell(one, step)) == []
    assert sent(tell(one, step, now_s=1)) == [wire.Pull(1)]


def test_an_old_step_is_ignored() -> None:
    one = agent()
    tell(one, hello(3))
    tell(one, wire.TablePart(1, 3, 0, 1, ()))
    assert tell(one, wire.Step(1, 1, 2, (), ())) == []


def test_a_step_that_fits_is_taken() -> None:
    one = agent()
    tell(one, hello())
    tell(one, wire.TablePart(1, 0, 0, 1, ()))
    assert tell(one, wire.Step(1, 0, 1, (Endpoint(B, MAC, 1),), ())) == [EndpointsChanged()]
    assert one.located()[B].node == TWO


def test_a_table_counts_when_all_its_parts_of_one_version_are_there() -> None:
    one = agent()
    tell(one, hello(2))
    assert tell(one, wire.TablePart(1, 1, 0, 2, ())) == []
    assert tell(one, wire.TablePart(1, 2, 1, 2, (Endpoint(B, MAC, 1),))) == []
    assert tell(one, wire.TablePart(1, 2, 0, 2, ())) == [EndpointsChanged()]


def test_a_table_of_a_past_life_is_ignored() -> None:
    one = agent()
    tell(one, hello(incarnation=9))
    assert tell(one, wire.TablePart(8, 1, 0, 1, (Endpoint(B, MAC, 1),))) == []


def test_a_table_beyond_the_limit_is_refused_and_counted() -> None:
    one = agent()
    tell(one, hello(1))
    numbers = iter(range(0x0A000000, 0x0B000000))
    for part in range(400):
        chunk = tuple(Endpoint(IPv4Address(next(numbers)), MAC, 1) for _ in range(12))
        tell(one, wire.TablePart(1, 1, part, 400, chunk))
    assert one.counters.rejected["too large"] == 1
    assert one.located() == {}


def test_a_large_table_is_sent_in_parts_and_an_empty_one_in_one() -> None:
    one = agent()
    tell(one, hello())
    assert len(sent(tell(one, wire.Pull(1)))) == 1
    for number in range(13):
        one.attach(IPv4Address(int(A) + number), MAC, "")
    one.effects()
    parts = sent(tell(one, wire.Pull(1)))
    assert [(part.part, part.parts, len(part.endpoints)) for part in parts] == [(0, 2, 12), (1, 2, 1)]  # type: ignore[union-attr]


def test_garbage_and_strangers_are_counted_and_change_nothing() -> None:
    one = agent()
    one.on_datagram(b"garbage", TWO, now_s=0)
    one.on_datagram(b"garbage", IPv4Address("1.1.1.1"), now_s=0)
    assert (one.counters.rejected["malformed"], one.counters.rejected["not a member"]) == (1, 1)
    assert one.effects() == []


def test_an_agent_that_was_set_up_differently_is_refused_until_it_agrees() -> None:
    one = agent()
    changed = tell(one, hello(), seed=FOREIGN)
    assert [type(effect) for effect in changed] == [PeerChanged]
    assert "set up differently" in one.peers[TWO].reason
    assert tell(one, hello(), seed=FOREIGN) == []
    tell(one, hello())
    assert one.peers[TWO].state is PeerState.ESTABLISHED


def test_what_a_refused_peer_says_of_its_endpoints_does_not_count() -> None:
    one = agent()
    tell(one, hello(name="node1"))
    assert one.peers[TWO].state is PeerState.REFUSED
    assert tell(one, wire.TablePart(1, 1, 0, 1, (Endpoint(B, MAC, 1),))) == []
    assert tell(one, wire.Pull(1)) == []
    assert one.located() == {}


def test_a_silent_peer_fails_and_its_endpoints_stay() -> None:
    one = agent()
    tell(one, hello(1))
    tell(one, wire.TablePart(1, 1, 0, 1, (Endpoint(B, MAC, 1),)))
    one.on_timer(now_s=MISSED_HELLOS_MAX * one.hello_period_s + 1)
    failed = [effect.peer.state for effect in one.effects() if isinstance(effect, PeerChanged)]
    assert failed == [PeerState.FAILED]
    assert B in one.located()


def test_the_timer_does_nothing_before_its_time() -> None:
    one = agent()
    one.on_timer(now_s=0)
    one.effects()
    one.on_timer(now_s=one.next_timer_s() - 0.1)
    assert one.effects() == []
