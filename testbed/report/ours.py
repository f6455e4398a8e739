"""Whether a file is an earlier report of ours, which a new one may replace. Reads its beginning; changes nothing."""

import re
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 4096

_BEGINNINGS: Final = (
    re.compile(rb'<\?xml version="1\.0" encoding="UTF-8"\?>\s*<testsuites name="weavelab '),
    re.compile(rb'\s*<!doctype html>.*<meta name="generator" content="weavelab">', re.DOTALL),
    re.compile(rb'\{\s*"schema_version": \d+,\s*"status": "(pass|fail|error|skip)",'),
)
"""Of the JUnit, the HTML and the JSON report."""


def is_report(path: Path) -> bool:
    """Whether a report may replace that file without asking: one of ours, or an empty file, in which nothing is lost.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or any(beginning.match(head) for beginning in _BEGINNINGS)
