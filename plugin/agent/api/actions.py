"""What a person can have the agent do, one method a verb. Only root reaches this."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final

from plugin.agent.api.recovering import Recovering
from plugin.agent.attachments.attachments import Attachments
from plugin.agent.config import AgentConfig
from plugin.agent.dataplane.gateway import Gateway
from plugin.agent.dataplane.passage import remove_passage
from plugin.agent.dataplane.upkeep import Upkeep
from plugin.agent.driver import Driver
from plugin.agent.store import Store
from plugin.agent.targets import Targets
from plugin.core.errors import CheckError, InputError, MissingError
from plugin.core.membership.switches import bridge_mac
from plugin.core.node import Node
from plugin.core.upkeep.ledger import EVERYTHING
from plugin.link import guard, rtnl, rules
from plugin.link.netlink import Netlink
from plugin.link.nfnetlink import Netfilter

_RMPEER_WAIT_S: Final = 5.0
"""How long `rmpeer` waits for the others' agreement before it says whom it still waits for."""

_RESET_WAIT_S: Final = 0.5
_POLL_S: Final = 0.05
_ADDRESSES_MAX: Final = 64
_REASON_MAX: Final = 200


class Actions:
    """One method a verb: JSON object in, JSON object out."""

    def __init__(  # noqa: PLR0913 - it acts on every part there is; app.py calls it once
        self,
        *,
        netlink: Netlink,
        config: AgentConfig,
        node: Node,
        targets: Targets,
        attachments: Attachments,
        gateway: Gateway,
        carries: Callable[[IPv4Address], bool],
        store: Store,
        driver: Driver,
        upkeep: Upkeep,
        stop: asyncio.Event,
        log: logging.Logger,
    ) -> None:
        self._netlink = netlink
        self._config = config
        self._node = node
        self._targets = targets
        self._attachments = attachments
        self._gateway = gateway
        self._carries = carries
        self._recovering = Recovering(node, carries=carries, mac=self._mac, kick=driver.kick)
        self._store = store
        self._driver = driver
        self._upkeep = upkeep
        self._stop = stop
        self._log = log

    async def connect(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"addresses": [...], "replace": false}`: look for agents there too, or only there."""
        addresses = _addresses(body)
        instead = body.get("replace") is True
        self._targets.set(addresses if instead else [*self._targets.addresses, *addresses])
        self._node.connect(addresses, instead=instead)
        self._driver.flush()
        return {"targets": [str(target) for target in self._targets.addresses]}

    async def forget(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"addresses": [...]}`: look for agents there no more."""
        addresses = set(_addresses(body))
        self._targets.set(target for target in self._targets.addresses if target not in addresses)
        self._node.forget(addresses)
        self._driver.flush()
        return {"targets": [str(target) for target in self._targets.addresses]}

    async def rmpeer(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"peer": name, uid or MAC, "force": false}`: that peer is gone for good; its addresses come to this node."""
        uids, names = self._peers_called(body.get("peer"))
        for name in names:
            self._refuse_living(name, force=body.get("force") is True)
        council = self._node.council
        count = sum(council.ring.owners().get(uid, 0) for uid in uids)
        for name in names:
            if uids:
                council.decrees.remove(name)
            else:  # it never had a seat: nothing has to be agreed
                self._node.drop(name)
        self._driver.kick()
        until_s = asyncio.get_running_loop().time() + _RMPEER_WAIT_S
        while any(uid in council.seats for uid in uids):
            if asyncio.get_running_loop().time() > until_s:
                too_few = council.decrees.recovery.majority_is_silent
                raise CheckError(
                    f"{', '.join(sorted(names))} is not removed yet: {council.waiting or council.status()}",
                    hint="if that many are gone for good: weave recover"
                    if too_few
                    else "it goes on by itself; `weave status ipam` shows when it is done",
                )
            await asyncio.sleep(_POLL_S)
        return {"removed": sorted(names), "addresses": count}

    async def recover(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"without": ["node2", ...], "force": false}`: too many are gone for good; the others go on without them."""
        return await self._recovering.recover(body)

    def _peers_called(self, wanted: object) -> tuple[list[str], set[str]]:
        """The seats and the nodes that a name, uid or MAC means.

        Raises:
            InputError: None, or this node itself.
        """
        if not isinstance(wanted, str) or not wanted:
            raise InputError("wanted the peer to remove", hint='{"peer": "node3"}: its name, uid or MAC')
        seats = self._node.council.seats
        uids = [uid for uid, seat in seats.items() if wanted in {uid, seat.name, self._mac(seat.name)}]
        names = {seats[uid].name for uid in uids} or {
            name for name in self._node.members.others if wanted in {name, self._mac(name)}
        }
        if not names:
            known = sorted({seat.name for seat in seats.values()} | set(self._node.members.others))
            raise InputError(f"wanted a peer of this cluster, found {wanted!r}", hint=f"peers: {', '.join(known)}")
        if self._config.name in names:
            raise InputError("this is the node itself", hint="`weave reset` makes it leave the cluster")
        return uids, names

    def _refuse_living(self, name: str, *, force: bool) -> None:
        """See that nobody hears a peer, nor its pods.

        Raises:
            CheckError: It, or its node, answers.
        """
        member = self._node.members.others.get(name)
        if member is None:
            return
        if member.answers:
            raise CheckError(
                f"{name} answers: only a peer that is gone for good can be removed",
                hint=f"on {name} itself, `weave reset` makes it leave",
            )
        if self._carries(member.address) and not force:
            raise CheckError(
                f"the agent of {name} is down, but its node answers through the overlay: its pods may be alive, "
                "and their addresses would be given to others",
                hint=f"start the agent of {name}; only if no pod lives there: weave rmpeer --force {name}",
            )

    async def reset(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"force": false}`: leave the cluster for good, hand the addresses over, remove what the agent has made."""
        pods = self._attachments.records
        if pods and body.get("force") is not True:
            first = next(iter(pods.values()))
            raise CheckError(
                f"{len(pods)} pods of this node are attached, the first is {first.label} with {first.address}",
                hint="delete them first; with force they lose their network",
            )
        self._upkeep.stop()
        await self._attachments.remove(*pods.values())
        self._node.leave()
        written = self._driver.flush()
        await asyncio.sleep(_RESET_WAIT_S)  # the others hear of it from several sides
        self._store.wipe()
        rules.remove_rules()
        with Netfilter() as netfilter, contextlib.suppress(MissingError):
            remove_passage(netfilter)
        guard.remove_guard()
        for name in (f"vxlan-{self._config.vxlan_port}", self._config.bridge):
            link = self._netlink.link(name)
            if link is not None:
                with contextlib.suppress(OSError):
                    self._netlink.request(rtnl.link_del(link.index), what=f"delete {name}")
        self._log.warning("left the cluster", extra={"addresses_handed_over": written})
        self._stop.set()
        return {"reset": True}

    async def expose(self, _body: dict[str, Any]) -> dict[str, Any]:
        """Give the switch its address again: pods reach the outside, and the node reaches pods."""
        self._gateway.expose()
        self._driver.flush()
        return {"address": None if self._gateway.address is None else str(self._gateway.address)}

    async def hide(self, _body: dict[str, Any]) -> dict[str, Any]:
        """Take the switch's address away; pods still reach each other."""
        self._gateway.hide()
        return {"address": None}

    async def hold(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"object": "link vxlan-6784", "reason": ""}`: whatever is broken of it stays so until it is released."""
        reason = body.get("reason", "")
        if not isinstance(reason, str) or len(reason) > _REASON_MAX:
            raise InputError(f"wanted a reason of at most {_REASON_MAX} characters", hint='{"reason": "exercise 3"}')
        self._upkeep.hold(self._object(body), reason)
        return {"held": self._upkeep.held()}

    async def release(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"object": "link vxlan-6784"}`: mend it again, at once."""
        name = self._object(body)
        if not self._upkeep.release(name):
            held = ", ".join(self._upkeep.held()) or "nothing"
            raise InputError(f"{name} is not held", hint=f"held: {held}; `weave release everything` releases all")
        return {"held": self._upkeep.held()}

    def _object(self, body: dict[str, Any]) -> str:
        """The object, group of objects, or everything, that a request names.

        Raises:
            InputError: It names none that there is.
        """
        wanted, known = body.get("object"), self._upkeep.objects()
        kinds = dict.fromkeys(name.split(" ", 1)[0] for name in known)
        if not isinstance(wanted, str) or wanted not in {EVERYTHING, *kinds, *known, *self._upkeep.held()}:
            raise InputError(
                f"wanted an object of this node, found {wanted!r}",
                hint=f"{EVERYTHING}, a group ({', '.join(kinds)}), or one of: {', '.join(known)}",
            )
        return wanted

    def _mac(self, name: str) -> str:
        return bridge_mac(self._config.cluster, name)


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object of a request; an empty body is an empty object.

    Raises:
        InputError: It is none.
    """
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError("wanted a JSON object as the body of the request", hint='for example {"peer": "node3"}')
    return value


def _addresses(body: dict[str, Any]) -> list[IPv4Address]:
    listed = body.get("addresses")
    if not isinstance(listed, list) or not 0 < len(listed) <= _ADDRESSES_MAX:
        raise InputError(f"wanted 1 to {_ADDRESSES_MAX} node addresses", hint='{"addresses": ["192.168.56.11"]}')
    try:
        return [IPv4Address(str(text)) for text in listed]
    except ValueError as error:
        hint = "the address by which a node is reached, for example 192.168.56.11"
        raise InputError(f"wanted IPv4 addresses of nodes: {error}", hint=hint) from error
