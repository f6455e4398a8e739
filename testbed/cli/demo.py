"""`weavelab demo`: its options and their help. What it shows is in `testbed.demo.steps`."""

import sys
from pathlib import Path
from typing import Final

import click

_DEFAULT_NAME: Final = "demo"
TOOLS: Final = ("bridge", "ip", "ping")
"""The programs whose output the demo shows."""

_EXAMPLES: Final = """
\b
Examples:
  weavelab demo                       a key between the steps
  weavelab demo --analogy             with the restaurant chain beside it
  weavelab demo --auto --pause 8      goes on by itself, for a recording
  weavelab demo --auto | less         plain text

\b
Exit code: 0 all it showed is as it says (or you pressed q), 1 something is not, 3 the machine lacks something,
130 interrupted.
"""


@click.command(
    "demo", epilog=_EXAMPLES, short_help="Five guided minutes: from a pod's creation to a frame taken apart."
)
@click.option("--auto", is_flag=True, help="Do not wait for keys (always so where there is no terminal).")
@click.option(
    "--pause",
    type=click.FloatRange(min=0, max=600),
    metavar="SECONDS",
    help="With --auto: how long each step stays.  [default: 0]",
)
@click.option("--analogy", is_flag=True, help="Tell every step as a chain of restaurants, too.")
@click.option(
    "--topology",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Another lab, with pods on two nodes.  [default: topologies/two-nodes.yaml]",
)
@click.option("--name", metavar="LAB", default=_DEFAULT_NAME, show_default=True, help="What the demo's lab is called.")
def demo_command(auto: bool, pause: float | None, analogy: bool, topology: Path | None, name: str) -> int:  # noqa: FBT001 - click passes by name
    """Show how a pod network works, on a real one: a lab comes up, a pod is created, two pings are followed.

    Made for people who study for the CKA exam: every step shows a real command with its real output, a sentence about
    it, and what an exam would ask there. The lab is the demo's own and is gone at the end, also after q or Ctrl-C.
    """
    if pause is not None and not auto:
        raise click.UsageError("--pause is for --auto; without it, a key goes on")
    from testbed.cli.lab import check_lab_name, default_topology  # noqa: PLC0415 - `--help` does not wait for the lab
    from testbed.demo.cast import choose_cast  # noqa: PLC0415
    from testbed.demo.show import Show  # noqa: PLC0415
    from testbed.demo.stage import Stage, keys_for, make_console  # noqa: PLC0415
    from testbed.demo.steps import perform  # noqa: PLC0415
    from testbed.life.up import check_machine  # noqa: PLC0415
    from testbed.machine.tools import need_tools  # noqa: PLC0415
    from testbed.topology.load import load_topology  # noqa: PLC0415

    check_machine()
    need_tools(TOOLS)
    check_lab_name(name)
    path = topology or default_topology()
    loaded = load_topology(path)
    keys = keys_for(sys.stdin, sys.stdout, auto=auto, pause_s=pause or 0.0)
    stage = Stage(make_console(sys.stdout), keys, restaurant=analogy)
    return perform(Show(stage=stage, name=name, topology=loaded, topology_file=path, cast=choose_cast(loaded)))
