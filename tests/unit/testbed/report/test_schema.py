"""The published JSON schema of the JSON report: current, kept to by reports, and no empty promise."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from testbed.report.json_report import json_report, read_report
from testbed.report.schema import report_schema, schema_text
from testbed.scenario.results import Counts, Problem
from tests.support.project import GOLDEN, ROOT

SAMPLE = GOLDEN / "report" / "sample.json"


def test_the_published_schema_is_current() -> None:
    published = (ROOT / "docs" / "reference" / "report.schema.json").read_text()
    assert published == schema_text(), "python -m testbed.report.schema > docs/reference/report.schema.json"


def test_the_schema_is_one_and_reports_keep_to_it() -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    sample = read_report(SAMPLE.read_bytes())
    bare = msgspec.structs.replace(sample, view=None, scenarios=(), counts=Counts(), problem=Problem(message="no"))
    for result in (sample, bare):
        jsonschema.validate(json.loads(json_report(result)), schema)


def wrong_status(report: dict[str, Any]) -> None:
    report["scenarios"][0]["steps"][0]["status"] = "great"


def no_lab(report: dict[str, Any]) -> None:
    del report["lab"]


def unknown_evidence(report: dict[str, Any]) -> None:
    report["scenarios"][0]["steps"][0]["evidence"][0]["type"] = "rumour"


def other_version(report: dict[str, Any]) -> None:
    report["schema_version"] = 2


@pytest.mark.parametrize("damage", [wrong_status, no_lab, unknown_evidence, other_version])
def test_the_schema_refuses_what_is_no_report(damage: Any) -> None:
    report = json.loads(SAMPLE.read_text())
    damage(report)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report, report_schema())


def test_a_key_that_came_later_is_no_obstacle() -> None:
    report = json.loads(SAMPLE.read_text())
    report["scenarios"][0]["colour"] = "blue"
    jsonschema.validate(report, report_schema())


def test_the_schema_says_what_keys_mean() -> None:
    parts = report_schema()["$defs"]
    assert parts["StepResult"]["properties"]["causes"]["description"].startswith("Why it does not hold, as sentences")
    assert parts["StepResult"]["description"] == "One step."
