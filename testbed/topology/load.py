"""A topology file -> a checked ``Topology``. Read ``parse_topology`` downwards: its phases are the table of contents.

Each phase reports *all* of its problems at once, each as ``file:line:column: what was wanted, what was found``; a later
phase runs only when the earlier ones found nothing, because it would only repeat them in other words:

1. text -> values with their places                     ``testbed.topology.text``
2. values -> types; violations explained                ``testbed.topology.model``, ``testbed.topology.explain``
3. what no schema can state: names, ranges, targets     ``testbed.topology.rules``
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from plugin.core.errors import InputError, said_by
from testbed.nearest import listing, nearest
from testbed.topology.model import KubeletKind, Topology
from testbed.topology.names import STANDARD_INPUT
from testbed.topology.rules import check
from testbed.topology.schema import schema
from testbed.topology.text import TEXT_BYTES_MAX, Finding, KeyPath, Problem, Tree, UnreadableError, read_tree

PROBLEMS_SHOWN_MAX: Final = 40


class TopologyError(InputError):
    """A topology file is wrong (exit code 2). One line a problem: ``file:line:column: message``.

    Attributes:
        file: The file as the user wrote it.
        problems: Every problem found, in the order of the file.
    """

    def __init__(self, file: str, problems: Sequence[Problem], *, hint: str = "") -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: problem.mark or (0, 0)))
        lines = [_line(file, problem) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        if len(self.problems) > PROBLEMS_SHOWN_MAX:
            lines.append(f"and {len(self.problems) - PROBLEMS_SHOWN_MAX} more")
        if len(self.problems) > 1:
            lines.insert(0, f"{len(self.problems)} problems in {file}:")
        super().__init__("\n".join(lines), hint=hint)


def load_topology(path: str | os.PathLike[str], *, kubelet: KubeletKind | None = None) -> Topology:
    """The topology of a file, or of standard input (`-`), with another kubelet than the file's when one is given.

    Raises:
        TopologyError: The file cannot be read or says something wrong; the message holds every problem.
    """
    file = os.fspath(path)
    try:
        with _opened(file) as stream:
            # One byte more than is allowed, so that the size is known to be too large; /dev/zero has no end.
            read = stream.read(TEXT_BYTES_MAX + 1)
        file = "standard input" if file == STANDARD_INPUT else file
        if len(read) > TEXT_BYTES_MAX:
            raise _unreadable(file, f"wanted at most {TEXT_BYTES_MAX} bytes, found more")
        text = read.decode("utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(file, "no such file", hint=_others(file)) from None
    except IsADirectoryError:
        raise _unreadable(file, "wanted a topology file, found a directory", hint=_others(file)) from None
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"wanted a text file (UTF-8), found byte 0x{error.object[error.start]:02x}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = said_by(error, path=False)
        raise _unreadable(file, f"cannot be read: {reason}") from error
    return parse_topology(text, file=file, kubelet=kubelet)


def _opened(file: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if file != STANDARD_INPUT:
        return Path(file).open("rb")
    if sys.stdin is None:  # closed by the caller (`<&-`)
        raise TopologyError("standard input", [Problem(None, "wanted a topology there, found it closed")])
    return contextlib.nullcontext(sys.stdin.buffer)


def parse_topology(text: str, *, file: str, kubelet: KubeletKind | None = None) -> Topology:
    """The topology of a YAML text; ``file`` is the name used in messages, ``kubelet`` as in ``load_topology``.

    Raises:
        TopologyError: The text says something wrong; the message holds every problem.
    """
    try:
        tree, problems = read_tree(text)
    except UnreadableError as error:
        raise TopologyError(file, [error.problem]) from error
    if tree.data is None:
        raise _unreadable(file, "the file is empty: wanted a topology with at least 'name' and 'nodes'")

    data = _without_empty_keys(tree.data)
    topology, violations = _convert(tree, data)
    problems += violations
    if topology is not None and kubelet is not None:
        topology = msgspec.structs.replace(topology, kubelet=kubelet)
    if topology is not None and not problems:
        problems += [Problem(tree.mark(path, at_key=at_key), message) for path, message, at_key in check(topology)]
    if problems or topology is None:
        raise TopologyError(file, problems)
    return topology


def _without_empty_keys(data: Any) -> Any:
    """The values without keys that have nothing behind them: those count as left out, and ``node1:`` as ``node1: {}``.

    Unknown keys stay, so that they are reported.
    """
    made = schema()
    return _prune(data, made, made["$defs"])


def _prune(value: Any, part: Mapping[str, Any], types: Mapping[str, Any]) -> Any:
    part = types[part["$ref"].removeprefix("#/$defs/")] if "$ref" in part else part
    if isinstance(value, list):
        return [_prune(item, part.get("items", {}), types) for item in value]
    if not isinstance(value, dict):
        return value
    known, by_name = part.get("properties", {}), part.get("additionalProperties", {})
    if by_name:  # nodes, pods, segments, routers
        return {name: {} if item is None else _prune(item, by_name, types) for name, item in value.items()}
    return {
        key: _prune(item, known.get(key, {}), types)
        for key, item in value.items()
        if item is not None or key not in known
    }


def _convert(tree: Tree, data: Any) -> tuple[Topology | None, Iterable[Problem]]:
    try:
        return msgspec.convert(data, Topology), ()
    except msgspec.ValidationError as error:
        # Imported for bad files only: it takes longer than everything else here.
        from testbed.topology.explain import explain  # noqa: PLC0415

        # msgspec and the schema are made from the same types; should they ever differ, msgspec's words have to do.
        root: KeyPath = ()
        findings = explain(data, schema()) or [Finding(root, str(error))]
        return None, [Problem(tree.mark(path, at_key=at_key), message) for path, message, at_key in findings]


def _line(file: str, problem: Problem) -> str:
    place = f":{problem.mark.line}:{problem.mark.column}" if problem.mark else ""
    return f"{file}{place}: {problem.message}"


def _unreadable(file: str, message: str, *, hint: str = "") -> TopologyError:
    return TopologyError(file, [Problem(None, message)], hint=hint)


def _others(file: str) -> str:
    """A hint on the topologies that do exist: beside the name that was not found, and in the folder of the shipped."""
    folder = Path(file) if Path(file).is_dir() else Path(file).parent
    try:
        names = sorted({str(path) for place in (folder, Path("topologies")) for path in place.glob("*.yaml")})
    except OSError:
        return ""
    by_stem = {Path(name).stem: name for name in reversed(names)}
    meant = nearest(Path(file).stem, by_stem)
    if meant:
        return f"did you mean {by_stem[meant]}?"
    return f"there is {listing(names)}" if names else ""
