"""Arithmetic on the pod range: where equal parts begin, and which addresses of a part may be given away.

Parts are equal up to the alignment (Weave's recursive halving gives three nodes 50, 25 and 25 %). Who owns which is the
ring's (plugin/core/ipam/ring.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from plugin.core.errors import InputError

ALIGNMENT: Final = 256
"""Shares start at a multiple of this where they are large enough: people read 10.37.85.0 better than 10.37.85.85."""

_PREFIX_LENGTH_MIN: Final = 8
_PREFIX_LENGTH_MAX: Final = 29


@dataclass(frozen=True, slots=True)
class Share:
    """A contiguous part of the range: both ends belong to it."""

    first: IPv4Address
    last: IPv4Address

    @property
    def size(self) -> int:
        """How many addresses it spans, usable or not."""
        return int(self.last) - int(self.first) + 1

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_range(text: str) -> IPv4Network:
    """The pod range from its text form.

    Raises:
        InputError: Not an IPv4 network, host bits set, or a size outside /8 to /29.
    """
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise InputError(
            f"the pod range must be an IPv4 network such as 10.32.0.0/12, found {text!r}: {error}",
            hint="write the network address, for example 10.32.0.0/12",
        ) from None
    if not _PREFIX_LENGTH_MIN <= network.prefixlen <= _PREFIX_LENGTH_MAX:
        raise InputError(
            f"the pod range must be between /{_PREFIX_LENGTH_MIN} and /{_PREFIX_LENGTH_MAX}, found {network}",
            hint="10.32.0.0/12 is the default",
        )
    return network


def edges(network: IPv4Network, count: int) -> list[int]:
    """Where `count` equal parts of the range begin, and behind them where the range ends (as numbers)."""
    size, base = network.num_addresses, int(network.network_address)
    step = ALIGNMENT if size // count >= 16 * ALIGNMENT else 1
    return [base + size * position // count // step * step for position in range(count)] + [base + size]


def usable(network: IPv4Network, share: Share) -> Iterator[IPv4Address]:
    """The addresses of `share` that may be given away, lowest first.

    Never the network and broadcast address of the range. In ranges larger than /24 also no address that ends in .0 or
    .255: they are valid there, but people and old firewalls take them for something else, and it costs under 1 %.
    """
    plain = network.prefixlen < 24
    for number in range(int(share.first), int(share.last) + 1):
        address = IPv4Address(number)
        if address in (network.network_address, network.broadcast_address):
            continue
        if plain and number & 0xFF in (0, 0xFF):
            continue
        yield address


def count_usable(network: IPv4Network, share: Share) -> int:
    """How many addresses `usable` yields, without walking through a million of them."""
    if network.prefixlen >= 24:
        return share.size - sum(edge in share for edge in (network.network_address, network.broadcast_address))
    first, last = int(share.first), int(share.last)
    # Addresses that end in .0 or .255; the two edges of the range are among them.
    return share.size - (_multiples(first, last) + _multiples(first + 1, last + 1))


def _multiples(first: int, last: int) -> int:
    return last // 256 - (first - 1) // 256


def is_usable(network: IPv4Network, share: Share, address: IPv4Address) -> bool:
    """Whether `usable` would yield this address."""
    if address not in share:
        return False
    return next(usable(network, Share(address, address)), None) is not None
