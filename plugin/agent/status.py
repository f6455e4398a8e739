"""What the agent says about itself: the JSON of /status, /report and /endpoints, and the text of /metrics.

Keys are documented in docs/reference/agent.md and stay as they are; metric names are Weave's where it has them.
"""

import os
from collections import Counter
from typing import Any, Final

from plugin.agent.attachments import Attachments
from plugin.agent.config import AgentConfig
from plugin.core.allocator import EXPOSE, Allocator
from plugin.core.forward import Forwarding
from plugin.core.membership import PeerState
from plugin.core.node import Node
from plugin.core.shares import Share
from plugin.link.netlink import Link
from plugin.link.switch import Uplink

VERSION: Final = "0.1.0"


class Status:
    """Reads the parts of the agent that app.py puts together; changes nothing."""

    def __init__(  # noqa: PLR0913 - it reports on every part there is
        self,
        *,
        config: AgentConfig,
        node: Node,
        allocator: Allocator,
        attachments: Attachments,
        share: Share,
        uplink: Uplink,
        bridge: Link,
        overlay: Link,
        mtu_bytes: int,
        gateway: str,
    ) -> None:
        self._config = config
        self._node = node
        self._allocator = allocator
        self._attachments = attachments
        self._share = share
        self._uplink = uplink
        self._bridge = bridge
        self._overlay = overlay
        self._mtu_bytes = mtu_bytes
        self._gateway = gateway
        self.ready = False

    def status(self) -> dict[str, Any]:
        """The short form: is this node ready, and who does it see."""
        config = self._config
        return {
            "ready": self.ready,
            "version": VERSION,
            "pid": os.getpid(),
            "name": config.name,
            "cluster": config.cluster,
            "node_address": config.node_address,
            "range": config.range,
            "share": str(self._share),
            "bridge": {"name": self._bridge.name, "address": self._gateway, "mac": self._bridge.mac},
            "overlay": {
                "device": self._overlay.name,
                "kind": "vxlan",
                "vni": config.vni,
                "port": config.vxlan_port,
                "mtu": self._mtu_bytes,
                "uplink": self._uplink.name,
                "uplink_mtu": self._uplink.mtu_bytes,
            },
            "peers": self.peers(),
            "pods": sum(attachment != EXPOSE for attachment in self._allocator.held),
            "endpoints": len(self._node.located()),
        }

    def peers(self) -> list[dict[str, Any]]:
        """Every peer as this agent sees it."""
        return [
            {
                "name": peer.name,
                "address": str(peer.address),
                "state": peer.state.value,
                "reason": peer.reason,
            }
            for peer in self._node.peers.values()
        ]

    def endpoints(self) -> list[dict[str, Any]]:
        """Who is where, all nodes."""
        return [
            {
                "address": str(address),
                "mac": place.endpoint.mac,
                "node": str(place.node) if place.node is not None else self._config.node_address,
                "local": place.node is None,
                "label": place.endpoint.label,
            }
            for address, place in sorted(self._node.located().items())
        ]

    def report(self, forwarding: Forwarding) -> dict[str, Any]:
        """The long form, with the forwarding entries as the kernel has them."""
        counters = self._node.counters
        return self.status() | {
            "attachments": [
                {
                    "network": record.network,
                    "container_id": record.container_id,
                    "interface": record.ifname,
                    "address": record.address,
                    "mac": record.mac,
                    "host_interface": record.host_ifname,
                    "netns": record.netns,
                    "label": record.label,
                }
                for record in self._attachments.records.values()
            ],
            "endpoint_list": self.endpoints(),
            "ipam": {"capacity": self._allocator.capacity, "held": len(self._allocator.held)},
            "forwarding": {
                "flood": sorted(str(node) for node in forwarding.flood),
                "remote": {mac: str(node) for mac, node in sorted(forwarding.remote.items())},
                "neighbours": {str(address): mac for address, mac in sorted(forwarding.neighbours.items())},
            },
            "control": {"received": counters.received, "sent": counters.sent, "rejected": counters.rejected},
        }

    def metrics(self) -> str:
        """Prometheus' text format 0.0.4."""
        states = Counter(peer.state for peer in self._node.peers.values())
        counters = self._node.counters
        lines = [
            "# HELP weave_connections Number of peer connections.",
            "# TYPE weave_connections gauge",
            *(f'weave_connections{{state="{state.value}",type="fastdp"}} {states[state]}' for state in PeerState),
            "# HELP weave_ips Number of IP addresses.",
            "# TYPE weave_ips gauge",
            f'weave_ips{{state="local-used"}} {len(self._allocator.held)}',
            "# HELP weave_max_ips Size of IP address space used by allocator.",
            "# TYPE weave_max_ips gauge",
            f"weave_max_ips {self._config.network.num_addresses}",
            "# HELP weave_endpoints Number of pods and bridges known, all nodes.",
            "# TYPE weave_endpoints gauge",
            f"weave_endpoints {len(self._node.located())}",
            "# HELP weave_control_messages_total Control datagrams.",
            "# TYPE weave_control_messages_total counter",
            f'weave_control_messages_total{{direction="received"}} {counters.received}',
            f'weave_control_messages_total{{direction="sent"}} {counters.sent}',
            "# HELP weave_control_rejected_total Control datagrams that were refused.",
            "# TYPE weave_control_rejected_total counter",
            *(
                f'weave_control_rejected_total{{reason="{reason}"}} {count}'
                for reason, count in counters.rejected.items()
            ),
        ]
        return "\n".join(lines) + "\n"
