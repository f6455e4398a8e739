"""THE LIFE OF A CNI ADD, inside the agent: ADD, DEL, CHECK, GC and STATUS, each a function to read downward.

The executable has opened the pod's namespace and sent the descriptor along (plugin/cni/weave_net.py); here an address
is allocated, remembered on disk, put on a veth pair by plugin/link/pods.py, and announced to the peers.
Undo is a stack: every step names its own inverse, and a failure at any point leaves nothing behind.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from plugin.agent.capabilities import Capabilities
from plugin.agent.del_queue import DelQueue
from plugin.agent.removals import Hears, Removals
from plugin.agent.store import Record, Store
from plugin.core import cni, shares
from plugin.core.allocator import EXPOSE, AddressTakenError, Attachment, PoolExhaustedError, RingAllocator
from plugin.core.bandwidth import Bandwidth
from plugin.core.cni import CniError, CniRequest
from plugin.core.council import Wish
from plugin.core.errors import MissingError
from plugin.core.node import Node
from plugin.core.shares import Share
from plugin.link import netns, pods
from plugin.link.netlink import Link, Netlink, NetlinkError

_LABEL_ID_CHARACTERS: Final = 12
_RECOVERED: Final = "recovered"
_DEFAULT_ROUTE: Final = IPv4Network("0.0.0.0/0")
_EMPTY: Final = ""
_SUBNET_PREFIX_MAX: Final = 30
"""The first and last address of a subnet are not given to pods: a /31 would have none."""


class SpaceNeededError(CniError):
    """The address is not to be had here now; perhaps another member of the ring gives some (`wish`)."""

    def __init__(self, wish: Wish, message: str, details: str) -> None:
        super().__init__(cni.NO_ADDRESS, message, details)
        self.wish = wish


class NotReadyError(CniError):
    """The switch has no address yet."""


class Attachments:
    """The pods of this node.

    Args:
        netlink: A socket in the node's namespace.
        removing: More of them, for nothing but the removal of pods, and what tells of links that are gone.
        bridge: The switch.
        pod_range: The pod range; pods carry it as their prefix.
        gateway: The switch's own address, or None as long as it has none.
        mtu_bytes: What pods get unless their configuration asks for less.
        allocator: Gives addresses.
        store: Remembers them.
        queue: Where the executable leaves DELs while no agent answers.
        node: Announces them.
        others_have: Whether another member of the ring may still have addresses to give.
        now_s: The clock.
        log: Where events go.
        capabilities: Gives pods their host ports and limits.
    """

    def __init__(  # noqa: PLR0913 - the one place where everything a pod needs comes together; app.py calls it once
        self,
        *,
        netlink: Netlink,
        removing: tuple[Iterable[Netlink], Hears],
        bridge: Link,
        pod_range: IPv4Network,
        gateway: Callable[[], IPv4Address | None],
        mtu_bytes: int,
        allocator: RingAllocator,
        store: Store,
        queue: Path,
        node: Node,
        others_have: Callable[[], bool],
        now_s: Callable[[], float],
        log: logging.Logger,
        capabilities: Capabilities,
    ) -> None:
        self._capabilities = capabilities
        self._netlink = netlink
        self._bridge = bridge
        self._range = pod_range
        self._find_gateway = gateway
        self._mtu_bytes = mtu_bytes
        self._allocator = allocator
        self._store = store
        self._node = node
        self._others_have = others_have
        self._now_s = now_s
        self._log = log
        self._unfinished: dict[Attachment, Record] = {}
        self._queue = DelQueue(queue, self.handle, log)
        netlinks, departures = removing
        self.removals = Removals(
            netlinks=netlinks,
            departures=departures,
            finish=self._on_removed,
            refused=self._on_refused,
            detach=pods.detach_together,
        )
        self._verbs = {
            "ADD": self._add, "CHECK": self._check, "STATUS": self._status,
        }  # fmt: skip
        self._removing_verbs = {"DEL": self._del, "GC": self._gc}

    @property
    def records(self) -> dict[Attachment, Record]:
        """The attachments of this node, the bridge's own address excepted."""
        return {attachment: record for attachment, record in self._store.records.items() if attachment != EXPOSE}

    @property
    def _gateway(self) -> IPv4Address:
        gateway = self._find_gateway()
        if gateway is None:
            raise NotReadyError(cni.TRY_AGAIN_LATER, "this node has no addresses yet", "weave status ipam says why")
        return gateway

    async def handle(
        self,
        body: bytes,
        netns_fd: int | None,
        *,
        repeated: bool = False,
        gone: Callable[[], bool] = lambda: False,
    ) -> str:
        """Carry out one call.

        Args:
            body: As plugin/core/cni.py describes it.
            netns_fd: The pod's namespace as the executable opened it, or None. The caller closes it.
            repeated: The executable lost the connection during the same call and asks again: what an unfinished ADD
                left behind is removed first.
            gone: Whether the executable has ended meanwhile. Its runtime has killed it, then, and says DEL next: an ADD
                that is carried out after that DEL would never be taken back.

        Returns:
            What the executable prints.

        Raises:
            CniError: The call fails; nothing was left behind.
        """
        request = cni.parse_request(body)
        try:
            if (verb := self._removing_verbs.get(request.command)) is not None:
                await self.remove(*verb(request))
                return _EMPTY
            if request.command == "ADD":
                await self._make_way(request.attachment, gone, repeated=repeated)
            return self._verbs[request.command](request, netns_fd)
        except CniError as error:
            error.cni_version = request.cni_version
            raise

    async def _make_way(self, attachment: Attachment, gone: Callable[[], bool], *, repeated: bool) -> None:
        """Before an ADD: what has to go first is gone; from here to its end an ADD is not interrupted by anything."""
        await self._queue.carry_out(attachment)
        if repeated and (unfinished := self._known(attachment)) is not None:
            await self.remove(unfinished)
        await self.removals.settled(attachment)
        if gone():
            raise CniError(cni.TRY_AGAIN_LATER, "the caller went away, nothing was done")

    def _known(self, attachment: Attachment) -> Record | None:
        return None if attachment == EXPOSE else self._store.get(attachment)

    # --- ADD --------------------------------------------------------------------------------------------------------
    def _add(self, request: CniRequest, netns_fd: int | None) -> str:
        sandbox = self._sandbox(request, netns_fd)
        if (known := self._known(request.attachment)) is not None:
            raise CniError(
                cni.ALREADY_ATTACHED,
                f"{request.container_id} is attached already, with {known.address} on {request.ifname}",
                "every ADD needs a DEL before it is repeated",
            )
        self._refuse_what_is_not_here(request)
        mtu_bytes = self._mtu_for(request)
        bandwidth = cni.fitted(request.config.bandwidth, mtu_bytes)
        self._capabilities.refuse_taken(request.config.ports, self.records.values())
        with ExitStack() as undo:
            address = self._allocate(request)
            undo.callback(self._undo_allocation, request.attachment)
            record = self._record(request, address, bandwidth)
            self._remember(record)
            pod = self._pod_link(request, record, mtu_bytes)
            outer = self._attach(sandbox, pod)
            undo.callback(pods.detach, self._netlink, record.host_ifname)
            undo.callback(self._capabilities.withdraw, record)
            self._capabilities.grant(record, outer, self.records)
            self._remember(_added(record))
            undo.pop_all()
        self._announce(record)
        self._log.info(
            "pod attached",
            extra={"pod": record.label, "address": str(address), "interface": record.host_ifname, "mac": record.mac},
        )
        attached = cni.Attached(
            bridge=self._bridge.name,
            bridge_mac=self._bridge.mac,
            host_ifname=record.host_ifname,
            host_mac=outer.mac,
            ifname=request.ifname,
            mac=record.mac,
            sandbox=request.netns,
            mtu_bytes=mtu_bytes,
            addresses=((pod.interface, request.config.ipam.gateway or self._gateway),),
            routes=tuple(pod.routes),
            dns=request.config.dns,
        )
        return cni.result_json(request, attached)

    def _undo_allocation(self, attachment: Attachment) -> None:
        """Forget first, then give back: an address that is still written down must stay held."""
        try:
            self._store.drop(attachment)
        except MissingError as error:
            self._log.error("detach will be repeated", extra={"pod": attachment[1], "reason": str(error)})
            if (record := self._known(attachment)) is not None:
                self._unfinished[attachment] = record
            return
        self._allocator.release(attachment, now_s=self._now_s())

    def _sandbox(self, request: CniRequest, netns_fd: int | None) -> int:
        """The pod's namespace: really one, and not the node's own (Weave and skel refuse that too)."""
        if netns_fd is None:
            raise CniError(
                cni.INVALID_NETNS, f"the pod's network namespace {request.netns} could not be opened",
                "CNI_NETNS must name an existing network namespace",
            )  # fmt: skip
        own = netns.current("net")
        try:
            if netns.same_namespace(own, netns_fd):
                raise CniError(
                    cni.INVALID_NETNS, f"CNI_NETNS {request.netns} is the node's own network namespace",
                    "a pod on the host network needs no CNI call",
                )  # fmt: skip
            with netns.entered(netns_fd):
                pass
        except OSError as error:
            raise CniError(
                cni.INVALID_NETNS, f"CNI_NETNS {request.netns} is no network namespace: {error.strerror}"
            ) from error
        finally:
            os.close(own)
        return netns_fd

    def _refuse_what_is_not_here(self, request: CniRequest) -> None:
        """What a configuration asks for is done or refused, never passed over: a pod elsewhere than meant is worse."""
        config = request.config
        if config.bridge not in {cni.DEFAULT_BRIDGE, self._bridge.name}:
            raise CniError(
                cni.UNSUPPORTED_FIELD,
                f'"bridge": {config.bridge} is not this agent\'s switch, which is {self._bridge.name}',
                "leave bridge out of the configuration",
            )
        if config.ipam.subnet not in {None, self._range}:
            subnet = config.ipam.subnet
            if not subnet.subnet_of(self._range) or subnet.prefixlen > _SUBNET_PREFIX_MAX:
                raise CniError(
                    cni.INVALID_CONFIG,
                    f'"ipam.subnet": {subnet} is no part of the pod range {self._range} with room for pods',
                    f"name a subnet of {self._range}, or leave ipam.subnet out",
                )
        if len(config.requested_addresses) > 1:
            raise CniError(
                cni.UNSUPPORTED_FIELD,
                f"{len(config.requested_addresses)} addresses are asked for; an attachment has one",
                "ask for one address, or none",
            )

    def _mtu_for(self, request: CniRequest) -> int:
        wanted = request.config.mtu_bytes
        if wanted > self._mtu_bytes:
            raise CniError(
                cni.INVALID_CONFIG,
                f"mtu {wanted} is larger than the network carries: {self._mtu_bytes} bytes",
                "leave mtu out of the configuration, or lower it",
            )
        return wanted or self._mtu_bytes

    def _allocate(self, request: CniRequest) -> IPv4Address:
        _ = self._gateway  # before anything is done: without one no pod can be complete
        wanted = request.config.requested_addresses
        subnet = request.config.ipam.subnet
        within = subnet if subnet not in {None, self._range} else None
        try:
            if not wanted:
                return self._allocator.allocate(request.attachment, now_s=self._now_s(), within=within)
            self._allocator.claim(request.attachment, wanted[0])
        except PoolExhaustedError as error:
            raise SpaceNeededError(Wish(within=within), error.message, error.hint) from error
        except AddressTakenError as error:
            elsewhere = shares.is_usable(self._range, Share(wanted[0], wanted[0]), wanted[0])
            if wanted[0] in self._range and elsewhere and not self._allocator.owns(wanted[0]):
                raise SpaceNeededError(Wish(exact=wanted[0]), error.message, error.hint) from error
            raise CniError(cni.NO_ADDRESS, error.message, error.hint) from error
        return wanted[0]

    def _record(self, request: CniRequest, address: IPv4Address, bandwidth: Bandwidth) -> Record:
        network, container_id, ifname = request.attachment
        taken = {record.host_ifname for record in self.records.values()}
        return Record(
            network=network,
            container_id=container_id,
            ifname=ifname,
            address=str(address),
            mac=request.config.requested_mac or pods.mac_for(address),
            host_ifname=pods.free_host_ifname(container_id, ifname, taken),
            netns=request.netns,
            label=request.pod or container_id[:_LABEL_ID_CHARACTERS],
            ports=request.config.ports,
            bandwidth=bandwidth or None,
        )

    def _remember(self, record: Record) -> None:
        try:
            self._store.put(record)
        except MissingError as error:
            raise CniError(cni.IO_FAILURE, error.message, error.hint) from error

    def _pod_link(self, request: CniRequest, record: Record, mtu_bytes: int) -> pods.PodLink:
        ipam = request.config.ipam
        default = (cni.Route(_DEFAULT_ROUTE, ipam.gateway or self._gateway),)
        routes = default if ipam.routes is None else tuple(
            cni.Route(route.destination, route.gateway or ipam.gateway or self._gateway) for route in ipam.routes
        )  # fmt: skip
        return pods.PodLink(
            host_ifname=record.host_ifname,
            ifname=request.ifname,
            mac=record.mac,
            mtu_bytes=mtu_bytes,
            interface=IPv4Interface((record.address, self._range.prefixlen)),
            routes=routes,
            hairpin=request.config.hairpin,
        )

    def _attach(self, sandbox: int, pod: pods.PodLink) -> Link:
        try:
            return pods.attach(self._netlink, self._bridge, sandbox, pod)
        except pods.AlreadyAttachedError as error:
            raise CniError(cni.ALREADY_ATTACHED, error.message, error.hint) from error
        except (pods.AttachError, MissingError) as error:
            raise CniError(cni.ATTACH_FAILED, error.message, error.hint) from error

    # --- DEL --------------------------------------------------------------------------------------------------------
    def _del(self, request: CniRequest) -> Sequence[Record]:
        """Success whatever is missing already: a pod's deletion must never hang on the network."""
        record = self._known(request.attachment) or self._recovered(request)
        if record is None:
            self._log.info("nothing to detach", extra={"container": request.container_id, "interface": request.ifname})
        return () if record is None else (record,)

    def _recovered(self, request: CniRequest) -> Record | None:
        """A pod that was found on the switch without its record (see `reconcile`) is known by its link's name only."""
        names = pods.possible_host_ifnames(request.container_id, request.ifname)
        # The plain name may be that of a container of similar id; the others are this one's alone.
        found = (self._known((_RECOVERED, name, _RECOVERED)) for name in reversed(names))
        return next((record for record in found if record is not None), None)

    async def remove(self, *records: Record) -> None:
        """Take pods from the network, all at once; what the kernel or the disk refuses is tried again by `retry`."""
        leaving = []
        for record in records:
            self._node.detach(IPv4Address(record.address), now_s=self._now_s())
            try:
                self._capabilities.withdraw(record)
            except NetlinkError as error:
                self._on_refused(record, error)
            else:
                leaving.append(record)
        await self.removals.remove(leaving)

    def _on_removed(self, records: Sequence[Record]) -> None:
        """Their links are gone: forget them, then free their addresses."""
        try:
            self._store.drop(*(record.attachment for record in records))
        except MissingError as error:
            for record in records:
                self._on_refused(record, error)
            return
        for record in records:
            self._unfinished.pop(record.attachment, None)
            self._allocator.release(record.attachment, now_s=self._now_s())
            self._log.info("pod detached", extra={"pod": record.label, "address": record.address})

    def _on_refused(self, record: Record, error: BaseException) -> None:
        """The address stays held until the record is gone for good; `retry` tries again."""
        self._unfinished[record.attachment] = record
        self._log.error("detach will be repeated", extra={"pod": record.label, "reason": str(error)})

    # --- CHECK, GC, STATUS --------------------------------------------------------------------------------------------
    def _check(self, request: CniRequest, netns_fd: int | None) -> str:
        sandbox = self._sandbox(request, netns_fd)
        record = self._known(request.attachment)
        if record is None:
            raise CniError(
                cni.UNKNOWN_CONTAINER, f"{request.container_id} is not attached to network {request.network} here"
            )
        try:
            found = pods.observe(self._netlink, self._bridge, sandbox, name=record.host_ifname, ifname=request.ifname)
        except pods.AttachError as error:
            raise CniError(cni.CHECK_FAILED, error.message, error.hint) from error
        reserved = self._allocator.held.get(request.attachment)
        differences = cni.check_differences(request, _with_reservation(found, reserved))
        differences += self._capabilities.differences(record)
        if differences:
            raise cni.check_failed(differences)
        return _EMPTY

    def _gc(self, request: CniRequest) -> Sequence[Record]:
        valid = request.valid_attachments
        if valid is None:
            return ()  # the runtime sent no list: nothing may be concluded from that
        ours = (record for record in self.records.values() if record.network == request.network)
        return [record for record in ours if (record.container_id, record.ifname) not in valid]

    def _status(self, _request: CniRequest, _netns_fd: int | None) -> str:
        _ = self._gateway
        if not self._allocator.free and not self._others_have():
            raise CniError(cni.LIMITED_CONNECTIVITY, f"all {self._allocator.capacity} addresses of this node are held")
        return _EMPTY

    # --- after a start, and from time to time -------------------------------------------------------------------------
    async def reconcile(self) -> None:
        """Bring records, kernel and allocator together; called at the start, before the API answers.

        A record whose link is there is a living pod: its address is claimed and announced. One whose link is gone is a
        pod that ended while nobody looked (a reboot, a crash in the middle of ADD): freed. A pod's link without a
        record can only exist when the journal was lost: its address is read from the switch and held, never given away.
        """
        found = pods.leftovers(self._netlink, self._bridge)
        recorded = self.records  # before anything is removed: a link that goes with its record is nobody's to adopt
        leaving = []
        for attachment, record in recorded.items():
            # The address is claimed even for a pod that is about to go: it rests afterwards like any other.
            claimed = self._claim(attachment, record)
            if record.state == "added" and record.host_ifname in found:
                if claimed:
                    self._announce(record)
            else:
                self._log.warning("leftover removed", extra={"pod": record.label, "address": record.address})
                leaving.append(record)
        await self.remove(*leaving)
        known = {record.host_ifname for record in recorded.values()}
        for name, address in found.items():
            if name not in known:
                self._adopt(name, address)
        self._capabilities.sweep(self.records)

    def _announce(self, record: Record) -> None:
        self._node.attach(IPv4Address(record.address), record.mac, record.label, now_s=self._now_s())

    def _claim(self, attachment: Attachment, record: Record) -> bool:
        """Whether the record's address is its own; one that is somebody else's is never announced."""
        try:
            # Also when it is not (or no longer) this agent's: a pod that lives has it, and the ring may be behind.
            self._allocator.claim(attachment, IPv4Address(record.address), adopt=True)
        except AddressTakenError as error:
            self._log.error("address conflict", extra={"pod": record.label, "reason": error.message})
            return False
        return True

    def _adopt(self, name: str, address: IPv4Address | None) -> None:
        if address is None:
            self._log.warning("orphan link removed", extra={"interface": name})
            pods.detach(self._netlink, name)
            return
        ports, bandwidth = self._capabilities.observed(name, address)
        record = Record(
            network=_RECOVERED, container_id=name, ifname=_RECOVERED, address=str(address),
            mac=pods.mac_for(address), host_ifname=name, label=name, state="added", ports=ports, bandwidth=bandwidth,
        )  # fmt: skip
        if not self._claim(record.attachment, record):
            # Two pods with one address would be worse than a pod without a network.
            pods.detach(self._netlink, name)
            return
        self._store.put(record)
        self._announce(record)
        self._log.warning("pod without a record kept", extra={"interface": name, "address": str(address)})

    async def retry(self) -> None:
        """Finish the DELs that the disk or the kernel refused; called from time to time."""
        await self.remove(*self._unfinished.values())

    async def drain_queue(self) -> int:
        """Carry out the DELs that were queued while no agent answered; returns how many were done."""
        return await self._queue.drain()


def _added(record: Record) -> Record:
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    return Record(**(values | {"state": "added"}))


def _with_reservation(found: cni.Observed, reserved: IPv4Address | None) -> cni.Observed:
    return cni.Observed(
        container=found.container,
        host_ifname=found.host_ifname,
        host=found.host,
        host_master=found.host_master,
        paired=found.paired,
        hairpin=found.hairpin,
        addresses=found.addresses,
        routes=found.routes,
        reserved=() if reserved is None else (reserved,),
    )
