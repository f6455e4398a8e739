"""What a pod may send beside frames from its own MAC and its own addresses: nothing, unless its configuration says so.

The key `guard` is read by plugin/core/cni/config.py; plugin/core/forwarding/guard.py makes entries of it. What else is
forbidden stays so with every exemption but `promiscuous`, and with that one, too, a pod reaches no agent.
"""

from dataclasses import dataclass
from typing import Final

ANY: Final = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """What a pod may send as, beside its own.

    Attributes:
        macs: Further MACs (a nested bridge, a virtual router).
        addresses: Further IPv4 addresses (one that moves between pods, a tunnel's end).
        any_mac: Every MAC.
        any_address: Every IPv4 address (a pod that routes for others).
        promiscuous: Nothing that it sends to pods is looked at.
    """

    macs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    any_mac: bool = False
    any_address: bool = False
    promiscuous: bool = False

    def __bool__(self) -> bool:
        return self != Exemption()

    @property
    def one_mac(self) -> bool:
        """Whether all that the pod sends has its own MAC."""
        return not (self.macs or self.any_mac or self.promiscuous)

    def __str__(self) -> str:
        """As `weave ps` prints it."""
        if self.promiscuous:
            return "guard:promiscuous"
        macs = ANY if self.any_mac else ",".join(self.macs)
        addresses = ANY if self.any_address else ",".join(self.addresses)
        return " ".join(f"guard:{key}={text}" for key, text in (("macs", macs), ("addresses", addresses)) if text)
