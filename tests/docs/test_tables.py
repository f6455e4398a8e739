"""Tables that repeat what the code says are what the code says now."""

import re
from pathlib import Path
from typing import get_args

import pytest

from plugin.core import errors
from plugin.tool import weave
from testbed.topology.steps import FAULT_KINDS, KINDS, Kind
from tests.docs.tables import PAGES
from tests.support.pages import first_cells, name
from tests.support.project import ROOT


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_table_is_what_the_code_says(page: Path) -> None:
    text = page.read_text()
    assert PAGES[page](text) == text, "write it anew: .venv/bin/python -m tests.docs.tables"


def test_the_guide_tells_of_every_kind_of_step_and_of_fault() -> None:
    guide = (ROOT / "docs/guide/scenarios.md").read_text()
    assert [kind for kind in KINDS if f"### {kind}\n" not in guide] == []
    assert first_cells("docs/guide/scenarios.md", "chaos") == set(FAULT_KINDS)
    assert set(get_args(Kind)) == set(KINDS)


@pytest.mark.parametrize("page", ["docs/guide/scenarios.md", "docs/reference/report.md", "docs/glossary.md"])
def test_who_lists_the_kinds_of_steps_lists_all(page: str) -> None:
    text = (ROOT / page).read_text()
    assert f"{', '.join(f'`{kind}`' for kind in KINDS[:-1])} or `{KINDS[-1]}`" in " ".join(text.split())


def test_the_changelog_names_every_shipped_topology() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert [path.stem for path in (ROOT / "topologies").glob("*.yaml") if f"`{path.stem}`" not in changes] == []


def test_the_reference_of_the_plugin_lists_its_error_codes() -> None:
    code = (ROOT / "plugin/core/cni/types.py").read_text().partition("INCOMPATIBLE_VERSION")
    made = {int(number) for number in re.findall(r"^[A-Z_]+: Final = (\d+)$", code[1] + code[2], re.MULTILINE)}
    assert {int(number) for number in numbers("docs/reference/cni.md", "Error codes")} >= made


def test_the_reference_of_weave_lists_its_commands() -> None:
    told = {
        line.split()[1]
        for line in first_cells("docs/reference/weave.md", "The command `weave` on a node")
        if line.startswith("weave ")
    }
    listed = re.findall(r"^  (\w+(?: \| \w+)?) ", weave.USAGE, re.MULTILINE)
    assert told == {word for words in listed for word in words.split(" | ")}
    page = (ROOT / "docs/reference/weave.md").read_text()
    assert [f"weave status {table}" for table in weave.STATUS if f"| `weave status {table}` |" not in page] == []


def test_the_guide_of_the_prompt_lists_its_commands() -> None:
    text = (ROOT / "testbed/prompt/commands.py").read_text()
    told = " ".join(first_cells("docs/guide/lab.md", "The prompt"))
    assert [word for word in re.findall(r"def do_(\w+)", text) if not re.search(rf"\b{word}\b", told)] == []


def test_the_errors_of_the_code_have_the_exit_codes_that_are_told() -> None:
    codes = {error.exit_code for error in (errors.CheckError, errors.InputError, errors.MissingError)}
    assert {int(code) for code in numbers("docs/reference/cli.md", "Exit codes")} >= codes | {0}


def test_the_page_of_the_virtual_machine_lists_its_targets_and_variables() -> None:
    page = (ROOT / "docs/guide/vagrant.md").read_text()
    targets = re.search(r"^VM_TARGETS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    *others, last = targets[1].split()
    assert set(re.findall(r"`(?:make )?([a-z]+)`", page.partition("has a VM, ")[2].partition(" run in it")[0])) == {
        *others,
        last,
    }
    read = set(re.findall(r"WEAVELAB_[A-Z_]+", (ROOT / "Vagrantfile").read_text()))
    assert sorted(read - set(re.findall(r"WEAVELAB_[A-Z_]+", page))) == []


def test_the_guide_of_the_set_up_says_which_targets_a_variable_is_for() -> None:
    page, makefile = (ROOT / "docs/guide/install.md").read_text(), (ROOT / "Makefile").read_text()
    for variable in ("TOPOLOGY", "LAB", "PYTEST_ARGS"):
        row = re.search(rf"^\| `{variable}=[^`]*` \| ([a-z, -]+) \|", page, re.MULTILINE)
        assert row is not None
        rules = re.findall(r"^([a-z-]+):.*## .*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
        assert set(row[1].split(", ")) == {
            target for target, recipe in rules if target != "help" and f"({variable})" in recipe.replace(",", ")")
        }


def numbers(page: str, heading: str) -> list[str]:
    """The numbers in the first column of the table below a heading."""
    section = (ROOT / page).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| *`?(\d+)`? *\|", section, re.MULTILINE)
