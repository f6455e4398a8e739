"""Programs that stand alone on a node: one file each, whose first line names its interpreter absolutely."""

from pathlib import Path
from typing import Final

_SHEBANG_BYTES_MAX: Final = 127
"""What Linux reads of a first line at least in every supported version (include/uapi/linux/binfmts.h)."""


def stamped(source: Path, interpreter: str) -> bytes:
    """The text of a program for a node: `source` with its first line naming `interpreter` absolutely.

    Args:
        source: The program's file here.
        interpreter: Absolute path of a Python 3.11 or newer on the node. The system's own is best: a wrapper (pyenv) or
            a virtual environment adds its start-up to every call.

    Raises:
        ValueError: The path cannot stand in a #! line.
    """
    shebang = f"#!{interpreter} -ISE".encode()
    if not interpreter.startswith("/") or any(character.isspace() for character in interpreter):
        raise ValueError(f"the interpreter must be an absolute path without blanks, found {interpreter!r}")
    if len(shebang) > _SHEBANG_BYTES_MAX:
        raise ValueError(f"the interpreter's path is too long for a #! line: {interpreter!r}")
    _, rest = source.read_bytes().split(b"\n", 1)
    return shebang + b"\n" + rest
