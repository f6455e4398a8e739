"""What the probes of the overlay say of a path, and how many there are."""

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from plugin.core.forwarding.paths import (
    IDLE_S,
    LATE_S,
    MISSED_MAX,
    PROBE_S,
    SMALL_BYTES,
    Path,
    PathChanged,
    Paths,
    PathState,
    Probe,
)

MTU = 1450
ONE, TWO = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12")
ONE_BRIDGE, TWO_BRIDGE = IPv4Address("10.32.0.1"), IPv4Address("10.40.0.1")
TICK_S = 0.05

Answers = Callable[[Probe], bool]


def everything(probe: Probe) -> bool:
    return True


def nothing(probe: Probe) -> bool:
    return False


def small_ones(probe: Probe) -> bool:
    return probe.size_bytes <= SMALL_BYTES


class Network:
    """The paths of a node and the world that answers their probes at once, or not."""

    def __init__(self, count: int = 1) -> None:
        self.paths = Paths(MTU, 6784)
        self.now_s = 0.0
        self.probes: list[tuple[float, Probe]] = []
        self.changes: list[tuple[float, Path]] = []
        nodes = {ONE + number: ONE_BRIDGE + number * 256 for number in range(count)}
        self.paths.set_targets(nodes, now_s=0.0)

    def live(self, seconds: float, answers: Answers = everything) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s - TICK_S / 2:
            self.turn(answers)
            self.now_s += TICK_S

    def turn(self, answers: Answers) -> list[Probe]:
        """One call of the timer, with the probes that it sends."""
        self.paths.on_timer(now_s=self.now_s)
        sent = self.collect()
        for probe in sent:
            if answers(probe):
                self.paths.on_reply(probe.identifier, now_s=self.now_s)
        self.collect()
        return sent

    def collect(self) -> list[Probe]:
        sent = []
        for effect in self.paths.effects():
            if isinstance(effect, Probe):
                sent.append(effect)
                self.probes.append((self.now_s, effect))
            else:
                assert isinstance(effect, PathChanged)
                self.changes.append((self.now_s, effect.path))
        return sent

    @property
    def path(self) -> Path:
        return self.paths.paths[ONE]

    @property
    def states(self) -> list[PathState]:
        return [path.state for _, path in self.changes]


def test_without_peers_there_is_nothing_to_do() -> None:
    paths = Paths(MTU, 6784)
    paths.on_timer(now_s=1.0)
    assert paths.next_timer_s() == float("inf")
    assert paths.effects() == []
    assert paths.paths == {}


def test_a_new_peer_is_probed_at_once_with_the_largest_packet() -> None:
    network = Network()
    assert network.paths.next_timer_s() <= 0.0
    assert [(probe.to, probe.size_bytes) for probe in network.turn(nothing)] == [(ONE_BRIDGE, MTU)]
    assert network.path == Path(ONE, ONE_BRIDGE)
    assert network.changes == []


def test_an_answer_means_up_and_tells_round_trip_and_size() -> None:
    network = Network()
    (probe,) = network.turn(nothing)
    network.paths.on_reply(probe.identifier, now_s=0.003)
    up = Path(ONE, ONE_BRIDGE, PathState.UP, "", 0.003, MTU, since_s=0.003, answered_s=0.003)
    assert network.path == up
    assert network.paths.effects() == [PathChanged(up)]
    assert network.paths.effects() == []


def test_a_path_that_stays_up_is_reported_once() -> None:
    network = Network()
    network.live(20)
    assert network.states == [PathState.UP]


def large(network: Network) -> list[Probe]:
    return [probe for _, probe in network.probes if probe.size_bytes == MTU]


@pytest.mark.parametrize("busy", [(), (ONE,)])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_probe_or_two_that_are_lost_change_nothing(busy: tuple[IPv4Address, ...], lost: int) -> None:
    network = Network()
    network.paths.busy(busy)
    network.live(3)
    left = [lost]

    def loses_some(probe: Probe) -> bool:
        if probe.size_bytes == MTU and left[0]:
            left[0] -= 1
            return False
        return True

    network.live(10, loses_some)
    assert left == [0]
    assert network.states == [PathState.UP]
    assert network.path.state is PathState.UP


def test_a_busy_path_that_is_blocked_is_down_within_three_seconds_and_the_port_is_named() -> None:
    for blocked_after_s in (3.0, 3.05, 3.25, 3.45):
        network = Network()
        network.paths.busy([ONE])
        network.live(blocked_after_s)
        network.live(4, nothing)
        (down_s, down), (up_s, _) = network.changes[1], network.changes[0]
        assert up_s == 0.0
        assert down.state is PathState.DOWN
        assert down_s - blocked_after_s <= 3.0
        assert "is UDP 6784 open in both directions?" in down.reason
        assert (down.mtu_bytes, network.states) == (0, [PathState.UP, PathState.DOWN])


def test_a_peer_that_never_answered_is_down_within_three_seconds_too() -> None:
    network = Network()
    network.live(3, nothing)
    assert network.states == [PathState.DOWN]


def test_an_idle_path_that_is_blocked_is_noticed_when_its_turn_comes() -> None:
    network = Network()
    network.live(3)
    network.live(IDLE_S + 3, nothing)
    assert network.states == [PathState.UP, PathState.DOWN]


def test_a_path_that_is_down_is_probed_in_turn_like_an_idle_one_unless_pods_send_there() -> None:
    network = Network()
    network.live(5, nothing)
    network.probes.clear()
    network.live(20, nothing)
    assert len(large(network)) == pytest.approx(20 / IDLE_S, abs=1)
    network.paths.busy([ONE])
    network.live(1, nothing)
    network.probes.clear()
    network.live(10, nothing)
    assert len(large(network)) == pytest.approx(10 / PROBE_S, abs=2)


def test_many_paths_that_are_down_cost_no_more_than_idle_ones() -> None:
    network = Network(50)
    network.live(5, nothing)
    assert {path.state for path in network.paths.paths.values()} == {PathState.DOWN}
    network.probes.clear()
    network.live(20, nothing)
    assert len(large(network)) == pytest.approx(20 / IDLE_S, abs=1)


def test_the_time_since_which_a_path_is_as_it_is_stays_while_it_stays() -> None:
    network = Network()
    network.live(3)
    assert network.path.since_s == 0.0
    network.live(4, nothing)
    down_s = network.path.since_s
    assert 3.0 < down_s <= 6.0
    assert network.path.answered_s is not None
    assert network.path.answered_s < 3.0
    network.live(10, nothing)
    assert network.path.since_s == down_s


@pytest.mark.parametrize("busy", [(), (ONE,)])
def test_a_hole_for_large_packets_is_told_from_a_blocked_path(busy: tuple[IPv4Address, ...]) -> None:
    network = Network()
    network.paths.busy(busy)
    network.live(3)
    network.live(5, small_ones)
    assert network.states == [PathState.UP, PathState.MTU]
    assert network.path.mtu_bytes == SMALL_BYTES
    assert f"packets of {MTU} bytes do not pass, of {SMALL_BYTES} bytes do" in network.path.reason


def test_a_hole_that_was_there_from_the_start_is_found() -> None:
    network = Network()
    network.live(3, small_ones)
    assert network.states == [PathState.MTU]


def test_a_path_with_a_hole_that_is_blocked_altogether_is_down_and_back() -> None:
    network = Network()
    network.live(3, small_ones)
    network.live(4, nothing)
    network.live(5, small_ones)
    assert network.states == [PathState.MTU, PathState.DOWN, PathState.MTU]


@pytest.mark.parametrize("trouble", [nothing, small_ones])
def test_a_path_recovers_with_the_first_answer_to_a_large_probe(trouble: Answers) -> None:
    network = Network()
    network.live(5, trouble)
    assert network.path.state is not PathState.UP
    network.live(IDLE_S + PROBE_S)
    assert network.path.state is PathState.UP
    assert (network.path.reason, network.path.mtu_bytes) == ("", MTU)
    assert len(network.changes) == 2 + (trouble is nothing and PathState.MTU in network.states)


def test_small_probes_are_sent_only_while_large_ones_are_missing() -> None:
    network = Network()
    network.live(5)
    assert {probe.size_bytes for _, probe in network.probes} == {MTU}
    network.live(3, nothing)
    network.live(IDLE_S + PROBE_S)
    network.probes.clear()
    network.live(5)
    assert {probe.size_bytes for _, probe in network.probes} == {MTU}


def unsendable(network: Network, seconds: float, refused: Answers, reason: str) -> None:
    """Live while the kernel refuses to send some probes and the others are answered."""
    end_s = network.now_s + seconds
    while network.now_s < end_s:
        for probe in network.turn(lambda probe: not refused(probe)):
            if refused(probe):
                network.paths.on_unsendable(probe.identifier, reason, now_s=network.now_s)
        network.collect()
        network.now_s += TICK_S


def test_a_kernel_that_would_not_send_is_quoted_as_the_reason_until_an_answer_comes() -> None:
    network = Network()
    unsendable(network, 4, everything, "probes cannot be sent: no route to host")
    assert (network.path.state, network.path.reason) == (PathState.DOWN, "probes cannot be sent: no route to host")
    network.live(IDLE_S + PROBE_S)
    network.live(IDLE_S + 4, nothing)
    assert "UDP 6784" in network.path.reason, "an old complaint is forgotten with the first answer"


def test_a_kernel_that_would_not_send_large_packets_is_quoted_for_the_hole() -> None:
    network = Network()
    unsendable(network, 4, lambda probe: probe.size_bytes == MTU, "message too long")
    assert network.path.state is PathState.MTU
    assert network.path.reason.endswith("bytes do: message too long")


@pytest.mark.parametrize("count", [1, 2, 20, 200])
def test_idle_peers_are_probed_one_a_second_however_many_there_are(count: int) -> None:
    network = Network(count)
    network.live(2)
    network.probes.clear()
    seconds = 30
    network.live(seconds)
    assert len(network.probes) == pytest.approx(seconds / IDLE_S, abs=1)
    asked = [probe.to for _, probe in network.probes]
    assert len(set(asked)) == min(count, len(asked)), "everybody has its turn before anybody has a second one"


def test_a_blocked_peer_takes_its_turn_among_the_idle_and_a_busy_one_takes_none() -> None:
    network = Network(3)
    network.paths.busy([TWO])
    network.live(3)
    network.live(30, lambda probe: probe.to != ONE_BRIDGE)
    states = {node: path.state for node, path in network.paths.paths.items()}
    assert states == {ONE: PathState.DOWN, TWO: PathState.UP, TWO + 1: PathState.UP}
    network.probes.clear()
    network.live(20, lambda probe: probe.to != ONE_BRIDGE)
    counts = {
        node: sum(probe.to == path.target for probe in large(network)) for node, path in network.paths.paths.items()
    }
    assert counts[TWO] == pytest.approx(20 / PROBE_S, abs=2)
    assert counts[ONE] == pytest.approx(20 / IDLE_S / 2, abs=1)
    assert counts[TWO + 1] == pytest.approx(20 / IDLE_S / 2, abs=1)


def test_the_next_timer_is_never_in_the_past_after_a_turn() -> None:
    network = Network(5)
    network.paths.busy([TWO])
    for _ in range(200):
        network.turn(lambda probe: probe.to != ONE_BRIDGE)
        assert network.paths.next_timer_s() > network.now_s
        network.now_s = network.paths.next_timer_s()


def test_a_forgotten_peer_is_not_probed_and_its_replies_are_ignored() -> None:
    network = Network(2)
    first, second = sorted(network.turn(nothing), key=lambda probe: probe.to)
    network.paths.set_targets({TWO: ONE_BRIDGE + 256}, now_s=0.1)
    assert set(network.paths.paths) == {TWO}
    network.paths.on_reply(first.identifier, now_s=0.1)
    network.paths.on_unsendable(first.identifier, "gone", now_s=0.1)
    assert network.paths.effects() == []
    network.paths.on_reply(second.identifier, now_s=0.1)
    assert network.paths.paths[TWO].state is PathState.UP
    network.now_s, network.probes = 0.1, []
    network.live(10)
    assert {probe.to for _, probe in network.probes} == {ONE_BRIDGE + 256}


def test_the_last_forgotten_peer_stops_the_timer() -> None:
    network = Network()
    network.live(2)
    network.paths.set_targets({}, now_s=2.0)
    assert network.paths.next_timer_s() == float("inf")
    network.probes.clear()
    network.live(5)
    assert network.probes == []


def test_a_peer_that_comes_back_starts_anew() -> None:
    network = Network()
    network.live(5, nothing)
    network.paths.set_targets({}, now_s=5.0)
    network.paths.set_targets({ONE: ONE_BRIDGE}, now_s=5.0)
    assert network.path == Path(ONE, ONE_BRIDGE, since_s=5.0)
    assert len(network.turn(everything)) == 1
    assert network.path.state is PathState.UP


def test_a_bridge_that_has_another_address_is_probed_there_as_if_it_were_new() -> None:
    network = Network()
    network.live(2)
    network.paths.set_targets({ONE: TWO_BRIDGE}, now_s=2.0)
    assert network.path == Path(ONE, TWO_BRIDGE, since_s=2.0)
    network.probes.clear()
    network.live(3)
    assert {probe.to for _, probe in network.probes} == {TWO_BRIDGE}
    assert network.path.state is PathState.UP


def test_a_reply_from_the_address_that_a_bridge_had_before_says_nothing_of_the_new_one() -> None:
    network = Network()
    (probe,) = network.turn(nothing)
    network.paths.set_targets({ONE: TWO_BRIDGE}, now_s=0.1)
    network.paths.on_reply(probe.identifier, now_s=0.2)
    assert network.path.state is PathState.UNKNOWN


def test_replies_that_nobody_waits_for_change_nothing() -> None:
    network = Network()
    network.turn(nothing)
    for identifier in (0, 77, -1, 1 << 40):
        network.paths.on_reply(identifier, now_s=0.1)
    network.paths.on_unsendable(77, "unknown", now_s=0.1)
    assert network.paths.effects() == []
    assert network.path.state is PathState.UNKNOWN


def test_a_reply_that_comes_twice_counts_once() -> None:
    network = Network()
    (probe,) = network.turn(everything)
    network.paths.on_reply(probe.identifier, now_s=9.0)
    assert network.path.rtt_s == 0.0


def test_an_answer_that_was_missed_still_counts_for_a_slow_path_is_no_broken_one() -> None:
    network = Network()
    network.paths.busy([ONE])
    waiting: list[tuple[float, Probe]] = []
    for _ in range(200):
        waiting += [(network.now_s + PROBE_S * 2.5, probe) for probe in network.turn(nothing)]
        for due_s, probe in list(waiting):
            if due_s <= network.now_s:
                waiting.remove((due_s, probe))
                network.paths.on_reply(probe.identifier, now_s=network.now_s)
        network.collect()
        network.now_s += TICK_S
    assert network.path.state is PathState.UP
    assert network.path.rtt_s == pytest.approx(PROBE_S * 2.5, abs=2 * TICK_S)
    assert PathState.DOWN not in network.states[1:]


def test_a_reply_that_is_far_too_late_changes_nothing() -> None:
    network = Network()
    early = network.turn(nothing)
    network.live(LATE_S + IDLE_S, nothing)
    before = network.path
    network.paths.on_reply(early[0].identifier, now_s=network.now_s)
    assert network.path == before
    assert network.states == [PathState.DOWN]


def test_every_probe_has_another_identifier() -> None:
    network = Network(10)
    network.live(30, small_ones)
    identifiers = [probe.identifier for _, probe in network.probes]
    assert len(set(identifiers)) == len(identifiers) > 10 * MISSED_MAX


def test_losses_now_and_then_never_add_up() -> None:
    network = Network()
    network.paths.busy([ONE])
    count = [0]

    def two_large_ones_of_three_are_lost(probe: Probe) -> bool:
        count[0] += probe.size_bytes == MTU
        return probe.size_bytes < MTU or count[0] % 3 == 1

    network.live(60, two_large_ones_of_three_are_lost)
    assert network.states == [PathState.UP]


def test_a_lost_small_probe_does_not_turn_a_hole_into_a_blocked_path() -> None:
    network = Network()
    network.live(5, small_ones)
    left = [1]

    def loses_a_small_one(probe: Probe) -> bool:
        if small_ones(probe) and left[0]:
            left[0] -= 1
            return False
        return small_ones(probe)

    network.live(10, loses_a_small_one)
    assert left == [0]
    assert network.states == [PathState.MTU]


def test_a_loop_that_stood_still_counts_one_loss_not_many() -> None:
    network = Network()
    network.paths.busy([ONE])
    network.live(5)
    network.live(2 * TICK_S + PROBE_S, lambda _probe: False)
    network.now_s += 60
    network.live(10)
    assert network.states == [PathState.UP]


def test_busy_nodes_that_nobody_knows_are_passed_over() -> None:
    network = Network()
    network.paths.busy([TWO])
    network.live(5)
    assert {probe.to for _, probe in network.probes} == {ONE_BRIDGE}


@pytest.mark.parametrize("answers", [everything, nothing])
def test_what_is_remembered_does_not_grow(answers: Answers) -> None:
    network = Network(50)
    network.paths.busy(list(network.paths.paths))
    most = 2 * 50 * (int(LATE_S / PROBE_S) + 2)
    for _ in range(10):
        network.live(3, answers)
        assert len(network.paths._sent) <= most
        assert len(network.paths._unjudged) <= most
    network.paths.set_targets({}, now_s=network.now_s)
    network.paths.on_timer(now_s=network.now_s + LATE_S)
    assert not network.paths._sent
    assert not network.paths._unjudged


def test_another_mtu_is_probed_at_once_on_every_path() -> None:
    network = Network(3)
    network.live(2)
    network.paths.use_mtu(1350, now_s=network.now_s)
    assert {probe.size_bytes for probe in network.turn(everything)} >= {1350}
    network.live(0.2)
    assert {path.mtu_bytes for path in network.paths.paths.values()} == {1350}
    assert {path.state for path in network.paths.paths.values()} == {PathState.UP}


def test_a_hole_is_closed_by_an_mtu_that_passes() -> None:
    network = Network()
    network.live(5, small_ones)
    assert network.paths.paths[ONE].state is PathState.MTU
    network.paths.use_mtu(1350, now_s=network.now_s)
    network.live(2)
    assert (network.paths.paths[ONE].state, network.paths.paths[ONE].mtu_bytes) == (PathState.UP, 1350)


def test_what_is_known_of_this_node_is_said_instead_of_a_guess() -> None:
    network = Network()
    network.live(5, nothing)
    assert "UDP 6784" in network.paths.paths[ONE].reason
    network.paths.explain(lambda node: f"no way to {node}", now_s=network.now_s)
    assert network.paths.paths[ONE].reason == f"no way to {ONE}"
    network.live(2, nothing)
    assert network.paths.paths[ONE].reason == f"no way to {ONE}"
    network.paths.explain(lambda _node: "", now_s=network.now_s)
    assert "UDP 6784" in network.paths.paths[ONE].reason
