"""What CI systems are told: folds, annotations at the line of a step, the job's summary; and nothing elsewhere."""

import re
from pathlib import Path

import msgspec
import pytest

from testbed.report.ci import GitHub, GitLab, log_of
from testbed.report.json_report import read_report
from testbed.report.summary import job_summary
from testbed.scenario.results import Counts, Problem, RunResult, Status, StepResult
from testbed.topology.load import TopologyError, load_topology
from testbed.topology.places import step_lines
from tests.support.project import GOLDEN, ROOT

GITHUB = {"GITHUB_ACTIONS": "true"}


@pytest.fixture
def sample() -> RunResult:
    return read_report((GOLDEN / "report" / "sample.json").read_bytes())


def concluded(
    environment: dict[str, str], result: RunResult, lines: dict[tuple[str, int], int] | None = None
) -> list[str]:
    told: list[str] = []
    assert log_of(environment, told.append).conclude(result, lines or {}) == []
    return told


def failing(sample: RunResult, count: int, **changes: object) -> RunResult:
    step = StepResult(name="no", kind="exec", status=Status.FAIL, seen="nothing")
    scenario = msgspec.structs.replace(sample.scenarios[0], steps=(msgspec.structs.replace(step, **changes),) * count)
    return msgspec.structs.replace(sample, scenarios=(scenario,), topology_file="")


# ------------------------------------------------------------------------------------------------------------ elsewhere


@pytest.mark.parametrize("environment", [{}, {"CI": "true"}, {"GITHUB_ACTIONS": ""}, {"GITLAB_CI": "false"}])
def test_elsewhere_nothing_is_told(environment: dict[str, str], sample: RunResult) -> None:
    told: list[str] = []
    log = log_of(environment, told.append)
    log.fold("a")
    with log.verbatim():
        log.unfold()
    assert log.conclude(sample, {}) == []
    assert told == []


# --------------------------------------------------------------------------------------------------------------- GitHub


def test_a_failed_step_is_an_annotation_at_its_line(
    sample: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "two.yaml").write_text("")
    monkeypatch.chdir(tmp_path / "labs")
    result = msgspec.structs.replace(sample, topology_file="two.yaml")
    told = concluded(GITHUB | {"GITHUB_WORKSPACE": str(tmp_path)}, result, {("cross-node", 1): 38})
    assert len(told) == 4
    assert told[0] == (
        "::error file=labs/two.yaml,line=38,title=cross-node / ping red -> blue::node1 and node2 do not reach each other: "
        "node1 hears nothing of node2 (192.168.56.12) since 14.2 s%0Aexpected: red → blue: 3 pings, all answered%0A"
        "seen: 0 of 3 answered: Destination Host Unreachable%0A"
        "look further: sudo .venv/bin/weavelab exec red -- ping -c 3 10.44.0.1\n"
    )
    assert told[1].startswith("::error file=labs/two.yaml,title=cross-node / iperf udp red -> blue::")


def test_a_file_outside_of_the_workspace_or_none_is_not_named(sample: RunResult, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "two.yaml").write_text("")
    for file in (str(tmp_path / "two.yaml"), "", "-", str(tmp_path / "gone.yaml")):
        result = msgspec.structs.replace(sample, topology_file=file)
        told = concluded(GITHUB | {"GITHUB_WORKSPACE": str(tmp_path / "work")}, result, {("cross-node", 1): 38})
        assert told[0].startswith("::error title=cross-node / ping red -> blue::")


def test_text_from_the_lab_cannot_end_an_annotation_or_begin_a_command(sample: RunResult) -> None:
    (told,) = concluded(GITHUB, failing(sample, 1, name="a,b: 50%\r\n::add-mask::x", seen="100 %\n::set-output::y\r"))
    assert told == (
        "::error title=same-node / a%2Cb%3A 50%25%0D%0A%3A%3Aadd-mask%3A%3Ax::100 %25%0A::set-output::y%0D\n"
    )


def test_many_failures_are_ten_annotations(sample: RunResult) -> None:
    assert len(concluded(GITHUB, failing(sample, 10))) == 10
    told = concluded(GITHUB, failing(sample, 30))
    assert len(told) == 10
    assert told[-1] == "::error title=21 more steps do not hold::the report has all of them\n"
    both = msgspec.structs.replace(failing(sample, 30), problem=Problem(message="no"))
    assert len(concluded(GITHUB, both)) == 10


def test_a_lab_that_does_not_come_up_is_an_annotation(sample: RunResult) -> None:
    problem = Problem(message="the agent of node1 ended", hint="see its log")
    bare = msgspec.structs.replace(sample, scenarios=(), counts=Counts(), problem=problem, topology_file="")
    assert concluded(GITHUB, bare) == ["::error title=lab two-nodes::the agent of node1 ended%0Asee its log\n"]


def test_a_wrong_topology_is_an_annotation_a_problem_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("name: bad\nnodes:\n  node1:\n    colour: red\n  node1:\n")
    told: list[str] = []
    with pytest.raises(TopologyError) as caught:
        load_topology("bad.yaml")
    log_of(GITHUB, told.append).refuse(caught.value)
    assert len(told) == len(caught.value.problems) == 2
    assert [line.partition(",title=the topology is wrong::")[0] for line in told] == [
        "::error file=bad.yaml,line=4",
        "::error file=bad.yaml,line=5",
    ]


def test_a_refused_run_is_an_annotation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from testbed.cli.main import main

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["run", "--junit", str(tmp_path / "a"), "--html", str(tmp_path / "a")]) == 2
    told = capsys.readouterr().err
    assert "::error title=weavelab did not run::--junit and --html would write one file: " in told
    assert "\nerror: --junit and --html would write one file: " in told


def test_the_summary_is_added_to_what_the_job_has_said(sample: RunResult, tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    summary.write_text("before\n")
    concluded(GITHUB | {"GITHUB_STEP_SUMMARY": str(summary)}, sample)
    assert summary.read_text() == "before\n" + job_summary(sample) + "\n"


def test_a_summary_that_cannot_be_written_is_told(sample: RunResult, tmp_path: Path) -> None:
    log = GitHub({"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "summary")}, lambda _text: None)
    (trouble,) = log.conclude(sample, {})
    assert "could not be written: No such file or directory" in trouble


def test_scenarios_are_groups_and_details_are_shown_without_being_obeyed() -> None:
    told: list[str] = []
    log = GitHub({}, told.append)
    log.fold("scenario 1 of 2, 50%")
    log.unfold()
    with pytest.raises(ZeroDivisionError), log.verbatim():
        raise ZeroDivisionError
    assert told[:2] == ["::group::scenario 1 of 2, 50%25\n", "::endgroup::\n"]
    stopped = re.fullmatch(r"::stop-commands::(\w{32})\n", told[2])
    assert stopped is not None
    assert told[3] == f"::{stopped[1]}::\n"


# --------------------------------------------------------------------------------------------------------------- GitLab


def test_scenarios_are_sections() -> None:
    told: list[str] = []
    log = GitLab(told.append, clock=lambda: 1760000000.4)
    for title in ("scenario 1 of 2, one", "two\nlines"):
        log.fold(title)
        log.unfold()
    assert told == [
        "\x1b[0Ksection_start:1760000000:weavelab_1[collapsed=true]\r\x1b[0Kscenario 1 of 2, one\n",
        "\x1b[0Ksection_end:1760000000:weavelab_1\r\x1b[0K\n",
        "\x1b[0Ksection_start:1760000000:weavelab_2[collapsed=true]\r\x1b[0Ktwo lines\n",
        "\x1b[0Ksection_end:1760000000:weavelab_2\r\x1b[0K\n",
    ]


# -------------------------------------------------------------------------------------------------------------- summary


def test_the_summary_has_the_verdicts_and_the_causes(sample: RunResult) -> None:
    text = job_summary(sample)
    assert text.startswith("## ✗ two-nodes: 5 of 10 steps hold, 3 fail, 1 could not be examined, 1 not run\n")
    assert "| ✓ holds | same-node | 3 hold | 2.30 s |" in text
    assert "- ✗ **cross-node / ping red -> blue**: node1 and node2 do not reach each other".replace(">", "&gt;") in text
    assert "  - cause: node2: the table weave lacks its rule for UDP 6784" in text
    assert "  - look further: `sudo .venv/bin/weavelab exec red -- ping -c 3 10.44.0.1`" in text
    assert "machine build-7, weavelab 0.1.0" in text


def test_text_from_the_lab_is_no_markup_in_the_summary(sample: RunResult) -> None:
    evil = "# <img src=x> | **b** `c` [d](e)\n\n# ~f~ @all"
    text = job_summary(failing(sample, 1, name=evil, seen=evil, expected=evil, next_command="echo ``a`` | b\n# c"))
    assert "<img" not in text
    assert "\\# &lt;img src=x&gt; \\| \\*\\*b\\*\\* \\`c\\` \\[d\\](e) # \\~f\\~ \\@all" in text
    assert "  - look further: ``` echo ``a`` | b # c ```\n" in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == []


def test_a_summary_of_many_failures_stays_small(sample: RunResult) -> None:
    text = job_summary(failing(sample, 5000, seen="x" * 100_000))
    assert len(text) < 200_000
    assert "- and 4960 more\n" in text


# --------------------------------------------------------------------------------------------------------------- places


def test_the_line_of_every_step_is_known() -> None:
    text = (ROOT / "topologies" / "two-nodes.yaml").read_text()
    found = step_lines(text)
    lines = text.splitlines()
    assert len(found) == 16
    assert all(lines[line - 1].lstrip().startswith("- ") for line in found.values())
    assert "ping: {from: red, to: green}" in lines[found["same-node", 0] - 1]


@pytest.mark.parametrize("text", ["", "[", "a: b: c", "scenarios: 3", "scenarios: [3, {steps: 4}, {name: a}]", "- a"])
def test_what_is_no_topology_has_no_lines(text: str) -> None:
    assert step_lines(text) == {}
