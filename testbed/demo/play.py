"""Plays the demo: step by step on a terminal, or all of it at once, and ends the lab, whatever happens.

`testbed.demo.steps` says what each step shows. On a terminal `testbed.demo.pager` leads through it; else every line is
printed as soon as it is there.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from rich.console import Console

from plugin.core.errors import InputError, WeaveError
from testbed.demo.pager import Pager
from testbed.demo.paper import COLUMNS, Block, Sheet, heading_of, lines_of
from testbed.demo.show import Show
from testbed.demo.steps import steps_of
from testbed.demo.terminal import Display, Terminal
from testbed.demo.texts import LESSONS
from testbed.lab import state
from testbed.lab.paths import LabPaths
from testbed.life.down import tear_down
from testbed.machine import interrupts, screen
from testbed.nearest import hint

Player = Callable[[Show, int], None]
"""Plays a show, beginning with the step of that place; those before it are played unseen."""


def titles(show: Show) -> list[tuple[str, str]]:
    """Name and title of every step that this show has."""
    return [(name, LESSONS[name].title.format_map(show.names)) for name in steps_of(show)]


class Tour:
    """The steps of a show, played one after the other.

    Args:
        show: What is played.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._steps = list(steps_of(show).items())
        self._played = 0
        self.sheet = Sheet(name="", heading="")

    @property
    def total(self) -> int:
        """How many steps there are."""
        return len(self._steps)

    def begin(self) -> Sheet:
        """Take the next step's sheet; nothing is on it yet."""
        name, _ = self._steps[self._played]
        title = LESSONS[name].title.format_map(self._show.names)
        self.sheet = Sheet(name=name, heading=f"{self._played + 1} of {self.total}  {title}")
        self._show.stage.begin(self.sheet)
        return self.sheet

    def play(self) -> Sheet:
        """Play it.

        Raises:
            WeaveError: Something is not as shown, or could not be done.
        """
        name, step = self._steps[self._played]
        step(self._show)
        lesson = LESSONS[name]
        self._show.stage.lesson_end(lesson.question, lesson.answers, lesson.restaurant.format_map(self._show.names))
        self._played += 1
        return self.sheet


def straight(shown: TextIO, pause_s: float) -> Player:
    """Everything in order, without keys: for pipes and CI.

    Args:
        shown: Where to.
        pause_s: How long a step stays.
    """
    emit = _emitter(screen.make_console(shown, width=COLUMNS))

    def player(show: Show, first: int) -> None:
        tour = Tour(show)
        for number in range(tour.total):
            sheet = tour.begin()
            if number < first:
                try:
                    tour.play()
                except WeaveError:
                    _print_sheet(emit, sheet)
                    raise
                continue
            show.stage.tell(emit)
            emit(Block(heading_of(sheet.heading), gap=True))
            for block in tour.play().answers:
                emit(block)
            if number + 1 < tour.total:
                time.sleep(pause_s)

    return player


def _emitter(console: Console) -> Callable[[Block], None]:
    """What prints a block at once."""

    def emit(block: Block) -> None:
        if block.gap:
            console.print()
        for line in lines_of(console, block.what, COLUMNS):
            console.print(line, soft_wrap=True)

    return emit


def _print_sheet(emit: Callable[[Block], None], sheet: Sheet) -> None:
    """What led to an error: it was not seen, or its page is gone."""
    for block in (Block(heading_of(sheet.heading), gap=True), *sheet.blocks):
        emit(block)


def by_page(display: Display) -> Player:
    """Page by page, led by keys."""

    def player(show: Show, first: int) -> None:
        tour = Tour(show)

        def play() -> Sheet:
            sheet = tour.begin()
            display.busy(sheet.heading, "a moment")
            show.stage.tell(lambda block: display.busy(sheet.heading, block.command) if block.command else None)
            return tour.play()

        try:
            Pager(display, titles(show), play).tour(first)
        except WeaveError:
            show.failed = tour.sheet
            raise

    return player


def _on_terminal(typed: TextIO, shown: TextIO) -> Player:
    """Page by page on a terminal, whose settings are given back at the end, whatever it is."""

    def player(show: Show, first: int) -> None:
        try:
            with Terminal(typed, shown) as display:
                by_page(display)(show, first)
        finally:
            if show.failed is not None:
                _print_sheet(_emitter(screen.make_console(shown, width=COLUMNS)), show.failed)

    return player


def player_for(typed: TextIO | None, shown: TextIO, *, auto: bool, pause_s: float) -> Player:
    """Without a terminal on both sides there is nobody who sees a page and could press a key."""
    if typed is not None and typed.isatty() and shown.isatty() and not auto:
        return _on_terminal(typed, shown)
    return straight(shown, pause_s)


def place_of(show: Show, name: str | None) -> int:
    """Where a step is among those of this show; the first, without a name.

    Raises:
        InputError: This show does not have it.
    """
    names: Sequence[str] = list(steps_of(show))
    if name is None:
        return 0
    if name not in names:
        raise InputError(
            f"the demo of topology {show.topology.name} has no step {name}",
            hint=hint(name, names, there_is="its steps:"),
        )
    return names.index(name)


def perform(show: Show, player: Player, *, first: int = 0) -> int:
    """Play; returns the exit code. The lab goes in any case: at the end, after q, an error, or Ctrl-C.

    Raises:
        WeaveError: Something is not as shown, or could not be done.
    """
    with interrupts.raised():
        try:
            player(show, first)
        except KeyboardInterrupt as stop:
            if (farewell := show.use.farewell()) is not None:
                raise farewell from None
            with suppress(OSError):  # the terminal was closed: nobody reads it
                sys.stderr.write("\ninterrupted: taking the lab down\n")
            return interrupts.EXIT_BASE + interrupts.number_of(stop)
        finally:
            with interrupts.held_off():
                ended = _end(show.name)
    if ended:
        sys.stdout.write(f"lab {show.name} is down\n")
    return 0


def _end(name: str) -> bool:
    """Take the lab down if it is there and this process brought it up; another's is left alone."""
    found = state.read(LabPaths(name))
    if found is None or found.command_pid != os.getpid():
        return False
    tear_down(name)
    return True
