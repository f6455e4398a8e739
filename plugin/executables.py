"""Programs that stand alone on a node: one file each, whose first line names its interpreter absolutely.

`plugin_executable` makes `weave-net`, which runtimes call; `tool_executable` makes `weave`, which people call. Their
sources are read here as text and imported by nobody.
"""

import binascii
import marshal
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Final

PLUGIN_TYPE: Final = "weave-net"
"""The `type` of the plugin in a configuration, which is also its file name in CNI_PATH."""

_FOLDER: Final = Path(__file__).parent
_RULE: Final = b"# " + b"-" * 98 + b"\n"
_SLOW_BEGIN: Final = _RULE + b"# The slow way."
_SLOW_END: Final = b'if __name__ == "__main__":\n'
_PLACE: Final = b'SLOW_WAY = ""\n'
_SHEBANG_BYTES_MAX: Final = 127
"""What Linux reads of a first line at least in every supported version (include/uapi/linux/binfmts.h)."""


def plugin_executable(interpreter: str) -> bytes:
    """The text of `weave-net` for a node, from plugin/cni; arguments and errors as those of `stamped`.

    It is compiled already. The parts that an ordinary call does not need are one string in it, which is compiled when
    one of them is called: the less there is to load at every start, the better.
    """
    source = _FOLDER / "cni" / "weave_net.py"
    fast, slow = stamped(source, interpreter).split(_SLOW_BEGIN)
    slow, end = slow.split(_SLOW_END)
    # A `from __future__` line has to come first.
    slow = source.with_name("delegation.py").read_bytes() + b"\n" + _SLOW_BEGIN + slow
    assert b"'''" not in slow, "it would end the string early"
    text = fast.replace(_PLACE, b"SLOW_WAY = r'''" + slow + b"'''\n") + _SLOW_END + end
    return _precompiled(text, source.name)


def tool_executable(interpreter: str) -> bytes:
    """The text of `weave` for a node, from plugin/tool; arguments and errors as those of `stamped`."""
    return stamped(_FOLDER / "tool" / "weave.py", interpreter)


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


def _precompiled(program: bytes, name: str) -> bytes:
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
