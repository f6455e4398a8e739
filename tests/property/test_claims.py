"""Whatever is claimed, in whatever order it is heard: all nodes name the same winners, and no two of them collide."""

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.core.forwarding.claims import Located
from plugin.core.forwarding.endpoints import Directory, Table

NODES = [IPv4Address(0xC0A83800 + number) for number in (11, 12, 13)]
SWITCHES = {node: f"02:00:00:00:00:{number:02x}" for number, node in enumerate(NODES)}
GATEWAYS = [IPv4Address(0x0A200001), *(IPv4Address(0x0A200000 + number) for number in (101, 102))]
"""The first is among those that pods want, and the others are not."""

MACS = [*SWITCHES.values(), "02:aa:00:00:00:01", "02:aa:00:00:00:02"]
ADDRESS = st.integers(1, 5).map(lambda number: IPv4Address(0x0A200000 + number))
NODE = st.sampled_from(range(len(NODES)))
CHANGE = st.tuples(st.just("change"), NODE, ADDRESS, st.none() | st.sampled_from(MACS), st.integers(0, 4))
TELL = st.tuples(st.just("tell"), NODE, NODE)
FORGET = st.tuples(st.just("forget"), NODE, NODE)


class Cluster:
    """A directory a node; each hears of the others when it is told."""

    def __init__(self) -> None:
        self.directories = [Directory(1, lambda node=node: node, lambda node: SWITCHES.get(node, "")) for node in NODES]
        for number, node in enumerate(NODES):
            self.directories[number].put(GATEWAYS[number], SWITCHES[node], "switch")

    def change(self, number: int, address: IPv4Address, mac: str | None, stamp: int) -> None:
        if address == GATEWAYS[number]:
            return  # its switch has that one
        if mac is None:
            self.directories[number].drop(address)
        else:
            self.directories[number].put(address, mac, "", stamp=stamp)

    def tell(self, number: int, to: int) -> None:
        own = self.directories[number].own
        if number != to:
            self.directories[to].replace(NODES[number], Table(1, own.version, own.endpoints))

    def forget(self, number: int, to: int) -> None:
        if number != to:
            self.directories[to].forget(NODES[number])

    def view(self, number: int) -> dict[IPv4Address, Located]:
        located = self.directories[number].located()
        return {address: Located(one.endpoint, one.node or NODES[number]) for address, one in located.items()}


@settings(max_examples=300, deadline=None)
@given(st.lists(CHANGE | TELL | FORGET, max_size=30), st.permutations([(a, b) for a in range(3) for b in range(3)]))
def test_all_nodes_that_know_everything_name_the_same_winners(doings, order) -> None:
    cluster = Cluster()
    followed = [cluster.view(number) for number in range(3)]
    for doing, *arguments in doings:
        getattr(cluster, doing)(*arguments)
        for number, directory in enumerate(cluster.directories):
            changed, now = directory.take_changed(), cluster.view(number)
            differing = {
                one for one in now.keys() | followed[number].keys() if now.get(one) != followed[number].get(one)
            }
            assert differing <= changed, "who follows the changes has the whole view"
            followed[number] = now
    for number, to in order:
        cluster.tell(number, to)

    view = cluster.view(0)
    assert cluster.view(1) == cluster.view(2) == view
    owners: dict[str, set[IPv4Address]] = {}
    for place in view.values():
        owners.setdefault(place.endpoint.mac, set()).add(place.node)
    assert all(len(nodes) == 1 for nodes in owners.values()), "a MAC is on one node"
    for node, mac in SWITCHES.items():
        claims_it = any(endpoint.mac == mac for endpoint in cluster.directories[NODES.index(node)].own.endpoints)
        assert not claims_it or owners.get(mac, {node}) == {node}, "a switch never loses its MAC to a pod"
    for number, directory in enumerate(cluster.directories):
        own = {endpoint.address: endpoint for endpoint in directory.own.endpoints}
        stands = {address for address in own if view.get(address) == Located(own[address], NODES[number])}
        assert directory.displaced().keys() == own.keys() - stands, "each loser is told of it, and nobody else"
        for lost in directory.displaced().values():
            assert lost.by.node is not None
            assert lost.endpoint.address == lost.by.endpoint.address or lost.endpoint.mac == lost.by.endpoint.mac
