"""Programs that stand alone on a node: one file each, whose first line names its interpreter absolutely."""

import binascii
import marshal
from importlib.util import MAGIC_NUMBER
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


_LOADER: Final = """\
# What runs is compiled already, since Python would compile this file at every call, for longer than a call takes.
# The source stands below behind #| and is what runs when another Python than the one it was compiled for starts this.
import _frozen_importlib_external, binascii, marshal
if _frozen_importlib_external.MAGIC_NUMBER == {magic!r}:
    exec(marshal.loads(binascii.a2b_base64({code!r})))
else:
    with open(__file__, encoding="utf-8") as _file:
        exec(compile("".join(line[2:] for line in _file if line.startswith("#|")), __file__, "exec"))
"""


def precompiled(program: bytes, name: str) -> bytes:
    """What `stamped` made, for a program that starts so often that compiling it counts: 5 ms of the 20 of a CNI call.

    Args:
        program: Its text, with the first line.
        name: What tracebacks call it.
    """
    shebang, text = program.split(b"\n", 1)
    code = marshal.dumps(compile(text, name, "exec", dont_inherit=True, optimize=2))
    loader = _LOADER.format(magic=MAGIC_NUMBER, code=binascii.b2a_base64(code, newline=False))
    quoted = b"".join(b"#|" + line for line in text.splitlines(keepends=True))
    return shebang + b"\n" + loader.encode() + quoted
