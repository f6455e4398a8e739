"""The command line: which commands there are, and how every error becomes a sentence and an exit code.

Exit codes (ADR 12, ADR 35): 0 all is well, 1 a check failed, 2 wrong usage or input, 3 the machine lacks something,
128 and the signal's number when a signal ended the command. All of that is decided here: a command raises, or returns
what it found. A command's module is imported when it is used, so that `--help` and `exec` do not wait for the others.
"""

import contextlib
import errno
import importlib.util
import io
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

import click

from plugin.core.errors import MissingError, WeaveError, said_by
from testbed.cli.usage import Group, told
from testbed.machine import interrupts
from testbed.machine.printable import printable
from testbed.machine.unexpected import explain

_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "check": ("testbed.cli.check", "check"),
    "up": ("testbed.cli.lab", "up"),
    "down": ("testbed.cli.lab", "down"),
    "status": ("testbed.cli.status", "status"),
    "exec": ("testbed.cli.exec", "exec_"),
    "cli": ("testbed.cli.prompt", "cli"),
    "pod": ("testbed.cli.pod", "pod"),
    "agent": ("testbed.cli.agent", "agent"),
    "logs": ("testbed.cli.logs", "logs"),
    "capture": ("testbed.cli.capture", "capture"),
    "graph": ("testbed.cli.graph", "graph"),
    "run": ("testbed.cli.run", "run_command"),
    "demo": ("testbed.cli.demo", "demo_command"),
    "deploy": ("testbed.cli.deploy", "deploy"),
    "completion": ("testbed.cli.completion", "completion"),
}

_EXAMPLES: Final = """
\b
Examples:
  weavelab up topologies/two-nodes.yaml     bring a lab up
  weavelab exec red -- ping -c1 green       run something inside a pod or node
  weavelab cli                              the Mininet prompt on the running lab
  weavelab run                              lab up, all scenarios, lab down, report
  weavelab down --all                       leave nothing behind
"""

_BROKEN_PIPE: Final = interrupts.EXIT_BASE + signal.SIGPIPE
_HUNG_UP: Final = interrupts.EXIT_BASE + signal.SIGHUP


class Commands(Group):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """All names, in the order of a lab's life; one whose module is not part of this installation is left out."""
        return [name for name, (module, _) in _COMMANDS.items() if importlib.util.find_spec(module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=Commands, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weavelab", message="weavelab %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.pass_context
def weavelab(ctx: click.Context, debug: bool) -> None:  # noqa: FBT001 - click passes by name
    """A whole Kubernetes-style pod network on this machine: run it, see it, break it, understand it."""
    ctx.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    try:
        with interrupts.raised():
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as stop:
        code = _interrupted(stop)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)
    return code


def _run(argv: Sequence[str]) -> int:  # noqa: PLR0911 - one line an ending: a table in words
    """The command line to its end; what ended it becomes a sentence and a code.

    Not click's own `main`: that turns signals and broken pipes into endings of its own.

    Raises:
        KeyboardInterrupt: A signal came.
    """
    _prepare_streams()
    if question := os.environ.get("_WEAVELAB_COMPLETE"):
        from testbed.cli.completion import answer  # noqa: PLC0415 - a shell asks, between two keys

        answer(weavelab, question)
        return 0
    try:
        with weavelab.make_context("weavelab", list(argv)) as context:
            result = weavelab.invoke(context)
        sys.stdout.flush()
    except WeaveError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    except click.ClickException as error:  # UsageError among them, whose exit code is 2
        return _fail(*told(error), error.exit_code)
    except click.Abort as stop:
        raise KeyboardInterrupt from stop
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich ends the process when its reader goes away
            return _reader_went_away()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except OSError as error:
        return _os_ending(error, argv)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        return _bug(error, argv)
    return result if isinstance(result, int) else 0


def _os_ending(error: OSError, argv: Sequence[str]) -> int:
    """What the kernel refused and no command has told of."""
    if isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (sys.stdout, sys.stderr))):
        return _reader_went_away()
    if error.errno == errno.EIO and error.filename is None:  # no file: our terminal, whose window was closed
        return _hung_up(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
        what = "the disk" if error.filename else "the disk, or what the output goes to,"
        hint = "free space, or another folder, is needed"
        return _fail(f"{what} refused: {said_by(error)}", hint, MissingError.exit_code)
    if isinstance(error, PermissionError):
        from testbed.machine.privileges import is_refusal, refusal  # noqa: PLC0415 - only this needs it

        if is_refusal(error):
            missing = refusal(error)
            return _fail(missing.message, missing.hint, missing.exit_code)
    return _bug(error, argv)


def _prepare_streams() -> None:
    """Output that was closed (`>&-`) is None in Python; what the reader's encoding lacks must not end a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, hint: str, code: int) -> int:
    message, hint = printable(message), printable(hint)  # a topology's text may hold anything
    _tell(f"error: {message}\n" + (f"hint: {hint}\n" if hint else ""))
    return code


def _interrupted(stop: KeyboardInterrupt) -> int:
    _tell(f"{interrupts.in_words(stop)}\n")
    return interrupts.EXIT_BASE + interrupts.number_of(stop)


def _bug(error: BaseException, argv: Sequence[str]) -> int:
    trace, text = explain(error, debug="--debug" in argv)
    _tell(f"{trace}error: {text}\nIf a lab was being changed, `weavelab down --all` cleans up.\n")
    return 1


def _reader_went_away() -> int:
    for stream in filter(_has_no_reader, (sys.stdout, sys.stderr)):
        _silence(stream)
    return _BROKEN_PIPE


def _hung_up(error: OSError) -> int:
    _silence(sys.stdout)
    _tell(f"error: the output went away: {said_by(error)}\n")
    return _HUNG_UP


def _tell(text: str) -> None:
    """On standard error, wherever that is by now: closed, full, a terminal that is gone."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _has_no_reader(stream: TextIO) -> bool:
    poller = select.poll()
    try:
        poller.register(stream.fileno(), 0)
    except (OSError, ValueError):  # no file behind it
        return False
    return any(happened & select.POLLERR for _, happened in poller.poll(0))


def _silence(stream: TextIO) -> None:
    """Its reader went away: what is still buffered must not fail again at exit, which would change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
