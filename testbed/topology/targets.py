"""What the names in a step stand for: groups become members, a ping becomes its pairs. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from testbed.topology.model import Topology
from testbed.topology.names import ALL_NODES, ALL_PODS, OWN_NODE
from testbed.topology.steps import Ping


class Pair(NamedTuple):
    """One sender and one target of a ping."""

    source: str
    target: str
    own_node: bool
    """True: the target is the source pod's node, at the address of its switch; False: at its usual address."""


def expand(topology: Topology, names: str | Iterable[str]) -> tuple[str, ...]:
    """Members of the groups in ``names`` (``all-pods``, ``all-nodes``), other names as they are, each once, in order.

    ``own-node`` depends on the sender and stays as it is; ``pairs`` resolves it.
    """
    groups = {ALL_PODS: tuple(topology.pods), ALL_NODES: tuple(topology.nodes)}
    listed = (names,) if isinstance(names, str) else tuple(names)
    return tuple(dict.fromkeys(member for name in listed for member in groups.get(name, (name,))))


def pairs(topology: Topology, ping: Ping) -> tuple[Pair, ...]:
    """Every sender with every target of a ping, without those who would ping themselves."""
    found = []
    for source in expand(topology, ping.from_):
        for target in expand(topology, ping.to):
            if target == OWN_NODE and source in topology.pods:
                found.append(Pair(source, topology.pods[source].node, own_node=True))
            elif target not in {source, OWN_NODE}:
                found.append(Pair(source, target, own_node=False))
    return tuple(found)
