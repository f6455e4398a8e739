"""Who may take part: other clusters and passwords, cloned machines, removed members and pods are refused, and told why.

A refusal is remembered for a while, for status shows it on both sides; nothing else follows from what a stranger says.
What anybody can say in anybody's name counts for nothing where a member lives.
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

_ANSWERED_MAX: Final = 64
"""So many addresses are answered within that time; further ones are not, and try again."""

_COUNTED: Final = {
    "cluster": "other cluster",
    "password": "other password",
    "session": "other session",
    "replay": "replayed",
}


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
        way: By which of this node's addresses an address is reached, as the kernel says; None: by none.
        refuser: The member that does not take this agent for one of the cluster; empty when none is known.
    """

    def __init__(self, outbox: Outbox, council: Council, is_seed: Callable[[IPv4Address], bool]) -> None:
        self._outbox = outbox
        self._council = council
        self._is_seed = is_seed
        self._answered: dict[IPv4Address, float] = {}
        self.refused: dict[IPv4Address, Refused] = {}
        self.changed = False
        self._removed_until_s = float("-inf")
        self.way: Callable[[IPv4Address], IPv4Address | None] = lambda _to: outbox.members.me.address
        self.refuser = ""

    def admits(self, sender: Member, source: IPv4Address, *, now_s: float) -> bool:
        """Whether a datagram counts; who sent it is told why not."""
        # By way of a member it may have come from anywhere.
        refusal = self.turned_away(sender, source, relayed=self._outbox.members.at(source) is not None, now_s=now_s)
        if refusal is not None:
            self.tell(self._place_of(sender, source, refusal), sender, refusal, now_s=now_s)
        return refusal is None

    def tell(self, to: IPv4Address, sender: Member, refusal: kinds.Refuse, *, now_s: float) -> None:
        """Who speaks from this address is told why it does not count, if it was not told just now."""
        if self._may_answer(to, now_s):
            self._outbox.send_to(to, sender.session, refusal)

    def turned_away(
        self, sender: Member, source: IPv4Address, *, relayed: bool = False, now_s: float
    ) -> kinds.Refuse | None:
        """What a sender is told that must not take part, which is counted and noted; None when it may.

        Args:
            sender: Who it says it is.
            source: Where its message came from.
            relayed: It may have come by way of the member there.
            now_s: The time.
        """
        refusal = self._name_taken(sender) or self._misplaced(sender, source, relayed=relayed)
        if refusal is not None:
            rejected = self._outbox.counters.rejected
            rejected["no node" if refusal.code == "place" else "name taken"] += 1
            reasons = {"removed": "it was removed", "name": f"its name {sender.name!r} is that of another node"}
            where = self._place_of(sender, source, refusal)
            self.note(where, sender.name, reasons.get(refusal.code, refusal.reason), now_s)
        return refusal

    @staticmethod
    def _place_of(sender: Member, source: IPv4Address, refusal: kinds.Refuse) -> IPv4Address:
        """Where a refused sender is: where it says, which may be behind the member at `source` that relays for it."""
        return source if refusal.code == "place" else sender.address

    def admitted(self, by: str, *, now_s: float) -> None:
        """A member has answered this agent: if it was the one that refused it, it does not any more.

        A refusal may be on its way while the reason for it goes, as when this node has another address than before.
        """
        if self.refuser and (by == self.refuser or self.refuser not in self._outbox.members.others):
            self.accepted(now_s=now_s)

    def welcome(self, address: IPv4Address) -> None:
        """Who was refused is not any more."""
        if self.refused.pop(address, None) is not None:
            self.changed = True

    def accepted(self, *, now_s: float) -> None:
        """A member answered this agent as one of its own: it is refused no more, unless it was removed.

        Others that were removed or given up with it answer as ever, which does not count while one who stayed is heard.
        """
        if now_s >= self._removed_until_s:
            self.refuser = ""
            self._council.refuse("")

    def forget_old(self, *, now_s: float) -> None:
        """What was long ago may have been repaired."""
        for address, refused in list(self.refused.items()):
            if now_s - refused.since_s > _KEPT_S:
                del self.refused[address]
                self.changed = True

    def _name_taken(self, sender: Member) -> kinds.Refuse | None:
        if sender.name == self._outbox.members.me.name:
            reason = f"its own name is {sender.name!r} too: every node needs a name of its own"
            return kinds.Refuse("name", reason, sender.uid)
        known = self._outbox.members.others.get(sender.name)
        if known is not None and known.address != sender.address and known.answers:
            reason = f"the name {sender.name!r} is that of {known.address}: every node needs its own"
            return kinds.Refuse("name", reason, sender.uid)
        if sender.uid in self._council.gone and self._council.seated:
            reason = "it was removed from the cluster: `weave reset` makes it a new member"
            return kinds.Refuse("removed", reason, sender.uid)
        return None

    def _misplaced(self, sender: Member, source: IPv4Address, *, relayed: bool) -> kinds.Refuse | None:
        """Agents are on nodes: at an address of the underlay, and nowhere else."""
        network, address = self._outbox.keys.network, sender.address
        known = self._outbox.members.at(address) is not None
        if known and (relayed or source == address):
            return None
        reason = ""
        if source in network or address in network:
            inside = source if source in network else address
            reason = f"the address {inside} is in the pod range {network}: agents run on nodes, not in pods"
        elif source != address and not relayed:
            reason = f"its address is {address}, and its messages come from {source}: is there NAT between the nodes?"
        elif not known:
            way = self.way(address)
            if way is None:
                reason = f"no route of this node leads to {address}"
            elif way in network:
                reason = f"the route to {address} leads to the pods' switch and not to the underlay"
        return kinds.Refuse("place", reason, sender.uid) if reason else None

    def turn_away(self, record: Member, there: IPv4Address, *, now_s: float) -> kinds.Refuse:
        """A sender is not the member it seems to be, for that one answers at the address `there`."""
        self._outbox.counters.rejected["name taken"] += 1
        self.note(record.address, record.name, f"its name {record.name!r} is that of another node", now_s)
        reason = f"the name {record.name!r} is that of {there}, which answers: every node needs its own"
        return kinds.Refuse("name", reason, record.uid)

    def refusal(self, code: str) -> kinds.Refuse:
        """What those of another cluster are told; `code` as `StrangerError` has it."""
        if code == "password":
            return kinds.Refuse(code, "its password is another one")
        keys = self._outbox.keys
        return kinds.Refuse(
            code, f"it belongs to cluster {keys.cluster!r} with pod range {keys.network}, overlay {keys.overlay}"
        )

    def refuse(self, source: IPv4Address, error: wire.StrangerError, now_s: float) -> kinds.Refuse | None:
        """Somebody speaks who knows no better, or does as if; what may be answered, if anything."""
        self._outbox.counters.rejected[_COUNTED[error.code]] += 1
        if error.code in {"replay", "session"} or self._lives(source):
            return None
        said = self.refused.get(source)
        if said is not None and now_s - said.since_s < _REPEAT_S:
            return None
        if not self._is_wanted(source) and len(self.refused) >= _KEPT_MAX:
            return None
        if error.code == "password":
            reason = "its password is another one than here"
        else:
            keys = self._outbox.keys
            reason = f"it belongs to another cluster: here {keys.cluster!r} with pod range {keys.network}"
        # What it says of itself, if it says something, is better than what can be guessed here.
        self.note(source, "", said.reason if said is not None and "it says" in said.reason else reason, now_s)
        return self.refusal(error.code)

    def greets(self, source: IPv4Address, error: wire.StrangerError, now_s: float) -> bool:
        """Whether to say who this agent is now: to whoever seems to know an earlier life of it."""
        knows_no_better = error.code == "session" and error.head.kind not in {kinds.Kind.HELLO, kinds.Kind.REFUSE}
        # What was sent to a member whose address this node has now comes back: this agent need not greet itself.
        elsewhere = source != self._outbox.members.me.address and source not in self._outbox.keys.network
        return knows_no_better and elsewhere and self._may_answer(source, now_s)

    def listens(self, source: IPv4Address, now_s: float) -> bool:
        """Whether a refusal counts that anybody can have written: for status, from where others are looked for."""
        return self._is_wanted(source) and not self._lives(source) and self._may_answer(source, now_s)

    def on_refuse(self, received: wire.Received, source: IPv4Address, now_s: float, *, asked: bool = False) -> None:
        """Somebody does not want us: believed for status, and only of those we wanted something from (or `asked`)."""
        refuse = received.message
        assert isinstance(refuse, kinds.Refuse)
        unwanted = not (asked or self._is_wanted(source))
        if unwanted or (not received.sealed and self._lives(source)):
            return
        if refuse.uid not in {"", self._outbox.members.me.uid}:
            return  # meant for an earlier agent of this node
        self.note(source, received.sender.name, f"it says: {refuse.reason}", now_s)
        if received.sender.uid in self._council.gone:
            return  # each has given up the other: this agent goes on with its own
        if received.sealed and refuse.code == "removed":
            self._removed_until_s = now_s + _KEPT_S
        # Only who knows the password can keep this agent from giving addresses out.
        if received.sealed and refuse.code in {"name", "removed"} and not self._council.refused:
            self.refuser = received.sender.name
            self._council.refuse(f"refused by {received.sender.name} ({source}): {refuse.reason}")
            self._outbox.add(Noted("refused", (("by", str(source)), ("reason", refuse.reason)), serious=True))

    def note(self, address: IPv4Address, name: str, reason: str, now_s: float) -> None:
        """Remember a refusal, for status."""
        known = self.refused.get(address)
        if known is not None or len(self.refused) < _KEPT_MAX:
            self.refused[address] = Refused(name, reason, now_s)
            self.changed |= known is None or (known.name, known.reason) != (name, reason)

    def _may_answer(self, source: IPv4Address, now_s: float) -> bool:
        last_s = self._answered.get(source)
        if last_s is None and len(self._answered) >= _ANSWERED_MAX:
            self._answered = {one: at_s for one, at_s in self._answered.items() if now_s - at_s < _REPEAT_S}
        if (last_s is not None and now_s - last_s < _REPEAT_S) or len(self._answered) >= _ANSWERED_MAX:
            return False
        self._answered[source] = now_s
        return True

    def _lives(self, address: IPv4Address) -> bool:
        member = self._outbox.members.at(address)
        return member is not None and member.answers

    def _is_wanted(self, source: IPv4Address) -> bool:
        """Whether this agent has any business with that node."""
        return self._is_seed(source) or self._outbox.members.at(source) is not None
