"""How rows are shown to whoever asked: `table` and `wide` for people, `json` and `yaml` for programs.

Nothing is ever cut. In a pipe a line is as long as what stands in it, and ends with its last character. On a terminal
sentences go on in the next line of their column; where not even the words have room beside each other, a row becomes a
few lines, one a column. Who fills the rows decides what is in them; here it is only shown.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TextIO

from testbed.machine.printable import printable
from testbed.machine.screen import TITLE, make_console, table_box

Format = Literal["table", "wide", "json", "yaml"]
FORMATS: Final[tuple[Format, ...]] = ("table", "wide", "json", "yaml")

Row = Mapping[str, Any]

_NAMES_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        key: Which key of the row it shows, as `json` has it; what is counted of a list names the list.
        cell: What stands in it; without one the value itself, `-` for what is unknown or empty.
        style: How it is coloured; the words say the same without.
        wide: Shown by `wide` only.
    """

    title: str
    key: str
    cell: Callable[[Row], str] | None = None
    style: Callable[[Row], str] | None = None
    wide: bool = False

    def text(self, row: Row) -> str:
        """What stands in the row's cell."""
        if self.cell is not None:
            return self.cell(row)
        value: Any = row
        for part in self.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, list | tuple):
            value = " ".join(map(str, value))
        return "-" if value is None or value == "" else plain(str(value))


@dataclass(frozen=True, slots=True)
class Listing:
    """A table: its title (empty when it stands alone) and its columns."""

    title: str
    columns: tuple[Column, ...]


class Screen:
    """Where tables and lines for people go: standard output, or another stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = make_console(stream or sys.stdout)

    def line(self, text: str, *, style: str = "") -> None:
        """One line, whatever its length."""
        from rich.text import Text  # noqa: PLC0415

        self._console.print(Text(plain(text.rstrip("\n")).rstrip(), style=style), soft_wrap=True)

    def table(self, listing: Listing, rows: Sequence[Row], *, wide: bool = False) -> None:
        """The rows below their headings; nothing when there are none."""
        from rich.measure import Measurement  # noqa: PLC0415 - 60 ms that only tables pay
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        if not rows:
            return
        columns = [column for column in listing.columns if wide or not column.wide]
        table = Table(box=table_box(), pad_edge=False)
        for column in columns:
            table.add_column(column.title, overflow="fold")
        for row in rows:
            table.add_row(*(Text(one.text(row), style=one.style(row) if one.style else "") for one in columns))
        options = self._console.options
        needed = Measurement.get(self._console, options.update(max_width=sys.maxsize), table)
        width = self._console.width if self._console.is_terminal else needed.maximum
        if listing.title:
            self.line(listing.title, style=TITLE)
        if width < needed.minimum:
            self._records(columns, rows)
            return
        lines = self._console.render_lines(table, options.update(width=min(width, needed.maximum)), pad=False)
        shown = [Text.assemble(*((segment.text, segment.style or "") for segment in segments)) for segments in lines]
        for number, line in enumerate(shown):
            line.rstrip()
            # Blank lines part it from what else there is; alone it begins and ends without them.
            if line or listing.title or 0 < number < len(shown) - 1:
                self._console.print(line, soft_wrap=True)

    def _records(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """A few lines a row: its first column, then each other with its heading."""
        first, *others = columns
        heading = max((len(column.title) for column in others), default=0)
        for row in rows:
            self.line("")
            self.line(first.text(row), style=TITLE)
            for column in others:
                self.line(
                    f"  {column.title:<{heading}}  {column.text(row)}", style=column.style(row) if column.style else ""
                )
        self.line("")


def show_values(value: object, output: Format, stream: TextIO | None = None) -> None:
    """A value for programs, as JSON or YAML."""
    stream = stream or sys.stdout
    if output == "yaml":
        from ruamel.yaml import YAML  # noqa: PLC0415 - 80 ms that only this pays

        writer: Any = YAML(typ="safe", pure=True)
        writer.default_flow_style = False
        writer.sort_base_mapping_type_on_output = False
        writer.width = sys.maxsize
        writer.dump(value, stream)
    else:
        stream.write(json.dumps(value, indent=2) + "\n")


def plain(text: str) -> str:
    """In one line, nothing of which commands a terminal: it comes from agents, logs and other clusters."""
    return printable(text).replace("\n", "\\n")


def some(names: Sequence[str], *, all_of_them: bool = False) -> str:
    """Names in a sentence: all of a few, the first of many and how many more there are."""
    more = 0 if all_of_them else len(names) - _NAMES_SHOWN
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:_NAMES_SHOWN])} and {more} more"


def clock(time: str) -> str:
    """The time of day here of an RFC 3339 time; with its date when that is not today."""
    then = datetime.fromisoformat(time).astimezone()
    today = datetime.now(then.tzinfo).date()
    return f"{then:%H:%M:%S}" if then.date() == today else f"{then:%Y-%m-%d %H:%M:%S}"
