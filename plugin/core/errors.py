"""The errors a person may see. Each says what was wanted and what was found; the hint says what to do.

Exit codes follow design decision D12: 1 a check failed, 2 wrong usage or input, 3 the environment lacks something.
Every error that our own code raises on purpose is one of these; anything else that reaches a command line is a bug.
"""

from typing import ClassVar


class WeaveError(Exception):
    """Root of our errors.

    Args:
        message: One sentence: what was wanted and what was found.
        hint: What to do about it, or the empty string.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckError(WeaveError):
    """Something was examined and does not hold (exit code 1)."""

    exit_code = 1


class InputError(WeaveError):
    """The user's file, argument or configuration is wrong (exit code 2)."""

    exit_code = 2


class MissingError(WeaveError):
    """The machine lacks something: root, a tool, a kernel feature, free disk (exit code 3)."""

    exit_code = 3
