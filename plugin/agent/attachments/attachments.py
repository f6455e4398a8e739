"""THE LIFE OF A CNI ADD, inside the agent: `handle` chooses the verb, `_add` is to be read downwards.

The executable has opened the pod's namespace and sent the descriptor along (plugin/cni/weave_net.py); here an address
is allocated, remembered on disk, put on a veth pair by plugin/link/pods.py, and announced to the peers.
Undo is a stack: every step names its own inverse, and a failure at any point leaves nothing behind.

What an ADD calls, in this order: admission.py (may this be asked here), identity.py (does anybody have that MAC or
address), leases.py (which addresses), recording.py (what is remembered), capabilities.py (host ports, limits),
delegating.py (what another IPAM plugin has to be asked). A pod's end is in leaving.py, one that nobody announced in
vanished.py, CHECK and STATUS in looking.py, two pods with one MAC in displacements.py, what a starting agent makes of
the pods it finds in recovery.py, DELs that came while no agent ran in del_queue.py.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from plugin.agent.attachments import admission
from plugin.agent.attachments.capabilities import Capabilities
from plugin.agent.attachments.del_queue import DelQueue
from plugin.agent.attachments.delegating import RECOVERED, asked, give_back, plan
from plugin.agent.attachments.displacements import Displacements
from plugin.agent.attachments.guarding import Guards
from plugin.agent.attachments.identity import Identity
from plugin.agent.attachments.leases import Leases, SideGateways
from plugin.agent.attachments.leaving import Leaving
from plugin.agent.attachments.looking import Looking
from plugin.agent.attachments.recording import Recording, added, pod_link
from plugin.agent.attachments.recovery import Recovery
from plugin.agent.attachments.removals import Hears, Removals
from plugin.agent.attachments.vanished import Vanished
from plugin.agent.store import Record, Store
from plugin.core.cni.capabilities import fitted
from plugin.core.cni.ipam import IpamCall, IpamPlan
from plugin.core.cni.lease import Lease, delegated_lease, own_lease
from plugin.core.cni.request import parse_request
from plugin.core.cni.result import result_json
from plugin.core.cni.types import (
    ALREADY_ATTACHED,
    ATTACH_FAILED,
    IO_FAILURE,
    NO_ADDRESS,
    TRY_AGAIN_LATER,
    Attached,
    CniError,
    CniRequest,
)
from plugin.core.errors import MissingError
from plugin.core.ipam.allocator import EXPOSE, Attachment, RingAllocator
from plugin.core.node import Node
from plugin.core.upkeep.ledger import Ledger
from plugin.link import pods, rules
from plugin.link.netlink import Link, Netlink


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
        gateways: Make the switch answer for gateways that other IPAM plugins name.
        others_have: Whether another member of the ring may still have addresses to give.
        now_s: The clock.
        log: Where events go.
        capabilities: Gives pods their host ports and limits.
        ledger: Is told of pods that are in trouble.
        guard: Keeps them from pretending to be others.
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
        gateways: SideGateways,
        others_have: Callable[[], bool],
        now_s: Callable[[], float],
        log: logging.Logger,
        capabilities: Capabilities,
        ledger: Ledger,
        guard: Guards,
    ) -> None:
        self._capabilities = capabilities
        self._guard = guard
        self._netlink = netlink
        self._bridge = bridge
        self._range = pod_range
        self._find_gateway = gateway
        self._store = store
        self._node = node
        self._gateways = gateways
        self._leases = Leases(node)
        self._now_s = now_s
        self._log = log
        self._queue = DelQueue(queue, self.handle, log)
        self._vanished = Vanished(
            netlink=netlink,
            records=lambda: store.pods,
            remove=lambda records: self.remove(*records),
            now_s=now_s,
            log=log,
        )
        self._vanished_told = 0
        self._leaving = Leaving(
            removing=removing,
            store=store,
            node=node,
            leases=self._leases,
            capabilities=capabilities,
            strangers=self._vanished.on_links_gone,
            guard=guard,
            now_s=now_s,
            log=log,
        )
        self._identity = Identity(node, lambda: pods.macs_of_ports(netlink, bridge), lambda: store.pods)
        self._recording = Recording(netlink, self._identity, lambda: store.pods, pod_range.prefixlen)
        self._displacements = Displacements(
            netlink=netlink, node=node, records=lambda: store.records, ledger=ledger, now_s=time.time, log=log
        )
        self._looking = Looking(
            netlink=netlink,
            bridge=bridge,
            known=self._known,
            leases=self._leases,
            capabilities=capabilities,
            allocator=allocator,
            gateway=gateway,
            others_have=others_have,
            displaced=self._displacements.reason,
        )
        self.resize(mtu_bytes)
        self.mend: Callable[[], bool] = lambda: False  # what keeps the node right is made later: app.py
        self._verbs = {"CHECK": self._looking.check, "STATUS": self._looking.status}
        self._removing_verbs = {"DEL": self._del, "GC": self._gc}

    @property
    def records(self) -> dict[Attachment, Record]:
        """The attachments of this node, the bridge's own address excepted."""
        return self._store.pods

    def resize(self, mtu_bytes: int) -> None:
        """Pods that come get this MTU from now on, unless their configuration asks for less."""
        self._mtu_bytes = self._looking.mtu_bytes = mtu_bytes

    @property
    def linked(self) -> dict[Attachment, Record]:
        """Those that are complete and not just leaving: they have a link, be it cut off from the switch."""
        leaving = self.removals.leaving
        return {
            attachment: record
            for attachment, record in self.records.items()
            if record.state == "added" and attachment not in leaving
        }

    @property
    def present(self) -> dict[Attachment, Record]:
        """Those that are complete, not just leaving and not displaced: their links have to be there, on the switch."""
        reason = self._displacements.reason
        return {attachment: record for attachment, record in self.linked.items() if not reason(attachment)}

    @property
    def removals(self) -> Removals:
        """What deletes links; start and stop it with the event loop."""
        return self._leaving.removals

    @property
    def vanished(self) -> int:
        """How many pods have ended without DEL since the agent started."""
        return self._vanished.count

    @property
    def _gateway(self) -> IPv4Address:
        gateway = self._find_gateway()
        if gateway is None:
            raise NotReadyError(TRY_AGAIN_LATER, "this node has no addresses yet", "weave status ipam says why")
        return gateway

    async def handle(
        self,
        body: bytes,
        netns_fd: int | None,
        *,
        repeated: bool = False,
        delegated: bytes | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> str | IpamPlan:
        """Carry out one call.

        Args:
            body: As plugin/core/cni/request.py describes it.
            netns_fd: The pod's namespace as the executable opened it, or None. The caller closes it.
            repeated: The executable lost the connection during the same call and asks again: what an unfinished ADD
                left behind is removed first.
            delegated: What another IPAM plugin printed in answer to the plan of an ADD; None before it was asked.
            gone: Whether the executable has ended meanwhile. Its runtime has killed it, then, and says DEL next: an ADD
                that is carried out after that DEL would never be taken back.

        Returns:
            What the executable prints; or what it has to ask another IPAM plugin, before an ADD is complete and after
            any other verb.

        Raises:
            CniError: The call fails; nothing was left behind but, before a plugin was asked, what its DEL removes.
        """
        request = parse_request(body)
        if delegated is not None:
            request = dataclasses.replace(request, delegated=delegated)
        try:
            if (verb := self._removing_verbs.get(request.command)) is not None:
                leaving, answer = verb(request)
                await self.remove(*leaving)
                return answer
            if request.command == "ADD":
                await self._make_way(request, gone, repeated=repeated)
                return self._add_again(request, netns_fd)
            return self._verbs[request.command](request, netns_fd)
        except CniError as error:
            error.cni_version = request.cni_version
            raise

    def _add_again(self, request: CniRequest, netns_fd: int | None) -> str | IpamPlan:
        """An ADD that comes upon what somebody has just broken is tried once more when that is mended."""
        try:
            return self._add(request, netns_fd)
        except CniError as error:
            if error.code != ATTACH_FAILED or request.delegate is not None or not self.mend():
                raise
        return self._add(request, netns_fd)

    async def _make_way(self, request: CniRequest, gone: Callable[[], bool], *, repeated: bool) -> None:
        """Before an ADD: what has to go first is gone; from here to its end an ADD is not interrupted by anything."""
        attachment = request.attachment
        await self._vanished.make_way(self._identity.rivals(request))
        await self._queue.carry_out(attachment)
        if repeated and (unfinished := self._known(attachment)) is not None:
            await self.remove(unfinished)
        await self.removals.settled(attachment)
        if gone():
            raise CniError(TRY_AGAIN_LATER, "the caller went away, nothing was done")

    def _known(self, attachment: Attachment) -> Record | None:
        return None if attachment == EXPOSE else self._store.get(attachment)

    # --- ADD --------------------------------------------------------------------------------------------------------
    def _add(self, request: CniRequest, netns_fd: int | None) -> str | IpamPlan:
        sandbox = admission.sandbox(request, netns_fd)
        begun = self._known(request.attachment)
        if begun is not None and (begun.address or request.delegated is None):
            raise CniError(
                ALREADY_ATTACHED,
                f"{request.container_id} is attached already, with {begun.address or 'no address'} on {request.ifname}",
                "every ADD needs a DEL before it is repeated",
            )
        admission.refuse_what_is_not_here(request, self._bridge, self._range)
        if mac := begun.mac if begun is not None else request.config.requested_mac:
            self._identity.refuse_taken_mac(mac, request.attachment)
        mtu_bytes = admission.mtu_bytes_for(request, self._mtu_bytes)
        bandwidth = fitted(request.config.bandwidth, mtu_bytes)
        others = (record for attachment, record in self.records.items() if attachment != request.attachment)
        self._capabilities.refuse_taken(request.config.ports, others)
        # Asked for before anything is done: without a gateway no pod can be complete.
        admission.refuse_the_switchs_own(request.config.exemption, self._bridge, self._gateway)
        if request.delegate is not None and request.delegated is None:
            return self._begin(request, sandbox, mtu_bytes)
        with ExitStack() as undo:
            lease = self._lease(request)
            undo.callback(self._undo_allocation, request.attachment)
            record = self._recording.record(request, sandbox, lease, begun, bandwidth)
            if begun is None:
                self._remember(record)
            pod = pod_link(request, record, lease, mtu_bytes)
            undo.callback(self._guard.forget, [record])
            if begun is not None:
                undo.callback(pods.detach, self._netlink, record.host_ifname)
                outer = self._configure(sandbox, pod, record)
            else:
                outer = self._attach(sandbox, pod, record)
                undo.callback(pods.detach, self._netlink, record.host_ifname)
            if not record.masquerade:
                undo.callback(rules.keep_address, record.addresses, keep=False)
                self._keep_address(record)
            undo.callback(self._capabilities.withdraw, record)
            self._capabilities.grant(record, outer, self.records)
            record = added(record, self._node.directory.next_stamp())
            self._remember(record)
            undo.pop_all()
        self._announce(record)
        self._log.info(
            "pod attached",
            extra={
                "pod": record.label, "address": record.address, "interface": record.host_ifname, "mac": record.mac,
            },
        )  # fmt: skip
        attached = Attached(
            bridge=self._bridge.name,
            bridge_mac=self._bridge.mac,
            host_ifname=record.host_ifname,
            host_mac=outer.mac,
            ifname=request.ifname,
            mac=record.mac,
            sandbox=request.netns,
            mtu_bytes=mtu_bytes,
            addresses=lease.addresses,
            routes=lease.routes,
            dns=lease.dns,
        )
        return result_json(request, attached)

    def _begin(self, request: CniRequest, sandbox: int, mtu_bytes: int) -> IpamPlan:
        """The first half of an ADD whose addresses another IPAM plugin gives: the interface, as some of them need it.

        What is left to do comes back; the second half is the same call again, with what the plugin printed. If that
        never comes, DEL or the next start removes what was made here.
        """
        assert request.delegate is not None
        with ExitStack() as undo:
            undo.callback(self._undo_allocation, request.attachment)
            record = self._recording.record(request, sandbox, Lease(()))
            self._remember(record)
            undo.callback(self._guard.forget, [record])
            self._attach(sandbox, pod_link(request, record, Lease(()), mtu_bytes), record)
            undo.pop_all()
        return IpamPlan((IpamCall(request.delegate.kind, "ADD"),))

    def _lease(self, request: CniRequest) -> Lease:
        """The pod's addresses, held from now on: the agent's own, or those of the plugin that was asked."""
        config, now_s = request.config, self._now_s()
        if request.delegate is None:
            if config.requested_addresses:
                addresses = config.requested_addresses
                self._identity.refuse_taken_addresses(addresses)
                self._leases.claim(request.attachment, addresses, now_s=now_s)
            else:
                addresses = self._leases.take(request.attachment, config.ipam.ranges, now_s=now_s)
            return own_lease(addresses, config, pod_range=self._range, switch=self._gateway)
        kind = request.delegate.kind
        assert request.delegated is not None
        lease = delegated_lease(request.delegated, kind, config, switch=self._gateway)
        for interface, _ in lease.addresses:
            if interface.ip not in self._range:
                raise CniError(
                    NO_ADDRESS,
                    f"the IPAM plugin {kind} gave {interface.ip}, which is not in the pod range {self._range}",
                    "nobody could tell whether another node has it: configure it with a part of the pod range",
                )
        self._identity.refuse_taken_addresses((interface.ip for interface, _ in lease.addresses), kind)
        if config.is_gateway is not False:
            for gateway in {gateway for _, gateway in lease.addresses if gateway is not None}:
                self._gateways.serve(gateway)
        self._leases.claim(request.attachment, [interface.ip for interface, _ in lease.addresses], now_s=now_s)
        return lease

    def _keep_address(self, record: Record) -> None:
        try:
            rules.keep_address(record.addresses, keep=True)
        except MissingError as error:
            raise CniError(ATTACH_FAILED, error.message, error.hint) from error

    def _undo_allocation(self, attachment: Attachment) -> None:
        """Forget first, then give back: an address that is still written down must stay held."""
        try:
            self._store.drop(attachment)
        except MissingError as error:
            if (record := self._known(attachment)) is not None:
                self._leaving.put_off(record, error)
            return
        self._leases.release(attachment, now_s=self._now_s())

    def _remember(self, record: Record) -> None:
        try:
            self._store.put(record)
        except MissingError as error:
            raise CniError(IO_FAILURE, error.message, error.hint) from error

    def _configure(self, sandbox: int, pod: pods.PodLink, record: Record) -> Link:
        try:
            return pods.configure(self._netlink, sandbox, pod, admit=functools.partial(self._guard.admit, record))
        except (pods.AttachError, MissingError) as error:
            raise CniError(ATTACH_FAILED, error.message, error.hint) from error

    def _attach(self, sandbox: int, pod: pods.PodLink, record: Record) -> Link:
        admit = functools.partial(self._guard.admit, record)
        try:
            return pods.attach(self._netlink, self._bridge, sandbox, pod, admit=admit)
        except pods.AlreadyAttachedError as error:
            raise CniError(ALREADY_ATTACHED, error.message, error.hint) from error
        except (pods.AttachError, MissingError) as error:
            raise CniError(ATTACH_FAILED, error.message, error.hint) from error

    # --- DEL --------------------------------------------------------------------------------------------------------
    def _del(self, request: CniRequest) -> tuple[Sequence[Record], str | IpamPlan]:
        """Success whatever is missing already: a pod's deletion must never hang on the network."""
        record = self._known(request.attachment) or self._recovered(request)
        if record is None:
            self._log.info("nothing to detach", extra={"container": request.container_id, "interface": request.ifname})
        # Asked also for a pod that is not known here: the ADD may have been killed behind the plugin.
        return () if record is None else (record,), plan(give_back(record, request))

    def _recovered(self, request: CniRequest) -> Record | None:
        """A pod that was found on the switch without its record (see `reconcile`) is known by its link's name only."""
        names = pods.possible_host_ifnames(request.container_id, request.ifname)
        # The plain name may be that of a container of similar id; the others are this one's alone.
        found = (self._known((RECOVERED, name, RECOVERED)) for name in reversed(names))
        return next((record for record in found if record is not None), None)

    # --- GC -----------------------------------------------------------------------------------------------------------
    def _gc(self, request: CniRequest) -> tuple[Sequence[Record], str | IpamPlan]:
        valid = request.valid_attachments
        ours = [record for record in self.records.values() if record.network == request.network]
        # Without a list nothing may be concluded about attachments; the other plugin judges for itself.
        leaving = [] if valid is None else [one for one in ours if (one.container_id, one.ifname) not in valid]
        calls = [call for record in leaving for call in give_back(record, None)]
        return leaving, plan([*calls, *asked(request)])

    # --- after a start, and from time to time -------------------------------------------------------------------------
    async def reconcile(self) -> None:
        """Bring records, kernel and allocator together; called at the start, before the API answers."""
        recovery = Recovery(
            netlink=self._netlink,
            bridge=self._bridge,
            store=self._store,
            leases=self._leases,
            capabilities=self._capabilities,
            leaving=self._leaving,
            guard=self._guard,
            announce=self._announce_found,
            lives=self._vanished.lives,
            log=self._log,
        )
        await recovery.reconcile()

    async def remove(self, *records: Record) -> None:
        """Take pods from the network, all at once; what the kernel or the disk refuses is tried again by `retry`."""
        await self._leaving.remove(*records)

    async def retry(self) -> bool:
        """Finish the DELs that the disk or the kernel refused, look for pods that ended; called from time to time.

        Returns:
            Whether pods were given back since the last time, of which the others have to hear.
        """
        await self._leaving.retry()
        await self._vanished.look()
        self.review_claims()
        told, self._vanished_told = self._vanished_told, self.vanished
        return told != self._vanished_told

    def review_claims(self) -> None:
        """Somebody's claim to an address or MAC may be another than before."""
        self._displacements.review()

    def _announce_found(self, record: Record) -> None:
        self._displacements.take_up(record)
        self._announce(record)

    def _announce(self, record: Record) -> None:
        for address in record.addresses:
            self._node.attach(address, record.mac, record.label, now_s=self._now_s(), stamp=record.stamp)

    async def drain_queue(self) -> int:
        """Carry out the DELs that were queued while no agent answered; returns how many were done."""
        return await self._queue.drain()
