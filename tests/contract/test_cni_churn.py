"""A thousand pods of one node, 64 calls at a time: every address once, every pod answers, and afterwards nothing is left."""

import os
import select
import time
from contextlib import ExitStack, closing
from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.link.echo import Echo
from testbed.machine.space import call
from tests.support.cluster import Cluster, wait_for
from tests.support.runtime import Runtime, at_once

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes namespaces"),
]
PODS = 1000
AT_ONCE = 64
RANGE = IPv4Network("10.9.0.0/22")  # 1022 addresses, one of them the bridge's
BY_GC = 400
ANSWER_S = 20


def silent(cluster: Cluster, gateway: str, addresses: dict[int, IPv4Address]) -> set[int]:
    """Whom of these pods the node does not reach: one raw socket instead of a thousand processes of ping."""
    with closing(call(cluster.nodes[1], lambda: Echo(IPv4Address(gateway), "weave", icmp_id=7))) as echo:
        waiting, end_s = set(addresses), time.monotonic() + ANSWER_S
        while waiting and time.monotonic() < end_s:
            for number in sorted(waiting):
                echo.send(addresses[number], number, 84)
                if number % 100 == 99:
                    waiting -= set(echo.receive())
            while select.select([echo], [], [], 0.2)[0]:
                waiting -= set(echo.receive())
        return waiting


def test_a_thousand_pods_sixty_four_at_once(cluster: Cluster) -> None:
    cluster.timeout_s = 60
    cluster.start(1, range=str(RANGE))
    runtime = Runtime(cluster)
    before = runtime.traces()
    with ExitStack() as stack:
        own, cluster.stack = cluster.stack, stack
        sandboxes = [runtime.sandbox() for _ in range(PODS)]
        cluster.stack = own
        addresses: dict[int, IPv4Address] = {}

        def add(number: int) -> None:
            added = runtime.call("ADD", f"pod{number}", sandboxes[number])
            addresses[number] = IPv4Address(added.address)

        at_once(AT_ONCE, add, range(PODS))
        assert len(set(addresses.values())) == PODS, "every address once"
        assert set(addresses.values()) < set(RANGE.hosts())
        assert cluster.held(1) == set(map(str, addresses.values()))
        counted: list[int] = []

        def all_there() -> bool:
            during = runtime.traces()
            counted[:] = [len(during[what]) - len(before[what]) for what in COUNTED]
            return counted == [PODS] * len(COUNTED)

        wait_for(all_there, f"{PODS} of each of {', '.join(COUNTED)}")
        gateway = cluster.report(1)["bridge"]["address"]
        assert silent(cluster, gateway, addresses) == set()

        at_once(AT_ONCE, lambda number: runtime.delete(f"pod{number}", sandboxes[number]), range(BY_GC, PODS))
        wait_for(lambda: len(cluster.pod_links(1)) == BY_GC, "the deleted ones are gone")
        assert len(cluster.held(1)) == BY_GC
        assert silent(cluster, gateway, {number: addresses[number] for number in range(BY_GC)}) == set()
        runtime.gc()
        runtime.assert_no_traces_but(before)


COUNTED = ("ports of the bridge", "forwarding entries", "addresses held", "records on the disk", "neighbours")
