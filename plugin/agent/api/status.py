"""What the agent says about itself: the JSON of /status and its parts, of /report, and the text of /metrics.

Keys are documented in docs/reference/agent.md and stay as they are; metric names are Weave's where it has them. The
tables that `weave status` prints are made from these values by plugin/agent/api/layouts.py.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any, Final

from plugin.agent.attachments.attachments import Attachments
from plugin.agent.config import AgentConfig
from plugin.agent.dataplane.gateway import Gateway
from plugin.agent.dataplane.guard import Guard
from plugin.agent.space import Space
from plugin.agent.store import Record
from plugin.agent.targets import Targets
from plugin.core.cni.bandwidth import Bandwidth
from plugin.core.forwarding.forward import Forwarding
from plugin.core.forwarding.paths import Path, PathState
from plugin.core.forwarding.uplink import Plan
from plugin.core.membership.members import Peer, PeerState
from plugin.core.membership.switches import bridge_mac
from plugin.core.node import Node
from plugin.core.upkeep.ledger import Ledger
from plugin.link.netlink import Link

VERSION: Final = "0.1.0"

_NO_REPAIRS: Final = dict.fromkeys(("address", "entries", "limit", "link", "nft", "port", "sysctl"), 0)


class Status:
    """Reads the parts of the agent that app.py puts together; changes nothing."""

    def __init__(  # noqa: PLR0913 - it reports on every part there is
        self,
        *,
        config: AgentConfig,
        node: Node,
        targets: Targets,
        attachments: Attachments,
        ledger: Ledger,
        space: Space,
        gateway: Gateway,
        guard: Guard,
        paths: Callable[[], Mapping[IPv4Address, Path]],
        uplink: Callable[[], Plan],
        bridge: Link,
        overlay: Link,
    ) -> None:
        self._config = config
        self._node = node
        self._targets = targets
        self._attachments = attachments
        self._ledger = ledger
        self._space = space
        self._gateway = gateway
        self._guard = guard
        self._find_paths = paths
        self._find_uplink = uplink
        self._bridge = bridge
        self._overlay = overlay
        self.ready = False

    @property
    def peer_count(self) -> int:
        """How many peers are known."""
        return len(self._node.peers)

    def status(self) -> dict[str, Any]:
        """The short form: is this node ready, and who does it see."""
        config, plan = self._config, self._find_uplink()
        peers = self.peers()
        return {
            "ready": self.ready,
            "version": VERSION,
            "pid": os.getpid(),
            "name": config.name,
            "peer": bridge_mac(config.cluster, config.name),
            "uid": self._node.me.uid,
            "cluster": config.cluster,
            "node_address": str(self._node.me.address),
            "control_port": config.control_port,
            "password": bool(config.password),
            "rejected": {reason: count for reason, count in self._node.counters.rejected.items() if count},
            "range": config.range,
            "targets": [str(target) for target in self._targets.addresses],
            "bridge": {
                "name": self._bridge.name,
                "address": None if self._gateway.address is None else str(self._gateway.address),
                "exposed": not self._gateway.hidden,
                "mac": self._bridge.mac,
            },
            "overlay": {
                "device": self._overlay.name,
                "kind": "vxlan",
                "vni": config.vni,
                "port": config.vxlan_port,
                "mtu": plan.pod_mtu_bytes,
                "uplink": plan.uplink.name,
                "uplink_mtu": plan.uplink.mtu_bytes,
            },
            "peers": peers,
            "connections": Counter(peer["state"] for peer in peers),
            "ipam": self.ipam(),
            "pods": len(self._attachments.records),
            "guard": self._guard.status(),
            "endpoints": self._node.directory.count,
            "digest": f"{self._node.digest:016x}",
            "unconfirmed": self._node.unconfirmed,
            **self._troubles(),
        }

    def _troubles(self) -> dict[str, Any]:
        """What is wrong here, what was mended, and what is held so that it is not mended."""
        return {
            "problems": [
                {"object": one.name, "cause": one.cause, "advice": one.advice, "since": _time(one.since_s)}
                for one in self._ledger.problems()
            ],
            "repairs": [
                {"object": one.name, "count": one.count, "was": one.what, "last": _time(one.last_s)}
                for one in self._ledger.repairs()
            ],
            "held": [
                {"object": one.name, "reason": one.reason, "since": _time(one.since_s)} for one in self._ledger.holds()
            ],
        }

    def peers(self) -> list[dict[str, Any]]:
        """Every peer as this agent sees it."""
        paths = self._find_paths()
        return [self._peer(peer, paths.get(peer.address)) for peer in self._node.peers.values()]

    def _peer(self, peer: Peer, path: Path | None) -> dict[str, Any]:
        state, reason = peer.state, peer.reason
        if state is PeerState.ESTABLISHED and path is not None and path.state is PathState.DOWN:
            state, reason = PeerState.FAILED, self._own_fault() or path.reason
        elif not reason and path is not None:
            reason = path.reason
        return {
            "name": peer.name,
            "peer": bridge_mac(self._config.cluster, peer.name) if peer.name else "",
            "uid": peer.uid,
            "address": str(peer.address),
            "state": state.value,
            "reason": reason,
            "via": peer.via,
            "outbound": peer.address in self._node.seeds,
            "control": peer.state.value,
            "path": None
            if path is None
            else {
                "state": path.state.value,
                "reason": path.reason,
                "mtu": path.mtu_bytes,
                "rtt_ms": None if path.rtt_s is None else round(path.rtt_s * 1000, 3),
            },
        }

    def _own_fault(self) -> str:
        """What is broken on this node without which no packet of a pod leaves it; empty when nothing is."""
        on_the_way = ("link", "address", "entries", "uplink", "input", "output")
        mine = next((one for one in self._ledger.problems() if one.name.split(" ", 1)[0] in on_the_way), None)
        return "" if mine is None else f"this node's own fault, {mine.name}: {mine.cause}"

    def ipam(self) -> dict[str, Any]:
        """Who owns what, and what waits for what."""
        council, allocator = self._node.council, self._node.allocator
        total = self._config.network.num_addresses
        return {
            "status": council.status(),
            "range": self._config.range,
            "addresses": total,
            "ring": council.ring_id,
            "epoch": council.epoch,
            "seats": [
                {"uid": uid, "name": seat.name, "address": str(seat.address)}
                for uid, seat in sorted(council.seats.items(), key=lambda item: item[1].name)
            ],
            "owned": [str(share) for share in allocator.shares],
            "capacity": allocator.capacity,
            "held": len(allocator.held),
            "pending": self._space.pending,
            "owners": [
                {
                    "uid": one.uid,
                    "name": one.name,
                    "peer": bridge_mac(self._config.cluster, one.name),
                    "addresses": one.addresses,
                    "percent": round(100 * one.addresses / total, 1),
                    "self": one.uid == self._node.me.uid,
                    "trouble": one.state,
                }
                for one in council.holdings()
            ],
        }

    def endpoints(self) -> list[dict[str, Any]]:
        """Who is where, all nodes."""
        return [
            {
                "address": str(address),
                "mac": place.endpoint.mac,
                "node": str(place.node or self._node.me.address),
                "local": place.node is None,
                "label": place.endpoint.label,
            }
            for address, place in sorted(self._node.located().items())
        ]

    def attachments(self) -> list[dict[str, Any]]:
        """The pods of this node, and the switch's own address."""
        self._guard.look()
        own = self._gateway.address
        exposed = [] if own is None or self._gateway.hidden else [("weave:expose", self._bridge.mac, str(own))]
        return [
            *({"id": name, "mac": mac, "addresses": [f"{address}/{self._prefix}"]} for name, mac, address in exposed),
            *(
                {
                    "id": record.container_id,
                    "mac": record.mac,
                    "addresses": record.shown(self._prefix),
                    "label": record.label,
                    "ports": [str(mapping) for mapping in record.ports],
                    "guard": "" if record.guard is None else str(record.guard),
                    "refused": self._guard.refused(record),
                }
                for record in self._attachments.records.values()
            ),
        ]

    @property
    def _prefix(self) -> int:
        return self._config.network.prefixlen

    def report(self, forwarding: Forwarding) -> dict[str, Any]:
        """The long form, with the forwarding entries as the kernel has them."""
        counters = self._node.counters
        members = self._node.members
        return self.status() | {
            "attachments": [
                {
                    "network": record.network,
                    "container_id": record.container_id,
                    "interface": record.ifname,
                    "address": record.address,
                    "addresses": record.shown(self._prefix),
                    "ipam": _delegate_of(record),
                    "mac": record.mac,
                    "host_interface": record.host_ifname,
                    "netns": record.netns,
                    "label": record.label,
                    "ports": [str(mapping) for mapping in record.ports],
                    "bandwidth": _bits(record.bandwidth),
                }
                for record in self._attachments.records.values()
            ],
            "endpoint_list": self.endpoints(),
            "members": [
                {
                    "name": member.name,
                    "uid": member.uid,
                    "address": str(member.address),
                    "life": member.life,
                    "incarnation": member.incarnation,
                    "state": member.state.name.lower(),
                }
                for member in members.everybody()
            ],
            "broken_links": [[link.origin, link.target] for link in self._node.links.all if link.broken],
            "ring_segments": [
                {"range": str(segment), "owner": segment.owner, "version": segment.version}
                for segment in self._node.council.ring.segments
            ],
            "forwarding": {
                "flood": sorted(str(node) for node in forwarding.flood),
                "remote": {mac: str(node) for mac, node in sorted(forwarding.remote.items())},
                "neighbours": {str(address): mac for address, mac in sorted(forwarding.neighbours.items())},
            },
            "control": {
                "received": counters.received,
                "sent": counters.sent,
                "received_bytes": counters.received_bytes,
                "sent_bytes": counters.sent_bytes,
                "exchanges": counters.calls,
                "rejected": counters.rejected,
            },
        }

    def metrics(self) -> str:
        """Prometheus' text format 0.0.4."""
        peers = self.peers()
        states = Counter(peer["state"] for peer in peers)
        counters, allocator, council = self._node.counters, self._node.allocator, self._node.council
        holdings = council.holdings()
        unreachable = [one for one in holdings if one.state]
        total = self._config.network.num_addresses
        lost = sum(one.addresses for one in unreachable)
        round_trips = [peer for peer in peers if peer["path"] is not None and peer["path"]["rtt_ms"] is not None]
        families: list[tuple[str, str, str, list[tuple[str, float]]]] = [
            (
                "weave_connections",
                "gauge",
                "Number of peer-to-peer connections.",
                [
                    (f'{{state="{state.value}",type="fastdp",encryption=""}}', states[state.value])
                    for state in PeerState
                ],
            ),
            (
                "weave_ips",
                "gauge",
                "Number of IP addresses.",
                [('{state="local-used"}', len(allocator.held)), ('{state="local-owned"}', allocator.capacity)],
            ),
            (
                "weave_host_ports",
                "gauge",
                "Number of ports of this node that lead into its pods.",
                [("", sum(len(record.ports) for record in self._attachments.records.values()))],
            ),
            (
                "weave_limited_pods",
                "gauge",
                "Number of this node's pods whose bandwidth is limited.",
                [("", sum(record.bandwidth is not None for record in self._attachments.records.values()))],
            ),
            (
                "weave_pods_vanished_total",
                "counter",
                "Pods whose namespace ended without DEL, and what they had was given back.",
                [("", self._attachments.vanished)],
            ),
            (
                "weave_guard_refused_frames_total",
                "counter",
                "Frames of this node's pods that were refused, for they pretended something.",
                [
                    (f'{{pod="{record.label}",interface="{record.host_ifname}",reason="{word}"}}', count)
                    for record in self._attachments.records.values()
                    for word, count in self._guard.refused(record).items()
                ],
            ),
            (
                "weave_guard_refused_strangers_total",
                "counter",
                "VXLAN packets that were refused, for they came from no member's node.",
                [("", self._guard.status()["refused"].get("stranger", 0))],
            ),
            ("weave_max_ips", "gauge", "Size of IP address space used by allocator.", [("", total)]),
            (
                "weave_ipam_unreachable_count",
                "gauge",
                "Number of owners of addresses that are unreachable.",
                [("", len(unreachable))],
            ),
            (
                "weave_ipam_unreachable_percentage",
                "gauge",
                "Percentage of all IP addresses owned by unreachable peers.",
                [("", round(100 * lost / total, 2))],
            ),
            (
                "weave_ipam_pending_allocates",
                "gauge",
                "Number of callers that wait for an address.",
                [("", self._space.pending)],
            ),
            ("weave_ipam_epoch", "gauge", "How many decrees the ring has seen.", [("", council.epoch)]),
            (
                "weave_endpoints",
                "gauge",
                "Number of pods and bridges known, all nodes.",
                [("", self._node.directory.count)],
            ),
            (
                "weave_endpoints_unconfirmed_peers",
                "gauge",
                "Number of peers that have not confirmed this node's newest endpoints.",
                [("", self._node.unconfirmed)],
            ),
            (
                "weave_convergence_seconds",
                "gauge",
                "How long the last change of this node's endpoints took until every peer had confirmed it.",
                [("", self._node.convergence_s)],
            ),
            (
                "weave_path_round_trip_seconds",
                "gauge",
                "Round trip through the overlay to a peer's bridge, the last probe that was answered.",
                [(f'{{peer="{peer["name"]}"}}', peer["path"]["rtt_ms"] / 1000) for peer in round_trips],
            ),
            (
                "weave_control_messages_total",
                "counter",
                "Control datagrams.",
                [('{direction="received"}', counters.received), ('{direction="sent"}', counters.sent)],
            ),
            (
                "weave_control_bytes_total",
                "counter",
                "Bytes of control datagrams and exchanges.",
                [('{direction="received"}', counters.received_bytes), ('{direction="sent"}', counters.sent_bytes)],
            ),
            ("weave_control_exchanges_total", "counter", "Exchanges begun by this agent.", [("", counters.calls)]),
            (
                "weave_control_rejected_total",
                "counter",
                "Control messages that were refused.",
                [(f'{{reason="{reason}"}}', count) for reason, count in counters.rejected.items()],
            ),
            (
                "weave_problems",
                "gauge",
                "Number of things that are wrong on this node.",
                [("", len(self._ledger.problems()))],
            ),
            (
                "weave_repairs_total",
                "counter",
                "Objects of this agent that somebody else broke and that were mended.",
                [
                    (f'{{kind="{kind}"}}', count)
                    for kind, count in sorted((_NO_REPAIRS | self._ledger.repaired_by_kind()).items())
                ],
            ),
        ]
        lines = []
        for name, kind, text, values in families:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{labels} {round(value, 6)}" for labels, value in values]
        return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    """Seconds since the epoch as local time with its zone, to the second (RFC 3339)."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _bits(bandwidth: Bandwidth | None) -> dict[str, int | None] | None:
    """Limits in bits a second, as people and CNI count; None for no limit."""
    if bandwidth is None:
        return None
    directions = {"ingress": bandwidth.ingress, "egress": bandwidth.egress}
    return {name: None if limit is None else limit.rate_bits for name, limit in directions.items()}


def _delegate_of(record: Record) -> str:
    """The IPAM plugin that gave the addresses; empty for the agent."""
    return str(json.loads(record.ipam).get("type", "")) if record.ipam else ""
