"""The shipped topologies for stock Mininet: ``mn --custom topologies/mn.py --topo weavelab-two-nodes``.

The same nodes, routers, addresses and routes, with a switch a segment; no agent, no pods, and Mininet's own engine and
MTU. It shows the underlay alone, and is what weavelab is compared with. Mininet adds a controller of its own to
switches; for plain Linux bridges: ``--switch lxbr --controller none``.

Every file beside this one is offered as ``weavelab-<name>``. ``mn`` executes this text without telling it where it is.
"""  # noqa: INP001 - mn reads this file, nobody imports it

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from testbed.machine.checkout import TOPOLOGIES
from testbed.topology.load import load_topology
from testbed.topology.underlay import Host, plan_underlay


def _build(path: Path) -> Any:
    """One topology file as a ``mininet.topo.Topo``."""
    from mininet.node import Node  # noqa: PLC0415 - only when the topology is built
    from mininet.topo import Topo  # noqa: PLC0415

    class UnderlayHost(Node):  # type: ignore[misc]
        """A host that takes its routes from the plan."""

        def config(self, underlay: Host, **params: Any) -> Any:
            result = super().config(**params)
            self.cmd(f"sysctl -w net.ipv4.ip_forward={int(underlay.forwards)}")
            for address in underlay.loopback:
                self.cmd(f"ip address add {address} dev lo")
            # Mininet's interfaces bear the host's name: node1-eth0.
            for route in underlay.routes:
                self.cmd(f"ip route add {route.destination} via {route.gateway} dev {self.name}-{route.ifname}")
            return result

    plan = plan_underlay(load_topology(path))
    topo = Topo()
    switches = {
        bridge.name: topo.addSwitch(f"s{number}", dpid=f"{number:016x}")
        for number, bridge in enumerate(plan.bridges, start=1)
    }
    for host in plan.hosts:
        topo.addHost(host.name, cls=UnderlayHost, ip=str(host.uplink.address), mac=host.uplink.mac, underlay=host)
        for plug in host.attachments:
            topo.addLink(
                host.name,
                switches[plug.bridge],
                intfName1=f"{host.name}-{plug.ifname}",
                addr1=plug.mac,
                params1={"ip": str(plug.address)},
            )
    return topo


topos: dict[str, Callable[[], Any]] = {
    f"weavelab-{path.stem}": partial(_build, path) for path in sorted(TOPOLOGIES.glob("*.yaml"))
}
