"""The reports for machines: JUnit and JSON, from tests/golden/report/sample.json; and how report files are written."""

import os
import re
import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from plugin.core.errors import InputError
from testbed.machine import files
from testbed.report.json_report import json_report, read_report
from testbed.report.junit import junit_report
from testbed.scenario.results import Problem, RunResult, Status, StepResult, worst
from tests.support.project import GOLDEN, ROOT

SAMPLE = GOLDEN / "report" / "sample.json"
COUNTS = ("tests", "failures", "errors", "skipped")


@pytest.fixture
def sample() -> RunResult:
    return read_report(SAMPLE.read_bytes())


# --------------------------------------------------------------------------------------------------------------- JSON


def test_the_json_report_is_what_the_golden_file_says(sample: RunResult) -> None:
    assert json_report(sample) == SAMPLE.read_text()


def test_the_json_report_reads_back_as_the_same_value(sample: RunResult) -> None:
    assert read_report(json_report(sample)) == sample


def test_every_documented_kind_of_evidence_is_in_the_sample(sample: RunResult) -> None:
    kinds = {item.__struct_config__.tag for s in sample.scenarios for step in s.steps for item in step.evidence}
    assert kinds == {"ping", "iperf", "capture", "frame", "command"}


def test_every_key_of_the_json_report_is_in_its_documentation(sample: RunResult) -> None:
    document = (ROOT / "docs" / "reference" / "report.md").read_text()
    keys = set(re.findall(r'^\s*"(\w+)":', json_report(sample), re.MULTILINE))
    data = {"weavelab", "kernel", "system", "Python", "CPUs", "ping", "iperf3"}  # names of environment entries
    fields = {"source", "destination", "type", "TTL", "protocol", "checksum", "flags", "VNI", "length"}
    fields |= {"identifier", "sequence"}  # header fields are data too
    missing = sorted(key for key in keys - data - fields if f"`{key}`" not in document)
    assert missing == []


def test_the_gravest_verdict_wins() -> None:
    assert worst([Status.PASS, Status.SKIP]) is Status.SKIP
    assert worst([Status.FAIL, Status.PASS, Status.SKIP]) is Status.FAIL
    assert worst(Status) is Status.ERROR
    assert worst([]) is Status.PASS


# -------------------------------------------------------------------------------------------------------------- JUnit


def test_junit_has_a_suite_a_scenario_and_a_case_a_step(sample: RunResult) -> None:
    root = ET.fromstring(junit_report(sample))
    assert root.tag == "testsuites"
    assert [suite.get("name") for suite in root] == [
        "two-nodes.same-node",
        "two-nodes.cross-node",
        "two-nodes.all-pods",
    ]
    assert [len(suite.findall("testcase")) for suite in root] == [3, 3, 4]
    assert {name: root.get(name) for name in COUNTS} == {"tests": "10", "failures": "3", "errors": "1", "skipped": "1"}


def test_junit_numbers_add_up_in_every_suite(sample: RunResult) -> None:
    for suite in ET.fromstring(junit_report(sample)):
        cases = suite.findall("testcase")
        found = [len(cases), *(len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped"))]
        assert [int(suite.get(name, "")) for name in COUNTS] == found


def test_junit_keeps_to_the_shape_that_ci_systems_read(sample: RunResult) -> None:
    for suite in ET.fromstring(junit_report(sample)):
        assert [child.tag for child in suite] == ["properties"] + ["testcase"] * (len(suite) - 1)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
        for case in suite.findall("testcase"):
            assert set(case.attrib) == {"classname", "name", "time"}
            assert float(case.get("time", "")) >= 0
            tags = [child.tag for child in case]
            assert tags in (["system-out"], *([tag, "system-out"] for tag in ("failure", "error", "skipped")))


def test_a_junit_failure_says_what_was_expected_and_seen_the_state_and_the_next_command(sample: RunResult) -> None:
    failure = ET.fromstring(junit_report(sample)).find(".//failure")
    assert failure is not None
    assert failure.get("message") == "0 of 3 answered: Destination Host Unreachable"
    assert failure.get("type") == "ping-failure"
    text = failure.text or ""
    for part in ("expected: red → blue: 3 pings", "--- node1: bridge fdb show", "weavelab exec red -- ping"):
        assert part in text


def test_junit_of_a_lab_that_did_not_come_up_has_one_error(sample: RunResult) -> None:
    problem = Problem(message="the agent of node1 did not start", hint="see its log")
    run = msgspec.structs.replace(sample, scenarios=(), problem=problem)
    root = ET.fromstring(junit_report(run))
    assert root.get("errors") == "1"
    error = root.find(".//error")
    assert error is not None
    assert error.text == "the agent of node1 did not start\nsee its log"


def test_junit_survives_what_xml_cannot_hold(sample: RunResult) -> None:
    step = StepResult(
        name="a\x00b ]]> <&\x1b[31m", kind="exec", status=Status.FAIL, seen="\ud800\uffff", expected="\x08"
    )
    scenario = msgspec.structs.replace(sample.scenarios[0], steps=(step,))
    root = ET.fromstring(junit_report(msgspec.structs.replace(sample, scenarios=(scenario,))).encode())
    case = root.find(".//testcase")
    assert case is not None
    assert case.get("name") == "a\N{REPLACEMENT CHARACTER}b ]]> <&\N{REPLACEMENT CHARACTER}[31m"


# -------------------------------------------------------------------------------------------------------------- files


def test_a_report_is_written_with_its_directories_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "build" / "reports" / "report.html"
    files.check_report_path(path)
    files.write_report(path, "text\n")
    assert path.read_text() == "text\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text in ("first", "second"):
        files.write_report(path, text)
    assert path.read_text() == "second"


def test_a_device_is_written_into_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.check_report_path(pipe)
        files.write_report(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "elsewhere" / "report.html")
    files.write_report(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "report.html").read_text() == "text"


def test_a_directory_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is to be a file, found a directory"):
        files.check_report_path(tmp_path)


def test_a_path_below_a_file_is_refused_before_anything_happens(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        files.check_report_path(tmp_path / "file" / "report.html")


def test_a_place_that_takes_no_files_is_refused_before_anything_happens() -> None:
    with pytest.raises(InputError, match="cannot be"):
        files.check_report_path(Path("/proc/report.html"))


def test_under_sudo_reports_belong_to_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, int, int]] = []
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "1001")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((Path(path).name, uid, gid)))
    files.check_report_path(tmp_path / "new" / "report.html")
    files.write_report(tmp_path / "new" / "report.html", "")
    assert given[0] == ("new", 1000, 1001)
    assert given[1][1:] == (1000, 1001)
