"""Ctrl-C and termination signals as exceptions while something is built, and held off while it is taken down."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedBySignalError(KeyboardInterrupt):
    """The command was asked to end; a KeyboardInterrupt, so that nothing that handles errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """What arrived within a `raised` block. The first signal counts; later ones find the tear-down at work."""

    def __init__(self) -> None:
        self._number: int | None = None

    def check(self) -> None:
        """Raise again what arrived: an exception that hit some clean-up code may have been swallowed there.

        Raises:
            InterruptedBySignalError: A signal has arrived.
        """
        if self._number is not None:
            raise InterruptedBySignalError(self._number)

    def arrived(self, number: int, _frame: FrameType | None) -> None:
        """The handler."""
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        self._number = number
        raise InterruptedBySignalError(number)


@contextmanager
def raised() -> Iterator[Interrupts]:
    """Within the block the first SIGINT, SIGTERM or SIGHUP raises `InterruptedBySignalError` in the main thread."""
    interrupts = Interrupts()
    with _handlers(interrupts.arrived):
        yield interrupts


@contextmanager
def held_off() -> Iterator[None]:
    """Within the block those signals do nothing: a tear-down that stops half-way helps nobody."""
    with _handlers(signal.SIG_IGN):
        yield


@contextmanager
def postponed() -> Iterator[None]:
    """Within the block those signals wait; the first that came is delivered at its end.

    For short stretches that must be done whole: an interrupted `Thread.start` has started a thread that nobody knows.
    """
    came: list[int] = []
    try:
        with _handlers(lambda number, _frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _handlers(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    previous = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)
