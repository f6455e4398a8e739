"""`weavelab status`: nodes, agents, peers and pods of running labs, for people or programs."""

from typing import Final

import click

from testbed.cli.formats import format_option
from testbed.lab.listing import Format

_EXAMPLES: Final = """
\b
Examples:
  weavelab status
  weavelab status two-nodes --format wide     every column, every line
  weavelab status two-nodes --format json
  weavelab status --format yaml | less

\b
Exit code: 0 every agent is ready and sees the others, 1 something is not as it should be.
"""


@click.command(epilog=_EXAMPLES, short_help="Show labs, nodes, agents, peers and pods.")
@click.argument("lab", required=False)
@format_option
def status(lab: str | None, output: Format) -> int:
    """Show the labs of this machine, or one of them: nodes, agents, peers, pods."""
    from testbed.lab.listing import show_values  # noqa: PLC0415 - `--help` does not wait for it
    from testbed.lab.status import healthy, observe  # noqa: PLC0415
    from testbed.lab.tables import print_tables  # noqa: PLC0415
    from testbed.machine.privileges import LOOK, check_machine  # noqa: PLC0415

    check_machine(LOOK)
    found = observe(lab)
    if output in {"json", "yaml"}:
        show_values({"labs": found}, output)
    else:
        print_tables(found, wide=output == "wide")
    return 0 if all(map(healthy, found)) else 1
