"""Which addresses an attachment holds: several of one pod as well, and gateways that the switch answers for.

The allocator knows one address for one holder. Further addresses of a pod are held under its name with `:1`, `:2` and
so on behind the interface, which no interface can be called.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count
from typing import Final

from plugin.core.cni.types import ATTACH_FAILED, NO_ADDRESS, AddressRange, CniError
from plugin.core.errors import said_by
from plugin.core.ipam import shares
from plugin.core.ipam.allocator import AddressTakenError, Attachment, PoolExhaustedError
from plugin.core.ipam.council import Wish
from plugin.core.ipam.shares import Share
from plugin.core.node import Node
from plugin.link import rtnl, switch
from plugin.link.netlink import Link, Netlink

_GATEWAY: Final = ("weave", "weave:gateway")


class SpaceNeededError(CniError):
    """The address is not to be had here now; perhaps another member of the ring gives some (`wish`)."""

    def __init__(self, wish: Wish, message: str, details: str) -> None:
        super().__init__(NO_ADDRESS, message, details)
        self.wish = wish


def holders(attachment: Attachment) -> Iterator[Attachment]:
    """The names under which an attachment holds its first address, its second, and so on without end."""
    network, container_id, ifname = attachment
    yield attachment
    for position in count(1):
        yield network, container_id, f"{ifname}:{position}"


class Leases:
    """Takes and gives back the addresses of attachments, all or none.

    Args:
        node: Its allocator gives addresses, its directory knows those of all nodes.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._allocator = node.allocator
        self._range = node.keys.network

    def take(
        self, attachment: Attachment, ranges: Sequence[Sequence[AddressRange]], *, now_s: float
    ) -> tuple[IPv4Address, ...]:
        """One address of each set of ranges; one of the whole pod range when there are no sets.

        Raises:
            SpaceNeededError: Not to be had here now; nothing is held.
        """
        try:
            return tuple(
                self._one_of(ranged, holder, now_s)
                for ranged, holder in zip(ranges or [()], holders(attachment), strict=False)
            )
        except CniError:
            self.release(attachment, now_s=now_s)
            raise

    def _one_of(self, ranged: Sequence[AddressRange], holder: Attachment, now_s: float) -> IPv4Address:
        for one in ranged or (AddressRange(self._range),):
            within = None if self._is_whole(one) else Share(*one.bounds)
            try:
                return self._allocator.allocate(holder, now_s=now_s, within=within)
            except PoolExhaustedError as error:
                refusal = error
        raise SpaceNeededError(self._wish(one), refusal.message, refusal.hint) from refusal

    def _wish(self, one: AddressRange) -> Wish:
        """What to ask the other members for when a range, the last of the alternatives, has nothing here.

        Of a subnet they give what they like; of a part of one an address that nobody is known to have.
        """
        if self._is_whole(one):
            return Wish()
        if one.first is one.last is None:
            return Wish(within=one.subnet)
        first, last = one.bounds
        known = self._node.directory
        for address in shares.usable(self._range, Share(first, last)):
            if known.claimant(address) is None and not self._allocator.owns(address):
                return Wish(exact=address)
        return Wish(exact=last)  # all are taken: whoever has the last one says so

    def _is_whole(self, one: AddressRange) -> bool:
        return one.subnet == self._range and one.first is one.last is None

    def claim(self, attachment: Attachment, addresses: Sequence[IPv4Address], *, now_s: float) -> None:
        """Exactly these addresses.

        Raises:
            SpaceNeededError: One belongs to another member of the ring, which may give it; none is held.
            CniError: One is taken, or no address for a pod (code 101); none is held.
        """
        try:
            for address, holder in zip(addresses, holders(attachment), strict=False):
                self._claim(holder, address)
        except CniError:
            self.release(attachment, now_s=now_s)
            raise

    def _claim(self, holder: Attachment, address: IPv4Address) -> None:
        try:
            self._allocator.claim(holder, address)
        except AddressTakenError as error:
            usable = address in self._range and shares.is_usable(self._range, Share(address, address), address)
            if usable and not self._allocator.owns(address):
                raise SpaceNeededError(Wish(exact=address), error.message, error.hint) from error
            raise CniError(NO_ADDRESS, error.message, error.hint) from error

    def adopt(self, attachment: Attachment, addresses: Sequence[IPv4Address]) -> None:
        """Hold the addresses of a pod that lives, also those that are not (or no longer) this agent's to give.

        Raises:
            AddressTakenError: One is somebody else's.
        """
        for address, holder in zip(addresses, holders(attachment), strict=False):
            self._allocator.claim(holder, address, adopt=True)

    def held(self, attachment: Attachment) -> tuple[IPv4Address, ...]:
        """What an attachment holds."""
        found = []
        for holder in holders(attachment):
            address = self._allocator.held.get(holder)
            if address is None:
                break
            found.append(address)
        return tuple(found)

    def release(self, attachment: Attachment, *, now_s: float) -> None:
        """Give all its addresses back."""
        for holder in holders(attachment):
            if self._allocator.release(holder, now_s=now_s) is None:
                break


class SideGateways:
    """Gateways that other IPAM plugins name: the switch answers for them beside its own address, as `bridge` does.

    The kernel is their only memory: each is an address of the bridge with prefix 32, which changes no route.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        node: Knows who has which address; its allocator keeps pods from getting a gateway's.
    """

    def __init__(self, netlink: Netlink, bridge: Link, node: Node) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._node = node

    @property
    def _range(self) -> IPv4Network:
        return self._node.keys.network

    @property
    def interfaces(self) -> list[IPv4Interface]:
        """Those that the switch answers for, as its addresses."""
        held = self._node.allocator.held.items()
        return [switch.side_gateway(address) for holder, address in held if holder[:2] == _GATEWAY]

    def take_up(self) -> None:
        """Hold those that an earlier agent gave the switch."""
        for index, interface in self._netlink.addresses():
            if index == self._bridge.index and switch.is_side_gateway(interface, self._range):
                self._node.allocator.claim((*_GATEWAY, str(interface.ip)), interface.ip, adopt=True)

    def serve(self, gateway: IPv4Address) -> None:
        """See that somebody answers for a gateway: a pod or a switch that has the address, else this switch.

        One outside the pod range is left alone: whoever configured it knows who has it.

        Raises:
            SpaceNeededError: It belongs to another member of the ring, which may give it.
            CniError: It cannot be an address of the range, or the kernel refuses.
        """
        holder = (*_GATEWAY, str(gateway))
        served = self._node.allocator.held.get(holder) == gateway
        if served or gateway not in self._range or self._node.directory.claimant(gateway) is not None:
            return
        leases = Leases(self._node)
        leases.claim(holder, [gateway], now_s=0)
        try:
            self._netlink.request(
                rtnl.address_add(self._bridge.index, switch.side_gateway(gateway)),
                what=f"give {gateway} to {self._bridge.name}",
            )
        except OSError as error:
            leases.release(holder, now_s=0)
            raise CniError(ATTACH_FAILED, f"the switch cannot be the gateway {gateway}: {said_by(error)}") from error
