"""A recording of the demo as a picture that moves: pages of a real run, one after the other, in one SVG file.

`Recorder` takes the place of the terminal. It looks for the pages that `SCENES` names, as a viewer would by keys, and
keeps them; `recording` draws them. The file needs nothing beside it: the movement is CSS, so that it plays where
scripts are forbidden; who asked their system for less motion sees one page that stands still.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, TextIO

from rich.color import ColorType
from rich.console import Console
from rich.style import Style
from rich.text import Text

from testbed.demo.paper import COLUMNS, Lines, heading_of, lines_of
from testbed.demo.stage import DemoError
from testbed.machine import screen
from testbed.machine.checkout import PROJECT

_ROWS: Final = 22
"""Of a terminal of 24 lines, without heading and prompt."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A page to be kept.

    Attributes:
        step: The name of its step.
        text: What stands on it.
        seconds: How long it stays.
        still: Shown alone to who wants no motion.
        answer: It is the answer to the exam question, behind a key.
    """

    step: str
    text: str
    seconds: float
    still: bool = False
    answer: bool = False


SCENES: Final = (
    Scene("cluster", "weavelab status", 4),
    Scene("node", "dstport 6784", 4),
    Scene("pod", "CNI_COMMAND=ADD", 4),
    Scene("pod", '"gateway"', 3),
    Scene("same-node", "captured meanwhile", 5),
    Scene("cross-node", "layer by layer", 8, still=True),
    Scene("cross-node", "were on the wire", 5),
    Scene("cross-node", "bridge fdb show dev DEVICE", 5, answer=True),
    Scene("routers", "outer TTL", 6),
    Scene("break", "link set vxlan-6784 down", 5),
    Scene("break", "PROBLEM", 6),
    Scene("break", "weave release", 5),
    Scene("recap", "who decides", 5),
)


class Recorder:
    """A display that keeps the pages of `SCENES`; to be used as `testbed.demo.terminal.Display`.

    Args:
        names: The steps that the show has.
        said: Is told how far it is.
    """

    def __init__(self, names: Sequence[str], said: TextIO) -> None:
        self._names, self._said = list(names), said
        self._wanted = [scene for scene in SCENES if scene.step in names]
        self._page: Lines = []
        self._step = 0
        self.columns, self.rows = COLUMNS, _ROWS
        self.console: Console = Console(file=said, width=COLUMNS, highlight=False)
        self.kept: list[tuple[Scene, Lines]] = []

    def paint(self, heading: str, lines: Lines, prompt: str) -> None:
        """See `Display.paint`."""
        above = lines_of(self.console, heading_of(heading), COLUMNS)[:1]
        blank = [Text()] * (_ROWS - len(lines))
        self._page = [*above, *lines, *blank, Text(prompt, style=screen.PROMPT)]
        self._step = int(heading.split(maxsplit=1)[0]) - 1

    def busy(self, heading: str, text: str) -> None:
        """See `Display.busy`."""
        self._said.write(f"{heading}: {text}\n")

    def forget(self) -> None:
        """See `Display.forget`."""

    def key(self) -> str:
        """See `Display.key`: what leads to the next page that is wanted.

        Raises:
            DemoError: There is no such page.
        """
        if not self._wanted:
            return "end"
        scene, told = self._wanted[0], "\n".join(line.plain for line in self._page)
        there = self._names.index(scene.step)
        if self._step < there:
            return str(there + 1)
        if self._step > there:
            raise DemoError(f"wanted a page of step {scene.step} with {scene.text!r}, found none")
        if scene.text in told:
            self.kept.append((self._wanted.pop(0), self._page))
            return self.key()
        return "answer" if scene.answer and "(a: the answer)" in told else "next"


# --------------------------------------------------------------------------------------------------------- the picture

_CELL_W: Final = 8.4
_CELL_H: Final = 18
_FONT: Final = 14
_PAD: Final = 16
_BAR_H: Final = 30
_PAPER, _INK, _EDGE, _BAR = "#0d1117", "#e6edf3", "#484f58", "#21262d"
"""A terminal is dark on a light page and on a dark one; its edge sets it off from both."""


def recording(kept: Sequence[tuple[Scene, Lines]], *, command: str) -> str:
    """The pages as an SVG file.

    Args:
        kept: What to show, and for how long.
        command: What was typed; it stands above the pages.
    """
    width, height = COLUMNS * _CELL_W + 2 * _PAD, _BAR_H + (_ROWS + 2) * _CELL_H + 2 * _PAD
    total_s = sum(scene.seconds for scene, _ in kept)
    rules, pages, begin_s = [], [], 0.0
    for number, (scene, lines) in enumerate(kept):
        begin, end = 100 * begin_s / total_s, 100 * (begin_s + scene.seconds) / total_s
        begin_s += scene.seconds
        hidden = "" if number == 0 else "0%{visibility:hidden}"
        rules.append(
            f"@keyframes p{number}{{{hidden}{begin:.3f}%{{visibility:visible}}"
            + (f"{end:.3f}%,100%{{visibility:hidden}}}}" if number + 1 < len(kept) else "100%{visibility:visible}}")
            + f"#p{number}{{animation-name:p{number}}}"
        )
        rows = "".join(_row(line, row) for row, line in enumerate(lines))
        pages.append(f'<g id="p{number}" class="page{" still" if scene.still else ""}">{rows}</g>\n')
    told = "; ".join(dict.fromkeys(lines[0].plain.strip("─ ") for _, lines in kept))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-labelledby="title desc">\n<title id="title">A recording of {escape(command)}</title>\n'
        f'<desc id="desc">Pages of a terminal: {escape(told)}.</desc>\n<style>\n{_css(total_s)}{"".join(rules)}\n'
        f"@media (prefers-reduced-motion:reduce){{.page{{animation:none}}.still{{visibility:visible}}}}\n</style>\n"
        f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="8" fill="{_PAPER}" stroke="{_EDGE}"/>\n'
        f'<path d="M.5 {_BAR_H}V8.5a8 8 0 0 1 8-8H{width - 8.5:g}a8 8 0 0 1 8 8V{_BAR_H}z" fill="{_BAR}"/>\n'
        f'<text x="{_PAD}" y="{_BAR_H - 10}">$ {escape(command)}</text>\n{"".join(pages)}</svg>\n'
    )


def _css(total_s: float) -> str:
    return (
        f"text{{font:{_FONT}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        f"fill:{_INK};white-space:pre}}\n"
        f".page{{visibility:hidden;animation-duration:{total_s:g}s;animation-iteration-count:infinite;"
        "animation-timing-function:step-end}\n"
        ".b{font-weight:700}.i{font-style:italic}.d{opacity:.7}.u{text-decoration:underline}\n"
    )


def _row(line: Text, row: int) -> str:
    """A line of a page. Each run of one style is given its width, so that columns stand whatever the font is."""
    y = _BAR_H + _PAD + row * _CELL_H
    drawn, column = [], 0
    for run, style in _runs(line):
        begin, column = column, column + len(run)
        if not run.strip() and not style.reverse:
            continue
        x, w = _PAD + begin * _CELL_W, len(run) * _CELL_W
        classes = " ".join(
            name for name, on in zip("bidu", (style.bold, style.italic, style.dim, style.underline), strict=True) if on
        )
        fill = _PAPER if style.reverse else _colour(style)
        if style.reverse:
            drawn.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{_CELL_H}" fill="{_INK}"/>')
        drawn.append(
            f'<text x="{x:.1f}" y="{y + _FONT - 1:g}" textLength="{w:.1f}"'
            + (f' class="{classes}"' if classes else "")
            + (f' style="fill:{fill}"' if fill else "")
            + f">{escape(run, quote=False)}</text>"
        )
    return "".join(drawn)


def _runs(line: Text) -> list[tuple[str, Style]]:
    """The line in pieces of one style each. Where the run took place is nobody's business."""
    parts = Text.assemble(line).render(Console(width=10 * COLUMNS))
    told = ((part.text.replace(f"{PROJECT}/", ""), part.style or Style.null()) for part in parts)
    return [(text, style) for text, style in told if text and text != "\n"]


def _colour(style: Style) -> str:
    colour = style.color
    return "" if colour is None or colour.type is ColorType.DEFAULT else colour.get_truecolor().hex
