"""Who may take part: other clusters, other passwords, cloned machines and removed members are refused, and told why.

A refusal is remembered for a while, for status shows it on both sides; nothing else follows from what a stranger says.
"""

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from plugin.core.ipam.council import Council
from plugin.core.messages import kinds, wire
from plugin.core.messages.values import Member
from plugin.core.outbox import Noted, Outbox

_KEPT_S: Final = 30.0
_KEPT_MAX: Final = 64
_REPEAT_S: Final = 1.0
"""A stranger is answered so often at most: nobody can make this agent flood a third."""


class Refused(NamedTuple):
    """Who is refused, or refuses us: its name as far as it is known, why, and since when."""

    name: str
    reason: str
    since_s: float


class Door:
    """Lets in, and refuses.

    Args:
        outbox: Where messages go; its members say who is there.
        council: Gives nothing out while a member refuses this agent.
        is_seed: Whether this agent looks for others at an address.

    Attributes:
        refused: Who is refused, by node address.
        changed: Whether `refused` is another than when somebody last set this to False.
    """

    def __init__(self, outbox: Outbox, council: Council, is_seed: Callable[[IPv4Address], bool]) -> None:
        self._outbox = outbox
        self._council = council
        self._is_seed = is_seed
        self.refused: dict[IPv4Address, Refused] = {}
        self.changed = False

    def admits(self, sender: Member, *, now_s: float) -> bool:
        """Whether a datagram counts: it is no other machine of a name that is taken, and no member that was removed."""
        taken = self.name_taken(sender)
        if taken is None:
            return True
        self._outbox.counters.rejected["name taken"] += 1
        known = self.refused.get(sender.address)
        if known is None or known.since_s + _REPEAT_S < now_s:
            self._outbox.send_direct(sender.address, taken)
        reason = "it was removed" if taken.code == "removed" else f"its name {sender.name!r} is that of another node"
        self.note(sender.address, sender.name, reason, now_s)
        return False

    def welcome(self, address: IPv4Address) -> None:
        """Who was refused is not any more."""
        if self.refused.pop(address, None) is not None:
            self.changed = True

    def forget_old(self, *, now_s: float) -> None:
        """What was long ago may have been repaired."""
        for address, refused in list(self.refused.items()):
            if now_s - refused.since_s > _KEPT_S:
                del self.refused[address]
                self.changed = True

    def name_taken(self, sender: Member) -> kinds.Refuse | None:
        """Why this sender is not the member it seems to be; None when it may be."""
        if sender.name == self._outbox.members.me.name:
            reason = f"its own name is {sender.name!r} too: every node needs a name of its own"
            return kinds.Refuse("name", reason, sender.uid)
        known = self._outbox.members.others.get(sender.name)
        if known is not None and known.address != sender.address and known.answers:
            reason = f"the name {sender.name!r} is that of {known.address}: every node needs its own"
            return kinds.Refuse("name", reason, sender.uid)
        if sender.uid in self._council.left:
            reason = "it was removed from the cluster: `weave reset` makes it a new member"
            return kinds.Refuse("removed", reason, sender.uid)
        return None

    def refusal(self, code: str) -> kinds.Refuse:
        """What those of another cluster are told; `code` as `OtherClusterError` has it."""
        if code == "password":
            return kinds.Refuse(code, "its password is another one")
        keys = self._outbox.keys
        return kinds.Refuse(
            code, f"it belongs to cluster {keys.cluster!r} with pod range {keys.network}, overlay {keys.overlay}"
        )

    def refuse(self, source: IPv4Address, code: str, now_s: float) -> None:
        """Somebody of another cluster, or with another password, speaks."""
        self._outbox.counters.rejected["other password" if code == "password" else "other cluster"] += 1
        known = self._is_wanted(source)
        said = self.refused.get(source)
        if (said is None or now_s - said.since_s >= _REPEAT_S) and (known or len(self.refused) < _KEPT_MAX):
            self._outbox.send_direct(source, self.refusal(code))
            if code == "password":
                reason = "its password is another one than here"
            else:
                keys = self._outbox.keys
                reason = f"it belongs to another cluster: here {keys.cluster!r} with pod range {keys.network}"
            # What it says of itself, if it says something, is better than what can be guessed here.
            self.note(source, "", said.reason if said is not None and "it says" in said.reason else reason, now_s)

    def on_refuse(self, received: wire.Received, source: IPv4Address, now_s: float) -> None:
        """Somebody does not want us: believed for status, and only of those we wanted something from."""
        refuse = received.message
        assert isinstance(refuse, kinds.Refuse)
        if not self._is_wanted(source):
            return
        if refuse.uid not in {"", self._outbox.members.me.uid}:
            return  # meant for an earlier agent of this node
        self.note(source, received.sender.name, f"it says: {refuse.reason}", now_s)
        # Only who knows the password can keep this agent from giving addresses out.
        if received.sealed and refuse.code in {"name", "removed"} and not self._council.refused:
            self._council.refuse(f"refused by {received.sender.name} ({source}): {refuse.reason}")
            self._outbox.add(Noted("refused", (("by", str(source)), ("reason", refuse.reason)), serious=True))

    def note(self, address: IPv4Address, name: str, reason: str, now_s: float) -> None:
        """Remember a refusal, for status."""
        if address in self.refused or len(self.refused) < _KEPT_MAX:
            self.refused[address] = Refused(name, reason, now_s)
            self.changed = True

    def _is_wanted(self, source: IPv4Address) -> bool:
        """Whether this agent has any business with that node."""
        return self._is_seed(source) or self._outbox.members.at(source) is not None
