"""Bandwidth in the kernel: a token bucket (tc-tbf(8)) for each direction of a pod, on the node's side of its pair.

What the pod receives leaves the node by the host end of its veth pair: a bucket there. What it sends enters by the same
end, where the kernel can drop but not delay; so it is led over an `ifb` device of the pod's own and delayed there, as
the reference plugin does. Nothing is put into the pod, where its root could take it away.
Numbers come from include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h and linux/tc_act/tc_mirred.h.
"""

import errno
import socket
import struct
from typing import Final

from plugin.core.cni.bandwidth import Bandwidth, Limit
from plugin.core.errors import MissingError, said_by
from plugin.link import constants as c
from plugin.link import rtnl, sysctls
from plugin.link.attributes import attr, nest, parse, text, u32
from plugin.link.netlink import Link, Netlink, NetlinkError
from plugin.link.pods import HOST_PREFIX

_IFB_PREFIX: Final = "ifbwepl"
LATENCY_S: Final = 0.025
"""How long a frame may wait for its turn before it is dropped instead, as in the reference plugin."""

_U32_MAX: Final = 2**32 - 1
_TICK_NS: Final = 64  # the unit of "time" in tc's structures (net/sched/sch_api.c, PSCHED_SHIFT)
_NEWQDISC, _GETQDISC, _NEWTFILTER, _GETTFILTER = 36, 38, 44, 46
_TC_H_ROOT, _TC_H_INGRESS, _INGRESS_HANDLE = 0xFFFF_FFFF, 0xFFFF_FFF1, 0xFFFF_0000
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TBF_PARAMETERS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_LINKLAYER_ETHERNET = 1
_U32_SELECTOR, _U32_ACTION = 5, 7
_ACTION_KIND, _ACTION_OPTIONS = 1, 2
_MIRRED_PARAMETERS, _REDIRECT_OUT, _STOLEN = 2, 1, 4
_ETH_P_ALL = 3


def _ifb_name(host_ifname: str) -> str:
    """The name of the device over which a pod's sent frames are led; it follows from the name of its host end."""
    return _IFB_PREFIX + host_ifname.removeprefix(HOST_PREFIX)


def apply_bandwidth(netlink: Netlink, host: Link, bandwidth: Bandwidth) -> None:
    """Limit the pod behind `host`, every burst being stated.

    Raises:
        MissingError: The kernel has no token buckets or no ifb.
        NetlinkError: It refuses for another reason. What was made so far goes with `remove_bandwidth` and the pair.
    """
    try:
        if bandwidth.ingress is not None:
            netlink.request(_bucket(host.index, bandwidth.ingress), what=f"limit what {host.name} sends to the pod")
        if bandwidth.egress is not None:
            _limit_egress(netlink, host, bandwidth.egress)
    except NetlinkError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOENT}:
            raise MissingError(
                f"the kernel cannot limit a pod's bandwidth: {said_by(error, path=False)}",
                hint="tbf, ifb, the ingress qdisc, u32 and mirred are needed: "
                "modprobe -a sch_tbf ifb sch_ingress cls_u32 act_mirred",
            ) from error
        raise


def _limit_egress(netlink: Netlink, host: Link, limit: Limit) -> None:
    name = _ifb_name(host.name)
    netlink.request(_ifb_add(name, host.mtu), what=f"create {name}")
    sysctls.apply_sysctls(sysctls.interface(name))
    ifb = netlink.link(name)
    if ifb is None:
        raise NetlinkError(errno.ENODEV, f"{name} vanished while it was being set up")
    netlink.request(
        rtnl.link_set(ifb.index, up=True),
        _bucket(ifb.index, limit),
        _ingress(host.index),
        _redirect(host.index, ifb.index),
        what=f"limit what {host.name} receives from the pod",
    )


def remove_bandwidth(netlink: Netlink, host_ifname: str) -> bool:
    """Remove a pod's ifb device; the rest goes with its veth pair. False when there is none.

    Raises:
        NetlinkError: The kernel refuses to delete it.
    """
    name = _ifb_name(host_ifname)
    try:
        by_name = rtnl.message(c.DELLINK, 0, rtnl.link_header() + attr(c.IFLA_IFNAME, text(name)))
        netlink.request(by_name, what=f"delete {name}")
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        return False
    return True


def remove_redirection(netlink: Netlink, host: Link) -> None:
    """Let what a pod sends come in directly (again); nothing happens when it does."""
    netlink.attempt(rtnl.message(c.DELQDISC, 0, _traffic(host.index, _INGRESS_HANDLE, _TC_H_INGRESS)))


def observe_bandwidth(netlink: Netlink, host_ifname: str) -> Bandwidth:
    """How the pod behind this link is limited, as the kernel tells."""
    links = {link.name: link for link in netlink.links()}
    host, ifb = links.get(host_ifname), links.get(_ifb_name(host_ifname))
    if host is None:
        return Bandwidth()
    led = ifb is not None and ifb.up and any(ifb.index == target for target in _redirected_to(netlink, host.index))
    return Bandwidth(
        ingress=_observed_bucket(netlink, host.index),
        egress=_observed_bucket(netlink, ifb.index) if led and ifb is not None else None,
    )


def leftover_ifbs(netlink: Netlink) -> dict[str, str]:
    """The pods' ifb devices: name of the host end that each belongs to -> its own name."""
    names = (link.name for link in netlink.links())
    return {HOST_PREFIX + name.removeprefix(_IFB_PREFIX): name for name in names if name.startswith(_IFB_PREFIX)}


# --- messages -----------------------------------------------------------------------------------------------------
def _traffic(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    """`struct tcmsg`."""
    return struct.pack("BxxxiIII", socket.AF_UNSPEC, index, handle, parent, info)


def _ifb_add(name: str, mtu_bytes: int) -> bytes:
    body = rtnl.link_header() + attr(c.IFLA_IFNAME, text(name)) + attr(c.IFLA_MTU, u32(mtu_bytes))
    one_queue = attr(c.IFLA_NUM_TX_QUEUES, u32(1)) + attr(c.IFLA_NUM_RX_QUEUES, u32(1))
    info = nest(c.IFLA_LINKINFO, attr(c.INFO_KIND, b"ifb\0"))
    return rtnl.message(c.NEWLINK, c.CREATE | c.EXCL, body + one_queue + info)


def _bucket(index: int, limit: Limit) -> bytes:
    """A tbf as the root of the link. Bytes beyond 32 bits go into the 64-bit attribute (TCA_TBF_RATE64)."""
    rate = min(limit.rate_bytes, _U32_MAX)
    queue_bytes = min(int(limit.rate_bytes * LATENCY_S) + limit.burst_bytes, _U32_MAX)
    # The kernel takes the burst from TCA_TBF_BURST; what it would take this time is there for older readers.
    fill_ticks = min(limit.burst_bytes * 10**9 // limit.rate_bytes // _TICK_NS, _U32_MAX)
    rate_spec = struct.pack("BBHhHI", 0, _LINKLAYER_ETHERNET, 0, 0, 0, rate)  # struct tc_ratespec
    no_peak = bytes(12)
    parameters = rate_spec + no_peak + struct.pack("III", queue_bytes, fill_ticks, 0)  # struct tc_tbf_qopt
    options = attr(_TBF_PARAMETERS, parameters) + attr(_TBF_BURST, u32(limit.burst_bytes))
    if limit.rate_bytes >= _U32_MAX:
        options += attr(_TBF_RATE64, struct.pack("Q", limit.rate_bytes))
    body = _traffic(index, 1 << 16, _TC_H_ROOT) + attr(_TCA_KIND, b"tbf\0") + nest(_TCA_OPTIONS, options)
    return rtnl.message(_NEWQDISC, c.CREATE | c.REPLACE, body)


def _ingress(index: int) -> bytes:
    return rtnl.message(
        _NEWQDISC, c.CREATE, _traffic(index, _INGRESS_HANDLE, _TC_H_INGRESS) + attr(_TCA_KIND, b"ingress\0")
    )


def _redirect(index: int, to_index: int) -> bytes:
    """Every frame that enters by link `index` leaves by link `to_index` instead."""
    mirred = struct.pack("IIiiiiI", 0, 0, _STOLEN, 0, 0, _REDIRECT_OUT, to_index)  # struct tc_mirred
    action = attr(_ACTION_KIND, b"mirred\0") + nest(_ACTION_OPTIONS, attr(_MIRRED_PARAMETERS, mirred))
    # struct tc_u32_sel with one key that matches everything: value 0 under mask 0; flag 1: the search ends here.
    selector = struct.pack("BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
    options = attr(_U32_SELECTOR, selector) + nest(_U32_ACTION, nest(1, action))
    info = (1 << 16) | socket.htons(_ETH_P_ALL)  # priority, protocol
    body = _traffic(index, 0, _INGRESS_HANDLE, info) + attr(_TCA_KIND, b"u32\0") + nest(_TCA_OPTIONS, options)
    return rtnl.message(_NEWTFILTER, c.CREATE | c.EXCL, body)


# --- reading back -------------------------------------------------------------------------------------------------
def _observed_bucket(netlink: Netlink, index: int) -> Limit | None:
    for body in netlink.dump(_GETQDISC, _traffic(index, 0, 0)):
        found = parse(body, 20)
        parent = struct.unpack_from("I", body, 12)[0]
        if struct.unpack_from("i", body, 4)[0] != index or parent != _TC_H_ROOT or found.get(_TCA_KIND) != b"tbf\0":
            continue
        options = parse(found.get(_TCA_OPTIONS, b""))
        parameters = options[_TBF_PARAMETERS]
        rate = struct.unpack_from("I", parameters, 8)[0]
        if _TBF_RATE64 in options:
            rate = struct.unpack("Q", options[_TBF_RATE64])[0]
        fill_ticks = struct.unpack_from("I", parameters, 28)[0]
        return Limit(rate, round(fill_ticks * _TICK_NS * rate / 10**9))
    return None


def _redirected_to(netlink: Netlink, index: int) -> list[int]:
    """The links over which this link's incoming frames are led."""
    found = []
    for body in netlink.dump(_GETTFILTER, _traffic(index, 0, _INGRESS_HANDLE)):
        options = parse(parse(body, 20).get(_TCA_OPTIONS, b""))
        for action in parse(options.get(_U32_ACTION, b"")).values():
            parameters = parse(parse(action).get(_ACTION_OPTIONS, b"")).get(_MIRRED_PARAMETERS, b"")
            if len(parameters) >= 28:
                found.append(struct.unpack_from("I", parameters, 24)[0])
    return found
