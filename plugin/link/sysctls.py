"""The sysctls that a node's pod network depends on, each with its reason: no distribution's default is relied on."""

import errno
from collections.abc import Iterable
from typing import Final

from plugin.core.errors import MissingError, said_by
from plugin.link import netns

BRIDGED_IPV4: Final = "net/bridge/bridge-nf-call-iptables"
NODE: Final = (
    # Pods reach the world outside through their node.
    ("net/ipv4/ip_forward", "1"),
    # Frames between two pods pass the rules for IP packets and are tracked. Without that, what a Service has translated
    # is answered past the translation, and policies never see pods of one node. A FORWARD policy of DROP, as Docker
    # sets it, then stops such frames as well: plugin/core/firewall has the rules against that. Absent while
    # br_netfilter is not loaded: plugin/link/rules.py then lets Services be called by the switch.
    (BRIDGED_IPV4, "1"),
    # Pods have IPv4 only, and ARP is answered by the switch itself: no rule of anybody is meant for these.
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
)


def interface(name: str) -> tuple[tuple[str, str], ...]:
    """The sysctls of one of our interfaces.

    The pod network is IPv4: without these two a pod could send router advertisements and become its neighbours' IPv6
    gateway (CVE-2020-10749), and every new port would send neighbour discovery through the overlay.
    """
    return (
        (f"net/ipv6/conf/{name}/accept_ra", "0"),
        (f"net/ipv6/conf/{name}/disable_ipv6", "1"),
    )


def switch(name: str) -> tuple[tuple[str, str], ...]:
    """The sysctl of the switch by which the node reaches host ports at its 127.0.0.1.

    It lets packets from 127.0.0.1 leave for pods; the chain `loopback` of plugin/link/rules.py takes care that none
    from pods come in for 127.0.0.1.
    """
    return ((f"net/ipv4/conf/{name}/route_localnet", "1"),)


def is_bridged_tracked() -> bool:
    """Whether IPv4 frames between ports of a bridge pass the rules for IP packets, in this thread's namespace."""
    try:
        return netns.read_sysctl(BRIDGED_IPV4) == "1"
    except OSError:
        return False  # br_netfilter is not loaded, or the kernel has none


def apply_sysctls(wanted: Iterable[tuple[str, str]]) -> None:
    """Write them in the calling thread's network namespace; a key that this kernel does not have is passed over.

    Raises:
        MissingError: /proc/sys is read-only or the value is refused.
    """
    for name, value in wanted:
        try:
            netns.write_sysctl(name, value)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            raise MissingError(
                f"sysctl {name.replace('/', '.')} could not be set to {value}: {said_by(error, path=False)}",
                hint="the agent needs root and a writable /proc/sys (a container needs --privileged)",
            ) from error
