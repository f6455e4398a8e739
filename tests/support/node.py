"""The switch and the overlay of one bare node, made by plugin.link alone; the fixture `netlink` is inside the node."""

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from plugin.link import overlay, pods, switch
from plugin.link.netlink import Link, Netlink

LOCAL, OTHER, THIRD = IPv4Address("192.168.56.11"), IPv4Address("192.168.56.12"), IPv4Address("192.168.56.13")
POD = IPv4Address("10.32.0.2")
MAC = "0a:58:0a:28:00:02"


def bridge(netlink: Netlink) -> Link:
    return switch.ensure_bridge(netlink, "weave", mac="02:00:00:00:00:01", mtu_bytes=1450)


def device(netlink: Netlink, **other: Any) -> Link:
    values = {"vni": 1, "local": LOCAL, "port": 6784, "mtu_bytes": 1450} | other
    return overlay.ensure_overlay(netlink, bridge=bridge(netlink), **values)


def pod_link(address: IPv4Address = POD, **other: Any) -> pods.PodLink:
    values = {
        "host_ifname": "vethweplabc", "ifname": "eth0", "mac": pods.mac_for(address), "mtu_bytes": 1450,
        "interfaces": [IPv4Interface((address, 12))], "routes": (), "hairpin": False,
    }  # fmt: skip
    return pods.PodLink(**(values | other))
