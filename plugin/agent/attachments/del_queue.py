"""DELs that the executable wrote down while no agent answered (plugin/cni/weave_net.py, keep_for_later)."""

import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from plugin.core.cni.request import queue_name
from plugin.core.cni.types import CniError
from plugin.core.errors import said_by
from plugin.core.ipam.allocator import Attachment

_UNFINISHED: Final = ".tmp-"
_UNFINISHED_S: Final = 60.0
"""A file that is being written for so long has no writer any more: the executable was killed."""


class DelQueue:
    """One directory.

    Args:
        directory: Where the files are; it need not exist.
        carry_out: Carries out one call, as `Attachments.handle`.
        log: Where events go.
    """

    def __init__(
        self, directory: Path, carry_out: Callable[[bytes, int | None], Awaitable[object]], log: logging.Logger
    ) -> None:
        self._directory = directory
        self._carry_out = carry_out
        self._log = log

    async def drain(self) -> int:
        """Carry out all that waits; returns how many DELs were done."""
        done = 0
        for path in self._waiting():
            done += await self._one(path)
        return done

    async def carry_out(self, attachment: Attachment) -> None:
        """Carry out the DEL of one attachment, if it waits: done later it would take a new attachment away."""
        if (path := self._of(attachment)) is not None:
            await self._one(path)

    def _of(self, attachment: Attachment) -> Path | None:
        path = self._directory / queue_name(*attachment)
        return path if path.exists() else None

    def _waiting(self) -> list[Path]:
        try:
            paths = sorted(self._directory.iterdir())
            for path in paths:
                if path.name.startswith(_UNFINISHED) and time.time() - path.stat().st_mtime > _UNFINISHED_S:
                    path.unlink()
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._log.error("queue unreadable", extra={"path": str(self._directory), "reason": said_by(error)})
            return []
        return [path for path in paths if not path.name.startswith(".")]

    async def _one(self, path: Path) -> bool:
        try:
            await self._carry_out(_read(path), None)
            _remove(path)
        except CniError as error:  # it will never be better: out of the way, and kept for whoever wonders
            self._log.error("queued DEL failed", extra={"path": str(path), "reason": str(error)})
            _set_aside(path)
        except OSError as error:
            self._log.error("queued DEL failed", extra={"path": str(path), "reason": said_by(error)})
        else:
            return True
        return False


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rename(path.with_name(f".refused-{path.name}"))
