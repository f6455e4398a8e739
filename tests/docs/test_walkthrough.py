"""Types what the documentation tells people to type: every command of a page, as printed and in order, on a machine of
its own (`tests.support.place`), and compares what comes with what the page shows.

What cannot be typed here is in `EXEMPT`, with the reason. Times, rates and names made from MAC addresses are not compared
(`tests.support.pages.plain`).
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.support.pages import PAGES, Command, commands, difference, goes_on, name
from tests.support.place import Place
from tests.support.project import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]

EXEMPT: Final = {
    r"vagrant ": "needs a hypervisor; tests/unit/setup reads the Vagrantfile",
    r"make (setup|test)\b": "installs from a registry, and is what runs this test",
    r"make check\b": "part of `make test`, which runs this test",
    r"make bench": "a minute and more each, and takes the whole machine; tests/lab/test_bench.py runs them small",
    r"make chaos$": "two minutes; the command below it does the same, as long as it says",
    r".* --ssh ": "there is no such machine; tests/unit/testbed/deploy has one that is made up",
    r"(podman|docker) ": "builds from an image that a registry has",
    r"kubectl ": "there is no Kubernetes cluster; the manifest is held against its published schemas",
}
"""Beginnings of commands that cannot be typed here, and why."""

SHORTER: Final = {"--seconds 3600": "--seconds 2", "--seconds 60": "--seconds 2", "--pause 8": "--pause 0"}
"""Times that only make a test longer."""

ONCE: Final = (
    r"(?:make scenario|bash testbed/setup/scenario\.sh topologies/two-nodes\.yaml|weavelab run)$",
    r"(?:make|weavelab) demo(?: --auto| --pause \d+| > demo\.txt| --analogy| ARGS='.*')*$",
)
"""Ways to do the same, which leaves nothing behind and takes ten seconds: the first in the documentation is typed."""

BEFORE: Final = {
    "docs/reference/agent.md": ["weavelab up"],
    "docs/reference/cli.md": ["weavelab up"],
}
"""What a page takes for granted: the lab that its commands are for."""

NEEDS: Final = {"curl": "curl", "containerd": "containerd", "ctr": "containerd"}
"""Programs that the set-up does not bring by default: without them a command is not typed."""

LOOKS: Final = re.compile(
    r"weavelab status|-- weave (?:status|ps|report)|-- ping|weavelab (?:logs|pod list)|-- grep|-c 'weave (?:status|ps|report)"
)
"""Commands that change nothing. What they show may come true a little later, so they are typed again until it has."""

SAYS_NO: Final = {"weavelab exec node1 -- weave recover": 1}
"""What the glossary names and a whole lab refuses."""

LONGEST: Final = "docs/guide/cluster.md"

MACHINES: Final = {"docs/guide/install.md"}
"""Pages that install on the machine itself."""


def exempt(command: Command) -> str:
    return next((reason for line, reason in EXEMPT.items() if re.match(line, bare(command.line))), "")


def bare(line: str) -> str:
    return re.sub(r"^(?:sudo )?(?:\.venv/bin/)?", "", line)


def missing(command: Command) -> bool:
    return any(re.search(rf"\b{word}\b", command.run) and shutil.which(tool) is None for word, tool in NEEDS.items())


def typed(page: Path) -> list[Command]:
    """What is typed of a page: all but what is exempt, and what an earlier page has done already."""
    before = [bare(command.line) for earlier in PAGES[: PAGES.index(page)] for command in commands(earlier)]
    found = []
    for command in commands(page):
        line = bare(command.line)
        same = next((same for same in ONCE if re.match(same, line)), None)
        if not exempt(command) and not (same and any(re.match(same, other) for other in before)):
            found.append(command)
        before.append(line)
    return found


def shortened(line: str) -> str:
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    return line


def wrong(command: Command, code: int, output: str) -> str:
    """What is not as the page says; empty when all is."""
    if command.endless:  # when it is ended is chance, and so is what it has shown by then
        return "" if code in {0, 130} else f"exit code {code} after Ctrl-C"
    if code != command.exit_code:
        return f"exit code {code}, not {command.exit_code}"
    return difference(command, output)


def type_in(place: Place, command: Command, *, patient: bool = False) -> tuple[int, str]:
    """Type it; again, when it looks at what may come true a little later, or follows a `sleep` that may be too short."""
    line = shortened(command.run)
    if "weavelab capture" in line:  # which shows what passes: something has to
        with place.meanwhile("weavelab exec red -- ping -i 0.2 10.40.0.2"):
            return place.run(line, endless=command.endless)
    if command.endless or (not patient and not LOOKS.search(line)):
        return place.run(line, within_s=100, endless=command.endless)
    accept: Callable[[int, str], bool] = lambda code, output: not wrong(command, code, output)  # noqa: E731
    return place.wait_for(line, accept)


def test_what_is_exempt_is_in_the_documentation() -> None:
    lines = [bare(command.line) for page in PAGES for command in commands(page)]
    assert [line for line in EXEMPT if not any(re.match(line, text) for text in lines)] == []
    assert [text for text in SHORTER if not any(text in line for line in lines)] == []
    assert [page for page in (*BEFORE, *MACHINES) if not typed(ROOT / page)] == []


def type_page(page: Path, folder: Path) -> str:
    """Type a page on a machine of its own: what is wrong with it, or nothing."""
    with a_place(folder, machine=name(page) in MACHINES) as place:
        for line in BEFORE.get(name(page), []):
            code, output = place.run(line)
            assert code == 0, output
        slept = False
        for command in typed(page):
            if missing(command):
                continue
            code, output = type_in(place, command, patient=slept)
            problem = wrong(command, code, output)
            if problem:
                return f"{name(page)}: {command.line}\n{problem}\nAll that came:\n{output}"
            slept = command.line.startswith("sleep ")
    return ""


@contextlib.contextmanager
def a_place(folder: Path, *, machine: bool = False) -> Iterator[Place]:
    """A machine for a while; nothing of labs may be left on it."""
    place = Place(folder, machine=machine)
    try:
        yield place
        place.run("weavelab down --all --wait")
        left = place.leftovers()
    finally:
        place.close()
    assert left == []


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[str]]]:
    """The pages that are asked for, three at a time: most of it is waiting, of the longest one nearly all."""
    wanted = {
        item.callspec.params["page"]
        for item in request.session.items
        if item.module is request.module and "page" in getattr(getattr(item, "callspec", None), "params", {})
    }
    order = sorted(wanted, key=lambda page: (name(page) != LONGEST, page))
    with ThreadPoolExecutor(3) as pool:
        yield {name(page): pool.submit(type_page, page, tmp_path_factory.mktemp(page.stem)) for page in order}
        pool.shutdown(cancel_futures=True)


def spans(page: str, pattern: str) -> list[str]:
    return re.findall(pattern, (ROOT / page).read_text())


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("results")  # the pages begin in the background
def test_the_commands_in_the_tables_of_glossary_and_exam_show_something(tmp_path: Path) -> None:
    lines = [
        f"weavelab exec {span}"
        for span in spans("docs/glossary.md", r"`((?:node\d|red|outside|underlay) -- (?!\.\.\.)[^`]+)`")
    ]
    lines += [f"weavelab cli -c '{span}'" for span in spans("docs/exam.md", r"\| `((?:red|node1) [^`]+|pingall)`")]
    assert len(lines) > 30
    wrong = []
    with a_place(tmp_path) as place:
        code, output = place.run("weavelab up")
        assert code == 0, output
        for line in lines:
            if shutil.which("curl") is None and "curl" in line:
                continue
            endless = goes_on(line, "")
            code, output = place.run(line, endless=endless)
            if code not in ({0, 130} if endless else {SAYS_NO.get(line, 0)}) or not output.strip():
                wrong.append(f"{line}: exit code {code}: {output}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=name)
def test_a_page_can_be_typed_from_its_first_command_to_its_last(page: Path, results: dict[str, Future[str]]) -> None:
    problem = results[name(page)].result()
    assert not problem, problem
