"""The agent's code as files that need nothing of this checkout: our own modules, and the two packages that they import.

All of it lies in one folder that is called by what is in it, so an upgrade is a second folder beside the first, and the
small program `weave-agent` that names the folder is replaced last: an agent that is restarted in between runs the old
code or the new one, never a mixture.
"""

import functools
import hashlib
import importlib.metadata
import py_compile
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path
from typing import Final

import plugin
from plugin.core.errors import MissingError
from testbed.deploy.plan import DeployFile

LIBRARY: Final = "/opt/weave/lib"
_PACKAGES: Final = ("msgspec", "h11")
"""What plugin.agent imports besides the standard library. A part of msgspec is compiled for one version of Python."""

_LEFT_OUT: Final = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")
"""Notes of pip about this virtual environment, which say nothing about the copy."""


def library_files(version: str) -> tuple[str, list[DeployFile], list[DeployFile]]:
    """The folder of the agent's code, its files, and what Python would compile them to.

    The compiled ones are made here because the agent's service may not write beside its code. Python checks them by
    their source's content, so they may be absent, or of another Python: then the start takes a little longer.

    Raises:
        MissingError: A package is not installed here in a way that can be copied.
    """
    sources = dict(_sources())
    digest = hashlib.sha256()
    for path, content in sorted(sources.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    folder = f"{LIBRARY}/{version}-{digest.hexdigest()[:12]}"
    files = [DeployFile(f"{folder}/{path}", content, b"") for path, content in sorted(sources.items())]
    modules = [(file.path, file.content) for file in files if file.path.endswith(".py")]
    return folder, files, [DeployFile(cache_from_source(path), _compiled(path, text), b"") for path, text in modules]


def _sources() -> Iterator[tuple[str, bytes]]:
    """Every file, by its path below the folder."""
    ours = Path(plugin.__file__ or "").resolve().parent
    for path in ours.rglob("*.py"):
        yield f"plugin/{path.relative_to(ours)}", path.read_bytes()
    for package in _PACKAGES:
        try:
            files = importlib.metadata.files(package)
        except importlib.metadata.PackageNotFoundError:
            files = None
        if not files:
            raise MissingError(
                f"wanted the files of the Python package {package}, to copy them to the node; found no list of them",
                hint=f"install it with pip: {sys.executable} -m pip install --force-reinstall {package}",
            )
        for file in files:
            if file.suffix != ".pyc" and ".." not in file.parts and file.name not in _LEFT_OUT:
                yield str(file), Path(str(file.locate())).read_bytes()


@functools.lru_cache(maxsize=1024)
def _compiled(path: str, source: bytes) -> bytes:
    """What Python would write beside a module for its next import (PEP 552: checked by the hash of the source)."""
    with tempfile.TemporaryDirectory(prefix="weavelab-") as folder:
        there, result = Path(folder, "module.py"), Path(folder, "module.pyc")
        there.write_bytes(source)
        py_compile.compile(
            str(there),
            cfile=str(result),
            dfile=path,
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )
        return result.read_bytes()
