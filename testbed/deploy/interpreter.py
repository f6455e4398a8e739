"""Which Python executes the CNI plugin on a node.

The runtime starts the plugin with an environment of its own and in the node's file system, for every pod: the first
line must name a real program by its absolute path. A version manager's shim is a shell script that costs more than the
whole plugin and needs variables that are not there; a virtual environment costs 5 ms for a `site` that is never used.
"""

import os
import re
import sys
from pathlib import Path
from typing import Final

OLDEST: Final = (3, 11)
_SYSTEM: Final = Path("/usr/bin/python3")
_VERSION: Final = re.compile(r"python3\.(\d+)$")
_ELF: Final = b"\x7fELF"


def plugin_interpreter(system: Path = _SYSTEM) -> Path:
    """The distribution's Python where it is new enough, else the program behind our own.

    Args:
        system: The distribution's Python.
    """
    if _version(system) >= OLDEST and _is_program(system):
        return system
    return Path(os.path.realpath(sys.executable))


def _version(path: Path) -> tuple[int, int]:
    """By the name it resolves to (`python3.11`), which distributions keep to; (0, 0) when it does not tell."""
    found = _VERSION.search(os.path.realpath(path))
    return (3, int(found[1])) if found else (0, 0)


def _is_program(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False
