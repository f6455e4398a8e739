"""One agent without its sockets, clock, disk and kernel: bytes and time in, effects out. Read `Node` for all it can do.

The driver (plugin/agent/driver.py) hands in what arrives (`on_datagram`, `on_request`, `on_answer`), calls `on_timer`,
and carries out `effects`. Thousands of these objects run in one seeded simulation (tests/sim).

Its parts, each a file: who is there (members.py) and who answers (swim.py), who is where (endpoints.py, spread.py), who
may give which addresses away (council.py, ring.py, allocator.py), and every message (wire.py). This file joins them:
what a ping carries, what follows from its answer, how an agent joins, and how two that were apart become equal again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from plugin.core.cluster.door import Door
from plugin.core.cluster.reunion import Reunion
from plugin.core.cluster.showing import Showing
from plugin.core.forwarding.endpoints import Directory, Located
from plugin.core.forwarding.spread import Spread
from plugin.core.ipam.allocator import RingAllocator
from plugin.core.ipam.council import Council
from plugin.core.membership.members import Links, Member, Members, MemberState, Peer
from plugin.core.membership.swim import (
    HELPERS,
    AskHelper,
    Chance,
    Detector,
    DirectWay,
    Expired,
    PingPeer,
    Unheard,
    Verdict,
    chosen,
)
from plugin.core.messages import wire
from plugin.core.outbox import (
    Counters,
    Effect,
    Outbox,
    PeersChanged,
)

GOSSIP_S: Final = 0.2
"""While there is news, HELPERS others are told this often: everybody knows after log(members) turns."""

GREETINGS_PER_TURN_MAX: Final = 64
GREET_LATE_S: Final = 0.4
"""Of two that hear of each other one greets at once, by name, and the other only when it has waited in vain."""

QUIET_MS: Final = 2000
"""Two agents compare everything when both have been quiet for so long and are still not equal."""

SYNC_EVERY_S: Final = 1.0
SYNC_EVERY_S_PER_MEMBER: Final = 0.05
"""How often an agent may compare everything: less often in a large cluster, where it is more to compare and more do."""

SYNC_LOOK_S: Final = 0.1
HELP_MAX: Final = 64
HELP_S: Final = 2.0
GONE_S: Final = 30.0
"""A failed peer's endpoints stay for so long: its agent may just be restarting, and its pods work without it."""


class Node:
    """The decisions of one agent.

    Args:
        me: This agent.
        keys: What all members share.
        seeds: Addresses at which other agents may be found.
        network and founders: See `Council`.
        chance: Randomness.

    Attributes:
        carries: Whether the overlay still carries packets to a node; whoever probes that may set it.
    """

    def __init__(
        self, *, me: Member, keys: wire.Keys, seeds: Iterable[IPv4Address], founders: int, chance: Chance
    ) -> None:
        self._chance = chance
        self._members = Members(me)
        self._links = Links(self._members)
        self._outbox = Outbox(self._members, self._links, keys)
        self._directory = Directory(me.life)
        self._spread = Spread(self._directory, self._outbox)
        self._detector = Detector(self._members, chance)
        self.allocator = RingAllocator(keys.network)
        self.council = Council(
            network=keys.network, outbox=self._outbox, allocator=self.allocator, chance=chance, founders=founders
        )
        self._greet: dict[str, float] = {}
        self._door = Door(self._outbox, self.council, lambda address: address in self.seeds)
        self._reunion = Reunion(
            outbox=self._outbox,
            directory=self._directory,
            council=self.council,
            door=self._door,
            chance=chance,
            take_in=self._take_in,
            seeds=seeds,
        )
        self._showing = Showing(self._outbox, self._door, self._reunion)
        self._helping: dict[tuple[str, int], tuple[str, int, float]] = {}
        self._failed_s: dict[str, float] = {}
        self._next_gossip_s = 0.0
        self._next_sync_s = 0.0
        self._unequal: tuple[IPv4Address, int] | None = None
        self._digest, self._digest_since_s = self.digest, 0.0
        self._now_s = 0.0
        self.carries: Callable[[IPv4Address], bool] = lambda _address: False

    # --- what the driver asks -------------------------------------------------------------------------------------
    @property
    def me(self) -> Member:
        """This agent."""
        return self._members.me

    @property
    def keys(self) -> wire.Keys:
        """What all members share."""
        return self._outbox.keys

    @property
    def counters(self) -> Counters:
        """What came in and went out."""
        return self._outbox.counters

    @property
    def directory(self) -> Directory:
        """The endpoint tables."""
        return self._directory

    @property
    def members(self) -> Members:
        """The table of members."""
        return self._members

    @property
    def links(self) -> Links:
        """Which direct paths do not work."""
        return self._links

    @property
    def seeds(self) -> Mapping[IPv4Address, str]:
        """Addresses at which other agents are looked for, and what is the matter there."""
        return self._reunion.seeds

    @property
    def unconfirmed(self) -> int:
        """How many peers have not confirmed this agent's newest endpoints."""
        return self._spread.unconfirmed

    @property
    def convergence_s(self) -> float:
        """How long the last change of this agent's endpoints took until every peer had confirmed it."""
        return self._spread.convergence_s

    @property
    def digest(self) -> int:
        """64 bits of everything that must be equal everywhere when it is quiet."""
        return self._members.digest ^ self._links.digest ^ self.council.digest

    @property
    def peers(self) -> Mapping[IPv4Address, Peer]:
        """All peers, by node address, in order: members, and seeds that have not answered or were refused."""
        return self._showing.peers

    @property
    def destinations(self) -> frozenset[IPv4Address]:
        """The nodes that broadcast goes to: every member that has not been gone for long."""
        return frozenset(
            member.address
            for name, member in self._members.others.items()
            if member.answers or self._now_s - self._failed_s.get(name, self._now_s) < GONE_S
        )

    def located(self) -> dict[IPv4Address, Located]:
        """Who is where, as this agent believes."""
        return self._directory.located()

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next."""
        parts = (self._detector, self._spread, self.council, self._reunion, self._showing)
        times = [part.next_timer_s() for part in parts]
        if self._members.has_news or self._links.has_news:
            times.append(self._next_gossip_s)
        elif self._greet:
            times.append(max(self._next_gossip_s, min(self._greet.values())))
        times += [since_s + GONE_S for since_s in self._failed_s.values()]
        if self._unequal is not None:
            times.append(self._next_sync_s)
        return min(times)

    def effects(self) -> list[Effect]:
        """What has to be done, in order; handed over once."""
        self._showing.tell(self._now_s)
        return self._outbox.take()

    # --- what happens here ----------------------------------------------------------------------------------------
    def attach(self, address: IPv4Address, mac: str, label: str, *, now_s: float) -> None:
        """A pod has come to this node: tell everybody at once."""
        base = self._directory.own.version
        added = self._directory.put(address, mac, label)
        self._spread.changed(base, (added,), (), now_s)
        self._touched(now_s)

    def detach(self, address: IPv4Address, *, now_s: float) -> None:
        """A pod has left this node: tell everybody at once; unknown addresses are ignored."""
        base = self._directory.own.version
        if self._directory.drop(address):
            self._spread.changed(base, (), (address,), now_s)
            self._touched(now_s)

    def connect(self, addresses: Iterable[IPv4Address], *, instead: bool = False) -> None:
        """Look for members at these addresses too, or only there."""
        self._reunion.look_at(addresses, instead=instead)

    def forget(self, addresses: Iterable[IPv4Address]) -> None:
        """Look for members there no more."""
        self._reunion.look_away(addresses)

    def drop(self, name: str) -> None:
        """A person says that this member, which does not answer, is gone for good."""
        member = self._members.others.get(name)
        if member is not None and not member.answers:
            self._merge((replace(member, state=MemberState.LEFT),), self._now_s)

    def leave(self) -> None:
        """This agent goes for good: its addresses go to another, and nobody waits for it."""
        alive = {member.uid for member in self._members.others.values() if member.answers}
        heirs = alive & self.council.seats.keys()
        if heirs and self.council.seated:
            self.council.gifts.hand_over(min(heirs))
        self._members.leave()
        self._tell_news(list(self._members.others))

    def on_timer(self, *, now_s: float, late_s: float = 0.0) -> None:
        """Whatever is due; `late_s`: how long ago this should have been called."""
        self._now_s = now_s
        self._verdicts(self._detector.on_timer(now_s=now_s, late_s=late_s), now_s)
        self._spread.patience = self._detector.patience
        self._spread.on_timer(now_s=now_s)
        self.council.on_timer(now_s=now_s)
        self._reunion.on_timer(now_s=now_s)
        if now_s >= self._next_gossip_s and (self._members.has_news or self._links.has_news or self._greet):
            self._next_gossip_s = now_s + GOSSIP_S
            self._gossip(now_s)
        self._drop_old(now_s)
        self._touched(now_s)
        if self._unequal is not None and now_s >= self._next_sync_s:
            self._compare(*self._unequal, now_s)

    def on_datagram(self, data: bytes, source: IPv4Address, *, now_s: float) -> None:
        """A datagram came from the node `source`; garbage and strangers are counted and change nothing."""
        self._now_s = now_s
        counters = self.counters
        counters.received += 1
        counters.received_bytes += len(data)
        try:
            received = wire.decode_datagram(data, self.keys)
        except wire.OtherClusterError as error:
            self._door.refuse(source, error.code, now_s)
            return
        except wire.WireError:
            counters.rejected["malformed"] += 1
            return
        if isinstance(received, wire.Relay):
            self._on_relay(received)
            return
        if isinstance(received.message, wire.Refuse):
            self._door.on_refuse(received, source, now_s)
        elif self._door.admits(received.sender, now_s=now_s):
            self._heard_from(received.sender, source, now_s)
            self._on_message(received.message, received.sender, now_s, direct=source == received.sender.address)
        self._touched(now_s)

    def on_request(self, data: bytes, source: IPv4Address, *, now_s: float) -> bytes | None:
        """The request of an exchange; the answer, to be sent after the effects were carried out. None: hang up."""
        self._now_s = now_s
        self.counters.received_bytes += len(data)
        try:
            received = wire.decode(data, self.keys)
        except wire.OtherClusterError as error:
            self._door.refuse(source, error.code, now_s)
            return self._encoded(self._door.refusal(error.code))
        except wire.WireError:
            self.counters.rejected["malformed"] += 1
            return None
        if isinstance(received, wire.Relay) or isinstance(received.message, wire.Refuse):
            return None
        sender = received.sender
        if (taken := self._door.name_taken(sender)) is not None:
            return self._encoded(taken)
        self._heard_from(sender, source, now_s)
        answer: wire.Answer
        match received.message:
            case wire.Sync() as sync:
                answer = self._reunion.on_sync(sync, sender, now_s=now_s)
            case wire.Prepare() | wire.Accept() | wire.Ask() as request:
                answer = self.council.answer(request, sender, now_s=now_s)
            case _:
                return None
        self._touched(now_s)
        return self._encoded(answer)

    def on_answer(self, token: int, data: bytes, source: IPv4Address, *, now_s: float) -> None:
        """The answer of an exchange that `Call` asked for."""
        self._now_s = now_s
        self.counters.received_bytes += len(data)
        try:
            received = wire.decode(data, self.keys)
        except wire.OtherClusterError as error:
            self._door.note(source, "", self._door.refusal(error.code).reason, now_s)
            self._outbox.unanswered(token, "it belongs to another cluster")
            return
        except wire.WireError:
            self.counters.rejected["malformed"] += 1
            self._outbox.unanswered(token, "its answer makes no sense")
            return
        if isinstance(received, wire.Relay):
            self._outbox.unanswered(token, "its answer makes no sense")
            return
        if isinstance(received.message, wire.Refuse):
            self._door.on_refuse(received, source, now_s)
        elif self._door.admits(received.sender, now_s=now_s):
            self._heard_from(received.sender, source, now_s)
            self.council.refuse("")
        self._outbox.answered(token, received.sender, received.message)  # type: ignore[arg-type]
        self._touched(now_s)

    def on_no_answer(self, token: int, reason: str, *, now_s: float) -> None:
        """An exchange has failed: nobody listens there, or it took too long."""
        self._now_s = now_s
        self._outbox.unanswered(token, reason)

    # --- who may speak --------------------------------------------------------------------------------------------
    def _heard_from(self, sender: Member, source: IPv4Address, now_s: float) -> None:
        """A member speaks: it is alive, whatever was believed."""
        if sender.address == source:
            self._door.welcome(source)
            self._showing.heard(sender.name)
            self._greet.pop(sender.name, None)
        known = self._members.others.get(sender.name)
        if known is not None and known.rank > sender.rank:
            return  # it is suspected in this very incarnation: it has to contradict, so that everybody hears it
        self._merge((sender,), now_s)

    # --- messages -------------------------------------------------------------------------------------------------
    def _on_message(self, message: wire.Message, sender: Member, now_s: float, *, direct: bool) -> None:  # noqa: C901 - a case a message
        name = sender.name
        match message:
            case wire.Ping(seq=seq):
                self._on_brief(message, sender, now_s)
                if direct:  # the answer goes the same way back: it is this way that is asked about
                    self._outbox.send_direct(sender.address, self._ack(seq, "", name))
            case wire.Ack(seq=seq, about=about):
                self._on_brief(message, sender, now_s)
                if about:
                    self._detector.on_heard_by_other(about, seq)
                elif seq and direct:  # not news (0), and not by way of another
                    self._verdicts(self._detector.on_answer(name, seq), now_s)
                    self._answer_for(name, seq)
            case wire.PingFor(seq=seq, name=target):
                self._help(sender, target, seq, now_s)
            case wire.Step():
                self._spread.on_step(message, sender, now_s=now_s)
            case wire.TablePart():
                self._spread.on_table_part(message, sender)
            case wire.Pull():
                self._spread.on_pull(sender)
            case wire.Seen(version=version):
                self._spread.has_table(name, version, now_s=now_s)
            case wire.RingNews():
                self.council.on_news(message)

    def _on_brief(self, message: wire.Ping | wire.Ack, sender: Member, now_s: float) -> None:
        """What pings and their answers carry along."""
        self._merge(message.news, now_s)
        self._showing.all_changed(really=self._links.merge(message.links))
        brief = message.brief
        self.council.gifts.heard_free(sender.uid, brief.free)
        self._spread.check(self._members.others.get(sender.name, sender), brief.table, now_s=now_s)
        if brief.digest != self.digest and brief.quiet_ms >= QUIET_MS and self._unequal is None:
            # Not at once: an agent that had no processor for a while has news waiting behind this.
            self._unequal = sender.address, brief.digest
            self._next_sync_s = max(self._next_sync_s, now_s + SYNC_LOOK_S)

    def _compare(self, address: IPv4Address, digest: int, now_s: float) -> None:
        """Exchange everything with an agent that was not equal, unless that has passed or is passing."""
        self._unequal = None
        if digest != self.digest and now_s - self._digest_since_s >= QUIET_MS / 1000:
            pause_s = max(SYNC_EVERY_S, SYNC_EVERY_S_PER_MEMBER * len(self._members.others))
            self._next_sync_s = now_s + pause_s * (0.5 + self._chance.random())
            self._reunion.sync(address)

    def _help(self, asker: Member, target: str, seq: int, now_s: float) -> None:
        """Ping `target` for somebody who does not hear it."""
        if target in self._members.others and len(self._helping) < HELP_MAX:
            own = self._detector.next_seq()
            self._helping[target, own] = asker.name, seq, now_s
            self._ping_direct(target, own)

    def _answer_for(self, name: str, seq: int) -> None:
        waiting = self._helping.pop((name, seq), None)
        if waiting is not None:
            asker, asked_seq, _ = waiting
            self._outbox.send(asker, self._ack(asked_seq, name, asker))

    def _on_relay(self, relay: wire.Relay) -> None:
        """Pass on what somebody cannot send directly: to members only, and never a second time."""
        member = self._members.at(relay.to)
        if member is not None:
            self._outbox.send_bytes(relay.to, relay.data)

    # --- what pings and their absence mean --------------------------------------------------------------------------
    def _verdicts(self, verdicts: Iterable[Verdict], now_s: float) -> None:
        for verdict in verdicts:
            match verdict:
                case PingPeer(name, seq):
                    self._ping_direct(name, seq)
                case AskHelper(helper, name, seq):
                    self._outbox.send(helper, wire.PingFor(seq, name))
                case DirectWay(name, works):
                    told = self._links.set_own(name, broken=not works, life=self.me.life)
                    self._showing.all_changed(really=told)
                case Unheard(name):
                    self._believe(name, MemberState.SUSPECT, now_s)
                case Expired(name):
                    self._believe(name, MemberState.FAILED, now_s)

    def _believe(self, name: str, state: MemberState, now_s: float) -> None:
        member = self._members.others.get(name)
        if member is not None and member.state < state:
            self._merge((replace(member, state=state),), now_s)

    def _ping_direct(self, name: str, seq: int) -> None:
        """Never by way of another: it is the direct way that is looked at."""
        member = self._members.others.get(name)
        if member is not None:
            news = self._members.news(wire.NEWS_PER_DATAGRAM_MAX, first=name)
            links = self._links.news(wire.LINKS_PER_DATAGRAM_MAX)
            self._outbox.send_direct(member.address, wire.Ping(seq, self._brief(), news, links))

    def _ack(self, seq: int, about: str, to: str) -> wire.Ack:
        # The name of somebody else takes the room of one piece of news.
        news = self._members.news(wire.NEWS_PER_DATAGRAM_MAX - bool(about), first=to)
        return wire.Ack(seq, about, self._brief(), news, self._links.news(wire.LINKS_PER_DATAGRAM_MAX))

    def _brief(self) -> wire.Brief:
        quiet_ms = int(max(0.0, self._now_s - self._digest_since_s) * 1000)
        return wire.Brief(self.digest, quiet_ms, self._directory.own.version, self.allocator.free)

    def _gossip(self, now_s: float) -> None:
        """Tell a few others what is new, and greet those that were never heard."""
        if self._members.has_news or self._links.has_news:
            alive = [name for name, member in self._members.others.items() if member.answers]
            self._tell_news(chosen(self._chance, alive, HELPERS))
        for name in sorted(name for name, due_s in self._greet.items() if due_s <= now_s)[:GREETINGS_PER_TURN_MAX]:
            del self._greet[name]
            self._ping_direct(name, self._detector.next_seq())

    def _tell_news(self, names: Iterable[str]) -> None:
        for name in names:
            self._outbox.send(name, self._ack(0, "", name))

    def _merge(self, records: Iterable[Member], now_s: float) -> None:
        life = self.me.life
        for record in records:
            before = self._members.others.get(record.name)
            changed = self._members.learn(record)
            if changed is None:
                continue
            if before is not None and before.address != changed.address:
                self._spread.lost(before)
                self._showing.all_changed()
            name = changed.name
            if changed.state is MemberState.SUSPECT:
                self._detector.suspected(name, now_s=now_s)
            if changed.answers:
                self._failed_s.pop(name, None)
            else:
                self._failed_s.setdefault(name, now_s)
                if changed.state is MemberState.LEFT:
                    self._spread.lost(changed)
            new_life = before is None or before.life != changed.life
            if new_life:
                self._links.forget(name)
                self._showing.unheard(name)
            if changed.answers and (new_life or not before.answers):  # type: ignore[union-attr]
                self._spread.met(name, anew=new_life, now_s=now_s)
                self._greet[name] = now_s if self.me.name < name else now_s + GREET_LATE_S
            self._outbox.add(PeersChanged())
            self._showing.changed(name)
        if self.me.life != life:
            self._directory.relive(self.me.life)

    def _take_in(self, sync: wire.Sync, now_s: float) -> None:
        self._merge(sync.members, now_s)
        self._showing.all_changed(really=self._links.merge(sync.links))
        for table in sync.tables:
            member = self._members.others.get(table.name)
            if member is not None and table.life == member.life:
                self._spread.on_table(member, table.version, table.endpoints)

    # --- keeping house ----------------------------------------------------------------------------------------------
    def _drop_old(self, now_s: float) -> None:
        self._door.forget_old(now_s=now_s)
        for key, (_, _, since_s) in list(self._helping.items()):
            if now_s - since_s > HELP_S:
                del self._helping[key]
        for name, since_s in list(self._failed_s.items()):
            if now_s - since_s >= GONE_S:
                self._bury(name, now_s)
        for member in list(self._members.others.values()):
            if member.uid in self.council.left:
                self._members.forget(member.name)
                self._links.forget(member.name)
                self._spread.lost(member)
                self._outbox.add(PeersChanged())
                self._showing.all_changed()

    def _bury(self, name: str, now_s: float) -> None:
        """A member has been gone for long: so are its endpoints, unless its pods still answer without it."""
        del self._failed_s[name]
        member = self._members.others.get(name)
        if member is None:
            return
        if member.state is MemberState.FAILED and self.carries(member.address):
            self._failed_s[name] = now_s
            return
        self._spread.lost(member)
        if member.state is MemberState.LEFT and member.uid not in self.council.seats:
            self._members.forget(name)
            self._links.forget(name)
        self._outbox.add(PeersChanged())
        self._showing.all_changed()

    def _touched(self, now_s: float) -> None:
        if self.digest != self._digest:
            self._digest, self._digest_since_s = self.digest, now_s

    def _encoded(self, message: wire.Message) -> bytes:
        data = wire.encode(message, self.me, self.keys)
        self.counters.sent_bytes += len(data)
        return data
