"""Tells a person how far a long command is: a bar on a terminal, plain lines in a pipe, nothing when not wanted.

Everything goes to standard error, so that standard output holds results only.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from testbed.machine.printable import printable
from testbed.machine.screen import is_lively, make_console


class Progress(Protocol):
    """What long commands report to. Phases follow each other; each may be counted."""

    def phase(self, title: str, total: int = 0) -> None:
        """A new phase begins (the one before it is done); `total` steps, 0 when it is not counted."""

    def advance_to(self, count: int) -> None:
        """So many steps of the phase are done."""

    def note(self, text: str) -> None:
        """A remark that stays to be read."""


class Silent:
    """For callers that show nothing."""

    def phase(self, title: str, total: int = 0) -> None:
        """Nothing."""

    def advance_to(self, count: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Lines:
    """One line a phase when it is done, with its duration: for pipes and logs.

    Args:
        write: Who takes the lines; standard error when None.
    """

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write or _write_to_standard_error
        self._title = ""
        self._total = 0
        self._since_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(failed=kind is not None)

    def phase(self, title: str, total: int = 0) -> None:
        """See `Progress.phase`."""
        self._finish()
        self._title, self._total, self._since_s = title, total, time.monotonic()

    def advance_to(self, count: int) -> None:
        """Not shown."""

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._write(f"{printable(text)}\n")

    def _finish(self, *, failed: bool = False) -> None:
        if self._title:
            count = f" ({self._total})" if self._total else ""
            outcome = "failed after" if failed else "done in"
            self.note(f"{self._title}{count}: {outcome} {time.monotonic() - self._since_s:.2f} s")
        self._title = ""


class Bar:
    """A live bar of the phase at hand: for terminals."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - 60 ms
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        self._rich: Any = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=make_console(sys.stderr),
            transient=True,
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rich.stop()

    def phase(self, title: str, total: int = 0) -> None:
        """See `Progress.phase`."""
        if self._task is not None:
            self._rich.remove_task(self._task)
        self._task = self._rich.add_task(title, total=total or None)

    def advance_to(self, count: int) -> None:
        """See `Progress.advance_to`."""
        if self._task is not None:
            self._rich.update(self._task, completed=count)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._rich.console.print(printable(text), highlight=False)


def _write_to_standard_error(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def for_terminal() -> Bar | Lines:
    """A bar when standard error may be drawn on, lines otherwise. Use it as a context manager."""
    return Bar() if is_lively(sys.stderr) else Lines()
