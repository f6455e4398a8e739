"""The command line: which commands there are, and how every error becomes a sentence and an exit code.

Exit codes (design decision D12): 0 all is well, 1 a check failed, 2 wrong usage or input, 3 the machine lacks
something, 130 interrupted. A command's module is imported when it is used, so that `--help` and `exec` do not wait for
the others.
"""

import contextlib
import errno
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

import click

from plugin.core.errors import WeaveError, said_by
from testbed.cli.usage import Group, told
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

_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_HUNG_UP: Final = 129
"""128 + the signal's number, as shells have it: SIGINT, SIGPIPE, SIGHUP."""


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
    code = _run(arguments)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)
    return code


def _run(arguments: Sequence[str] | None) -> int:  # noqa: PLR0911 - one line an ending: a table in words
    argv = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    try:
        result = weavelab.main(args=argv, prog_name="weavelab", standalone_mode=False)
        sys.stdout.flush()
    except WeaveError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:  # UsageError among them, whose exit code is 2
        return _fail(*told(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", "", _INTERRUPTED)
    except BrokenPipeError:
        _silence(sys.stdout)
        return _BROKEN_PIPE
    except OSError as error:
        if error.errno == errno.EIO and error.filename is None:  # no file: our terminal, whose window was closed
            return _hung_up(error)
        if error.errno in {errno.ENOSPC, errno.EROFS}:
            return _fail(f"the disk refused: {said_by(error)}", "free space, or another folder, is needed", 3)
        return _bug(error, argv)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        return _bug(error, argv)
    return result if isinstance(result, int) else 0


def _open_closed_streams() -> None:
    """Python has None where the caller closed standard output or error (`>&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process


def _fail(message: str, hint: str, code: int) -> int:
    message, hint = printable(message), printable(hint)  # a topology's text may hold anything
    sys.stderr.write(f"error: {message}\n" if code != _INTERRUPTED else f"{message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    return code


def _bug(error: BaseException, argv: Sequence[str]) -> int:
    trace, text = explain(error, debug="--debug" in argv)
    sys.stderr.write(f"{trace}error: {text}\nIf a lab was being changed, `weavelab down --all` cleans up.\n")
    return 1


def _hung_up(error: OSError) -> int:
    _silence(sys.stdout)
    with contextlib.suppress(OSError):  # it may be the same terminal
        sys.stderr.write(f"error: the output went away: {error.strerror}\n")
    return _HUNG_UP


def _silence(stream: TextIO) -> None:
    """Its reader went away: what is still buffered must not fail again at exit, which would change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
