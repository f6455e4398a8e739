"""The option `--format` of everything that lists something: one set of words, one help text."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from testbed.lab.listing import FORMATS

F = TypeVar("F", bound=Callable[..., Any])


def format_option(function: F) -> F:
    """Give a command the option; it arrives as the argument `output`."""
    option = click.option(
        "--format",
        "output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="For people, with the columns that matter most or all of them (wide), or for programs.",
    )
    return option(function)
