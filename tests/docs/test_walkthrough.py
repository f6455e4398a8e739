"""Runs what the documentation tells people to type: every command of its pages that ends by itself and changes nothing.

The pages write commands for the lab `two-nodes`; here they are run, word for word otherwise, on a lab of another name, so
that a lab of the person who runs the tests is left alone.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

LAB = "docs-walk"
WEAVELAB = (sys.executable, "-m", "testbed")
LIMIT_S = 60

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
HARMLESS = {
    "ip",
    "bridge",
    "ls",
    "cat",
    "nft",
    "sysctl",
    "curl",
    "ping",
    "ss",
    "head",
    "hostname",
    "/opt/cni/bin/weave-net",
}
"""Programs that look and end; a ping only with a count."""

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]


def weavelab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*WEAVELAB, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def lab() -> Iterator[None]:
    weavelab("down", LAB)  # what a killed test run left
    came_up = weavelab("up", "--name", LAB)
    assert came_up.returncode == 0, came_up.stderr
    assert f"lab {LAB} is up: 2 nodes, 3 pods" in came_up.stdout
    yield
    went_down = weavelab("down", LAB)
    assert went_down.returncode == 0, went_down.stderr
    assert not Path("/run/weavelab", LAB).exists()


def is_safe(words: list[str]) -> bool:
    """Whether a `weavelab` command line may be run here: it looks, it ends, and it names the default lab or none."""
    verb = words[0]
    if any(re.search(r"^\[|^[A-Z]+$|\.\.\.", word) for word in words):  # a placeholder
        return False
    if verb in {"status", "logs", "graph"}:  # but not what goes on, writes a file, or is piped by a shell
        return not {"-f", "-o", "|", "--runtime"} & {*words}
    if verb == "cli":
        return "-c" in words
    if verb != "exec" or "--" not in words or "--lab" in words:
        return False
    inner = words[words.index("--") + 1 :]
    if not inner or inner[0] not in HARMLESS or (inner[0] == "ping" and not any(re.match("-c", w) for w in inner)):
        return False
    # What a shell would do is not done here; other targets belong to other topologies.
    return not any(re.search(r"[|<>$]", word) for word in inner) and words[1] in TARGETS


TARGETS = {"node1", "node2", "red", "green", "blue", "outside", "underlay"}


def lines_of_code() -> Iterator[tuple[str, str]]:
    """(page, line) of everything in a code block, and of the commands in the glossary's tables."""
    for page in PAGES:
        text, name = page.read_text(), str(page.relative_to(ROOT))
        for block in re.finditer(r"^ *```(?:console|text|sh|bash)?\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
            yield from ((name, line) for line in block[1].splitlines())
        yield from ((name, line) for line in re.findall(r"^ {4}(?:sudo .*|weavelab .*)$", text, re.MULTILINE))
    for span in re.findall(r"`((?:node1|red|outside|underlay) -- [^`]+)`", (ROOT / "docs/glossary.md").read_text()):
        yield "docs/glossary.md", f"weavelab exec {span}"


def commands() -> list[tuple[str, str, int]]:
    """(page, the words after `weavelab` as a line, exit code); a comment in the page may announce another than 0."""
    found = {}
    for page, line in lines_of_code():
        command = re.fullmatch(r"\s*(?:\$ )?(?:sudo )?(?:\.venv/bin/)?weavelab ([^#]+?)\s*(#.*)?", line)
        if command is None or not is_safe(shlex.split(command[1])):
            continue
        announced = re.search(r"exit code (\d+)", command[2] or "")
        found[page, command[1]] = int(announced[1]) if announced else 0
    return [(page, line, code) for (page, line), code in sorted(found.items())]


def for_our_lab(words: list[str]) -> list[str]:
    words = [word.replace("two-nodes", LAB) for word in words]
    if words[0] == "exec":
        return ["exec", "--lab", LAB, *words[1:]]
    if words[0] == "logs":
        return ["logs", "--lab", LAB, *words[1:]]
    return words if LAB in words or any(word.endswith(".yaml") for word in words) else [words[0], LAB, *words[1:]]


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 10
    assert {page for page, _, _ in commands()} >= {"docs/glossary.md", "docs/architecture/nodes.md"}


@pytest.mark.parametrize(
    ("page", "line"), [pytest.param(page, line, id=f"{page}: {line}") for page, line, code in commands() if code == 0]
)
def test_a_command_in_the_documentation_works(page: str, line: str) -> None:
    words = for_our_lab(shlex.split(line))
    if "curl" in words and shutil.which("curl") is None:
        pytest.skip("curl is not installed; the set-up does not need it")
    done = weavelab(*words)
    assert done.returncode == 0, f"{page}: {line}\n{done.stdout}{done.stderr}"
    if not {"/opt/cni/bin/weave-net", "/var/lib/weave/del-queue", "nft"} & set(words):  # these say nothing
        assert done.stdout.strip(), f"{page}: {line} shows nothing"


def test_pods_talk_on_while_an_agent_is_dead_as_the_page_on_crashes_says() -> None:
    page = (ROOT / "docs/architecture/crashes.md").read_text()
    for command in ("agent kill node1", "agent start node1", "agent restart node1 --lose-disk"):
        assert f"sudo .venv/bin/weavelab {command}\n" in page
    assert weavelab("agent", "kill", "node1", "--lab", LAB).returncode == 0
    assert weavelab("exec", "--lab", LAB, "red", "--", "ping", "-c2", "-i0.2", "10.40.0.2").returncode == 0
    assert weavelab("status", LAB).returncode == 1
    assert weavelab("agent", "start", "node1", "--lab", LAB).returncode == 0
    assert weavelab("agent", "restart", "node1", "--lose-disk", "--lab", LAB).returncode == 0
    assert weavelab("exec", "--lab", LAB, "red", "--", "ping", "-c2", "-i0.2", "10.40.0.2").returncode == 0
