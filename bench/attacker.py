"""Somebody who can reach port 6783 and does not know the password: `python -m bench.attacker KIND TARGET SECONDS`.

It takes all of one processor and prints how often it has done what it does. KIND is one of ATTACKS; `--tag`
is what it has seen on the underlay at the beginning of datagrams, in hex; `--from` are addresses of its own.
"""

import argparse
import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from plugin.core.messages.kinds import Kind
from plugin.core.messages.wire import FRAME_BYTES_MAX, LENGTH, Head, sealed

PORT: Final = 6783
HELD_MAX: Final = 400


def datagrams(target: str, sources: list[str], payload: Callable[[int], bytes]) -> Iterator[None]:
    """Datagrams from all its addresses in turn, as fast as they go."""
    sockets = []
    for source in sources:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((source, PORT))
        made.connect((target, PORT))
        sockets.append(made)
    for number in itertools.count():
        with contextlib.suppress(OSError):  # a full queue of its own
            sockets[number % len(sockets)].send(payload(number))
        yield


def rubbish(target: str, sources: list[str], _tag: bytes) -> Iterator[None]:
    """What is no message at all."""
    data = os.urandom(400)
    yield from datagrams(target, sources, lambda _number: data)


def forged(target: str, sources: list[str], tag: bytes) -> Iterator[None]:
    """Messages in form, each from another sender, sealed with a guess."""

    def payload(number: int) -> bytes:
        return sealed(Head(Kind.PING, b"mark", tag, number.to_bytes(8, "big"), 1, b""), bytes(300), b"guess")

    yield from datagrams(target, sources, payload)


def calls(target: str, sources: list[str], data: bytes, held_max: int) -> Iterator[None]:
    """Connections that say `data` and then nothing, so many of them at a time."""
    held: list[socket.socket] = []
    for number in itertools.count():
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.bind((sources[number % len(sources)], 0))
            made.settimeout(1.0)
            made.connect((target, PORT))
            if data:
                made.sendall(data)
            held.append(made)
        except OSError:
            made.close()
        if len(held) >= held_max:
            held.pop(0).close()
        yield


def connects(target: str, sources: list[str], _tag: bytes) -> Iterator[None]:
    """Come and go."""
    yield from calls(target, sources, b"", 1)


def silent(target: str, sources: list[str], _tag: bytes) -> Iterator[None]:
    """Come and stay, with one byte."""
    yield from calls(target, sources, b"\0", HELD_MAX)


def long(target: str, sources: list[str], _tag: bytes) -> Iterator[None]:
    """Announce the longest request there is, and send as much of it as is taken."""
    head = Head(Kind.SYNC, b"mark", b"none", b"somebody", 1, b"")
    data = LENGTH.pack(FRAME_BYTES_MAX) + sealed(head, bytes(1 << 20), b"guess")
    yield from calls(target, sources, data, 1)


def short(target: str, sources: list[str], _tag: bytes) -> Iterator[None]:
    """Whole requests, sealed with a guess."""
    data = sealed(Head(Kind.SYNC, b"mark", b"none", b"somebody", 1, b""), bytes(60_000), b"guess")
    yield from calls(target, sources, LENGTH.pack(len(data)) + data, 64)


ATTACKS: Final = {
    "rubbish": rubbish, "forged": forged, "listened": forged, "connects": connects, "silent": silent, "long": long,
    "short": short,
}  # fmt: skip


def main() -> int:
    """Attack, and say how often."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("target")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--tag", default="00000000")
    parser.add_argument("--from", dest="sources", nargs="+", default=["0.0.0.0"])  # noqa: S104 - any
    options = parser.parse_args()
    until_s, count = time.monotonic() + options.seconds, 0
    for _ in ATTACKS[options.kind](options.target, options.sources, bytes.fromhex(options.tag)):
        count += 1
        if count % 16 == 0 and time.monotonic() > until_s:
            break
    sys.stdout.write(f"{count}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
