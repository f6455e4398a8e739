"""The command line's manners: help with examples, exit codes, and no traceback for anybody."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from plugin.core.errors import CheckError, InputError, MissingError
from testbed.cli import main as cli
from testbed.life import up
from tests.support.matrix import commands
from tests.support.project import ROOT

COMMANDS = ["up", "down", "status", "exec", "cli", "run", "deploy"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"weavelab {command}" in text


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_and_minds_an_option_that_it_has_not(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    assert f"Usage: weavelab {command} " in capsys.readouterr().out
    assert cli.main([*command.split(), "--nope"]) == 2
    shown = capsys.readouterr()
    assert "--nope" in shown.err
    assert shown.out == ""


def test_help_lists_the_commands_in_the_order_of_a_labs_life(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    found = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.split()]
    assert [name for name in found if name in COMMANDS] == COMMANDS


@pytest.mark.parametrize(
    ("error", "code"),
    [(CheckError("no", hint="try"), 1), (InputError("no", hint="try"), 2), (MissingError("no", hint="try"), 3)],
)
def test_our_errors_are_a_sentence_a_hint_and_their_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "weavelab", failing(error))
    assert cli.main([]) == code
    assert capsys.readouterr().err == "error: no\nhint: try\n"


def failing(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--debug", is_flag=True)
    def command(*, debug: bool) -> None:
        raise error

    return command


def test_ctrl_c_is_130_and_calm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "weavelab", failing(KeyboardInterrupt()))
    assert cli.main([]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_128_and_its_number_and_one_word(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def slow() -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr(cli, "weavelab", slow)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert cli.main([]) == 128 + number
    how = "" if number == signal.SIGINT else f" by {number.name}"
    assert capsys.readouterr().err == f"interrupted{how}\n"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_reader_that_went_away_is_141_as_of_sigpipe_and_silent(tmp_path: Path) -> None:
    printing = "import sys; from testbed.cli.main import main; sys.exit(main(['--help']))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-c", printing], cwd=ROOT, stdout=nobody, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_richs_way_to_end_for_a_reader_that_went_away_is_141_too(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    @click.command()
    def printing() -> None:
        try:
            os.write(writing, b"x")
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 - so does rich

    monkeypatch.setattr(cli, "weavelab", printing)
    assert cli.main([]) == 141
    os.close(writing)


def test_another_broken_pipe_is_a_bug_and_not_the_readers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "weavelab", failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert cli.main([]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_what_the_kernel_refuses_to_root_is_a_lack_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = PermissionError(errno.EPERM, "setns: Operation not permitted")
    monkeypatch.setattr(cli, "weavelab", failing(refused))
    assert cli.main([]) == 3
    text = capsys.readouterr().err
    assert "error: the kernel refused what weavelab asked of it: setns: Operation not permitted" in text
    assert "hint: " in text


def test_what_an_encoding_lacks_does_not_end_a_command() -> None:
    printing = "import sys; from testbed.cli.main import main; main(['--version']); print(chr(0x2713), chr(0xDC80))"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", printing], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "\\u2713 \\udc80"


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nope"]) == 2
    assert cli.main(["down", "--nope"]) == 2
    assert cli.main(["down", "a", "--all"]) == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_a_lack_of_the_machine(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "weavelab", failing(OSError(number, os.strerror(number), "/run/x")))
    assert cli.main([]) == 3
    assert "/run/x" in capsys.readouterr().err


def test_a_terminal_that_went_away_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "weavelab", failing(OSError(errno.EIO, "Input/output error")))
    monkeypatch.setattr(cli, "_silence", lambda _stream: None)
    assert cli.main([]) == 129
    assert "the output went away" in capsys.readouterr().err


def test_a_bug_is_one_paragraph_and_its_traceback_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "weavelab", failing(ZeroDivisionError("oops")))
    assert cli.main([]) == 1
    text = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in text
    assert "Traceback" not in text
    (kept,) = tmp_path.iterdir()
    assert str(kept) in text
    assert "Traceback" in kept.read_text()


def test_with_debug_the_traceback_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "weavelab", failing(ZeroDivisionError("oops")))
    assert cli.main(["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["up"], ["down", "--all"], ["status"], ["exec", "red", "true"], ["cli"]])
def test_without_root_every_command_says_so(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up.os, "geteuid", lambda: 1000)
    assert cli.main(arguments) == 3
    text = capsys.readouterr().err
    assert "needs root" in text
    assert "sudo .venv/bin/weavelab" in text


@pytest.mark.parametrize("name", ["Lab", "a/b", "..", "1a", "all", "underlay", "a" * 16, ""])
def test_a_labs_name_is_checked_before_anything_is_done(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(up.os, "geteuid", lambda: 0)
    assert cli.main(["up", "--name", name]) == 2
    assert "wanted the name of a lab" in capsys.readouterr().err


def test_status_without_labs_is_an_empty_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(up.os, "geteuid", lambda: 0)
    monkeypatch.setattr("testbed.lab.state.RUN", tmp_path / "none")
    assert cli.main(["status", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"labs": []}
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out == "no lab is up\n"


def test_closed_output_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert cli.main(["--version"]) == 0


def test_text_that_would_command_the_terminal_is_shown_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cli, "weavelab", failing(InputError("the step '\x1b[2J' is wrong", hint="\x1b]0;x\x07")))
        assert cli.main([]) == 2
    assert capsys.readouterr().err == "error: the step '\\x1b[2J' is wrong\nhint: \\x1b]0;x\\x07\n"
    assert cli.main(["up", "--no\x1b[2Jsuch"]) == 2
    assert "\x1b" not in capsys.readouterr().err
    file = tmp_path / "evil.yaml"
    file.write_text('name: "x\\e[2J"\nnodes: {"no\\rde": }\n', encoding="utf-8")
    assert cli.main(["run", "--topology", str(file)]) == 2
    told = capsys.readouterr().err
    assert not any(character in told for character in "\x1b\r")
