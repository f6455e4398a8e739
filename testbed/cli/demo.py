"""`weavelab demo`: its options and their help. What it shows is in `testbed.demo.steps`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from testbed.cli.topology_file import file_argument, one_file
from testbed.demo.texts import LESSONS

if TYPE_CHECKING:
    from testbed.demo.show import Show

_DEFAULT_NAME: Final = "demo"
_TOOLS: Final = ("bridge", "ip", "ping")
"""The programs whose output the demo shows."""

_EXAMPLES: Final = """
\b
Examples:
  weavelab demo                        page by page; ? shows the keys
  weavelab demo --analogy              with the restaurant chain beside it
  weavelab demo --step break           begin there; the steps before are played unseen
  weavelab demo topologies/racks.yaml  another lab: with a router on the way
  weavelab demo --list                 the names of the steps
  weavelab demo --auto --pause 8       goes on by itself, for a recording
  weavelab demo --auto | less          plain text
  weavelab demo --record demo.svg      a picture that moves

\b
Keys: space on, b back, a the answer to the exam question, a number that step, ? help, q end.

\b
Exit code: 0 all it showed is as it says (or you pressed q), 1 something is not, 2 wrong usage, 3 the machine lacks
something, 128+N ended by signal N (130 Ctrl-C).
"""


@click.command(
    "demo", epilog=_EXAMPLES, short_help="Five guided minutes: from a pod's creation to a frame taken apart."
)
@click.option(
    "--step",
    type=click.Choice(list(LESSONS)),
    metavar="NAME",
    help="Begin at this step; those before it are played unseen.",
)
@click.option("--list", "listed", is_flag=True, help="Print the names of the steps and end; needs no root.")
@click.option("--auto", is_flag=True, help="Do not wait for keys (always so where there is no terminal).")
@click.option(
    "--pause",
    type=click.FloatRange(min=0, max=600),
    metavar="SECONDS",
    help="With --auto: how long each step stays.  [default: 0]",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE.svg",
    help="Keep the most telling pages as a picture that moves, instead of showing them.",
)
@click.option("--analogy", is_flag=True, help="Tell every step as a chain of restaurants, too.")
@file_argument
@click.option("--name", metavar="LAB", default=_DEFAULT_NAME, show_default=True, help="What the demo's lab is called.")
def demo_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    file: Path | None,
    step: str | None,
    listed: bool,  # noqa: FBT001 - click passes by name
    auto: bool,  # noqa: FBT001
    pause: float | None,
    record: Path | None,
    analogy: bool,  # noqa: FBT001
    topology: Path | None,
    name: str,
) -> int:
    """Show how a pod network works, on a real one: a pod is created, pings are followed, a fault is made and found.

    Made for people who study for the CKA exam: every step shows a real command with its real output, a sentence about
    it, and what an exam would ask there. FILE is the topology of the lab, with pods on two nodes (default:
    topologies/two-nodes.yaml). The lab is the demo's own and is gone at the end, also after q or Ctrl-C.
    """
    if pause is not None and not auto:
        raise click.UsageError("--pause is for --auto; without it, a key goes on")
    if record is not None and auto:
        raise click.UsageError("--record looks for its pages itself: give it without --auto")
    given = one_file(file, topology)
    from testbed.cli.lab import check_lab_name, default_topology  # noqa: PLC0415 - `--help` does not wait for the lab
    from testbed.demo.cast import choose_cast  # noqa: PLC0415
    from testbed.demo.play import perform, place_of, player_for, titles  # noqa: PLC0415
    from testbed.demo.show import Show  # noqa: PLC0415
    from testbed.demo.stage import Stage  # noqa: PLC0415
    from testbed.machine.privileges import CHANGE, check_machine  # noqa: PLC0415
    from testbed.machine.tools import need_tools  # noqa: PLC0415
    from testbed.topology.load import load_topology  # noqa: PLC0415

    if not listed:
        check_machine(CHANGE)
        need_tools(_TOOLS)
    check_lab_name(name)
    path = given or default_topology()
    loaded = load_topology(path)
    show = Show(
        stage=Stage(restaurant=analogy),
        name=name,
        topology=loaded,
        topology_file=path,
        cast=choose_cast(loaded),
    )
    first = place_of(show, step)
    if listed:
        for key, title in titles(show):
            click.echo(f"{key:12}{title}")
        return 0
    if record is not None:
        return _record(show, record)
    return perform(show, player_for(sys.stdin, sys.stdout, auto=auto, pause_s=pause or 0.0), first=first)


def _record(show: "Show", path: Path) -> int:
    """Play unseen and write the picture."""
    from testbed.cli.lab import default_topology  # noqa: PLC0415
    from testbed.demo.play import by_page, perform, titles  # noqa: PLC0415
    from testbed.demo.recording import Recorder, recording  # noqa: PLC0415
    from testbed.machine.files import check_report_path, write_report  # noqa: PLC0415

    check_report_path(path)
    recorder = Recorder([name for name, _ in titles(show)], sys.stderr)
    code = perform(show, by_page(recorder))
    if code == 0:
        command = f"weavelab demo {show.topology_file}".removesuffix(f" {default_topology()}")
        write_report(path, recording(recorder.kept, command=command))
        click.echo(f"recording: {path}")
    return code
