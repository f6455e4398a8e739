"""The JUnit report: a test suite a scenario, a test case a step, in the shape that CI systems agree on.

There is no standard; this keeps to the common core (Jenkins' `junit-10.xsd`): attributes `tests`, `failures`, `errors`,
`skipped`, `time`, `timestamp`; in a suite properties first; in a case one verdict, then `system-out`.
"""

import re
import xml.etree.ElementTree as ET
from typing import Final

from testbed.scenario.results import (
    CommandEvidence,
    Evidence,
    PingEvidence,
    RunResult,
    ScenarioResult,
    Status,
    StepResult,
)

_ILLEGAL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 cannot hold, not even escaped; a command's output may hold anything."""


def junit_report(result: RunResult) -> str:
    """The report as XML text, with a newline at its end."""
    root = ET.Element("testsuites", name=_clean(f"weavelab {result.lab}"))
    for scenario in result.scenarios:
        root.append(_suite(result, scenario))
    if result.problem is not None:
        root.append(_problem_suite(result))
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{result.seconds:.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(result: RunResult, scenario: ScenarioResult) -> ET.Element:
    statuses = [step.status for step in scenario.steps]
    suite = ET.Element(
        "testsuite",
        name=_clean(f"{result.topology}.{scenario.name}"),
        tests=str(len(statuses)),
        failures=str(statuses.count(Status.FAIL)),
        errors=str(statuses.count(Status.ERROR)),
        skipped=str(statuses.count(Status.SKIP)),
        time=f"{scenario.seconds:.3f}",
        timestamp=scenario.started.removesuffix("Z"),
        hostname=_clean(result.lab),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in {"description": scenario.description, **result.environment}.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    classname = f"{result.topology}.{scenario.name}"
    for step in scenario.steps:
        suite.append(_case(classname, step))
    return suite


def _case(classname: str, step: StepResult) -> ET.Element:
    case = ET.Element("testcase", classname=_clean(classname), name=_clean(step.name), time=f"{step.seconds:.3f}")
    if step.status is Status.SKIP:
        ET.SubElement(case, "skipped", message=_clean(step.seen))
    elif step.status is not Status.PASS:
        tag = "failure" if step.status is Status.FAIL else "error"
        verdict = ET.SubElement(case, tag, message=_clean(step.seen), type=f"{step.kind}-{tag}")
        verdict.text = _clean(_failure_text(step))
    output = "\n".join(text for item in step.evidence if (text := _evidence_text(item)))
    ET.SubElement(case, "system-out").text = _clean(f"expected: {step.expected}\nseen: {step.seen}\n{output}")
    return case


def _failure_text(step: StepResult) -> str:
    lines = [f"expected: {step.expected}", f"seen:     {step.seen}", f"attempts: {step.attempts}"]
    if step.next_command:
        lines.append(f"look further (keep the lab with --keep): {step.next_command}")
    for state in step.states:
        for observation in state.observations:
            lines += ["", f"--- {state.name}: {observation.title}", observation.text]
    return "\n".join(lines)


def _evidence_text(item: Evidence) -> str:
    if isinstance(item, PingEvidence):
        return f"{item.source}$ {item.command}\n{item.output}" if item.output else ""
    if isinstance(item, CommandEvidence):
        return f"{item.on}$ {item.command}\n{item.stdout}{item.stderr}({item.ended})"
    return ""


def _problem_suite(result: RunResult) -> ET.Element:
    assert result.problem is not None
    suite = ET.Element(
        "testsuite",
        name=_clean(f"{result.topology}.lab"),
        tests="1",
        failures="0",
        errors="1",
        skipped="0",
        time=f"{result.seconds:.3f}",
        timestamp=result.started.removesuffix("Z"),
        hostname=_clean(result.lab),
    )
    case = ET.SubElement(suite, "testcase", classname=_clean(f"{result.topology}.lab"), name="the lab", time="0.000")
    error = ET.SubElement(case, "error", message=_clean(result.problem.message), type="lab")
    error.text = _clean("\n".join(filter(None, (result.problem.message, result.problem.hint))))
    return suite


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
