"""The independent witness: what the kernel holds, as pyroute2 reads it, which shares no line with our own netlink."""

import socket
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from pyroute2 import IPRoute

from plugin.link import netns


class Witness:
    """Reads the namespace behind `netns_fd`, or that of the calling thread."""

    def __init__(self, netns_fd: int | None = None) -> None:
        self._fd = netns_fd

    def _all(self, method: str, *arguments: object, **named: object) -> list[Any]:
        if self._fd is None:
            with IPRoute() as route:
                return list(getattr(route, method)(*arguments, **named))
        with netns.entered(self._fd), IPRoute() as route:
            return list(getattr(route, method)(*arguments, **named))

    def links(self) -> dict[str, Any]:
        return {link.get_attr("IFLA_IFNAME"): link for link in self._all("get_links")}

    def link(self, name: str) -> Any:
        return self.links()[name]

    def kind(self, name: str) -> str | None:
        return self.link(name).get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")

    def kind_values(self, name: str) -> dict[str, Any]:
        """The attributes of its kind: `IFLA_VXLAN_ID`, `IFLA_BR_STP_STATE` and so on."""
        return dict(self.link(name).get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")["attrs"])

    def port_flags(self, name: str) -> dict[str, Any]:
        """The flags that a bridge port has, without their prefix `IFLA_BRPORT_`."""
        found = self.link(name).get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA")["attrs"]
        return {key.removeprefix("IFLA_BRPORT_"): value for key, value in found}

    def fdb(self, name: str) -> list[dict[str, Any]]:
        """Forwarding entries of one link: `mac`, `dst` (a VXLAN entry), `master` (a bridge entry), `state`."""
        index = self.link(name)["index"]
        return [
            {
                "mac": entry.get_attr("NDA_LLADDR"),
                "dst": entry.get_attr("NDA_DST"),
                "master": entry.get_attr("NDA_MASTER"),
                "state": entry["state"],
                "flags": entry["flags"],
            }
            for entry in self._all("fdb", "dump")
            if entry["ifindex"] == index
        ]

    def neighbours(self, name: str) -> dict[IPv4Address, tuple[str, int]]:
        """IPv4 neighbours of one link: address to (MAC, state). Not the kernel's own entries for multicast groups."""
        index = self.link(name)["index"]
        return {
            IPv4Address(entry.get_attr("NDA_DST")): (entry.get_attr("NDA_LLADDR"), entry["state"])
            for entry in self._all("get_neighbours", family=socket.AF_INET)
            if entry["ifindex"] == index and not IPv4Address(entry.get_attr("NDA_DST")).is_multicast
        }

    def addresses(self, name: str, family: int = socket.AF_INET) -> list[str]:
        index = self.link(name)["index"]
        return [
            f"{entry.get_attr('IFA_LOCAL') or entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"
            for entry in self._all("get_addr", family=family)
            if entry["index"] == index
        ]

    def broadcast(self, interface: IPv4Interface) -> str | None:
        found = self._all("get_addr", family=socket.AF_INET)
        return next(one.get_attr("IFA_BROADCAST") for one in found if one.get_attr("IFA_LOCAL") == str(interface.ip))

    def routes(self) -> dict[IPv4Network, tuple[str | None, int | None]]:
        """The main table: destination to (gateway, index of the link)."""
        main = 254
        return {
            IPv4Network((route.get_attr("RTA_DST") or "0.0.0.0", route["dst_len"])): (
                route.get_attr("RTA_GATEWAY"),
                route.get_attr("RTA_OIF"),
            )
            for route in self._all("get_routes", family=socket.AF_INET, table=main)
        }
