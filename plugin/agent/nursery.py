"""Starts many agents on one machine: everything is loaded once, and every agent is a fork that moves to its node.

For labs, where a hundred nodes share a few processors; a real node starts its one agent directly. One JSON object a
line on standard input, `{"net": path, "mnt": path, "uts": path, "config": path, "log": path}` (namespaces as files, the
other two as seen inside the node); one line with the agent's pid, or an error, comes back for each. It ends with its
input; the agents live on.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from typing import Any, Final

from plugin.agent.__main__ import main
from plugin.core.errors import said_by
from plugin.link import netns

_KINDS: Final = (("uts", netns.CLONE_NEWUTS), ("mnt", netns.CLONE_NEWNS), ("net", netns.CLONE_NEWNET))
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15


def _raise_agents() -> int:
    """Read what is wanted until the input ends, or whoever wants it: nobody would take down what is started later."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    gc.collect()
    gc.freeze()  # the agents share these pages as long as no collection touches them
    for line in sys.stdin:
        try:
            wanted = json.loads(line)
            told = str(_start(wanted))
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = f"error: {said_by(error)}"
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
    return 0


def _start(wanted: dict[str, Any]) -> int:
    """Fork an agent; only its beginning is watched: that it could move to its node.

    Raises:
        OSError: It could not; the text is its own.
    """
    reading, writing = os.pipe()
    nursery = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(wanted, writing, nursery)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        failure = answer.read()
    if failure:
        os.waitpid(pid, 0)
        raise OSError(failure)
    return pid


def _live(wanted: dict[str, Any], writing: int, nursery: int) -> None:
    """Be an agent, and never return."""
    code = 1
    try:
        try:
            os.setsid()
            _enter(wanted)
            log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(source, target)
            os.close(log)
            os.close(nothing)
            os.chdir("/")
            _name(b"weave-agent")
            if os.getppid() != nursery:
                return  # the lab was being taken down before this agent was in it
        except (OSError, KeyError) as error:
            os.write(writing, said_by(error).encode())
            return
        os.close(writing)
        code = main(["--config", wanted["config"]])
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _enter(wanted: dict[str, Any]) -> None:
    # All descriptors are opened before the first step: afterwards the paths may mean something else.
    descriptors = [(netns.open_netns(wanted[kind]), flag) for kind, flag in _KINDS]
    for fd, flag in descriptors:
        netns.setns(fd, flag)
        os.close(fd)


def _name(name: bytes) -> None:
    """What `ps` and `top` call the process (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(_raise_agents())
