"""How every command is told its topology: `FILE`, `-` for standard input, or `--topology FILE`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from testbed.topology.names import STANDARD_INPUT

_SUFFIXES: Final = (".yaml", ".yml")


def file_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the parameters `file` and `topology`; `one_file` says which was given."""
    argument = click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE|-]")
    return argument(topology_option(command))


def topology_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option alone: it has the file among its words."""
    return click.option(
        "--topology",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same as FILE, as an option.  [default: topologies/two-nodes.yaml]",
    )(command)


def one_file(file: Path | None, topology: Path | None) -> Path | None:
    """The topology file that was given, either way.

    Raises:
        UsageError: Both ways.
    """
    if file is not None and topology is not None:
        raise click.UsageError(f"the topology is given twice: {file} and --topology {topology}")
    return file or topology


def split_words(words: Sequence[str]) -> tuple[Path | None, tuple[str, ...]]:
    """The topology file among a command's words, and the other words in their order.

    A file has a slash, ends in .yaml or .yml, or is `-`; no name or pattern of a scenario does.

    Raises:
        UsageError: There are two files.
    """
    files = [word for word in words if is_file(word)]
    if len(files) > 1:
        raise click.UsageError(f"wanted one topology file, found {' and '.join(files)}")
    return Path(files[0]) if files else None, tuple(word for word in words if not is_file(word))


def is_file(word: str) -> bool:
    """Whether a word of the command line names a topology file."""
    return word == STANDARD_INPUT or "/" in word or word.endswith(_SUFFIXES)


def as_shown(path: Path) -> str:
    """Where a topology came from, for the lab's state and the reports."""
    return STANDARD_INPUT if str(path) == STANDARD_INPUT else str(path.resolve())
