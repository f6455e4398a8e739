"""`weavelab cli`: the Mininet prompt on a running lab."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from testbed.lab.users import Use

_SIGNAL_EXIT: Final = 128
"""Plus the signal's number, as shells have it."""

_EXAMPLES: Final = """
\b
Examples:
  weavelab cli                          the prompt
  weavelab cli -c pingall -c 'red ping -c1 green'
  weavelab cli < commands.txt

\b
Exit code: 0, or 1 when a command of -c or of a script failed.
"""


@click.command(epilog=_EXAMPLES, short_help="The Mininet prompt on a running lab.")
@click.argument("lab", required=False)
@click.option(
    "-c", "--command", "commands", multiple=True, metavar="COMMAND", help="Run this instead; may be repeated."
)
def cli(lab: str | None, commands: tuple[str, ...]) -> int:
    """Open the Mininet prompt on a running lab: its nodes and pods by name, pingall, iperf, links and more.

    Leaving the prompt leaves the lab up.
    """
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.lab.users import Use  # noqa: PLC0415
    from testbed.machine.privileges import ENTER, check_machine  # noqa: PLC0415

    check_machine(ENTER)
    running = Lab.load(lab)
    from testbed.prompt.shell import run_shell  # noqa: PLC0415 - Mininet costs 0.1 s and more

    with Use() as use, leaving(use):
        use.attach(running.paths)
        return run_shell(running, commands, stdin=sys.stdin)


@contextlib.contextmanager
def leaving(use: "Use") -> Iterator[None]:
    """Within the block SIGTERM ends the prompt, however deep it is in a command, and says so if its lab is taken away.

    An exception would do for most, but the prompt takes Ctrl-C, and every error, as a reason to go on.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        farewell = use.farewell()
        if farewell is not None:
            click.echo(f"\nerror: {farewell.message}", err=True)
        raise SystemExit(_SIGNAL_EXIT + number if farewell is None else farewell.exit_code)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
