"""Entries of sets and tracked connections, written by our own messages and read back by `nft -j` and from /proc."""

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from plugin.core.cni.hostports import PortMapping
from plugin.link import hostports, netns, rtnl, rules
from plugin.link.netlink import Netlink, NetlinkError
from plugin.link.nfnetlink import Element, Netfilter, concatenated

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
RANGE = IPv4Network("10.32.0.0/12")
RED, BLUE = IPv4Address("10.32.0.2"), IPv4Address("10.32.0.3")
WEB = PortMapping(host_port=8080, container_port=80)
ALSO = PortMapping(host_port=8081, container_port=80)
LOCAL = PortMapping(host_port=53, container_port=5353, protocol="udp", host_ip="127.0.0.1")


@pytest.fixture(autouse=True)
def kernel() -> Iterator[Netfilter]:
    """A socket in a namespace of the test's own, with our table and 192.0.2.1; the test runs inside."""
    with netns.new_netns() as fd, netns.entered(fd):
        with Netlink() as netlink:
            netlink.request(rtnl.link_set(1, up=True), rtnl.address_add(1, IPv4Interface("192.0.2.1/24")))
        rules.ensure_rules(RANGE, "weave")
        with Netfilter() as opened:
            yield opened


def listed(name: str, kind: str = "map") -> list[Any]:
    """The entries of a map or set as another reader shows them."""
    shown = json.loads(subprocess.check_output(["nft", "-j", "list", kind, "ip", "weave", name]))["nftables"]
    found = next(one[kind] for one in shown if kind in one).get("elem", [])
    return sorted(([*_flat(one)] for one in found), key=str)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = value.get("concat", [])
    for part in value:
        if isinstance(part, (dict, list)):
            yield from _flat(part)
        else:
            yield part


def test_ports_are_opened_as_another_reader_sees_them_and_closed_again(kernel: Netfilter) -> None:
    hostports.open_ports(kernel, RED, [WEB, ALSO, LOCAL])
    assert listed("ports") == [["tcp", 8080, str(RED), 80], ["tcp", 8081, str(RED), 80]]
    assert listed("ports-at") == [["127.0.0.1", "udp", 53, str(RED), 5353]]
    assert listed("port-targets", "set") == [[str(RED), "tcp", 80], [str(RED), "udp", 5353]]
    assert {pod: set(found) for pod, found in hostports.observe_ports(kernel).items()} == {RED: {WEB, ALSO, LOCAL}}
    hostports.close_ports(kernel, RED, [WEB, ALSO, LOCAL])
    assert (listed("ports"), listed("ports-at"), listed("port-targets", "set")) == ([], [], [])


def test_opening_twice_is_harmless_and_so_is_closing(kernel: Netfilter) -> None:
    for _ in range(2):
        hostports.open_ports(kernel, RED, [WEB])
        assert hostports.closed_ports(kernel, RED, [WEB, LOCAL]) == [LOCAL]
    for _ in range(2):
        hostports.close_ports(kernel, RED, [WEB, LOCAL])
        assert hostports.closed_ports(kernel, RED, [WEB]) == [WEB]


def test_a_transaction_is_all_or_nothing(kernel: Netfilter) -> None:
    hostports.open_ports(kernel, RED, [WEB])
    with pytest.raises(NetlinkError) as raised:
        hostports.open_ports(kernel, BLUE, [LOCAL, WEB])
    assert raised.value.errno == errno.EEXIST
    assert hostports.observe_ports(kernel) == {RED: [WEB]}


def test_what_is_left_of_a_pods_ports_is_closed_though_some_are_missing(kernel: Netfilter) -> None:
    hostports.open_ports(kernel, RED, [WEB, ALSO])
    hostports.open_ports(kernel, BLUE, [LOCAL])
    subprocess.run(["nft", "delete", "element", "ip", "weave", "ports", "{ tcp . 8080 }"], check=True)
    hostports.close_ports(kernel, RED, [WEB, ALSO])
    assert hostports.observe_ports(kernel) == {BLUE: [LOCAL]}


def test_a_table_that_is_not_there_is_told_apart(kernel: Netfilter) -> None:
    rules.remove_rules()
    with pytest.raises(hostports.TableGoneError):
        hostports.open_ports(kernel, RED, [WEB])
    hostports.close_ports(kernel, RED, [WEB])
    assert hostports.observe_ports(kernel) == {}
    assert hostports.closed_ports(kernel, RED, [WEB]) == [WEB]


def test_many_ports_go_in_one_transaction(kernel: Netfilter) -> None:
    many = [PortMapping(host_port=number, container_port=number) for number in range(1, 1025)]
    hostports.open_ports(kernel, RED, many)
    assert hostports.closed_ports(kernel, RED, many) == []
    hostports.close_ports(kernel, RED, many)
    assert hostports.observe_ports(kernel) == {}


def test_a_table_can_be_written_with_its_ports_in_one_go(kernel: Netfilter) -> None:
    rules.ensure_rules(RANGE, "weave", [(RED, WEB), (RED, ALSO), (BLUE, LOCAL)])
    assert hostports.closed_ports(kernel, RED, [WEB, ALSO]) == hostports.closed_ports(kernel, BLUE, [LOCAL]) == []
    hostports.close_ports(kernel, RED, [WEB, ALSO])
    assert hostports.observe_ports(kernel) == {BLUE: [LOCAL]}, "entries of nft and ours are the same bytes"


def test_an_unknown_set_is_refused_by_the_kernel(kernel: Netfilter) -> None:
    with pytest.raises(NetlinkError, match="No such file"):
        kernel.add_elements(rules.TABLE, [Element("no-such-set", concatenated(b"\x06", b"\0\x50"), b"")])
    kernel.add_elements(rules.TABLE, [])
    assert kernel.elements(rules.TABLE, "no-such-set") == {}


# ---- connection tracking


def tracked() -> list[str]:
    return Path("/proc/thread-self/net/nf_conntrack").read_text(encoding="ascii").splitlines()


def send(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (address, port))


def test_connections_are_found_by_the_port_they_went_to_and_forgotten_one_by_one(kernel: Netfilter) -> None:
    for port in (5353, 5354):
        send("192.0.2.1", port)
    assert len(tracked()) == 2
    (found,) = kernel.connections_to_ports(17, {5353})
    assert (found.destination, found.translated) == (IPv4Address("192.0.2.1"), False)
    assert list(kernel.connections_to_ports(6, {5353})) == []
    assert len(list(kernel.connections_to_ports(17, {5353, 5354, 5355}))) == 2
    assert len(list(kernel.connections_answered_by(IPv4Address("192.0.2.1")))) == 2
    assert list(kernel.connections_answered_by(RED)) == []
    assert kernel.forget_connections([found]) == 1
    assert kernel.forget_connections([found]) == 0, "it is gone already"
    assert kernel.forget_connections([]) == 0
    (left,) = tracked()
    assert "dport=5354" in left


def test_only_flows_to_the_nodes_own_addresses_are_forgotten_for_a_port(kernel: Netfilter) -> None:
    own = {IPv4Address("192.0.2.1")}
    mapping = PortMapping(host_port=5353, container_port=53, protocol="udp")
    for address in ("192.0.2.1", "127.0.0.1", "192.0.2.99"):
        send(address, 5353)
    assert len(tracked()) == 3
    assert hostports.forget_older_flows(kernel, RED, [mapping], own) == 2
    (left,) = tracked()
    assert "dst=192.0.2.99 " in left
    assert hostports.forget_older_flows(kernel, RED, [WEB], own) == 0
