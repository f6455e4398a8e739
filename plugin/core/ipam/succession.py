"""What it means when two rings of different names meet: one was recovered from the other, or they were founded apart.

A ring that lost so many seats that nothing can be agreed any more is recovered (recovery.py) as another ring with
another name. Its origins say from which ring, at which epoch, and who was given up. Whoever was left takes the new ring
up when it hears of it; whoever was given up, or was given a seat by those, is refused and must begin anew, since its
addresses are others' now. The two never mix.
"""

from enum import Enum
from hashlib import blake2b

from plugin.core.messages.values import Origin, RingState, Value


class Meeting(Enum):
    """How one agent's ring relates to that of a state it is told."""

    TAKE = "theirs was recovered from ours, and we have a place in it"
    AHEAD = "ours was recovered from theirs, and they have a place in it: they will take ours"
    LOST = "theirs was recovered from ours, and we were given up"
    FORGOTTEN = "ours was recovered from theirs, and they were given up"
    APART = "neither comes from the other"


def meet(mine: RingState, me: str, theirs: RingState, whose: str) -> Meeting:
    """How `mine` and `theirs`, which have different names, relate.

    Args:
        mine: What the agent that asks has agreed to.
        me: Its uid.
        theirs: What it is told.
        whose: The uid of the agent that tells.
    """
    if (origin := _origin(theirs, mine.ring)) is not None:
        return Meeting.TAKE if _has_place(me, mine, origin, theirs) else Meeting.LOST
    if (origin := _origin(mine, theirs.ring)) is not None:
        return Meeting.AHEAD if _has_place(whose, theirs, origin, mine) else Meeting.FORGOTTEN
    return Meeting.APART


def name_of(value: Value) -> str:
    """The name of the ring that a recovery begins: the same for whoever carries this decree out, and no other's."""
    origin = value.origins[-1]
    words = [
        f"{origin.ring} {origin.epoch}",
        *(f"{seat.uid} {seat.name} {seat.address}" for seat in value.seats),
        *(f"without {seat.uid}" for seat in origin.lost),
        *(f"{segment} {segment.version} {segment.owner}" for segment in value.segments),
    ]
    return blake2b("\n".join(words).encode(), digest_size=8).hexdigest()


def sentence(meeting: Meeting, mine: str, theirs: str) -> str:
    """Why two agents of these rings refuse each other; empty when they do not because of a recovery."""
    if meeting is Meeting.LOST:
        return (
            f"its ring {theirs} was recovered from {mine} without this node, whose addresses are others' now: delete "
            "the pods of this node, then `weave reset` makes it a new member"
        )
    if meeting is Meeting.FORGOTTEN:
        return f"its ring {theirs} was recovered here as {mine} without it: `weave reset` there makes it a new member"
    return ""


def _origin(state: RingState, ring: str) -> Origin | None:
    return next((origin for origin in state.origins if origin.ring == ring), None)


def _has_place(uid: str, old: RingState, origin: Origin, new: RingState) -> bool:
    """Whether an agent that is still in the old ring may go over to the new one."""
    if uid not in {seat.uid for seat in old.seats}:
        return uid not in new.left  # it never had a seat: nothing of the old ring is its own
    return uid in {seat.uid for seat in new.seats} and old.epoch <= origin.epoch
