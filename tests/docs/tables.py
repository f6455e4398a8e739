"""The tables of the documentation that repeat what the code says: `python -m tests.docs.tables` writes them anew.

- docs/reference/topology.md: the shipped topologies; below each marker ``<!-- Type -->`` the keys of that type
  (testbed/topology/model.py, steps.py);
- docs/reference/cli.md: the list of commands, and in the section of each its usage and its options (testbed/cli);
- docs/adr/README.md: the decisions, with their titles and states.

A page keeps all that stands around a table, and its own explanation of an option: names, values and their order come from
the command in any case, the meaning only in rows that bear the mark of it (`_FROM_HELP`). `test_tables.py` fails when a page differs from what this would write.
"""

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from testbed.cli.main import weavelab
from testbed.topology.load import load_topology
from testbed.topology.model import CIDR_PATTERN, IPV4_PATTERN, RATE_PATTERN
from testbed.topology.schema import schema
from tests.support.pages import slug
from tests.support.project import ROOT

TOPOLOGY: Final = ROOT / "docs/reference/topology.md"
DECISIONS: Final = ROOT / "docs/adr/README.md"
COMMANDS: Final = ROOT / "docs/reference/cli.md"

_PATTERNS: Final = {CIDR_PATTERN: "IPv4 range", IPV4_PATTERN: "IPv4 address", RATE_PATTERN: "rate, such as `10mbit`"}
_FROM_HELP: Final = "<!-- help -->"
"""Marks a meaning that is the text of `--help`, and is written anew with it."""

_SIMPLE: Final = {"boolean": "true or false", "string": "text"}


# ------------------------------------------------------------------------------------------------------ topology files


def topology_page(text: str) -> str:
    """The page with the keys of every type as they are.

    Raises:
        ValueError: A type has no place on it.
    """
    rows = ["| topology | nodes, pods | shows |", "|---|---|---|"]
    for path in sorted((ROOT / "topologies").glob("*.yaml")):
        shipped = load_topology(path)
        rows.append(f"| `{path.name}` | {len(shipped.nodes)}, {len(shipped.pods)} | {shipped.description} |")
    text = _replace(text, r"^\| topology \| .*\|\n", rows, where="the shipped topologies")

    types: dict[str, dict[str, Any]] = schema()["$defs"]
    anchors = {}
    for name in types:
        found = re.search(rf"^<!-- {name} -->\n#+ (.+)$", text, re.MULTILINE)
        if found is None:
            raise ValueError(f"{TOPOLOGY.name} has no section for {name}: a marker <!-- {name} --> and a heading")
        anchors[name] = (slug(found[1]), found[1].strip("`"))

    for name, part in types.items():
        rows = ["| Key | Type | Default | What it is |", "|---|---|---|---|"]
        for key, value in part["properties"].items():
            needed = key in part.get("required", ())
            cells = (
                f"`{key}`",
                _kind(value, anchors),
                "required" if needed else _default(value),
                _meaning(value, types),
            )
            rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
        before, marker, below = text.partition(f"<!-- {name} -->\n")
        own, *others = re.split(r"(?=^<!-- )", below, maxsplit=1, flags=re.MULTILINE)
        text = before + marker + _replace(own, r"^\| Key \| .*\|\n", rows, where=name) + "".join(others)
    return text


def _kind(value: dict[str, Any], anchors: dict[str, tuple[str, str]]) -> str:
    """What may be written behind a key, in words."""
    kind = value.get("type", "")
    if "$ref" in value:
        anchor, title = anchors[value["$ref"].rpartition("/")[2]]
        said = f"[{title}](#{anchor})"
    elif "anyOf" in value:
        said = " or ".join(_kind(choice, anchors) for choice in value["anyOf"]).replace("list of text", "list")
    elif "enum" in value:
        said = " or ".join(", ".join(f"`{choice}`" for choice in value["enum"]).rsplit(", ", 1))
    elif kind == "object":
        said = f"{_one(_kind(value['additionalProperties'], anchors))} by name"
    elif kind == "array":
        said = f"list of {_one(_kind(value['items'], anchors))}"
    elif kind in {"integer", "number"}:
        said = _bounds(value)
    else:
        limit = f", at most {value['maxLength']} characters" if "maxLength" in value else ""
        said = _PATTERNS.get(value.get("pattern", ""), _SIMPLE.get(kind, kind) + limit)
    return said


def _one(kind: str) -> str:
    """A kind that is called by the heading of many, for one of them."""
    return re.sub(r"^\[(\w+)s\]", r"[\1]", kind)


def _bounds(value: dict[str, Any]) -> str:
    low, above, high = value.get("minimum"), value.get("exclusiveMinimum"), value.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if above is not None:
        return f"more than {above}" + (f", at most {high}" if high is not None else "")
    return {None: "number"}.get(low, f"{low} or more")


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float) or (isinstance(default, str) and default):
        return f"`{default}`"
    return "" if default is None or default in ("", [], {}) or "$ref" in value else f"`{default}`"


def _meaning(value: dict[str, Any], types: dict[str, dict[str, Any]]) -> str:
    described = value.get("description")
    if described is None and "$ref" in value:
        described = types[value["$ref"].rpartition("/")[2]]["description"].split("\n")[0]
    assert described, f"a key without a description: {value}"
    return described.rstrip(".").replace("|", "\\|")


# ------------------------------------------------------------------------------------------------------------ commands


def commands_page(text: str) -> str:
    """The page with the commands, their usages and their options as click has them.

    Raises:
        ValueError: A command has no section, or its section no table of options.
    """
    context = click.Context(weavelab, info_name="weavelab")
    found = [(words[0], command) for words, command in tree(weavelab, context) if len(words) == 1]
    rows = [f"| [`weavelab {name}`](#{name}) | {_short(command)} |" for name, command in found]
    text = _replace(text, r"^\| command \| does \|\n", ["| command | does |", "|---|---|", *rows])
    for name, command in found:
        text = _section(text, name, functools.partial(_command, command, name))
    return text


def tree(
    group: click.Group, context: click.Context, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and command of a command, by its words."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from tree(command, context, (*before, name))


def _command(command: click.Command, name: str, section: str) -> str:
    """The section of a command; of a group, the usages of all its commands, and one table for them."""
    parts = list(command.commands.items()) if isinstance(command, click.Group) else [("", command)]
    told: dict[tuple[str, str], list[str]] = {}
    for word, part in parts:
        line = f"weavelab {name} {word}".strip()
        options = [option for option in part.params if isinstance(option, click.Option) and not option.hidden]
        needed = [_names(option).rpartition("`, `")[2].strip("`") for option in options if option.required]
        usage = " ".join((line, *part.collect_usage_pieces(click.Context(part, info_name=line)), *needed))
        section = re.sub(rf"^    {re.escape(line)} .*$", lambda _, to=usage: f"    {to}", section, flags=re.MULTILINE)
        for option in options:
            told.setdefault((_names(option), _help(option)), []).append(word)
    if not told:
        return section
    rows = ["| option | meaning |", "|---|---|"]
    for (names, said), words in told.items():
        whose = "" if len(words) == len(parts) else f"{', '.join(f'`{word}`' for word in words)}: "
        rows.append(f"| {names} | {_own(section, names) or f'{whose}{said} {_FROM_HELP}'} |")
    return _replace(section, r"^\| option \| .*\|\n", rows, where=f"the options of {name}")


def _own(section: str, names: str) -> str:
    """How the page itself explains an option, if it does: a row of that option alone, without the mark."""
    wanted = re.findall(r"--[\w-]+", names)
    for line in section.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) == 4 and re.findall(r"--[\w-]+", cells[1]) == wanted and _FROM_HELP not in cells[2]:
            return cells[2].strip()
    return ""


def _names(option: click.Option) -> str:
    """How an option is written, the short form first, with what stands behind it."""
    *others, last = sorted(option.opts, key=lambda name: name.startswith("--"))
    if not option.is_flag and not option.count:
        choices = "|".join(map(str, getattr(option.type, "choices", ())))
        last += f" {option.metavar or choices or option.type.name.upper()}"
    return ", ".join(f"`{name}`" for name in (*others, last)).replace("|", "\\|")


def _help(option: click.Option) -> str:
    said = re.sub(r"\s+\[default: (.+?)\]", r" Default: `\1`.", option.help or "")
    if option.show_default and option.default not in (None, ()):
        said += f" Default: `{option.default}`."
    said = re.sub(r"(?<![`\w-])(--[a-z][a-z-]*)(?!`)", r"`\1`", said).rstrip(".").replace("|", "\\|")
    return said[:1].lower() + said[1:] if said[1:2].islower() else said


def _short(command: click.Command) -> str:
    said = command.get_short_help_str(200).rstrip(".")
    return said[0].lower() + said[1:]


def _section(text: str, heading: str, change: Callable[[str], str]) -> str:
    """The page with what stands below a heading changed, up to the next one."""
    found = re.search(rf"^##+ `?{re.escape(heading)}`?\n(?:(?!^#).*\n)*", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{COMMANDS.name} has no section for the command {heading}")
    return text[: found.start()] + change(found[0]) + text[found.end() :]


def _replace(text: str, header: str, rows: list[str], *, where: str = "") -> str:
    found = re.search(rf"{header}(?:^\|.*\n)*", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"there is no table for {where}: no line {header}")
    return text[: found.start()] + "\n".join(rows) + "\n" + text[found.end() :]


# ----------------------------------------------------------------------------------------------------------- decisions


def decisions_page(text: str) -> str:
    """The list of decisions, with title and status as their pages have them."""
    rows = ["| no. | decision | status |", "|---|---|---|"]
    for page in sorted(DECISIONS.parent.glob("[0-9]*.md")):
        written = page.read_text()
        title = re.search(r"^# (\d+)\. (.+)$", written, re.MULTILINE)
        status = re.search(r"^Status: (.+(?:\n\S.+)*)$", written, re.MULTILINE)
        if title is None or status is None:
            raise ValueError(f"{page.name} has no title `# N. ...` or no line `Status: ...`")
        rows.append(f"| [{title[1]}]({page.name}) | {title[2]} | {' '.join(status[1].split())} |")
    return _replace(text, r"^\| no\. \| decision \| status \|\n", rows)


PAGES: Final[dict[Path, Callable[[str], str]]] = {
    TOPOLOGY: topology_page,
    COMMANDS: commands_page,
    DECISIONS: decisions_page,
}


def main() -> int:
    """Write every page anew that is not as it should be."""
    for page, make in PAGES.items():
        before = page.read_text()
        after = make(before)
        if after != before:
            page.write_text(after)
            sys.stdout.write(f"{page.relative_to(ROOT)} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
