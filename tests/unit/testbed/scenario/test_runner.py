"""When a step is tried again, when it is given up, and what its result says: with a lab of names and scripted programs."""

import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from testbed.machine.space import Completed, Space
from testbed.probes.command import StoppedError
from testbed.scenario.attempt import Run
from testbed.scenario.members import member
from testbed.scenario.results import CommandEvidence, IperfEvidence, PingEvidence, Status
from testbed.scenario.runner import run_scenarios, run_step
from testbed.scenario.steps.iperf import base_nodes
from testbed.topology.load import parse_topology
from testbed.topology.underlay import plan_underlay

TOPOLOGY = """
name: small
nodes: {node1: , node2: }
pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}
scenarios:
  - name: pings
    steps:
      - ping: {from: red, to: blue}
      - ping: {from: red, to: green}
  - name: rest
    steps:
      - exec: {on: red, command: "true"}
"""

ADDRESSES = {"red": "10.32.0.2", "green": "10.32.0.3", "blue": "10.44.0.1"}
UPLINKS = {"node1": "192.168.56.11", "node2": "192.168.56.12"}
BRIDGES = {"node1": "10.32.0.1", "node2": "10.44.0.0"}

GOOD = (
    "PING x (x) 56(84) bytes of data.\n64 bytes from x: icmp_seq=1 ttl=64 time=0.5 ms\n\n--- x ping statistics ---\n"
    "{0} packets transmitted, {0} received, 0% packet loss, time 1ms\nrtt min/avg/max/mdev = 0.5/0.5/0.5/0.0 ms\n"
)
LOST = (
    "PING x (x) 56(84) bytes of data.\n\n--- x ping statistics ---\n"
    "{0} packets transmitted, 0 received, 100% packet loss, time 1ms\n"
)


class Clock:
    """Time that passes only when somebody waits or runs something."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


Answer = Callable[[str, Sequence[str]], str | Completed]


class Scripted:
    """`Processes` whose programs are answers of a function; every run takes a second of the clock."""

    def __init__(self, answer: Answer, clock: Clock) -> None:
        self.answer = answer
        self.clock = clock
        self.ran: list[tuple[str, str]] = []
        self.stopped = False
        self.lock = threading.Lock()

    def run(self, space: Space, argv: Sequence[str], *, timeout_s: float) -> Completed:
        if self.stopped:
            raise StoppedError("the run was stopped")
        with self.lock:
            self.ran.append((space.name, " ".join(argv)))
            self.clock.now_s += 1
        answer = self.answer(space.name, argv)
        return answer if isinstance(answer, Completed) else done(argv, answer)

    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    def stop(self) -> None:
        self.stopped = True

    def pings(self) -> list[tuple[str, str]]:
        return [(name, line.split()[-1]) for name, line in self.ran if line.startswith("ping")]


def done(
    argv: Sequence[str], stdout: str = "", *, stderr: str = "", code: int = 0, timed_out: bool = False
) -> Completed:
    return Completed(tuple(argv), code, stdout, stderr, 0.1, timed_out)


def lab(text: str = TOPOLOGY) -> Any:
    topology = parse_topology(text, file="small.yaml")

    def space(name: str) -> Space:
        return Space(name, net=Path("/nowhere") / name)

    return SimpleNamespace(
        name="small",
        topology=topology,
        underlay=plan_underlay(topology),
        space=space,
        nodes={
            name: SimpleNamespace(
                name=name,
                space=space(name),
                uplink_address=IPv4Address(UPLINKS[name]),
                bridge_address=IPv4Address(BRIDGES[name]),
                uplink_ifname="eth0",
                api_get=lambda path: {"ready": True},
            )
            for name in topology.nodes
        },
        pods={
            name: SimpleNamespace(
                name=name,
                node=pod.node,
                space=space(name),
                address=IPv4Address(ADDRESSES[name]),
                mac="02:00:00:00:00:01",
                ifname="eth0",
            )
            for name, pod in topology.pods.items()
        },
    )


def make_run(answer: Answer, text: str = TOPOLOGY) -> tuple[Run, Scripted]:
    clock = Clock()
    programs = Scripted(answer, clock)
    return Run(lab=lab(text), processes=programs, clock=clock), programs  # type: ignore[arg-type]


def step_of(yaml: str) -> tuple[Any, str]:
    text = TOPOLOGY.partition("scenarios:")[0] + f"scenarios:\n  - name: one\n    steps:\n      - {yaml}\n"
    return parse_topology(text, file="small.yaml").scenarios[0].steps[0], text


def good(name: str, argv: Sequence[str]) -> str:
    return GOOD.format(argv[argv.index("-c") + 1]) if argv[0] == "ping" else ""


def lost(name: str, argv: Sequence[str]) -> str:
    return LOST.format(argv[argv.index("-c") + 1]) if argv[0] == "ping" else f"{name}: {' '.join(argv)}"


# ------------------------------------------------------------------------------------------------------------- pinging


def test_a_ping_that_holds_is_tried_once_and_tells_what_was_seen() -> None:
    run, programs = make_run(good)
    result = run_step(run, run.lab.topology.scenarios[0].steps[0])
    assert (result.status, result.attempts) == (Status.PASS, 1)
    assert result.expected == "red → blue: 3 pings, all answered"
    assert result.seen == "3 of 3 answered, 0.5 ms on average"
    assert programs.pings() == [("red", "10.44.0.1")]
    assert result.states == ()


def test_escape_sequences_of_a_command_do_not_reach_the_terminal() -> None:
    step, text = step_of("{exec: {on: red, command: evil, exit_code: 7}, within_s: 0.5}")
    run, _ = make_run(lambda name, argv: "a\x1b]0;title\x07\x00b", text)
    result = run_step(run, step)
    assert result.seen == r"exit code 0: a\x1b]0;title\x07\x00b"


def test_a_ping_whose_requests_did_not_all_leave_does_not_hold() -> None:
    step, text = step_of("{ping: {from: red, to: blue, count: 100}, within_s: 1}")
    run, _ = make_run(lambda name, argv: GOOD.format(63), text)
    result = run_step(run, step)
    assert result.status is Status.FAIL
    assert "only 63 of 100 requests left before the deadline" in result.seen


def test_a_ping_is_tried_until_it_holds() -> None:
    answers = iter([LOST.format(3), LOST.format(3), GOOD.format(3)])
    run, _ = make_run(lambda name, argv: next(answers))
    result = run_step(run, run.lab.topology.scenarios[0].steps[0])
    assert (result.status, result.attempts) == (Status.PASS, 3)


def test_a_ping_that_never_holds_is_given_up_at_its_deadline_with_the_last_result_and_the_state() -> None:
    step, text = step_of("{ping: {from: red, to: blue}, within_s: 3.5}")
    run, programs = make_run(lost, text)
    result = run_step(run, step)
    assert result.status is Status.FAIL
    assert result.attempts == 3  # of a second each; a fourth would not end in time
    assert result.seen == "0 of 3 answered"
    assert [state.name for state in result.states] == ["red", "node1", "blue", "node2"]
    assert [one.title for one in result.states[1].observations][:2] == ["in short", "agent /status"]
    assert ("node2", "bridge fdb show") in programs.ran
    assert result.next_command == "sudo .venv/bin/weavelab exec --lab small red -- ping -c 3 10.44.0.1"


def test_only_the_pairs_that_failed_are_tried_again() -> None:
    tries: dict[str, int] = {}

    def answer(name: str, argv: Sequence[str]) -> str:
        tries[argv[-1]] = tries.get(argv[-1], 0) + 1
        return lost(name, argv) if argv[-1] == ADDRESSES["blue"] and tries[argv[-1]] == 1 else good(name, argv)

    step, text = step_of("{ping: {from: red, to: [green, blue]}, within_s: 30}")
    run, programs = make_run(answer, text)
    result = run_step(run, step)
    assert result.status is Status.PASS
    assert programs.pings().count(("red", ADDRESSES["green"])) == 1
    assert programs.pings().count(("red", ADDRESSES["blue"])) == 2
    assert result.seen == "all 2 pairs answer, the slowest in 0.5 ms"


def test_all_pods_to_all_pods_leaves_nobody_to_ping_itself() -> None:
    step, text = step_of("ping: {from: all-pods, to: all-pods, count: 1}")
    run, programs = make_run(good, text)
    result = run_step(run, step)
    assert len(result.evidence) == 6
    assert ("red", ADDRESSES["red"]) not in programs.pings()
    assert result.expected == "each of 6 pairs: 1 ping, all answered"


def test_failed_pairs_are_named() -> None:
    step, text = step_of("{ping: {from: all-pods, to: [blue], count: 1}, within_s: 0.5}")
    run, _ = make_run(lambda name, argv: lost(name, argv) if name == "green" else good(name, argv), text)
    assert run_step(run, step).seen == "1 of 2 pairs fail: green → blue: 100 % lost"


def test_own_node_is_the_switch_and_a_node_is_its_uplink() -> None:
    step, text = step_of("ping: {from: [red, blue], to: [own-node, node1], count: 1}")
    run, programs = make_run(good, text)
    run_step(run, step)
    assert sorted(programs.pings()) == [
        ("blue", BRIDGES["node2"]),
        ("blue", UPLINKS["node1"]),
        ("red", BRIDGES["node1"]),
        ("red", UPLINKS["node1"]),
    ]


def test_a_slow_answer_fails_only_with_a_limit() -> None:
    step, text = step_of("{ping: {from: red, to: blue, max_rtt_ms: 0.4}, within_s: 0.5}")
    run, _ = make_run(good, text)
    result = run_step(run, step)
    assert result.status is Status.FAIL
    assert result.seen == "3 of 3 answered, 0.5 ms on average; slower than 0.4 ms"


def test_accepted_loss_holds() -> None:
    half = GOOD.format(4).replace("4 received, 0%", "3 received, 25%")
    step, text = step_of("ping: {from: red, to: blue, count: 4, loss: 30}")
    run, _ = make_run(lambda name, argv: half, text)
    result = run_step(run, step)
    assert result.status is Status.PASS
    assert result.expected == "red → blue: 4 pings, at most 30 % lost"
    evidence = result.evidence[0]
    assert isinstance(evidence, PingEvidence)
    assert evidence.result.loss_percent == 25.0


def test_a_program_that_is_absent_is_an_error_and_not_a_failure() -> None:
    def absent(name: str, argv: Sequence[str]) -> str:
        raise FileNotFoundError(2, "No such file or directory", "ping")

    run, _ = make_run(absent)
    result = run_step(run, run.lab.topology.scenarios[0].steps[0])
    assert result.status is Status.ERROR
    assert result.seen == "could not be examined: ping was not found"


# -------------------------------------------------------------------------------------------------------------- exec


def test_exec_holds_on_exit_code_and_output() -> None:
    step, text = step_of("exec: {on: red, command: ip route, stdout_contains: via, stdout_matches: '^default'}")
    run, programs = make_run(lambda name, argv: "10.0.0.0/8 dev eth0\ndefault via 10.32.0.1\n", text)
    result = run_step(run, step)
    assert result.status is Status.PASS
    assert programs.ran == [("red", "sh -c ip route")]
    evidence = result.evidence[0]
    assert isinstance(evidence, CommandEvidence)
    assert evidence.ended == "exit code 0"


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (done([], stderr="ls: no such file\n", code=2), "exit code 2: ls: no such file"),
        (done([], code=-9, timed_out=True), "killed at its deadline after 0.1 s"),
        (done([], "something else\n"), "printed 'something else'"),
    ],
)
def test_exec_that_does_not_hold_says_what_was_seen(answer: Completed, seen: str) -> None:
    step, text = step_of("{exec: {on: red, command: [ls, /x], stdout_contains: wanted}, within_s: 0.5}")
    run, programs = make_run(lambda name, argv: answer, text)
    result = run_step(run, step)
    assert (result.status, result.seen) == (Status.FAIL, seen)
    assert programs.ran[0] == ("red", "ls /x")


def test_the_members_of_an_exec_step_run_side_by_side_and_each_has_the_whole_deadline() -> None:
    step, text = step_of("{exec: {on: all-pods, command: 'true'}, within_s: 2}")
    together = threading.Barrier(3, timeout=10)
    run, programs = make_run(lambda name, argv: str(together.wait()), text)
    deadlines: list[float] = []
    real = programs.run

    def noted(space: Space, argv: Sequence[str], *, timeout_s: float) -> Completed:
        deadlines.append(timeout_s)
        return real(space, argv, timeout_s=timeout_s)

    programs.run = noted  # type: ignore[method-assign]
    result = run_step(run, step)
    assert (result.status, result.attempts) == (Status.PASS, 1)
    assert deadlines == [2.0, 2.0, 2.0]
    assert [item.on for item in result.evidence if isinstance(item, CommandEvidence)] == ["red", "green", "blue"]


def test_values_of_the_lab_are_filled_into_commands_and_into_what_is_expected() -> None:
    step, text = step_of(
        "exec: {on: red, command: 'ping {blue.address} via {node2.switch} {{sys.x}} ${HOME}', "
        "stdout_contains: 'from {self.mac}', stdout_matches: '^{self.gateway}$'}"
    )
    run, programs = make_run(lambda name, argv: "10.32.0.1\nfrom 02:00:00:00:00:01\n", text)
    result = run_step(run, step)
    command = "ping 10.44.0.1 via 10.44.0.0 {sys.x} ${HOME}"
    assert programs.ran == [("red", f"sh -c {command}")]
    assert result.status is Status.PASS, result.seen
    assert command in result.expected
    assert "prints 'from 02:00:00:00:00:01'" in result.expected
    assert isinstance(result.evidence[0], CommandEvidence)
    assert result.evidence[0].command == command


def test_a_value_in_a_regular_expression_is_no_regular_expression() -> None:
    step, text = step_of("{exec: {on: red, command: x, stdout_matches: '^{blue.address}$'}, within_s: 0.5}")
    run, _ = make_run(lambda name, argv: "10x44y0z1\n", text)
    assert run_step(run, step).status is Status.FAIL


def test_self_is_each_member_that_the_command_runs_on() -> None:
    step, text = step_of("exec: {on: [red, blue, node2], command: [echo, '{self.name}', '{self.address}']}")
    run, programs = make_run(lambda name, argv: "", text)
    result = run_step(run, step)
    assert sorted(programs.ran) == [
        ("blue", "echo blue 10.44.0.1"),
        ("node2", "echo node2 192.168.56.12"),
        ("red", "echo red 10.32.0.2"),
    ]
    assert "`echo {self.name} {self.address}`" in result.expected


def test_a_value_that_the_lab_does_not_have_now_is_told_and_nothing_is_run() -> None:
    step, text = step_of("exec: {on: red, command: 'ping {blue.address}'}")
    run, programs = make_run(good, text)
    del run.lab.pods["blue"]  # type: ignore[attr-defined]  # somebody deleted it
    result = run_step(run, step)
    assert result.status is Status.ERROR
    assert "no value for {blue.address}: the lab small has no 'blue' now" in result.seen
    step, text = step_of("exec: {on: red, command: 'ping {self.gateway}'}")
    run, programs = make_run(good, text)
    run.lab.nodes["node1"].bridge_address = None  # type: ignore[misc]
    assert "no value for {red.gateway}: the switch of node1 has no address now" in run_step(run, step).seen
    assert not programs.ran


# -------------------------------------------------------------------------------------------------------------- iperf


def test_the_underlay_of_a_pair_is_between_its_nodes() -> None:
    run, _ = make_run(good)
    red, green, blue, node2 = (member(run.lab, name) for name in ("red", "green", "blue", "node2"))
    assert base_nodes(run, red, blue) == ("node1", "node2")
    assert base_nodes(run, red, green) == ("node1", "node2")  # the way they would take if they left
    assert base_nodes(run, blue, node2) == ("node2", "node1")
    assert base_nodes(run, red, member(run.lab, "outside")) is None


def test_a_lab_of_one_node_has_no_underlay_to_compare_with() -> None:
    text = "name: one\nnodes: {node1: }\npods: {red: {node: node1}, green: {node: node1}}\n"
    run, _ = make_run(good, text)
    assert base_nodes(run, member(run.lab, "red"), member(run.lab, "green")) is None


def test_iperf_is_compared_with_an_underlay_that_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.probes.iperf import IperfResult, Measured
    from testbed.scenario.steps import iperf as scenario_iperf

    measured: list[str] = []

    def measure(processes: object, client: Space, server: Space, address: str, *args: object, **kw: object) -> Measured:
        measured.append(f"{client.name} {address}")
        rate = 1000.0 if client.name.startswith("node") else 960.0
        return Measured(result=IperfResult(mbit=rate, seconds=1, retransmits=0), argv=("iperf3",), output="{}")

    monkeypatch.setattr(scenario_iperf, "measure", measure)
    step, text = step_of("iperf: {from: red, to: blue, min_ratio: 0.95, min_mbit: 900}")
    run, _ = make_run(good, text)
    first, second = run_step(run, step), run_step(run, step)
    assert measured == ["node1 192.168.56.12", "red 10.44.0.1", "red 10.44.0.1"]
    assert first.status is second.status is Status.PASS
    assert first.expected == "red → blue: TCP for 1 s, at least 900 Mbit/s, at least 0.95 of the underlay"
    assert first.seen == "960 Mbit/s, 0 retransmits, 0.96 of the underlay"
    evidence = first.evidence[0]
    assert isinstance(evidence, IperfEvidence)
    assert (evidence.base_source, evidence.base_target, evidence.ratio) == ("node1", "node2", 0.96)
    step, text = step_of("iperf: {from: red, to: blue, min_mbit: 2000}")
    slow = run_step(run, msgspec.structs.replace(step, within_s=0.1))
    assert slow.status is Status.FAIL
    assert slow.next_command == (
        "sudo .venv/bin/weavelab exec --lab small blue -- iperf3 -s -1 -D; "
        "sudo .venv/bin/weavelab exec --lab small red -- iperf3 -c 10.44.0.1 -p 5201 -t 1 --connect-timeout 2000"
    )


def test_an_iperf_that_is_faster_than_its_limit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.probes.iperf import IperfResult, Measured
    from testbed.scenario.steps import iperf as scenario_iperf

    found = IperfResult(mbit=12.0, seconds=1, retransmits=0)
    measured = Measured(result=found, argv=("iperf3",), output="{}")
    monkeypatch.setattr(scenario_iperf, "measure", lambda *_args, **_named: measured)
    step, text = step_of("iperf: {from: red, to: blue, min_mbit: 8, max_mbit: 12}")
    run, _ = make_run(good, text)
    result = run_step(run, step)
    assert result.status is Status.PASS
    assert result.expected == "red → blue: TCP for 1 s, at least 8 Mbit/s, at most 12 Mbit/s"
    step, text = step_of("iperf: {from: red, to: blue, max_mbit: 10.5}")
    fast = run_step(run, msgspec.structs.replace(step, within_s=0.1))
    assert fast.status is Status.FAIL
    assert fast.seen.endswith("above 10.5 Mbit/s")


# --------------------------------------------------------------------------------------------------------- many steps


def test_fail_fast_skips_the_rest_and_says_why() -> None:
    run, _ = make_run(lost)
    results = run_scenarios(run, run.lab.topology.scenarios, fail_fast=True)
    statuses = [step.status for scenario in results for step in scenario.steps]
    assert statuses == [Status.FAIL, Status.SKIP, Status.SKIP]
    assert results[1].steps[0].seen == "not run: an earlier step failed and --fail-fast was given"


def test_without_it_every_step_has_its_verdict() -> None:
    run, _ = make_run(lost)
    results = run_scenarios(run, run.lab.topology.scenarios)
    assert [scenario.status for scenario in results] == [Status.FAIL, Status.PASS]


def test_an_interruption_stops_the_programs_and_keeps_what_is_known() -> None:
    def interrupted(name: str, argv: Sequence[str]) -> str:
        if argv[-1] == ADDRESSES["green"]:
            raise KeyboardInterrupt
        return good(name, argv)

    run, programs = make_run(interrupted)
    results: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        run_scenarios(run, run.lab.topology.scenarios, results=results)
    assert programs.stopped
    assert [step.status for scenario in results for step in scenario.steps] == [Status.PASS, Status.SKIP, Status.SKIP]


def test_listeners_hear_everything_in_order() -> None:
    heard: list[str] = []

    class Listener:
        def scenario_started(self, scenario: Any, *, number: int, total: int) -> None:
            heard.append(f"scenario {number} of {total}")

        def step_started(self, scenario: Any, step: Any, *, number: int) -> None:
            heard.append(f"step {number}")

        def step_ended(self, scenario: Any, result: Any) -> None:
            heard.append(str(result.status))

        def scenario_ended(self, result: Any) -> None:
            heard.append(f"ended {result.name}")

    run, _ = make_run(good)
    run_scenarios(run, run.lab.topology.scenarios[:1], listener=Listener())
    assert heard == ["scenario 1 of 1", "step 1", "pass", "step 2", "pass", "ended pings"]
