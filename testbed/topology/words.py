"""Words and numbers that several rules say: counts, ranges from text, what there is instead of a wrong name."""

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError

from testbed.nearest import did_you_mean, listing
from testbed.topology.names import RESERVED_NAMES


def network_of(text: str, *, strict: bool = True) -> IPv4Network | None:
    """The range that a text names; None when it names none."""
    try:
        return IPv4Network(text, strict=strict)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def usable(network: IPv4Network) -> int:
    """Addresses for hosts: all but the network's and the broadcast's."""
    return max(network.num_addresses - 2, 0)


def count_of(number: int, noun: str) -> str:
    """`1 node`, `3 nodes`; nothing of none, but for addresses."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}" if number or noun.startswith("usable") else ""


def or_there_is(name: str, known: Iterable[str]) -> str:
    """What was probably meant, or what there is."""
    listed = sorted(known, key=lambda word: (word in RESERVED_NAMES, word))
    return did_you_mean(name, listed) or f"; there is {listing(listed)}"
