"""How text looks on this machine's terminal: the only styles there are, and whether anything is drawn or moves.

Nothing may be told by a style alone: whoever sees no colours, or listens to the text, gets the same words. So a style
here has the name of what it stands for, and stands on a word that says so ("PASS", "failed", "outer IPv4"). The two
hues are blue and orange, which people with any of the usual colour blindnesses tell apart; both can be read on white
and on black.

`WEAVELAB_PLAIN=1` is for screen readers: the lines of a pipe also on a terminal, no spinner, no bar, no frame round a
table. A terminal that can only print (`TERM=dumb`) gets the same. `NO_COLOR` takes colours away and nothing else.

rich is imported inside the functions: it costs 60 ms that `weavelab --help` must not pay.
"""

import os
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
    from rich.theme import Theme

_BLUE: Final = "dodger_blue1"
_ORANGE: Final = "dark_orange3"

GOOD: Final = f"bold {_BLUE}"
"""It holds, it is ready."""

BAD: Final = f"bold {_ORANGE}"
"""It does not hold, it is not there."""

BROKEN: Final = f"bold reverse {_ORANGE}"
"""It could not even be examined."""

WAITING: Final = "italic"
"""It has not been done, or is not finished yet."""

TITLE: Final = "bold"
ASIDE: Final = "dim"
REMARK: Final = "dim italic"

COMMAND: Final = f"bold {_BLUE}"
"""What a user could type."""

MARK: Final = "bold underline"
"""What to look at in the output of a command; the sentence before it names it."""

OUTER: Final = _BLUE
INNER: Final = _ORANGE
"""Headers of the envelope, and of what is in it; the words outer and inner stand beside them."""

PROMPT: Final = "reverse"

_PLAIN: Final = "WEAVELAB_PLAIN"
_PIPE_COLUMNS: Final = 10_000
"""The width of what is no terminal: nothing is wrapped or cut there."""


def _plain_wanted() -> bool:
    """Whether the user asked for plain lines, or has a terminal that can only print."""
    return os.environ.get(_PLAIN, "0") not in {"", "0"} or os.environ.get("TERM", "") in {"dumb", "unknown"}


def is_lively(stream: TextIO) -> bool:
    """Whether `stream` may be drawn on: a terminal, and nobody asked for plain lines."""
    return stream.isatty() and not _plain_wanted()


def make_console(stream: TextIO, *, width: int | None = None) -> "Console":
    """A console for `stream`: on a lively terminal as wide as that, else plain, with nothing wrapped or coloured.

    No character is refused: a terminal that is not UTF-8 shows '?' for an arrow instead of ending the command.

    Args:
        stream: Where to.
        width: Another width than the terminal's, or a pipe's.
    """
    from rich.console import Console  # noqa: PLC0415 - see above

    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    if is_lively(stream):
        return Console(file=stream, highlight=False, width=width, theme=_theme())
    return Console(file=stream, highlight=False, width=width or _PIPE_COLUMNS, no_color=True, force_terminal=False)


def _theme() -> "Theme":
    """For what rich itself colours: spinners and bars, which come in red, green and pink."""
    from rich.theme import Theme  # noqa: PLC0415 - see above

    return Theme(
        {
            "rule.line": ASIDE,
            "status.spinner": _BLUE,
            "progress.spinner": _BLUE,
            "bar.complete": _BLUE,
            "bar.finished": _BLUE,
            "bar.pulse": _BLUE,
            "progress.download": "none",
            "progress.elapsed": ASIDE,
            "progress.percentage": "none",
            "progress.remaining": ASIDE,
        }
    )


def table_box() -> "Box | None":
    """The lines of a table: one below its head, or none for whom plain lines are wanted."""
    from rich import box  # noqa: PLC0415 - see above

    return None if _plain_wanted() else box.SIMPLE_HEAD
