"""`weavelab status`: nodes, agents, peers and pods of running labs, for people or programs."""

import json
from typing import Final

import click

_EXAMPLES: Final = """
\b
Examples:
  weavelab status
  weavelab status two-nodes --format json

\b
Exit code: 0 every agent is ready, 1 something is not.
"""


@click.command(epilog=_EXAMPLES, short_help="Show labs, nodes, agents, peers and pods.")
@click.argument("lab", required=False)
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or programs.",
)
def status(lab: str | None, output: str) -> int:
    """Show the labs of this machine, or one of them: nodes, agents, peers, pods."""
    from testbed.lab.status import healthy, observe, print_tables  # noqa: PLC0415 - `--help` does not wait for it
    from testbed.life.up import check_machine  # noqa: PLC0415

    check_machine()
    found = observe(lab)
    if output == "json":
        click.echo(json.dumps({"labs": found}, indent=2))
    else:
        print_tables(found)
    return 0 if all(map(healthy, found)) else 1
