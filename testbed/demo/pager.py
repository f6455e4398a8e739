"""Forward and back through the demo's steps, page by page: which key leads where, and what stands in the last line.

A step that has not been played yet is played on the way to it, and so are those before it: nothing is shown that did
not happen. What has been played is only shown again. `Pager.tour` ends after the last page, or when the viewer has seen
enough.
"""

from collections.abc import Callable, Sequence
from typing import Final

from rich.text import Text

from testbed.demo.paper import Lines, Sheet, lines_of, paginate
from testbed.demo.terminal import RESIZED, Display

_KEYS: Final = (
    ("space, enter, n, right, down", "on: the next page, then the next step"),
    ("b, p, left, up, backspace", "back"),
    ("a", "the answer to the exam question of this step"),
    ("a number", "to that step, playing those before it"),
    ("?", "this page"),
    ("q, Ctrl-C", "end; the lab goes"),
)
_HELP: Final = "the keys of the demo, and its steps"


class Pager:
    """The pages of a tour.

    Args:
        display: Where they are shown.
        names: The steps, in order, with their titles.
        play: Plays the next step that has not been played; returns its sheet.
    """

    def __init__(self, display: Display, names: Sequence[tuple[str, str]], play: Callable[[], Sheet]) -> None:
        self._display, self._names, self._play = display, names, play
        self._sheets: list[Sheet] = []
        self._answered: set[int] = set()

    def tour(self, first: int = 0) -> None:
        """Show all steps, beginning with the one of that place, as the keys lead."""
        step, page = first, 0
        while step < len(self._names):
            while len(self._sheets) <= step:
                self._sheets.append(self._play())
                self._display.forget()
            pages = self._pages(step)
            page = max(0, min(page if page >= 0 else len(pages) + page, len(pages) - 1))
            self._display.paint(self._sheets[step].heading, pages[page], self._prompt(step, page, len(pages)))
            key = self._display.key()
            if key == "end":
                return
            if key == "help":
                self._help(step)
            elif key == "answer":
                self._answered ^= {step}
                page = -1
            else:
                step, page = self._led(key, step, page, len(pages))

    def _led(self, key: str, step: int, page: int, pages: int) -> tuple[int, int]:
        """Where a key leads from a page."""
        if key == "next":
            return (step, page + 1) if page + 1 < pages else (step + 1, 0)
        if key == "back":
            return (step, page - 1) if page else (step - 1, -1) if step else (0, 0)
        if key.isdecimal() and 1 <= int(key) <= len(self._names):
            return int(key) - 1, 0
        return step, page  # a key without a meaning, or another size

    def _pages(self, step: int) -> list[Lines]:
        display, sheet = self._display, self._sheets[step]
        groups = sheet.groups(display.console, columns=display.columns, answers=step in self._answered)
        if step not in self._answered and groups:
            groups[-1] = [*groups[-1], Text("  (a: the answer)")]
        return paginate(groups, display.rows)

    def _prompt(self, step: int, page: int, pages: int) -> str:
        last = step + 1 == len(self._names) and page + 1 == pages
        words = [
            "space: end" if last else "space: on",
            "b: back",
            "a: hide" if step in self._answered else "a: answer",
            f"1-{len(self._names)}: step",
            "?: help",
            "q: end",
            f"page {page + 1} of {pages}",
        ]
        shorter = f"{page + 1}/{pages}"
        for place, word in ((3, ""), (2, ""), (1, ""), (6, shorter), (0, "")):  # the help tells what is left out
            if len("   ".join(filter(None, words))) > self._display.columns:
                words[place] = word
        return "   ".join(filter(None, words))

    def _help(self, step: int) -> None:
        while True:
            told = [f"  {keys:30}{what}" for keys, what in _KEYS]
            for number, (name, title) in enumerate(self._names):
                state = "you are here" if number == step else "seen" if number < len(self._sheets) else ""
                told.append(f"  {number + 1}  {name:12}{title:46}{state}".rstrip())
            told.insert(len(_KEYS), "")
            lines = lines_of(self._display.console, Text("\n".join(told)), self._display.columns)
            self._display.paint(_HELP, lines, "any key: back to the demo")
            if self._display.key() != RESIZED:
                return
