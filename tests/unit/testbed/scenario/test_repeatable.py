"""What of a run its results keep so that it can be done again: the seed of chaos, the number of a repetition."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from testbed.scenario import runner
from testbed.scenario.attempt import Attempt
from testbed.scenario.runner import Kind, run_scenarios
from testbed.topology.load import parse_topology

TOPOLOGY = """
name: small
nodes: {node1: , node2: }
pods: {red: {node: node1}}
scenarios:
  - name: storm
    steps:
      - chaos: {seed: 4711, seconds: 1}
      - exec: {on: red, command: "true"}
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("chaos", "exec"):
        kind = Kind(lambda _run, _step: "it holds", lambda *_: Attempt(ok=True, seen="it does"))
        monkeypatch.setitem(runner.KINDS, name, kind)  # type: ignore[arg-type]
    return SimpleNamespace(clock=lambda: 0.0)


def test_a_chaos_step_keeps_its_seed_and_others_have_none(run: Any) -> None:
    (found,) = run_scenarios(run, parse_topology(TOPOLOGY, file="small.yaml").scenarios)
    assert [step.seed for step in found.steps] == [4711, None]
    assert (found.name, found.plain_name, found.repetition) == ("storm", "storm", 1)


def test_a_repetition_keeps_its_number(run: Any) -> None:
    (scenario,) = parse_topology(TOPOLOGY, file="small.yaml").scenarios
    (found,) = run_scenarios(run, [msgspec.structs.replace(scenario, name="storm#3")])
    assert (found.name, found.plain_name, found.repetition) == ("storm#3", "storm", 3)
