"""How the demo looks: headings, commands with their output, exam boxes, and the key between two steps. 80 columns.

On a terminal with colours; in a pipe the same text without. Commands are shown as a user would type them, and what is
run is that command: the output below it is its output, only long lines are folded and very long ones cut.
"""

import os
import re
import shlex
import subprocess
import sys
import termios
import textwrap
import time
import tty
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from plugin.core.errors import CheckError
from testbed.machine import screen
from testbed.machine.space import kill_group
from testbed.scenario.members import WEAVELAB

COLUMNS: Final = 80
ROWS_PER_LINE_MAX: Final = 3
"""`ip -d link` prints lines of 700 characters, of which the first matter."""

COMMAND_S: Final = 30.0
_EXAM, _RESTAURANT = "In the exam: ", "In the restaurant: "


class DemoError(CheckError):
    """Something that the demo shows is not as it says."""


class EndedByUserError(Exception):
    """The viewer pressed q."""


class Keys(Protocol):
    """What stands between two steps."""

    def wait(self, console: Console) -> None:
        """Return when the next step may come.

        Raises:
            EndedByUserError: The viewer has seen enough.
        """


class Timer:
    """Goes on by itself: for CI and recordings.

    Args:
        pause_s: How long a step stays.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    def wait(self, console: Console) -> None:  # noqa: ARG002 - see Keys
        """See `Keys.wait`."""
        time.sleep(self._pause_s)


class Keyboard:
    """Waits for a key on a terminal: Enter or space goes on, q ends. Ctrl-C stays a signal."""

    def __init__(self, stream: TextIO) -> None:
        self._fd = stream.fileno()

    def wait(self, console: Console) -> None:
        """See `Keys.wait`."""
        console.print(Text("Enter: next step    q: end", style=screen.PROMPT), end="")
        before = termios.tcgetattr(self._fd)
        try:
            tty.setcbreak(self._fd)
            key = self._read()
        finally:
            with suppress(termios.error, OSError):  # the terminal was closed: then there is nothing to restore
                termios.tcsetattr(self._fd, termios.TCSADRAIN, before)
                console.file.write("\r\x1b[K")  # the next heading takes the line of the prompt
                console.file.flush()
        if key in "qQ":
            raise EndedByUserError

    def _read(self) -> str:
        while True:
            try:
                key = os.read(self._fd, 1).decode(errors="replace")
            except OSError:  # EIO: the terminal was closed
                key = ""
            if key in {"", "\x04"}:  # the terminal went away, or Ctrl-D
                return "q"
            if key in "\r\n qQ":
                return key


def keys_for(typed: TextIO, shown: TextIO, *, auto: bool, pause_s: float) -> Keys:
    """Whom to wait for: without a terminal on both sides there is nobody who sees the prompt and could press a key."""
    return Keyboard(typed) if typed.isatty() and shown.isatty() and not auto else Timer(pause_s)


def make_console(stream: TextIO) -> Console:
    """A console of at most 80 columns; without colours in a pipe, and no character is refused."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # a terminal that is not UTF-8 shows '?' for a line instead of ending the demo
    if stream.isatty():
        return Console(file=stream, highlight=False, width=min(COLUMNS, Console(file=stream).width))
    return Console(file=stream, highlight=False, width=COLUMNS, no_color=True, force_terminal=False)


class Stage:
    """What the steps speak through.

    Args:
        console: Where to.
        keys: What stands between two steps.
        restaurant: Whether to tell the restaurant chain as well.
    """

    def __init__(self, console: Console, keys: Keys, *, restaurant: bool) -> None:
        self.console = console
        self._keys = keys
        self._restaurant = restaurant

    def heading(self, number: int, total: int, title: str) -> None:
        """A step begins."""
        self.console.print()
        self.console.rule(Text(f"{number} of {total}  {title}", style=screen.TITLE), align="left")

    def say(self, text: str) -> None:
        """A sentence about what follows."""
        self.console.print(Text(f"\n{textwrap.fill(text, COLUMNS - 1)}"))

    def command(self, text: str) -> None:
        """A command as the user could type it."""
        lines = fold_command(text, COLUMNS - 2)
        self.console.print(Text("$ " + "\n  ".join(lines), style=screen.COMMAND), soft_wrap=True)

    def output(self, text: str, mark: Sequence[str] = ()) -> None:
        """What a command printed; `mark` are the words to look at."""
        rows = [row for line in text.rstrip().splitlines() for row in fold_output(line, COLUMNS - 3)]
        shown = Text("\n".join(f"  {row}".rstrip() for row in rows))
        shown.highlight_regex("|".join(map(re.escape, mark)) or r"(?!)", screen.MARK)
        self.console.print(shown, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """A table, or a frame taken apart."""
        self.console.print()
        self.console.print(what)

    def weavelab(self, *arguments: str, mark: Sequence[str] = (), shown: Sequence[str] = ()) -> str:
        """Show and run a command of weavelab; returns what it printed.

        Args:
            arguments: The command line.
            mark: What to look at in the output.
            shown: What is shown in its place: the same without what goes without saying here.

        Raises:
            DemoError: It failed.
        """
        self.command(f"{WEAVELAB} {shlex.join(shown or arguments)}")
        code, text = run_weavelab(arguments)
        self.output(text, mark)
        if code != 0:
            raise DemoError(
                f"wanted the command above to succeed, found exit code {code}",
                hint="the same command in a second terminal, while the demo runs again, lets you look further",
            )
        return text

    def lesson_end(self, question: str, answers: Sequence[str], restaurant: str) -> None:
        """What an exam would ask here, and the restaurant."""
        if self._restaurant:
            self._aside(_RESTAURANT, restaurant)
        self._aside(_EXAM, question)
        for answer in answers:
            self.console.print(Text(f"  {answer}"), soft_wrap=True)

    def _aside(self, title: str, text: str) -> None:
        shown = Text(f"\n{textwrap.fill(title + text, COLUMNS - 1)}")
        shown.highlight_words([title.strip()], screen.TITLE)
        self.console.print(shown)

    def pause(self) -> None:
        """Between two steps.

        Raises:
            EndedByUserError: The viewer has seen enough.
        """
        self.console.print()
        self._keys.wait(self.console)


def run_weavelab(arguments: Sequence[str]) -> tuple[int, str]:
    """Run weavelab as a process of its own, at most `COMMAND_S`; its exit code and all it printed.

    Its own session keeps the terminal's Ctrl-C away from it: that is for the demo, which then ends both.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "COLUMNS": str(COLUMNS - 2), "LC_ALL": "C.UTF-8", "NO_COLOR": "1"},
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=COMMAND_S)
    except BaseException as error:
        kill_group(process)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        if isinstance(error, subprocess.TimeoutExpired):
            return 124, f"(killed after {COMMAND_S:.0f} s)"
        raise
    return process.returncode, printed.decode(errors="replace")


def fold_command(text: str, width: int) -> list[str]:
    """A command in lines of at most `width`, each but the last ending in a backslash, as a shell accepts it."""
    lines = textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False)
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def fold_output(line: str, width: int) -> list[str]:
    """A line of output in rows of at most `width`; what does not fit into a few rows is cut, and how much is said."""
    line = line.expandtabs().rstrip()
    indent = " " * (len(line) - len(line.lstrip()))
    rows = textwrap.wrap(
        line, width, subsequent_indent=f"{indent}    ", break_on_hyphens=False, drop_whitespace=True
    ) or [""]
    if len(rows) <= ROWS_PER_LINE_MAX:
        return rows
    rest = sum(len(row.strip()) + 1 for row in rows[ROWS_PER_LINE_MAX:]) - 1
    return [*rows[:ROWS_PER_LINE_MAX], f"{indent}    ... and {rest} more characters"]
