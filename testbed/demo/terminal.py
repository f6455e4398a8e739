"""The terminal of the demo: keys as words, and a screen that is painted page by page.

`Terminal` owns the terminal's settings: it takes them over when it is entered and gives them back when it is left, also
while the demo is stopped (Ctrl-Z) and when the window went away meanwhile. What the keys mean and what is shown is
decided in `testbed.demo.pager`.
"""

import os
import select
import signal
import termios
import tty
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Final, Protocol, Self, TextIO

from rich.console import Console
from rich.text import Text

from testbed.demo.paper import COLUMNS, Lines, heading_of, lines_of
from testbed.machine import screen

RESIZED: Final = "resized"
"""Not a key: the terminal has another size now, or has to be painted again."""

_NEXT, _BACK, _END = "next", "back", "end"
_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys([" ", "\r", "\n", "n", "N", "\x1b[C", "\x1b[B", "\x1b[6~", "\x1bOC", "\x1bOB"], _NEXT),
    **dict.fromkeys(["b", "B", "p", "P", "\x7f", "\x08", "\x1b[D", "\x1b[A", "\x1b[5~", "\x1bOD", "\x1bOA"], _BACK),
    **dict.fromkeys(["q", "Q", "\x04", ""], _END),
    **dict.fromkeys(["a", "A"], "answer"),
    **dict.fromkeys(["?", "h", "H"], "help"),
}
_SEQUENCE_S: Final = 0.05
"""The rest of an arrow key's sequence comes at once; an Escape key alone is followed by nothing."""

_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_ROWS_MIN: Final = 5


class Display(Protocol):
    """Where pages are shown and keys come from."""

    @property
    def columns(self) -> int:
        """How wide a page may be."""

    @property
    def rows(self) -> int:
        """How many lines a page may have."""

    @property
    def console(self) -> Console:
        """What renders for it."""

    def paint(self, heading: str, lines: Lines, prompt: str) -> None:
        """Show a page."""

    def busy(self, heading: str, text: str) -> None:
        """Say what is being done."""

    def forget(self) -> None:
        """Forget keys that were pressed before there was something to see."""

    def key(self) -> str:
        """Wait for a key; its name, the character, or `RESIZED`."""


class Terminal:
    """A display on a terminal, to be used as a context manager.

    On a lively one every page takes the place of the one before it, on a screen of its own, which goes at the end. For
    whom plain lines are wanted they follow each other, a step at a time.

    Args:
        typed: Where keys come from.
        shown: Where to paint.
    """

    def __init__(self, typed: TextIO, shown: TextIO) -> None:
        self._typed, self._shown = typed, shown
        self._fd = typed.fileno()
        self._lively = screen.is_lively(shown)
        self._undo = ExitStack()
        self.console = screen.make_console(shown, width=COLUMNS)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._signals())
            self._take()
            undo.callback(self._give_back)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    @property
    def columns(self) -> int:
        """See `Display.columns`: no more than 80, which sentences are easier to read in than in more."""
        return min(self._size().columns, COLUMNS)

    @property
    def rows(self) -> int:
        """See `Display.rows`: what is left beside heading and prompt; no end where lines follow each other."""
        return max(self._size().lines, _ROWS_MIN) - 2 if self._lively else 10_000

    def paint(self, heading: str, lines: Lines, prompt: str) -> None:
        """See `Display.paint`."""
        columns = self.columns
        above = lines_of(self.console, heading_of(heading), columns)[:1]
        if not self._lively:
            self._write("\n".join(["", *(self._text(line) for line in (*above, *lines)), "", prompt, ""]))
            return
        page = [*above, *lines, *[Text()] * (self.rows - len(lines))][: self.rows + 1]
        shown = [*page, Text(prompt[:columns], style=screen.PROMPT)]
        self._write("\x1b[H" + "\r\n".join(f"\x1b[2K{self._text(line)}" for line in shown) + "\x1b[J")

    def busy(self, heading: str, text: str) -> None:
        """See `Display.busy`."""
        if self._lively:
            self.paint(heading, [], f"working: {text}")

    def forget(self) -> None:
        """See `Display.forget`."""
        with suppress(termios.error):
            termios.tcflush(self._fd, termios.TCIFLUSH)

    def key(self) -> str:
        """See `Display.key`."""
        while True:
            ready, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                return RESIZED
            with suppress(InterruptedError):
                return self._read()

    def _read(self) -> str:
        try:
            pressed = os.read(self._fd, 1).decode(errors="replace")
            while pressed.startswith("\x1b") and len(pressed) < 8 and select.select([self._fd], [], [], _SEQUENCE_S)[0]:
                pressed += os.read(self._fd, 1).decode(errors="replace")
                if (pressed[-1].isalpha() and pressed != "\x1bO") or pressed[-1] == "~":
                    break
        except OSError:  # EIO: the terminal was closed
            pressed = ""
        return _NAMES.get(pressed, pressed)

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._shown.fileno())
        except OSError:
            size = os.terminal_size((0, 0))
        return os.terminal_size((size.columns or COLUMNS, size.lines or 24))  # a serial line does not know its size

    def _text(self, line: Text) -> str:
        self.console.width = max(self.columns, 1)
        with self.console.capture() as caught:
            self.console.print(line, end="", no_wrap=True, overflow="crop", crop=self._lively)
        return caught.get()

    def _write(self, text: str) -> None:
        self._shown.write(text)
        self._shown.flush()

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSADRAIN)
        if self._lively:
            self._write(_ALTERNATE)

    def _give_back(self) -> None:
        with suppress(termios.error, OSError):  # the terminal was closed: then there is nothing to restore
            if self._lively:
                self._write(_NORMAL)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Another size, and Ctrl-Z with its return, wake whoever waits for a key."""
        self._wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def wake(_number: int, _frame: FrameType | None) -> None:
            with suppress(BlockingIOError):
                os.write(waker, b"!")

        def stop(number: int, frame: FrameType | None) -> None:
            self._give_back()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # here the demo stands still until `fg`
            signal.signal(number, stop)
            self._take()
            wake(number, frame)

        handlers: dict[int, Any] = {signal.SIGWINCH: wake, signal.SIGTSTP: stop}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(waker)
