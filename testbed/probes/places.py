"""Where in a lab somebody listens, and who has which address there: `node1`, `red`, `router1:eth1` as taps.

Reads the kernel's interfaces and the lab's plan; listens to nothing (`testbed.probes.capture`).
"""

import os
from collections.abc import Iterable
from ipaddress import ip_address

from plugin.core.errors import InputError, said_by
from plugin.link.netlink import Netlink
from plugin.link.netns import open_netns
from testbed.lab.paths import UNDERLAY
from testbed.lab.running import SWITCH, Lab
from testbed.machine.space import Space
from testbed.probes.capture import Tap


def taps_of(lab: Lab, targets: Iterable[str]) -> tuple[Tap, ...]:
    """Where to listen for each `TARGET[:INTERFACE]`, once each; without an interface the one that a member is known by.

    Raises:
        InputError: The lab has no such member, or the member no such interface; the text lists what there is.
    """
    return tuple(dict.fromkeys(_tap(lab, target) for target in targets))


def _tap(lab: Lab, target: str) -> Tap:
    member, _, wanted = target.partition(":")
    space = lab.space(member)
    there = _interfaces(space)
    ifname = wanted or _usual(lab, member)
    if ifname in there:
        return Tap(space, ifname, member)
    found = ", ".join(there) or "none"
    if not ifname:
        raise InputError(
            f"{member} has no interface of its own to listen on by default", hint=f"{member}:INTERFACE; it has {found}"
        )
    raise InputError(f"{member} has no interface named {ifname}", hint=f"it has {found}")


def _usual(lab: Lab, member: str) -> str:
    if member in lab.pods:
        return lab.pods[member].ifname
    return "" if member == UNDERLAY else lab.underlay.host(member).uplink.ifname


def _interfaces(space: Space) -> list[str]:
    try:
        fd = open_netns(space.net)
    except OSError as error:
        raise InputError(
            f"{space.name} cannot be entered: {said_by(error, path=False)}",
            hint="is the lab still whole? `weavelab status` shows it",
        ) from error
    try:
        kernel = Netlink(fd)
    finally:
        os.close(fd)
    with kernel:
        return [link.name for link in kernel.links()]


def names_of(lab: Lab) -> dict[str, str]:
    """Who has an address or a MAC: pods, nodes with their switches, routers, the outside host."""
    names = {str(plug.address.ip): plug.owner for plug in lab.underlay.attachments}
    names |= {plug.mac: plug.owner for plug in lab.underlay.attachments}
    names |= {str(address.ip): host.name for host in lab.underlay.hosts for address in host.loopback}
    for name, node in lab.nodes.items():
        if (address := node.bridge_address) is not None:
            names[str(address)] = f"{name}/{SWITCH}"
    for name, pod in lab.pods.items():
        names |= {str(pod.address): name, pod.mac: name}
    return names


def addresses_of(lab: Lab, name: str, names: dict[str, str]) -> frozenset[str]:
    """All addresses of a member; an address stands for itself.

    Raises:
        InputError: It is neither.
    """
    found = frozenset(address for address, owner in names.items() if owner in {name, f"{name}/{SWITCH}"})
    if found or name in names:
        return found or frozenset((name,))
    try:
        return frozenset((str(ip_address(name)),))
    except ValueError:
        lab.space(name)  # says who there is
        raise InputError(f"{name} has no address that frames could be from or to") from None
