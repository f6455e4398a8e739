"""Starting an agent where another one is just ending."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from plugin.core.errors import InputError
from testbed.lab.agent_api import AgentError
from testbed.lab.running import Lab
from testbed.life import agent_control
from testbed.machine.processes import ProcessId

LAB = cast("Lab", SimpleNamespace(name="lab", nodes={"node1": SimpleNamespace(api_socket="/nowhere", space=None)}))


def fake(monkeypatch: pytest.MonkeyPatch, *, looks: list[bool], answers: bool) -> list[str]:
    """An agent whose process is seen at these looks; what happens is noted."""
    happened: list[str] = []
    monkeypatch.setattr(agent_control, "_PAUSE_S", 0.0)
    monkeypatch.setattr(agent_control, "_ENDING_S", 0.2)

    def find(_lab: Lab, _node: str) -> ProcessId | None:
        there = looks.pop(0) if len(looks) > 1 else looks[0]
        return ProcessId(1, 1) if there else None

    def get(*_args: Any, **_more: Any) -> tuple[int, object]:
        if not answers:
            raise AgentError("nobody answers")
        return 200, {}

    def start(_self: object, _service: object) -> int:
        happened.append("started")
        return 1

    monkeypatch.setattr(agent_control, "find", find)
    monkeypatch.setattr(agent_control, "get", get)
    monkeypatch.setattr(agent_control, "_remember", lambda *_args: None)
    monkeypatch.setattr(
        agent_control, "LocalTransport", lambda _space: SimpleNamespace(start=lambda one: start(0, one))
    )
    return happened


def test_one_that_says_nothing_any_more_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    happened = fake(monkeypatch, looks=[True, True, False], answers=False)
    agent_control.start(LAB, "node1", wait=False)
    assert happened == ["started"]


@pytest.mark.parametrize("answers", [True, False])
def test_one_that_goes_on_is_left_alone(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> None:
    happened = fake(monkeypatch, looks=[True], answers=answers)
    with pytest.raises(InputError, match="an agent runs on node1 already"):
        agent_control.start(LAB, "node1", wait=False)
    assert happened == []
