"""Keeps the agent at its node's address, and its pods' packets as large as the way allows, whatever the uplink does.

It looks when the kernel tells of a change, and slowly all the time (plugin/link/uplink.py); what follows is decided in
plugin/core/forwarding/uplink.py; here the sockets are bound anew, the VXLAN device's source is set, and what is wrong
is written into the node's book of troubles. The pods' cables are resized by plugin/agent/dataplane/podmtu.py.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, Protocol

from plugin.agent.config import AgentConfig
from plugin.core.errors import InputError, WeaveError, said_by
from plugin.core.forwarding.uplink import TROUBLES, Plan, Seen, Trouble, Uplink, Wanted, first_uplink, plan_uplink
from plugin.core.upkeep.items import Concern
from plugin.core.upkeep.ledger import Ledger
from plugin.link import overlay, pods
from plugin.link.netlink import Netlink
from plugin.link.uplink import observe_uplink

_CONCERNS: Final = Concern.LINKS | Concern.ADDRESSES | Concern.ROUTES
_LOOK_S: Final = 30.0
"""Between two looks without any reason."""

_SETTLE_S: Final = 0.05
"""What the kernel tells within this time is looked at together: a new lease is three messages and more."""

_PAUSE_S: Final = 0.25
"""Between two looks, whatever is told: an interface that flaps must not take the processor."""

_LOAD_MAX: Final = 0.05
"""Looks may take this part of the time: with thousands of nodes there are as many routes to ask for."""

_RETRY_S: Final = 2.0
"""Until the next look, when what had to be done could not be done."""


class Follower(Protocol):
    """The rest of the agent, as far as the uplink concerns it."""

    def nodes(self) -> Iterable[IPv4Address]:
        """The other nodes, or, as long as there are none, where they are looked for."""

    def move(self, address: IPv4Address) -> None:
        """The node has another address: be there from now on.

        Raises:
            WeaveError: It cannot be used (yet); nothing has changed.
            OSError: The kernel refuses.
        """

    def resize(self, mtu_bytes: int) -> None:
        """Pods have another MTU, those that live included."""

    def explain(self, plan: Plan) -> None:
        """What is known of this node that keeps it from reaching others is another than before."""

    def rejoin(self) -> None:
        """This node was cut off, and is not any more."""


def _wanted_of(config: AgentConfig) -> Wanted:
    """What the configuration says of the uplink."""
    return Wanted(config.network, config.address, config.uplink, config.mtu)


@dataclass(frozen=True, slots=True)
class Found:
    """What a starting agent finds.

    Attributes:
        plan: The uplink, and what follows from it.
        there: Whether the node has the address now.
        left_mtu_bytes: What an earlier agent has given the pods that are there; the present MTU when there was none.
    """

    plan: Plan
    there: bool
    left_mtu_bytes: int


def first_look(netlink: Netlink, config: AgentConfig, nodes: Iterable[IPv4Address]) -> Found:
    """The uplink of a starting agent.

    With pods on the node an agent starts without it, too, at the address that it had last: they need it for all that
    needs no uplink, and it is there when the uplink is back.

    Raises:
        InputError: There is no such address, and no pod either; or the uplink is too small.
    """
    wanted, others = _wanted_of(config), tuple(nodes)
    seen = observe_uplink(netlink, others, source=wanted.address)
    try:
        uplink, there = first_uplink(seen, wanted, others), True
    except InputError:
        last = wanted.address or overlay.last_local(netlink, config.vxlan_port)
        if last is None or not _has_pods(seen):
            raise
        carrier = seen.carrier_of(last)
        there = carrier is not None
        uplink = Uplink(last, config.uplink, 0, 0)
        if carrier is not None:
            uplink = Uplink(last, carrier.name, carrier.index, 0, loopback=carrier.loopback)
    plan, switch = plan_uplink(seen, wanted, uplink, others), seen.called(config.bridge)
    return Found(plan, there, plan.pod_mtu_bytes if switch is None else switch.mtu_bytes)


def _has_pods(seen: Seen) -> bool:
    return any(link.name.startswith(pods.HOST_PREFIX) for link in seen.links.values())


class UplinkKeeper:
    """Looks, and has done what follows.

    Args:
        netlink: A socket in the node's namespace.
        config: What is wanted of the uplink.
        first: What was found at the start.
        follower: The rest of the agent.
        ledger: Where troubles are written down.
        log: Where events go.
    """

    def __init__(
        self,
        netlink: Netlink,
        config: AgentConfig,
        first: Found,
        follower: Follower,
        ledger: Ledger,
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._wanted = _wanted_of(config)
        self._follower = follower
        self._ledger = ledger
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self.plan = first.plan
        self._told: Plan | None = None
        self._looked_s = float("-inf")
        self._pause_s = _PAUSE_S

    @property
    def uplink(self) -> Uplink:
        """By what this node reaches the others now, or did last."""
        return self.plan.uplink

    def start(self) -> None:
        """Look from now on; call it inside the running loop."""
        self._tell(self.plan)
        self._look_in(_SETTLE_S)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def heard(self, concern: Concern) -> None:
        """The kernel has told that something of this kind is another."""
        if concern & _CONCERNS:
            self.changed()

    def changed(self) -> None:
        """Something that concerns interfaces, addresses, routes or the other nodes may be another."""
        now_s = asyncio.get_running_loop().time()
        wait_s = max(_SETTLE_S, self._looked_s + self._pause_s - now_s)
        if self._timer is None or self._timer.when() > now_s + wait_s:
            self._look_in(wait_s)

    def look(self) -> None:
        """See what there is, and have done what follows."""
        began_s = asyncio.get_running_loop().time()
        self._look_in(_LOOK_S)
        self._look()
        self._looked_s = asyncio.get_running_loop().time()
        self._pause_s = max(_PAUSE_S, (self._looked_s - began_s) / _LOAD_MAX)

    def _look(self) -> None:
        nodes = tuple(self._follower.nodes())
        try:
            seen = observe_uplink(self._netlink, nodes, source=self.uplink.address)
            plan = plan_uplink(seen, self._wanted, self.uplink, nodes)
        except (OSError, InputError) as error:
            self._log.warning("uplink not read", extra={"reason": said_by(error)})
            self._look_in(_RETRY_S)
            return
        before, self.plan = self.plan, plan
        if plan.uplink.address != before.uplink.address:
            self.plan = plan = self._moved(before, plan)
        if (plan.uplink.name, plan.uplink.mtu_bytes) != (before.uplink.name, before.uplink.mtu_bytes):
            fields = {"uplink": plan.uplink.name, "mtu": plan.uplink.mtu_bytes}
            self._log.info("uplink changed", extra=fields)
        if plan.pod_mtu_bytes != before.pod_mtu_bytes:
            self._follower.resize(plan.pod_mtu_bytes)
        self._tell(plan)

    def _moved(self, before: Plan, plan: Plan) -> Plan:
        """The node has another address; what holds is the old one when the new one cannot be used yet."""
        fields = {"before": str(before.uplink.address), "now": str(plan.uplink.address), "uplink": plan.uplink.name}
        try:
            self._follower.move(plan.uplink.address)
        except (OSError, WeaveError) as error:
            self._log.error("node address not used", extra=fields | {"reason": said_by(error)})
            self._look_in(_RETRY_S)
            cause = f"the node address {plan.uplink.address} cannot be used: {said_by(error)}"
            trouble = Trouble("uplink", cause, "it is tried again every few seconds", cuts=True)
            return replace(before, troubles=(trouble,))
        self._log.warning("node address changed", extra=fields)
        return plan

    def _tell(self, plan: Plan) -> None:
        """Write into the book what is wrong and what is not any more."""
        now_s = time.time()
        troubles = {trouble.name: trouble for trouble in plan.troubles}
        for name in TROUBLES:
            if (trouble := troubles.get(name)) is None:
                if self._ledger.well(name):
                    self._log.info("trouble is over", extra={"object": name})
            elif self._ledger.trouble(name, trouble.cause, trouble.advice, now_s):
                fields = {"object": name, "reason": trouble.cause, "hint": trouble.advice}
                self._log.error("trouble", extra=fields)
        told, self._told = self._told, plan
        if told is None or (told.troubles, told.unreached) != (plan.troubles, plan.unreached):
            self._follower.explain(plan)
        if told is not None and _is_cut(told) and not _is_cut(plan):
            self._follower.rejoin()

    def _look_in(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self.look)


def _is_cut(plan: Plan) -> bool:
    return any(trouble.cuts for trouble in plan.troubles)
