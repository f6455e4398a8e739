"""A command on a terminal that is only a picture in memory: keys go in, what a person would see comes out."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte

from tests.support.project import ROOT


class Screen:
    """Runs a command on a pseudo terminal, and reads it with pyte's emulation.

    Attributes:
        text: All that was written, escape sequences with it.
    """

    def __init__(
        self, argv: Sequence[str], *, columns: int = 80, lines: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.text = b""
        environ = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
        environ |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})}
        pid, fd = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(argv[0], list(argv), environ)
        self.pid, self.fd = pid, fd

    @property
    def rows(self) -> list[str]:
        """What stands on the screen, line by line."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def shown(self) -> str:
        """The same as one text."""
        return "\n".join(self.rows)

    def read_until(self, wanted: str, *, within_s: float = 60) -> None:
        """Wait until that can be seen."""
        self.wait(lambda: wanted in self.shown, repr(wanted), within_s=within_s)

    def wait(self, reached: Callable[[], bool], what: str, *, within_s: float = 60) -> None:
        """Wait until the screen is so."""
        deadline_s = time.monotonic() + within_s
        while not reached():
            assert time.monotonic() < deadline_s, f"wanted {what}, the screen shows:\n{self.shown}"
            assert self._read(0.2), f"wanted {what}, the command ended with:\n{self.shown}"

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.fd, keys.encode())

    def resize(self, *, columns: int, lines: int) -> None:
        """As when somebody pulls at the window's corner."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def close(self) -> int:
        """Close the window; the exit code of what ran in it."""
        os.close(self.fd)
        return self._wait()

    def end(self, *, within_s: float = 60) -> int:
        """Wait for the end; the exit code."""
        deadline_s = time.monotonic() + within_s
        while self._read(0.2):
            assert time.monotonic() < deadline_s, f"it does not end, the screen shows:\n{self.shown}"
        os.close(self.fd)
        return self._wait()

    def kill(self) -> None:
        """For the end of a test that failed."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            self._wait()
        except (ProcessLookupError, ChildProcessError):
            pass

    def _wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self, within_s: float) -> bool:
        """Read what is there; whether the command can still write."""
        ready, _, _ = select.select([self.fd], [], [], within_s)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.text += data
        self._stream.feed(data)
        return bool(data)
