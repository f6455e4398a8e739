"""Claims on files that a command is going to write: two commands at the same time never write into one.

A claim is the address of a socket, which the kernel frees when the process ends, however it ends; nothing is left on
the disk, and the file claimed need not exist yet.
"""

import errno
import hashlib
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from plugin.core.errors import InputError


@contextmanager
def claimed(paths: Iterable[Path]) -> Iterator[None]:
    """Within the block these files and folders are this command's to write.

    Raises:
        InputError: Another command writes one of them at this moment.
    """
    with ExitStack() as held:
        for path in {path.resolve() for path in paths}:
            held.enter_context(_claim(path))
        yield


def _claim(path: Path) -> socket.socket:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(b"\0weavelab-writes-" + hashlib.sha256(os.fsencode(path)).hexdigest().encode())
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise InputError(
            f"{path} is being written by another weavelab run", hint="give each run a path of its own"
        ) from None
    return claim
