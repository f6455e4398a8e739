"""The JSON schema of topology files, made from the types of model.py: for the loader, and published for editors.

``python -m testbed.topology.schema`` prints what ``topologies/schema.json`` holds.
"""

import json
import sys
from typing import Any

import msgspec

from testbed.topology.model import Topology
from testbed.topology.steps import KINDS


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a topology file, made from the types above."""
    made: dict[str, Any] = _without_null(msgspec.json.schema(Topology))
    # msgspec cannot state "exactly one of these keys".
    made["$defs"]["Step"]["oneOf"] = [{"required": [kind]} for kind in KINDS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "weavelab topology",
        **made,
    }


def _without_null(part: Any) -> Any:
    """The schema without the null that stands for a key left out: the key is optional, its value is not."""
    if isinstance(part, list):
        return [_without_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    cleaned = {key: _without_null(value) for key, value in part.items() if value is not None}
    choices = cleaned.pop("anyOf", None)
    if choices is None:
        return cleaned
    choices = [choice for choice in choices if choice != {"type": "null"}]
    return {**cleaned, **choices[0]} if len(choices) == 1 else {**cleaned, "anyOf": choices}


def schema_text() -> str:
    """The text of ``topologies/schema.json``, for editors.

    It also takes ``node1:`` with nothing behind it, which the loader reads as ``node1: {}``.
    """
    published = schema()
    nodes = published["$defs"]["Topology"]["properties"]["nodes"]
    nodes["additionalProperties"] = {"anyOf": [nodes["additionalProperties"], {"type": "null"}]}
    return json.dumps(published, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
