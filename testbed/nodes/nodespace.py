"""Builds the inside of emulated hosts: for each a network, mount and UTS namespace with its own /etc, /opt, /var, /run.

Nodes, routers and the outside host are made alike; "node" below is any of them. A node is namespaces and nothing else:
no shell and no init process. Each starts from a *template*, a mount namespace that is the machine's minus everything of
labs (copied mounts would keep their namespaces alive). What comes out are descriptors; `engine` pins them.

Inside a node:
    /etc /opt /var/lib /var/log   overlays of three layers: the machine's files; what all nodes have in common
                                  (/etc/hosts, and empty /etc/cni, /opt/cni, /var/lib/cni, ...); the node's changes
    /run                          the node's own: /run/netns, /run/weave, lock files
    /run/names                    the names of all members, read-only; /etc/hosts leads there
    /sys                          of the node's network namespace, with the machine's cgroups
    /etc/hostname                 the node's own
"""

import contextlib
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from plugin.core.errors import MissingError, said_by
from plugin.link import netns
from testbed.lab.paths import NETNS, LabPaths
from testbed.machine.checkout import CODE
from testbed.machine.space import in_thread, mount_sysfs
from testbed.nodes import names
from testbed.nodes.mounts import SOURCE, detach, mount_id, mount_table, pin, release

_OVERLAYS: Final[Mapping[str, str]] = {"etc": "/etc", "opt": "/opt", "lib": "/var/lib", "log": "/var/log"}
_DIRECTORIES: Final = (
    *("", "/run", "/run/netns", "/run/weave", "/run/lock"),
    *(f"/{overlay}{layer}" for overlay in _OVERLAYS for layer in ("", "/upper", "/work")),
)
_EMPTY: Final = (
    *("etc/cni", "etc/containerd", "etc/weave"),
    "opt/cni",
    *("lib/cni", "lib/containerd", "lib/weave"),
    "log/weave",
)
"""What a node has of its own from the start, by overlay: a real Kubernetes host's plugins must not show through."""

_REPLACED: Final = (Path("/run"), Path("/sys"))
"""Directories of which a node sees nothing of the machine's."""

_FIRST_MOUNT_NAMESPACE_MAX: Final = 0xF000_0001
"""Inode of the first mount namespace: reserved (below 0xF0000000) since Linux 6.18, one of the first two before."""


class Namespaces(NamedTuple):
    """Descriptors of a node's namespaces; whoever holds them keeps the node alive."""

    net: int
    mnt: int
    uts: int

    def close(self) -> None:
        """Let go of all three."""
        for fd in self:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """What all nodes of a lab have in common.

    Attributes:
        paths: The lab.
        kept: Files and folders of the machine that a node must see although the mounts above would conceal them.
    """

    paths: LabPaths
    kept: tuple[Path, ...]


def check_no_chroot() -> None:
    """See that "/" is the root of this mount namespace: whoever enters a namespace leaves a chroot.

    Raises:
        MissingError: It is another directory.
    """

    def root() -> tuple[int, int, int]:
        return mount_id(Path("/")), Path("/").stat().st_dev, Path("/").stat().st_ino

    def root_from_inside() -> tuple[int, int, int]:
        own = netns.current("mnt")
        try:
            netns.unshare(netns.CLONE_FS)
            netns.setns(own, netns.CLONE_NEWNS)
        finally:
            os.close(own)
        return root()

    if root() != in_thread("root", root_from_inside):
        raise MissingError(
            "wanted a root directory that is the root of its mount namespace, found a chroot",
            hint="use a container or a VM, or pivot_root instead of chroot: unshare --mount, then pivot_root",
        )


def needed_paths() -> tuple[Path, ...]:
    """What the agent needs of the machine: our code and the interpreter, by the paths Python itself goes by."""
    found = [CODE, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent]
    found += [Path(entry) for entry in sys.path if entry]
    existing = dict.fromkeys(path.resolve() for path in found if path.exists())
    return tuple(path for path in existing if path != Path("/"))


def concealed(paths: Sequence[Path], points: Sequence[Path]) -> tuple[Path, ...]:
    """Which of `paths` a node would not see, the outermost of each (pure; `points` is the mount table).

    An overlay shows the file system at its root, not what is mounted further down in it.
    """
    hidden = []
    for path in paths:
        if any(path.is_relative_to(directory) for directory in _REPLACED):
            hidden.append(path)
            continue
        for directory in map(Path, _OVERLAYS.values()):
            below = [point for point in points if point != directory and point.is_relative_to(directory)]
            if any(path.is_relative_to(point) for point in below):
                hidden.append(path)
    return tuple(path for path in hidden if not any(path != other and path.is_relative_to(other) for other in hidden))


class NodeBuilder:
    """Builds nodes one after the other; for a process of its own, since `build` moves the caller (`workers`).

    Args:
        setup: What the nodes have in common.
        template: From `prepare`.
    """

    def __init__(self, setup: NodeSetup, template: "Template") -> None:
        self._setup = setup
        self._template = template
        self._home = Namespaces(netns.current("net"), netns.current("mnt"), netns.current("uts"))
        if template.cpu is not None:
            os.sched_setaffinity(0, {template.cpu})

    def build(self, node: str) -> Namespaces:
        """The namespaces of one node; the calling process is inside until `go_home`.

        Raises:
            MissingError: The kernel lacks something a node is made of.
            OSError: Anything else that it refused.
        """
        netns.setns(self._template.mnt, netns.CLONE_NEWNS)
        _prepare_directories(self._setup, node)
        return _build_node(self._setup, node)

    def go_home(self) -> None:
        """Back to the machine's namespaces, where pins are set."""
        for fd, kind in zip(self._home, (netns.CLONE_NEWNET, netns.CLONE_NEWNS, netns.CLONE_NEWUTS), strict=True):
            netns.setns(fd, kind)


class Template(NamedTuple):
    """What the mount namespaces of nodes are copied from.

    Attributes:
        mnt: A descriptor of it: the machine's, minus everything of labs.
        cpu: The processor to make them on, or None for any.
    """

    mnt: int
    cpu: int | None


def prepare(setup: NodeSetup) -> Template:
    """Make what all nodes have in common, in the lab's tmpfs and as a template; the caller closes its descriptor.

    Raises:
        OSError: The kernel refused.
    """

    def apart() -> Template:
        cpu = _pinnable_cpu(setup.paths)
        return Template(_template(setup.paths), cpu)

    _prepare_common(setup)
    return in_thread("node-template", apart)


def _pinnable_cpu(paths: LabPaths) -> int | None:
    """A processor whose new mount namespaces can be pinned, where that is a question; None: all are as good.

    The kernel pins a mount namespace only in one with a lower number, lest they hold each other for ever
    (fs/namespace.c, mnt_ns_loop). Linux 6.18 hands out numbers to each processor in blocks, so in a container or under
    `unshare` a newer namespace may have the lower number. The machine's first mount namespace has the lowest of all.
    """
    if Path("/proc/thread-self/ns/mnt").stat().st_ino <= _FIRST_MOUNT_NAMESPACE_MAX:
        return None
    home = netns.current("mnt")
    try:
        for cpu in sorted(os.sched_getaffinity(0)):
            os.sched_setaffinity(0, {cpu})  # of this thread
            netns.unshare(netns.CLONE_NEWNS)
            fresh = netns.current("mnt")
            netns.setns(home, netns.CLONE_NEWNS)
            try:
                pin(fresh, paths.mount_pins / "probe")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                return cpu
            finally:
                os.close(fresh)
                release(paths.mount_pins / "probe")
    finally:
        os.close(home)
    return None


def _template(paths: LabPaths) -> int:
    """Move this thread into a mount namespace like the machine's, without anything of labs; a descriptor of it.

    A copied mount keeps alive what it leads to: a pinned namespace would outlive its lab (or container) in our nodes.
    """
    netns.unshare(netns.CLONE_NEWNS)
    netns.mount("none", Path("/"), flags=netns.MS_REC | netns.MS_PRIVATE)
    for mount in mount_table():
        of_a_lab = mount.kind == "tmpfs" and mount.source == SOURCE and mount.point != paths.fs
        if mount.kind == "nsfs" or mount.point == NETNS or of_a_lab:
            detach(mount.point)
    detach(paths.mount_pins)
    return netns.current("mnt")


def _prepare_common(setup: NodeSetup) -> None:
    """Make the layer between the machine's files and each node's own, once for all nodes."""
    for overlay in _OVERLAYS:
        (setup.paths.common / overlay).mkdir(parents=True)
    for name in _EMPTY:
        (setup.paths.common / name).mkdir()
        # An opaque directory hides what the machine has there.
        os.setxattr(setup.paths.common / name, "trusted.overlay.opaque", b"y")
    etc = setup.paths.common / "etc"
    (etc / "hosts").symlink_to(names.SEEN_AT / names.FILE)
    # The machine's name servers cannot be reached from inside: whoever asked them would wait for nothing.
    (etc / "resolv.conf").write_text(names.RESOLV_CONF, encoding="ascii")
    with contextlib.suppress(OSError, UnicodeDecodeError):  # a machine without: its C library has an order of its own
        machine = Path("/etc/nsswitch.conf").read_text(encoding="utf-8")
        (etc / "nsswitch.conf").write_text(names.nsswitch(machine), encoding="utf-8")


def _prepare_directories(setup: NodeSetup, node: str) -> None:
    """Make what the node's mounts need, in the lab's tmpfs."""
    root = os.fspath(setup.paths.node(node))
    for name in _DIRECTORIES:
        os.mkdir(root + name)  # noqa: PTH102 - 17 a node: Path costs as much as the call
    Path(root, "etc/upper/hostname").write_text(f"{node}\n", encoding="utf-8")


def _build_node(setup: NodeSetup, node: str) -> Namespaces:
    netns.unshare(netns.CLONE_NEWNET | netns.CLONE_NEWNS | netns.CLONE_NEWUTS)
    netns.sethostname(node)
    root = setup.paths.node(node)
    # What is bound back later is opened now, while its path still leads to it.
    bound = {path: path for path in setup.kept} | {names.SEEN_AT: setup.paths.names}
    kept = [(path, os.open(source, os.O_PATH | os.O_CLOEXEC)) for path, source in bound.items()]
    try:
        for name, target in _OVERLAYS.items():
            _mount_overlay(setup.paths.common / name, root / name, Path(target))
        mount_sysfs()
        netns.mount(os.fspath(root / "run"), Path("/run"), flags=netns.MS_BIND)
        for path, fd in kept:
            _bind_back(fd, path)
        netns.mount("none", names.SEEN_AT, flags=netns.MS_REMOUNT | netns.MS_BIND | netns.MS_RDONLY)
    finally:
        for _, fd in kept:
            os.close(fd)
    return Namespaces(netns.current("net"), netns.current("mnt"), netns.current("uts"))


def _mount_overlay(common: Path, layers: Path, target: Path) -> None:
    options = f"lowerdir={common}:{target},upperdir={layers}/upper,workdir={layers}/work"
    try:
        netns.mount("weavelab", target, "overlay", options=options)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise MissingError(
                "wanted the overlay file system for the nodes' own files, found a kernel without it",
                hint="load it (modprobe overlay), or use a kernel built with CONFIG_OVERLAY_FS",
            ) from error
        raise MissingError(
            f"wanted an overlay on {target} of each node, found: {said_by(error, path=False)}",
            hint="weavelab needs a real root (no unprivileged container); the kernel's log (dmesg) has the reason",
        ) from error


def _bind_back(fd: int, path: Path) -> None:
    if Path(f"/proc/thread-self/fd/{fd}").is_dir():
        path.mkdir(parents=True, exist_ok=True)
    else:  # a zip file on Python's path, for example
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    netns.mount(f"/proc/thread-self/fd/{fd}", path, flags=netns.MS_BIND | netns.MS_REC)
