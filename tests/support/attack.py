"""A pod that may do anything inside itself (root, raw frames), and how one knows what became of its frames."""

import itertools
import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from plugin.core.packet.build import build_ethernet, build_ipv4, build_udp
from plugin.core.packet.names import BROADCAST_MAC, ETHERTYPE_IPV4, PROTOCOL_UDP
from testbed.machine.space import Space, call, packet_socket
from testbed.probes.capture import Capture, Tap, capture
from tests.support.cluster import Cluster, wait_for

MARKER = b"nobody may see this "
HEADERS = 14 + 20 + 8
"""Bytes before the payload of a datagram that is not wrapped in another."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Member:
    """Somebody on the pod network: a pod, or the switch of a node."""

    space: Space
    mac: str
    address: IPv4Address


def udp_frame(
    source: Member, to: Member, payload: bytes, *, mac: str = "", address: str = "", port: int = 9, from_port: int = 9
) -> bytes:
    """A frame with a datagram, from who `source` is, or from who it says it is."""
    sender = IPv4Address(address) if address else source.address
    datagram = build_udp(sender, to.address, from_port, port, payload)
    return build_ethernet(
        mac or source.mac, to.mac, ETHERTYPE_IPV4, build_ipv4(sender, to.address, PROTOCOL_UDP, datagram)
    )


class Scene:
    """Two nodes that know each other; `red` attacks, `green` lives on the same node, `blue` on the other one."""

    def __init__(self, cluster: Cluster, **conf_keys: object) -> None:
        self.cluster = cluster
        cluster.mesh()
        self.red = self.pod(1, "redpod", **conf_keys)
        self.green, self.blue = self.pod(1, "greenpod"), self.pod(2, "bluepod")
        self.switches = {number: self._switch(number) for number in (1, 2)}
        for number, pod in ((1, self.blue), (2, self.green), (2, self.red)):
            wait_for(lambda number=number, pod=pod: cluster.knows(number, str(pod.address)), "endpoints are known")
        self._raw = packet_socket(self.red.space, "eth0")
        cluster.stack.callback(self._raw.close)

    def pod(self, number: int, name: str, **conf_keys: object) -> Member:
        space = self.cluster.space(name)
        status, text = self.cluster.cni(number, "ADD", space, **conf_keys)
        assert status == 200, text
        result = json.loads(text)
        address = IPv4Address(result["ips"][0]["address"].partition("/")[0])
        return Member(space, result["interfaces"][2]["mac"], address)

    def _switch(self, number: int) -> Member:
        bridge = self.cluster.report(number)["bridge"]
        return Member(self.cluster.nodes[number], bridge["mac"], IPv4Address(bridge["address"]))

    @property
    def everybody(self) -> Member:
        return Member(self.red.space, BROADCAST_MAC, IPv4Address("255.255.255.255"))

    @property
    def taps(self) -> list[Tap]:
        """Where frames come out that passed a switch: pods, the nodes themselves, the way between them."""
        return [
            Tap(self.green.space, "eth0", "green"),
            Tap(self.blue.space, "eth0", "blue"),
            *(Tap(self.cluster.nodes[number], "weave", f"node{number}") for number in (1, 2)),
            Tap(self.cluster.nodes[1], "vxlan-6784", "overlay"),
        ]

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self._raw.send(frame)

    def seen(self, frames: Sequence[bytes], *, unwrapped: bool = False) -> set[str]:
        """Send frames that hold MARKER; at which taps they came out, or what was wrapped in them.

        What is allowed is sent behind them and waited for: frames of one pod do not overtake each other.
        """
        word = b"allowed %d" % next(_numbers)
        with capture(self.taps) as session:
            self.send(*frames)
            self.send(*(udp_frame(self.red, to, word) for to in (self.green, self.blue, self.everybody)))
            wait_for(lambda: {"green", "blue", "node1"} <= tapped(session, word), "what is allowed arrives")
            session.drain(marker=MARKER)
            assert session.lost == 0
            found = [one for one in session.frames if MARKER in one.data]
            return {one.tap for one in found if not unwrapped or one.data.index(MARKER) == HEADERS}

    def refused(self, name: str = "redpod", number: int = 1) -> dict[str, int]:
        """What the agent says it has refused to a pod, by reason."""
        listed = json.loads(self.cluster.api(number, "/ps")[1])
        return next(one["refused"] for one in listed if one["id"] == name * 3)

    def events(self, number: int, event: str) -> list[dict[str, Any]]:
        lines = self.cluster.log(number).splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]


def tapped(session: Capture, word: bytes) -> set[str]:
    return {frame.tap for frame in session.frames if word in frame.data}


def udp_from(space: Space, to: tuple[str, int], payload: bytes) -> None:
    """A datagram as any program sends it."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(payload, to)

    call(space, send)


def syn(source: Member, to: Member, port: int, from_port: int) -> bytes:
    """The first segment of a TCP connection."""
    head = struct.pack("!HHIIBBHHH", from_port, port, 1, 0, 0x50, 0x02, 64240, 0, 0)
    pseudo = source.address.packed + to.address.packed + struct.pack("!BBH", 0, 6, len(head))
    words = struct.unpack(f"!{(len(pseudo) + len(head)) // 2}H", pseudo + head)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    segment = head[:16] + struct.pack("!H", checksum) + head[18:]
    return build_ethernet(source.mac, to.mac, ETHERTYPE_IPV4, build_ipv4(source.address, to.address, 6, segment))
