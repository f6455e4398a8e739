"""A pod's MAC and addresses are its alone in the whole cluster: what somebody has is refused, by the holder's name.

Checked is what this node knows, which is what it was told: two nodes that give the same in one moment both succeed, and
then one claim wins (plugin/core/forwarding/claims.py, displacements.py).
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address
from typing import Final

from plugin.agent.store import Record
from plugin.core.cni.hostports import first_overlap
from plugin.core.cni.types import INVALID_CONFIG, NO_ADDRESS, CniError, CniRequest
from plugin.core.ipam.allocator import Attachment
from plugin.core.node import Node
from plugin.link import pods

_ATTEMPTS_MAX: Final = 16
"""Made-up MACs that are tried; by chance not even the second one is ever needed."""


class Identity:
    """Knows who has what.

    Args:
        node: Knows the claims and the switches of all nodes.
        ports: The MACs of the switch's own ports to their names.
        records: The attachments of this node.
    """

    def __init__(
        self,
        node: Node,
        ports: Callable[[], Mapping[str, str]],
        records: Callable[[], Mapping[Attachment, Record]],
    ) -> None:
        self._node = node
        self._ports = ports
        self._records = records

    def refuse_taken_mac(self, mac: str, attachment: Attachment) -> None:
        """See that nobody has the MAC that a pod asks for.

        Raises:
            CniError: Somebody has (code 7); the text says who.
        """
        if pods.is_mark(mac):
            holder = "the switch's own, which notes addresses with such"
        else:
            holder = self._holder(mac, attachment) or self._port(mac)
        if holder:
            raise CniError(
                INVALID_CONFIG,
                f"the MAC address {mac} is taken: it is that of {holder}",
                "ask for another one, or for none; `weave status endpoints` lists those of all nodes",
            )

    def refuse_taken_addresses(self, addresses: Iterable[IPv4Address], plugin: str = "") -> None:
        """See that no other node has an address that does not come out of this agent's own choice.

        Args:
            addresses: What was asked for, or what another IPAM plugin gave.
            plugin: That plugin.

        Raises:
            CniError: Another node has (code 101); the text says who.
        """
        for address in addresses:
            found = self._node.directory.claimant(address)
            if found is not None and found.node is not None:
                raise CniError(
                    NO_ADDRESS,
                    (f"the IPAM plugin {plugin} gave {address}: it" if plugin else f"{address}")
                    + f" is taken by {self._node.holders.of_address(address)}",
                    "every node's plugin needs a part of the pod range of its own"
                    if plugin
                    else "ask for another address; `weave status endpoints` lists those of all nodes",
                )

    def rivals(self, request: CniRequest) -> list[Record]:
        """The pods of this node that have something of what an ADD asks for by name."""
        wanted, addresses = request.config, set(request.config.requested_addresses)
        if not (wanted.ports or wanted.requested_mac or addresses):
            return []
        return [
            record
            for attachment, record in self._records().items()
            if attachment != request.attachment
            and (
                first_overlap(wanted.ports, record.ports) is not None
                or record.mac == wanted.requested_mac
                or not addresses.isdisjoint(record.addresses)
            )
        ]

    def mac_for(self, address: IPv4Address, attachment: Attachment) -> str:
        """The MAC of a pod that asked for none: made from its address, unless somebody took that one by asking."""
        return self._free((pods.mac_for(address), *self._made_up(attachment)), attachment)

    def early_mac(self, attachment: Attachment) -> str:
        """The MAC of a pod whose address is not known yet."""
        return self._free(self._made_up(attachment), attachment)

    def _made_up(self, attachment: Attachment) -> tuple[str, ...]:
        return tuple(pods.mac_for_attachment(attachment, attempt) for attempt in range(_ATTEMPTS_MAX))

    def _free(self, candidates: tuple[str, ...], attachment: Attachment) -> str:
        return next((mac for mac in candidates if not self._holder(mac, attachment)), candidates[-1])

    def _holder(self, mac: str, attachment: Attachment) -> str:
        """Who has a MAC, other than this attachment; empty when nobody has."""
        for other, record in self._records().items():
            if record.mac == mac and other != attachment:
                return f"pod {record.label} of {self._node.me.name}"
        return self._node.holders.of_mac(mac)

    def _port(self, mac: str) -> str:
        name = self._ports().get(mac, "")
        return f"the interface {name} of {self._node.me.name}" if name else ""
