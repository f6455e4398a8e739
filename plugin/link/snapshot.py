"""What the kernel holds now, read when it is first asked for and then remembered: one look at the node."""

import os
from collections.abc import Callable
from functools import cached_property
from ipaddress import IPv4Interface

from plugin.link.netlink import Link, Neighbour, Netlink, parse_link
from plugin.link.nfnetlink import Netfilter


class Observer:
    """Looks again and again. A link of which the kernel says the same as before is the same object as before.

    Args:
        netlink: A socket in the node's namespace.
        netfilter: Another one.
    """

    def __init__(self, netlink: Netlink, netfilter: Netfilter) -> None:
        self._netlink = netlink
        self._netfilter = netfilter
        self._links: dict[bytes, Link] = {}

    def look(self) -> "Snapshot":
        """What is there from now on, as far as it is asked for."""
        return Snapshot(self._netlink, self._netfilter, self._read_links)

    def _read_links(self) -> list[Link]:
        before, self._links = self._links, {}
        for body in self._netlink.link_bodies():
            self._links[body] = before.get(body) or parse_link(body)
        return list(self._links.values())


class Snapshot:
    """One look. Whoever has changed something takes a new one.

    Args:
        netlink: A socket in the node's namespace.
        netfilter: Another one.
        read_links: Reads every interface.
    """

    def __init__(self, netlink: Netlink, netfilter: Netfilter, read_links: Callable[[], list[Link]]) -> None:
        self._netlink = netlink
        self._netfilter = netfilter
        self._read_links = read_links

    @cached_property
    def links(self) -> dict[str, Link]:
        """Every interface by its name."""
        return {link.name: link for link in self._read_links()}

    @cached_property
    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """Every IPv4 address, as (index of the link, address)."""
        return self._netlink.addresses()

    @cached_property
    def fdb(self) -> list[Neighbour]:
        """The forwarding entries of bridges and VXLAN devices."""
        return self._netlink.fdb()

    @cached_property
    def neighbours(self) -> list[Neighbour]:
        """The IPv4 neighbour table."""
        return self._netlink.neighbours()

    def table_digest(self, name: str) -> bytes:
        """A check sum of an IPv4 table of nftables (`Netfilter.table_digest`)."""
        return self._netfilter.table_digest(name)

    def elements(self, table: str, set_name: str) -> dict[bytes, bytes]:
        """The entries of a set or map of the IPv4 table (`Netfilter.elements`)."""
        return self._netfilter.elements(table, set_name)

    @staticmethod
    def sysctl(name: str) -> str | None:
        """A sysctl of the calling thread's network namespace (`net/ipv4/ip_forward`); None where there is none."""
        try:
            file = os.open(f"/proc/sys/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(file, 64).decode("ascii", "replace").strip()
        except OSError:
            return None
        finally:
            os.close(file)
