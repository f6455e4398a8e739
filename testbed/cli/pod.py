"""`weavelab pod`: pods that come and go in a running lab, with the CNI calls that a runtime makes for them."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from plugin.core.errors import WeaveError
from testbed.cli.formats import format_option
from testbed.lab.listing import Format, plain

if TYPE_CHECKING:
    from testbed.lab.cni_call import CniCall
    from testbed.lab.running import Lab

_EXAMPLES: Final = """
\b
Examples:
  weavelab pod add yellow --node node1        a pod as a kubelet makes one
  weavelab pod add orange --node node2 -v     with the CNI call: environment, configuration, result
  weavelab exec yellow -- ping -c1 red
  weavelab pod list
  weavelab pod delete yellow orange
"""

_ADD_EXAMPLES: Final = """
\b
Examples:
  weavelab pod add yellow --node node1
  weavelab pod add orange --node node2 -v
"""

_DELETE_EXAMPLES: Final = """
\b
Examples:
  weavelab pod delete yellow
  weavelab pod delete -v yellow orange
"""

_LIST_EXAMPLES: Final = """
\b
Examples:
  weavelab pod list
  weavelab pod list --format wide
  weavelab pod list --format json
"""


@click.group(epilog=_EXAMPLES, short_help="Add, delete and list pods of a running lab.")
def pod() -> None:
    """Add, delete and list the pods of a running lab.

    The kubelet of the node makes them, as it made those of the topology; steps, `exec` and the prompt know them.
    """


_lab_option = click.option("--lab", metavar="LAB", help="Which lab, when several are up.")
_verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show every CNI call: its environment, configuration and result."
)


@pod.command(name="add", epilog=_ADD_EXAMPLES, short_help="Make a pod and attach it.")
@click.argument("name")
@click.option("--node", metavar="NODE", required=True, help="On which node.")
@_lab_option
@_verbose_option
def _add(name: str, node: str, lab: str | None, verbose: bool) -> None:  # noqa: FBT001 - click passes by name
    """Make a pod on a node of a running lab and attach it by the CNI chain of that node.

    Returns when every agent knows where the pod is. A failure or Ctrl-C while it is made leaves nothing of it.
    """
    from testbed.life import pods  # noqa: PLC0415 - `--help` does not wait for it

    running = _load(lab)
    try:
        made = pods.add(running, name, node)
    except WeaveError as error:
        _show_calls(getattr(error, "calls", ()), verbose=verbose)
        raise
    if verbose:
        _show_runtime(made.lab, made.calls, name)
    _show_calls(made.calls, verbose=verbose)
    assert made.pod is not None
    click.echo(
        f"pod {name} is on {node}: address {made.pod.address}, MAC {made.pod.mac}, host side {made.pod.host_ifname}"
    )
    _tell_silent(pods.await_told(made.lab, made.pod, there=True), f"will learn of {name} when started")


@pod.command(name="delete", epilog=_DELETE_EXAMPLES, short_help="Detach pods and remove them.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_lab_option
@_verbose_option
def _delete(names: tuple[str, ...], lab: str | None, verbose: bool) -> None:  # noqa: FBT001 - click passes by name
    """Detach pods by DEL of the CNI chain and remove them; also pods of the topology.

    Returns when every agent knows that they are gone. The name, the address and the namespace are free again.
    """
    from testbed.life import pods  # noqa: PLC0415

    running = _load(lab)
    for name in dict.fromkeys(names):
        try:
            gone = pods.delete(running, name)
        except WeaveError as error:
            _show_calls(getattr(error, "calls", ()), verbose=verbose)
            raise
        running = gone.lab
        _show_calls(gone.calls, verbose=verbose)
        if verbose and gone.pod is not None and not gone.calls:
            click.echo(
                f"containerd of {gone.pod.node}: StopPodSandbox twice, RemovePodSandbox; it executed DEL of the plugins"
            )
        if gone.pod is None:
            click.echo(f"what was left of pod {name} is gone")
            continue
        click.echo(f"pod {name} is gone from {gone.pod.node}, and {gone.pod.address} with it")
        _tell_silent(pods.await_told(gone.lab, gone.pod, there=False), f"will learn that {name} went when started")


@pod.command(name="list", epilog=_LIST_EXAMPLES, short_help="List the pods.")
@_lab_option
@format_option
def _list(lab: str | None, output: Format) -> None:
    """List the pods of a running lab, with the columns and keys that `weavelab status` has for them."""
    from testbed.lab.listing import Screen, show_values  # noqa: PLC0415
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.lab.status import observe_pods  # noqa: PLC0415
    from testbed.lab.tables import pods_listing  # noqa: PLC0415
    from testbed.machine.privileges import LOOK, check_machine  # noqa: PLC0415

    check_machine(LOOK)
    running = Lab.load(lab)
    found = observe_pods(running)
    if output in {"json", "yaml"}:
        show_values({"pods": found}, output)
    elif found:
        Screen().table(pods_listing(found, ""), found, wide=output == "wide")
    else:
        click.echo(f"lab {running.name} has no pods; `weavelab pod add NAME --node NODE` makes one")


def _load(lab: str | None) -> "Lab":
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.machine.privileges import CHANGE, check_machine  # noqa: PLC0415

    check_machine(CHANGE)
    return Lab.load(lab)


def _tell_silent(nodes: tuple[str, ...], what: str) -> None:
    if nodes:
        click.echo(f"no agent runs on {', '.join(nodes)}: it {what} (weavelab agent start {nodes[0]})", err=True)


def _show_runtime(lab: "Lab", calls: Iterable["CniCall"], name: str) -> None:
    """A real runtime executes plugins unseen: what it keeps of them is the result."""
    if calls:
        return
    from testbed.kubelet.cni_runtime import CniRuntime  # noqa: PLC0415
    from testbed.kubelet.sandbox import Sandbox  # noqa: PLC0415

    made = lab.pods[name]
    sandbox = Sandbox(pod=name, container_id=made.container_id, netns="")
    result = CniRuntime(lab.nodes[made.node].space).result_of(sandbox)
    click.echo(
        f"containerd of {made.node}: RunPodSandbox ({made.container_id[:12]}), CreateContainer, StartContainer; "
        "it executed ADD of the plugins and keeps the result"
    )
    click.echo("\n".join(_json_lines(result)))


def _show_calls(calls: Iterable["CniCall"], *, verbose: bool) -> None:
    """Every call as the runtime made it, for who asked."""
    for call in calls if verbose else ():
        ending = "ended by its deadline" if call.timed_out else f"exit code {call.exit_code}"
        click.echo(f"{call.command} by plugin {call.plugin}: {ending} after {call.seconds:.3f} s")
        click.echo("  environment")
        click.echo("\n".join(f"    {name}={value}" for name, value in call.environment.items()))
        click.echo("  configuration, on standard input")
        click.echo("\n".join(_json_lines(call.stdin)))
        click.echo("  result, on standard output" if call.stdout else "  no output")
        click.echo("".join(f"{line}\n" for line in _output_lines(call.stdout)), nl=False)
        if call.stderr:
            click.echo("  on standard error")
            click.echo("\n".join(f"    {plain(line)}" for line in call.stderr.splitlines()))
    sys.stdout.flush()


def _output_lines(text: str) -> Iterator[str]:
    try:
        yield from _json_lines(json.loads(text))
    except ValueError:
        yield from (f"    {plain(line)}" for line in text.splitlines())


def _json_lines(value: Any) -> Iterator[str]:
    return (f"    {line}" for line in json.dumps(value, indent=2).splitlines())
