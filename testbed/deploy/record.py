"""What weavelab has installed on a machine: the record that upgrades and removals go by. Pure.

It is written before the first file of an installation changes, and names what each file was and will be. So whatever a
kill leaves behind is known to the next command.

    {"format": 1, "version": "0.1.0", "complete": true, "interpreter": "/usr/bin/python3",
     "files": {"/opt/cni/bin/weave-net": {"part": "plugin", "digests": ["9f3..."]}}, "folders": ["/opt/cni"]}
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from testbed.deploy.transport import DeployError

RECORD_PATH: Final = "/var/lib/weave/installed.json"
_FORMAT: Final = 1
ANY: Final = "any"
"""Instead of a digest: a file that can be made again from others (Python's compiled modules)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of ours.

    Attributes:
        part: Which part of the installation it belongs to.
        digests: What it may contain and still be ours.
        saved: Where somebody else's file went that was at this path; empty when there was none.
    """

    part: str
    digests: tuple[str, ...]
    saved: str = ""

    def owns(self, digest: str) -> bool:
        """Whether a file with this digest is what we have written."""
        return ANY in self.digests or digest in self.digests


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that weavelab has installed on one machine.

    Attributes:
        version: Of the weavelab that did it.
        complete: False while files are being changed.
        interpreter: The Python that was chosen; an upgrade keeps to it.
        files: By path, in the order in which they were installed.
        folders: Those that were made.
    """

    version: str = ""
    complete: bool = True
    interpreter: str = ""
    files: dict[str, Entry] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


def parse_record(content: bytes, where: str) -> Record:
    """Read a record.

    Args:
        content: Its text.
        where: What messages call the machine.

    Raises:
        DeployError: It is damaged, or of a newer weavelab.
    """
    try:
        data = json.loads(content)
        if data["format"] != _FORMAT:
            raise DeployError(
                f"wanted a record of format {_FORMAT} at {RECORD_PATH} on {where}, found {data['format']!r}",
                hint="use the weavelab that installed it",
            )
        files = {str(path): _entry(entry) for path, entry in data["files"].items()}
        return Record(
            version=str(data["version"]),
            complete=data["complete"] is True,
            interpreter=str(data["interpreter"]),
            files=files,
            folders=tuple(map(str, data["folders"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeployError(
            f"wanted weavelab's record of what it has installed at {RECORD_PATH} on {where}, found something else "
            f"({type(error).__name__}: {error})",
            hint="move it away and install again: files that are as they should be are taken over",
        ) from None


def render_record(record: Record) -> bytes:
    """A record's text."""
    files = {}
    for path, entry in record.files.items():
        files[path] = {"part": entry.part, "digests": list(entry.digests)}
        if entry.saved:
            files[path]["saved"] = entry.saved
    data = {
        "format": _FORMAT,
        "version": record.version,
        "complete": record.complete,
        "interpreter": record.interpreter,
        "files": files,
        "folders": list(record.folders),
    }
    return json.dumps(data, indent=1).encode() + b"\n"


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder that the paths lead through, outermost first."""
    found = set()
    for path in paths:
        pieces = path.split("/")
        found |= {"/".join(pieces[:count]) for count in range(2, len(pieces))}
    return sorted(found, key=lambda folder: (folder.count("/"), folder))


def _entry(data: Any) -> Entry:
    digests = tuple(map(str, data["digests"]))
    for digest in digests:
        if digest != ANY:
            bytes.fromhex(digest)
    return Entry(str(data["part"]), digests, str(data.get("saved", "")))
