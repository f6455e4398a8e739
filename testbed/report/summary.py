"""A run in short as Markdown, for the page that CI systems show of a job. Text from the lab is never markup there."""

import html
import re
from typing import Final

from testbed.report.words import MARKS, WORDS, duration, failures, headline, reason, tally
from testbed.scenario.results import RunResult

_FAILURES_MAX: Final = 40
_TEXT_MAX: Final = 2_000
"""Characters of one sentence; the page of a job takes a mebibyte in all."""

_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~@]|^[#+-])")


def job_summary(result: RunResult) -> str:
    """The text, with a newline at its end."""
    lines = [f"## {MARKS[result.status]} {_text(result.lab)}: {_text(headline(result))}", ""]
    if result.description:
        lines += [_text(result.description), ""]
    if result.problem is not None:
        lines += [f"**{_text(result.problem.message)}**", ""]
        lines += [_text(result.problem.hint), ""] if result.problem.hint else []
    if result.scenarios:
        lines += ["| | scenario | steps | time |", "|---|---|---|---|"]
        lines += [
            f"| {MARKS[one.status]} {WORDS[one.status]} | {_text(one.name)} | {_text(tally(one.steps))} "
            f"| {duration(one.seconds)} |"
            for one in result.scenarios
        ]
        lines.append("")
    lines += _failures(result)
    facts = {"topology": result.topology_file or result.topology, "machine": result.hostname, **result.environment}
    lines.append(", ".join(f"{_text(name)} {_text(value)}" for name, value in facts.items() if value))
    lines.append("")
    return "\n".join(lines)


def _failures(result: RunResult) -> list[str]:
    found = failures(result)
    if not found:
        return []
    lines = ["### What does not hold", ""]
    for scenario, _, step in found[:_FAILURES_MAX]:
        lines.append(f"- {MARKS[step.status]} **{_text(scenario.name)} / {_text(step.name)}**: {_text(reason(step))}")
        said = {"cause": step.causes[1:], "expected": [step.expected], "seen": [step.seen] if step.causes else []}
        lines += [f"  - {name}: {_text(text)}" for name, texts in said.items() for text in texts]
        if step.seed is not None:
            lines.append(f"  - seed: {step.seed}")
        if step.next_command:
            lines.append(f"  - look further: {_code(step.next_command)}")
    if len(found) > _FAILURES_MAX:
        lines.append(f"- and {len(found) - _FAILURES_MAX} more")
    return [*lines, ""]


def _text(text: str) -> str:
    """Text on one line in which nothing is markup, HTML neither."""
    words = " ".join(text[:_TEXT_MAX].split())
    return _SPECIAL.sub(r"\\\1", html.escape(words, quote=False))


def _code(text: str) -> str:
    """Text as code: fenced by more backticks than it has in a row."""
    words = " ".join(text[:_TEXT_MAX].split())
    fence = "`" * (max((len(run) for run in re.findall("`+", words)), default=0) + 1)
    return f"{fence} {words} {fence}" if "`" in words else f"{fence}{words}{fence}"
