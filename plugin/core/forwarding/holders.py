"""Who has a MAC or an address, in words: for refusals, and for whoever has to choose between two that have the same.

It only names; whose it is `claims` says.
"""

from ipaddress import IPv4Address

from plugin.core.forwarding.claims import Located
from plugin.core.forwarding.endpoints import Directory
from plugin.core.membership.switches import Switches


class Holders:
    """Names holders.

    Args:
        directory: The claims of all nodes.
        switches: The MACs of their switches, which nobody has to claim.
    """

    def __init__(self, directory: Directory, switches: Switches) -> None:
        self._directory = directory
        self._switches = switches

    def of_mac(self, mac: str) -> str:
        """Who has this MAC; empty when nobody has."""
        if name := self._switches.owner(mac):
            return f"the switch of {name}"
        found = self._directory.holder(mac)
        return "" if found is None else self.name(found)

    def of_address(self, address: IPv4Address) -> str:
        """Who has this address; empty when nobody has."""
        found = self._directory.claimant(address)
        return "" if found is None else self.name(found)

    def name(self, claim: Located) -> str:
        """A holder by its pod and node."""
        node = self._switches.node_name(claim.node)
        if self._switches.owner(claim.endpoint.mac) == node:
            return f"the switch of {node}"
        return f"pod {claim.endpoint.label or claim.endpoint.address} of {node}"
