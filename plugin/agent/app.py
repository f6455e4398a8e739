"""The agent's table of contents: what is made at the start, in which order, and how it ends.

Read `run` downward. Every resource is released on the way out by the stack it was pushed on; the data plane is not:
pods keep their network while no agent runs, and the next start takes it over.
"""

import asyncio
import hashlib
import logging
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

from plugin.agent.api import (
    READ_ONLY,
    Handler,
    Request,
    Response,
    Server,
    json_response,
    remove_socket,
    tcp_listener,
    unix_listener,
)
from plugin.agent.attachments import Attachments
from plugin.agent.config import AgentConfig
from plugin.agent.driver import Driver, bind_control
from plugin.agent.status import VERSION, Status
from plugin.agent.store import Record, Store
from plugin.core import shares
from plugin.core.allocator import EXPOSE, Attachment, ShareAllocator
from plugin.core.cni import INTERNAL, CniError
from plugin.core.endpoints import Located
from plugin.core.errors import InputError
from plugin.core.forward import Forwarding, affected, changes, narrowed, plan_forwarding
from plugin.core.membership import StaticMembership
from plugin.core.node import Node
from plugin.core.shares import Share
from plugin.link import overlay, rules, switch, sysctls
from plugin.link.netlink import Link, Netlink

_QUEUE_PERIOD_S: Final = 2.0


class Forwarder:
    """Keeps the kernel's forwarding entries in line with the node's view; knows what it last wrote."""

    def __init__(self, netlink: Netlink, bridge: Link, device: Link, node: Node, config: AgentConfig) -> None:
        self._netlink = netlink
        self._bridge = bridge
        self._device = device
        self._directory = node.directory
        self._peers = frozenset(member for member in config.members if member != config.address)
        self._own = [interface.ip for index, interface in netlink.addresses() if index == bridge.index]
        self._remote: dict[str, IPv4Address] = {}
        self._neighbours: dict[IPv4Address, str] = {}
        self._started = False

    def sync(self) -> None:
        """Write what has changed; the first time, all that differs from what an earlier agent left in the kernel."""
        changed = self._directory.take_changed()
        complete, self._started = self._started, False  # should the kernel refuse now, the next turn writes everything
        if not complete:
            self._remote, self._neighbours = {}, {}
            self._write(self.observe(), plan_forwarding(self._directory.located(), self._peers, self._own))
        else:
            written = Forwarding(self._peers, self._remote, self._neighbours)
            changed = affected(written, self._places(changed), changed)
            self._write(narrowed(written, changed), plan_forwarding(self._places(changed), self._peers, self._own))
        self._started = True

    def _places(self, addresses: set[IPv4Address]) -> dict[IPv4Address, Located]:
        return {address: place for address in addresses if (place := self._directory.locate(address)) is not None}

    def observe(self) -> Forwarding:
        """What the kernel holds now."""
        return overlay.observe_forwarding(self._netlink, bridge=self._bridge, overlay=self._device)

    def _write(self, found: Forwarding, wanted: Forwarding) -> None:
        difference = changes(found, wanted)
        overlay.apply_forwarding(self._netlink, difference, bridge=self._bridge, overlay=self._device)
        self._remote.update(wanted.remote)
        self._neighbours.update(wanted.neighbours)
        for mac in difference.remote_del:
            self._remote.pop(mac, None)
        for address in difference.neighbour_del:
            self._neighbours.pop(address, None)


async def run(config: AgentConfig, log: logging.Logger) -> None:
    """Be the agent of this node until SIGTERM or SIGINT.

    Raises:
        WeaveError: Something it needs is missing or taken; the text says what to do.
    """
    async with AsyncExitStack() as stack:
        log.info("agent starting", extra={"our_name": config.name, "version": VERSION, "range": config.range})
        # First what only one agent of a node can have: a second one stops here and has changed nothing.
        listener = unix_listener(Path(config.api_socket))
        stack.callback(remove_socket, Path(config.api_socket))
        netlink = Netlink()
        stack.callback(netlink.close)
        uplink = switch.observe_uplink(netlink, config.address, config.uplink)
        control = bind_control(config.address, config.control_port)
        stack.callback(control.close)
        state = Path(config.state_directory)
        store = Store(state)
        stack.callback(store.close)

        # Addresses: which share of the range is ours, and what is held in it.
        loaded = store.load()
        if loaded.damage:
            log.error("state damaged", extra={"reason": loaded.damage})
        share = shares.split(config.network, config.members)[config.address]
        allocator = ShareAllocator(config.network, share)
        gateway = allocator.allocate(EXPOSE, now_s=_now_s())  # the first of the share, so the same after every start
        _check_held(loaded.records, config, share, gateway)
        store.put(_expose_record(config, gateway))

        # The data plane: switch, overlay, rules.
        plane = ensure_data_plane(netlink, config, uplink, gateway)
        log.info(
            "data plane ready",
            extra={
                "bridge": plane.bridge.name,
                "address": str(gateway),
                "overlay": plane.overlay.name,
                "mtu": plane.mtu_bytes,
            },
        )

        # Decisions, and what carries them out.
        node = Node(
            name=config.name,
            incarnation=store.next_life(time.time_ns()),
            seed=shares.seed(config.network, config.members, config.cluster, f"{config.vni}/{config.vxlan_port}"),
            membership=StaticMembership(config.name, config.members, config.address),
        )
        forwarder = Forwarder(netlink, plane.bridge, plane.overlay, node, config)
        driver = Driver(node=node, control=control, sync_forwarding=forwarder.sync, log=log)
        attachments = Attachments(
            netlink=netlink,
            bridge=plane.bridge,
            pod_range=config.network,
            gateway=gateway,
            mtu_bytes=plane.mtu_bytes,
            allocator=allocator,
            store=store,
            node=node,
            now_s=_now_s,
            log=log,
        )
        node.attach(gateway, plane.bridge.mac, f"{config.name}/weave")
        attachments.reconcile()
        attachments.drain_queue(state / "del-queue")

        status = Status(
            config=config,
            node=node,
            allocator=allocator,
            attachments=attachments,
            share=share,
            uplink=plane.uplink,
            bridge=plane.bridge,
            overlay=plane.overlay,
            mtu_bytes=plane.mtu_bytes,
            gateway=str(gateway),
        )
        reading = _reading(status, forwarder)
        server = Server(listener, reading | _acting(attachments, driver, log), log)
        server.start()
        stack.push_async_callback(server.stop)
        if config.http_address:
            public = Server(tcp_listener(config.http_address), reading, log, limits=READ_ONLY)
            public.start()
            stack.push_async_callback(public.stop)
        driver.start()
        stack.callback(driver.stop)
        status.ready = True
        log.info("agent ready", extra={"peers": len(node.peers), "pods": len(attachments.records)})
        await _until_told_to_stop(attachments, driver, state / "del-queue")
        log.info("agent stopping")


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What carries the pods' frames on this node; it stays when the agent goes."""

    uplink: switch.Uplink
    bridge: Link
    overlay: Link
    mtu_bytes: int


def ensure_data_plane(netlink: Netlink, config: AgentConfig, uplink: switch.Uplink, gateway: IPv4Address) -> DataPlane:
    """Switch, overlay device and rules are there and as configured, whatever an earlier agent has left.

    Raises:
        WeaveError: The configuration does not fit the node, or the kernel lacks something.
    """
    mtu_bytes = switch.mtu_for(uplink)
    sysctls.apply_sysctls(sysctls.NODE)
    bridge = switch.ensure_bridge(netlink, config.bridge, mac=bridge_mac(config), mtu_bytes=mtu_bytes)
    switch.ensure_address(netlink, bridge, IPv4Interface((gateway, config.network.prefixlen)))
    device = overlay.ensure_overlay(
        netlink, bridge=bridge, vni=config.vni, local=config.address, port=config.vxlan_port, mtu_bytes=mtu_bytes
    )
    rules.ensure_masquerade(config.network, config.bridge)
    # Read again: an existing bridge has only now got its MAC and MTU.
    return DataPlane(uplink, netlink.link(config.bridge) or bridge, device, mtu_bytes)


def _check_held(records: Mapping[Attachment, Record], config: AgentConfig, share: Share, gateway: IPv4Address) -> None:
    """See that the pods of this node can keep what they have.

    When the range or the list of nodes was changed under running pods, one may hold an address that another node gives
    away, or the bridge's own; or their gateway would move. So the agent does not start.

    Raises:
        InputError: That is so.
    """
    held = [record for attachment, record in records.items() if attachment != EXPOSE]
    foreign = [
        record
        for record in held
        if not shares.is_usable(config.network, share, IPv4Address(record.address))
        or IPv4Address(record.address) == gateway
    ]
    hint = "restore the old range and peers in the configuration, delete the pods of this node, then change it"
    if foreign:
        raise InputError(
            f"{len(foreign)} pods of this node hold addresses that are not its to give any more (its share is {share}, "
            f"the bridge's address {gateway}), the first is {foreign[0].label} with {foreign[0].address}: the pod "
            "range or the list of nodes has changed",
            hint=hint,
        )
    before = records.get(EXPOSE)
    if held and before is not None and before.address != str(gateway):
        raise InputError(
            f"the bridge would change its address from {before.address} to {gateway}, and {len(held)} pods of this "
            "node have the old one as their gateway: the pod range or the list of nodes has changed",
            hint=hint,
        )


def _expose_record(config: AgentConfig, gateway: IPv4Address) -> Record:
    """The bridge's address is remembered like a pod's, to notice when it would move."""
    network, container_id, ifname = EXPOSE
    return Record(
        network=network,
        container_id=container_id,
        ifname=ifname,
        address=str(gateway),
        mac=bridge_mac(config),
        host_ifname=config.bridge,
        label=f"{config.name}/weave",
        state="added",
    )


def bridge_mac(config: AgentConfig) -> str:
    """The bridge's MAC: made from cluster and node name, so it is the same after every start and on no other node.

    Locally administered unicast (the two low bits of the first byte are 1 and 0), as Weave makes its peer names.
    """
    digest = bytearray(hashlib.sha256(f"{config.cluster}/{config.name}".encode()).digest()[:6])
    digest[0] = digest[0] & 0xFC | 0x02
    return digest.hex(":")


def _now_s() -> float:
    return time.monotonic()


async def _until_told_to_stop(attachments: Attachments, driver: Driver, queue: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        # DELs can also be queued while an agent runs: when it was too busy to answer the executable in time.
        attachments.retry()
        if attachments.drain_queue(queue):
            driver.flush()
        try:
            await asyncio.wait_for(stop.wait(), timeout=_QUEUE_PERIOD_S)
        except TimeoutError:
            continue


def _reading(status: Status, forwarder: Forwarder) -> dict[tuple[str, str], Handler]:
    """What anybody on the node may read."""

    def metrics(_request: Request) -> Response:
        return Response(200, status.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")

    return {
        # 503 until ready, as Weave answers: a readiness probe needs no more than this.
        ("GET", "/status"): lambda _request: json_response(status.status(), 200 if status.ready else 503),
        ("GET", "/report"): lambda _request: json_response(status.report(forwarder.observe())),
        ("GET", "/endpoints"): lambda _request: json_response(status.endpoints()),
        ("GET", "/metrics"): metrics,
    }


def _acting(attachments: Attachments, driver: Driver, log: logging.Logger) -> dict[tuple[str, str], Handler]:
    """What only root may do, over the unix socket."""

    def cni(request: Request) -> Response:
        repeated = request.headers.get("weave-attempt", "1") != "1"
        try:
            answer = attachments.handle(request.body, request.descriptor, repeated=repeated)
        except CniError as error:
            return Response(400, error.to_json().encode())
        except Exception as error:
            # The executable prints what it gets, and a runtime understands nothing but the error object of CNI.
            log.exception("CNI call failed, this is a bug")
            return Response(
                500, CniError(INTERNAL, f"the agent failed: {type(error).__name__}", str(error)).to_json().encode()
            )
        finally:
            driver.flush()  # peers learn of the pod before the runtime does
        return Response(200, answer.encode())

    return {("POST", "/cni"): cni}
