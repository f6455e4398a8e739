"""Ctrl-C and termination signals as exceptions while something is built, and held off while it is taken down.

A command is within one `raised` block from its first to its last line (`testbed.cli.main`), and its exit code is
`EXIT_BASE` plus the signal's number. Code that has something to undo opens a block of its own, to ask when it suits
whether a signal came; of one signal all blocks know. What the caller had ignored stays ignored: `nohup`, and `&` in a
script.
"""

import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

EXIT_BASE: Final = 128
"""Plus the number of the signal that ended a command: its exit code, as shells have it."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MAY_BE_IGNORED: Final = (signal.SIGINT, signal.SIGHUP)
"""What shells and nohup have programs ignore; SIGTERM always ends a command."""

_NUDGE: Final = signal.SIGUSR1
_NUDGES_S: Final = (0.02, 0.2)
"""When, after a signal; the first is enough unless the machine is very busy."""

_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class InterruptedBySignalError(KeyboardInterrupt):
    """The command was asked to end; a KeyboardInterrupt, so that nothing that handles errors swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def number_of(stop: KeyboardInterrupt) -> int:
    """The signal behind it; a plain one is Python's own, of Ctrl-C."""
    return stop.number if isinstance(stop, InterruptedBySignalError) else signal.SIGINT


def in_words(stop: KeyboardInterrupt) -> str:
    """What a person is told of it; of Ctrl-C nobody needs the name."""
    number = number_of(stop)
    return "interrupted" if number == signal.SIGINT else f"interrupted by {signal.Signals(number).name}"


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
        if self._number is None:
            self._number = number
            raise InterruptedBySignalError(number)


_open_blocks: Final[list[Interrupts]] = []
"""What the outermost `raised` block made: one, or none."""


@contextmanager
def raised() -> Iterator[Interrupts]:
    """Within the block the first SIGINT, SIGTERM or SIGHUP raises `InterruptedBySignalError` in the main thread.

    A block within another one is a part of it.
    """
    if _open_blocks:
        yield _open_blocks[0]
        return
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # nobody interrupts it
        return
    with _handlers(interrupts.arrived, but=_ignored()):
        _open_blocks.append(interrupts)
        try:
            yield interrupts
        finally:
            _open_blocks.clear()


@contextmanager
def each_key() -> Iterator[None]:
    """Within the block every Ctrl-C raises a KeyboardInterrupt, not the first only: a prompt goes on after it.

    And no signal waits for the next key, which Python's readline lets happen; see `_nudged`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handlers(signal.default_int_handler, but={*_SIGNALS} - {signal.SIGINT}), _nudged():
        yield


@contextmanager
def _nudged() -> Iterator[None]:
    """Within the block a signal is heard although it came just before the main thread began to wait for keys.

    Python's handlers run when a system call is interrupted; the one that has not begun yet is not, and then waits for a
    key. So a thread is told of every signal (`set_wakeup_fd`) and interrupts what the main thread waits for a moment
    later, with a signal that does nothing.
    """
    told, telling = os.pipe()
    os.set_blocking(telling, False)
    main = threading.main_thread().ident
    assert main is not None, "it runs"

    def nudge() -> None:
        while number := os.read(told, 1):
            for pause_s in _NUDGES_S if number[0] != _NUDGE else ():
                time.sleep(pause_s)
                signal.pthread_kill(main, _NUDGE)

    before = signal.signal(_NUDGE, lambda *_: None)
    wakeup_before = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    thread = threading.Thread(target=nudge, name="nudge", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        os.close(telling)
        thread.join()
        os.close(told)
        signal.signal(_NUDGE, before)


def back_to_default() -> None:
    """Undo what Python did to signals when it started, before this process becomes another program.

    Python ignores SIGPIPE, and an ignored signal stays so across execve(2): `yes` in front of `head` would complain
    instead of ending. Handlers need nothing.
    """
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)


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


def _ignored() -> set[signal.Signals]:
    return {number for number in _MAY_BE_IGNORED if signal.getsignal(number) is signal.SIG_IGN}


@contextmanager
def _handlers(handler: Any, *, but: Collection[signal.Signals] = ()) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    previous = {number: signal.signal(number, handler) for number in _SIGNALS if number not in but}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)
