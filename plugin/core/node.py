"""One agent without its sockets, clock, disk and kernel: bytes and time in, effects out. Read `Node` for all it can do.

THE LIFE OF A MESSAGE is read here: bytes come in by `on_datagram` (one message), `on_request` (the question of an
exchange) or `on_answer`; `Gate` opens the seal and makes a message of them (`wire.parse`), or refuses them; `Door` says
whether its sender may speak; `_on_message` hands it to the part that it is for; what that part wants to say goes
through `Outbox.send`, which makes bytes of it, seals them for their receiver and chooses the way; `effects` hands them
out. The driver (plugin/agent/driver.py) carries bytes and time in and effects out.

The parts are in rooms: who is a member and answers (membership), who is where (forwarding), who may give which
addresses away (ipam), how agents join and become equal (cluster), what can be said (messages). Here they are joined,
and nothing else is decided. Thousands of these objects run in one seeded simulation (tests/sim).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from plugin.core.cluster.census import Census
from plugin.core.cluster.door import Door
from plugin.core.cluster.equality import Equality
from plugin.core.cluster.gate import Gate
from plugin.core.cluster.moves import Moves
from plugin.core.cluster.pings import Pings
from plugin.core.cluster.reunion import Reunion
from plugin.core.cluster.showing import Showing
from plugin.core.forwarding.claims import Located
from plugin.core.forwarding.endpoints import Directory
from plugin.core.forwarding.holders import Holders
from plugin.core.forwarding.spread import Spread
from plugin.core.ipam.allocator import RingAllocator
from plugin.core.ipam.council import Council
from plugin.core.membership.links import Links
from plugin.core.membership.members import Members, Peer
from plugin.core.membership.swim import (
    AskHelper,
    Chance,
    Detector,
    DirectWay,
    Expired,
    PingPeer,
    Unheard,
    Verdict,
)
from plugin.core.membership.switches import Switches
from plugin.core.messages import kinds
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Brief, Member, MemberState
from plugin.core.outbox import (
    Counters,
    Effect,
    EndpointsChanged,
    Outbox,
    PeersChanged,
)


class Node:
    """The decisions of one agent.

    Args:
        me: This agent.
        keys: What all members share.
        seeds: Addresses at which other agents may be found.
        network and founders: See `Council`.
        chance: Randomness.

    Attributes:
        allocator: Gives addresses.
        council: Agrees with the others about them.
        holders: Names who has an address or a MAC.
    """

    def __init__(self, *, me: Member, keys: Keys, seeds: Iterable[IPv4Address], founders: int, chance: Chance) -> None:
        self._members = Members(me)
        self._links = Links(self._members)
        self._outbox = Outbox(self._members, self._links, keys)
        switches = Switches(self._members, keys.cluster)
        self._directory = Directory(me.life, lambda: self._members.me.address, switches.mac_at)
        self.holders = Holders(self._directory, switches)
        self._spread = Spread(self._directory, self._outbox)
        self._detector = Detector(self._members, chance)
        self.allocator = RingAllocator(keys.network)
        self.council = Council(
            network=keys.network, outbox=self._outbox, allocator=self.allocator, chance=chance, founders=founders
        )
        self._door = Door(self._outbox, self.council, lambda address: address in self.seeds)
        self._gate = Gate(self._outbox, self._door)
        self._reunion = Reunion(
            outbox=self._outbox,
            directory=self._directory,
            council=self.council,
            door=self._door,
            chance=chance,
            take_in=lambda sync, now_s: self._census.take_in(sync, now_s=now_s),
            seeds=seeds,
        )
        self._showing = Showing(self._outbox, self._door, self._reunion)
        self._equality = Equality(
            members=self._members, chance=chance, digest=lambda: self.digest, compare=self._reunion.sync
        )
        self._pings = Pings(self._outbox, self._detector, chance, self._brief)
        self._census = Census(
            outbox=self._outbox,
            directory=self._directory,
            spread=self._spread,
            council=self.council,
            detector=self._detector,
            pings=self._pings,
            showing=self._showing,
        )
        self._moves = Moves(
            outbox=self._outbox,
            door=self._door,
            pings=self._pings,
            detector=self._detector,
            believe=lambda record, now_s: self._census.learn((record,), now_s=now_s, proved=True),
        )
        self._census.follow = self._reunion.follow
        self._census.holds_back = lambda record, now_s: self._moves.holds_back(record, now_s=now_s)
        self._timed = (
            self._detector,
            self._spread,
            self.council,
            self._reunion,
            self._showing,
            self._pings,
            self._moves,
            self._census,
            self._equality,
        )
        self._now_s = 0.0

    # --- what the driver asks -------------------------------------------------------------------------------------
    @property
    def me(self) -> Member:
        """This agent."""
        return self._members.me

    @property
    def keys(self) -> Keys:
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
        return self._census.destinations(now_s=self._now_s)

    def located(self) -> dict[IPv4Address, Located]:
        """Who is where, as this agent believes."""
        return self._directory.located()

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next."""
        return min(part.next_timer_s() for part in self._timed)

    def effects(self) -> list[Effect]:
        """What has to be done, in order; handed over once."""
        self._showing.tell(self._now_s)
        return self._outbox.take()

    def is_member(self, address: IPv4Address) -> bool:
        """Whether a member is at this address, or one is looked for there."""
        return address in self.seeds or self._members.at(address) is not None

    @property
    def tag(self) -> bytes:
        """What datagrams for this life of the agent have at `wire.TAG_OFFSET`."""
        return self._outbox.sessions.tag

    def believe_routes(self, way: Callable[[IPv4Address], IPv4Address | None]) -> None:
        """Ask `way` from now on by which of its own addresses this node reaches another one; None: by none."""
        self._door.way = way

    def believe_overlay(self, carries: Callable[[IPv4Address], bool]) -> None:
        """Ask `carries` from now on whether the overlay still carries packets to a node whose agent is silent."""
        self._census.carries = carries

    def explain(self, own_cause: Callable[[IPv4Address], str]) -> None:
        """Ask `own_cause` from now on whether this node itself is why an address is not reached: "" when it is not."""
        self._showing.explain(own_cause)

    # --- what happens here ----------------------------------------------------------------------------------------
    def move(self, address: IPv4Address, *, now_s: float) -> None:
        """This node has another address: tell everybody at once, from there.

        Before the effects are carried out, the sockets have to be bound to it. Who knew another member at that address
        cannot reach it there; perhaps the two have changed addresses.
        """
        former = self.me.address
        if address == former:
            return
        replaced = self._members.at(address)
        self._members.move(address)
        self._links.forget(self.me.name)
        self._reunion.moved()
        if replaced is not None:
            self._directory.forget(address)
            self._reunion.sync(former)
        self._directory.moved()
        self._outbox.add(EndpointsChanged())
        self.greet_all(now_s=now_s)
        self._showing.all_changed()
        self._equality.touched(now_s=now_s)
        self._outbox.add(PeersChanged())

    def greet_all(self, *, now_s: float) -> None:
        """Speak to every member now, not in its turn: this node was away, or is at another address."""
        for name in self._members.others:
            self._pings.ping(name, self._detector.next_seq())
            self._pings.greet(name, now_s=now_s)

    def attach(self, address: IPv4Address, mac: str, label: str, *, now_s: float, stamp: int = 0) -> None:
        """A pod has come to this node: tell everybody at once; `stamp` as `Directory.put` has it."""
        base = self._directory.own.version
        added = self._directory.put(address, mac, label, stamp=stamp)
        self._spread.changed(base, (added,), (), now_s)
        self._equality.touched(now_s=now_s)

    def detach(self, address: IPv4Address, *, now_s: float) -> None:
        """A pod has left this node: tell everybody at once; unknown addresses are ignored."""
        base = self._directory.own.version
        if self._directory.drop(address):
            self._spread.changed(base, (), (address,), now_s)
            self._equality.touched(now_s=now_s)

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
            self._census.learn((replace(member, state=MemberState.LEFT),), now_s=self._now_s)

    def leave(self) -> None:
        """This agent goes for good: its addresses go to another, and nobody waits for it."""
        alive = {member.uid for member in self._members.others.values() if member.answers}
        heirs = alive & self.council.seats.keys()
        if heirs and self.council.seated:
            self.council.gifts.hand_over(min(heirs))
        self._members.leave()
        self._pings.tell_news(list(self._members.others))

    def on_timer(self, *, now_s: float, late_s: float = 0.0) -> None:
        """Whatever is due; `late_s`: how long ago this should have been called."""
        self._now_s = now_s
        if self._outbox.sessions.worn:
            self._census.renew()
        self._conclude(self._detector.on_timer(now_s=now_s, late_s=late_s), now_s)
        self._spread.patience = self._detector.patience
        self._spread.on_timer(now_s=now_s)
        self.council.on_timer(now_s=now_s)
        self._reunion.on_timer(now_s=now_s)
        self._pings.on_timer(now_s=now_s)
        self._moves.on_timer(now_s=now_s)
        self._door.forget_old(now_s=now_s)
        self._pings.drop_old(now_s=now_s)
        self._census.drop_old(now_s=now_s)
        self._equality.touched(now_s=now_s)
        self._equality.on_timer(now_s=now_s)

    def on_datagram(self, data: bytes, source: IPv4Address, *, now_s: float) -> None:
        """A datagram came from the node `source`; garbage and strangers are counted and change nothing."""
        self._now_s = now_s
        received = self._gate.datagram(data, source, now_s=now_s)
        if received is None:
            return
        if isinstance(received, kinds.Relay):
            self._on_relay(received)
            return
        if isinstance(received.message, kinds.Refuse):
            self._door.on_refuse(received, source, now_s)
        elif self._is_elsewhere(received.sender, now_s):
            if (refusal := self._moves.refusal(received.sender, now_s=now_s)) is not None:
                self._door.tell(source, received.sender, refusal, now_s=now_s)
        elif self._door.admits(received.sender, source, now_s=now_s):
            self._heard_from(received.sender, source, now_s)
            self._on_message(received.message, received.sender, now_s, direct=source == received.sender.address)
        self._equality.touched(now_s=now_s)

    def greeting(self, challenge: bytes) -> bytes:
        """What is said first to who connects; `challenge` are random bytes that were never used before."""
        return self._gate.greeting(challenge)

    def on_request(self, data: bytes, challenge: bytes, source: IPv4Address, *, now_s: float) -> bytes | None:
        """The request of an exchange that began with `greeting(challenge)`.

        Returns:
            The answer, to be sent after the effects were carried out. None: hang up.
        """
        self._now_s = now_s
        asked = self._gate.request(data, challenge, source, now_s=now_s)
        if asked is None or isinstance(asked, bytes):
            return asked
        sender = asked.received.sender
        welcome, refusal = self._judged(sender, source, now_s)
        if not welcome:
            return None if refusal is None else self._gate.answered(asked, refusal)
        self._heard_from(sender, source, now_s)
        answer: kinds.Answer
        match asked.received.message:
            case kinds.Sync() as sync:
                answer = self._reunion.on_sync(sync, sender, now_s=now_s)
            case kinds.Prepare() | kinds.Accept() | kinds.Ask() as request:
                answer = self.council.answer(request, sender, now_s=now_s)
            case _:
                return None
        self._equality.touched(now_s=now_s)
        return self._gate.answered(asked, answer)

    def on_greeting(self, token: int, said: bytes) -> bytes:
        """Who was called speaks first; the request, to be sent to it.

        Raises:
            WireError: It is no agent, or speaks another version of the protocol.
        """
        return self._outbox.greeted(token, said)

    def on_answer(self, token: int, data: bytes, source: IPv4Address, *, now_s: float) -> None:
        """The answer of an exchange that `Call` asked for."""
        self._now_s = now_s
        received = self._gate.answer(token, data, source, now_s=now_s)
        if received is None:
            return
        if isinstance(received.message, kinds.Refuse):
            self._door.on_refuse(received, source, now_s, asked=True)
        elif self._is_elsewhere(received.sender, now_s):
            self._outbox.unanswered(token, f"{received.sender.name} answers there")
            return
        elif self._door.admits(received.sender, source, now_s=now_s):
            self._heard_from(received.sender, source, now_s)
            self._door.accepted(now_s=now_s)
        else:  # what one says who is no member must not count, neither as a vote nor as a gift
            self._outbox.unanswered(token, "it is not a member")
            return
        self._outbox.answered(token, received.sender, received.message)  # type: ignore[arg-type]
        self._equality.touched(now_s=now_s)

    def on_no_answer(self, token: int, reason: str, *, now_s: float) -> None:
        """An exchange has failed: nobody listens there, or it took too long."""
        self._now_s = now_s
        self._outbox.unanswered(token, reason)

    # --- what a message means -------------------------------------------------------------------------------------
    def _is_elsewhere(self, sender: Member, now_s: float) -> bool:
        """Whether what a sender says must not count: where it is, is not known (yet), or known better.

        It may have moved, which is being found out; another member may have its address by now; and what this agent
        sends to a member whose address this node was given comes back to itself.
        """
        own = (self.me.uid, self.me.life, self.me.address)
        if (sender.uid, sender.life, sender.address) == own or self._moves.holds_back(sender, now_s=now_s):
            return True
        known = self._members.others.get(sender.name)
        there = self._members.at(sender.address)
        return known is not None and known.rank >= sender.rank and there is not None and there is not known

    def _judged(self, sender: Member, source: IPv4Address, now_s: float) -> tuple[bool, kinds.Refuse | None]:
        """Whether a caller may speak, and what it is told if not; None: nothing, and it calls again."""
        if self._is_elsewhere(sender, now_s):
            return False, self._moves.refusal(sender, now_s=now_s)
        refusal = self._door.turned_away(sender, source, now_s=now_s)
        return refusal is None, refusal

    def _heard_from(self, sender: Member, source: IPv4Address, now_s: float) -> None:
        """A member speaks: it is alive, whatever was believed."""
        if sender.address == source:
            self._door.welcome(source)
            self._showing.heard(sender.name)
            self._pings.heard(sender.name)
        known = self._members.others.get(sender.name)
        if known is not None and known.rank > sender.rank:
            return  # it is suspected in this very incarnation: it has to contradict, so that everybody hears it
        self._census.learn((sender,), now_s=now_s)

    def _on_message(self, message: kinds.Message, sender: Member, now_s: float, *, direct: bool) -> None:  # noqa: C901 - a case a message
        name = sender.name
        match message:
            case kinds.Ping(seq=seq):
                self._on_brief(message, sender, now_s)
                if direct:
                    self._pings.answer(sender, seq)
            case kinds.Ack(seq=seq, about=about):
                self._on_brief(message, sender, now_s)
                if about:
                    self._detector.on_heard_by_other(about, seq)
                elif seq and direct:  # not news (0), and not by way of another
                    self._moves.on_answer(name, seq, now_s=now_s)
                    self._door.admitted(name, now_s=now_s)
                    self._conclude(self._detector.on_answer(name, seq), now_s)
                    self._pings.helped(name, seq)
            case kinds.PingFor(seq=seq, name=target):
                self._pings.help(sender, target, seq, now_s=now_s)
            case kinds.Step():
                self._spread.on_step(message, sender, now_s=now_s)
            case kinds.TablePart():
                self._spread.on_table_part(message, sender)
            case kinds.Pull():
                self._spread.on_pull(sender)
            case kinds.Seen(version=version):
                self._spread.has_table(name, version, now_s=now_s)
            case kinds.RingNews():
                self.council.on_news(message)
            case kinds.Hello() if direct and self._members.others.get(name) != sender:
                # What is known of it is of a later life, as it seems: it has to hear that, and to contradict.
                self._reunion.sync(sender.address)

    def _on_brief(self, message: kinds.Ping | kinds.Ack, sender: Member, now_s: float) -> None:
        """What pings and their answers carry along."""
        self._census.learn(message.news, now_s=now_s)
        self._showing.all_changed(really=self._links.merge(message.links))
        brief = message.brief
        self.council.gifts.heard_free(sender.uid, brief.free)
        self._spread.check(self._members.others.get(sender.name, sender), brief.table, now_s=now_s)
        self._equality.heard(sender.address, brief.digest, brief.quiet_ms, now_s=now_s)

    def _on_relay(self, relay: kinds.Relay) -> None:
        """Pass on what somebody cannot send directly: to members only, and never a second time."""
        member = self._members.at(relay.to)
        if member is not None:
            self._outbox.send_bytes(relay.to, relay.data)

    def _conclude(self, verdicts: Iterable[Verdict], now_s: float) -> None:
        """What pings, or their absence, mean."""
        for verdict in verdicts:
            match verdict:
                case PingPeer(name, seq):
                    self._pings.ping(name, seq)
                case AskHelper(helper, name, seq):
                    self._pings.ask(helper, name, seq)
                case DirectWay(name, works):
                    told = self._links.set_own(name, broken=not works, life=self.me.life)
                    self._showing.all_changed(really=told)
                case Unheard(name):
                    self._census.believe(name, MemberState.SUSPECT, now_s=now_s)
                case Expired(name):
                    self._census.believe(name, MemberState.FAILED, now_s=now_s)

    def _brief(self) -> Brief:
        quiet_ms = self._equality.quiet_ms(now_s=self._now_s)
        return Brief(self.digest, quiet_ms, self._directory.own.version, self.allocator.free)
