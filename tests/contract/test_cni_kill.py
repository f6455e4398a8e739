"""Killed at any moment: the executable during ADD, the agent during anything. The DEL that follows leaves nothing.

`WEAVELAB_FUZZ=1` kills more often and at other moments, `WEAVELAB_SEED=<number>` at the same ones again.
"""

import os
import random
import signal
import threading
import time

import pytest

from tests.support.cluster import Cluster
from tests.support.runtime import Runtime, at_once

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
SEED = int(os.environ.get("WEAVELAB_SEED", "1"))
HUNTING = os.environ.get("WEAVELAB_FUZZ", "") not in {"", "0"}
ROUNDS = 4000 if HUNTING else 200
AGENT_KILLS = 30 if HUNTING else 4
AT_ONCE = 8


def usual_s(runtime: Runtime, sandbox: str) -> float:
    """How long an ADD takes here and now, the longest of three, so that kills hit all of it; at most a quarter second."""
    taken = []
    for number in range(3):
        began_s = time.monotonic()
        assert runtime.call("ADD", f"usual{number}", sandbox).address
        taken.append(time.monotonic() - began_s)
        runtime.delete(f"usual{number}")
    return min(max(taken), 0.25)


def test_an_add_that_is_killed_at_any_moment_and_then_deleted_leaves_nothing(cluster: Cluster) -> None:
    cluster.mesh()
    runtime = Runtime(cluster)
    sandboxes = [runtime.sandbox() for _ in range(AT_ONCE)]
    span_s = usual_s(runtime, sandboxes[0])
    before = runtime.traces()
    ends: list[int] = []

    def worker(number: int) -> None:
        chance = random.Random(f"{SEED}-{number}")
        for turn in range(ROUNDS // AT_ONCE):
            container = f"killed{number}x{turn}"
            call = runtime.start("ADD", container, sandboxes[number])
            time.sleep(chance.uniform(0, span_s))
            call.signal(signal.SIGKILL)
            ends.append(call.end().code)
            for _ in range(chance.choice([1, 1, 2])):
                runtime.delete(container, chance.choice([sandboxes[number], "", "/run/netns/vanished"]))

    at_once(AT_ONCE, worker, range(AT_ONCE))
    assert set(ends) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in ends, "at least one was killed before its end"
    runtime.assert_no_traces_but(before)
    for number, sandbox in enumerate(sandboxes):
        assert runtime.call("ADD", f"after{number}", sandbox).address, "the namespaces are as good as new"


def test_a_del_that_is_killed_at_any_moment_and_repeated_leaves_nothing(cluster: Cluster) -> None:
    cluster.start(1)
    runtime = Runtime(cluster)
    sandboxes = [runtime.sandbox() for _ in range(AT_ONCE)]
    span_s = usual_s(runtime, sandboxes[0])
    before = runtime.traces()

    def worker(number: int) -> None:
        chance = random.Random(f"{SEED}-{number}")
        for turn in range(ROUNDS // AT_ONCE // 5):
            container = f"killed{number}x{turn}"
            assert runtime.call("ADD", container, sandboxes[number]).address
            call = runtime.start("DEL", container, sandboxes[number])
            time.sleep(chance.uniform(0, span_s))
            call.signal(signal.SIGKILL)
            call.end()
            runtime.delete(container)

    at_once(AT_ONCE, worker, range(AT_ONCE))
    runtime.assert_no_traces_but(before)


def test_an_agent_that_is_killed_at_any_moment_loses_no_call_and_leaves_nothing(cluster: Cluster) -> None:
    cluster.start(1)
    runtime = Runtime(cluster)
    sandboxes = [runtime.sandbox() for _ in range(AT_ONCE)]
    before = runtime.traces()
    stop = threading.Event()
    calls = 0

    def churn(number: int) -> None:
        nonlocal calls
        chance = random.Random(f"{SEED}-{number}")
        turn = 0
        while not stop.is_set():
            turn += 1
            container = f"churned{number}x{turn}"
            # An ADD waits for the next agent, a DEL is kept for it: whoever calls notices nothing but the delay.
            assert runtime.call("ADD", container, sandboxes[number]).address
            if chance.random() < 0.5:
                runtime.delete(container, sandboxes[number])
            else:
                runtime.delete(container)
            calls += 2

    def kill(chance: random.Random) -> None:
        try:
            for _ in range(AGENT_KILLS):
                time.sleep(chance.uniform(0.05, 0.5))
                cluster.kill(1)
                cluster.start(1)
        finally:
            stop.set()

    def work(number: int) -> None:
        kill(random.Random(SEED)) if number == AT_ONCE else churn(number)

    at_once(AT_ONCE + 1, work, range(AT_ONCE + 1))
    assert calls
    runtime.assert_no_traces_but(before)
    assert "this is a bug" not in cluster.log(1)
