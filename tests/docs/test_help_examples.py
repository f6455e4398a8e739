"""Executes every example of every `--help`, on a machine of its own (`tests.support.place`), with the labs it is about.

The examples are taken from the commands themselves, so a new one is executed, too. Before each the labs `two-nodes` and `b`
are up, as far as the example speaks of them (`labs_for`), and the files that examples read are in the folder. What cannot
be executed here is in `EXEMPT`, with the reason.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import pytest

from testbed.cli.main import weavelab
from tests.docs.tables import tree
from tests.support.pages import goes_on
from tests.support.place import Place
from tests.support.project import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]

EXEMPT: Final = {
    r"weavelab deploy --ssh ": "there is no such machine; tests/unit/testbed/deploy has one that is made up",
    r"weavelab deploy --local --peer ": "wants another machine; tests/unit/testbed/deploy has one that is made up",
}
"""Beginnings of examples that cannot be executed here, and why."""

SHORTER: Final = {"--seconds 3600": "--seconds 2", "--pause 8": "--pause 0", "| less": "| cat"}
"""What only makes a test longer, or wants a person."""

SHIPPED: Final = {path.stem for path in (ROOT / "topologies").glob("*.yaml")}

MAKES_LABS: Final = {"up", "run", "demo"}
"""Commands that bring a lab up by themselves, unless they are told of one (`--lab`)."""

INSTALLS: Final = {"deploy", "completion"}
"""Commands whose examples write to the machine: they get one of their own, without labs."""

GUESTS: Final = ("yellow", "orange")
"""Pods that examples add to the lab, and others take for granted."""

CONTAINERD: Final = "--runtime"
"""What only a lab with a real containerd can answer."""

TRAFFIC: Final = "weavelab exec red -- ping -i 0.2 10.40.0.2"
"""What there is to see for who captures."""

FAILS: Final[dict[str, int]] = {}
"""Examples that end with another exit code than 0, and with which."""

FILES: Final = {
    "commands.txt": "nodes\nred ping -c1 blue\n",
    "lab.yaml": "name: lab\nnodes:\n  node1:\n",
    "image/README": "",
    ".zfunc/README": "",
    ".config/fish/completions/README": "",
}
"""Files and folders that examples read."""

NEEDS: Final = {"containerd": "containerd", "tcpdump": "tcpdump"}


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a command's help.

    Attributes:
        words: The command whose help it is, without `weavelab`.
        line: What to type.
        comment: What the help says of it.
    """

    words: tuple[str, ...]
    line: str
    comment: str

    @property
    def command(self) -> str:
        return self.words[0] if self.words else "weavelab"

    @property
    def named(self) -> str:
        return f"{' '.join(self.words) or 'weavelab'}: {self.line}"


def examples_of(words: tuple[str, ...], command: click.Command) -> Iterator[Example]:
    """The lines below "Examples:" that are indented by two; behind two blanks stands what they do."""
    _, _, listed = (command.epilog or "").partition("Examples:\n")
    for line in listed.partition("\n\n")[0].splitlines():
        if re.match(r" {2}\S", line):
            typed, *comment = re.split(r" {2,}|\s# ", line.strip(), maxsplit=1)
            yield Example(words, typed, " ".join(comment))


def all_examples() -> list[Example]:
    context = click.Context(weavelab, info_name="weavelab")
    commands = [((), weavelab), *tree(weavelab, context)]
    return [example for words, command in commands for example in examples_of(words, command)]


EXAMPLES: Final = all_examples()


def labs_for(example: Example) -> set[str]:
    """The labs that have to be up: none for what makes its own, else the default one and those that it names, by their
    topologies or as the second one, `b`; two when it speaks of all.
    """
    made = re.search(r"--name (\S+)", example.line)
    ours = re.search(r"weavelab (\w+)", example.line)
    if ours and ours[1] in MAKES_LABS and "--lab" not in example.line:
        return {"two-nodes"} if made and made[1] == "b" else set()
    named = {lab for lab in SHIPPED if re.search(rf" {lab}(?= |$)", example.line)}
    return {"two-nodes", *named, *(["b"] if re.search(r" (?:b|--all)(?= |$)", example.line) else [])}


def prepare(place: Place, example: Example) -> None:
    """Have the labs up that it speaks of, and the pods there that it does not add itself."""
    kubelet = " --kubelet containerd" if CONTAINERD in example.line else ""
    wanted = labs_for(example)
    _, output = place.run("ls /run/weavelab 2>/dev/null || true")
    if set(output.split()) != wanted or kubelet:
        files = {lab: f"topologies/{lab if lab in SHIPPED else 'two-nodes'}.yaml" for lab in sorted(wanted)}
        for line in [
            "weavelab down --all",
            *(f"weavelab up {file} --name {lab}{kubelet}" for lab, file in files.items()),
        ]:
            code, output = place.run(line)
            assert code == 0, output
    for guest in GUESTS:
        if re.search(rf"\b{guest}\b", example.line):
            there = place.run(f"ls /run/netns/two-nodes-{guest}")[0] == 0
            if there and f"pod add {guest}" in example.line:
                place.run(f"weavelab pod delete {guest}")
            elif not there and f"pod add {guest}" not in example.line:
                place.run(f"weavelab pod add {guest} --node node1")


def execute(place: Place, example: Example) -> str:
    """What is wrong with it; empty when nothing is."""
    if example.command not in INSTALLS:
        prepare(place, example)
    line = example.line
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    endless = goes_on(example.line, example.comment)
    traffic = place.meanwhile(TRAFFIC) if "weavelab capture" in line else contextlib.nullcontext()
    try:
        with traffic:
            code, output = place.run(line, endless=endless)
    except AssertionError as error:  # it does not end
        return str(error)
    wanted = {0, 130} if endless else {FAILS.get(example.line, 0)}
    return "" if code in wanted else f"{example.line}: exit code {code}\n{output}"


def execute_all(examples: list[Example], folder: Path) -> dict[str, str]:
    """The examples of one command, in their order, on a machine of its own: what is wrong with each."""
    place = Place(folder, machine=examples[0].command in INSTALLS)
    try:
        for file, text in FILES.items():
            (place.tree / file).parent.mkdir(parents=True, exist_ok=True)
            (place.tree / file).write_text(text)
        found = {example.named: execute(place, example) for example in examples}
        place.run("weavelab down --all --wait")
        left = place.leftovers()
    finally:
        place.close()
    assert left == []
    return found


def why_not(example: Example) -> str:
    """Why it is not executed here; empty when it is."""
    reason = next((reason for line, reason in EXEMPT.items() if re.match(line, example.line)), "")
    if CONTAINERD in example.line and shutil.which("containerd") is None:
        return "containerd is not installed"
    lacks = [program for word, program in NEEDS.items() if word in example.line and shutil.which(program) is None]
    return reason or (f"{lacks[0]} is not installed" if lacks else "")


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[dict[str, str]]]]:
    """By command, the ones that are asked for; three commands at a time, since most of it is waiting."""
    commands: dict[str, list[Example]] = {}
    for item in request.session.items:
        example = getattr(getattr(item, "callspec", None), "params", {}).get("example")
        if isinstance(example, Example) and not why_not(example):
            commands.setdefault(example.command, []).append(example)
    order = sorted(commands, key=lambda command: command not in MAKES_LABS)  # these take longest
    with ThreadPoolExecutor(3) as pool:
        yield {
            name: pool.submit(execute_all, commands[name], tmp_path_factory.mktemp(f"help-{name}")) for name in order
        }
        pool.shutdown(cancel_futures=True)


def test_every_command_has_examples() -> None:
    context = click.Context(weavelab, info_name="weavelab")
    groups = {words[:1] for words, command in tree(weavelab, context) if isinstance(command, click.Group)}
    told = {example.words[:1] for example in EXAMPLES} if groups else {example.words for example in EXAMPLES}
    assert [words for words, _ in tree(weavelab, context) if words not in told and words[:1] not in told] == []


def test_what_is_exempt_is_an_example() -> None:
    lines = [example.line for example in EXAMPLES]
    assert [line for line in EXEMPT if not any(re.match(line, text) for text in lines)] == []
    assert [line for line in FAILS if line not in lines] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.named)
def test_an_example_does_what_the_help_says(example: Example, results: dict[str, Future[dict[str, str]]]) -> None:
    if reason := why_not(example):
        pytest.skip(f"not executed: {reason}")
    problem = results[example.command].result()[example.named]
    assert not problem, problem
