"""Taking labs down on a person's behalf: what is used stays, what is gone is fine, one does not keep the others up."""

from pathlib import Path

import pytest

from plugin.core.errors import CheckError, InputError
from testbed.lab import paths, state
from testbed.lab.paths import LabPaths
from testbed.lab.users import InUseError, UserRecord
from testbed.life import down

USER = UserRecord(command="weavelab run", pid=7, start_ticks=8, person="alice", since_s=0.0)


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three labs, which are nothing but their folders; what is removed, and who is sent away, is written down."""
    happened: list[str] = []
    monkeypatch.setattr(paths, "RUN", tmp_path)
    monkeypatch.setattr(state, "RUN", tmp_path)
    monkeypatch.setattr(down, "_remove_run_directory", lambda: None)
    monkeypatch.setattr(down, "send_away", lambda lab, _found: happened.append(f"sent away from {lab.lab}"))
    monkeypatch.setattr(down, "users_of", lambda lab: (USER,) if lab.lab == "b" else ())

    def remove(lab: LabPaths) -> None:
        if lab.lab == "c":
            raise CheckError("it is stuck")
        happened.append(f"removed {lab.lab}")

    monkeypatch.setattr(down, "remove", remove)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return happened


def test_what_is_used_stays_and_the_others_go(world: list[str]) -> None:
    with pytest.raises(InUseError, match=r"lab b is in use: `weavelab run` \(pid 7, of alice, since "):
        down.take_down(None)
    assert world == ["removed a"]


def test_force_sends_the_user_away_first(world: list[str]) -> None:
    gone: list[str] = []
    down.take_down(["b", "a", "b"], force=True, done=gone.append)
    assert world == ["sent away from b", "removed b", "removed a"]
    assert gone == ["b", "a"]


def test_of_all_labs_one_may_go_by_itself(world: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(down.state, "labs", lambda: ["a", "ghost"])
    down.take_down(None)
    assert world == ["removed a"]


def test_one_that_is_named_and_not_there_is_an_error(world: list[str]) -> None:
    with pytest.raises(InputError, match="no lab named A is up") as caught:
        down.take_down(["A"])
    assert caught.value.hint == "did you mean 'a'? up: a, b"
    assert world == []


def test_several_failures_are_told_together_with_the_worse_code(world: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not every lab is down") as wrong:
        down.take_down(["b", "nope", "a"])
    assert "lab b is in use" in wrong.value.message
    assert "no lab named nope is up" in wrong.value.message
    assert world == ["removed a"]
    (tmp_path / "c").mkdir()
    with pytest.raises(CheckError, match="it is stuck"):
        down.take_down(["b", "c"])
