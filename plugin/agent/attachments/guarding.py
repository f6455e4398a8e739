"""What a pod's coming and going asks of the guard (plugin/agent/dataplane/guard.py), which stops pretenders."""

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Protocol

from plugin.agent.store import Record
from plugin.core.cni.exemption import Exemption
from plugin.link.netlink import Link


class Guards(Protocol):
    """Which frames of which port are taken."""

    def admit(self, record: Record, outer: Link) -> None:
        """From now on frames of this pod are taken from this port, those that are its own and no others.

        Raises:
            NetlinkError: The kernel refuses.
            MissingError: The rules were gone and cannot be written anew.
        """

    def forget(self, records: Sequence[Record]) -> None:
        """Their ports are gone. What the kernel refuses now goes with the next look at the whole."""

    def observed(self, host_ifname: str, mac: str, addresses: Sequence[IPv4Address]) -> Exemption | None:
        """What a pod without a record may send as beside its own, read from the kernel."""
