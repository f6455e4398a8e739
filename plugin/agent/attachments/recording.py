"""What is written down of a pod before anything is built for it, and the link that is built from that."""

import json
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final

from plugin.agent.attachments.identity import Identity
from plugin.agent.store import Record
from plugin.core.cni.bandwidth import Bandwidth
from plugin.core.cni.lease import Lease
from plugin.core.cni.types import CniRequest
from plugin.core.ipam.allocator import Attachment
from plugin.link import nsid, pods
from plugin.link.netlink import Netlink

_LABEL_ID_CHARACTERS: Final = 12


class Recording:
    """Makes records.

    Args:
        netlink: A socket in the node's namespace.
        identity: Says which MACs are free.
        records: The attachments of this node.
        prefix: That of the pod range.
    """

    def __init__(
        self,
        netlink: Netlink,
        identity: Identity,
        records: Callable[[], Mapping[Attachment, Record]],
        prefix: int,
    ) -> None:
        self._netlink = netlink
        self._identity = identity
        self._records = records
        self._prefix = prefix

    def record(
        self,
        request: CniRequest,
        sandbox: int,
        lease: Lease,
        begun: Record | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> Record:
        """The record of a pod; without addresses as long as another IPAM plugin has to give them.

        Args:
            request: Its ADD.
            sandbox: Its namespace.
            lease: Its addresses.
            begun: What the first half of the ADD has recorded.
            bandwidth: Its limits.
        """
        network, container_id, ifname = request.attachment
        taken = {record.host_ifname for record in self._records().values()}
        interfaces = [interface for interface, _ in lease.addresses]
        addresses = [str(interface.ip) for interface in interfaces]
        prefixes = tuple(interface.network.prefixlen for interface in interfaces)
        early = request.delegate is not None  # the interface is made before the address is known
        return Record(
            network=network,
            container_id=container_id,
            ifname=ifname,
            address=addresses[0] if addresses else "",
            more=tuple(addresses[1:]),
            prefixes=() if set(prefixes) <= {self._prefix} else prefixes,
            mac=begun.mac if begun else self._mac(request, None if early else interfaces[0].ip),
            host_ifname=begun.host_ifname if begun else pods.free_host_ifname(container_id, ifname, taken),
            netns=request.netns,
            label=request.pod or container_id[:_LABEL_ID_CHARACTERS],
            # What it asks for beside an interface belongs to its address, and comes with it.
            ports=request.config.ports if addresses else (),
            bandwidth=(bandwidth or None) if addresses else None,
            ipam="" if request.delegate is None else json.dumps(request.delegate.ipam),
            masquerade=request.config.masquerade is not False,
            mtu=request.config.mtu_bytes,
            hairpin=request.config.hairpin,
            guard=request.config.exemption or None,
            nsid=begun.nsid if begun else nsid.ensure_nsid(self._netlink, sandbox),
        )

    def _mac(self, request: CniRequest, address: IPv4Address | None) -> str:
        """The MAC that was asked for, or one that nobody has."""
        if request.config.requested_mac:
            return request.config.requested_mac
        if address is None:
            return self._identity.early_mac(request.attachment)
        return self._identity.mac_for(address, request.attachment)


def added(record: Record, stamp: int) -> Record:
    """The same record of a pod that is complete, with the age of its claim."""
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    return Record(**(values | {"state": "added", "stamp": stamp}))


def pod_link(request: CniRequest, record: Record, lease: Lease, mtu_bytes: int) -> pods.PodLink:
    """The link of a pod."""
    return pods.PodLink(
        host_ifname=record.host_ifname,
        ifname=request.ifname,
        mac=record.mac,
        mtu_bytes=mtu_bytes,
        interfaces=[interface for interface, _ in lease.addresses],
        routes=lease.routes,
        hairpin=request.config.hairpin,
        locked=record.locked,
    )
