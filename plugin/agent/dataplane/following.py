"""What the agent does when its uplink is another: sockets, overlay, probes, pods and what peers are told follow it."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from plugin.agent.dataplane.podmtu import PodMtus
from plugin.agent.dataplane.probing import Prober
from plugin.agent.driver import Driver
from plugin.agent.sockets import bind_control
from plugin.core.forwarding.uplink import Plan
from plugin.core.node import Node
from plugin.link import overlay
from plugin.link.netlink import Link, Netlink


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The rest of the agent, as plugin/agent/dataplane/uplink.py sees it.

    Attributes:
        netlink: A socket in the node's namespace.
        device: The overlay device.
        control_port: UDP and TCP port of the control protocol.
        node: Tells the peers.
        driver: Listens and speaks.
        prober: Probes the overlay.
        mtus: Resizes the pods that live.
        resized: Told the MTU of pods that come.
    """

    netlink: Netlink
    device: Link
    control_port: int
    node: Node
    driver: Driver
    prober: Prober
    mtus: PodMtus
    resized: Callable[[int], None]

    def nodes(self) -> Iterable[IPv4Address]:
        """The other nodes, or, as long as there are none, where they are looked for."""
        return self.node.destinations or self.node.seeds

    def move(self, address: IPv4Address) -> None:
        """Be at this address from now on.

        Raises:
            InputError: The port is taken there; nothing has changed.
            OSError: The kernel refuses; nothing has changed.
        """
        control = bind_control(address, self.control_port)
        try:
            overlay.set_local(self.netlink, self.device, address)
        except OSError:
            control.close()
            raise
        self.node.move(address, now_s=_now_s())
        self.driver.move(control)
        self.prober.targets_changed()

    def resize(self, mtu_bytes: int) -> None:
        """Pods that come, and those that live, have this MTU."""
        self.resized(mtu_bytes)
        self.mtus.resize(mtu_bytes)
        self.prober.use_mtu(mtu_bytes)

    def explain(self, plan: Plan) -> None:
        """Say what is known instead of what is guessed."""
        self.node.explain(plan.own_cause)
        self.driver.flush()
        self.prober.explain(plan.own_cause)

    def rejoin(self) -> None:
        """This node was cut off: speak to everybody at once."""
        self.node.greet_all(now_s=_now_s())
        self.driver.kick()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
