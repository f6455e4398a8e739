"""The commands that we suggest begin as the person's own did."""

import sys
from pathlib import Path

import pytest

from testbed.machine.called import our_command


@pytest.fixture
def on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `weavelab` that the set-up has put into a folder of the PATH."""
    command = tmp_path / "weavelab"
    command.symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"/nonexistent:{tmp_path}")
    return command


def test_who_called_it_by_its_name_is_given_the_name(on_the_path: Path) -> None:
    assert our_command(str(on_the_path)) == "sudo weavelab"


@pytest.mark.parametrize("called", [".venv/bin/weavelab", "/elsewhere/testbed/__main__.py", ""])
def test_who_called_it_another_way_is_given_the_one_from_the_projects_folder(called: str, on_the_path: Path) -> None:
    assert our_command(called) == "sudo .venv/bin/weavelab"


def test_an_environment_that_is_activated_is_nothing_that_sudo_knows(
    on_the_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(on_the_path.parent.parent))
    (on_the_path.parent.parent / "bin").mkdir(exist_ok=True)
    command = on_the_path.parent.parent / "bin" / "weavelab"
    command.symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(command.parent))
    assert our_command(str(command)) == "sudo .venv/bin/weavelab"
