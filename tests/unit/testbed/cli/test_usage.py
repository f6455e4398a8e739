"""Words that are misspelt on the command line: every command answers with the same guess, in the same words."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from testbed.cli import main as cli
from testbed.cli.exec import exec_
from testbed.life import up


@pytest.mark.parametrize(
    ("line", "message", "meant"),
    [
        ("sttus", "weavelab has no command 'sttus'", "'status'"),
        ("Up", "weavelab has no command 'Up'", "'up'"),
        ("run --topolgy x.yaml", "there is no option --topolgy", "'--topology'"),
        ("down --al", "there is no option --al", "'--all'"),
        ("deploy --manifets", "there is no option --manifets", "'--manifest'"),
        ("status --format jsn", "--format: wanted one of table, wide, json, yaml, found 'jsn'", "'json'"),
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


@pytest.mark.parametrize(
    ("line", "lab", "command"),
    [
        ("red ping -c1 green", None, "ping -c1 green"),
        ("red -- ping -c1 green", None, "ping -c1 green"),
        ("--lab x red ping", "x", "ping"),
        ("red --lab x ping", "x", "ping"),
        ("red --lab x -- ping --lab y", "x", "ping --lab y"),
        ("red --lab=x -- -strange", "x", "-strange"),
        ("red ping --lab y", None, "ping --lab y"),
        ("red -- --lab y", None, "--lab y"),
        ("red ping -- --help", None, "ping -- --help"),
        ("-- red ping", None, "ping"),
        ("--lab x -- red -- ping", "x", "ping"),
    ],
)
def test_options_of_exec_stand_before_or_behind_the_target(line: str, lab: str | None, command: str) -> None:
    parent = click.Context(cli.weavelab, help_option_names=["-h", "--help"])
    found = exec_.make_context("exec", line.split(), parent=parent).params
    assert (found["target"], found["lab"], " ".join(found["command"])) == ("red", lab, command)


@pytest.mark.parametrize("line", ["exec --help", "exec red --help", "exec red --lab x -h", "exec --lab x red --help"])
def test_help_is_heard_behind_the_target_too(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_, "_help_option", None, raising=False)  # click keeps what an earlier test may have made
    assert cli.main(line.split()) == 0
    assert capsys.readouterr().out.startswith("Usage: weavelab exec ")


@pytest.mark.parametrize("line", ["exec --lab", "exec red --lab"])
def test_an_option_without_its_value_is_told(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err.startswith("error: option --lab wants a value\n")


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


def examples() -> "Iterator[Any]":
    """Every example of every help, as the words behind `weavelab`; what a shell would do with the rest is left out."""
    top = click.Context(cli.weavelab)
    helps = {name: cli.weavelab.get_command(top, name) for name in cli.weavelab.list_commands(top)}
    for name, command in {"weavelab": cli.weavelab, **helps}.items():
        assert command is not None
        assert command.epilog is not None
        for line in command.epilog.splitlines():
            if found := re.match(r"  weavelab (.+?)(?:  +.*| [<|>].*)?$", line):
                yield pytest.param(shlex.split(found[1]), id=f"{name}: {found[1]}")


@pytest.mark.parametrize("words", list(examples()))
def test_every_example_of_a_help_is_understood(words: list[str]) -> None:
    top = click.Context(cli.weavelab, help_option_names=["-h", "--help"])
    name, command, rest = cli.weavelab.resolve_command(top, words)
    assert command is not None
    command.make_context(name, rest, parent=top)
