"""What all benchmarks share: the values of their options, and how they end when they cannot go on.

Imports of the lab stand inside, so that `--help` does not wait for them.
"""

import argparse
import sys
from collections.abc import Callable

from plugin.core.errors import WeaveError


def number(text: str) -> int:
    """A number of rounds, seconds or nodes.

    Raises:
        ArgumentTypeError: It is none, or not from 1 to 5000.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 5000:
        raise argparse.ArgumentTypeError(f"wanted a number from 1 to 5000, found {text!r}")
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    """Sizes, parted by commas.

    Raises:
        ArgumentTypeError: One is no number, or below 2.
    """
    found = tuple(map(number, text.split(",")))
    if min(found) < 2:
        raise argparse.ArgumentTypeError("wanted at least 2 nodes: the first pings the last")
    return found


def guarded(work: Callable[[], int]) -> int:
    """Carry out a benchmark that needs the machine; its exit code, or that of what was in the way, told in words."""
    from testbed.machine import interrupts  # noqa: PLC0415
    from testbed.machine.privileges import check_machine  # noqa: PLC0415

    try:
        check_machine()
        with interrupts.raised():
            return work()
    except KeyboardInterrupt as stop:
        sys.stderr.write("interrupted; everything that was made is gone\n")
        return interrupts.EXIT_BASE + interrupts.number_of(stop)
    except WeaveError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
