"""The executable `weave-net` that container runtimes call; standard library only.

Its source is `weave_net.py`, and `delegation.py` for the calls that another IPAM plugin has a part in. It is deployed
by writing `executable_bytes(interpreter)`, one file, to /opt/cni/bin.
"""

from pathlib import Path
from typing import Final

from plugin.executables import precompiled, stamped

TYPE: Final = "weave-net"
"""The `type` of the plugin in a configuration, which is also its file name in CNI_PATH."""

_RULE: Final = b"# " + b"-" * 98 + b"\n"
_SLOW_BEGIN: Final = _RULE + b"# The slow way."
_SLOW_END: Final = b'if __name__ == "__main__":\n'
_PLACE: Final = b'SLOW_WAY = ""\n'


def executable_bytes(interpreter: str) -> bytes:
    """The text of `weave-net` for a node; see `plugin.executables`.

    It is compiled already. The parts that an ordinary call does not need are one string in it, which is compiled when
    one of them is called: the less there is to load at every start, the better.
    """
    source = Path(__file__).with_name("weave_net.py")
    fast, slow = stamped(source, interpreter).split(_SLOW_BEGIN)
    slow, end = slow.split(_SLOW_END)
    # A `from __future__` line has to come first.
    slow = Path(__file__).with_name("delegation.py").read_bytes() + b"\n" + _SLOW_BEGIN + slow
    assert b"'''" not in slow, "it would end the string early"
    text = fast.replace(_PLACE, b"SLOW_WAY = r'''" + slow + b"'''\n") + _SLOW_END + end
    return precompiled(text, source.name)
