"""How the commands that we suggest to people begin: so that they work where they are typed."""

import shutil
import sys
from pathlib import Path
from typing import Final

_FROM_THE_PROJECT: Final = "sudo .venv/bin/weavelab"
_BY_NAME: Final = "sudo weavelab"


def our_command(called: str | None = None) -> str:
    """`sudo weavelab` for who called it by its name, else the way that works from the project's folder.

    The name is known everywhere, to sudo too, when the set-up has put it on the PATH. A virtual environment that
    somebody has activated is nothing that sudo knows.

    Args:
        called: What this program was called, as a path; that of this process when None.
    """
    path = Path(sys.argv[0] if called is None else called)
    by_name = shutil.which("weavelab") == str(path) and path.parent != Path(sys.prefix, "bin")
    return _BY_NAME if by_name else _FROM_THE_PROJECT
