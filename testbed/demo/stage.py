"""What the steps of the demo speak through: sentences, commands with their output, tables, the exam question.

Commands are shown as a user would type them, and what is run is that command: the output below it is its output, only
long lines are folded and very long ones cut. Who shows it (all of it at once, or page by page) is `testbed.demo.play`'s
matter: it is told of each block as it comes.
"""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from plugin.core.errors import CheckError
from testbed.demo.paper import COLUMNS, Block, Sheet
from testbed.machine import screen
from testbed.machine.space import kill_group
from testbed.scenario.members import WEAVELAB

ROWS_PER_LINE_MAX: Final = 3
"""`ip -d link` prints lines of 700 characters, of which the first matter."""

_COMMAND_S: Final = 30.0
_EXAM, _RESTAURANT = "In the exam: ", "In the restaurant: "


class DemoError(CheckError):
    """Something that the demo shows is not as it says."""


class Stage:
    """What the steps speak through.

    Args:
        restaurant: Whether to tell the restaurant chain as well.
    """

    def __init__(self, *, restaurant: bool) -> None:
        self._restaurant = restaurant
        self._told: Callable[[Block], None] = lambda _block: None
        self._sheet = Sheet(name="", heading="")

    def tell(self, told: Callable[[Block], None]) -> None:
        """From now on `told` is called with every block as it comes."""
        self._told = told

    def begin(self, sheet: Sheet) -> None:
        """A step begins: what is said from now on stands on this sheet."""
        self._sheet = sheet

    def say(self, text: str) -> None:
        """A sentence about what follows."""
        self._add(Block(Text(text), opens=True, gap=True))

    def label(self, text: str) -> None:
        """What the next output is."""
        self._add(Block(Text(text, style=screen.TITLE), opens=True, gap=True))

    def command(self, text: str) -> None:
        """A command as the user could type it."""
        self._add(Block(_Command(text), command=text))

    def output(self, text: str, mark: Sequence[str] = (), *, rows_max: int = 10_000) -> None:
        """What a command printed, or its first rows; `mark` are the words to look at."""
        lines = text.rstrip().splitlines()
        if not lines:
            return
        more = [f"... {len(lines) - rows_max} more lines"] if len(lines) > rows_max else []
        self._add(Block(_Output([*lines[:rows_max], *more], mark)))

    def show(self, what: RenderableType) -> None:
        """A table, or a frame taken apart."""
        self._add(Block(what, gap=True))

    def weavelab(
        self,
        *arguments: str,
        mark: Sequence[str] = (),
        shown: Sequence[str] = (),
        code: int = 0,
        rows_max: int = 10_000,
    ) -> str:
        """Show and run a command of weavelab; returns what it printed.

        Args:
            arguments: The command line.
            mark: What to look at in the output.
            shown: What is shown in its place: the same without what goes without saying here.
            code: The exit code that it should have.
            rows_max: Of a long output so many rows are shown.

        Raises:
            DemoError: It ended otherwise.
        """
        self.command(f"{WEAVELAB} {shlex.join(shown or arguments)}")
        found, text = run_weavelab(arguments)
        self.output(text, mark, rows_max=rows_max)
        if found != 0:
            self.output(f"(exit code {found})")
        if found != code:
            wanted = "to succeed" if code == 0 else f"to end with exit code {code}"
            raise DemoError(
                f"wanted the command above {wanted}, found exit code {found}",
                hint="the same command in a second terminal, while the demo runs again, lets you look further",
            )
        return text

    def lesson_end(self, question: str, answers: Sequence[str], restaurant: str) -> None:
        """What an exam would ask here, and the restaurant; the answers are kept behind the question."""
        if self._restaurant:
            self._add(Block(_aside(_RESTAURANT, restaurant), opens=True, gap=True))
        self._add(Block(_aside(_EXAM, question), opens=True, gap=True))
        self._sheet.answers = [Block(Text(f"  {answer}")) for answer in answers]

    def _add(self, block: Block) -> None:
        self._sheet.blocks.append(block)
        self._told(block)


class _Command:
    """`$ command`, folded as a shell accepts it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = fold_command(self._text, min(options.max_width, COLUMNS) - 2)
        yield Text("$ " + "\n  ".join(lines), style=screen.COMMAND)


class _Output:
    """The lines of an output, folded and set off."""

    def __init__(self, lines: Sequence[str], mark: Sequence[str]) -> None:
        self._lines, self._mark = lines, mark

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [row for line in self._lines for row in fold_output(line, min(options.max_width, COLUMNS) - 3)]
        shown = Text("\n".join(f"  {row}".rstrip() for row in rows))
        shown.highlight_regex("|".join(map(re.escape, self._mark)) or r"(?!)", screen.MARK)
        yield shown


def _aside(title: str, text: str) -> Text:
    return Text.assemble((title.rstrip(), screen.TITLE), f" {text}")


def run_weavelab(arguments: Sequence[str]) -> tuple[int, str]:
    """Run weavelab as a process of its own, for half a minute at most; its exit code and all it printed.

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
        printed, _ = process.communicate(timeout=_COMMAND_S)
    except BaseException as error:
        kill_group(process)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        if isinstance(error, subprocess.TimeoutExpired):
            return 124, f"(killed after {_COMMAND_S:.0f} s)"
        raise
    return process.returncode, printed.decode(errors="replace")


def fold_command(text: str, width: int) -> list[str]:
    """A command in lines of at most `width`, each but the last ending in a backslash, as a shell accepts it."""
    lines = [""]
    for word in re.findall(r"(?:'[^']*'|\S)+", text):  # a backslash within quotes would be a backslash
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width - 2:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def fold_output(line: str, width: int) -> list[str]:
    """A line of output in rows of at most `width`; what does not fit into a few rows is cut, and how much is said."""
    line = line.expandtabs().rstrip()
    indent = " " * min(len(line) - len(line.lstrip()), max(width - 8, 0))
    rows = textwrap.wrap(
        line, max(width, 8), subsequent_indent=f"{indent}    ", break_on_hyphens=False, drop_whitespace=True
    ) or [""]
    if len(rows) <= ROWS_PER_LINE_MAX:
        return rows
    rest = sum(len(row.strip()) + 1 for row in rows[ROWS_PER_LINE_MAX:]) - 1
    return [*rows[:ROWS_PER_LINE_MAX], f"{indent}    ... and {rest} more characters"]
