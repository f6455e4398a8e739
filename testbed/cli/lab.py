"""`weavelab up` and `weavelab down`: their options; what they do is in `testbed.life.up` and `testbed.life.down`."""

import re
import sys
import time
from pathlib import Path
from typing import Final

import click

from plugin.core.errors import InputError
from testbed.cli.topology_file import as_shown, file_argument, one_file
from testbed.machine.checkout import PROJECT
from testbed.topology.model import KUBELET_KINDS, KubeletKind
from testbed.topology.names import NAME_PATTERN, RESERVED_NAMES

_DEFAULT_TOPOLOGY: Final = "topologies/two-nodes.yaml"

_UP_EXAMPLES: Final = """
\b
Examples:
  weavelab up                                     the default topology, two nodes
  weavelab up topologies/racks.yaml
  weavelab up topologies/two-nodes.yaml --name b  a second lab beside the first
  weavelab up --kubelet containerd                pods made by a real containerd on each node
  weavelab up - < topologies/racks.yaml           a topology that a program writes
"""

_DOWN_EXAMPLES: Final = """
\b
Examples:
  weavelab down                 the lab that is up
  weavelab down two-nodes racks
  weavelab down --all --wait    all labs; return when the kernel has freed everything
  weavelab down --all --force   also those that a run or a prompt is using
"""


@click.command(epilog=_UP_EXAMPLES, short_help="Bring a lab up.")
@file_argument
@click.option("--name", metavar="LAB", help="Call the lab so, instead of by its topology's name.")
@click.option("--kubelet", type=click.Choice(KUBELET_KINDS), help="Who makes pods, instead of whom the file names.")
@click.option("--keep-on-failure", is_flag=True, help="When it fails, leave what there is, to look inside.")
def up(
    file: Path | None,
    topology: Path | None,
    name: str | None,
    kubelet: KubeletKind | None,
    keep_on_failure: bool,  # noqa: FBT001 - click passes by name
) -> None:
    """Bring up the lab that a topology file describes.

    Returns when every agent is ready, sees every other, and knows every pod. A failure or Ctrl-C leaves nothing behind.
    """
    from testbed.lab import state  # noqa: PLC0415 - `--help` must not wait for the lab's imports
    from testbed.lab.progress import for_terminal  # noqa: PLC0415
    from testbed.lab.users import Use  # noqa: PLC0415
    from testbed.life.up import bring_up  # noqa: PLC0415
    from testbed.machine.privileges import CHANGE, check_machine  # noqa: PLC0415
    from testbed.scenario.members import WEAVELAB  # noqa: PLC0415
    from testbed.topology.load import load_topology  # noqa: PLC0415

    given = one_file(file, topology)
    check_machine(CHANGE)
    check_lab_name(name)
    path = given or default_topology()
    loaded = load_topology(path, kubelet=kubelet)
    began_s = time.monotonic()
    with Use() as use, for_terminal() as progress:
        lab = bring_up(
            loaded,
            name=name,
            topology_file=as_shown(path),
            progress=progress,
            keep_on_failure=keep_on_failure,
            use=use,
        )
    member = next(iter(lab.pods), next(iter(lab.nodes)))
    several = state.ready_labs() != [lab.name]
    option = f"--lab {lab.name} " if several else ""
    click.echo(f"lab {lab.name} is up: {_count(lab.nodes, 'node')}, {_count(lab.pods, 'pod')}, ", nl=False)
    click.echo(f"{time.monotonic() - began_s:.2f} s")
    click.echo(f"  look inside:  {WEAVELAB} exec {option}{member} -- ip address")
    click.echo(f"  prompt:       {WEAVELAB} cli{f' {lab.name}' if several else ''}")
    click.echo(f"  take it down: {WEAVELAB} down {lab.name}")


@click.command(epilog=_DOWN_EXAMPLES, short_help="Take labs down, or what is left of them.")
@click.argument("labs", nargs=-1, metavar="[LAB]...")
@click.option("--all", "all_", is_flag=True, help="Every lab of this machine, also what killed commands left.")
@click.option("--force", is_flag=True, help="Also a lab that a command is using: end that command first.")
@click.option("--wait", is_flag=True, help="Return when the kernel has freed everything, not before.")
def down(labs: tuple[str, ...], all_: bool, force: bool, wait: bool) -> None:  # noqa: FBT001 - click passes by name
    """Take labs down: their processes, namespaces, mounts and files, in whatever state they are.

    A lab that another command is using (`up`, `run`, `demo`, `cli`) is left alone, unless --force is given; with
    --all, the others go. The kernel frees namespaces in the background, some 40 ms a node; --wait waits for that.
    """
    from testbed.lab import state  # noqa: PLC0415
    from testbed.life.down import take_down, wait_for_kernel  # noqa: PLC0415
    from testbed.machine.privileges import REMOVE, check_machine  # noqa: PLC0415

    if all_ and labs:
        raise click.UsageError(f"give either labs ({', '.join(labs)}) or --all")
    check_machine(REMOVE)
    gone: list[str] = []

    def tell(name: str) -> None:
        gone.append(name)
        click.echo(f"lab {name} is down")

    take_down(None if all_ else list(labs) or [_only_lab(state.labs())], force=force, done=tell)
    if not gone:
        click.echo("no lab was up")
    if wait and not wait_for_kernel():
        click.echo("the kernel is still freeing namespaces; nothing more needs to be done", file=sys.stderr)


def check_lab_name(name: str | None) -> None:
    """See that a lab's name is one: it becomes a folder and part of namespace names.

    Raises:
        InputError: It is not.
    """
    if name is not None and (not re.fullmatch(NAME_PATTERN, name) or name in RESERVED_NAMES):
        raise InputError(
            f"wanted the name of a lab, found {name!r}",
            hint=f"1 to 15 of a-z, 0-9 and '-', starting with a letter; not {', '.join(sorted(RESERVED_NAMES))}",
        )


def default_topology() -> Path:
    """The default topology: of the folder we are in, else of the project."""
    here = Path(_DEFAULT_TOPOLOGY)
    return here if here.exists() else PROJECT / _DEFAULT_TOPOLOGY


def _only_lab(labs: list[str]) -> str:
    if len(labs) == 1:
        return labs[0]
    if not labs:
        raise InputError("no lab is up", hint="there is nothing to take down")
    raise InputError(f"several labs are up: {', '.join(labs)}", hint="name them, or use --all")


def _count(things: object, word: str) -> str:
    number = len(things)  # type: ignore[arg-type]
    return f"{number} {word}" + ("" if number == 1 else "s")
