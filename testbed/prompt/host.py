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
from testbed.lab.paths import UNDERLAY
from testbed.lab.running import Lab
from testbed.machine.space import Completed, Space, run, spawn
from testbed.probes.ping import parse_ping
from testbed.prompt.process import SENTINEL, ShellProcess
from testbed.topology.model import Topology
from testbed.topology.names import OUTSIDE
from testbed.topology.underlay import plan_underlay


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

from mininet.link import Intf, Link  # noqa: E402 - after its stand-in
from mininet.log import lg, output  # noqa: E402
from mininet.net import Mininet  # noqa: E402
from mininet.node import Host, Node, Switch  # noqa: E402
from mininet.topo import Topo  # noqa: E402

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


class LabTopo(Topo):  # type: ignore[misc]
    """A topology of ours as Mininet's: nodes, routers and outside are hosts, pods are hosts plugged into their node."""

    def build(self, topology: Topology) -> None:
        """Called by Topo's constructor: `LabTopo(topology=...)`."""
        plan = plan_underlay(topology)
        for bridge in plan.bridges:
            self.addSwitch(bridge.name)
        for host in plan.hosts:
            self.addHost(host.name, kind=host.kind)
            for plug in host.attachments:
                self.addLink(host.name, plug.bridge, intfName1=plug.ifname, intfName2=plug.port)
        for name, pod in topology.pods.items():
            self.addHost(name, kind="pod")
            self.addLink(name, pod.node, intfName1="eth0")


class LabNet(Mininet):  # type: ignore[misc]
    """Mininet's network object on a running lab. `close` ends its shells; the lab stays.

    Args:
        lab: The lab.
    """

    def __init__(self, lab: Lab) -> None:
        Mininet.inited = True  # its init writes ten sysctls of the machine
        self.lab = lab
        topo = LabTopo(topology=lab.topology)
        super().__init__(
            topo=topo, host=LabHost, switch=LabSwitch, link=Link, intf=LabIntf, controller=None, build=False
        )
        self.buildFromTopo(topo)
        self.built = True

    @property
    def pods(self) -> list[Any]:
        """The pods, in the order of the topology."""
        return [self[name] for name in self.lab.pods if name in self]

    def addHost(self, name: str, cls: Any = None, *, kind: str = "node", **params: Any) -> Any:  # noqa: N802 - Mininet's interface
        """Attach to a member of the lab; a pod that is not attached (yet) is left out."""
        if kind == "pod" and name not in self.lab.pods:
            return None
        cls = cls or (LabPodHost if kind == "pod" else LabHost)
        host = cls(name, space=self.lab.space(name), **params)
        self.hosts.append(host)
        self.nameToNode[name] = host
        return host

    def addSwitch(self, name: str, cls: Any = None, **params: Any) -> Any:  # noqa: N802 - Mininet's interface
        """Attach to a switch of the underlay."""
        return super().addSwitch(name, cls=cls, space=self.lab.space(UNDERLAY), **params)

    def addLink(self, node1: str, node2: str, **params: Any) -> Any:  # noqa: N802 - Mininet's interface
        """Describe a cable that exists."""
        if node1 not in self or node2 not in self:
            return None
        pod = self.lab.pods.get(node1)
        if pod is not None:
            near: dict[str, Any] = {"ip": str(pod.address), "mac": pod.mac}
            names = (pod.ifname, pod.host_ifname)
        else:
            names = (params["intfName1"], params["intfName2"])
            plug = next(plug for plug in self.lab.underlay.host(node1).attachments if (plug.ifname, plug.port) == names)
            near = {"ip": str(plug.address.ip), "mac": plug.mac}
        link = _Cable(self[node1], self[node2], names, near, (params.get("port1"), params.get("port2")))
        self.links.append(link)
        return link

    def address_of(self, name: str) -> str | None:
        """The address by which a member is reached: a pod's own, a node's on the underlay, the outside host's."""
        if name == OUTSIDE:
            return str(self.lab.topology.underlay.outside.address)
        if name not in self or isinstance(self[name], LabSwitch):
            return None
        address: str | None = self[name].IP()
        return address

    def ping(self, hosts: Sequence[Any] | None = None, timeout: str | float | None = None) -> float:
        """Every host to every other (all pods, or all nodes where there are none); returns the loss in percent.

        As Mininet's, but no ping can hang it: each has a deadline, and no shell is in between.
        """
        chosen = list(hosts or self.pods or self.hosts)
        sent = lost = 0
        output("*** Ping: testing ping reachability\n")
        for source in chosen:
            output(f"{source.name} -> ")
            for target in chosen:
                if source is target:
                    continue
                reached = self._reaches(source, target, float(timeout or 1))
                sent, lost = sent + 1, lost + (not reached)
                output(f"{target.name} " if reached else "X ")
            output("\n")
        if not sent:
            output("*** Warning: No packets sent\n")
            return 0.0
        loss = 100.0 * lost / sent
        output(f"*** Results: {loss:.0f}% dropped ({sent - lost}/{sent} received)\n")
        return loss

    def _reaches(self, source: Any, target: Any, wait_s: float) -> bool:
        argv = ["ping", "-n", "-c1", f"-W{wait_s:g}", str(self.address_of(target.name))]
        done = source.run(argv, timeout_s=wait_s + _PING_S)
        return parse_ping(done.stdout, done.stderr, requested=1).received > 0

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:  # noqa: N802 - Mininet's interface
        """Pull or plug a cable: the far end goes down or up, so the near one keeps its routes, as on a real host."""
        cables = [link for link in self.links if {link.intf1.node.name, link.intf2.node.name} == {src, dst}]
        if not cables:
            raise ValueError(f"there is no link between {src} and {dst}")
        for cable in cables:
            said = cable.intf2.ifconfig(status)
            if said:
                raise ValueError(said.strip())

    def close(self) -> None:
        """End all shells."""
        for node in [*self.hosts, *self.switches]:
            node.terminate()

    def stop(self) -> None:
        """As `close`: Mininet's stop would delete what is the lab's."""
        self.close()


class _Cable(Link):  # type: ignore[misc]
    """A link that exists: makes the two interface objects and nothing in the kernel."""

    def __init__(
        self,
        node1: Any,
        node2: Any,
        names: tuple[str, str],
        near: dict[str, Any],
        ports: tuple[int | None, int | None],
    ) -> None:
        self.intf1 = LabIntf(names[0], node=node1, link=self, port=ports[0], **near)
        self.intf2 = LabIntf(names[1], node=node2, link=self, port=ports[1])

    def status(self) -> str:
        """As Mininet words it."""
        words = ("OK" if intf.isUp() else "DOWN" for intf in (self.intf1, self.intf2))
        return f"({' '.join(words)})"

    def stop(self) -> None:
        """It is the lab's."""

    delete = stop


def show_output_on(stream: Any) -> None:
    """Let Mininet's results go to `stream`; as it ships, they go to standard error with everything else."""
    for handler in lg.handlers:
        handler.setStream(stream)
