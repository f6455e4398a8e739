"""What the tests here share: a bare node for plugin/link, a cluster of two nodes for the agent."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from plugin.link import netns, rtnl
from plugin.link.netlink import Netlink
from tests.support.cluster import Cluster
from tests.support.node import LOCAL


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes; every namespace, mount and process goes when the test ends, however it ends."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.fixture(autouse=True)
def _lock_of_iptables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables, in whatever namespace, takes a lock in /run: the machine's stays as it is."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    """The test runs inside a namespace of its own, which has the node address on its loopback."""
    with netns.new_netns() as fd, netns.entered(fd), Netlink() as inside:
        inside.request(rtnl.link_set(1, up=True), rtnl.address_add(1, IPv4Interface((LOCAL, 24))))
        yield inside
