"""Host ports: which ports of a node lead into a pod, and who may have which. Values and rules; nothing is opened here.

What a runtime asks for is read by plugin/core/cni/capabilities.py; plugin/link/hostports.py carries it out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

PORT_MAX: Final = 65535
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
"""The protocols that have ports, with their numbers (IANA protocol numbers)."""

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - nothing listens here: it says "any address of the node"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """Packets to `host_port` of the node go to `container_port` of the pod.

    Attributes:
        host_port: On the node, 1 to 65535.
        container_port: In the pod, 1 to 65535.
        protocol: A key of `PROTOCOLS`.
        host_ip: The address of the node at which it is reached; `ANY_ADDRESS`: at all of them.
    """

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ANY_ADDRESS

    def __str__(self) -> str:
        """As `docker ps` and `podman ps` print it."""
        return f"{self.place}->{self.container_port}/{self.protocol}"

    @property
    def place(self) -> str:
        """What it takes of the node."""
        return f"{self.host_ip}:{self.host_port}"

    def overlaps(self, other: "PortMapping") -> bool:
        """Whether some packet would belong to both. Any address overlaps with each single one, as with bind(2)."""
        same_port = (self.protocol, self.host_port) == (other.protocol, other.host_port)
        return same_port and (self.host_ip == other.host_ip or ANY_ADDRESS in {self.host_ip, other.host_ip})


def first_overlap(
    wanted: Iterable[PortMapping], taken: Iterable[PortMapping]
) -> tuple[PortMapping, PortMapping] | None:
    """The first of `wanted` that cannot be had, with the one of `taken` that stands in its way; None: all are free."""
    by_port: dict[tuple[str, int], list[PortMapping]] = {}
    for mapping in taken:
        by_port.setdefault((mapping.protocol, mapping.host_port), []).append(mapping)
    for mapping in wanted:
        for rival in by_port.get((mapping.protocol, mapping.host_port), ()):
            if mapping.overlaps(rival):
                return mapping, rival
    return None
