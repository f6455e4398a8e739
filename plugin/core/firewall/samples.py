"""The packets that every node has to let pass, as examples: whoever stops one of them stops all of its kind."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

OUTSIDE: Final = IPv4Address("198.51.100.1")
"""Stands for the world beyond the cluster (RFC 5737: an address that nobody has)."""

_EPHEMERAL_PORT: Final = 40000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One packet at one hook.

    Attributes:
        what: Whose packets it stands for, as the object of a sentence.
        hook: `forward`, `input` or `output`.
        iif: The interface it came in by; empty at output.
        oif: The interface it goes out by; empty at input.
        protocol: `tcp`, `udp` or `icmp` (an echo request).
        state: What connection tracking says: `new` or `established`.
    """

    what: str
    hook: str
    iif: str = ""
    oif: str = ""
    source: IPv4Address
    destination: IPv4Address
    protocol: str
    source_port: int = _EPHEMERAL_PORT
    port: int = 0
    state: str = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What makes a node's packets its own.

    Attributes:
        bridge: The switch.
        uplink: The link towards the other nodes.
        pods: The pod range.
        node: The node's address.
        control_port: TCP and UDP, between agents.
        vxlan_port: UDP, the overlay.
        tracked: Whether frames between two pods of the node pass the rules for IP packets (br_netfilter).
    """

    bridge: str
    uplink: str
    pods: IPv4Network
    node: IPv4Address
    control_port: int
    vxlan_port: int
    tracked: bool


def samples(site: Site) -> tuple[Sample, ...]:
    """One of each kind, those that matter most first."""
    pod, other = site.pods[2], site.pods[3]
    peer = site.node + 1 if int(site.node) % 2 else site.node - 1
    agents = [
        Sample(
            what=f"what other nodes send to {protocol.upper()} {port}", hook="input", iif=site.uplink,
            source=peer, destination=site.node, protocol=protocol, source_port=port, port=port,
        )
        for protocol, port in (("udp", site.control_port), ("tcp", site.control_port), ("udp", site.vxlan_port))
    ]  # fmt: skip
    out = [
        Sample(
            what=f"what this node sends to UDP {port} of others", hook="output", oif=site.uplink,
            source=site.node, destination=peer, protocol="udp", source_port=port, port=port,
        )
        for port in (site.control_port, site.vxlan_port)
    ]  # fmt: skip
    neighbours = Sample(
        what="what pods of this node send each other", hook="forward", iif=site.bridge, oif=site.bridge,
        source=pod, destination=other, protocol="tcp", port=80,
    )  # fmt: skip
    return (
        *((neighbours,) if site.tracked else ()),
        Sample(
            what="what pods send to the outside", hook="forward", iif=site.bridge, oif=site.uplink,
            source=pod, destination=OUTSIDE, protocol="tcp", port=443,
        ),
        Sample(
            what="what the outside answers pods", hook="forward", iif=site.uplink, oif=site.bridge,
            source=OUTSIDE, destination=pod, protocol="tcp", source_port=443, port=_EPHEMERAL_PORT,
            state="established",
        ),
        *agents,
        Sample(
            what="echo requests of pods and other switches to this switch", hook="input", iif=site.bridge,
            source=pod, destination=site.pods[1], protocol="icmp",
        ),
        *out,
    )  # fmt: skip
