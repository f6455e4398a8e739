"""The agent's table of contents: what is made at the start, in which order, and how it ends.

Read `run` downward. Every resource is released on the way out by the stack it was pushed on; the data plane is not:
pods keep their network while no agent runs, and the next start takes it over.
"""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from plugin.agent.api.actions import Actions
from plugin.agent.api.routes import acting, reading
from plugin.agent.api.server import READ_ONLY, Server, remove_socket, tcp_listener, unix_listener
from plugin.agent.api.status import VERSION, Status
from plugin.agent.attachments.attachments import Attachments
from plugin.agent.attachments.capabilities import Capabilities, plain_addresses, ports_at_start, recorded_ports
from plugin.agent.attachments.leases import SideGateways
from plugin.agent.attachments.removals import CALLS_MAX
from plugin.agent.config import AgentConfig
from plugin.agent.dataplane.announcing import Announcer
from plugin.agent.dataplane.following import Following
from plugin.agent.dataplane.forwarder import Forwarder
from plugin.agent.dataplane.gateway import Gateway
from plugin.agent.dataplane.guard import Guard
from plugin.agent.dataplane.passage import Passage
from plugin.agent.dataplane.podmtu import PodMtus
from plugin.agent.dataplane.probing import Prober
from plugin.agent.dataplane.surroundings import Surroundings, clear_the_way
from plugin.agent.dataplane.uplink import UplinkKeeper, first_look
from plugin.agent.driver import Driver
from plugin.agent.keeping import keep
from plugin.agent.sockets import bind_control, way_to
from plugin.agent.space import Space
from plugin.agent.state_keeper import StateKeeper
from plugin.agent.store import Store
from plugin.agent.targets import Targets
from plugin.core.cni.hostports import PortMapping
from plugin.core.firewall.samples import Site
from plugin.core.forwarding.uplink import Plan, Uplink
from plugin.core.ipam.ring import RingError
from plugin.core.membership.switches import bridge_mac
from plugin.core.messages.codec import WireError
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Member
from plugin.core.node import Node
from plugin.core.upkeep.ledger import EVERYTHING, Ledger
from plugin.link import overlay, rules, switch, sysctls
from plugin.link.departures import Departures
from plugin.link.frames import FrameSender
from plugin.link.guard import Place
from plugin.link.netlink import Link, Netlink
from plugin.link.nfnetlink import Netfilter
from plugin.link.pods import HOST_PREFIX

_QUEUE_PERIOD_S: Final = 2.0


async def run(config: AgentConfig, log: logging.Logger) -> None:  # noqa: PLR0915 - the table of contents
    """Be the agent of this node until SIGTERM or SIGINT, or until `weave reset`.

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
        netfilter = Netfilter()
        stack.callback(netfilter.close)
        found = first_look(netlink, config, config.seeds)
        uplink, mtu_bytes = found.plan.uplink, found.plan.pod_mtu_bytes
        control = bind_control(uplink.address, config.control_port, free=not found.there)
        stack.callback(control.close)
        state = Path(config.state_directory)
        store = Store(state)
        stack.callback(store.close)
        loaded = store.load()
        if loaded.damage:
            log.error("state damaged", extra={"reason": loaded.damage})

        # The data plane: switch, overlay, rules; before them, whatever of somebody else is in their way.
        clear_the_way(netlink, netfilter, config, store, log)
        kept = ports_at_start(netfilter, store.records), plain_addresses(store.records)
        plane = _ensure_data_plane(netlink, config, found.plan, *kept)
        log.info(
            "data plane ready",
            extra={"bridge": plane.bridge.name, "overlay": plane.overlay.name, "mtu": mtu_bytes},
        )

        # Decisions, and what carries them out.
        targets = Targets(store, config.seeds)
        node = _make_node(config, uplink.address, store, targets, log)
        node.believe_routes(way_to)
        ledger = Ledger()
        sender = FrameSender(plane.bridge.name)
        stack.callback(sender.close)
        forwarder = Forwarder(
            netlink,
            plane.bridge,
            plane.overlay,
            node.directory,
            lambda: node.destinations,
            Announcer(sender, log),
        )
        stop = asyncio.Event()
        guard = _make_guard(config, netlink, netfilter, store, node, log)
        hands = _Hands(store, forwarder, node, targets, guard)
        driver = Driver(node=node, control=control, handlers=hands, log=log)
        prober = Prober(
            netlink=netlink,
            device=plane.overlay,
            mtu_bytes=mtu_bytes,
            port=config.vxlan_port,
            targets=lambda: _bridges(node, config.cluster),
            log=log,
        )
        hands.prober = prober
        node.believe_overlay(prober.carries)
        hands.space = space = Space(node.council, driver.flush)
        gateway = Gateway(
            netlink=netlink,
            bridge=plane.bridge,
            name=config.name,
            node=node,
            store=store,
            space=space,
            flush=driver.flush,
            changed=hands.address_changed,
            log=log,
        )
        side_gateways = SideGateways(netlink, plane.bridge, node)
        capabilities = Capabilities(
            netlink,
            netfilter,
            reserved=_reserved_ports(config),
            restore=lambda host_ports: rules.ensure_rules(
                config.network, config.bridge, host_ports, plain_addresses(store.records), tracked=plane.tracked
            ),
            log=log,
        )
        attachments = hands.attachments = Attachments(
            netlink=netlink,
            removing=_removing(stack),
            bridge=plane.bridge,
            pod_range=config.network,
            gateway=lambda: gateway.address,
            mtu_bytes=mtu_bytes,
            allocator=node.allocator,
            store=store,
            queue=state / "del-queue",
            node=node,
            gateways=side_gateways,
            others_have=lambda: any(
                one.addresses > 1 and not one.state for one in node.council.holdings() if one.uid != node.me.uid
            ),
            now_s=_now_s,
            log=log,
            capabilities=capabilities,
            ledger=ledger,
            guard=guard,
        )
        gateway.take_up()
        attachments.removals.start()
        stack.push_async_callback(attachments.removals.stop)
        side_gateways.take_up()
        await attachments.reconcile()
        guard.ensure()  # not earlier: until now the pods are guarded as the agent before this one has left it
        await attachments.drain_queue()

        # What was made above is kept so, and what may change under it is followed: the uplink, its address, its MTU.
        if not config.repair:
            ledger.hold(EVERYTHING, "repair is false in the agent's configuration", time.time())
        mtus = PodMtus(netlink, plane.bridge, plane.overlay, lambda: attachments.linked, mtu_bytes, ledger, log)
        stack.push_async_callback(mtus.stop)
        following = Following(
            netlink=netlink,
            device=plane.overlay,
            control_port=config.control_port,
            node=node,
            driver=driver,
            prober=prober,
            mtus=mtus,
            resized=attachments.resize,
        )
        hands.uplink = keeper = UplinkKeeper(netlink, config, found, following, ledger, log)
        passage = Passage(netfilter, lambda: _site(config, keeper.uplink, tracked=plane.tracked))
        if config.repair:
            passage.place()
        upkeep = keep(
            stack,
            netlink=netlink,
            netfilter=netfilter,
            bridge=plane.bridge,
            device=plane.overlay,
            mtu_bytes=lambda: mtus.plane_bytes,
            pod_mtu_bytes=mtus.of,
            local=lambda: node.me.address,
            ensure_rules=lambda: rules.ensure_rules(
                config.network,
                config.bridge,
                recorded_ports(attachments.present),
                plain_addresses(attachments.present),
                tracked=plane.tracked,
            ),
            forwarder=forwarder,
            attachments=attachments,
            capabilities=capabilities,
            passage=passage,
            surroundings=Surroundings(netlink, config),
            guard=guard,
            addresses=lambda: [*([gateway.interface] if gateway.interface else []), *side_gateways.interfaces],
            ledger=ledger,
            log=log,
        )
        upkeep.listener = keeper.heard
        attachments.mend = upkeep.mend_now

        status = Status(
            config=config,
            node=node,
            targets=targets,
            attachments=attachments,
            ledger=ledger,
            space=space,
            gateway=gateway,
            guard=guard,
            paths=lambda: prober.paths,
            uplink=lambda: keeper.plan,
            bridge=plane.bridge,
            overlay=plane.overlay,
        )
        actions = Actions(
            netlink=netlink,
            config=config,
            node=node,
            targets=targets,
            attachments=attachments,
            gateway=gateway,
            carries=prober.carries,
            store=store,
            driver=driver,
            upkeep=upkeep,
            stop=stop,
            log=log,
        )
        readable = reading(status, forwarder)
        server = Server(listener, readable | acting(attachments, actions, space, driver, log), log)
        server.start()
        stack.push_async_callback(server.stop)
        if config.http_address:
            public = Server(tcp_listener(config.http_address), readable, log, limits=READ_ONLY)
            public.start()
            stack.push_async_callback(public.stop)
        state_keeper = StateKeeper(store, ledger, time.time, log)
        state_keeper.start()
        stack.callback(state_keeper.stop)
        driver.start()
        mtus.take_up(found.left_mtu_bytes)
        keeper.start()
        stack.callback(keeper.stop)
        stack.callback(prober.stop)
        stack.push_async_callback(driver.stop)
        upkeep.start()
        stack.callback(upkeep.stop)
        await _live(stop, gateway, status, attachments, guard, driver, lambda: space.tell(ledger, time.time()), log)
        log.info("agent stopping")


def _make_node(config: AgentConfig, address: IPv4Address, store: Store, targets: Targets, log: logging.Logger) -> Node:
    """The decisions, with what an earlier life of this agent has written down.

    Raises:
        WeaveError: The state cannot be read or written.
    """
    written = store.read_ring()
    uid = store.identity(config.name, config.range)
    if written is not None and store.read_ring() is None:
        written = None  # set aside: another name, or another range
    node = _node(config, address, store, targets, uid)
    if written is None:
        return node
    try:
        node.council.restore(written)
    except (WireError, RingError) as error:
        aside = store.ring_damaged()
        fields = {"reason": error.message, "set_aside": str(aside)}
        log.error("ring damaged", extra=fields)  # noqa: TRY400 - a sentence, no traceback
        return _node(config, address, store, targets, store.identity(config.name, config.range))
    return node


def _node(config: AgentConfig, address: IPv4Address, store: Store, targets: Targets, uid: str) -> Node:
    me = Member(config.name, uid, address, store.next_life(time.time_ns()))
    keys = Keys(config.cluster, config.network, f"{config.vni}/{config.vxlan_port}", config.password)
    chance = random.Random()  # noqa: S311 - it spreads load; nothing is kept secret with it
    return Node(me=me, keys=keys, seeds=targets.addresses, founders=config.founders, chance=chance)


@dataclass(slots=True)
class _Hands:
    """What the rest of the agent does with the node's effects."""

    store: Store
    forwarder: Forwarder
    node: Node
    targets: Targets
    guard: Guard
    uplink: UplinkKeeper | None = None
    space: Space | None = None
    prober: Prober | None = None
    attachments: Attachments | None = None

    def sync_forwarding(self, *, peers: bool) -> None:
        if peers:
            self.guard.members_changed()
        self.forwarder.sync(peers=peers)
        if self.prober is not None:
            self.prober.targets_changed()
        if self.attachments is not None:
            self.attachments.review_claims()
        if peers and self.uplink is not None:
            self.uplink.changed()

    def address_changed(self, address: IPv4Address | None) -> None:
        """The switch has another address, or none."""
        self.forwarder.rewrite()
        if self.prober is not None:
            self.prober.use(address)

    def persist(self, data: bytes) -> None:
        self.store.write_ring(data)

    def peer_moved(self) -> None:
        self.guard.members_changed()
        self.targets.follow(self.node.seeds)

    def space_changed(self) -> None:
        if self.space is not None:
            self.space.changed()


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What carries the pods' frames on this node; it stays when the agent goes.

    `tracked`: frames between two pods of the node pass the rules for IP packets.
    """

    bridge: Link
    overlay: Link
    tracked: bool


def _ensure_data_plane(
    netlink: Netlink,
    config: AgentConfig,
    plan: Plan,
    host_ports: Iterable[tuple[IPv4Address, PortMapping]] = (),
    plain: Iterable[IPv4Address] = (),
) -> DataPlane:
    """Switch, overlay device and rules are there and as configured, whatever an earlier agent has left.

    Raises:
        WeaveError: The configuration does not fit the node, or the kernel lacks something.
    """
    mtu_bytes = plan.pod_mtu_bytes
    sysctls.apply_sysctls(sysctls.NODE)
    mac = bridge_mac(config.cluster, config.name)
    bridge = switch.ensure_bridge(netlink, config.bridge, mac=mac, mtu_bytes=mtu_bytes)
    device = overlay.ensure_overlay(
        netlink, bridge=bridge, vni=config.vni, local=plan.uplink.address, port=config.vxlan_port, mtu_bytes=mtu_bytes
    )
    tracked = sysctls.is_bridged_tracked()
    rules.ensure_rules(config.network, config.bridge, host_ports, plain, tracked=tracked)
    sysctls.apply_sysctls(sysctls.switch(config.bridge))  # after the rules, which keep pods out
    # Read again: an existing bridge has only now got its MAC and MTU.
    return DataPlane(netlink.link(config.bridge) or bridge, device, tracked)


def _make_guard(
    config: AgentConfig, netlink: Netlink, netfilter: Netfilter, store: Store, node: Node, log: logging.Logger
) -> Guard:
    api_port = config.http_address.rpartition(":")[2]
    place = Place(
        bridge=config.bridge,
        port_prefix=HOST_PREFIX,
        pod_range=config.network,
        vxlan_port=config.vxlan_port,
        control_port=config.control_port,
        api_port=int(api_port) if api_port.isdecimal() else 0,
    )

    def members() -> set[IPv4Address]:
        # Also who has failed: its agent may be gone, but its pods still send. The seats are known from the disk.
        told = {member.address for member in node.members.others.values()}
        return told | {seat.address for uid, seat in node.council.seats.items() if uid != node.me.uid}

    def name_of(address: IPv4Address) -> str:
        located = node.directory.locate(address)
        return "" if located is None else located.endpoint.label

    return Guard(
        netlink=netlink,
        netfilter=netfilter,
        place=place,
        records=lambda: store.pods,
        members=members,
        name_of=name_of,
        log=log,
    )


def _reserved_ports(config: AgentConfig) -> dict[PortMapping, str]:
    """The ports of the node without which there is no pod network: led into a pod, they would cut it off."""
    ports = [("tcp", config.control_port), ("udp", config.control_port), ("udp", config.vxlan_port)]
    return {
        PortMapping(host_port=port, container_port=port, protocol=protocol): "the agent" for protocol, port in ports
    }


def _site(config: AgentConfig, uplink: Uplink, *, tracked: bool) -> Site:
    return Site(
        bridge=config.bridge, uplink=uplink.name, pods=config.network, node=uplink.address,
        control_port=config.control_port, vxlan_port=config.vxlan_port, tracked=tracked,
    )  # fmt: skip


def _removing(stack: AsyncExitStack) -> tuple[list[Netlink], Departures]:
    """The sockets by which pods are removed, and the one that tells which links are gone."""
    departures = Departures()
    stack.callback(departures.close)
    netlinks = [Netlink() for _ in range(CALLS_MAX)]
    for one in netlinks:
        stack.callback(one.close)
    return netlinks, departures


def _bridges(node: Node, cluster: str) -> dict[IPv4Address, tuple[IPv4Address, str]]:
    """The bridges of the other nodes, where the overlay is probed: node address to bridge address and MAC."""
    tables = node.directory.remote
    found = {}
    for member in node.members.others.values():
        mac = bridge_mac(cluster, member.name)
        table = tables.get(member.address)
        for endpoint in () if table is None else table.endpoints:
            if endpoint.mac == mac:
                found[member.address] = endpoint.address, mac
    return found


def _now_s() -> float:
    return time.monotonic()


async def _live(
    stop: asyncio.Event,
    gateway: Gateway,
    status: Status,
    attachments: Attachments,
    guard: Guard,
    driver: Driver,
    tell: Callable[[], None],
    log: logging.Logger,
) -> None:
    """Find a gateway, then look after what is late, until told to stop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    finding = loop.create_task(gateway.ensure())
    try:
        while not stop.is_set():
            if finding.done():
                finding.result()
                if not status.ready:
                    status.ready = True
                    log.info("agent ready", extra={"peers": status.peer_count, "pods": len(attachments.records)})
                finding = loop.create_task(gateway.ensure())  # it may have to move, when rings were joined
            # DELs can also be queued while an agent runs: when it was too busy to answer the executable in time.
            guard.look()
            tell()
            told = await attachments.retry()
            if await attachments.drain_queue() or told:
                driver.flush()
            stopping = loop.create_task(stop.wait())
            await asyncio.wait(
                {stopping, finding} if not status.ready else {stopping},
                timeout=_QUEUE_PERIOD_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            stopping.cancel()
    finally:
        finding.cancel()
