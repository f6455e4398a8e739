"""Bandwidth: how fast a pod may receive and send. Values only, in bytes, as the kernel counts.

CNI counts in bits; plugin/core/cni/capabilities.py reads it, plugin/link/shaping.py carries it out with a token bucket
a direction (tc-tbf(8)).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """One direction: bytes a second, and how many bytes may pass at once. `burst_bytes` 0: not stated."""

    rate_bytes: int
    burst_bytes: int = 0

    @property
    def rate_bits(self) -> int:
        """The rate as CNI and people count."""
        return self.rate_bytes * 8


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Both directions, as seen from the pod; None: as fast as it goes."""

    ingress: Limit | None = None
    egress: Limit | None = None

    def __bool__(self) -> bool:
        return self.ingress is not None or self.egress is not None
