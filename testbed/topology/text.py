"""YAML text -> plain values with the line and column of every key and value. Syntax problems become sentences.

First phase of ``testbed.topology.load``. ruamel.yaml only parses here; values are built from its node tree by hand,
because that is what keeps the place of every value, finds *all* keys given twice, and runs nothing a YAML tag might
ask for.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from testbed.topology.placeholders import placeholders

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top, such as ``("nodes", "node1", "address")``."""

TEXT_BYTES_MAX: Final = 1024 * 1024
_VALUES_MAX: Final = 100_000
"""YAML aliases can unfold a short text into billions of values; a topology of a thousand nodes has ten thousand."""


class Mark(NamedTuple):
    """A place in the file, counted from 1 as editors do."""

    line: int
    column: int


class Problem(NamedTuple):
    """One thing that is wrong with a file, and where."""

    mark: Mark | None
    message: str


class Finding(NamedTuple):
    """One thing that is wrong, by the path of a value (or of the key before it)."""

    path: KeyPath
    message: str
    at_key: bool = False


Findings: TypeAlias = Iterator[Finding]


class Place(NamedTuple):
    """Where a value and the key before it start; list items have no key."""

    value: Mark
    key: Mark | None


@dataclass(frozen=True, slots=True)
class Tree:
    """A file's values (dict, list, str, int, float, bool, None) and where each stands."""

    data: Any
    places: Mapping[KeyPath, Place]

    def mark(self, path: KeyPath, *, at_key: bool) -> Mark:
        """Where ``path`` is written; for what the file leaves out, the nearest thing around it."""
        if path not in self.places:
            return self.mark(path[:-1], at_key=True) if path else Mark(1, 1)
        place = self.places[path]
        return place.key if at_key and place.key else place.value


class UnreadableError(Exception):
    """Internal: the text is no YAML; ``testbed.topology.load`` turns the problem into its own error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def read_tree(text: str) -> tuple[Tree, list[Problem]]:
    """The values of a YAML text and the problems that do not keep it from being read (such as keys given twice).

    Raises:
        UnreadableError: The text is no YAML, holds several documents, or is too large.
    """
    if len(text) > TEXT_BYTES_MAX:
        raise UnreadableError(Problem(None, f"wanted at most {TEXT_BYTES_MAX} bytes, found {len(text)}"))
    builder = _Builder()
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        data = None if root is None else builder.build((), root, None)
    except MarkedYAMLError as error:
        raise UnreadableError(_syntax_problem(error, text)) from error
    except YAMLError as error:
        # The reader's own errors carry no mark: control characters.
        raise UnreadableError(Problem(None, "wanted a text file, found control characters in it")) from error
    except RecursionError as error:
        raise UnreadableError(Problem(None, "the values are nested too deeply")) from error
    return Tree(data, builder.places), builder.problems


# ---------------------------------------------------------------------------------------------------------- values


def _integer(text: str) -> int:
    return int(text.replace("_", ""), 0) if text.lower().lstrip("+-").startswith(("0o", "0x")) else int(text, 10)


def _number(text: str) -> int | float | str:
    """A float; integral ones become integers (``1500.0``), and infinities and NaN stay text: no key wants them."""
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    return int(value) if value.is_integer() else value


_YAML: Final = "tag:yaml.org,2002:"
_SCALARS: Final[dict[str, Callable[[str], Any]]] = {
    f"{_YAML}str": str,
    f"{_YAML}timestamp": str,
    f"{_YAML}merge": str,
    f"{_YAML}value": str,
    f"{_YAML}int": _integer,
    f"{_YAML}float": _number,
    f"{_YAML}bool": lambda text: text.lower() in {"true", "yes", "on"},  # the latter after ``%YAML 1.1`` only
    f"{_YAML}null": lambda _: None,
}

_TAGS: Final = {*_SCALARS, f"{_YAML}map", f"{_YAML}seq"}

NOUNS: Final = {"nodes": "node", "pods": "pod", "segments": "segment", "routers": "router"}
"""What the entries of a mapping by name are called."""


class _Builder:
    """Builds plain values from a node tree, remembering places and problems."""

    def __init__(self) -> None:
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []

    def build(self, path: KeyPath, node: Node, key: Mark | None) -> Any:
        here = _mark(node.start_mark)
        self.places[path] = Place(here, key)
        if len(self.places) > _VALUES_MAX:
            raise UnreadableError(Problem(here, f"more than {_VALUES_MAX} values"))
        self._refuse_tags(node, here)
        match node:
            case MappingNode():
                return self._mapping(path, node)
            case SequenceNode():
                return [self.build((*path, index), item, None) for index, item in enumerate(node.value)]
            case _:
                return self._scalar(node)

    def _mapping(self, path: KeyPath, node: MappingNode) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at = _mark(key_node.start_mark)
            if not isinstance(key_node, ScalarNode):
                self.problems.append(Problem(at, "a key has to be text, found a list or a mapping"))
                continue
            name = str(key_node.value)
            if name in built:
                noun = NOUNS.get(str(path[-1]) if path else "", "key")
                first = self.places[*path, name].key
                assert first is not None
                self.problems.append(Problem(at, f"{noun} '{name}' is given twice, first in line {first.line}"))
                continue
            built[name] = self.build((*path, name), value_node, at)
        return built

    def _refuse_tags(self, node: Node, here: Mark) -> None:
        if str(node.tag) not in _TAGS:
            tag = str(node.tag).replace(_YAML, "!!")
            self.problems.append(Problem(here, f"the tag {tag} is not allowed: wanted a plain value"))

    def _scalar(self, node: Node) -> Any:
        text = str(node.value)
        try:
            return _SCALARS.get(str(node.tag), str)(text)
        except ValueError:  # such as ``!!int red``, or digits beyond what int() accepts
            return text


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


# ---------------------------------------------------------------------------------------------------------- syntax


class _Syntax(NamedTuple):
    """How ruamel words a kind of problem, and how we do."""

    problem: str
    context: str
    at_context: bool
    """Whether to point at where the unfinished thing opened instead of where it failed."""
    sentence: str


_SYNTAX: Final = (
    _Syntax("'\\t'", "", at_context=False, sentence="wanted spaces, found a tab: YAML is indented with spaces only"),
    _Syntax("end of stream", "quoted scalar", at_context=True, sentence="a quote opens here and is never closed"),
    _Syntax(
        "", "flow sequence", at_context=True, sentence="a '[' opens here and is never closed, or a comma is missing"
    ),
    _Syntax(
        "", "flow mapping", at_context=True, sentence="a '{' opens here and is never closed, or a comma is missing"
    ),
    _Syntax(
        "another document",
        "",
        at_context=False,
        sentence="wanted one topology a file, found a second document ('---')",
    ),
    _Syntax("undefined alias", "", at_context=False, sentence="an alias ('*') whose anchor ('&') does not stand above"),
    _Syntax(
        "mapping values are not allowed",
        "",
        at_context=False,
        sentence="a ':' is not allowed here: is the line indented as the ones around it, and text with ': ' quoted?",
    ),
    _Syntax(
        "expected <block end>",
        "",
        at_context=False,
        sentence="the indentation is wrong: wanted this line to start where the others of its group start",
    ),
    _Syntax(
        "sequence entries are not allowed",
        "",
        at_context=False,
        sentence="a list item ('-') is not allowed here: wanted it on a line of its own",
    ),
    _Syntax(
        "<document start>",
        "",
        at_context=False,
        sentence="wanted lines such as 'name: red', found text that stands alone",
    ),
    _Syntax("could not find expected ':'", "", at_context=True, sentence="wanted 'key: value', found no ':'"),
    _Syntax(
        "cannot start any token",
        "",
        at_context=False,
        sentence="a value cannot start with this character unless it is quoted",
    ),
)


def _syntax_problem(error: MarkedYAMLError, text: str) -> Problem:
    """What a person probably did, where ruamel speaks of tokens and blocks."""
    mark = _mark(error.problem_mark) if error.problem_mark else Mark(1, 1)
    context = _mark(error.context_mark) if error.context_mark else mark
    found = str(error.problem or "")
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Problem(mark, _SYNTAX[0].sentence)
    if "flow mapping" in str(error.context or "") and (value := next(placeholders(line), None)):
        return Problem(mark, f"text with {value} in it has to be quoted here, inside of other braces")
    for known in _SYNTAX:
        if known.problem in found and known.context in str(error.context or ""):
            return Problem(context if known.at_context else mark, known.sentence)
    return Problem(mark, f"this is not valid YAML: {found or error.context}")


# ----------------------------------------------------------------------------------------------------------- words


def shown(value: Any) -> str:
    """A found value in a few words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return _shown_keys([str(key) for key in value])
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case _:
            return str(value)


def _shown_keys(keys: list[str]) -> str:
    if len(keys) == 1 and next(placeholders(braced := f"{{{keys[0]}}}"), None):
        return f"{braced} without quotes"  # YAML takes it for a mapping
    return f"keys with values ({', '.join(keys[:3])})" if keys else "an empty mapping"
