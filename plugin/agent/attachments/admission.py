"""What an ADD may ask of this node: its namespace, and that everything in its configuration can be done here.

What a configuration asks for is done or refused, never passed over: a pod elsewhere than meant is worse than none.
"""

import os
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.cni.exemption import Exemption
from plugin.core.cni.ipam import subnet_complaint
from plugin.core.cni.lease import ADDRESSES_MAX
from plugin.core.cni.types import DEFAULT_BRIDGE, INVALID_CONFIG, INVALID_NETNS, UNSUPPORTED_FIELD, CniError, CniRequest
from plugin.core.errors import said_by
from plugin.link import netns
from plugin.link.netlink import Link

_SUBNET_PREFIX_MAX: Final = 30
"""The first and last address of a subnet are not given to pods: a /31 would have none."""


def sandbox(request: CniRequest, netns_fd: int | None) -> int:
    """The pod's namespace: really one, and not the node's own (Weave and skel refuse that too).

    Raises:
        CniError: It is none (code 8).
    """
    if netns_fd is None:
        raise CniError(
            INVALID_NETNS, f"the pod's network namespace {request.netns} could not be opened",
            "CNI_NETNS must name an existing network namespace",
        )  # fmt: skip
    own = netns.current("net")
    try:
        if netns.same_namespace(own, netns_fd):
            raise CniError(
                INVALID_NETNS, f"CNI_NETNS {request.netns} is the node's own network namespace",
                "a pod on the host network needs no CNI call",
            )  # fmt: skip
        with netns.entered(netns_fd):
            pass
    except OSError as error:
        raise CniError(
            INVALID_NETNS, f"CNI_NETNS {request.netns} is no network namespace: {said_by(error, path=False)}"
        ) from error
    finally:
        os.close(own)
    return netns_fd


def refuse_what_is_not_here(request: CniRequest, bridge: Link, pod_range: IPv4Network) -> None:
    """See that the configuration asks for nothing that this node cannot do.

    Args:
        request: The ADD.
        bridge: The switch.
        pod_range: The pod range.

    Raises:
        CniError: It does (codes 2 and 7).
    """
    config = request.config
    if config.bridge not in {DEFAULT_BRIDGE, bridge.name}:
        raise CniError(
            UNSUPPORTED_FIELD,
            f'"bridge": {config.bridge} is not this agent\'s switch, which is {bridge.name}',
            "leave bridge out of the configuration",
        )
    for one in (one for ranged in config.ipam.ranges for one in ranged):
        if complaint := subnet_complaint(one, pod_range, _SUBNET_PREFIX_MAX):
            raise CniError(INVALID_CONFIG, complaint, f"name a subnet of {pod_range}, or leave ipam.subnet out")
    if max(len(config.requested_addresses), len(config.ipam.ranges)) > ADDRESSES_MAX:
        raise CniError(UNSUPPORTED_FIELD, f"more than {ADDRESSES_MAX} addresses are asked for on one interface")


def refuse_the_switchs_own(exemption: Exemption, bridge: Link, gateway: IPv4Address) -> None:
    """See that nobody is exempted from not being the gateway.

    Raises:
        CniError: The configuration lists the switch's MAC or address (code 7).
    """
    if bridge.mac in exemption.macs or str(gateway) in exemption.addresses:
        raise CniError(
            INVALID_CONFIG,
            f'"guard" lists {bridge.mac if bridge.mac in exemption.macs else gateway}, which is the switch\'s own',
            "no pod may speak as the gateway of the others",
        )


def mtu_bytes_for(request: CniRequest, most_bytes: int) -> int:
    """The MTU of the pod's interface: what was asked for, or all that the network carries.

    Raises:
        CniError: More was asked for (code 7).
    """
    wanted = request.config.mtu_bytes
    if wanted > most_bytes:
        raise CniError(
            INVALID_CONFIG,
            f"mtu {wanted} is larger than the network carries: {most_bytes} bytes",
            "leave mtu out of the configuration, or lower it",
        )
    return wanted or most_bytes
