"""Text from a lab, a file or a program, made fit for a terminal: what would command it is shown instead of obeyed.

ESC moves the cursor, changes titles, clears the screen; a carriage return hides what was printed before it; some
characters of Unicode turn the order of others round. Whoever reads a report has to see that they were there.
"""

import re
from typing import Final

_COMMANDING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (ECMA-48: C0 and C1) but tab and newline, directions of Unicode (UAX 9), halves of characters."""


def printable(text: str) -> str:
    r"""The text with each character that would command a terminal as an escape: `\x1b`, `\r`, `\u202e`."""
    return _COMMANDING.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)


def one_line(text: str) -> str:
    """The same, on one line."""
    return " ".join(printable(text).split())
