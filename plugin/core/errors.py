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


def said_by(error: BaseException, *, path: bool = True) -> str:
    """What an error says, for a sentence: our own words, or the kernel's, with the file they are about.

    The text that Python makes of an `OSError` begins with `[Errno 28]`, or with `[Errno None]` when nobody gave it a
    number: no reader needs either.

    Args:
        error: The error.
        path: Name the file; False where the sentence names it already.
    """
    if isinstance(error, WeaveError):
        return error.message
    if not isinstance(error, OSError):
        return str(error) or type(error).__name__
    words = error.strerror or next((str(one) for one in reversed(error.args) if one is not None), "")
    if not words:
        return "timed out" if isinstance(error, TimeoutError) else type(error).__name__
    names = [str(name) for name in (error.filename, error.filename2) if name is not None] if path else []
    return f"{words}: {' and '.join(names)}" if names else words
