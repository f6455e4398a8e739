"""The logs of a lab's nodes: lines of several files as entries in the order of their time, once or as they come.

A file may be renamed, replaced or cut short while it is followed (a rotation, an agent that starts anew): what was in
it is read to its end, then the new one from its beginning. Files are read, never changed or locked.
"""

import heapq
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, Self

from testbed.lab.running import Lab

Program = Literal["agent", "containerd"]

_LEVELS: Final = ("debug", "info", "warning", "error")
_RANKS: Final = {level: rank for rank, level in enumerate(_LEVELS)} | {"warn": 2, "fatal": 3, "panic": 3, "critical": 3}

_CHUNK_BYTES: Final = 1 << 16
_LINE_BYTES_MAX: Final = 1 << 20
"""A longer line is shown in pieces."""

_LOGFMT: Final = re.compile(r'([\w.]+)=("(?:\\.|[^"\\])*"|\S*)')


@dataclass(frozen=True, slots=True)
class Source:
    """A log file: of which node, of which program on it."""

    node: str
    program: Program
    path: Path


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log.

    Attributes:
        node: On which node.
        program: Of which program.
        time: When, as the program wrote it; empty for a line that is no log line (the traceback of a crash).
        time_s: The same in seconds since 1970; for a line without a time that of the line before it.
        level: As the program wrote it; empty without one.
        event: What happened; of a line that is no log line the line itself.
        fields: What the line says beside these.
    """

    node: str
    program: Program
    time: str
    time_s: float
    level: str
    event: str
    fields: dict[str, object] = field(default_factory=dict)

    def matters(self, level: str) -> bool:
        """Whether it is of this level or above; what has no level was not expected, and always matters."""
        return self.level not in _RANKS or _RANKS[self.level] >= _RANKS[level]


def sources(lab: Lab, nodes: Iterable[str], programs: Sequence[Program]) -> tuple[Source, ...]:
    """The log files of these nodes of a lab."""
    paths = {"agent": lab.paths.node_log, "containerd": lab.paths.node_runtime_log}
    return tuple(Source(node, program, paths[program](node)) for node in nodes for program in programs)


class Logs:
    """Several logs as one; a context manager, which lets go of the files at its end.

    Args:
        files: The logs.
        wanted: Which entries; all others are passed over.
    """

    def __init__(self, files: Iterable[Source], wanted: Callable[[Entry], bool]) -> None:
        self._tails = [_Tail(source) for source in files]
        self._wanted = wanted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for tail in self._tails:
            tail.close()

    def last(self, count: int | None = None, *, final: bool = True) -> Iterator[Entry]:
        """What is there now, in the order of time: all, or the last `count` entries of each file.

        Args:
            count: How many of each file.
            final: Nothing more will be asked for: also a last line that has not ended yet.
        """
        chosen = [filter(self._wanted, tail.entries(final=final)) for tail in self._tails]
        return _merged(chosen if count is None else [iter(deque(entries, maxlen=count)) for entries in chosen])

    def new(self, *, final: bool = False) -> Iterator[Entry]:
        """What has come since the last call, in the order of time."""
        return self.last(final=final)


def _merged(entries: Iterable[Iterator[Entry]]) -> Iterator[Entry]:
    return heapq.merge(*entries, key=lambda entry: entry.time_s)


class _Tail:
    """Reads one file as it grows."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._file: BinaryIO | None = None
        self._rest = b""
        self._time_s = 0.0

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def entries(self, *, final: bool) -> Iterator[Entry]:
        """The entries that were not there the last time."""
        for line in self._lines(final=final):
            text = line.decode(errors="replace").rstrip("\r\n")
            if text:
                entry = parse(self._source, text, self._time_s)
                self._time_s = max(self._time_s, entry.time_s)
                yield entry

    def _lines(self, *, final: bool) -> Iterator[bytes]:
        if self._file is None:
            self._open()
        while self._file is not None:
            yield from self._whole_lines(self._file)
            before = self._file
            if not self._turn(before):
                break
            if self._file is not before and self._rest:  # the old one ended in the middle of a line
                yield self._rest
                self._rest = b""
        if final and self._rest:
            yield self._rest
            self._rest = b""

    def _whole_lines(self, file: BinaryIO) -> Iterator[bytes]:
        while part := file.read(_CHUNK_BYTES):
            *whole, self._rest = (self._rest + part).split(b"\n")
            yield from whole
            if len(self._rest) > _LINE_BYTES_MAX:
                yield self._rest
                self._rest = b""

    def _turn(self, file: BinaryIO) -> bool:
        """Go on with the file that has taken the place of this one, or from its beginning when it was cut short."""
        try:
            there = self._source.path.stat()
        except OSError:
            return False  # renamed, and its successor is not there yet; or the lab is going
        if not os.path.samestat(there, os.fstat(file.fileno())):
            if file.read(1):  # written between our last look and the renaming
                file.seek(-1, os.SEEK_CUR)
                return True
            self.close()
            self._open()
            return self._file is not None
        if there.st_size < file.tell():
            file.seek(0)
            self._rest = b""
            return True
        return False

    def _open(self) -> None:
        try:
            self._file = self._source.path.open("rb")
        except OSError:
            self._file = None  # the program has not written anything yet


def parse(source: Source, line: str, before_s: float) -> Entry:
    """A line of a program's log; `before_s` is the time of the line before it."""
    values = _json(line) or _logfmt(line)
    time = str(values.pop("time", ""))
    try:
        time_s = datetime.fromisoformat(time).timestamp()
    except ValueError:
        return Entry(source.node, source.program, "", before_s, "", line)
    event = str(values.pop("event", values.pop("msg", "")))
    level = str(values.pop("level", ""))
    return Entry(source.node, source.program, time, max(time_s, before_s), level, event, values)


def _json(line: str) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _logfmt(line: str) -> dict[str, object]:
    """As containerd writes: `time="..." level=info msg="..." key=value`."""
    if not line.startswith("time="):
        return {}
    return {name: _json_text(value) for name, value in _LOGFMT.findall(line)}


def _json_text(value: str) -> object:
    if not value.startswith('"'):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
