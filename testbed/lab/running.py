"""A running lab as other code sees it: who is in it, how each is entered, and what each agent says.

`Lab.load` reads the state file; nothing here changes a lab (`testbed.life.up`, `testbed.life.down` do). Values that
the network decides at run time (a switch's address) are read from the kernel when they are asked for.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Self

import msgspec

from plugin.core.errors import CheckError, InputError
from plugin.link.netlink import Netlink
from plugin.link.netns import open_netns
from testbed.lab import agent_api
from testbed.lab import state as states
from testbed.lab.cni_call import CniCall
from testbed.lab.paths import UNDERLAY, LabPaths
from testbed.machine.space import Space
from testbed.nearest import hint
from testbed.topology.model import Topology
from testbed.topology.names import OUTSIDE
from testbed.topology.underlay import UnderlayPlan, plan_underlay

SWITCH: Final = "weave"
"""The name of the bridge that the agent makes on a node."""


@dataclass(frozen=True, slots=True)
class LabNode:
    """An emulated host of the cluster.

    Attributes:
        name: As in the topology.
        space: How to enter it.
        uplink_address: Its address on the underlay.
        api_socket: Its agent's API, seen from the machine.
        log: Its agent's log, seen from the machine.
        uplink_ifname: Its interface on the underlay.
    """

    name: str
    space: Space
    uplink_address: IPv4Address
    api_socket: Path
    log: Path
    uplink_ifname: str = "eth0"

    @property
    def bridge_address(self) -> IPv4Address | None:
        """The address of its switch now, the pods' gateway; None while the agent has not given it one."""
        try:
            fd = open_netns(self.space.net)
        except OSError:
            return None
        try:
            kernel = Netlink(fd)
        finally:
            os.close(fd)
        with kernel:
            switch = kernel.link(SWITCH)
            if switch is None:
                return None
            return next((address.ip for index, address in kernel.addresses() if index == switch.index), None)

    def api_get(self, path: str) -> object:
        """The agent's JSON answer to `GET path`, whatever its status code.

        Raises:
            AgentError: The agent does not answer.
        """
        return agent_api.get(self.api_socket, path)[1]


@dataclass(frozen=True, slots=True)
class LabPod:
    """A pod that is attached.

    Attributes:
        name: As in the topology.
        node: The node it runs on.
        space: How to enter it.
        container_id: The runtime's name for it, 64 hex digits.
        address: Its address.
        mac: Its hardware address.
        host_ifname: The other end of its cable, on the node.
        cni_calls: Every execution of a plugin for it, as it was.
        ifname: Its interface.
    """

    name: str
    node: str
    space: Space
    container_id: str
    address: IPv4Address
    mac: str
    host_ifname: str
    cni_calls: tuple[CniCall, ...]
    ifname: str = "eth0"


@dataclass(frozen=True)
class Lab:
    """One running lab."""

    name: str
    topology: Topology
    state: states.LabState

    @classmethod
    def load(cls, name: str | None = None) -> Self:
        """The running lab of that name; without a name, the only one that runs.

        Raises:
            InputError: No such lab, none, or several.
            CheckError: Its state cannot be read.
        """
        name = states.choose_lab(name)
        found = states.read(LabPaths(name))
        if found is None:
            raise InputError(f"lab {name} went away just now")
        return cls.of(found)

    @classmethod
    def of(cls, found: states.LabState) -> Self:
        """The lab that a state describes."""
        return cls(name=found.name, topology=found.topology, state=found)

    @property
    def paths(self) -> LabPaths:
        """Where it keeps things."""
        return LabPaths(self.name)

    @property
    def directory(self) -> Path:
        """Its directory below /run."""
        return self.paths.directory

    @cached_property
    def underlay(self) -> UnderlayPlan:
        """The plan its underlay was built from."""
        return plan_underlay(self.topology)

    @cached_property
    def nodes(self) -> Mapping[str, LabNode]:
        """Its nodes by name, in the order of the topology."""
        return {
            name: LabNode(
                name=name,
                space=self.paths.node_space(name),
                uplink_address=self.underlay.host(name).uplink.address.ip,
                api_socket=self.paths.node_socket(name),
                log=self.paths.node_log(name),
                uplink_ifname=self.underlay.host(name).uplink.ifname,
            )
            for name in self.topology.nodes
        }

    @cached_property
    def pods(self) -> Mapping[str, LabPod]:
        """The pods that are attached, by name."""
        return {name: self._pod(name, record) for name, record in self.state.pods.items()}

    @property
    def routers(self) -> tuple[str, ...]:
        """The names of its routers."""
        return tuple(self.topology.underlay.routers)

    def now(self) -> Self | None:
        """The lab as it is now, with the pods that there are; None when it went down or goes, or was made anew."""
        try:
            found = states.read(self.paths)
        except CheckError:
            return self  # damaged by hand: what runs goes on
        if found is None or found.phase == "removing" or found.created_s != self.state.created_s:
            return None
        return self.of(found)

    def space(self, target: str) -> Space:
        """How to enter a pod, a node, a router, `outside` or `underlay`.

        Raises:
            InputError: The lab has no such member.
        """
        if target in self.pods:
            return self.pods[target].space
        if target in self.nodes:
            return self.nodes[target].space
        if target in {OUTSIDE, *self.routers}:
            return self.paths.host_space(target)
        if target == UNDERLAY:
            return self.paths.underlay_space
        known = [*self.pods, *self.nodes, *self.routers, OUTSIDE, UNDERLAY]
        raise InputError(f"lab {self.name} has nobody named {target}", hint=hint(target, known, there_is="it has"))

    def _pod(self, name: str, record: states.PodRecord) -> LabPod:
        return LabPod(
            name=name,
            node=record.node,
            space=self.paths.pod_space(name, record.node),
            container_id=record.container_id,
            address=IPv4Address(record.address),
            mac=record.mac,
            host_ifname=record.host_ifname,
            cni_calls=tuple(msgspec.convert(call, CniCall) for call in record.cni_calls),
            ifname=record.ifname,
        )
