"""The VXLAN header and its price: build and parse it, bound the VNI, derive the pods' MTU from the uplink's.

RFC 7348 section 5 defines the header; its figures are quoted where they are used. Nothing here looks at a whole frame:
taking frames apart is `plugin.core.packet.frame`.

Why 50 bytes, twice. A pod's frame of L bytes leaves the node as a frame of L + 50 bytes, because Ethernet, IPv4, UDP
and VXLAN headers are put before it (14 + 20 + 8 + 8). An MTU counts from the IP header on, so the uplink's own
Ethernet header does not count against it, but the pod's, which is now cargo, does: 20 + 8 + 8 + 14, 50 again.
"""

import struct
from dataclasses import dataclass
from typing import Final

from plugin.core.errors import InputError, WeaveError

# Weave's fast data path has always used 6784 (weave router/fastdp.go); the number IANA assigned to VXLAN is 4789.
UDP_PORT: Final = 6784

ETHERNET_BYTES: Final = 14  # two MAC addresses and an EtherType; the checksum (FCS) never reaches software
_IPV4_BYTES: Final = 20  # without options, which a tunnel does not set
_IPV6_BYTES: Final = 40
_UDP_BYTES: Final = 8
VXLAN_BYTES: Final = 8

OVERHEAD_BYTES: Final = ETHERNET_BYTES + _IPV4_BYTES + _UDP_BYTES + VXLAN_BYTES
OVERHEAD_IPV6_BYTES: Final = ETHERNET_BYTES + _IPV6_BYTES + _UDP_BYTES + VXLAN_BYTES

# Links as small as 68 bytes are legal (RFC 791), and Linux lets a bridge have them. We refuse below 576 because that is
# what RFC 791 has every host accept and what senders count on without asking: a TCP peer that sends no MSS option gets
# 536 + 40 bytes (RFC 9293 3.7.1), and a DNS answer of 512 bytes (RFC 1035 4.2.1) fits. Below it, pods fragment at rest.
_OVERLAY_MTU_MIN: Final = 576
# RFC 8200 section 5. Linux switches IPv6 off on an interface that falls below it.
_OVERLAY_MTU_MIN_IPV6: Final = 1280
# The length field of an IPv4 header has 16 bits, and Linux gives veth and bridges no more either.
_UPLINK_MTU_MAX: Final = 65535

VNI_MIN: Final = 1  # 0 is a legal header value, but it is also what an unset field looks like: we never configure it
VNI_MAX: Final = 2**24 - 1

_FLAG_VNI_VALID: Final = 0x08  # the I flag: "MUST be set to 1 for a valid VNI"; Linux drops a frame without it

_HEADER: Final = struct.Struct("!II")


class VxlanError(WeaveError):
    """These bytes are not a VXLAN header that a receiver would accept."""


@dataclass(frozen=True, slots=True)
class VxlanHeader:
    """The eight bytes between UDP and the pod's frame (RFC 7348 section 5).

    Attributes:
        vni: VXLAN network identifier, 24 bits: which overlay the frame belongs to.
        flags: First byte; 0x08 (the VNI is valid) in every frame of ours.
        reserved: The 24 bits after the flags: sent as zero, ignored on receipt.
        reserved_last: The last byte: sent as zero, ignored on receipt.
    """

    vni: int
    flags: int = _FLAG_VNI_VALID
    reserved: int = 0
    reserved_last: int = 0

    @property
    def vni_valid(self) -> bool:
        """Whether the I flag is set. A receiver drops the frame if not."""
        return bool(self.flags & _FLAG_VNI_VALID)


def build_vxlan(vni: int) -> bytes:
    """The eight header bytes for this VNI.

    Raises:
        InputError: The VNI is outside 1..16777215.
    """
    return _HEADER.pack(_FLAG_VNI_VALID << 24, _check_vni(vni) << 8)


def parse_vxlan(data: bytes | memoryview, offset: int = 0) -> VxlanHeader:
    """Read the header at `offset`. The I flag is reported, not judged: a viewer has to show wrong headers too.

    Raises:
        VxlanError: There are fewer than eight bytes.
    """
    if len(data) - offset < VXLAN_BYTES:
        raise VxlanError(f"a VXLAN header has {VXLAN_BYTES} bytes, found {max(0, len(data) - offset)}")
    first, second = _HEADER.unpack_from(data, offset)
    return VxlanHeader(vni=second >> 8, flags=first >> 24, reserved=first & 0xFFFFFF, reserved_last=second & 0xFF)


def _check_vni(vni: int) -> int:
    """Give the VNI back if it can be configured.

    Raises:
        InputError: It is outside 1..16777215.
    """
    if not VNI_MIN <= vni <= VNI_MAX:
        raise InputError(
            f"a VNI between {VNI_MIN} and {VNI_MAX} is wanted, found {vni}",
            hint="the VNI has 24 bits and every node of a network uses the same one; the default is 1",
        )
    return vni


def overlay_mtu(uplink_mtu: int, *, ipv6_underlay: bool = False, ipv6_pods: bool = False) -> int:
    """The MTU in bytes for the bridge, the VXLAN device and the pods: an encapsulated packet just fits the uplink.

    Args:
        uplink_mtu: MTU of the node's uplink, in bytes.
        ipv6_underlay: The nodes reach each other over IPv6 (20 bytes more).
        ipv6_pods: Pods are to have IPv6 addresses, which need 1280 bytes.

    Raises:
        InputError: The result would be too small for pods, or the uplink's MTU cannot exist.
    """
    overhead = OVERHEAD_IPV6_BYTES if ipv6_underlay else OVERHEAD_BYTES
    wanted = uplink_mtu_min(ipv6_underlay=ipv6_underlay, ipv6_pods=ipv6_pods)
    if uplink_mtu < wanted:
        least = wanted - overhead
        reason = "IPv6 (RFC 8200)" if ipv6_pods else "IPv4 (RFC 791: every host takes 576)"
        raise InputError(
            f"an uplink MTU of at least {wanted} bytes is wanted, found {uplink_mtu}: VXLAN takes {overhead} of them"
            f" and pods need {least} for {reason}",
            hint=f"raise the MTU of the underlay to {wanted} or more (1500 is usual)",
        )
    if uplink_mtu > _UPLINK_MTU_MAX:
        raise InputError(
            f"an uplink MTU of at most {_UPLINK_MTU_MAX} bytes is wanted, found {uplink_mtu}",
            hint="an IPv4 packet cannot be longer; 65000 gives pods 64950",
        )
    return uplink_mtu - overhead


def uplink_mtu_min(*, ipv6_underlay: bool = False, ipv6_pods: bool = False) -> int:
    """The smallest uplink MTU in bytes that leaves pods a usable one: 626 with IPv4 throughout."""
    overhead = OVERHEAD_IPV6_BYTES if ipv6_underlay else OVERHEAD_BYTES
    return overhead + (_OVERLAY_MTU_MIN_IPV6 if ipv6_pods else _OVERLAY_MTU_MIN)
