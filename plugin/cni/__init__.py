"""The executable `weave-net` that container runtimes call; standard library only.

`weave_net.py` is that executable, whole. It is deployed by writing `executable_bytes(interpreter)` to /opt/cni/bin.
"""

from pathlib import Path
from typing import Final

TYPE: Final = "weave-net"
"""The `type` of the plugin in a configuration, which is also its file name in CNI_PATH."""

_SHEBANG_BYTES_MAX: Final = 127  # BINPRM_BUF_SIZE less one before Linux 5.1; 255 since


def executable_bytes(interpreter: str) -> bytes:
    """The text of `weave-net` for a node: `weave_net.py` with its first line naming `interpreter` absolutely.

    Args:
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
    _, rest = Path(__file__).with_name("weave_net.py").read_bytes().split(b"\n", 1)
    return shebang + b"\n" + rest
