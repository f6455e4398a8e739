"""Where reports are written: checked before anything else happens, written whole or not at all, given to who asked.

A run may take minutes; a report that cannot be written is found out before it begins. Under sudo a report belongs to
the person who typed the command, not to root.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from plugin.core.errors import InputError, said_by

_STANDARD_OUTPUT: Final = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}


def is_standard_output(path: Path) -> bool:
    """Whether the report goes to standard output, by any of its names."""
    return str(path) in _STANDARD_OUTPUT


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, by whatever links; devices take any number of reports."""
    if is_device(one) or is_device(other):
        return False
    if one.resolve() == other.resolve():
        return True
    try:
        return one.samefile(other)
    except OSError:
        return False


def check_report_path(path: Path) -> None:
    """See to it that a report can be written there later; makes the directories above it.

    Raises:
        InputError: It cannot, and why.
    """
    if is_standard_output(path):
        return
    if path.is_dir():
        raise InputError(f"the report {path} is to be a file, found a directory", hint="name a file in it")
    if is_device(path):
        return
    make_directory(path.parent)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"the report {path} cannot be written: {said_by(error, path=False)}", hint="choose another directory"
        ) from error


def make_directory(directory: Path) -> None:
    """Make a directory with those above it; the new ones belong to who asked.

    Raises:
        InputError: It cannot be made.
    """
    missing = [directory, *directory.parents]
    missing = [path for path in missing if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the directory {directory} cannot be made: {said_by(error, path=False)}",
            hint="choose another path for the report",
        ) from error
    for path in missing:
        give_back(path)


def write_report(path: Path, content: str | bytes) -> None:
    """Write a report; a reader finds the old one or the new one, never half of it.

    A symbolic link stays one, and what is no file (/dev/null, a pipe) is written into, never replaced.

    Raises:
        OSError: The disk is full, or the directory has gone meanwhile.
    """
    data = content.encode("utf-8", errors="replace") if isinstance(content, str) else content
    if is_device(path):
        with path.open("ab") as stream:
            stream.write(data)
        return
    path = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        give_back(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_device(path: Path) -> bool:
    """Whether there is something that is no file: a terminal, a pipe, /dev/null, an open file named by its number."""
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(kind) or str(path).startswith(("/dev/fd/", "/dev/std", "/proc/self/fd/"))


def give_back(path: Path) -> None:
    """Under sudo: make a file or directory belong to the person behind it, where the filesystem knows owners."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() == 0 and user.isdecimal() and group.isdecimal():
        try:
            os.chown(path, int(user), int(group))
        except OSError:
            return
