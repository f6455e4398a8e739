"""A running lab as a Mininet network: its topology, its members plugged into each other, pings between them.

It describes what is there: nothing is made, and closing it ends shells only.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from testbed.lab.agent_api import AgentError, post
from testbed.lab.paths import UNDERLAY
from testbed.lab.running import Lab
from testbed.probes.ping import parse_ping
from testbed.prompt.host import LabHost, LabIntf, LabPodHost, LabSwitch
from testbed.topology.model import Topology
from testbed.topology.names import OUTSIDE
from testbed.topology.underlay import plan_underlay

# isort: split
# testbed.prompt.host has put Mininet's stand-in in place.
from mininet.link import Link
from mininet.log import lg, output
from mininet.net import Mininet
from mininet.topo import Topo

_PING_S: Final = 3.0


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

    def refresh(self) -> None:
        """Have the pods that there are now: another command may have added, deleted or remade some."""
        now = self.lab.now()
        if now is None or now.state.pods == self.lab.state.pods:
            return
        before, self.lab = self.lab, now
        for name, pod in before.pods.items():
            if now.pods.get(name) != pod and name in self:
                self._forget(self[name])
        for name, pod in now.pods.items():
            if before.pods.get(name) != pod:
                self.addHost(name, kind="pod")
                self.addLink(name, pod.node)

    def _forget(self, host: Any) -> None:
        host.terminate()
        self.hosts.remove(host)
        del self.nameToNode[host.name]
        for link in [link for link in self.links if link.intf1.node is host]:
            link.intf2.node.delIntf(link.intf2)
            self.links.remove(link)

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
            self._excuse(cable.intf2, pulled=status == "down")
            said = cable.intf2.ifconfig(status)
            if said:
                raise ValueError(said.strip())

    def _excuse(self, far: Any, *, pulled: bool) -> None:
        """A pod's cable that a person has pulled stays so: the agent of its node would mend it."""
        node = self.lab.nodes.get(far.node.name)
        if node is None or far.name not in {pod.host_ifname for pod in self.lab.pods.values()}:
            return
        body = {"object": f"port {far.name}"} | ({"reason": "pulled at the prompt"} if pulled else {})
        with contextlib.suppress(AgentError):  # no agent runs, or nothing was held
            post(node.api_socket, "/hold" if pulled else "/release", body)

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
    """Let Mininet's results go to `stream`; as it ships, they go to standard error with everything else.

    What cannot be written is an error as it is everywhere, and not a traceback that the command survives.
    """

    def again(_record: Any) -> None:
        raise  # noqa: PLE0704 - the handler calls this while it handles the error

    for handler in lg.handlers:
        handler.setStream(stream)
        handler.handleError = again
