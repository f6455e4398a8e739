"""`weave recover`: what a person is shown before, and how it is carried out. plugin/core/ipam/recovery.py decides.

Without `force` nothing changes: whoever asks sees which seats would be given up, whose addresses would be taken over,
and what that risks. With it, the peers that are gone for good have to be named.
"""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final

from plugin.core.errors import CheckError, InputError
from plugin.core.ipam.recovery import Prospect
from plugin.core.messages.values import Seat
from plugin.core.node import Node

_WAIT_S: Final = 8.0
"""How long the others' agreement is waited for; then the word is taken back. Less than the patience of `weave`."""

_POLL_S: Final = 0.05

_RISKS: Final = (
    "Their addresses go to new pods. If one of them still runs, two pods may have the same address: see that it is off",
    "Seats and addresses that they gave away while this node was cut off from them are not known here, and given up",
    "There is no way back. Who is given up and comes back is refused: delete its pods, then `weave reset` there",
)


class Recovering:
    """Carries the request out.

    Args:
        node: The decisions.
        carries: Whether the overlay still carries packets to a node.
        mac: The address by which `weave status` shows a node, from its name.
        kick: Lets the node act at once.
    """

    def __init__(
        self,
        node: Node,
        *,
        carries: Callable[[IPv4Address], bool],
        mac: Callable[[str], str],
        kick: Callable[[], None],
    ) -> None:
        self._node = node
        self._carries = carries
        self._mac = mac
        self._kick = kick

    async def recover(self, body: dict[str, Any]) -> dict[str, Any]:
        """`{"without": ["node2", ...], "force": false}`: these are gone for good, and the others go on.

        Raises:
            InputError: A peer that has no seat, or none was named with force.
            CheckError: It cannot be done, or did not come about in time; the text says why.
        """
        force, wanted = body.get("force") is True, body.get("without", [])
        if not isinstance(wanted, list) or not all(isinstance(one, str) and one for one in wanted):
            raise InputError("wanted the peers that are gone for good", hint='{"without": ["node2", "node3"]}')
        council = self._node.council
        if wanted and self._done_before(wanted):
            return self._told(council.decrees.recovery.prospect(frozenset()), done=True)
        recovery = council.decrees.recovery
        named = self._seats_called(wanted) if wanted else frozenset(seat.uid for seat in recovery.silent_seats())
        prospect = recovery.prospect(named)
        if prospect.obstacle:
            raise CheckError(prospect.obstacle, hint=prospect.advice)
        if not force:
            return self._told(prospect, done=False)
        if not wanted:
            raise InputError(
                "name the peers that are gone for good", hint=f"if it is all of these: {_command(prospect)}"
            )
        await self._carry_out(named)
        return self._told(prospect, done=True)

    async def _carry_out(self, lost: frozenset[str]) -> None:
        council, loop = self._node.council, asyncio.get_running_loop()
        until_s = loop.time() + _WAIT_S
        council.decrees.recover(lost, until_s=until_s)
        self._kick()
        while lost & council.seats.keys():
            if loop.time() >= until_s:
                under_way = council.recovery is not None
                raise CheckError(
                    f"the ring is not recovered: {council.waiting or council.status()}",
                    hint="it is agreed to and goes on by itself; `weave status ipam` shows when it is done"
                    if under_way
                    else "nothing has changed; `weave status connections` shows who answers",
                )
            await asyncio.sleep(_POLL_S)

    def _done_before(self, wanted: list[str]) -> bool:
        """Whether these were given up already: the same command on two nodes, or twice."""
        seats = self._node.council.seats.values()
        known = {word for seat in seats for word in self._words(seat)}
        given_up = [seat for origin in self._node.council.origins for seat in origin.lost]
        past = {word for seat in given_up for word in self._words(seat)}
        return all(one in past and one not in known for one in wanted)

    def _seats_called(self, wanted: list[str]) -> frozenset[str]:
        """The seats that these names, uids or MACs mean.

        Raises:
            InputError: One means none.
        """
        council, found = self._node.council, set[str]()
        for one in wanted:
            uids = {uid for uid, seat in council.seats.items() if one in self._words(seat)}
            if not uids:
                known = ", ".join(sorted(seat.name for seat in council.seats.values()))
                raise InputError(f"wanted peers that have a seat in the ring, found {one!r}", hint=f"seats: {known}")
            # A node whose disk was lost has an old seat that nobody speaks for, and perhaps a new one.
            found |= {uid for uid in uids if uid != council.uid and not council.answers(uid)} or uids
        return frozenset(found)

    def _words(self, seat: Seat) -> set[str]:
        return {seat.uid, seat.name, self._mac(seat.name)}

    def _told(self, prospect: Prospect, *, done: bool) -> dict[str, Any]:
        council = self._node.council
        return {
            "recovered": done,
            "ring": council.ring_id,
            "epoch": council.epoch,
            "without": [
                {
                    "name": seat.name,
                    "uid": seat.uid,
                    "address": str(seat.address),
                    "addresses": prospect.addresses[seat.uid],
                    "heir": prospect.heirs[seat.uid],
                    # A new agent on the same node takes its own pods' addresses over: nothing is given to others.
                    "overlay_answers": prospect.heirs[seat.uid] != seat.name and self._carries(seat.address),
                }
                for seat in prospect.lost
            ],
            "with": [{"name": seat.name, "uid": seat.uid, "address": str(seat.address)} for seat in prospect.left],
            "addresses": sum(prospect.addresses.values()),
            "risks": list(_RISKS),
            "command": _command(prospect),
        }


def _command(prospect: Prospect) -> str:
    return f"weave recover --force --without {' '.join(seat.name for seat in prospect.lost)}"
