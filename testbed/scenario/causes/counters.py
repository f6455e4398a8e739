"""Packets that ended within a namespace, as its kernel counts them: by the reason, or by the interface."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from testbed.machine.space import Space, call

_SNMP: Final = Path("/proc/thread-self/net/snmp")
_DEVICES: Final = Path("/proc/thread-self/net/dev")
_COUNTED: Final = {
    ("Ip", "InHdrErrors"), ("Ip", "InAddrErrors"), ("Ip", "InDiscards"), ("Ip", "OutDiscards"), ("Ip", "OutNoRoutes"),
    ("Ip", "FragFails"), ("Udp", "NoPorts"), ("Udp", "InErrors"), ("Udp", "InCsumErrors"), ("Udp", "RcvbufErrors"),
}  # fmt: skip
"""Counters of packets that end here (RFC 4293, RFC 4113), and no other way of counting a packet."""


def observe(space: Space) -> Mapping[str, int]:
    """The counters of a namespace, by the kernel's name for the reason: `UdpNoPorts`, `eth0 rx_dropped`.

    Raises:
        OSError: The namespace is gone.
    """
    return call(Space(space.name, net=space.net), read)


def read() -> dict[str, int]:
    """The counters of the calling thread's namespace."""
    return _parse_snmp(_SNMP.read_text(encoding="ascii")) | _parse_devices(_DEVICES.read_text(encoding="ascii"))


def _parse_snmp(text: str) -> dict[str, int]:
    """The counters of /proc/net/snmp that count packets which end: a line of names, then one of values, a protocol."""
    lines = [line.split() for line in text.splitlines()]
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        protocol = names[0].rstrip(":")
        found |= {
            f"{protocol}{name}": int(value)
            for name, value in zip(names[1:], values[1:], strict=False)
            if (protocol, name) in _COUNTED
        }
    return found


def _parse_devices(text: str) -> dict[str, int]:
    """The drops and errors of /proc/net/dev, by interface."""
    found: dict[str, int] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = rest.split()
        if len(values) < 12:
            continue
        columns = {"rx_errors": 2, "rx_dropped": 3, "tx_errors": 10, "tx_dropped": 11}
        found |= {f"{name.strip()} {word}": int(values[column]) for word, column in columns.items()}
    return found
