"""Values of the options of all benchmarks: whole numbers and sizes, with a clear word when they are none."""

import argparse


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
