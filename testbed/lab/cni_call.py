"""One execution of a CNI plugin as it was, which the lab remembers of every pod; and a verb that failed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plugin.core.errors import CheckError


@dataclass(frozen=True, slots=True)
class CniCall:
    """One execution of one plugin, as it was. `environment` holds the CNI_ variables only."""

    plugin: str
    command: str
    environment: Mapping[str, str]
    stdin: Mapping[str, Any]
    stdout: str
    stderr: str
    exit_code: int
    seconds: float
    timed_out: bool = False


class CniCallError(CheckError):
    """A verb failed. `code` is the plugin's error code (0: there was none), `calls` all that was executed so far."""

    def __init__(self, message: str, *, hint: str = "", code: int = 0, calls: Sequence[CniCall] = ()) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.calls = tuple(calls)
