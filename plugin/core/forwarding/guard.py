"""What pods may send, as entries of the kernel's sets; and what of the frames that were refused is worth a word.

`wanted_entries` is a function of who is there: the entries of a node can be compared with the kernel's, and written
anew, at any time. plugin/link/guard.py has the rules that ask these sets; it writes and reads them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, unique
from ipaddress import IPv4Address
from itertools import product
from typing import Final

from plugin.core.cni.exemption import Exemption

SOURCES: Final = "sources"
"""Set: (port, MAC, address) that may be sent from. Nearly every frame asks only this one."""
MACS: Final = "macs"
"""Set: (port, MAC)."""
ANY_MAC: Final = "any-mac"
"""Set: (port, address) that may be sent from with every MAC."""
ANY_ADDRESS: Final = "any-address"
"""Set: (port, MAC) that may be sent from with every address."""
PROMISCUOUS: Final = "promiscuous"
"""Set: (port) of which nothing is checked."""
SETS: Final = (SOURCES, MACS, ANY_MAC, ANY_ADDRESS, PROMISCUOUS)

SAY_AGAIN_S: Final = 60.0
"""A pod's frames that are refused for one reason are spoken of at once, and then so seldom."""

SAID_AT_ONCE_MAX: Final = 10
"""Pods and reasons that are spoken of at one look; what there is beyond it waits for the next."""


@unique
class Reason(IntEnum):
    """Why frames are refused. The rules write the number into the set that counts, as the frame's mark."""

    MAC = 1
    ADDRESS = 2
    ARP = 3
    IPV6 = 4
    ROUTER = 5
    DHCP = 6
    BRIDGE = 7
    PROTOCOL = 8
    AGENT = 9
    STRANGER = 10

    @property
    def word(self) -> str:
        """For metrics and `weave ps`."""
        return self.name.lower()

    @property
    def sentence(self) -> str:
        """For the log."""
        return _SENTENCES[self]


_SENTENCES: Final = {
    Reason.MAC: "the source MAC is not the pod's",
    Reason.ADDRESS: "the source address is not the pod's",
    Reason.ARP: "ARP in another name than the pod's",
    Reason.IPV6: "IPv6, which this network does not carry",
    Reason.ROUTER: "an IPv6 router advertisement",
    Reason.DHCP: "an answer of a DHCP server",
    Reason.BRIDGE: "a frame between bridges, as spanning tree's",
    Reason.PROTOCOL: "neither IPv4 nor ARP",
    Reason.AGENT: "sent to the ports of the agents",
    Reason.STRANGER: "VXLAN from the address of no member",
}
assert set(_SENTENCES) == set(Reason)


@dataclass(frozen=True, slots=True)
class Sender:
    """A pod, as a port of the switch.

    Attributes:
        port: Index of the node's end of its pair.
        mac: Its MAC; empty when nobody knows: then its addresses are checked alone.
        addresses: Its addresses.
        exemption: What it may send as beside them.
    """

    port: int
    mac: str
    addresses: tuple[IPv4Address, ...]
    exemption: Exemption = field(default_factory=Exemption)

    @property
    def one_mac(self) -> bool:
        """Whether all that it sends has one MAC: then its port has none to learn, and is locked."""
        return bool(self.mac) and self.exemption.one_mac


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of one of `SETS`, which says what of it counts."""

    set_name: str
    port: int
    mac: str = ""
    address: IPv4Address | None = None


def wanted_entries(senders: Iterable[Sender]) -> frozenset[Entry]:
    """What the sets have to hold: nothing else, and no less."""
    return frozenset(entry for sender in senders for entry in _entries(sender))


def _entries(sender: Sender) -> Iterable[Entry]:
    port, exemption = sender.port, sender.exemption
    if exemption.promiscuous:
        yield Entry(PROMISCUOUS, port)
        return
    macs = (*((sender.mac,) if sender.mac else ()), *exemption.macs)
    addresses = (*sender.addresses, *(IPv4Address(text) for text in exemption.addresses))
    for mac in macs:
        yield Entry(MACS, port, mac)
        if exemption.any_address:
            yield Entry(ANY_ADDRESS, port, mac)
    for mac, address in product(macs, addresses):
        yield Entry(SOURCES, port, mac, address)
    if exemption.any_mac or not sender.mac:
        for address in addresses:
            yield Entry(ANY_MAC, port, address=address)


def exemption_of(entries: Iterable[Entry], mac: str, addresses: Iterable[IPv4Address]) -> Exemption:
    """What `wanted_entries` made these entries of one port from: the way back, for a pod whose record is lost."""
    found = list(entries)
    sets = {entry.set_name for entry in found}
    if PROMISCUOUS in sets:
        return Exemption(promiscuous=True)
    macs = {entry.mac for entry in found if entry.set_name == MACS} - {mac}
    named = {entry.address for entry in found if entry.address is not None} - set(addresses)
    return Exemption(
        macs=tuple(sorted(macs)),
        addresses=tuple(map(str, sorted(named))),
        any_mac=ANY_MAC in sets,
        any_address=ANY_ADDRESS in sets,
    )


Key = tuple[str, Reason]
"""Whose frames were refused, and why. Who it is: the name of a port of this node, or an address from elsewhere."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something to tell: so many more frames since the last word, and so many in all."""

    who: str
    reason: Reason
    more: int
    total: int


@dataclass(slots=True)
class Tally:
    """The frames that were refused, summed up over counters that begin anew, and who was spoken of when."""

    _seen: dict[Key, int] = field(default_factory=dict[Key, int])
    _totals: dict[Key, int] = field(default_factory=dict[Key, int])
    _told: dict[Key, tuple[float, int]] = field(default_factory=dict[Key, tuple[float, int]])

    @property
    def totals(self) -> Mapping[Key, int]:
        """Frames since the agent began to count."""
        return self._totals

    def of(self, who: str) -> dict[Reason, int]:
        """One pod's, by reason."""
        return {reason: count for (name, reason), count in sorted(self._totals.items()) if name == who}

    def count(self, counters: Mapping[Key, int]) -> None:
        """The kernel's counters stand like this now; one that is smaller than before has begun anew."""
        for key, now in counters.items():
            before = self._seen.get(key, 0)
            grown = now - before if now >= before else now
            if grown:
                self._totals[key] = self._totals.get(key, 0) + grown
        self._seen = dict(counters)

    def take_news(self, *, now_s: float) -> list[Refusal]:
        """What is to be told now, the most first. What is not told now is told later, with what came meanwhile."""
        due = []
        for key, total in self._totals.items():
            told_s, told = self._told.get(key, (float("-inf"), 0))
            if total > told and now_s >= told_s + SAY_AGAIN_S:
                due.append(Refusal(*key, total - told, total))
        due.sort(key=lambda refusal: (-refusal.more, refusal.who, refusal.reason))
        for refusal in due[:SAID_AT_ONCE_MAX]:
            self._told[refusal.who, refusal.reason] = now_s, refusal.total
        return due[:SAID_AT_ONCE_MAX]

    def forget(self, known: Iterable[str]) -> None:
        """Only these are there still: what others did is history, and in the log."""
        kept = set(known)
        gone = {key for key in {*self._totals, *self._seen} if key[0] not in kept}
        for key in gone:
            self._seen.pop(key, None)
            self._totals.pop(key, None)
            self._told.pop(key, None)
