"""The JSON report, from tests/golden/report/sample.json; and how report files are written."""

import os
import re
import stat
from pathlib import Path

import pytest

from plugin.core.errors import InputError
from testbed.machine import files
from testbed.report.json_report import json_report, read_report
from testbed.scenario.results import RunResult, Status, worst
from tests.support.project import GOLDEN, ROOT

SAMPLE = GOLDEN / "report" / "sample.json"


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
    assert worst([Status.ERROR, Status.PASS, Status.SKIP]) is Status.ERROR
    assert worst([]) is Status.PASS


def test_what_fails_outranks_what_could_not_be_examined() -> None:
    assert worst([Status.FAIL, Status.ERROR]) is Status.FAIL
    assert worst(Status) is Status.FAIL


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
