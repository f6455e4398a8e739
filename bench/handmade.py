r"""Two nodes with pods, made by hand: plain `ip` commands, no weavelab in it. What a careful person would type.

    a   b            c        pods, MTU 1450
     br0              br0     bridge
      vx ....VXLAN.... vx     learning, flooding to the one other node: VXLAN as it comes
    eth0             eth0     MTU 1500
        \--underlay--/       a bridge in a namespace of its own

The namespaces have no names and hang on this process: whatever ends it, the kernel takes them back.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError
from plugin.link import netns
from testbed.machine.space import Space, run

COMMAND_S: Final = 10.0
ADDRESSES: Final = {"h1": "10.98.0.1", "h2": "10.98.0.2", "a": "10.97.0.1", "b": "10.97.0.2", "c": "10.97.0.3"}
PODS: Final = {"a": "h1", "b": "h1", "c": "h2"}
VXLAN_PORT: Final = 6784
POD_MTU: Final = 1450
"""As weavelab's pods have it, also for the bridge alone: frames of equal size are compared."""


@dataclass(frozen=True, slots=True)
class HandMade:
    """The rig: how to enter each member, by name."""

    spaces: dict[str, Space]

    def ip(self, where: str, command: str) -> None:
        """Run one `ip` command in a member.

        Raises:
            CheckError: It failed.
        """
        done = run(self.spaces[where], ["ip", *command.split()], timeout_s=COMMAND_S)
        if done.returncode != 0:
            raise CheckError(f"ip {command} (in {where}): {done.stderr.strip()}")


@contextmanager
def hand_made() -> Iterator[HandMade]:
    """The rig, for the length of the block.

    Raises:
        CheckError: A command failed.
    """
    with ExitStack() as stack:
        # /proc/PID/fd/N leads to the namespace as long as we hold it; `ip` takes such a path in place of a name
        spaces = {
            name: Space(name, net=Path(f"/proc/{os.getpid()}/fd/{stack.enter_context(netns.new_netns())}"))
            for name in ("underlay", *ADDRESSES)
        }
        rig = HandMade(spaces)
        rig.ip("underlay", "link add br0 type bridge")
        rig.ip("underlay", "link set br0 up")
        for node in ("h1", "h2"):
            _node(rig, node, other=ADDRESSES["h2" if node == "h1" else "h1"])
        for pod, node in PODS.items():
            _cable(rig, pod, node, mtu=POD_MTU)
            rig.ip(pod, f"addr add {ADDRESSES[pod]}/24 dev eth0")
        yield rig


def _node(rig: HandMade, node: str, *, other: str) -> None:
    _cable(rig, node, "underlay", mtu=1500)
    rig.ip(node, f"addr add {ADDRESSES[node]}/24 dev eth0")
    rig.ip(node, f"link add br0 mtu {POD_MTU} type bridge")
    rig.ip(node, "link set br0 up")
    rig.ip(node, f"link add vx type vxlan id 1 local {ADDRESSES[node]} remote {other} dstport {VXLAN_PORT}")
    rig.ip(node, f"link set vx mtu {POD_MTU} master br0 up")


def _cable(rig: HandMade, member: str, switch: str, *, mtu: int) -> None:
    """From `eth0` of a member to the bridge of another."""
    rig.ip(switch, f"link add to-{member} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {rig.spaces[member].net}")
    rig.ip(switch, f"link set to-{member} master br0 up")
    rig.ip(member, "link set lo up")
    rig.ip(member, "link set eth0 up")
