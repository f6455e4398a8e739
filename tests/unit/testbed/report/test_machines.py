"""The JSON report, from tests/golden/report/sample.json."""

import re

import pytest

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
