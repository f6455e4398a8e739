"""The executable `weave-net` that container runtimes call; standard library only.

`weave_net.py` is that executable, whole. It is deployed by writing `executable_bytes(interpreter)` to /opt/cni/bin.
"""

from pathlib import Path
from typing import Final

from plugin.executables import precompiled

TYPE: Final = "weave-net"
"""The `type` of the plugin in a configuration, which is also its file name in CNI_PATH."""


def executable_bytes(interpreter: str) -> bytes:
    """The text of `weave-net` for a node; see `plugin.executables.precompiled`."""
    return precompiled(Path(__file__).with_name("weave_net.py"), interpreter)
