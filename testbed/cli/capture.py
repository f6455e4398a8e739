"""`weavelab capture`: the frames that pass interfaces of a lab, one line each by who speaks, or as a file."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from plugin.core.errors import InputError, said_by

if TYPE_CHECKING:
    from testbed.lab.running import Lab
    from testbed.probes.capture import Capture, CapturedFrame
    from testbed.probes.frame_line import Names, Wanted

_EXAMPLES: Final = """
\b
Examples:
  weavelab capture node1                      what passes its uplink, until Ctrl-C
  weavelab capture node1 node2 --vxlan        envelopes only, on both nodes
  weavelab capture red --icmp -c 2 -v         two frames with every header
  weavelab capture node1:weave --host red     another interface; what red sends and gets
  weavelab capture node1 --for 10 -w node1.pcap
  weavelab capture node1 -w - | wireshark -k -i -
"""

_WAIT_S: Final = 0.2
_LAB_LOOKED_AT_EVERY_S: Final = 0.5
_SNAP_BYTES: Final = 1 << 18
"""Whole frames, also those that the kernel has not cut into MTU-sized ones yet."""


@click.command(epilog=_EXAMPLES, short_help="Show the frames that pass an interface.")
@click.argument("targets", metavar="TARGET[:INTERFACE]...", nargs=-1, required=True)
@click.option("--lab", metavar="LAB", help="Which lab, when several are up.")
@click.option(
    "-w",
    "--write",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a pcap file instead; - is standard output.",
)
@click.option("-c", "--count", metavar="COUNT", type=click.IntRange(min=1), help="End after so many frames.")
@click.option(
    "--for",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End after so many seconds.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show every header with all its fields below each line.")
@click.option(
    "--icmp", is_flag=True, help="Pings and what else is ICMP. Of --icmp, --arp, --tcp, --udp one has to fit."
)
@click.option("--arp", is_flag=True, help="Questions and answers of ARP.")
@click.option("--tcp", is_flag=True, help="TCP.")
@click.option("--udp", is_flag=True, help="UDP, beside envelopes.")
@click.option("--vxlan", is_flag=True, help="Only what travels in an envelope.")
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Who takes part: a member or an address. Twice: between both.",
)
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    multiple=True,
    help="TCP or UDP port; may be repeated.",
)
def capture(
    *,
    targets: tuple[str, ...],
    lab: str | None,
    write: Path | None,
    count: int | None,
    seconds: float | None,
    verbose: bool,
    hosts: tuple[str, ...],
    ports: tuple[int, ...],
    **conditions: bool,
) -> None:
    """Show frames as they pass interfaces of nodes, pods, routers, `outside` or `underlay`; ends by Ctrl-C.

    Without an interface it is the member's uplink, of a pod its eth0. A line has the time, the place, the direction,
    who sends to whom and, of a packet in an envelope, from which node to which. Conditions on what a packet is look at
    what a pod has sent, inside the envelope.
    """
    from testbed.lab.running import Lab  # noqa: PLC0415 - `--help` does not wait for it
    from testbed.machine import interrupts  # noqa: PLC0415
    from testbed.machine.privileges import CAPTURE, check_machine  # noqa: PLC0415
    from testbed.probes import capture as probe  # noqa: PLC0415
    from testbed.probes.frame_line import KINDS, Wanted  # noqa: PLC0415
    from testbed.probes.places import addresses_of, names_of, taps_of  # noqa: PLC0415

    check_machine(CAPTURE)
    running = Lab.load(lab)
    taps = taps_of(running, targets)
    names = names_of(running)
    wanted = Wanted(
        kinds=frozenset(kind for kind in KINDS if conditions[kind]),
        vxlan=conditions["vxlan"],
        hosts=tuple(addresses_of(running, host, names) for host in hosts),
        ports=frozenset(ports),
    )
    with ExitStack() as stack:
        file = None if write is None else stack.enter_context(_pcap(write))
        stack.enter_context(interrupts.raised())
        session = stack.enter_context(probe.capture(taps, snap_bytes=_SNAP_BYTES))
        shown = _Shown(running, session, wanted, names, file, verbose=verbose)
        try:
            click.echo(
                f"capturing on {', '.join(f'{tap.label} {tap.ifname}' for tap in taps)}; Ctrl-C ends it", err=True
            )
            shown.run(count=count, seconds=seconds)
        finally:
            click.echo(shown.summary(write), err=True)


class _Shown:
    """One capture: what it takes, where it puts that, how much it was."""

    def __init__(
        self, lab: "Lab", session: "Capture", wanted: "Wanted", names: "Names", file: BinaryIO | None, *, verbose: bool
    ) -> None:
        self._lab = lab
        self._session = session
        self._wanted = wanted
        self._names = names
        self._file = file
        self._verbose = verbose
        self._count = 0

    def run(self, *, count: int | None, seconds: float | None) -> None:
        """Show frames until there are enough, the time is over, or there is nothing left to listen on."""
        until_s = None if seconds is None else time.monotonic() + seconds
        looked_s = time.monotonic()
        ended = ""
        while not ended:
            now_s = time.monotonic()
            if until_s is not None and now_s >= until_s:
                ended = "time"
            elif now_s - looked_s >= _LAB_LOOKED_AT_EVERY_S:
                looked_s = now_s
                ended = self._over()
            # What has passed before the end is shown: so the last look comes after the decision.
            wait_s = 0.0 if ended else _WAIT_S if until_s is None else min(_WAIT_S, until_s - now_s)
            fitting = [frame for frame in self._session.take(within_s=wait_s) if self._wanted.takes(frame.packet)]
            if count is not None and self._count + len(fitting) >= count:
                fitting, ended = fitting[: count - self._count], "count"
            self._show(fitting)
        if ended not in {"time", "count"}:
            click.echo(ended, err=True)

    def summary(self, path: Path | None) -> str:
        """How many frames there were, where they are, and how many are missing."""
        text = f"{self._count} frame{'' if self._count == 1 else 's'}"
        if path is not None and str(path) != "-":
            text += f" in {path}"
        lost = self._session.lost - len(self._session.gone)
        return f"{text}; {lost} more passed too fast to be kept" if lost else text

    def _over(self) -> str:
        """Why nothing more can come; empty when something can. Pods that came meanwhile get their names."""
        now = self._lab.now()
        if now is None:
            return f"lab {self._lab.name} went down"
        if now.state.pods != self._lab.state.pods:
            from testbed.probes.places import names_of  # noqa: PLC0415

            self._names = names_of(now)
        self._lab = now
        gone = self._session.gone
        return "every interface that was listened on is gone" if len(gone) == len(self._session.taps) else ""

    def _show(self, frames: "list[CapturedFrame]") -> None:
        self._count += len(frames)
        if self._file is not None:
            from testbed.probes.pcap import append_pcap  # noqa: PLC0415

            append_pcap(self._file, frames)
            self._file.flush()
            return
        for frame in frames:
            click.echo(self._line(frame))
            if self._verbose:
                from testbed.probes.packet_view import render  # noqa: PLC0415 - rich takes 60 ms

                click.echo(f"{render(frame.packet, fields=True).plain}\n")
        sys.stdout.flush()

    def _line(self, frame: "CapturedFrame") -> str:
        from testbed.probes.frame_line import frame_line  # noqa: PLC0415

        then = datetime.fromtimestamp(frame.time_s).astimezone()
        place = f"{frame.tap} {frame.ifname} {frame.direction}"
        return f"{then:%H:%M:%S.%f} {place}: {frame_line(frame.packet, self._names)}, {frame.wire_bytes} bytes"


@contextmanager
def _pcap(path: Path) -> Iterator[BinaryIO]:
    """The file that frames are written to; it belongs to who asked for it."""
    from testbed.machine.files import give_back  # noqa: PLC0415
    from testbed.probes.pcap import begin_pcap, is_pcap  # noqa: PLC0415

    if str(path) == "-":
        if sys.stdout.isatty():
            raise InputError(
                "wanted a pipe or a file for captured frames, found a terminal", hint="... -w - | wireshark -k -i -"
            )
        begin_pcap(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        yield sys.stdout.buffer
        return
    try:
        if path.is_file() and path.stat().st_size and not is_pcap(path):
            raise InputError(f"{path} is there and is no file of captured frames", hint="name another file")
        opened = path.open("wb")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {said_by(error, path=False)}",
            hint="name a file in a folder that exists and has room",
        ) from error
    with opened:
        give_back(path)
        begin_pcap(opened)
        opened.flush()
        yield opened
