"""The lab's engine: bare hosts and the network between them, made in one pass and gone with one unmount.

Read `build`: tmpfs, switches, then the nodes in batches: namespaces, cables, addresses, pins. Until the pins are set,
everything hangs on this process: if it dies, the kernel takes it all back. Nothing here knows of agents, pods or
scenarios; `testbed.up` puts those on top.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from plugin.core.errors import InputError
from plugin.link import netns
from plugin.link.netlink import Netlink
from testbed import mounts
from testbed.nodespace import Namespaces, NodeBuilder, NodeSetup, concealed, hosts_file, needed_paths
from testbed.paths import UNDERLAY, LabPaths
from testbed.underlay import UnderlayPlan
from testbed.underlay_build import CABLES_PER_SEND, Wiring, neighbour_messages


def members(plan: UnderlayPlan, pods: Sequence[str] = ()) -> tuple[str, ...]:
    """Everyone in a lab who gets a network namespace, the underlay first."""
    return (UNDERLAY, *(host.name for host in plan.hosts), *pods)


def check_names_free(paths: LabPaths, names: Sequence[str]) -> None:
    """See that no name below /run/netns that the lab would take belongs to somebody else.

    Raises:
        InputError: One is taken.
    """
    taken = [path.name for path in map(paths.netns_name, names) if os.path.lexists(path)]
    if taken:
        raise InputError(
            f"wanted the namespace name{'s' if len(taken) > 1 else ''} {', '.join(taken[:5])} for lab {paths.lab}, "
            "found in use by somebody else",
            hint="give the lab another name (--name), or remove them if they are left over: ip netns delete NAME",
        )


def mount_lab(paths: LabPaths) -> None:
    """Mount the lab's tmpfs and make its folders.

    Raises:
        OSError: The kernel refused, or the disk is full.
    """
    paths.fs.mkdir(exist_ok=True)
    netns.mount(mounts.SOURCE, paths.fs, "tmpfs", options="mode=0755")
    # Shared: whoever copies the mount table meanwhile (a container, a service with a private /tmp) loses its copy of a
    # pin together with us. Mount namespaces cannot be pinned on a shared mount, so those get a private one.
    netns.mount("none", paths.fs, flags=mounts.MS_SHARED)
    for directory in (paths.pins, paths.mount_pins, paths.fs / "nodes"):
        directory.mkdir()
    netns.mount(os.fspath(paths.mount_pins), paths.mount_pins, flags=netns.MS_BIND)
    netns.mount("none", paths.mount_pins, flags=netns.MS_PRIVATE)


def build(paths: LabPaths, plan: UnderlayPlan, *, done: Callable[[int], None] = lambda _count: None) -> None:
    """Make the hosts of the plan, wire them, and pin everything under its name.

    Two threads share the work: one makes the nodes' namespaces, this one wires and pins those that are made.

    Args:
        paths: The lab; its directory exists and is locked by the caller.
        plan: The underlay.
        done: Told how many nodes are finished.

    Raises:
        MissingError: The kernel lacks something.
        OSError: It refused something else; the caller tears the lab down.
    """
    nodes = {host.name: str(host.uplink.address.ip) for host in plan.hosts if host.kind == "node"}
    mount_lab(paths)
    with ExitStack() as stack:
        setup = NodeSetup(paths, hosts_file(nodes), concealed(needed_paths(), mounts.mount_points()))
        builder = NodeBuilder(setup, tuple(nodes))
        stack.callback(builder.cancel)
        builder.start()
        underlay = stack.enter_context(netns.new_netns())
        wiring = Wiring(plan, underlay)
        stack.callback(wiring.close)
        plain = {host.name: stack.enter_context(netns.new_netns()) for host in plan.hosts if host.kind != "node"}
        wiring.plug_in(plain)
        pin_networks(paths, {UNDERLAY: underlay, **plain})
        finished = 0
        for batch in builder.batches(CABLES_PER_SEND):
            _finish(paths, wiring, batch)
            finished += len(batch)
            done(finished)


def _finish(paths: LabPaths, wiring: Wiring, batch: Mapping[str, Namespaces]) -> None:
    """Wire and pin a batch of nodes; afterwards the pins alone hold them."""
    with ExitStack() as stack:
        for namespaces in batch.values():
            stack.callback(namespaces.close)
        wiring.plug_in({name: namespaces.net for name, namespaces in batch.items()})
        for name, namespaces in batch.items():
            mounts.pin(namespaces.mnt, paths.mount_pins / name)
            mounts.pin(namespaces.uts, paths.pins / f"{name}.uts")
        pin_networks(paths, {name: namespaces.net for name, namespaces in batch.items()})


def write_neighbours(paths: LabPaths, plan: UnderlayPlan) -> None:
    """Write the ARP entries of hosts that are too many to learn them; to be called before they all talk to each other.

    Raises:
        OSError: The kernel refused.
    """
    for member, messages in neighbour_messages(plan).items():
        fd = netns.open_netns(paths.pins / f"{member}.net")
        try:
            kernel = Netlink(fd)
        finally:
            os.close(fd)
        with kernel:
            kernel.request(*messages, what=f"writing the neighbours of {member}")


def pin_networks(paths: LabPaths, networks: Mapping[str, int]) -> None:
    """Pin network namespaces under the lab's own path and under their public name.

    Raises:
        OSError: A name is taken, or the kernel refused.
    """
    for member, fd in networks.items():
        mounts.pin(fd, paths.pins / f"{member}.net")
        mounts.pin(fd, paths.netns_name(member))


def unpin_network(paths: LabPaths, member: str) -> None:
    """Let go of one member's namespaces (a pod that was deleted)."""
    mounts.release(paths.netns_name(member))
    for kind in ("net", "uts"):
        mounts.release(paths.pins / f"{member}.{kind}")
