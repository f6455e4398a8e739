"""Which pairs of address and MAC pods have to be told, so that none waits until its own neighbour cache asks again.

A pod that has talked to an address believes in its MAC for half a minute. Nearly always it is right, for a MAC is made
from its address, so nothing is said of such pairs. When an address comes back with another MAC, every node tells its
own pods by a gratuitous ARP, once as a request and once as a reply, for there are systems that take only the one or the
other (RFC 5227, section 3). The VXLAN port lets none of it through: what has its sender for a target is never flooded
to a port with neighbour suppression (net/bridge/br_arp_nd_proxy.c, br_do_proxy_suppress_arp).
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final

from plugin.core.packet.build import build_arp_frame
from plugin.core.packet.names import BROADCAST_MAC

_UNUSUAL_MAX: Final = 16384
"""So many addresses with MACs of their own are remembered; one that is forgotten is told once more than it need be."""

_REQUEST: Final = 1
_REPLY: Final = 2


class Announcements:
    """What pods were told, or knew.

    Args:
        usual: The MAC that is made from an address.
    """

    def __init__(self, usual: Callable[[IPv4Address], str]) -> None:
        self._usual = usual
        self._unusual: dict[IPv4Address, str] = {}

    def known(self, pairs: Mapping[IPv4Address, str]) -> None:
        """Pods know these: an earlier agent has told them."""
        for address, mac in pairs.items():
            self._remember(address, mac)

    def news(self, pairs: Mapping[IPv4Address, str]) -> dict[IPv4Address, str]:
        """Those of these pairs that are others than pods were told before. From now on they are known."""
        found = {
            address: mac
            for address, mac in pairs.items()
            if self._unusual.get(address, "") != mac and (address in self._unusual or mac != self._usual(address))
        }
        self.known(found)
        return found

    def _remember(self, address: IPv4Address, mac: str) -> None:
        self._unusual.pop(address, None)
        if mac != self._usual(address):
            self._unusual[address] = mac
            if len(self._unusual) > _UNUSUAL_MAX:
                del self._unusual[next(iter(self._unusual))]


def frames(address: IPv4Address, mac: str) -> tuple[bytes, bytes]:
    """The gratuitous ARP of a pair: a request and a reply, both to everybody."""
    return (
        build_arp_frame(_REQUEST, mac, address, BROADCAST_MAC, address),
        build_arp_frame(_REPLY, mac, address, BROADCAST_MAC, address),
    )
