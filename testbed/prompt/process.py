"""A shell inside a namespace, on a terminal of its own: what a Mininet node sends its commands to."""

import contextlib
import os
import signal
import time
from typing import Final

from testbed.deploy.plan import TOOLS_PATH
from testbed.machine.space import Space, call

SENTINEL: Final = "\x7f"
"""The shell's prompt: Mininet knows by it that a command has ended."""

_END_S: Final = 1.0


class ShellProcess:
    """A shell in a session of its own on its own terminal, as far as Mininet's Node uses a Popen object.

    It is started with posix_spawn, whose order of steps (new session, then open the terminal) gives the shell a
    controlling terminal: without one, Ctrl-C would not reach the command that runs in it.
    """

    def __init__(self, space: Space, terminal: str, name: str) -> None:
        argv = ["/bin/bash", "--norc", "--noediting", "-is", f"weavelab:{name}"]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ]
        path = f"{os.environ.get('PATH', os.defpath)}:{TOOLS_PATH}"
        environment = {**os.environ, "PATH": path, "PS1": SENTINEL, "TERM": "dumb"}
        self.pid: int = call(
            space, lambda: os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
        )
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code once it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def end(self) -> None:
        """Hang up, and kill what does not mind."""
        deadline_s = time.monotonic() + _END_S
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            while self.poll() is None and (number == signal.SIGKILL or time.monotonic() < deadline_s):
                time.sleep(0.005)

    def wait(self) -> int | None:
        """As Popen; `end` has waited already."""
        return self.poll()
