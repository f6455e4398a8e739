"""The README compares figures: each of them stands on the page about benchmarks, with how it was measured."""

import re

from tests.support.project import ROOT


def rows() -> list[list[str]]:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("What was measured") : text.index("## What you will see")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"][
        2:
    ]


def test_every_figure_of_the_comparison_stands_on_the_page_about_benchmarks_or_says_how_it_was_taken() -> None:
    bench = (ROOT / "docs/reference/bench.md").read_text()
    assert len(rows()) >= 5
    for what, own, other, how in rows():
        if how.startswith("`time`"):
            continue
        for figure in re.findall(r"\d+\.\d+|\d+/\d+|\d+ MB", f"{own} {other}"):
            assert figure.replace(" MB", "") in bench, f"{what}: {figure}"
        assert how == "the same" or re.search(r"`make bench[a-z-]*`", how), what


def test_the_packages_that_the_readme_names_are_those_of_the_set_up() -> None:
    named = re.search(r"^\| `(iproute2 [^`]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    installed = re.search(r"^PACKAGES_RUN=\((.+)\)$", (ROOT / "testbed/setup/packages.sh").read_text(), re.MULTILINE)
    assert named is not None
    assert installed is not None
    assert named[1].split() == installed[1].split()


def test_the_demo_stands_above_the_fold() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert next(number for number, line in enumerate(lines) if "](docs/demo.svg)" in line) < 15
