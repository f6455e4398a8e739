"""The JUnit report: a test suite a scenario, a test case a step, in the shape that CI systems agree on.

There is no standard. This keeps to `junit-10.xsd` of Jenkins' xunit plugin, the strictest that is in use, and to what
other readers trip over: GitLab takes two cases of one class and name for one, so names are made unique within a file;
a file without any case is an error for Jenkins, so a run that examined nothing has one that says so.
"""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from testbed.report.words import reason
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

_SUMS: Final = ("tests", "failures", "errors")
"""What `testsuites` may say of all suites together; `skipped` is not among it in that schema."""


def junit_report(result: RunResult) -> str:
    """The report as XML text, with a newline at its end."""
    root = ET.Element("testsuites", name=_clean(f"weavelab {result.lab}"))
    for scenario in result.scenarios:
        root.append(_suite(result, scenario))
    if result.problem is not None or not result.counts.steps:
        root.append(_lab_suite(result))
    for name in _SUMS:
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{result.seconds:.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(result: RunResult, scenario: ScenarioResult) -> ET.Element:
    statuses = Counter(step.status for step in scenario.steps)
    again = f" (repetition {scenario.repetition})" if scenario.repetition > 1 else ""
    started = scenario.started or result.started
    suite = _empty_suite(
        result, f"{result.topology}.{scenario.name}", statuses, seconds=scenario.seconds, started=started
    )
    seeds = dict.fromkeys(str(step.seed) for step in scenario.steps if step.seed is not None)
    said = {
        "description": scenario.description,
        "repetition": str(scenario.repetition),
        "seed": ", ".join(seeds),
    }
    _add_properties(suite, result, said)
    for step, name in _named(scenario):
        suite.append(_case(f"{result.topology}.{scenario.plain_name}", name + again, step))
    return suite


def _empty_suite(
    result: RunResult, name: str, statuses: Mapping[Status, int], *, seconds: float, started: str
) -> ET.Element:
    return ET.Element(
        "testsuite",
        name=_clean(name),
        tests=str(sum(statuses.values())),
        failures=str(statuses.get(Status.FAIL, 0)),
        errors=str(statuses.get(Status.ERROR, 0)),
        skipped=str(statuses.get(Status.SKIP, 0)),
        time=f"{seconds:.3f}",
        timestamp=started,
        hostname=_clean(result.hostname),
    )


def _add_properties(suite: ET.Element, result: RunResult, said: Mapping[str, str]) -> None:
    """Properties that say something; those of the run first."""
    run = {"lab": result.lab, "topology": result.topology, "topology file": result.topology_file}
    properties = ET.SubElement(suite, "properties")
    for name, value in {**run, **said, **result.environment}.items():
        if value:
            ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))


def _named(scenario: ScenarioResult) -> Iterator[tuple[StepResult, str]]:
    """Steps with names that differ: the second of one title is `title (2)`."""
    found: Counter[str] = Counter()
    for step in scenario.steps:
        found[step.name] += 1
        yield step, step.name if found[step.name] == 1 else f"{step.name} ({found[step.name]})"


def _case(classname: str, name: str, step: StepResult) -> ET.Element:
    case = ET.Element("testcase", classname=_clean(classname), name=_clean(name), time=f"{step.seconds:.3f}")
    if step.status is Status.SKIP:
        ET.SubElement(case, "skipped", message=_clean(step.seen))
    elif step.status is not Status.PASS:
        tag = "failure" if step.status is Status.FAIL else "error"
        verdict = ET.SubElement(case, tag, message=_clean(reason(step)), type=f"{step.kind}-{tag}")
        verdict.text = _clean(_failure_text(step))
    output = "\n".join(text for item in step.evidence if (text := _evidence_text(item)))
    ET.SubElement(case, "system-out").text = _clean(f"expected: {step.expected}\nseen: {step.seen}\n{output}")
    return case


def _failure_text(step: StepResult) -> str:
    lines = [f"cause:    {cause}" for cause in step.causes]
    lines += [f"expected: {step.expected}", f"seen:     {step.seen}", f"attempts: {step.attempts}"]
    if step.seed is not None:
        lines.append(f"seed:     {step.seed}")
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


def _lab_suite(result: RunResult) -> ET.Element:
    """A suite of one case, the lab itself: what went wrong with it, or that nothing was examined."""
    if result.problem is None:
        message = "interrupted before anything was examined" if result.interrupted else "nothing was examined"
        status, tag, text = Status.SKIP, "skipped", ""
    else:
        status, tag, message = Status.ERROR, "error", result.problem.message
        text = "\n".join(filter(None, (result.problem.message, result.problem.hint)))
    name = f"{result.topology}.lab"
    suite = _empty_suite(result, name, {status: 1}, seconds=result.seconds, started=result.started)
    _add_properties(suite, result, {})
    case = ET.SubElement(suite, "testcase", classname=_clean(name), name="the lab", time="0.000")
    verdict = ET.SubElement(case, tag, message=_clean(message), type="lab")
    verdict.text = _clean(text) or None
    return suite


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
