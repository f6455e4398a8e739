"""Carries out the plan of the underlay (`topology.underlay`) with batched netlink: bridges, cables, addresses, routes.

The bridges live in a namespace of the lab's own, so nothing of the machine (firewall, Docker, bridge netfilter) touches
what passes them, and one unmount removes them. A cable is one message, a batch of them one send, a host
one more.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from testbed.topology.underlay import Attachment, Host, UnderlayPlan

_LO: Final = 1
"""The loopback device is the first of every network namespace."""

HOSTS_AT_ONCE: Final = 4
"""How many hosts are plugged in by one message: more gain nothing."""

_FIRST_BRIDGE: Final = 10
_FIRST_UPLINK: Final = 2
"""Interface numbers are chosen here, so that later messages need not ask for them: eth0 is 2, eth1 is 3."""

_LEARNED_NEIGHBOURS_MAX: Final = 512
"""The kernel keeps the ARP entries of *all* namespaces of a machine in one table of 1024 (arp(7), gc_thresh3): 33 nodes
that all know each other fill it, and then packets are lost. Beyond half of it the lab writes permanent entries, which
do not count.
"""

_IPV6: Final = Path("/proc/sys/net/ipv6")
_NO_BRIDGE_FIREWALL: Final = tuple(f"net/bridge/bridge-nf-call-{table}tables" for table in ("ip", "ip6", "arp"))


def make_switches(plan: UnderlayPlan, underlay_fd: int) -> None:
    """Make the bridges of the plan in the namespace behind `underlay_fd`.

    Raises:
        OSError: The kernel refused.
    """
    with netns.entered(underlay_fd):
        for key in _NO_BRIDGE_FIREWALL:
            _sysctl_if_there(key, "0")
        # The underlay is a cable, not a host: it speaks no IPv6 of its own (a capture would show it).
        for scope in ("all", "default"):
            _sysctl_if_there(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
        kernel = Netlink()
    bridges = [rtnl.bridge_add(name, index=index, mtu=plan.mtu) for name, index in _bridge_indexes(plan).items()]
    with kernel:
        kernel.request(rtnl.link_set(_LO, up=True), *bridges, what="making the underlay's switches")


def _bridge_indexes(plan: UnderlayPlan) -> dict[str, int]:
    return {bridge.name: _FIRST_BRIDGE + number for number, bridge in enumerate(plan.bridges)}


class Wiring:
    """Plugs hosts into the switches of the underlay; several may work on one underlay at the same time.

    Args:
        plan: The underlay.
        underlay_fd: The namespace of its switches (`make_switches`).

    Raises:
        OSError: The namespace cannot be entered.
    """

    def __init__(self, plan: UnderlayPlan, underlay_fd: int) -> None:
        self._plan = plan
        self._bridges = _bridge_indexes(plan)
        first_port = _FIRST_BRIDGE + len(plan.bridges)
        self._ports = {attachment.port: first_port + number for number, attachment in enumerate(plan.attachments)}
        self._kernel = Netlink(underlay_fd)

    def close(self) -> None:
        """Done with the underlay's namespace."""
        self._kernel.close()

    def plug_in(self, hosts: Mapping[str, int]) -> None:
        """Plug hosts into their segments and configure them.

        Args:
            hosts: The network namespaces of hosts of the plan, by name.

        Raises:
            OSError: The kernel refused.
        """
        planned = [self._plan.host(name) for name in hosts]
        cables = [
            self._cable(attachment, _FIRST_UPLINK + position, hosts[host.name])
            for host in planned
            for position, attachment in enumerate(host.attachments)
        ]
        self._kernel.request(*cables, what="plugging hosts into the underlay")
        for host in planned:
            _configure_host(host, hosts[host.name])

    def _cable(self, attachment: Attachment, index: int, netns_fd: int) -> bytes:
        mtu = self._plan.mtu
        near = rtnl.VethEnd(
            name=attachment.port,
            index=self._ports[attachment.port],
            mtu=mtu,
            master=self._bridges[attachment.bridge],
            up=True,
        )
        far = rtnl.VethEnd(name=attachment.ifname, index=index, mac=attachment.mac, mtu=mtu, netns_fd=netns_fd)
        return rtnl.veth_add(near, far)


def _configure_host(host: Host, netns_fd: int) -> None:
    """Give a host its addresses and routes, and let it forward if it is a router. Its cables are plugged in already.

    Raises:
        OSError: The kernel refused.
    """
    with netns.entered(netns_fd):
        if host.forwards:
            netns.write_sysctl("net/ipv4/ip_forward", "1")
        kernel = Netlink()
    with kernel:
        kernel.request(*_configuration(host), what=f"configuring {host.name}")


def _configuration(host: Host) -> list[bytes]:
    indexes = {attachment.ifname: _FIRST_UPLINK + number for number, attachment in enumerate(host.attachments)}
    messages = [rtnl.link_set(_LO, up=True)]
    messages += [rtnl.address_add(_LO, address) for address in host.loopback]
    for attachment in host.attachments:
        index = indexes[attachment.ifname]
        if _IPV6.is_dir():
            # The underlay is IPv4; an uplink that announces itself over IPv6 would be noise in every capture.
            messages.append(rtnl.link_without_ipv6_addresses(index))
        messages += [rtnl.link_set(index, up=True), rtnl.address_add(index, attachment.address)]
    messages += [
        rtnl.route_add(route.destination, gateway=route.gateway, index=indexes[route.ifname]) for route in host.routes
    ]
    return messages


def neighbour_messages(plan: UnderlayPlan) -> dict[str, list[bytes]]:
    """For each host, the messages that write the ARP entries of its segments; none in a small lab: it learns them."""
    segments: dict[str, list[Attachment]] = {}
    for attachment in plan.attachments:
        segments.setdefault(attachment.segment, []).append(attachment)
    if sum(len(found) * (len(found) - 1) for found in segments.values()) <= _LEARNED_NEIGHBOURS_MAX:
        return {}
    messages: dict[str, list[bytes]] = {}
    made: dict[tuple[int, str], list[tuple[str, bytes]]] = {}
    for host in plan.hosts:
        for position, attachment in enumerate(host.attachments):
            key = (_FIRST_UPLINK + position, attachment.segment)
            if key not in made:  # the same for every host of the segment, but for itself
                made[key] = [
                    (other.owner, rtnl.neighbour_set(key[0], other.address.ip, other.mac))
                    for other in segments[attachment.segment]
                ]
            messages.setdefault(host.name, []).extend(message for owner, message in made[key] if owner != host.name)
    return messages


def _sysctl_if_there(key: str, value: str) -> None:
    """Set what this kernel has: without IPv6 or bridge netfilter there is nothing to turn off."""
    with contextlib.suppress(FileNotFoundError):
        netns.write_sysctl(key, value)
