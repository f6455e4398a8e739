"""`weavelab graph`: a picture of a running lab, or of what a topology file describes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from plugin.core.errors import InputError, said_by

if TYPE_CHECKING:
    from testbed.scenario.results import LabView

_EXAMPLES: Final = """
\b
Examples:
  weavelab graph                                 the lab that is up, as a tree
  weavelab graph topologies/racks.yaml           what a file describes; needs no root
  weavelab graph two-nodes -o lab.svg            the format follows from the name
  weavelab graph --format mermaid                for a README on GitHub
  weavelab graph --format dot | dot -Tpng >lab.png
"""

_FORMATS: Final = ("text", "svg", "mermaid", "dot")
_BY_SUFFIX: Final = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot", ".gv": "dot"}


@click.command(epilog=_EXAMPLES, short_help="Draw a lab or a topology file.")
@click.argument("lab_or_file", metavar="[LAB|FILE]", required=False)
@click.option(
    "--format", "output", type=click.Choice(_FORMATS), help="What is drawn; text, unless the name of FILE says another."
)
@click.option("-o", "--output", "path", metavar="FILE", type=click.Path(path_type=Path), help="Write there.")
def graph(lab_or_file: str | None, output: str | None, path: Path | None) -> None:
    """Draw who is plugged into what: a running lab with its addresses, or a topology file (`-`: standard input)."""
    from testbed.report.graph import GRAPHS, text_graph  # noqa: PLC0415 - `--help` does not wait for it

    if path is not None and str(path) == "-":
        path = None
    chosen = output or ("text" if path is None else _BY_SUFFIX.get(path.suffix.lower(), "text"))
    if path is not None:
        from testbed.machine.files import check_report_path  # noqa: PLC0415

        check_report_path(path)
    name, view = _view(lab_or_file)
    if path is None:
        plain = chosen == "text" and not _draws(sys.stdout.encoding)
        click.echo(text_graph(name, view, ascii_only=True) if plain else GRAPHS[chosen](name, view), nl=False)
        return
    from testbed.machine.files import write_report  # noqa: PLC0415

    try:
        write_report(path, GRAPHS[chosen](name, view))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {said_by(error, path=False)}",
            hint="name a file in a folder that exists and has room",
        ) from error
    click.echo(f"{path} shows {name}", err=True)


def _view(lab_or_file: str | None) -> "tuple[str, LabView]":
    from testbed.report.view import planned_view, view_of  # noqa: PLC0415

    if lab_or_file is not None and _is_file(lab_or_file):
        from testbed.topology.load import load_topology, parse_topology  # noqa: PLC0415

        if lab_or_file == "-":
            topology = parse_topology(sys.stdin.read(), file="<stdin>")
        else:
            topology = load_topology(lab_or_file)
        return topology.name, planned_view(topology)
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.machine.privileges import LOOK, check_machine  # noqa: PLC0415

    check_machine(LOOK)
    lab = Lab.load(lab_or_file)
    return lab.name, view_of(lab)


def _is_file(text: str) -> bool:
    """A lab's name has neither a dot nor a slash."""
    return text == "-" or "/" in text or "." in text


def _draws(encoding: str) -> bool:
    try:
        "├─│└".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
