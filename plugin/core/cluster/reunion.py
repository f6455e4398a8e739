"""Joining a cluster, and becoming equal again after having been apart: two agents tell each other everything.

An agent looks at its seeds until a member answers there, less and less often. When nobody at all answers, it looks
where members of the ring were as well, because the seeds may be the ones that are gone; and always where there is a
seat of which it has not heard since it started.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cluster.door import Door
from plugin.core.forwarding.endpoints import Directory
from plugin.core.ipam.council import Council
from plugin.core.membership.swim import HELPERS, Chance, chosen
from plugin.core.messages import kinds, values, wire
from plugin.core.messages.values import Member
from plugin.core.outbox import Outbox

_JOIN_S: Final = 0.3
_JOIN_MAX_S: Final = 5.0


class Reunion:
    """Looks for others, and exchanges everything with them.

    Args:
        outbox: Where messages go; its members say who is there.
        directory: The endpoint tables.
        council: What is agreed about addresses.
        door: Remembers who is refused.
        chance: Randomness.
        take_in: What becomes of what somebody tells.
        seeds: Addresses at which other agents may be found.

    Attributes:
        seeds: The same, each with what is the matter there.
        changed: Whether what is the matter is another than when somebody last set this to False.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        directory: Directory,
        council: Council,
        door: Door,
        chance: Chance,
        take_in: Callable[[kinds.Sync, float], None],
        seeds: Iterable[IPv4Address],
    ) -> None:
        self._outbox = outbox
        self._directory = directory
        self._council = council
        self._door = door
        self._chance = chance
        self._take_in = take_in
        self.seeds = {seed: "" for seed in seeds if seed != outbox.members.me.address}
        self.changed = True
        self._now_s = 0.0
        self._asking: set[IPv4Address] = set()
        self._due: dict[IPv4Address, tuple[float, float]] = {}
        self._remembered: list[IPv4Address] = []
        self._next_remembering_s = 0.0

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next."""
        return min([self._next_remembering_s, *(self._due.get(seed, (0.0, 0.0))[0] for seed in self._unjoined())])

    def on_timer(self, *, now_s: float) -> None:
        """Look wherever it is time to."""
        self._now_s = now_s
        members = self._outbox.members
        if now_s >= self._next_remembering_s:
            self._next_remembering_s = now_s + _JOIN_MAX_S
            alone = not any(member.answers for member in members.others.values())
            seats = {seat.address for seat in self._council.seats.values()} - {members.me.address}
            # Also who is not a member here: after a recovery, those who were given up have to hear of it.
            places = {str(address) for address in seats if alone or members.at(address) is None}
            self._remembered = [IPv4Address(place) for place in chosen(self._chance, places, HELPERS)]
        for seed in self._unjoined():
            due_s, wait_s = self._due.get(seed, (now_s, _JOIN_S))
            if now_s >= due_s:
                # Agents that were started together must not try together, over and over.
                self._due[seed] = now_s + wait_s * (0.5 + self._chance.random()), min(wait_s * 1.5, _JOIN_MAX_S)
                self.sync(seed)

    def look_at(self, addresses: Iterable[IPv4Address], *, instead: bool = False) -> None:
        """Look there too, or only there."""
        own = self._outbox.members.me.address
        if instead:
            self.seeds.clear()
        self.seeds |= {address: "" for address in addresses if address != own and address not in self.seeds}
        self.changed = True

    def follow(self, before: IPv4Address, now: IPv4Address) -> None:
        """A member's node has another address: who looked for it at the old one looks at the new one."""
        if before not in self.seeds:
            return
        there = self._outbox.members.at(before)
        if there is None or not there.answers:
            self.look_away([before])
        self.look_at([now])

    def moved(self) -> None:
        """This agent's node has another address: look at once wherever nobody was found."""
        self.seeds.pop(self._outbox.members.me.address, None)
        self._due.clear()
        self._next_remembering_s = 0.0
        self.changed = True

    def look_away(self, addresses: Iterable[IPv4Address]) -> None:
        """Look there no more."""
        for address in addresses:
            self.seeds.pop(address, None)
            self._due.pop(address, None)
        self.changed = True

    def _unjoined(self) -> list[IPv4Address]:
        """The seeds at which no member is known to be, and that are not being asked just now."""
        return [
            seed
            for seed in (*self.seeds, *self._remembered)
            if seed not in self._asking and not ((member := self._outbox.members.at(seed)) and member.answers)
        ]

    def sync(self, to: IPv4Address, tables: tuple[values.Table, ...] = ()) -> None:
        """Exchange everything with the agent at an address."""
        if to not in self._asking and to != self._outbox.members.me.address:
            self._asking.add(to)
            self._outbox.call(
                to,
                self._everything(tables),
                lambda sender, answer: self._on_sync_answer(to, sender, answer),
                lambda reason: self._on_no_sync(to, reason),
            )

    def _on_no_sync(self, to: IPv4Address, reason: str) -> None:
        self._asking.discard(to)
        if to in self.seeds:
            self.changed = True
            self.seeds[to] = f"no answer on TCP port 6783: {reason}"

    def _everything(self, tables: tuple[values.Table, ...]) -> kinds.Sync:
        by_address, members = self._directory.remote, self._outbox.members
        have = [values.Have(self._outbox.members.me.name, self._directory.own.incarnation, self._directory.own.version)]
        for name, member in members.others.items():
            if (table := by_address.get(member.address)) is not None and members.at(member.address) is member:
                have.append(values.Have(name, table.incarnation, table.version))
        return kinds.Sync(
            self._outbox.members.everybody(),
            self._outbox.links.all,
            tuple(have),
            tables,
            (),
            self._council.state,
            self._council.has_pods,
        )

    def on_sync(self, sync: kinds.Sync, sender: Member, *, now_s: float) -> kinds.Answer:
        """Somebody tells everything; the answer is everything from here, and what of it is wanted."""
        conflict = self._council.merge(sync.state, whose=sender.uid, theirs_has_pods=sync.pods)
        if conflict:
            self._door.note(sender.address, sender.name, conflict, now_s)
            return kinds.Refuse("ring", self._council.why_apart(sync.state, sender.uid))
        self._take_in(sync, now_s)
        theirs = {have.name: (have.life, have.version) for have in sync.have}
        mine = self._everything(())
        newer = [have for have in mine.have if theirs.get(have.name, (0, 0)) < (have.life, have.version)]
        known = {have.name: (have.life, have.version) for have in mine.have}
        wanted = tuple(
            have.name
            for have in sync.have
            if have.name != self._outbox.members.me.name and known.get(have.name, (0, 0)) < (have.life, have.version)
        )
        return replace(mine, tables=self._tables(have.name for have in newer), wanted=wanted)

    def _on_sync_answer(self, to: IPv4Address, sender: Member, answer: kinds.Answer) -> None:
        self._asking.discard(to)
        if not isinstance(answer, kinds.Sync):  # and who refuses is asked again as seldom as who is silent
            if to in self.seeds and isinstance(answer, kinds.Refuse):
                self.changed = True
                self.seeds[to] = f"it says: {answer.reason}"
            return
        conflict = self._council.merge(answer.state, whose=sender.uid, theirs_has_pods=answer.pods)
        if not conflict:
            self._due.pop(to, None)
        else:
            self._door.note(to, sender.name, conflict, self._now_s)
            return
        self._take_in(answer, self._now_s)
        wanted = self._tables(name for name in answer.wanted)
        if wanted:
            self.sync(to, wanted)

    def _tables(self, names: Iterable[str]) -> tuple[values.Table, ...]:
        """The tables of these members, as many as one exchange takes; the rest follows with the next."""
        found: list[values.Table] = []
        room = wire.FRAME_BYTES_MAX // 2
        for name in names:
            if name == self._outbox.members.me.name:
                table = self._directory.own
            else:
                member = self._outbox.members.others.get(name)
                if member is None or self._outbox.members.at(member.address) is not member:
                    continue
                known = self._directory.remote.get(member.address)
                if known is None:
                    continue
                table = known
            room -= 100 * (len(table.endpoints) + 1)
            if room < 0:
                break
            found.append(values.Table(name, table.incarnation, table.version, tuple(sorted(table.endpoints))))
        return tuple(found)
