"""A place in which the documentation can be typed as it is printed: a machine of its own, as far as commands can see.

It has its own process, network, mount and host namespaces with an empty /run, so that labs have the names that the pages
give them and meet nobody else's, and nothing is left when it goes: its first process ends, and the kernel ends the rest.
The project is a copy, and `.venv/bin` holds this Python and the commands of that copy.
"""

import contextlib
import hashlib
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.project import ROOT

_BEGIN: Final = """
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
{machine}
echo ready
read
"""
_MACHINE: Final = """
for folder in etc opt usr/local var/lib; do
    mkdir -p /run/layers/$folder/upper /run/layers/$folder/work
    mount -t overlay overlay /$folder \
        -o lowerdir=/$folder,upperdir=/run/layers/$folder/upper,workdir=/run/layers/$folder/work
done
hostname node1
ip link add eth0 type veth peer name network
ip address add 192.168.1.10/24 dev eth0
ip link set network up
ip link set eth0 up
ip route add default via 192.168.1.1
mkdir -p /run/systemd/system
"""
"""A machine to install on: what is written to its folders is kept in layers, and it has an uplink."""

_SYSTEMCTL: Final = """#!/bin/sh
pid=/run/systemd/weave.pid
for word; do case $word in -*) ;; *) break ;; esac; done
case $word in
    is-active) kill -0 "$(cat $pid)" 2>/dev/null ;;
    start | restart)
        [ ! -e $pid ] || kill "$(cat $pid)" 2>/dev/null
        mkdir -p /run/weave
        setsid $(sed -n 's/^ExecStart=//p' /etc/systemd/system/weave.service) </dev/null >/run/systemd/weave.log 2>&1 &
        echo $! >$pid ;;
    disable) [ ! -e $pid ] || kill "$(cat $pid)" 2>/dev/null || true ;;
esac
"""
"""What there has to be of systemd to try an installation: it starts and stops the one service."""

_SUDO: Final = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec env "$@"\n'
_TAKES: Final = "#!/bin/sh\ncat >/dev/null\n"
"""What is there for programs that want a cluster, a screen or a large package: it takes what it is given."""

_ENTRY: Final = '#!/bin/sh\nPYTHONPATH={tree} exec {python} -P -m {module} "$@"\n'
_SILENT_S: Final = 5.0
"""So long a command that goes on until Ctrl-C may say nothing at all: what it writes goes elsewhere."""

_SIGNALLED: Final = 128
"""Plus the signal's number: how a shell tells that a signal ended a command."""

_LEFT_OUT: Final = (".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis", ".vagrant", "*.egg-info")


class Place:
    """One such machine, from its beginning to `close`."""

    def __init__(self, folder: Path, *, machine: bool = False) -> None:
        self.tree = folder / "weavelab"
        shutil.copytree(ROOT, self.tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._make_environment({"systemctl": _SYSTEMCTL} if machine else {})
        path = f"{self._bin}:/usr/local/bin:{os.environ['PATH']}"
        self._env = {"PATH": path, "HOME": str(self.tree), "LANG": "C.UTF-8", "COLUMNS": "200", "NATIVE": "1"}
        argv = [
            "unshare",
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-ec",
        ]
        self._holder = subprocess.Popen(
            [*argv, _BEGIN.format(machine=_MACHINE if machine else "")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        (self._first,) = _children(self._holder.pid)

    def _make_environment(self, more: dict[str, str]) -> None:
        venv = self.tree / ".venv"
        (venv / "bin").mkdir(parents=True)
        entry = _ENTRY.format(tree=self.tree, python=sys.executable, module="testbed")
        interpreter = f'#!/bin/sh\nPYTHONPATH={self.tree} exec {sys.executable} "$@"\n'
        programs = {venv / "bin" / "weavelab": entry, venv / "bin" / "python": interpreter}
        for path, text in programs.items():
            path.write_text(text)
            path.chmod(0o755)
        self._stand_in(
            {
                "sudo": _SUDO,
                **dict.fromkeys(("kubectl", "wireshark", "dot"), _TAKES),
                "weavelab": entry,
                **more,
            }
        )
        # What the set-up would say of an environment that it has made for this tree (testbed/setup/python.sh).
        wanted = hashlib.sha256((self.tree / "pyproject.toml").read_bytes()).hexdigest()
        stamp = f"extras dev\nproject {self.tree}\npython {platform.python_version()}\npyproject {wanted}  -\n"
        (venv / ".weavelab-setup").write_text(stamp)

    def _stand_in(self, programs: dict[str, str]) -> None:
        for name, text in programs.items():
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)

    def _entered(self, line: str) -> list[str]:
        where = ["--mount", "--pid", "--net", "--uts", f"--wdns={self.tree}"]
        return ["nsenter", f"--target={self._first}", *where, "bash", "-o", "pipefail", "-c", line]

    def run(self, line: str, *, within_s: float = 60, endless: bool = False) -> tuple[int, str]:
        """Type a command line: (exit code, all that it printed). One that is `endless` is ended by Ctrl-C when it has
        said something, or nothing for long enough.
        """
        process = subprocess.Popen(
            self._entered(line), env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        said = b""
        assert process.stdout is not None
        if endless:
            select.select([process.stdout], [], [], _SILENT_S)
            os.set_blocking(process.stdout.fileno(), False)
            said = process.stdout.read1() or b""
            os.set_blocking(process.stdout.fileno(), True)
            self._interrupt(process.pid)
        try:
            rest, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            rest, _ = process.communicate()
            raise AssertionError(
                f"{line}: still running after {within_s} s; it said:\n{(said + rest).decode()}"
            ) from None
        code = process.returncode
        return code if code >= 0 else _SIGNALLED - code, (said + rest).decode()

    @contextlib.contextmanager
    def meanwhile(self, line: str) -> Iterator[None]:
        """Have a command running while something else is done, and end it."""
        process = subprocess.Popen(
            self._entered(line), env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait_for(self, line: str, accept, *, within_s: float = 30) -> tuple[int, str]:
        """Look with a command until `accept(exit code, output)`, at most so long; the last result."""
        until_s = time.monotonic() + within_s
        while True:
            code, output = self.run(line)
            if accept(code, output) or time.monotonic() > until_s:
                return code, output

    def leftovers(self) -> list[str]:
        """What labs have left in /run, and processes."""
        _, output = self.run("ls -d /run/netns/* /run/weavelab/* 2>/dev/null; pgrep -af 'plugin[.]agent' || true")
        return output.splitlines()

    def close(self) -> None:
        """End it, and all that runs in it."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(10)
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()

    @staticmethod
    def _interrupt(pid: int) -> None:
        """Ctrl-C: for all that runs in there, not for who has entered it."""
        waiting = _children(pid)
        while waiting:
            child = waiting.pop()
            waiting += _children(child)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(word) for word in re.findall(r"\d+", Path(f"/proc/{pid}/task/{pid}/children").read_text())]
    return []
