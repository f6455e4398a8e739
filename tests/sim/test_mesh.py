"""Agents over a network that loses, delays, doubles and reorders, with restarts: they agree once it is quiet.

A failure prints `SIM_SEED=n`; `SIM_SEED=n pytest tests/sim` replays exactly that run.
"""

import heapq
import os
import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core import shares
from plugin.core.allocator import PoolExhaustedError, ShareAllocator
from plugin.core.membership import PeerState, StaticMembership
from plugin.core.node import Node, Send

NETWORK = IPv4Network("10.32.0.0/24")
STORM_S, QUIET_S = 20.0, 20.0
SEEDS = [int(os.environ["SIM_SEED"])] if "SIM_SEED" in os.environ else list(range(100))


class Cluster:
    """All nodes, the datagrams under way, and the truth they should come to agree on."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        count = self.rng.randint(2, 8)
        self.members = [IPv4Address(f"192.168.56.{10 + number}") for number in range(count)]
        self.split = shares.split(NETWORK, self.members)
        self.now_s = 0.0
        self.loss = self.rng.uniform(0, 0.4)
        self.under_way: list[tuple[float, int, IPv4Address, Send]] = []
        self.counter = 0
        self.incarnation = 0
        self.held: dict[IPv4Address, dict[tuple[str, str, str], IPv4Address]] = {own: {} for own in self.members}
        self.allocators: dict[IPv4Address, ShareAllocator] = {}
        self.nodes: dict[IPv4Address, Node] = {}
        for own in self.members:
            self.restart(own)

    def restart(self, own: IPv4Address) -> None:
        """A new life of the agent; what it had written down it claims again."""
        self.incarnation += 1
        self.nodes[own] = Node(
            name=f"node-{int(own) & 255}",
            incarnation=self.incarnation,
            seed=shares.seed(NETWORK, self.members, "sim"),
            membership=StaticMembership(f"node-{int(own) & 255}", self.members, own),
        )
        self.allocators[own] = ShareAllocator(NETWORK, self.split[own])
        for attachment, address in self.held[own].items():
            self.allocators[own].claim(attachment, address)
            self.nodes[own].attach(address, mac(address), attachment[1])

    def attach(self, own: IPv4Address) -> None:
        attachment = ("weave", f"pod{self.rng.randrange(40)}", "eth0")
        if attachment in self.held[own]:
            return
        try:
            address = self.allocators[own].allocate(attachment, now_s=self.now_s)
        except PoolExhaustedError:
            return
        everywhere = [held for table in self.held.values() for held in table.values()]
        assert address not in everywhere, f"{address} would be held twice"
        self.held[own][attachment] = address
        self.nodes[own].attach(address, mac(address), attachment[1])

    def detach(self, own: IPv4Address) -> None:
        if self.held[own]:
            attachment = self.rng.choice(sorted(self.held[own]))
            self.nodes[own].detach(self.held[own].pop(attachment))
            self.allocators[own].release(attachment, now_s=self.now_s)

    def carry(self) -> None:
        """Put on the way what the agents want sent."""
        for own, node in self.nodes.items():
            for effect in node.effects():
                if isinstance(effect, Send) and self.rng.random() >= self.loss:
                    for _ in range(2 if self.rng.random() < self.loss / 2 else 1):
                        self.counter += 1
                        arrival_s = self.now_s + self.rng.uniform(0.001, 0.01 + self.loss)
                        heapq.heappush(self.under_way, (arrival_s, self.counter, own, effect))

    def run_until(self, end_s: float) -> None:
        while self.now_s < end_s:
            self.carry()
            wake_s = min(node.next_timer_s() for node in self.nodes.values())
            arrival_s = self.under_way[0][0] if self.under_way else end_s
            self.now_s = max(self.now_s, min(wake_s, arrival_s, end_s))
            while self.under_way and self.under_way[0][0] <= self.now_s:
                _, _, source, effect = heapq.heappop(self.under_way)
                self.nodes[effect.to].on_datagram(effect.data, source, now_s=self.now_s)
            for node in self.nodes.values():
                node.on_timer(now_s=self.now_s)

    def storm(self) -> None:
        while self.now_s < STORM_S:
            self.run_until(self.now_s + self.rng.uniform(0.05, 1.0))
            own = self.rng.choice(self.members)
            self.rng.choices([self.attach, self.detach, self.restart], [6, 3, 1])[0](own)

    def disagreements(self) -> list[str]:
        truth = {address: own for own, table in self.held.items() for address in table.values()}
        wrong = []
        for own, node in self.nodes.items():
            view = {address: place.node or own for address, place in node.located().items()}
            if view != truth:
                wrong.append(f"{own} believes {view}, true is {truth}")
            wrong += [f"{own} sees {p}" for p in node.peers.values() if p.state is not PeerState.ESTABLISHED]
            wrong += [f"{own} rejected {node.counters.rejected}"] * any(node.counters.rejected.values())
        return wrong


def mac(address: IPv4Address) -> str:
    return f"0a:58:{address.packed.hex(':')}"


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_every_agent_knows_the_truth(seed: int) -> None:
    cluster = Cluster(seed)
    cluster.storm()
    cluster.loss = 0.0
    cluster.run_until(STORM_S + QUIET_S)
    assert cluster.disagreements() == [], f"replay with SIM_SEED={seed}"
