"""The prompt outlives whatever a command does."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.prompt.net import show_output_on
from testbed.prompt.shell import LabShell


class Net(dict[str, Any]):
    """A lab of nobody."""

    links = property(lambda self: self["never asked"])
    lab = SimpleNamespace(name="small")

    def refresh(self) -> None:
        """No pod comes or goes."""


def test_an_error_that_nobody_foresaw_is_shown_and_the_prompt_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    show_output_on(sys.stdout)
    with (tmp_path / "stdin").open("w+") as stdin:
        shell = LabShell(Net(), stdin=stdin)  # type: ignore[arg-type]
        shell.run_lines(["links", "help"])
    shown = "".join(capsys.readouterr())
    assert "*** weavelab met something it did not expect: KeyError: 'never asked'" in shown
    assert "This is a bug in weavelab, not in what you did; the traceback is in" in shown
    assert "Traceback" not in shown
    assert "Commands (type help COMMAND)" in shown
    assert shell.failed
