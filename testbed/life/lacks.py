"""What this machine lacks for a topology: everything that `up` and `run` would refuse, found without making a lab.

Looks and never installs; no lab is made, and what is tried is tried in a network namespace that nobody else sees.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import MissingError
from plugin.core.packet.vxlan import UDP_PORT
from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from testbed.kubelet import needs
from testbed.machine.privileges import check_machine, try_kernel
from testbed.machine.tools import need_tools
from testbed.nodes.nodespace import check_no_chroot
from testbed.nodes.workers import run_forked
from testbed.topology.model import Topology

_AGENT_TOOLS: Final = ("nft",)
"""Programs that every node's agent calls."""

_LINKS: Final = {
    "veth": rtnl.veth_add(rtnl.VethEnd(name="one"), rtnl.VethEnd(name="other")),
    "bridge": rtnl.bridge_add("bridge"),
    "vxlan": rtnl.vxlan_add("vxlan", vni=1, local=IPv4Address("127.0.0.1"), port=UDP_PORT),
}
"""The kinds of links that a lab consists of."""


def lacks_of(topology: Topology, tools: Sequence[str]) -> tuple[MissingError, ...]:
    """Everything that is missing, each with what to do about it.

    Args:
        topology: What is to be built.
        tools: The programs that its scenarios call.
    """
    checks: tuple[Callable[[], object], ...] = (
        check_machine,
        *(lambda tool=tool: need_tools([tool]) for tool in dict.fromkeys((*_AGENT_TOOLS, *tools))),
        lambda: needs.check_machine(topology),
        _check_root,
        _check_links,
    )
    return tuple(_found(checks))


def _found(checks: Sequence[Callable[[], object]]) -> Iterator[MissingError]:
    for check in checks:
        try:
            check()
        except MissingError as error:
            yield error


def _check_root() -> None:
    """What only root can try.

    Raises:
        MissingError: The kernel refuses more than capabilities tell, or this is a chroot.
    """
    if os.geteuid() == 0:
        try_kernel()
        with suppress(OSError):  # it takes a capability to look, which has been said by then
            check_no_chroot()


def _check_links() -> None:
    """See that the kernel makes the links of a lab.

    Raises:
        MissingError: It does not know a kind of them.
    """
    with suppress(PermissionError):  # neither root nor a user namespace is to be had: it cannot be tried
        run_forked([_try_links])


def _try_links(_done: Callable[[int], None]) -> None:
    """In a process of its own: with root's rights over a network namespace of its own, whoever we are."""
    netns.unshare(netns.CLONE_NEWNET | (netns.CLONE_NEWUSER if os.geteuid() != 0 else 0))
    fd = netns.current("net")
    unknown = []
    with Netlink(fd) as kernel:
        for kind, message in _LINKS.items():
            try:
                kernel.request(message, what=f"trying {kind}")
            except OSError:
                unknown.append(kind)
    if unknown:
        raise MissingError(
            f"wanted a kernel that can make {', '.join(unknown)} links, found one that cannot",
            hint=f"modprobe {' '.join(unknown)}, or a kernel that has them (docs/guide/install.md)",
        )
