"""What the kernel holds in one namespace now: links, addresses, neighbours, forwarding entries, settings, counters."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

from plugin.core.errors import said_by
from plugin.link import rtnl
from plugin.link.netlink import Link, Neighbour, Netlink, NetlinkError
from testbed.machine.space import Space, call
from testbed.scenario.causes import counters

SYSCTLS: Final = ("net/ipv4/ip_forward", "net/ipv4/icmp_echo_ignore_all", "net/ipv4/conf/all/rp_filter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One look at a namespace.

    Attributes:
        links: By name.
        addresses: (number of the link, address).
        neighbours: The ARP table.
        fdb: Forwarding entries of bridges and VXLAN devices.
        sysctls: Those of SYSCTLS that there are.
        unreachable: Of the addresses that were asked for, those to which no route leads, with the kernel's words.
        counters: Packets that ended here (counters.py).
    """

    links: Mapping[str, Link] = field(default_factory=dict[str, Link])
    addresses: tuple[tuple[int, IPv4Interface], ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[Neighbour, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict[str, str])
    unreachable: Mapping[str, str] = field(default_factory=dict[str, str])
    counters: Mapping[str, int] = field(default_factory=dict[str, int])

    def has(self, address: str) -> bool:
        """Whether some interface has an address."""
        return any(str(interface.ip) == address for _, interface in self.addresses)


def observe(space: Space, destinations: Iterable[str] = ()) -> Facts:
    """Look into a namespace.

    Args:
        space: Whose.
        destinations: Addresses of which is asked whether a route leads there.

    Raises:
        OSError: It is gone, or the kernel does not tell.
    """
    wanted = tuple(destinations)

    def look() -> Facts:
        with Netlink() as kernel:
            return Facts(
                links={link.name: link for link in kernel.links()},
                addresses=tuple(kernel.addresses()),
                neighbours=tuple(kernel.neighbours()),
                fdb=tuple(kernel.fdb()),
                sysctls={name: value for name in SYSCTLS if (value := _sysctl(name)) is not None},
                unreachable={to: words for to in wanted if (words := _no_route(kernel, to))},
                counters=counters.read(),
            )

    return call(Space(space.name, net=space.net), look)


def _no_route(kernel: Netlink, to: str) -> str:
    try:
        kernel.ask(rtnl.route_get(IPv4Address(to)))
    except NetlinkError as error:
        return said_by(error, path=False)
    return ""


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
