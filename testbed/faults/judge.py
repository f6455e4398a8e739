"""What has to hold in a lab when all faults are repaired: pure, from what was observed to what does not hold.

`lab` is what `testbed.lab.status.observe` found; addresses were read from the kernel.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Final

from testbed.lab.status import views

SHOWN_MAX: Final = 3
"""So many of one sort are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was observed at one moment.

    Attributes:
        lab: The lab, its agents and their peers.
        addresses: Who lives, pods and nodes' switches, with the address that the kernel has there; "" for none.
        given: The address that each living pod was given.
        held: How many addresses each node's agent has to hold: one for each living pod, and what it held beside.
    """

    lab: Mapping[str, Any]
    addresses: Mapping[str, str]
    given: Mapping[str, str]
    held: Mapping[str, int]


def judge(facts: Facts) -> tuple[str, ...]:
    """What does not hold, as clauses; nothing when the lab is whole."""
    return tuple(problem for rule in RULES for problem in rule(facts))


def _ready(facts: Facts) -> Iterator[str]:
    for node in facts.lab["nodes"]:
        if not node["ready"]:
            alive, answers = node["agent"]["alive"], node["agent"]["answers"]
            word = "is not ready" if answers else "does not answer" if alive else "does not run"
            yield f"the agent of {node['name']} {word}"


def _sight(facts: Facts) -> Iterator[str]:
    """Every agent sees every other."""
    names = {node["name"] for node in facts.lab["nodes"]}
    found = []
    for node in facts.lab["nodes"]:
        if not node["ready"]:
            continue
        seen = {peer["name"] for peer in node["peers"]}
        for peer in node["peers"]:
            if peer["state"] != "established":
                reason = f" ({peer['reason']})" if peer["reason"] else ""
                found.append(f"{node['name']} sees {peer['name'] or peer['address']} as {peer['state']}{reason}")
        found += [f"{node['name']} does not know {name}" for name in sorted(names - seen - {node["name"]})]
    yield from _some(found, "more pairs are in trouble")


def _agreement(facts: Facts) -> Iterator[str]:
    """All have one view."""
    groups = views(facts.lab)
    if len(groups) > 1:
        yield f"{len(groups)} views of the cluster: {' | '.join(', '.join(group) for group in groups)}"


def _unique(facts: Facts) -> Iterator[str]:
    """No address is held twice."""
    holders: dict[str, list[str]] = {}
    for name, address in facts.addresses.items():
        if address:
            holders.setdefault(address, []).append(name)
    yield from (f"{address} is held by {' and '.join(who)}" for address, who in holders.items() if len(who) > 1)


def _as_given(facts: Facts) -> Iterator[str]:
    """Every pod has the address that it was given."""
    yield from _some(
        [
            f"{pod} was given {address} and has {facts.addresses.get(pod) or 'none'}"
            for pod, address in facts.given.items()
            if facts.addresses.get(pod) != address
        ],
        "more pods have another address than they were given",
    )


def _owners(facts: Facts) -> Iterator[str]:
    """The owners' addresses sum up to the range."""
    total = IPv4Network(facts.lab["range"]).num_addresses
    for node in facts.lab["nodes"]:
        if not node["ready"]:
            continue
        owned = sum(owner["addresses"] for owner in node["ipam"]["owners"] or ())
        if owned != total:
            yield f"{node['name']} knows owners of {owned} of {total} addresses"


def _held(facts: Facts) -> Iterator[str]:
    """No address is held for a pod that is gone, and none is missing."""
    for node in facts.lab["nodes"]:
        wanted = facts.held.get(node["name"])
        if node["ready"] and wanted is not None and node["ipam"]["held"] != wanted:
            yield f"the agent of {node['name']} holds {node['ipam']['held']} addresses, wanted {wanted}"


RULES: Final = (_ready, _sight, _agreement, _unique, _as_given, _owners, _held)


def twice(addresses: Mapping[str, str], pod: str, address: str) -> str:
    """At an ADD: whether the address that `pod` was given is that of another who lives, as a sentence; "" if not."""
    others = [name for name, held in addresses.items() if held == address and name != pod]
    return f"{pod} was given {address}, which {' and '.join(others)} has" if others else ""


def _some(found: Sequence[str], more: str) -> Iterator[str]:
    yield from found[:SHOWN_MAX]
    if len(found) > SHOWN_MAX:
        yield f"{len(found) - SHOWN_MAX} {more}"
