"""The lab's engine: bare hosts and the network between them, made in one pass and gone with one unmount.

Read `build`: tmpfs, switches, then the hosts in batches: namespaces, cables, addresses, pins. Until the pins are set,
everything hangs on the processes at work: if they die, the kernel takes it all back. Nothing here knows of agents, pods
or scenarios; `testbed.life.up` puts those on top.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Final

from plugin.link import netns
from plugin.link.netlink import Netlink
from testbed.lab.paths import UNDERLAY, LabPaths
from testbed.lab.state import NameTakenError
from testbed.machine.space import host_name
from testbed.nodes import mounts, names
from testbed.nodes.nodespace import NodeBuilder, NodeSetup, Template, concealed, needed_paths, prepare
from testbed.nodes.underlay_build import HOSTS_AT_ONCE, Wiring, make_switches, neighbour_messages
from testbed.nodes.workers import run_forked
from testbed.topology.underlay import UnderlayPlan

_HOSTS_PER_WORKER_MIN: Final = 4
"""Fewer are not worth a process."""


def members(plan: UnderlayPlan, pods: Sequence[str] = ()) -> tuple[str, ...]:
    """Everyone in a lab who gets a network namespace, the underlay first."""
    return (UNDERLAY, *(host.name for host in plan.hosts), *pods)


def check_names_free(paths: LabPaths, names: Sequence[str]) -> None:
    """See that no name below /run/netns that the lab would take belongs to somebody else.

    Raises:
        NameTakenError: One is taken.
    """
    taken = [path.name for path in map(paths.netns_name, names) if os.path.lexists(path)]
    if taken:
        raise NameTakenError(
            f"wanted the namespace name{'s' if len(taken) > 1 else ''} {', '.join(taken[:5])} for lab {paths.lab}, "
            "found in use by somebody else",
            hint="give the lab another name (--name), or remove them if they are left over: ip netns delete NAME",
        )


def _mount_lab(paths: LabPaths) -> None:
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

    The hosts are shared out among as many processes as there are processors.

    Args:
        paths: The lab; its directory exists and is locked by the caller.
        plan: The underlay.
        done: Told how many nodes are finished.

    Raises:
        NameTakenError: A namespace of that name belongs to somebody else.
        MissingError: The kernel lacks something.
        OSError: It refused something else; the caller tears the lab down.
    """
    hosts = [host.name for host in plan.hosts]
    _mount_lab(paths)
    names.begin(paths, plan)
    with ExitStack() as stack:
        underlay = stack.enter_context(netns.new_netns())
        _claim_names(paths, plan, underlay)
        setup = NodeSetup(paths, concealed(needed_paths(), mounts.mount_points()))
        template = prepare(setup)
        stack.callback(os.close, template.mnt)
        make_switches(plan, underlay)
        name = host_name(UNDERLAY)
        stack.callback(os.close, name)
        mounts.pin(name, paths.pins / f"{UNDERLAY}.uts")
        # One lock of the kernel covers all network configuration: whoever sleeps until it is free leaves the processor
        # to others, whoever spins for it does not. A record lock belongs to a process, so it tells the workers apart.
        turn = os.memfd_create("weavelab-turn")
        stack.callback(os.close, turn)
        workers = min(len(os.sched_getaffinity(0)), -(-len(hosts) // _HOSTS_PER_WORKER_MIN))
        shares = [hosts[worker::workers] for worker in range(workers)]
        run_forked([partial(_build_hosts, setup, template, plan, underlay, turn, share) for share in shares], done=done)


def _claim_names(paths: LabPaths, plan: UnderlayPlan, underlay: int) -> None:
    """Pin the first namespace, by which every other lab of this name sees that it is there, wherever its folder is.

    Raises:
        NameTakenError: Somebody was faster.
        OSError: The kernel refused.
    """
    with mounts.netns_directory():
        check_names_free(paths, members(plan))
        pin_networks(paths, {UNDERLAY: underlay})


def _build_hosts(
    setup: NodeSetup,
    template: Template,
    plan: UnderlayPlan,
    underlay: int,
    turn: int,
    hosts: Sequence[str],
    done: Callable[[int], None],
) -> None:
    """Make, wire and pin these hosts: the whole work of one process; `turn` is the lock to wire under."""
    builder = NodeBuilder(setup, template)
    with closing(Wiring(plan, underlay)) as wiring:
        for start in range(0, len(hosts), HOSTS_AT_ONCE):
            batch = {host: builder.build(host) for host in hosts[start : start + HOSTS_AT_ONCE]}
            builder.go_home()
            with _locked(turn):
                wiring.plug_in({host: made.net for host, made in batch.items()})
            for host, made in batch.items():
                mounts.pin(made.mnt, setup.paths.mount_pins / host)
                mounts.pin(made.uts, setup.paths.pins / f"{host}.uts")
            pin_networks(setup.paths, {host: made.net for host, made in batch.items()})
            for made in batch.values():
                made.close()  # from here on the pins alone hold it
            done(sum(plan.host(host).kind == "node" for host in batch))


@contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


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
