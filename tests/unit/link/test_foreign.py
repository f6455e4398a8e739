"""What of a node is ours: addresses of the switch, and processes that have a port."""

import os
import socket
from ipaddress import IPv4Interface, IPv4Network

import pytest

from plugin.link.foreign import leftover_addresses
from plugin.link.holders import holder_of, taken_by

NOW = IPv4Network("10.32.0.0/12")


@pytest.mark.parametrize(
    ("address", "earlier", "whose"),
    [
        ("10.32.0.1/12", "10.32.0.0/12", "kept"),
        ("10.35.0.1/32", None, "kept"),  # another IPAM plugin's gateway
        ("10.48.0.1/12", "10.48.0.0/12", "ours"),
        ("10.48.7.1/32", "10.48.0.0/12", "ours"),
        ("10.32.0.1/8", "10.0.0.0/8", "ours"),  # the same address with the earlier range's prefix
        ("10.48.0.1/12", None, "foreign"),
        ("10.48.0.1/16", "10.48.0.0/12", "foreign"),
        ("172.16.9.1/24", "10.48.0.0/12", "foreign"),
        ("10.32.0.1/16", "10.32.0.0/12", "foreign"),
    ],
)
def test_addresses_of_an_earlier_range_are_ours_and_others_are_not(
    address: str, earlier: str | None, whose: str
) -> None:
    interface = IPv4Interface(address)
    ours, others = leftover_addresses([interface], None if earlier is None else IPv4Network(earlier), NOW)
    assert (ours, others) == {
        "kept": ([], []),
        "ours": ([interface], []),
        "foreign": ([], [interface]),
    }[whose]


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_the_process_that_has_a_port_is_named(protocol: str, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        assert holder_of(protocol, port).endswith(f"(pid {os.getpid()})")
        assert taken_by(protocol, port).startswith(" by ")
    assert holder_of(protocol, port) == taken_by(protocol, port) == ""
