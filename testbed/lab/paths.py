"""Where a lab keeps what it has: the one place that knows the layout below /run.

    /run/weavelab/<lab>/            a plain directory; a flock on it is the lab's lock
        state.json                  the intent log (testbed.lab.state)
        users/                      who uses the lab now, a file a command (testbed.lab.users)
        fs/                         a tmpfs: one unmount takes all of what follows away
            ns/<member>.net|uts     pinned namespaces of nodes, pods, routers, outside, underlay
            mnt/<host>              pinned mount namespaces of nodes, routers, outside
            common/                 what the files of all hosts begin with, over the machine's
            names/                  the hosts file of all members (testbed.nodes.names)
            nodes/<host>/           what the host writes: upper and work directories of its overlays, its /run
    /run/netns/<lab>-<member>       the same network namespaces, under names that `ip netns exec` knows

Decides nothing and touches nothing: names in, paths out.
"""

import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from testbed.machine.space import Space
from testbed.topology.names import OUTSIDE

RUN: Final = Path(os.environ.get("WEAVELAB_RUN") or "/run/weavelab").absolute()
"""Where all labs are; the variable lets tests work beside the labs of a person without ever meeting them."""

NETNS: Final = Path("/run/netns")

UNDERLAY: Final = "underlay"
"""The member that owns the bridges of the underlay; `outside` and the routers are members of their own."""


@dataclass(frozen=True, slots=True)
class LabPaths:
    """The paths of the lab named `lab`."""

    lab: str

    @property
    def directory(self) -> Path:
        """The lab's directory; it exists exactly as long as there is something to clean up."""
        return RUN / self.lab

    @property
    def state_file(self) -> Path:
        """The intent log."""
        return self.directory / "state.json"

    @property
    def users(self) -> Path:
        """Who uses the lab now."""
        return self.directory / "users"

    @property
    def password_file(self) -> Path:
        """The password of the lab's agents; only root may read it."""
        return self.directory / "password"

    @property
    def fs(self) -> Path:
        """The mount point of the lab's tmpfs."""
        return self.directory / "fs"

    @property
    def pins(self) -> Path:
        """The directory of pinned network and UTS namespaces."""
        return self.fs / "ns"

    @property
    def mount_pins(self) -> Path:
        """The directory of pinned mount namespaces (private: the kernel pins those nowhere else)."""
        return self.fs / "mnt"

    @property
    def common(self) -> Path:
        """The layer between the machine's files and the nodes' own."""
        return self.fs / "common"

    @property
    def names(self) -> Path:
        """The directory of the hosts file that all members share."""
        return self.fs / "names"

    def node(self, name: str) -> Path:
        """What a node writes, seen from the machine."""
        return self.fs / "nodes" / name

    def node_log(self, name: str) -> Path:
        """The node's agent log, seen from the machine (inside the node: /var/log/weave/agent.log)."""
        return self.node(name) / "log" / "upper" / "weave" / "agent.log"

    def node_socket(self, name: str) -> Path:
        """The agent's API socket, seen from the machine (inside the node: /run/weave/weave.sock)."""
        return self.node(name) / "run" / "weave" / "weave.sock"

    def node_runtime_socket(self, name: str) -> Path:
        """The CRI socket of the node's containerd, seen from the machine (inside: /run/containerd/containerd.sock)."""
        return self.node(name) / "run" / "containerd" / "containerd.sock"

    def node_runtime_log(self, name: str) -> Path:
        """The log of the node's containerd, seen from the machine (inside the node: /var/log/containerd.log)."""
        return self.node(name) / "log" / "upper" / "containerd.log"

    @property
    def cgroup(self) -> str:
        """The cgroup that real runtimes make the lab's containers in; no other lab has it, wherever its folder is."""
        return f"weavelab-{self.lab}-{zlib.crc32(os.fsencode(self.directory)):08x}"

    def netns_name(self, member: str) -> Path:
        """The name of a member's network namespace for people and for `ip netns exec`."""
        return NETNS / f"{self.lab}-{member}"

    def host_space(self, host: str) -> Space:
        """How to enter an emulated host (a node, a router, the outside host): its network, files and host name."""
        return Space(host, net=self.pins / f"{host}.net", mnt=self.mount_pins / host, uts=self.pins / f"{host}.uts")

    def node_space(self, node: str) -> Space:
        """How to enter a node."""
        return self.host_space(node)

    def pod_space(self, pod: str, node: str) -> Space:
        """How to enter a pod: its own network and host name, the files of its node (as a sandbox without an image)."""
        return self._guest_space(pod, host=node)

    @property
    def underlay_space(self) -> Space:
        """How to enter the network between the hosts, which is nobody's; it has the files of the outside host."""
        return self._guest_space(UNDERLAY, host=OUTSIDE)

    def _guest_space(self, guest: str, *, host: str) -> Space:
        """How to enter who has a network and a name, but shares the files of a host, all but /sys."""
        return replace(self.host_space(guest), mnt=self.mount_pins / host, own_sysfs=True)
