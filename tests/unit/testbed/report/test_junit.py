"""The JUnit report, from tests/golden/report/sample.json: valid by the strictest schema in use, and what readers want of it."""

import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from lxml import etree

from testbed.report.json_report import read_report
from testbed.report.junit import junit_report
from testbed.scenario.results import Counts, Problem, RunResult, ScenarioResult, Status, StepResult
from tests.support.project import GOLDEN

SAMPLE = GOLDEN / "report" / "sample.json"
COUNTS = ("tests", "failures", "errors", "skipped")


@pytest.fixture
def sample() -> RunResult:
    return read_report(SAMPLE.read_bytes())


@pytest.fixture(scope="module")
def schema() -> etree.XMLSchema:
    return etree.XMLSchema(file=str(GOLDEN / "report" / "junit-10.xsd"))


def nothing_run(sample: RunResult, **changes: object) -> RunResult:
    return msgspec.structs.replace(sample, scenarios=(), counts=Counts(), **changes)


def chaos(seed: int, *, repetition: int = 1, name: str = "storm") -> ScenarioResult:
    step = StepResult(name=f"chaos, seed {seed}", kind="chaos", status=Status.FAIL, seen="no", seed=seed)
    return ScenarioResult(
        name=name if repetition == 1 else f"{name}#{repetition}",
        description="",
        status=Status.FAIL,
        seconds=12345.6789,
        started="2026-01-02T03:04:05Z",
        repetition=repetition,
        steps=(step, step),
    )


# -------------------------------------------------------------------------------------------------------------- schema


def assert_valid(schema: etree.XMLSchema, result: RunResult) -> None:
    document = etree.fromstring(junit_report(result).encode())
    assert schema.validate(document), [str(error) for error in schema.error_log]


def test_the_report_is_valid_by_the_schema_of_jenkins_xunit_plugin(sample: RunResult, schema: etree.XMLSchema) -> None:
    assert_valid(schema, sample)
    assert_valid(schema, msgspec.structs.replace(sample, problem=Problem(message="no", hint="try\nagain")))
    assert_valid(schema, nothing_run(sample, interrupted=True))
    assert_valid(schema, msgspec.structs.replace(sample, scenarios=(chaos(7), chaos(7, repetition=2))))


@pytest.mark.parametrize(
    "wrong",
    [
        '<testsuites skipped="1"/>',
        '<testsuites><testsuite name="a" tests="1" failures="0"/></testsuites>',
        '<testsuites><testsuite name="a" tests="1" failures="0" errors="0" time="1.5s"/></testsuites>',
        '<testsuite name="a" tests="1" failures="0" errors="0"><testcase name="b" line="3"/></testsuite>',
        '<testsuite name="a" tests="1" failures="0" errors="0"><testcase name="b"><properties/></testcase></testsuite>',
        "<testsuites><properties/></testsuites>",
    ],
)
def test_that_schema_refuses_what_the_plugin_refuses(wrong: str, schema: etree.XMLSchema) -> None:
    assert not schema.validate(etree.fromstring(wrong))


# --------------------------------------------------------------------------------------------------------------- shape


def test_junit_has_a_suite_a_scenario_and_a_case_a_step(sample: RunResult) -> None:
    root = ET.fromstring(junit_report(sample))
    assert root.tag == "testsuites"
    assert [suite.get("name") for suite in root] == [
        "two-nodes.same-node",
        "two-nodes.cross-node",
        "two-nodes.all-pods",
    ]
    assert [len(suite.findall("testcase")) for suite in root] == [3, 3, 4]
    assert {name: root.get(name) for name in COUNTS} == {"tests": "10", "failures": "3", "errors": "1", "skipped": None}


def test_junit_numbers_add_up_in_every_suite(sample: RunResult) -> None:
    for suite in ET.fromstring(junit_report(sample)):
        cases = suite.findall("testcase")
        found = [len(cases), *(len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped"))]
        assert [int(suite.get(name, "")) for name in COUNTS] == found


def test_junit_keeps_to_the_shape_that_ci_systems_read(sample: RunResult) -> None:
    for suite in ET.fromstring(junit_report(sample)):
        assert [child.tag for child in suite] == ["properties"] + ["testcase"] * (len(suite) - 1)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", suite.get("timestamp", ""))
        assert suite.get("hostname") == "build-7"
        for case in suite.findall("testcase"):
            assert set(case.attrib) == {"classname", "name", "time"}
            assert float(case.get("time", "")) >= 0
            tags = [child.tag for child in case]
            assert tags in (["system-out"], *([tag, "system-out"] for tag in ("failure", "error", "skipped")))


def test_a_junit_failure_says_its_cause_what_was_expected_and_seen_the_state_and_the_next_command(
    sample: RunResult,
) -> None:
    failure = ET.fromstring(junit_report(sample)).find(".//failure")
    assert failure is not None
    cause = "node1 and node2 do not reach each other: node1 hears nothing of node2 (192.168.56.12) since 14.2 s"
    assert failure.get("message") == cause
    assert (failure.text or "").startswith(f"cause:    {cause}\ncause:    node2: ")
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


# ----------------------------------------------------------------------------------------------------- what readers need


def properties(suite: ET.Element) -> dict[str, str]:
    return {item.get("name", ""): item.get("value", "") for item in suite.iterfind("properties/property")}


def test_properties_name_lab_topology_repetition_and_seed(sample: RunResult) -> None:
    run = msgspec.structs.replace(sample, lab="two-nodes-3", scenarios=(chaos(7), chaos(8, repetition=2)))
    found = [properties(suite) for suite in ET.fromstring(junit_report(run))]
    assert [(item["lab"], item["topology"], item["seed"], item["repetition"]) for item in found] == [
        ("two-nodes-3", "two-nodes", "7", "1"),
        ("two-nodes-3", "two-nodes", "8", "2"),
    ]
    assert found[0]["kernel"] == sample.environment["kernel"]
    assert "seed" not in properties(ET.fromstring(junit_report(sample))[0])


def test_no_two_cases_of_a_file_have_one_name_for_some_readers_keep_only_the_last(sample: RunResult) -> None:
    run = msgspec.structs.replace(sample, scenarios=(chaos(7), chaos(7, repetition=2), chaos(7, name="calm")))
    root = ET.fromstring(junit_report(run))
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names) == 6
    assert names[1] == ("two-nodes.storm", "chaos, seed 7 (2)")
    assert names[2] == ("two-nodes.storm", "chaos, seed 7 (repetition 2)")
    assert [suite.get("name") for suite in root] == ["two-nodes.storm", "two-nodes.storm#2", "two-nodes.calm"]


def test_a_run_that_examined_nothing_has_a_case_that_says_so(sample: RunResult) -> None:
    root = ET.fromstring(junit_report(nothing_run(sample, interrupted=True)))
    skipped = root.find("testsuite/testcase/skipped")
    assert skipped is not None
    assert skipped.get("message") == "interrupted before anything was examined"
    assert root.get("tests") == "1"
