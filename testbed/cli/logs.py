"""`weavelab logs`: what the agents of a lab write, all in one, in the order of time."""

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from plugin.core.errors import InputError
from testbed.lab.listing import plain
from testbed.machine.screen import BAD, TITLE, is_lively, make_console
from testbed.nearest import hint

if TYPE_CHECKING:
    from testbed.lab.logs import Entry, Logs
    from testbed.lab.running import Lab

_EXAMPLES: Final = """
\b
Examples:
  weavelab logs                            all nodes, in the order of time
  weavelab logs node1 node2 -n 5           the last 5 lines of each
  weavelab logs -f                         go on with what comes, until Ctrl-C
  weavelab logs --level warning --since 10m
  weavelab logs --runtime node1            containerd's log, in labs that have one
  weavelab logs --format json | grep '"event": "peer changed"'
"""

_LEVELS: Final = ("debug", "info", "warning", "error")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STYLES: Final = {"warning": TITLE, "warn": TITLE, "error": BAD, "fatal": BAD, "panic": BAD}
_LOOK_EVERY_S: Final = 0.1
_LAB_LOOKED_AT_EVERY: Final = 5


@click.command(epilog=_EXAMPLES, short_help="Show the logs of the agents.")
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.option("--lab", metavar="LAB", help="Which lab, when several are up.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, across restarts.")
@click.option("-n", "--lines", metavar="LINES", type=click.IntRange(min=0), help="Only the last lines of each log.")
@click.option(
    "--since", metavar="TIME", help="Only what is newer than 30s, 5m, 2h, 1d, or a time such as 2026-11-28T12:18:17Z."
)
@click.option(
    "--level", type=click.Choice(_LEVELS), default="debug", show_default=True, help="Only this level and above."
)
@click.option("--runtime", is_flag=True, help="The log of the node's containerd, instead of its agent's.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people or programs: an object a line.",
)
def logs(
    *,
    nodes: tuple[str, ...],
    lab: str | None,
    follow: bool,
    lines: int | None,
    since: str | None,
    level: str,
    runtime: bool,
    output: str,
) -> None:
    """Show what the agents of one, several or all nodes have written, in the order of time.

    Each line begins with its node. A line that is no log line, such as of a crash, is shown whatever the level.
    """
    from testbed.lab.logs import Logs, sources  # noqa: PLC0415 - `--help` does not wait for it
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.machine.privileges import LOOK, check_machine  # noqa: PLC0415

    since_s = 0.0 if since is None else since_of(since, time.time())
    check_machine(LOOK)
    running = Lab.load(lab)
    chosen = _chosen(running, nodes)
    if runtime and running.topology.kubelet != "containerd":
        raise InputError(
            f"lab {running.name} has no containerd: its kubelet is {running.topology.kubelet}",
            hint="weavelab up --kubelet containerd",
        )
    files = sources(running, chosen, ["containerd" if runtime else "agent"])
    width = max(map(len, chosen))
    with Logs(files, lambda entry: entry.time_s >= since_s and entry.matters(level)) as found:
        _show(found.last(lines, final=not follow), output, width)
        if follow:
            _follow(running, found, output, width)


def _follow(lab: "Lab", found: "Logs", output: str, width: int) -> None:
    """Show what comes, until the lab goes away."""
    for number in itertools.count(1):
        gone = number % _LAB_LOOKED_AT_EVERY == 0 and lab.now() is None
        _show(found.new(final=gone), output, width)
        if gone:
            break
        time.sleep(_LOOK_EVERY_S)
    click.echo(f"lab {lab.name} went down: nothing more will be written", err=True)


def since_of(text: str, now_s: float) -> float:
    """From when on, in seconds since 1970, by a duration before now or a time.

    Raises:
        UsageError: It is neither.
    """
    duration = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if duration is not None:
        return now_s - float(duration[1]) * _UNITS[duration[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.UsageError(
            f"--since wants a duration such as 30s, 5m, 2h, 1d, or a time such as 2026-11-28T12:18:17Z, found {text!r}"
        ) from None


def _chosen(lab: "Lab", nodes: tuple[str, ...]) -> tuple[str, ...]:
    for name in nodes:
        if name in lab.pods:
            node = lab.pods[name].node
            raise InputError(
                f"{name} is a pod, and only nodes have agents that write a log",
                hint=f"weavelab logs {node} is of its node",
            )
        if name not in lab.nodes:
            raise InputError(
                f"lab {lab.name} has no node named {name}", hint=hint(name, lab.nodes, there_is="its nodes:")
            )
    return tuple(dict.fromkeys(nodes)) or tuple(lab.nodes)


def _show(entries: Iterable["Entry"], output: str, width: int) -> None:
    tell = _teller()
    for entry in entries:
        if output == "json":
            stated = {"time": entry.time, "level": entry.level, "event": entry.event, "fields": entry.fields}
            said = stated if entry.time else {"text": entry.event}
            click.echo(json.dumps({"node": entry.node, "program": entry.program, **said}))
            continue
        prefix = f"{entry.node:<{width}} | "
        for line in text_of(entry).splitlines():
            tell(prefix, line, _STYLES.get(entry.level, ""))
    sys.stdout.flush()


def _teller() -> Callable[[str, str, str], None]:
    """Who shows a line behind its prefix: in style on a terminal, else plain."""
    if not is_lively(sys.stdout):
        return lambda prefix, line, _style: click.echo(f"{prefix}{line}".rstrip())
    from rich.text import Text  # noqa: PLC0415 - 60 ms that only a terminal pays

    console = make_console(sys.stdout)
    return lambda prefix, line, style: console.print(Text.assemble(prefix, (line, style)), soft_wrap=True)


def text_of(entry: "Entry") -> str:
    """The entry for people: the time of day here, level, event, fields; an exception's lines below it."""
    if not entry.time:
        return plain(entry.event)
    then = datetime.fromtimestamp(entry.time_s).astimezone()
    today = datetime.now(then.tzinfo).date() == then.date()
    stamp = f"{then:%H:%M:%S}" if today else f"{then:%Y-%m-%d %H:%M:%S}"
    words = [f"{stamp}.{then.microsecond // 1000:03d}", f"{entry.level:<7}", plain(entry.event)]
    trace = str(entry.fields.get("exception", ""))
    words += [f"{name}={_value(value)}" for name, value in entry.fields.items() if name != "exception"]
    return "\n".join([" ".join(words), *(f"  {plain(line)}" for line in trace.splitlines())])


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if re.fullmatch(r"[^\s\"=\\]+", text) and text.isprintable() else json.dumps(text)
