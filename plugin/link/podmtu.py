"""The MTU of pods that live: changed at both ends of their cables, the inner one inside the pod's namespace.

The kernel sets nothing in another namespace from outside, so that has to be entered. No descriptor of it is kept: that
would keep it alive when its runtime has let go of it. It is found again by the number under which the kernel knows the
cable's other side (`link-netnsid` of ip-link(8)): at the path that the runtime gave, among the named namespaces, or
by a process that is in it.
"""

import contextlib
import errno
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError
from plugin.link import attributes, rtnl
from plugin.link import constants as c
from plugin.link.netlink import Netlink, NetlinkError, parse_link

_NAMED: Final = (Path("/run/netns"), Path("/var/run/netns"))
_PROCESSES: Final = Path("/proc")


class UnreachedError(CheckError):
    """The pod's own side cannot be changed from here."""


@dataclass(frozen=True, slots=True)
class PodCable:
    """Both ends of a pod's cable.

    Attributes:
        name: The end on the node.
        index: Its number.
        mtu_bytes: Its MTU.
        inner_index: The number of the end in the pod.
        inner_mtu_bytes: Its MTU; 0 when the kernel does not tell.
        namespace: The number under which the node's namespace knows the pod's; None when it does not.
    """

    name: str
    index: int
    mtu_bytes: int
    inner_index: int
    inner_mtu_bytes: int
    namespace: int | None


def observe_cable(netlink: Netlink, name: str) -> PodCable | None:
    """The cable whose end on the node has this name; None when there is none."""
    (body,) = netlink.query(rtnl.link_get(name))
    if body is None:
        return None
    link = parse_link(body)
    number = attributes.parse(body, 16).get(c.IFLA_LINK_NETNSID)
    namespace = None if number is None else struct.unpack("i", number)[0]
    inner = None
    if namespace is not None and link.peer_index:
        (inner,) = netlink.query(rtnl.link_of_namespace(link.peer_index, namespace))
    inner_mtu_bytes = 0 if inner is None else parse_link(inner).mtu
    return PodCable(link.name, link.index, link.mtu, link.peer_index, inner_mtu_bytes, namespace)


class Namespaces:
    """Finds the namespaces of pods; what it found out is forgotten with it.

    Args:
        netlink: A socket in the node's namespace.
    """

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._paths: Mapping[int, str] | None = None

    @contextlib.contextmanager
    def opened(self, cable: PodCable, hint: str) -> Iterator[int]:
        """A descriptor of a pod's namespace for the length of the block.

        Raises:
            UnreachedError: Nothing leads there from where the agent is.
        """
        fd = self._open(cable, hint)
        if fd is None:
            raise UnreachedError(
                f"the namespace of the pod behind {cable.name} cannot be entered from the agent"
                + (f": {hint} does not lead there" if hint else ""),
                hint="delete the pod and make it anew; an agent in a container needs /run/netns of its host",
            )
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, cable: PodCable, hint: str) -> int | None:
        for path in self._candidates(cable, hint):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if self._number(fd) == cable.namespace:
                    return fd
                os.close(fd)
        return None

    def _candidates(self, cable: PodCable, hint: str) -> Iterator[str]:
        if cable.namespace is None:
            return
        if hint:
            yield hint
        if self._paths is None:
            self._paths = self._look_around()
        if cable.namespace in self._paths:
            yield self._paths[cable.namespace]

    def _look_around(self) -> dict[int, str]:
        """All namespaces that have a name or a process, by their numbers."""
        found: dict[int, str] = {}
        known: set[tuple[int, int]] = set()
        for path in _namespaces():
            with contextlib.suppress(OSError):
                status = path.stat()
                if (status.st_dev, status.st_ino) in known:
                    continue
                known.add((status.st_dev, status.st_ino))
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    number = self._number(fd)
                finally:
                    os.close(fd)
                if number is not None:
                    found[number] = str(path)
        return found

    def _number(self, fd: int) -> int | None:
        (body,) = self._netlink.query(rtnl.namespace_number(fd))
        number = None if body is None else attributes.parse(body, 4).get(c.NETNSA_NSID)
        return None if number is None else struct.unpack("i", number)[0]


def _namespaces() -> Iterator[Path]:
    for folder in _NAMED:
        with contextlib.suppress(OSError):
            yield from folder.iterdir()
    for process in _PROCESSES.iterdir():
        if process.name.isdecimal():
            yield process / "ns/net"


def set_mtu(
    netlink: Netlink, namespaces: Namespaces, cable: PodCable, mtu_bytes: int, *, hint: str, inner_bytes: int = 0
) -> bool:
    """Both ends have this MTU, or neither has: two ends of different MTU swallow what only one of them takes.

    Args:
        netlink: A socket in the node's namespace.
        namespaces: Finds the pod's.
        cable: The pod's, as it is now.
        mtu_bytes: The MTU.
        hint: Where the runtime said that the namespace is.
        inner_bytes: A smaller one that the pod's own side shall have; 0 for the same.

    Returns:
        Whether there is such a cable still.

    Raises:
        UnreachedError: The pod's namespace cannot be entered; nothing was changed.
        NetlinkError: The kernel refuses.
    """
    outer = rtnl.link_set(cable.index, mtu=mtu_bytes)
    inner_bytes = inner_bytes or mtu_bytes
    try:
        if cable.inner_mtu_bytes != inner_bytes:
            with namespaces.opened(cable, hint) as fd, Netlink(fd) as inside:
                message = rtnl.link_set(cable.inner_index, mtu=inner_bytes)
                inside.request(message, what=f"resize the pod's end of {cable.name}")
        netlink.request(outer, what=f"resize {cable.name}")
    except NetlinkError as error:
        if error.errno == errno.ENODEV:  # the pod went meanwhile
            return False
        raise
    return True
