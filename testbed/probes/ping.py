"""Ping: the argument list for iputils, and what its output says. Starts nothing itself.

A ping that fails is a result like any other: unreachable, too long, lost are data here, and the scenario decides what
they mean. Only output that is none of ping's (the program is absent, an option is refused) leaves `sent` at 0.
"""

import re
from typing import Final

from msgspec import Struct

_INTERVAL_S: Final = 0.2
"""Between two requests; iputils lets anybody go down to this."""

_INTERVAL_MIN_S: Final = 0.01

_REPLY_WAIT_S: Final = 1
"""How long the last reply may take: labs have no longer round trips unless a fault makes them."""


class Rtt(Struct, frozen=True, kw_only=True):
    """Round trip times of one ping, in milliseconds."""

    min_ms: float
    avg_ms: float
    max_ms: float
    mdev_ms: float


class PingResult(Struct, frozen=True, kw_only=True):
    """What one ping saw.

    Attributes:
        sent: Requests that left; 0 when ping could not even start.
        received: Requests that were answered (duplicates not counted).
        loss_percent: 0 to 100; 100 when nothing was sent.
        rtt: Round trip times, or None without a reply (or with a payload below 16 bytes, which has no timestamp).
        duplicates: Replies beyond the first to a request.
        errors: Distinct errors in the order they came, in ping's words without addresses of the messengers.
        replies_ms: Round trip of every reply, in order.
    """

    sent: int
    received: int
    loss_percent: float
    rtt: Rtt | None = None
    duplicates: int = 0
    errors: tuple[str, ...] = ()
    replies_ms: tuple[float, ...] = ()


def ping_argv(
    address: str,
    *,
    count: int,
    size: int = 56,
    df: bool = False,
    pattern: bytes = b"",
    interval_s: float = _INTERVAL_S,
) -> list[str]:
    """The command line: numeric, `size` bytes of payload filled with `pattern` (at most 16 bytes)."""
    assert len(pattern) <= 16, "iputils takes at most 16 pattern bytes"
    argv = ["ping", "-n", "-c", str(count), "-i", f"{interval_s:g}", "-W", str(_REPLY_WAIT_S), "-s", str(size)]
    if df:
        argv += ["-M", "do"]
    if pattern:
        argv += ["-p", pattern.hex()]
    return [*argv, address]


def interval_within(count: int, *, within_s: float) -> float:
    """The interval that lets `count` requests leave in half of `within_s`; `_INTERVAL_S` when that is time enough."""
    return min(_INTERVAL_S, max(within_s / (2 * count), _INTERVAL_MIN_S))


_REPLY: Final = re.compile(r"^\d+ bytes from \S+ icmp_seq=(?P<seq>\d+)[^\n]*?(?P<dup> \(DUP!\))?$", re.MULTILINE)
_TIME: Final = re.compile(r"time=(?P<ms>[\d.]+) ms")
_FROM: Final = re.compile(r"^From \S+ icmp_seq=\d+ (?P<what>.+)$", re.MULTILINE)
_OWN: Final = re.compile(r"^ping: (?:local error: |connect: |sendmsg: )?(?P<what>.+)$", re.MULTILINE)
_WRONG: Final = re.compile(r"^wrong data byte .*$", re.MULTILINE)
_SUMMARY: Final = re.compile(r"^(?P<sent>\d+) packets transmitted, (?P<received>\d+) received", re.MULTILINE)
_RTT: Final = re.compile(r"^rtt min/avg/max/mdev = ([\d.]+)/([\d.]+)/([\d.]+)/([\d.]+) ms", re.MULTILINE)


def parse_ping(stdout: str, stderr: str = "", *, requested: int) -> PingResult:
    """What the output of one ping says.

    Args:
        stdout: Its output, complete or cut off by a kill.
        stderr: Its error output.
        requested: The count it was started with: what a killed ping is taken to have sent.
    """
    replies = list(_REPLY.finditer(stdout))
    answered = {reply["seq"] for reply in replies}
    summary = _SUMMARY.search(stdout)
    if summary:
        sent, received = int(summary["sent"]), int(summary["received"])
    elif stdout.startswith(("PING ", "PATTERN")):
        sent, received = requested, len(answered)  # killed before its statistics
    else:
        sent, received = 0, 0
    rtt = _RTT.search(stdout)
    return PingResult(
        sent=sent,
        received=received,
        loss_percent=round(100.0 * (sent - received) / sent, 1) if sent else 100.0,
        rtt=None if rtt is None else Rtt(**dict(zip(Rtt.__struct_fields__, map(float, rtt.groups()), strict=True))),
        duplicates=sum(1 for reply in replies if reply["dup"]),
        errors=_errors(stdout, stderr),
        replies_ms=tuple(float(found["ms"]) for reply in replies if (found := _TIME.search(reply[0]))),
    )


def _errors(stdout: str, stderr: str) -> tuple[str, ...]:
    found = [match["what"].strip() for match in _FROM.finditer(stdout)]
    found += [match[0] for match in _WRONG.finditer(stdout)][:1]
    found += [match["what"].strip() for match in _OWN.finditer(stderr)]
    return tuple(dict.fromkeys(found))


def describe_ping(result: PingResult) -> str:
    """For people: ``3 of 3 answered, 0.06 ms on average`` or ``0 of 3 answered: Destination Host Unreachable``."""
    if result.sent == 0:
        return "nothing was sent" + (f": {'; '.join(result.errors)}" if result.errors else "")
    text = f"{result.received} of {result.sent} answered"
    if result.rtt is not None:
        text += f", {format_ms(result.rtt.avg_ms)} on average"
    if result.duplicates:
        text += f", {result.duplicates} answered twice"
    if result.errors:
        text += f": {'; '.join(result.errors)}"
    return text


def format_ms(value: float) -> str:
    """Milliseconds with three significant digits: ``0.063 ms``, ``12.3 ms``."""
    return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"
