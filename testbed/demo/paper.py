"""A step of the demo as it was shown: blocks of text, in groups that belong together, and how they fill pages.

A group is a sentence with the commands and outputs below it. A page breaks between groups where it can; a group that is
longer than a page is cut at a blank line, if there is one in its second half. Nothing here prints or waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.text import Text

from testbed.machine import screen

COLUMNS: Final = 80

Lines = list[Text]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a step.

    Attributes:
        what: The piece, which can be rendered at any width.
        opens: It begins a group.
        gap: A blank line stands before it.
        command: The command line that it shows, if it shows one.
    """

    what: RenderableType
    opens: bool = False
    gap: bool = False
    command: str = ""


@dataclass(slots=True)
class Sheet:
    """A step as it was shown.

    Attributes:
        name: What `--step` calls it.
        heading: Its number and title.
        blocks: What was shown, in order; the last of them is the exam question.
        answers: What answers the question, shown behind a key.
    """

    name: str
    heading: str
    blocks: list[Block] = field(default_factory=list)
    answers: list[Block] = field(default_factory=list)

    def groups(self, console: Console, *, columns: int, answers: bool) -> list[Lines]:
        """Its lines at that width, by group."""
        found: list[Lines] = []
        for block in [*self.blocks, *(self.answers if answers else [])]:
            lines = lines_of(console, block.what, columns)
            if block.opens or not found:
                found.append(lines)
            else:
                found[-1] += [*([Text()] if block.gap else []), *lines]
        return found


def heading_of(text: str) -> RenderableType:
    """The line above a step: with a rule behind it, unless plain lines are wanted."""
    title = Text(text, style=screen.TITLE)
    return title if screen.table_box() is None else Rule(title, align="left", style=screen.ASIDE)


def lines_of(console: Console, what: RenderableType, columns: int) -> Lines:
    """What a terminal of so many columns shows of it, line by line, with its styles."""
    rendered = console.render_lines(what, console.options.update(width=columns, height=None), pad=False)
    lines = [Text.assemble(*((part.text, part.style or "") for part in line if not part.control)) for line in rendered]
    for line in lines:
        line.rstrip()
    return lines


def paginate(groups: Sequence[Lines], rows: int) -> list[Lines]:
    """Fill pages of so many rows; there is at least one."""
    pages: list[Lines] = [[]]
    for group in groups:
        page = pages[-1]
        room = rows - len(page) - (1 if page else 0)
        if len(group) <= room:
            page += [*([Text()] if page else []), *group]
        elif len(group) <= rows and page:
            pages.append(list(group))
        else:
            _cut(pages, group, rows, room)
    return pages


def _cut(pages: list[Lines], group: Lines, rows: int, room: int) -> None:
    """Add a group that is longer than a page: on the last one, if that has half of its rows left."""
    rest = list(group)
    page = pages[-1]
    if page and room < rows // 2:
        page = []
        pages.append(page)
    while rest:
        room = rows - len(page) - (1 if page else 0)
        end = len(rest) if len(rest) <= room else _cut_at(rest, room)
        page += [*([Text()] if page else []), *rest[:end]]
        rest = _without_leading_blanks(rest[end:])
        if rest:
            page = []
            pages.append(page)


def _cut_at(lines: Lines, room: int) -> int:
    """How many of the lines go onto this page: up to a blank line in the second half of the room, or all of it.

    A single line between two blank ones is the title of what follows: it goes with that.
    """
    blank = [not line.plain.strip() for line in lines]
    for place in range(room, room // 2, -1):
        if blank[place] and not (place > 1 and blank[place - 2]):
            return place
    return max(room, 1)


def _without_leading_blanks(lines: Lines) -> Lines:
    while lines and not lines[0].plain.strip():
        lines = lines[1:]
    return lines
