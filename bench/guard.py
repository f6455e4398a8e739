"""What it costs that pods cannot pretend: two hand-made networks, one with the guard's rules and ports, in turns.

Everything else about them is the same, and no agent takes part: what is compared is what the kernel does per frame.
"""

import ctypes
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from bench.handmade import ADDRESSES, PODS, VXLAN_PORT, HandMade, hand_made
from plugin.core.errors import CheckError
from plugin.core.forwarding.guard import Reason, Sender, wanted_entries
from plugin.link import guard, rtnl
from plugin.link.netlink import Netlink
from plugin.link.nfnetlink import Netfilter
from testbed.machine.space import Space, call
from testbed.probes.command import Processes
from testbed.probes.iperf import Transfer, measure

PATHS: Final = {"same node": ("a", "b"), "cross node": ("a", "c")}
_PLACE: Final = guard.Place(
    bridge="br0",
    port_prefix="to-",
    pod_range=IPv4Network("10.97.0.0/24"),
    vxlan_port=VXLAN_PORT,
    control_port=6783,
    api_port=6784,
)
_PAYLOAD: Final = bytes(64 - 14 - 20 - 8)
"""With its headers a frame of 64 bytes (without checksum)."""

_BATCH: Final = 32
_PART: Final = 50 * _BATCH
_OVERTIME_S: Final = 10.0


def guard_cost(rounds: int, seconds: int, told: Callable[[str], None]) -> list[dict[str, float]]:
    """Measure; a list of rounds by what was measured: Mbit/s of TCP, thousands of small packets a processor second.

    Raises:
        CheckError: A path does not work.
    """
    with ExitStack() as stack:
        processes = Processes()
        stack.callback(processes.stop)
        rigs = {"plain": stack.enter_context(hand_made()), "guarded": stack.enter_context(hand_made())}
        for node in ("h1", "h2"):
            _guard(rigs["guarded"], node)
        turns = [(kind, path, who) for kind in ("TCP", "packets") for path in PATHS for who in rigs]
        found = []
        for number in range(rounds):
            order = turns if number % 2 == 0 else turns[::-1]
            measured = {
                f"{kind}, {path}, {who}": _KINDS[kind](processes, rigs[who], PATHS[path], seconds)
                for kind, path, who in order
            }
            found.append({name: measured[name] for name in sorted(measured)})
            told(f"guard, round {number + 1} of {rounds}")
        for node in ("h1", "h2"):
            _see_that_nothing_was_refused(rigs["guarded"], node)
    return found


def _guard(rig: HandMade, node: str) -> None:
    """Do to a node of the rig what an agent does to its own."""
    macs = {pod: _mac(rig.spaces[pod]) for pod, home in PODS.items() if home == node}

    def inside() -> None:
        with Netlink() as netlink:
            ports = {link.name: link.index for link in netlink.links()}
            senders = [Sender(ports[f"to-{pod}"], mac, (IPv4Address(ADDRESSES[pod]),)) for pod, mac in macs.items()]
            guard.write_guard(_PLACE, wanted_entries(senders), [IPv4Address(ADDRESSES[one]) for one in ("h1", "h2")])
            for sender in senders:
                netlink.request(
                    rtnl.port_flags_set(sender.port, {"learning": False, "locked": True}),
                    rtnl.bridge_fdb_set(sender.port, sender.mac),
                    what="guard the rig",
                )

    call(rig.spaces[node], inside)


def _mac(pod: Space) -> str:
    def inside() -> str:
        with Netlink() as netlink:
            link = netlink.link("eth0")
            assert link is not None
            return link.mac

    return call(pod, inside)


def _see_that_nothing_was_refused(rig: HandMade, node: str) -> None:
    def inside() -> guard.Refused:
        with Netfilter() as netfilter:
            return guard.observe_refused(netfilter)

    refused = call(rig.spaces[node], inside)
    # Pods made by hand ask for IPv6 neighbours; ours do not.
    frames = {key: count for key, count in refused.frames.items() if key[1] is not Reason.IPV6}
    if frames or refused.packets or refused.strangers:
        raise CheckError(f"the guard refused what the benchmark sent: {refused}")


def _throughput(processes: Processes, rig: HandMade, path: tuple[str, str], seconds: int) -> float:
    client, server = path
    spaces, address = rig.spaces, ADDRESSES[server]
    for _ in range(2):
        timeout_s = seconds + _OVERTIME_S
        found = measure(
            processes, spaces[client], spaces[server], address, Transfer(seconds=seconds), timeout_s=timeout_s
        )
        if not found.result.error and found.result.mbit > 0:
            return found.result.mbit
        time.sleep(0.5)
    raise CheckError(f"guard, {client} to {server}: {found.result.error or 'nothing arrived'}")


def _packets(_processes: Processes, rig: HandMade, path: tuple[str, str], seconds: int) -> float:
    """Small datagrams: thousands a second of the processor time that they take, the best part of those sent.

    Up to the receiver's socket it is the sender's thread that carries them. Its processor time is measured, since what
    else the machine does takes more from a clock than is looked for, and the best part of many, since it leaves traces
    in caches, too.
    """
    client, server = path
    # Somebody listens, so that nobody answers with ICMP; what does not fit into the socket has arrived all the same.
    sink = call(rig.spaces[server], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sink:
        sink.bind((ADDRESSES[server], 9))
        before, until_s = _received(rig.spaces[server]), time.monotonic() + seconds
        sent, best_s = call(rig.spaces[client], lambda: _flood(ADDRESSES[server], until_s))
        arrived = _received(rig.spaces[server]) - before
    if arrived < sent / 2:
        raise CheckError(f"guard, {client} to {server}: of {sent} packets {arrived} arrived")
    return _PART / best_s / 1000


def _received(pod: Space) -> int:
    def inside() -> int:
        # Of the thread, which is in the pod's namespace; /proc/net is that of the process.
        lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[2]) for line in lines if line.split()[0] == "eth0:")

    return call(pod, inside)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """`struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )  # fmt: skip


class _Message(ctypes.Structure):
    """`struct mmsghdr`."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint32))


def _flood(address: str, until_s: float) -> tuple[int, float]:
    """Send until then; how many packets, and the least processor time that _PART of them took.

    sendmmsg(2): a call a packet would measure Python.
    """
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    vector = _Vector(_PAYLOAD, len(_PAYLOAD))
    messages = (_Message * _BATCH)()
    for message in messages:
        message.header.vectors, message.header.vector_count = ctypes.pointer(vector), 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((address, 9))
        sent, best_s = 0, float("inf")
        while time.monotonic() < until_s:
            began_s = time.thread_time()
            for _ in range(_PART // _BATCH):
                if send(client.fileno(), messages, _BATCH, 0) < 0:
                    raise CheckError(f"guard, sendmmsg: {os.strerror(ctypes.get_errno())}")
            sent, best_s = sent + _PART, min(best_s, time.thread_time() - began_s)
    return sent, best_s


_KINDS: Final[Mapping[str, Callable[[Processes, HandMade, tuple[str, str], int], float]]] = {
    "TCP": _throughput,
    "packets": _packets,
}
