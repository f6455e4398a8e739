"""iperf3: one measured transfer between two spaces, and what its JSON says. Never hangs, leaves no process behind.

The server serves one test and ends (`-1`), is bound to the target's address, and is known to listen before the client
starts: its socket is looked up in `/proc/<pid>/net`, because a connection attempt would use up its one test.
"""

import itertools
import json
import time
from pathlib import Path
from subprocess import Popen
from typing import Any, Final, Literal

from msgspec import Struct

from testbed.machine.space import Completed, Space
from testbed.probes.command import Processes, describe_end

PORT_FIRST: Final = 5201
"""iperf3's own port; every run of this process takes the next one, so that a port in TIME_WAIT is never in the way."""

PORTS: Final = 1000
_LISTEN_S: Final = 3.0
_POLL_S: Final = 0.01
_CONNECT_S: Final = 2.0
OVERTIME_S: Final = 5.0
"""What a healthy transfer may take beyond its seconds: connecting, the exchange of results."""

_ports = itertools.count()


class IperfResult(Struct, frozen=True, kw_only=True):
    """One transfer.

    Attributes:
        mbit: Goodput at the receiver in Mbit/s; 0.0 when there was none.
        seconds: How long it was measured.
        retransmits: TCP segments sent again; None for UDP.
        loss_percent: UDP datagrams lost; None for TCP.
        jitter_ms: UDP only.
        error: Why there is no result, as a sentence; empty when there is one.
    """

    mbit: float = 0.0
    seconds: float = 0.0
    retransmits: int | None = None
    loss_percent: float | None = None
    jitter_ms: float | None = None
    error: str = ""


class Transfer(Struct, frozen=True, kw_only=True):
    """What is to be measured: the keys of an `iperf` step."""

    protocol: Literal["tcp", "udp"] = "tcp"
    seconds: int = 1
    streams: int = 1
    rate_mbit: float | None = None


class Measured(Struct, frozen=True, kw_only=True):
    """A result with the client's command line and its raw output, for the report."""

    result: IperfResult
    argv: tuple[str, ...]
    output: str


def server_argv(address: str, port: int) -> list[str]:
    """One test, JSON, bound to the target's address: what reaches another address of the target does not count."""
    return ["iperf3", "-s", "-1", "-J", "-B", address, "-p", str(port)]


def client_argv(address: str, port: int, transfer: Transfer) -> list[str]:
    """The measuring side."""
    argv = ["iperf3", "-c", address, "-p", str(port), "-J", "-t", str(transfer.seconds)]
    argv += ["--connect-timeout", str(int(_CONNECT_S * 1000))]
    if transfer.streams > 1:
        argv += ["-P", str(transfer.streams)]
    if transfer.protocol == "udp":
        argv += ["-u"]
        if transfer.rate_mbit is not None:
            # iperf3 takes the rate per stream; ours is the sum.
            argv += ["-b", f"{round(transfer.rate_mbit * 1_000_000 / transfer.streams)}"]
    return argv


def measure(
    processes: Processes, client: Space, server: Space, address: str, transfer: Transfer, *, timeout_s: float
) -> Measured:
    """Send from `client` to `address`, which lives in `server`; whatever goes wrong is `result.error`.

    Raises:
        StoppedError: The run was stopped (both sides have been killed).
        OSError: A space or iperf3 is absent.
    """
    deadline_s = time.monotonic() + timeout_s
    port = PORT_FIRST + next(_ports) % PORTS
    serving, asking = server_argv(address, port), client_argv(address, port, transfer)
    server_process = processes.start(server, serving)
    try:
        if not _listens(server_process, port, processes):
            ended = processes.finish(server_process, serving, timeout_s=0.0)
            return _without_result(asking, f"the iperf3 server on {address} did not listen: {_server_words(ended)}")
        limit_s = min(transfer.seconds + OVERTIME_S, max(deadline_s - time.monotonic(), 0.1))
        completed = processes.run(client, asking, timeout_s=limit_s)
    finally:
        _end(processes, server_process, serving)
    return Measured(result=parse_iperf(completed), argv=tuple(asking), output=completed.stdout or completed.stderr)


def _listens(process: "Popen[bytes]", port: int, processes: Processes) -> bool:
    deadline_s = time.monotonic() + _LISTEN_S
    while time.monotonic() < deadline_s and process.poll() is None and not processes.stopped:
        if _has_listener(process.pid, port):
            return True
        processes.wait(_POLL_S)
    return False


def _has_listener(pid: int, port: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # it has just ended
        return False
    # columns (proc(5)): sl, local_address as hex "ADDR:PORT", rem_address, state; 0A is LISTEN
    return any(columns[3] == "0A" and columns[1].endswith(f":{port:04X}") for columns in map(str.split, lines))


def _end(processes: Processes, process: "Popen[bytes]", argv: list[str]) -> None:
    # After a good test the server ends by itself; it is not needed for anything else, so nobody waits for it.
    if process.returncode is None:
        processes.finish(process, argv, timeout_s=0.0)


def _server_words(ended: Completed) -> str:
    parsed = _document(ended.stdout)
    return str(parsed.get("error") or ended.stderr.strip() or describe_end(ended))


def _without_result(argv: list[str], error: str) -> Measured:
    return Measured(result=IperfResult(error=error), argv=tuple(argv), output="")


# ------------------------------------------------------------------------------------------------------------- parsing

_SENTENCES: Final = (
    ("Connection refused", "the target refused the connection: no iperf3 server listens there"),
    ("Connection timed out", "no connection: the target did not answer in time"),
    ("No route to host", "no route to the target: no host answered for its address"),
    ("Network is unreachable", "the sender has no route to the target"),
    ("server is busy", "the iperf3 server was busy with another test"),
    ("control socket has closed unexpectedly", "the connection broke during the test"),
)


def parse_iperf(completed: Completed) -> IperfResult:
    """What the client's JSON says; never raises."""
    if completed.timed_out:
        return IperfResult(error=f"iperf3 did not end in {completed.seconds:.1f} s and was killed")
    document = _document(completed.stdout)
    if "error" in document:
        return IperfResult(error=_sentence(str(document["error"])))
    try:
        return _numbers(document["end"])
    except (KeyError, TypeError, ValueError):
        words = completed.stderr.strip() or "its JSON has no result"
        return IperfResult(error=f"iperf3 ended with {describe_end(completed)}: {words}")


def _numbers(end: dict[str, Any]) -> IperfResult:
    received = end["sum_received"]
    if "lost_percent" not in received and "lost_percent" not in end.get("sum", {}):
        return IperfResult(
            mbit=received["bits_per_second"] / 1e6,
            seconds=received["seconds"],
            retransmits=end["sum_sent"].get("retransmits"),
        )
    # UDP: before 3.13 "sum_received" had the sender's rate in some versions; what arrived is rate x (1 - loss).
    total = end["sum"]
    sent_mbit = end.get("sum_sent", total)["bits_per_second"] / 1e6
    return IperfResult(
        mbit=sent_mbit * (1 - total["lost_percent"] / 100),
        seconds=total["seconds"],
        loss_percent=float(total["lost_percent"]),
        jitter_ms=float(total["jitter_ms"]),
    )


def _sentence(error: str) -> str:
    for words, sentence in _SENTENCES:
        if words in error:
            return sentence
    return f"iperf3 says: {error}"


def _document(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def describe_iperf(result: IperfResult) -> str:
    """One clause for people: ``7.78 Gbit/s, 12 retransmits`` or the error."""
    if result.error:
        return result.error
    text = format_rate(result.mbit)
    if result.retransmits is not None:
        text += f", {result.retransmits} retransmit{'' if result.retransmits == 1 else 's'}"
    if result.loss_percent is not None:
        text += f", {result.loss_percent:.3g} % lost"
    if result.jitter_ms is not None:
        text += f", jitter {result.jitter_ms:.2g} ms"
    return text


def format_rate(mbit: float) -> str:
    """``7.78 Gbit/s``, ``49.9 Mbit/s``, ``120 kbit/s``."""
    for unit, size in (("Gbit/s", 1000.0), ("Mbit/s", 1.0)):
        if mbit >= 0.9995 * size:  # what three digits round up to the unit is one of it
            return f"{_three_digits(mbit / size)} {unit}"
    return f"{_three_digits(mbit * 1000)} kbit/s"


def _three_digits(value: float) -> str:
    """Three significant digits, and never an exponent for a large number."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"
