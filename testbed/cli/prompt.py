"""`weavelab cli`: the Mininet prompt on a running lab."""

import sys
from typing import Final

import click

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

    with Use() as use:
        use.attach(running.paths)
        return run_shell(running, commands, stdin=sys.stdin)
