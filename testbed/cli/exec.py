"""`weavelab exec`: a command inside a member of a running lab, in the place of weavelab itself."""

import os
import sys
from typing import Final

import click

from plugin.core.errors import InputError, said_by

_EXAMPLES: Final = """
\b
Examples:
  weavelab exec red -- ping -c1 green         in a pod
  weavelab exec node1 -- bridge fdb show      on a node
  weavelab exec outside -- tcpdump -ni eth0   on the host beyond the cluster
  weavelab exec node1 --lab b -- bash         a shell, in one of several labs

\b
Exit code: the command's own; 126 it cannot be executed, 127 there is no such command.
"""

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


class _CommandInside(click.Command):
    """Options may stand before and behind the target; from the command's first word, or `--`, on all is the command's.

    So `exec red ping -c1 green` needs no `--`, and `exec red --help` is a question to weavelab.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put our options in front and `--` behind them, then let click read that."""
        ours, rest = self._options_of(args, ctx)
        if rest[:1] == ["--"]:
            rest = rest[1:]
        target, rest = rest[:1], rest[1:]
        behind, rest = self._options_of(rest, ctx)
        if rest[:1] == ["--"]:
            rest = rest[1:]
        return super().parse_args(ctx, [*ours, *behind, "--", *target, *rest])

    def _options_of(self, args: list[str], ctx: click.Context) -> tuple[list[str], list[str]]:
        """The options that `args` begin with, with their values, and what follows."""
        with_value = {
            name
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.count
            for name in parameter.opts
        }
        count = 0
        while count < len(args) and args[count].startswith("-") and args[count] not in {"-", "--"}:
            if args[count] in with_value and count + 1 == len(args) and not ctx.resilient_parsing:
                raise click.BadOptionUsage(args[count], f"option {args[count]} wants a value", ctx)
            count += 2 if args[count] in with_value else 1
        return args[:count], args[count:]


@click.command(cls=_CommandInside, name="exec", epilog=_EXAMPLES, short_help="Run a command inside a node or pod.")
@click.option("--lab", metavar="LAB", help="Which lab, when several are up.")
@click.argument("target")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
def exec_(lab: str | None, target: str, command: tuple[str, ...]) -> int:
    """Run a command inside a node, a pod (its container, if it has one), a router, `outside` or `underlay`.

    The command takes the place of weavelab: same terminal, same signals, its own exit code. No shell is in between.
    """
    from testbed.deploy.plan import TOOLS_PATH  # noqa: PLC0415
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.machine.interrupts import back_to_default  # noqa: PLC0415
    from testbed.machine.privileges import ENTER, check_machine, refusal  # noqa: PLC0415
    from testbed.machine.space import enter  # noqa: PLC0415

    check_machine(ENTER)
    if not command:
        raise click.UsageError(f"what shall run inside {target}? For example: weavelab exec {target} -- ip address")
    found = Lab.load(lab)
    space = found.space(target)
    if found.topology.kubelet == "containerd" and target in found.pods:
        from testbed.kubelet import pod_exec  # noqa: PLC0415 - gRPC is loaded only by labs that use it

        space = found.nodes[found.pods[target].node].space
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        try:
            command = tuple(pod_exec.terminal_argv(found, found.pods[target], command, terminal=terminal))
        except pod_exec.NoSuchProgramError as error:
            click.echo(f"error: {error.message}", err=True)
            return error.code
    try:
        enter(space)
    except PermissionError as error:
        raise refusal(error) from error
    except OSError as error:
        raise InputError(
            f"{target} cannot be entered: {said_by(error)}", hint="is the lab still whole? `weavelab status` shows it"
        ) from error
    try:
        os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{TOOLS_PATH}"  # `weave` on a node
        back_to_default()
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except FileNotFoundError:
        click.echo(f"error: {target} has no command {command[0]}", err=True)
        return _NOT_FOUND
    except OSError as error:
        click.echo(f"error: {command[0]} cannot be executed in {target}: {said_by(error, path=False)}", err=True)
        return _NOT_EXECUTABLE
