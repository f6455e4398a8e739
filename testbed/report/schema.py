"""The JSON schema of the JSON report, made from the types of `testbed.scenario.results`, for programs that read it.

``python -m testbed.report.schema`` prints what ``docs/reference/report.schema.json`` holds.
"""

import inspect
import json
import re
import sys
from typing import Any, Final

import msgspec

from testbed.scenario.results import RunResult

_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)
"""One attribute in a docstring, with the lines that it goes on in."""


def report_schema() -> dict[str, Any]:
    """The schema (draft 2020-12).

    Keys that a report may lack are those that came later; others that are not named here may come without a new
    `schema_version`.
    """
    made = msgspec.json.schema(RunResult)
    for part in made["$defs"].values():
        _describe(part)
    version = next(field for field in msgspec.structs.fields(RunResult) if field.name == "schema_version")
    made["$defs"]["RunResult"]["properties"]["schema_version"] |= {"const": version.default}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "weavelab report", **made}


def _describe(part: dict[str, Any]) -> None:
    """Move what a docstring says of each attribute to the property it is about."""
    text, _, attributes = inspect.cleandoc(part.get("description", "")).partition("\n\nAttributes:\n")
    if text:
        part["description"] = text
    for name, told in _ATTRIBUTE.findall(attributes):
        if name in part.get("properties", {}):
            part["properties"][name]["description"] = " ".join(told.split())


def schema_text() -> str:
    """The text of `docs/reference/report.schema.json`."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
