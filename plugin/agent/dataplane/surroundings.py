"""What other software on the node does to the pod network: routes into its range, addresses on the switch.

At a start without pods the agent refuses what cannot work. With pods it never does: it says what is wrong, and goes on.
"""

import logging
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Final

from plugin.agent.config import AgentConfig
from plugin.agent.store import Store
from plugin.core.errors import InputError
from plugin.core.ipam.allocator import EXPOSE
from plugin.core.membership.switches import bridge_mac
from plugin.core.upkeep.items import Concern
from plugin.link import foreign, switch
from plugin.link.netlink import Netlink
from plugin.link.nfnetlink import Netfilter
from plugin.link.snapshot import Snapshot

_FREE_RANGES: Final = ("10.32.0.0/12", "172.30.0.0/16", "192.168.128.0/17", "10.128.0.0/12", "100.64.0.0/12")


class Surroundings:
    """Looks at what is not ours, and tells.

    Args:
        netlink: A socket in the node's namespace.
        config: The node's configuration.
    """

    concerns = Concern.ROUTES | Concern.ADDRESSES

    def __init__(self, netlink: Netlink, config: AgentConfig) -> None:
        self._netlink = netlink
        self._config = config

    def troubles(self, seen: Snapshot) -> Mapping[str, tuple[str, str]]:
        """See `Troubles` in plugin/agent/dataplane/upkeep.py."""
        found = {}
        if cause := _overlap(self._netlink, self._config):
            advice = (
                "move that network, or the pods' (weave reset on every node, then another range for all); a route "
                "that is a mistake goes with: ip route del"
            )
            found["pod range"] = cause, advice
        bridge = seen.links.get(self._config.bridge)
        held = [] if bridge is None else [interface for index, interface in seen.addresses if index == bridge.index]
        others = list(map(str, foreign.leftover_addresses(held, None, self._config.network)[1]))
        if others:
            cause = f"{self._config.bridge} has an address outside of the pod range, not from this agent: "
            advice = f"if nobody needs it: ip address del {others[0]} dev {self._config.bridge}"
            found["foreign address"] = cause + ", ".join(others), advice
        return found


def clear_the_way(
    netlink: Netlink, netfilter: Netfilter, config: AgentConfig, store: Store, log: logging.Logger
) -> None:
    """Before the data plane is made: nothing of somebody else is where ours has to be.

    Args:
        netlink: A socket in the node's namespace.
        netfilter: Another one.
        config: The node's configuration.
        store: What an earlier agent has left, by which that is told apart from the things of others.
        log: Where events go.

    Raises:
        InputError: Something is; the text says what.
    """
    exposed = store.records.get(EXPOSE)
    foreign.refuse_links(
        netlink,
        bridge=config.bridge,
        macs={bridge_mac(config.cluster, config.name), *(() if exposed is None else (exposed.mac,))},
        overlay=f"vxlan-{config.vxlan_port}",
        vni=config.vni,
        port=config.vxlan_port,
    )
    foreign.refuse_table(netfilter)
    if not store.pods and not foreign.has_pods(netlink):
        # With pods, both would cost them their network: then they are told of.
        _refuse_overlap(netlink, config)
        _remove_leftovers(netlink, config, store.written_range(), log)


def _refuse_overlap(netlink: Netlink, config: AgentConfig) -> None:
    """See that nobody on this node reaches something else by an address that would be a pod's.

    Raises:
        InputError: A route of the node leads into the range; a free range is suggested.
    """
    cause = _overlap(netlink, config)
    if not cause:
        return
    link = netlink.link(config.bridge)
    index = -1 if link is None else link.index
    free = [text for text in _FREE_RANGES if not foreign.routes_into(netlink, IPv4Network(text), except_link=index)]
    raise InputError(
        cause,
        hint=f"choose another range for the whole cluster, free on this node: {', '.join(free) or 'none that we know'}",
    )


def _overlap(netlink: Netlink, config: AgentConfig) -> str:
    """A sentence about the first route that leads into the pod range by another link; empty when there is none."""
    link = netlink.link(config.bridge)
    found = foreign.routes_into(netlink, config.network, except_link=-1 if link is None else link.index)
    if not found:
        return ""
    network, name = found[0]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"the pod range {config.network} overlaps with the existing route {network} of this node by {name}{more}: "
        "what is sent to those addresses does not reach pods"
    )


def _remove_leftovers(netlink: Netlink, config: AgentConfig, earlier: IPv4Network | None, log: logging.Logger) -> None:
    """Take the addresses of an earlier pod range from the switch; those of somebody else stay.

    `earlier` is the range for which the state on the disk was written, None when nothing is known of one.
    """
    bridge = netlink.link(config.bridge)
    if bridge is None:
        return
    held = [interface for index, interface in netlink.addresses() if index == bridge.index]
    for interface in foreign.leftover_addresses(held, earlier, config.network)[0]:
        switch.remove_address(netlink, bridge, interface)
        log.info("earlier address removed", extra={"address": str(interface), "bridge": bridge.name})
