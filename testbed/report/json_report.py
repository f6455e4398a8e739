"""The JSON report: `RunResult` as it is, indented. Its shape is documented in docs/reference/report.md."""

import msgspec

from testbed.scenario.results import RunResult


def json_report(result: RunResult) -> str:
    """The report as text, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n"


def read_report(text: str | bytes) -> RunResult:
    """A report back from its text.

    Raises:
        msgspec.ValidationError: It is no report of this schema version.
    """
    return msgspec.json.decode(text, type=RunResult)
