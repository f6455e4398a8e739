"""Mininet's face on a running lab: its Topo, Mininet, Host, Switch, Link and Intf, attached to namespaces that exist.

Mininet's own engine makes a host by starting a shell in a fresh namespace and configures it with a dozen commands.
Here the engine (`testbed.nodes.engine`) has made everything already; these classes attach to it. A host's shell
starts when the first command needs one. Nothing here creates or removes a namespace, link or address, and ending it
leaves the lab up.

Never import `mininet.clean` and never run `mn -c`: it kills every `ping` of the machine and removes /tmp/*.log.
"""

import os
import select
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Sequence
from typing import Any, Final

from plugin.link.netlink import Netlink
from plugin.link.netns import open_netns
from testbed.machine.space import Completed, Space, run, spawn
from testbed.prompt.process import SENTINEL, ShellProcess


def _import_mininet() -> None:
    """Import Mininet's modules, which want `distutils`: gone with Python 3.12, and noisy before."""
    absent = "distutils" not in sys.modules
    if absent:
        package, version = types.ModuleType("distutils"), types.ModuleType("distutils.version")
        version.StrictVersion = str  # type: ignore[attr-defined]  # Mininet compares Open vSwitch's version, which we never use
        package.version = version  # type: ignore[attr-defined]
        sys.modules |= {"distutils": package, "distutils.version": version}
    try:
        import mininet.net  # noqa: F401, PLC0415
    finally:
        if absent:  # whoever wants the real one later shall get it
            del sys.modules["distutils"], sys.modules["distutils.version"]


_import_mininet()

from mininet.link import Intf  # noqa: E402 - after its stand-in
from mininet.node import Host, Node, Switch  # noqa: E402

_SHELL_START_S: Final = 5.0
_PING_S: Final = 3.0


class _Attached(Node):  # type: ignore[misc]  # Mininet ships no types
    """A Mininet node whose namespaces exist; mixed into hosts and switches.

    Args:
        name: As in the topology.
        space: How to enter it.
    """

    def __init__(self, name: str, *, space: Space, **params: Any) -> None:
        self.space = space
        self._pid: int | None = None
        self.shell: Any = None
        self.stdin: Any = None
        self.stdout: Any = None
        params["inNamespace"] = False  # for Mininet: nothing is to be moved anywhere
        super().__init__(name, **params)

    @classmethod
    def setup(cls) -> None:
        """Mininet looks for mnexec and ifconfig here; neither is used."""

    @property
    def pid(self) -> int | None:
        """The shell's process, or None as long as there is no shell."""
        return self._pid

    @pid.setter
    def pid(self, value: int | None) -> None:
        self._pid = value

    def startShell(self, mnopts: str | None = None) -> None:  # noqa: N802 - Mininet's interface
        """Called when a node object is made: nothing yet, see `ensure_shell`."""

    def ensure_shell(self) -> None:
        """Start the shell unless it runs.

        Raises:
            OSError: The space is gone, or there is no bash.
            TimeoutError: The shell does not come up.
        """
        if self.shell is not None and self.shell.poll() is None:
            return
        if self.shell is not None:  # somebody typed `exit`
            self.cleanup()
        self.master, self.slave = os.openpty()
        self.shell = ShellProcess(self.space, os.ttyname(self.slave), self.name)
        self.stdin = self.stdout = os.fdopen(self.master, "r")
        self.pid = self.shell.pid
        self.pollOut = select.poll()
        self.pollOut.register(self.stdout)
        self.outToNode[self.stdout.fileno()] = self.inToNode[self.stdin.fileno()] = self
        self.lastCmd = self.lastPid = None
        self.readbuf = ""
        self.waiting = False
        deadline_s = time.monotonic() + _SHELL_START_S
        text = ""
        while not text.endswith(SENTINEL):
            if not self.pollOut.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
                raise TimeoutError(f"the shell of {self.name} does not come up: {text!r}")
            text += self.read(1024)
        self.cmd("unset HISTFILE; stty -echo; set +m")

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:  # noqa: N802 - Mininet's interface
        """Send a command to the shell, which is started if need be; `monitor` and `waitOutput` read its output."""
        self.ensure_shell()
        kwargs.pop("printPid", None)  # needs mnexec
        super().sendCmd(*args, **kwargs)

    def cmd(self, *args: Any, **kwargs: Any) -> str:
        """Run a command in the shell and return its output. It has no deadline: use `run` where that matters."""
        self.ensure_shell()
        text: str = super().cmd(*args, **kwargs)
        return text

    def popen(self, *args: Any, **kwargs: Any) -> "subprocess.Popen[bytes]":
        """Start a program inside, as Mininet's popen: a list, a string, or several arguments; `shell=True` works."""
        words = args[0] if len(args) == 1 and isinstance(args[0], list) else list(args)
        kwargs.pop("mncmd", None)
        if kwargs.pop("shell", False):
            argv = ["/bin/sh", "-c", " ".join(map(str, words))]
        else:
            argv = words[0].split() if len(words) == 1 and isinstance(args[0], str) else [str(word) for word in words]
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        return spawn(self.space, argv, **kwargs)

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program inside to its end, at most `timeout_s` seconds; no shell, no terminal."""
        return run(self.space, argv, timeout_s=timeout_s)

    def cleanup(self) -> None:
        """Let go of the shell's terminal."""
        if self.shell is not None:
            self.outToNode.pop(self.stdout.fileno(), None)
            self.inToNode.pop(self.stdin.fileno(), None)
            self.stdin.close()
            os.close(self.slave)
        self.shell = self.stdin = self.stdout = self.pid = None
        self.waiting = False

    def terminate(self) -> None:
        """End the shell, if there is one; what lives in the namespaces otherwise is not ours."""
        if self.shell is not None:
            self.shell.end()
        self.cleanup()


class LabHost(_Attached, Host):  # type: ignore[misc]
    """A node of the cluster, a router or the outside host."""


class LabPodHost(_Attached, Host):  # type: ignore[misc]
    """A pod."""


class LabSwitch(_Attached, Switch):  # type: ignore[misc]
    """The switch of one segment of the underlay; commands run in the underlay's namespace."""

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, dpid="0", **params)  # no OpenFlow here; Mininet insists on an id

    def start(self, controllers: Iterable[Any]) -> None:
        """It runs already."""

    def stop(self, deleteIntfs: bool = True) -> None:  # noqa: FBT001, FBT002, N803 - Mininet's interface
        """It is the lab's, not ours."""


class LabIntf(Intf):  # type: ignore[misc]
    """An interface that exists, with the address and MAC that it has."""

    def __init__(self, name: str, *, ip: str | None = None, mac: str | None = None, **params: Any) -> None:
        super().__init__(name, mac=mac, moveIntfFn=lambda *_: None, **params)
        self.ip = ip

    def config(self, **_params: Any) -> dict[str, Any]:
        """It is configured already."""
        return {}

    def updateIP(self) -> str | None:  # noqa: N802 - Mininet's interface
        """The address; Mininet asks ifconfig for it."""
        ip: str | None = self.ip
        return ip

    def ifconfig(self, *args: str) -> str:
        """`up`, `down`, or nothing for a description, carried out with ip(8); returns what it printed."""
        words = ["link", "set", "dev", self.name, *args] if args else ["address", "show", "dev", self.name]
        done = self.node.run(["ip", *words], timeout_s=_PING_S)
        return str(done.stdout + done.stderr)

    def isUp(self, setUp: bool = False) -> bool:  # noqa: FBT001, FBT002, N802 - Mininet's interface
        """Whether the kernel has it up, as read by netlink."""
        if setUp:
            return not self.ifconfig("up")
        fd = open_netns(self.node.space.net)
        try:
            kernel = Netlink(fd)
        finally:
            os.close(fd)
        with kernel:
            link = kernel.link(self.name)
        return link is not None and link.up
