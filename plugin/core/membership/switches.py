"""The switches of all nodes by their MACs, each of which follows from the name of its node."""

import hashlib
from functools import lru_cache
from ipaddress import IPv4Address

from plugin.core.membership.members import Members


@lru_cache(maxsize=4096)
def bridge_mac(cluster: str, name: str) -> str:
    """The bridge's MAC: made from cluster and node name, so it is the same after every start and on no other node.

    Locally administered unicast (the two low bits of the first byte are 1 and 0), as Weave makes its peer names; like
    there it is the name under which status shows a peer.
    """
    digest = bytearray(hashlib.sha256(f"{cluster}/{name}".encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")


class Switches:
    """Whose switch has which MAC: known of every member from its name, also before its switch has an address.

    Args:
        members: The members.
        cluster: The name of the cluster.
    """

    def __init__(self, members: Members, cluster: str) -> None:
        self._members = members
        self._cluster = cluster

    def mac_at(self, address: IPv4Address) -> str:
        """The MAC of the switch of the node at this address; empty for a stranger."""
        me = self._members.me
        member = me if address == me.address else self._members.at(address)
        return "" if member is None else bridge_mac(self._cluster, member.name)

    def owner(self, mac: str) -> str:
        """The name of the node whose switch has this MAC; empty when it is no switch's."""
        names = (member.name for member in self._members.everybody())
        return next((name for name in names if bridge_mac(self._cluster, name) == mac), "")

    def node_name(self, address: IPv4Address | None) -> str:
        """The name of the node at this address, None being this one; of a stranger the address."""
        me = self._members.me
        member = me if address in {None, me.address} else self._members.at(address or me.address)
        return str(address) if member is None else member.name
