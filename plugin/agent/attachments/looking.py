"""CHECK and STATUS: what is there is compared with what was asked for. Nothing is changed, nobody waits."""

import dataclasses
from collections.abc import Callable
from ipaddress import IPv4Address

from plugin.agent.attachments import admission
from plugin.agent.attachments.capabilities import Capabilities
from plugin.agent.attachments.delegating import asked, plan
from plugin.agent.attachments.leases import Leases
from plugin.agent.store import Record
from plugin.core.cni.ipam import IpamPlan
from plugin.core.cni.result import check_differences, check_failed
from plugin.core.cni.types import (
    CHECK_FAILED,
    LIMITED_CONNECTIVITY,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    CniError,
    CniRequest,
)
from plugin.core.ipam.allocator import Attachment, RingAllocator
from plugin.link import pods
from plugin.link.netlink import Link, Netlink


class Looking:
    """Answers.

    Args:
        netlink: A socket in the node's namespace.
        bridge: The switch.
        known: The record of an attachment, if there is one.
        leases: Who holds which addresses.
        capabilities: Knows host ports and limits.
        allocator: How many addresses there are.
        gateway: The switch's own address, or None as long as it has none.
        others_have: Whether another member of the ring may still have addresses to give.
        displaced: Why a pod's address or MAC is another's; empty for nearly all.

    Attributes:
        mtu_bytes: The MTU that the network carries now; 0 when it is not known.
    """

    def __init__(  # noqa: PLR0913 - attachments.py puts it together, once
        self,
        *,
        netlink: Netlink,
        bridge: Link,
        known: Callable[[Attachment], Record | None],
        leases: Leases,
        capabilities: Capabilities,
        allocator: RingAllocator,
        gateway: Callable[[], IPv4Address | None],
        others_have: Callable[[], bool],
        displaced: Callable[[Attachment], str],
    ) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._known = known
        self._leases = leases
        self._capabilities = capabilities
        self._allocator = allocator
        self._find_gateway = gateway
        self._others_have = others_have
        self._displaced = displaced
        self.mtu_bytes = 0

    def check(self, request: CniRequest, netns_fd: int | None) -> str | IpamPlan:
        """CHECK: the pod has what its ADD gave it.

        Raises:
            CniError: It has not; the text says what is missing.
        """
        sandbox = admission.sandbox(request, netns_fd)
        record = self._known(request.attachment)
        if record is None:
            raise CniError(
                UNKNOWN_CONTAINER, f"{request.container_id} is not attached to network {request.network} here"
            )
        try:
            found = pods.observe(self._netlink, self._bridge, sandbox, name=record.host_ifname, ifname=request.ifname)
        except pods.AttachError as error:
            raise CniError(CHECK_FAILED, error.message, error.hint) from error
        reserved = self._leases.held(request.attachment)
        now = dataclasses.replace(found, reserved=reserved, carried_bytes=self.mtu_bytes)
        differences = check_differences(request, now)
        differences += self._capabilities.differences(record)
        if reason := self._displaced(request.attachment):
            differences.insert(0, reason)
        if differences:
            raise check_failed(differences)
        return plan(asked(request))

    def status(self, request: CniRequest, _netns_fd: int | None) -> str | IpamPlan:
        """STATUS: an ADD could succeed now.

        Raises:
            CniError: It could not (code 50), or only if another node gives addresses (51).
        """
        if self._find_gateway() is None:  # at once: a STATUS asks what is, and never waits
            raise CniError(NOT_AVAILABLE, "this node has no addresses yet", "weave status ipam says why")
        if request.delegate is not None:
            return plan(asked(request))
        if not self._allocator.free and not self._others_have():
            raise CniError(LIMITED_CONNECTIVITY, f"all {self._allocator.capacity} addresses of this node are held")
        return ""
