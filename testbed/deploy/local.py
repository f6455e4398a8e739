"""Deploys into an emulated node of this machine: a thread enters the node's namespaces and writes there."""

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from plugin.core.errors import said_by
from testbed.deploy.plan import DeployFile, Service
from testbed.deploy.transport import DeployError, is_ours, refusal
from testbed.machine.space import Space, call

T = TypeVar("T")

_DEFAULT_AGAIN: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores in itself and a child should not inherit (subprocess: restore_signals)."""

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class LocalTransport:
    """The way into an emulated node."""

    def __init__(self, space: Space) -> None:
        self._space = space

    @property
    def node(self) -> str:
        """The node's name."""
        return self._space.name

    def install(self, files: Sequence[DeployFile], directories: Sequence[str]) -> None:
        """See `Transport.install`."""

        def write_all() -> None:
            for directory in directories:
                Path(directory).mkdir(mode=0o755, parents=True, exist_ok=True)
            for file in files:
                self._write(file)

        self._inside(write_all, "deploy to")

    def start(self, service: Service) -> int:
        """See `Transport.start`. The child is born inside the node, in a session of its own."""
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, service.log, append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]

        def spawn() -> int:
            # No Popen object: the agent outlives this command, and nobody here will ever wait for it.
            return os.posix_spawn(
                service.argv[0],
                service.argv,
                dict(service.environment),
                file_actions=actions,
                setsid=True,
                setsigdef=_DEFAULT_AGAIN,
            )

        return self._inside(spawn, f"start {service.argv[0]} on")

    def close(self) -> None:
        """Nothing is held."""

    def _inside(self, function: Callable[[], T], doing: str) -> T:
        try:
            return call(self._space, function)
        except OSError as error:
            raise DeployError(
                f"wanted to {doing} node {self.node}, found: {said_by(error)}",
                hint="is the lab still whole (weavelab status), and has the disk space left (df /run)?",
            ) from error

    def _write(self, file: DeployFile) -> None:
        path = Path(file.path)
        try:
            existing = path.read_bytes()
        except FileNotFoundError:
            pass
        else:
            if not is_ours(existing, file):
                raise refusal(self.node, file.path)
        temporary = path.with_name(f".{path.name}.weavelab")
        try:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()  # of a command that was killed
            with os.fdopen(
                os.open(temporary, _NEW, file.mode), "wb"
            ) as opened:  # nobody reads it before it has its mode
                opened.write(file.content)
            temporary.chmod(file.mode)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
