"""Who a step speaks of: pods, nodes, routers and `outside` of a running lab, with the address each is reached at."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from plugin.core.errors import InputError
from testbed.lab.running import Lab
from testbed.machine.called import our_command
from testbed.machine.space import Space
from testbed.topology.names import OUTSIDE
from testbed.topology.placeholders import MemberKind, Placeholder
from testbed.topology.steps import Ping
from testbed.topology.targets import expand, pairs

WEAVELAB: Final = our_command()
"""How the commands that we suggest begin."""


@dataclass(frozen=True, slots=True)
class Member:
    """One end of a probe.

    Attributes:
        name: As in the topology.
        kind: What it is.
        node: The node it is or runs on; None for `outside` and routers.
        address: Where it is reached, as text; empty for routers, which are never pinged.
        ifname: The interface that the address is reached on.
    """

    name: str
    kind: MemberKind
    node: str | None
    address: str
    ifname: str = "eth0"


def member(lab: Lab, name: str, *, own_node: bool = False) -> Member:
    """The member of that name; a node at its uplink's address, or at its switch's with `own_node`.

    Raises:
        InputError: The lab has no such member, or no address for it.
    """
    if name in lab.pods:
        pod = lab.pods[name]
        return Member(name, "pod", pod.node, str(pod.address), pod.ifname)
    if name in lab.nodes:
        node = lab.nodes[name]
        if not own_node:
            return Member(name, "node", name, str(node.uplink_address), node.uplink_ifname)
        if node.bridge_address is None:
            raise InputError(f"{name} has no switch address to ping", hint="its agent has not got an address yet")
        return Member(name, "node", name, str(node.bridge_address), "weave")
    if name == OUTSIDE:
        return Member(OUTSIDE, "outside", None, lab.topology.underlay.outside.address)
    if name in lab.topology.underlay.routers:
        return Member(name, "router", None, "")
    known = ", ".join([*lab.pods, *lab.nodes, OUTSIDE])
    raise InputError(f"the lab {lab.name} has no {name!r}", hint=f"it has {known}")


def value_of(lab: Lab, wanted: Placeholder) -> str:
    """The value of a placeholder, as it is now; the loader has seen that there is such a one in the file.

    Raises:
        InputError: The lab does not have it at the moment: the pod is gone, or the switch has no address yet.
    """
    who, what = wanted
    try:
        end = member(lab, who)
    except InputError as error:
        raise InputError(f"no value for {wanted}: {error.message} now", hint=error.hint) from error
    if what in {"switch", "gateway"}:  # the gateway of a pod is the switch of its node
        assert end.node is not None, "asked of nodes and pods only"
        address = lab.nodes[end.node].bridge_address
        if address is None:
            raise InputError(
                f"no value for {wanted}: the switch of {end.node} has no address now",
                hint="its agent has not given it one yet, or somebody took it away",
            )
        return str(address)
    values = {"name": who, "address": end.address, "interface": end.ifname, "node": end.node or ""}
    if end.kind == "pod":
        return (values | {"mac": lab.pods[who].mac})[what]
    uplink = lab.underlay.host(who).uplink
    # A router has several of everything: what it has in its first segment.
    values |= {"address": end.address or str(uplink.address.ip), "interface": uplink.ifname, "mac": uplink.mac}
    return values[what]


def ping_pairs(lab: Lab, ping: Ping) -> tuple[tuple[Member, Member], ...]:
    """Every (sender, target) of a ping step.

    Raises:
        InputError: The step stands for no pair at all, or names what the lab does not have.
    """
    found = tuple(
        (member(lab, pair.source), member(lab, pair.target, own_node=pair.own_node))
        for pair in pairs(lab.topology, ping)
    )
    if not found:
        raise InputError(
            "the step stands for no pair of members", hint="from and to are one and the same, or a group is empty"
        )
    return found


def exec_members(lab: Lab, names: str | Iterable[str]) -> tuple[Member, ...]:
    """Every member an exec step runs on.

    Raises:
        InputError: There is none, or a name that the lab does not have.
    """
    found = tuple(member(lab, name) for name in expand(lab.topology, names))
    if not found:
        raise InputError("the step stands for no member of the lab", hint="a group is empty in this topology")
    return found


def space_of(lab: Lab, end: Member) -> Space:
    """How to enter it."""
    return lab.space(end.name)


def concerned(*ends: Member) -> tuple[str, ...]:
    """The members whose state explains a failure between these ends: the ends and the nodes they run on, once each."""
    return tuple(dict.fromkeys(name for end in ends for name in (end.name, end.node) if name))


def exec_hint(lab: Lab, on: str, *argv: str) -> str:
    """The command line that lets a person look further inside a member."""
    import shlex  # noqa: PLC0415 - only failures need it

    return f"{WEAVELAB} exec --lab {lab.name} {on} -- {shlex.join(argv)}"
