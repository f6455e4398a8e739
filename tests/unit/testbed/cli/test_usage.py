"""Words that are misspelt on the command line: every command answers with the same guess, in the same words."""

import pytest

from testbed.cli import main as cli
from testbed.life import up


@pytest.mark.parametrize(
    ("line", "message", "meant"),
    [
        ("sttus", "weavelab has no command 'sttus'", "'status'"),
        ("Up", "weavelab has no command 'Up'", "'up'"),
        ("run --topolgy x.yaml", "there is no option --topolgy", "'--topology'"),
        ("down --al", "there is no option --al", "'--all'"),
        ("deploy --manifets", "there is no option --manifets", "'--manifest'"),
        ("status --format jsn", "--format: wanted one of table, json, found 'jsn'", "'json'"),
        (
            "up --kubelet Containerd",
            "--kubelet: wanted one of emulated, containerd, found 'Containerd'",
            "'containerd'",
        ),
        ("agent kil node1", "wanted one of kill, stop, start, restart, found 'kil'", "'kill'"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(
    line: str, message: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == f"error: {message}"
    assert hint.startswith(f"hint: did you mean {meant}? ")


def test_what_is_like_nothing_gets_no_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zzz"]) == 2
    assert "hint: it has: " in capsys.readouterr().err


@pytest.mark.parametrize("line", ["up a b", "exec", "run --seed x", "down a --all"])
def test_other_wrong_usage_is_an_error_as_all_others_are(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up.os, "geteuid", lambda: 0)
    assert cli.main(line.split()) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert hint == f"hint: `weavelab {line.split(maxsplit=1)[0]} --help` has usage and examples"
