"""The documentation names nothing that does not exist: links, files, make targets, commands, options, keys, events.

What its examples do when they are run is in test_walkthrough.py.
"""

import ast
import contextlib
import importlib.util
import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from testbed.cli.main import weavelab
from tests.support.pages import FENCE, PAGES, blocks, first_cells, name, slug
from tests.support.project import ROOT

README_LINES_MAX = 85
"""A screen, and the links."""

EXAMPLE_FILES = {"topologies/yours.yaml"}
NO_COMMANDS = {"...", "needs"}
"""What may follow `weavelab` besides a command: left out, or the words of a message."""

MAKE_VARIABLES = re.compile(r"\b([A-Z][A-Z_]+)=")


def prose(page: Path) -> str:
    """The page without code blocks; code in a line stays."""
    return FENCE.sub("", page.read_text())


def code(page: Path) -> Iterator[str]:
    """Everything that is written as code: lines of blocks, and what stands between backticks."""
    for language, text in blocks(page):
        if language not in {"mermaid", "json", "yaml"}:
            yield from text.splitlines()
    for span in re.finditer(r"(`+)(.+?)\1", prose(page)):
        yield span[2]


def anchors(page: Path) -> set[str]:
    return {slug(found[1]) for found in re.finditer(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every `weavelab ...` and `make ...` line or span: program first."""
    for line in code(page):
        text = re.sub(r"^\s*(\$ )?(sudo )?(\.venv/bin/)?", "", line)
        if not re.match(r"(weavelab|make) \S", text):
            continue
        try:
            yield before_pipe(shlex.split(text, comments=True))
        except ValueError:
            pytest.fail(f"{name(page)}: {line!r} is no command line")


def before_pipe(words: list[str]) -> list[str]:
    """The words of a command line's first command."""
    return next((words[:place] for place, word in enumerate(words) if word in {"|", "||", "&&", ";", ">"}), words)


def command(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """The command of a line, of `weavelab pod add ...` it is `add`, and the words that are its own."""
    found, own = weavelab.get_command(click.Context(weavelab), words[1]), words[2:]
    if isinstance(found, click.Group) and own and own[0] in found.commands:
        found, own = found.commands[own[0]], own[1:]
    return found, own


# ---------------------------------------------------------------------------------------------------- links and files


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
    assert [name(page) for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(
        r"(?<![\w./-])((?:plugin|testbed|topologies|templates|tests|docs|bench|\.ci)/[\w./*<>-]*\w\*?/?)",
        page.read_text(),
    )
    missing = [
        path for path in named if "<" not in path and path not in EXAMPLE_FILES and not any(ROOT.glob(path.rstrip("/")))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_python_module_that_is_run_exists(page: Path) -> None:
    modules = re.findall(r"python -(?:P -)?m ((?:plugin|testbed)[\w.]*)", page.read_text())
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_path_of_a_developers_machine_is_named(page: Path) -> None:
    assert re.findall(r"/work/\S*|\bshared/\S+|/root/\S+|/home/\w+\S*", page.read_text()) == []


def test_the_picture_is_a_picture() -> None:
    assert ET.fromstring((ROOT / "docs/picture.svg").read_text()).tag == "{http://www.w3.org/2000/svg}svg"


# ------------------------------------------------------------------------------------------------------------ commands


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    vm_targets = re.search(r"^VM_TARGETS := (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    assert vm_targets is not None
    return {*phony[1].split(), *vm_targets[1].split()}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_and_variable_that_is_named_exists(page: Path) -> None:
    known, makefile = make_targets(), (ROOT / "Makefile").read_text()
    unknown = []
    for words in command_lines(page):
        if words[0] != "make":
            continue
        for word in words[1:]:
            variable = MAKE_VARIABLES.match(word)
            if variable is not None:
                unknown += [] if variable[1] in makefile else [word]
            elif re.fullmatch(r"[a-z][a-z-]*", word) and word not in known:
                unknown.append(word)
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_weavelab_command_and_option_that_is_named_exists(page: Path) -> None:
    unknown = []
    for words in command_lines(page):
        if words[0] != "weavelab" or words[1].startswith("-") or words[1].isupper() or words[1] in NO_COMMANDS:
            continue
        found, own = command(words)
        if found is None:
            unknown.append(" ".join(words))
            continue
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        own = own[: own.index("--")] if "--" in own else own
        if words[1] == "exec":  # after the target, options are the inner command's
            own = own[: next((place for place, word in enumerate(own) if not word.startswith("-")), len(own))]
        given = [word.partition("=")[0] for word in own if re.match(r"--?[a-z]", word)]
        unknown += [f"{words[1]} {word}" for word in given if word not in known | {"--help", "-h"}]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_console_example_parses(page: Path) -> None:
    for language, text in blocks(page):
        if language != "console":
            continue
        for line in text.splitlines():
            if not line.startswith("$ "):
                continue
            checked = subprocess.run(["bash", "-n", "-c", line[2:]], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, f"{line}: {checked.stderr}"
            words = shlex.split(line[2:], comments=True)
            if ".venv/bin/weavelab" not in words:
                continue
            words = before_pipe(words[words.index(".venv/bin/weavelab") :])
            found, own = command(words)
            assert found is not None, line
            with contextlib.suppress(click.BadParameter):  # such as a file that an earlier command of the page makes
                found.make_context(words[1], own)


# ----------------------------------------------------------------------------------------------------------- reference


def test_the_reference_of_the_agent_lists_its_configuration() -> None:
    from plugin.agent.config import AgentConfig

    assert first_cells("docs/reference/agent.md", "Configuration") == set(AgentConfig.__struct_fields__)


def test_the_reference_of_the_agent_lists_its_metrics() -> None:
    exposed = set(re.findall(r'^ +\(?"(weave_\w+)",', (ROOT / "plugin/agent/api/status.py").read_text(), re.MULTILINE))
    exposed |= set(re.findall(r'\("(weave_\w+)",', (ROOT / "plugin/agent/api/status.py").read_text()))
    assert first_cells("docs/reference/agent.md", "Metrics") == exposed


def test_the_reference_of_the_agent_lists_its_requests() -> None:
    code = (ROOT / "plugin/agent/api/routes.py").read_text()
    served = set(re.findall(r'\("(GET|POST)", "(/[\w/]+)"\)', code))
    served |= {("POST", f"/{verb}") for verb in re.findall(r"actions\.(\w+)", code)}
    assert first_cells("docs/reference/agent.md", "API") == {f"{method} {path}" for method, path in served}


def test_the_reference_of_the_agent_lists_its_log_events() -> None:
    logged = set()
    for file in (ROOT / "plugin/agent").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"debug", "info", "warning", "error", "exception"}
                and isinstance(node.func.value, ast.Name | ast.Attribute)
                and "log" in ast.unparse(node.func.value)
            ):
                logged.add(ast.literal_eval(node.args[0]))
    for file in (ROOT / "plugin/core").rglob("*.py"):
        logged |= set(re.findall(r'Noted\(\s*"([^"]+)"', file.read_text()))
    assert first_cells("docs/reference/agent.md", "Log") == logged


@pytest.mark.parametrize(
    ("method", "heading"),
    [("status", "`/status`"), ("endpoints", "`/endpoints`"), ("report", "`/report`, beyond `/status`")],
)
def test_the_reference_of_the_agent_lists_the_keys_of_its_answers(method: str, heading: str) -> None:
    text = (ROOT / "docs/reference/agent.md").read_text()
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^#+ )", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    tree = ast.parse((ROOT / "plugin/agent/api/status.py").read_text())
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == method)
    keys = {
        key.value
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }
    assert keys - set(re.findall(r"`([\w]+)`", section[1])) == set()


# -------------------------------------------------------------------------------------------------- README, decisions


def test_the_readme_is_one_screen_and_links() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES_MAX


def test_the_output_in_the_readme_fits_the_default_topology() -> None:
    from testbed.topology.load import load_topology

    topology = load_topology(ROOT / "topologies/two-nodes.yaml")
    (output,) = [text for language, text in blocks(ROOT / "README.md") if language == "text"]
    steps = [step for scenario in topology.scenarios for step in scenario.steps]
    assert f"{len(steps)} steps: {len(steps)} passed" in output
    for number, scenario, description in re.findall(r"^scenario (\d) of \d, ([\w-]+): (.+)$", output, re.MULTILINE):
        found = topology.scenarios[int(number) - 1]
        assert (found.name, found.description) == (scenario, description)
    named = {step.name for step in steps if step.name}
    shown = re.findall(r"^  PASS   (.+?)  \(", output, re.MULTILINE)
    assert shown
    assert [title for title in shown if title not in named and not re.match(r"(ping|iperf|wire) ", title)] == []


DECISIONS = sorted(ROOT.glob("docs/adr/[0-9]*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_has_its_parts_and_is_listed(page: Path) -> None:
    text = page.read_text()
    number = int(page.name[:4])
    assert re.match(rf"# {number}\. \S", text)
    assert re.search(r"^Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    assert re.search(r"^Status: (proposed|accepted|replaced)", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert f"[{number}]({page.name})" in (ROOT / "docs/adr/README.md").read_text()


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_every_word_of_the_glossary_is_explained_once() -> None:
    rows = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| **")]
    words = [word for row in rows for word in re.findall(r"\*\*(.+?)\*\*", row.split("|")[1])]
    assert len(words) == len(set(words))
    wanted = (
        "lab node agent pod attachment switch underlay uplink overlay sleeve peer endpoint ring scenario fault walk"
    )
    assert set(words) >= set(wanted.split())


# ------------------------------------------------------------------------------------------------------ data in blocks

LAB = "name: lab\nnodes: {node1: , node2: }\n"
PODS = "pods: {red: {node: node1}, green: {node: node1}, blue: {node: node2}}\n"


def as_topology(text: str) -> str | None:
    """A block of YAML as a whole topology file, when it is one or a part of one."""
    if re.match(r"name: [a-z0-9-]+\n", text):
        return text
    if text.startswith("scenarios:\n"):
        return LAB + PODS + text
    if text.startswith("pods:\n"):
        return LAB + text
    if re.match(r"- (name: .*\n  )?(ping|iperf|wire|exec|pod|healthy|chaos):", text):
        return LAB + PODS + "scenarios:\n- name: one\n  steps:\n" + re.sub(r"^", "  ", text, flags=re.MULTILINE)
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_example_of_a_topology_or_a_part_of_one_is_right(page: Path) -> None:
    from testbed.topology.load import parse_topology

    for language, text in blocks(page):
        whole = as_topology(text) if language == "yaml" else None
        if whole is not None:
            parse_topology(whole, file=name(page))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_example_in_json_or_yaml_can_be_read(page: Path) -> None:
    from ruamel.yaml import YAML

    for language, text in blocks(page):
        if language == "json":
            json.loads(text)
        if language == "yaml":
            YAML(typ="safe").load(text)


def test_examples_of_topologies_are_found() -> None:
    found = [as_topology(text) for page in PAGES for language, text in blocks(page) if language == "yaml"]
    assert len([text for text in found if text is not None]) >= 5
