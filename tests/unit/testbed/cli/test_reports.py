"""Where a run's reports may go: apart from each other, over nothing of somebody else's, and to standard output."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from plugin.core.errors import InputError
from testbed.cli.reports import Reports
from testbed.cli.run import run_command
from testbed.report.html import html_report
from testbed.report.json_report import json_report, read_report
from testbed.report.junit import junit_report
from testbed.scenario.results import RunResult
from tests.support.project import GOLDEN, ROOT

KINDS = ("junit", "html", "json")


@pytest.fixture
def sample() -> RunResult:
    return read_report((GOLDEN / "report" / "sample.json").read_bytes())


def refusal(reports: Reports, **about: object) -> InputError:
    with pytest.raises(InputError) as caught:
        reports.check(**about)  # type: ignore[arg-type]
    return caught.value


# --------------------------------------------------------------------------------------------------------------- apart


def test_two_reports_to_one_file_are_refused_by_whatever_paths(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert refusal(Reports(junit=path, html=path)).message == f"--junit and --html would write one file: {path}"
    (tmp_path / "link").symlink_to(tmp_path)
    error = refusal(Reports(html=path, json=tmp_path / "link" / "a"))
    assert error.message == f"--html and --json would write one file: {path} (also {tmp_path / 'link' / 'a'})"
    refusal(Reports(junit=path, json=tmp_path / "new" / ".." / "a"))
    path.write_text("")
    os.link(path, tmp_path / "b")
    refusal(Reports(junit=path, json=tmp_path / "b"))


def test_a_report_and_the_same_one_among_the_artifacts_are_one_file(tmp_path: Path) -> None:
    error = refusal(Reports(html=tmp_path / "out" / "report.html", artifacts=tmp_path / "out"))
    assert "--html and --artifacts would write one file" in error.message
    Reports(html=tmp_path / "out" / "page.html", artifacts=tmp_path / "out").check()


def test_standard_output_takes_one_report(tmp_path: Path) -> None:
    Reports(junit=Path("-"), html=tmp_path / "a").check()
    error = refusal(Reports(junit=Path("-"), html=Path("/dev/stdout")))
    assert error.message == "standard output takes one report, found --junit and --html"
    error = refusal(Reports(html=Path("-")), json_output=True)
    assert error.message == "standard output takes one report, found --html and --format json"


def test_devices_take_any_number_of_reports() -> None:
    null = Path("/dev/null")
    Reports(junit=null, html=null, json=null).check()
    assert null.is_char_device()


# ----------------------------------------------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_report_is_not_replaced(kind: str, tmp_path: Path) -> None:
    topology = tmp_path / "two-nodes.yaml"
    topology.write_text((ROOT / "topologies" / "two-nodes.yaml").read_text())
    before = topology.read_text()
    error = refusal(Reports(**{kind: topology}))
    assert error.message == (
        f"wanted a new file or an earlier report of weavelab for --{kind}, found another file: {topology}"
    )
    assert error.hint == "give another name, or --force to replace it"
    assert topology.read_text() == before
    Reports(**{kind: topology}, force=True).check()


@pytest.mark.parametrize("other", ["{}", '{"schema_version": 1}', "<testsuites/>", "<!doctype html><html>", "\0", " "])
def test_a_file_of_another_program_is_not_taken_for_ours(other: str, tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text(other)
    for kind in KINDS:
        refusal(Reports(**{kind: path}))


def test_earlier_reports_are_replaced_and_so_are_empty_files(sample: RunResult, tmp_path: Path) -> None:
    path = tmp_path / "report"
    for text in (html_report(sample), junit_report(sample), json_report(sample), ""):
        path.write_text(text)
        for kind in KINDS:
            Reports(**{kind: path}).check()


def test_the_topology_of_the_run_is_never_replaced(tmp_path: Path) -> None:
    topology = tmp_path / "lab.yaml"
    topology.write_text("name: lab\n")
    (tmp_path / "link.yaml").symlink_to(topology)
    error = refusal(Reports(json=tmp_path / "link.yaml", force=True), topology_file=str(topology))
    assert "found the topology of this run" in error.message


def test_a_link_to_somebodys_file_is_as_good_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "report.html").symlink_to(tmp_path / "notes")
    refusal(Reports(html=tmp_path / "report.html"))


def test_wrong_report_paths_are_wrong_usage_before_anything_is_done(tmp_path: Path) -> None:
    from testbed.cli.main import main

    path = str(tmp_path / "a")
    topology = str(ROOT / "topologies" / "two-nodes.yaml")
    assert main(["run", "--topology", topology, "--junit", path, "--html", path]) == 2
    assert main(["run", "--topology", topology, "--json", topology]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_options_say_so() -> None:
    text = " ".join(CliRunner().invoke(run_command, ["--help"]).output.split())
    assert "--artifacts DIR" in text
    assert "--force" in text
    assert text.count("`-` prints it") == 3


# ----------------------------------------------------------------------------------------------------------- artifacts


def test_an_artifacts_folder_is_new_empty_or_an_earlier_one(tmp_path: Path) -> None:
    from testbed.report.artifacts import Artifacts
    from testbed.topology.load import load_topology

    folder = tmp_path / "new" / "artifacts"
    Reports(artifacts=folder).check()
    topology = load_topology(ROOT / "topologies" / "two-nodes.yaml")
    Artifacts(folder).begin(["weavelab", "run"], topology, "")
    Reports(artifacts=folder).check()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    error = refusal(Reports(artifacts=tmp_path / "mine"))
    assert "wanted a new, an empty or an earlier artifacts folder, found other files" in error.message
    Reports(artifacts=tmp_path / "mine", force=True).check()


def test_captures_go_among_the_artifacts_unless_they_have_a_place(tmp_path: Path) -> None:
    assert Reports(artifacts=tmp_path).pcap_dir == tmp_path / "pcaps"
    assert Reports(artifacts=tmp_path, pcap=tmp_path / "mine").pcap_dir == tmp_path / "mine"
    assert Reports().pcap_dir is None
