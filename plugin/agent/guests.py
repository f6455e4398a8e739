"""How many callers on TCP are served at a time, and how much they may send: strangers never take the places of members.

Pure bookkeeping; the sockets are driver.py's.
"""

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

SERVED_MAX: Final = 256
"""Callers served at the same time; further ones wait in the kernel's queue."""

STRANGERS_MAX: Final = 192
"""Of these, so many may be no members: agents that join all at once, or an attacker with many addresses."""

PER_ADDRESS_MAX: Final = 8
"""An agent has hardly ever more than two exchanges with the same other one."""

STRANGERS_BYTES_MAX: Final = 32 << 20
"""What all strangers together may have announced and not yet been answered: four of the longest requests."""


class Guests:
    """Who is served now.

    Args:
        is_member: Whether a member is at an address, or one is looked for there.
    """

    def __init__(self, is_member: Callable[[IPv4Address], bool]) -> None:
        self._is_member = is_member
        self._by_address: Counter[IPv4Address] = Counter()
        self._strangers = 0
        self._strangers_bytes = 0
        self.count = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody more can be served."""
        return self.count >= SERVED_MAX

    def enter(self, address: IPv4Address) -> "Guest | None":
        """Somebody calls; None: it has to be sent away."""
        if self.is_full or self._by_address[address] >= PER_ADDRESS_MAX:
            return None
        stranger = not self._is_member(address)
        if stranger and self._strangers >= STRANGERS_MAX:
            return None
        self.count += 1
        self._by_address[address] += 1
        self._strangers += stranger
        return Guest(self, address, stranger=stranger)

    def left(self, guest: "Guest") -> None:
        """It is served no more."""
        self.count -= 1
        self._strangers -= guest.is_stranger
        self._strangers_bytes -= guest.announced_bytes
        self._by_address[guest.address] -= 1
        if not self._by_address[guest.address]:
            del self._by_address[guest.address]

    def announce(self, guest: "Guest", count_bytes: int) -> bool:
        """It wants to send so much; False when that is too much just now."""
        if guest.is_stranger:
            if self._strangers_bytes + count_bytes > STRANGERS_BYTES_MAX:
                return False
            guest.announced_bytes = count_bytes
            self._strangers_bytes += count_bytes
        return True


class Guest:
    """One caller, for as long as it is served."""

    __slots__ = ("_guests", "address", "announced_bytes", "is_stranger")

    def __init__(self, guests: Guests, address: IPv4Address, *, stranger: bool) -> None:
        self._guests = guests
        self.address = address
        self.is_stranger = stranger
        self.announced_bytes = 0

    def announces(self, count_bytes: int) -> bool:
        """See `Guests.announce`."""
        return self._guests.announce(self, count_bytes)

    def leaves(self) -> None:
        """It is served no more."""
        self._guests.left(self)
