"""A cluster in one process: agents over a network that loses, delays, doubles, reorders and cuts; machines that crash.

Everything follows from one seed. The truth that agents only believe in is kept here: which pods run where. After every
event the laws are checked: no address held by two pods, no address owned by two agents.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from plugin.core.ipam.allocator import EXPOSE, AddressTakenError, Attachment, PoolExhaustedError
from plugin.core.ipam.council import Wish
from plugin.core.membership.members import PeerState
from plugin.core.messages.keys import Keys
from plugin.core.messages.values import Member
from plugin.core.node import Node
from plugin.core.outbox import Call, Noted, PeerMoved, Persist, Send, SpaceChanged

NETWORK = IPv4Network("10.32.0.0/25")
CALL_TIMEOUT_S = 1.5
WANT_S = 5.0
RECOVER_S = 8.0
PACE_OFF = 0.01
"""A hundred times what a quartz is off; slewing by NTP is allowed 0.0005."""


@dataclass
class Machine:
    """A node of the cluster: what survives its agent."""

    name: str
    address: IPv4Address
    seeds: list[IPv4Address]
    founders: int
    offset_s: float = 0.0
    pace: float = 1.0
    """Seconds of its clock to one of the world: no two quartzes are equal."""

    uid: str = ""
    life: int = 0
    ring: bytes | None = None
    journal: dict[Attachment, IPv4Address] = field(default_factory=dict)
    pods: dict[Attachment, IPv4Address] = field(default_factory=dict)
    node: Node | None = None
    destroyed: bool = False
    key: str = ""
    wanting: set[Attachment] = field(default_factory=set)
    disk_full: bool = False
    unwritten: tuple[bytes, int] | None = None


class World:
    """All machines, what is under way, and the time."""

    def __init__(self, seed: int, count: int, *, network: IPv4Network = NETWORK, founders: int | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.keys = Keys("sim", network, "1/6784")
        self.loss, self.delay_s = 0.0, 0.01
        self.cuts: set[tuple[IPv4Address, IPv4Address]] = set()
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.timers: dict[str, float] = {}
        self.alarms: list[tuple[float, int, str]] = []
        self.laws = True
        self.may_share: Callable[[Machine, Machine], bool] = lambda _one, _other: False
        """Of two machines that were parted by a mistake of a person: each may have what the other has."""

        self.counter = itertools.count()
        self.log: list[str] = []
        self.sent = {"datagrams": 0, "bytes": 0, "calls": 0}
        self.ring_changed = False
        addresses = [IPv4Address("192.168.0.10") + number for number in range(count)]
        self.machines = {
            f"node{number:04d}": Machine(
                f"node{number:04d}",
                address,
                [] if number == 0 else [addresses[self.rng.randrange(number)]],
                count if founders is None else founders,
                offset_s=self.rng.uniform(0, 1000),
                pace=self.rng.uniform(1 - PACE_OFF, 1 + PACE_OFF),
            )
            for number, address in enumerate(addresses)
        }
        for key, machine in self.machines.items():
            machine.key = key
        self.by_address = {machine.address: machine for machine in self.machines.values()}

    # --- machines -------------------------------------------------------------------------------------------------
    def add(self, seeds: list[IPv4Address]) -> Machine:
        """A new machine, which was never a member and does not run yet."""
        number = len(self.machines)
        name = f"node{number:04d}"
        machine = Machine(name, IPv4Address("192.168.0.10") + number, seeds, 0, key=name)
        self.machines[machine.name] = self.by_address[machine.address] = machine
        return machine

    def recover(self, machine: Machine, *names: str) -> str:
        """A person types `weave recover --force --without ...`; why not, or empty when the agent takes the word.

        Without names: all seats that do not answer.
        """
        node = machine.node
        assert node is not None
        recovery = node.council.decrees.recovery
        silent = recovery.silent_seats()
        named = frozenset(seat.uid for seat in silent if not names or seat.name in names)
        prospect = recovery.prospect(named)
        if not prospect.obstacle:
            self.note(f"{machine.name}: a person gives up {[seat.name for seat in prospect.lost]}")
            node.council.decrees.recover(named, until_s=self.local_s(machine) + RECOVER_S)
            node.on_timer(now_s=self.local_s(machine))
            self.settle(machine)
        return prospect.obstacle

    def start(self, machine: Machine) -> None:
        """A new life of the agent, from what is on the disk and on the switch."""
        assert machine.node is None
        if not machine.uid:
            machine.uid = f"{self.rng.getrandbits(64):016x}"
            machine.life = 0
        machine.life = max(machine.life + 1, int(self.now_s * 1000))
        me = Member(machine.name, machine.uid, machine.address, machine.life)
        node = Node(me=me, keys=self.keys, seeds=machine.seeds, founders=machine.founders, chance=self.rng)
        machine.node = node
        if machine.ring is not None:
            node.council.restore(machine.ring)
        for attachment, address in list(machine.journal.items()):
            if attachment in machine.pods or attachment == EXPOSE:
                node.allocator.claim(attachment, address, adopt=True)
            else:  # the pod ended while nobody looked
                del machine.journal[attachment]
                node.allocator.rest(address, now_s=self.local_s(machine))
        for attachment, address in machine.pods.items():
            if attachment not in machine.journal:  # the disk was lost, the pod was not
                machine.journal[attachment] = address
                node.allocator.claim(attachment, address, adopt=True)
            node.attach(address, mac(address), attachment[1], now_s=self.local_s(machine))
        if EXPOSE in machine.journal:
            address = machine.journal[EXPOSE]
            machine.pods[EXPOSE] = address
            node.attach(address, mac(address), "gateway", now_s=self.local_s(machine))
        else:
            machine.wanting.add(EXPOSE)
            node.council.gifts.want(Wish(), now_s=self.local_s(machine), until_s=float("inf"))
        self.note(f"{machine.name} starts: uid {machine.uid[:4]} life {machine.life}")
        self.settle(machine)

    def crash(self, machine: Machine, *, disk: bool, pods: bool) -> None:
        """The agent is killed; `disk` survives or is lost; `pods` go on running or the whole machine went down."""
        self.note(f"{machine.name} crashes, disk {disk}, pods {pods}")
        machine.node = machine.unwritten = None
        machine.wanting.clear()
        self.timers.pop(machine.key, None)
        if not pods:
            machine.pods.clear()
        elif not disk:
            machine.pods.pop(EXPOSE, None)
        if not disk:
            machine.uid, machine.ring = "", None
            machine.journal.clear()

    def destroy(self, machine: Machine) -> None:
        """The machine burns down."""
        self.crash(machine, disk=False, pods=False)
        machine.destroyed = True

    def readdress(self, addresses: dict[str, IPv4Address]) -> None:
        """Machines, by their names, get these addresses, all at the same moment; agents that run notice at once."""
        for name, address in addresses.items():
            self.note(f"{name} moves from {self.machines[name].address} to {address}")
            self.machines[name].address = address
        self.by_address = {machine.address: machine for machine in self.machines.values()}
        assert len(self.by_address) == len(self.machines), "an address has one machine"
        for name, address in addresses.items():
            machine = self.machines[name]
            if machine.node is not None:
                machine.node.move(address, now_s=self.local_s(machine))
                self.settle(machine)

    # --- pods -----------------------------------------------------------------------------------------------------
    def attach(self, machine: Machine, attachment: Attachment) -> bool:
        """A pod comes to a machine whose agent runs; False when there is no address (now)."""
        node = machine.node
        if node is None or attachment in machine.pods:
            return False
        if not node.council.ring_id:
            machine.wanting.add(attachment)
            return False
        try:
            address = node.allocator.allocate(attachment, now_s=self.local_s(machine))
        except PoolExhaustedError:
            machine.wanting.add(attachment)
            now_s = self.local_s(machine)
            until_s = float("inf") if attachment == EXPOSE else now_s + WANT_S
            node.council.gifts.want(Wish(), now_s=now_s, until_s=until_s)
            self.settle(machine)
            return False
        for other in self.machines.values():
            for held, theirs in other.pods.items():
                assert not self.laws or theirs != address or self.may_share(machine, other), self.broken(
                    f"{address} of {other.name}'s {held[1]} is given to {machine.name}"
                )
        machine.wanting.discard(attachment)
        machine.journal[attachment] = address
        machine.pods[attachment] = address
        node.attach(address, mac(address), attachment[1], now_s=self.local_s(machine))
        if not machine.wanting:
            node.council.gifts.satisfied(Wish())
        self.settle(machine)
        return True

    def detach(self, machine: Machine, attachment: Attachment) -> None:
        """A pod goes."""
        machine.wanting.discard(attachment)
        address = machine.pods.pop(attachment, None)
        if address is not None and machine.node is not None:
            machine.journal.pop(attachment, None)
            machine.node.detach(address, now_s=self.local_s(machine))
            machine.node.allocator.release(attachment, now_s=self.local_s(machine))
            self.settle(machine)

    # --- time -----------------------------------------------------------------------------------------------------
    def local_s(self, machine: Machine) -> float:
        """What the machine's monotonic clock says."""
        return self.now_s * machine.pace + machine.offset_s

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while True:
            due_s = self.queue[0][0] if self.queue else float("inf")
            alarm = self.next_alarm()
            if alarm is not None and alarm[0] < due_s:
                if alarm[0] > end_s:
                    break
                self.now_s = max(self.now_s, alarm[0])
                machine = self.machines[alarm[1]]
                assert machine.node is not None
                machine.node.on_timer(now_s=self.local_s(machine))
                self.settle(machine)
            else:
                if due_s > end_s:
                    break
                self.now_s = max(self.now_s, due_s)
                heapq.heappop(self.queue)[2]()
        self.now_s = end_s

    def set_timer(self, name: str, due_s: float) -> None:
        if self.timers.get(name) != due_s:
            self.timers[name] = due_s
            heapq.heappush(self.alarms, (due_s, next(self.counter), name))

    def next_alarm(self) -> tuple[float, str] | None:
        """Whose timer is due first; alarms that were set anew since, or whose machine is down, fall away."""
        while self.alarms and self.timers.get(self.alarms[0][2]) != self.alarms[0][0]:
            heapq.heappop(self.alarms)
        return (self.alarms[0][0], self.alarms[0][2]) if self.alarms else None

    def run_until(self, holds: Callable[[], bool], within_s: float, what: str, step_s: float = 0.5) -> float:
        """Let time pass until something holds; how long that took."""
        began_s = self.now_s
        while not holds():
            assert self.now_s - began_s < within_s, self.broken(f"not within {within_s} s: {what}")
            self.run(step_s)
        return self.now_s - began_s

    def settle(self, machine: Machine) -> None:  # noqa: C901, PLR0912 - a case an effect
        """Carry out what the agent wants, until it wants nothing more."""
        node = machine.node
        if node is not None and machine.unwritten is not None:
            self.write(machine, *machine.unwritten)
        while node is not None and (effects := node.effects()):
            retry = False
            for effect in effects:
                match effect:
                    case Send(to, data):
                        self.send(machine, to, data)
                    case Call(to, token) if machine.unwritten is None:
                        self.call(machine, to, token)
                    case Call(token=token):  # nothing that is not on the disk may be spoken of
                        node.on_no_answer(token, "disk full", now_s=self.local_s(machine))
                    case Persist(data, serial):
                        if not self.write(machine, data, serial):
                            break  # what stands behind it must not happen
                        retry = True
                    case SpaceChanged():
                        retry = True
                    case PeerMoved(_, before, now) if before in machine.seeds:
                        machine.seeds = [*(seed for seed in machine.seeds if seed != before), now]
                    case Noted(event, fields):
                        self.note(f"{machine.name}: {event} {dict(fields)}")
            if retry:
                self.place_waiting(machine)
        if node is not None:
            # At least a little later: a timer that is due at once must not stop the time.
            self.set_timer(machine.key, max((node.next_timer_s() - machine.offset_s) / machine.pace, self.now_s + 1e-4))
        if self.ring_changed:
            self.ring_changed = False
            self.check_owners()

    def write(self, machine: Machine, data: bytes, serial: int) -> bool:
        machine.unwritten = (data, serial) if machine.disk_full else None
        if machine.disk_full:
            return False
        machine.ring = data
        self.ring_changed = True
        assert machine.node is not None
        machine.node.council.on_persisted(serial)
        return True

    def place_waiting(self, machine: Machine) -> None:
        node = machine.node
        assert node is not None
        for attachment in sorted(machine.wanting):
            if node.allocator.free > 0 and node.council.ring_id:
                self.attach(machine, attachment)

    # --- the network ----------------------------------------------------------------------------------------------
    def send(self, machine: Machine, to: IPv4Address, data: bytes) -> None:
        self.sent["datagrams"] += 1
        self.sent["bytes"] += len(data)
        source = machine.address
        for _ in range(2 if self.rng.random() < self.loss / 3 else 1):
            if self.rng.random() >= self.loss and (source, to) not in self.cuts:
                self.later(self.rng.uniform(0.2, 1.0) * self.delay_s, lambda: self.deliver(source, to, data))

    def deliver(self, source: IPv4Address, to: IPv4Address, data: bytes) -> None:
        machine = self.by_address.get(to)
        if machine is not None and machine.node is not None:
            machine.node.on_datagram(data, source, now_s=self.local_s(machine))
            self.settle(machine)

    def call(self, machine: Machine, to: IPv4Address, token: int) -> None:  # noqa: C901
        """A request on TCP: nothing is lost in the middle, but either way can be cut, or an end can die."""
        self.sent["calls"] += 1
        caller, source = machine.node, machine.address

        def fail(reason: str) -> None:
            if machine.node is caller and caller is not None:
                caller.on_no_answer(token, reason, now_s=self.local_s(machine))
                self.settle(machine)

        def answer(result: bytes | None) -> None:
            if machine.node is not caller or caller is None:
                return
            if machine.address != source:
                fail("this node has another address now")
                return
            if result is None:
                fail("it hung up")
                return
            caller.on_answer(token, result, to, now_s=self.local_s(machine))
            self.settle(machine)

        def arrive() -> None:
            other = self.by_address.get(to)
            if other is None or other.node is None:
                self.later(self.delay_s, lambda: fail("connection refused"))
                return
            if machine.node is not caller or caller is None:
                return
            challenge = next(self.counter).to_bytes(8, "big")
            data = caller.on_greeting(token, other.node.greeting(challenge))
            self.sent["bytes"] += len(data)
            result = other.node.on_request(data, challenge, source, now_s=self.local_s(other))
            self.settle(other)
            if other.unwritten is not None:
                result = None
            if (to, source) in self.cuts or self.rng.random() < self.loss / 2:
                self.later(CALL_TIMEOUT_S, lambda: fail("timed out"))
            else:
                self.later(self.rng.uniform(0.2, 1.0) * self.delay_s, lambda: answer(result))

        if (source, to) in self.cuts or (to, source) in self.cuts or self.rng.random() < self.loss / 2:
            self.later(CALL_TIMEOUT_S, lambda: fail("timed out"))
        else:
            self.later(self.rng.uniform(0.5, 2.0) * self.delay_s, arrive)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now_s + seconds, next(self.counter), action))

    # --- laws -----------------------------------------------------------------------------------------------------
    def check_owners(self) -> None:
        """What agents may give out (or will, once they are back) never overlaps."""
        taken: dict[int, list[Machine]] = {}
        for machine in self.machines.values():
            if machine.node is None:
                continue
            for share in machine.node.council.ring.owned_by(machine.uid):
                if machine.node.council.removed:
                    continue
                for number in range(int(share.first), int(share.last) + 1):
                    for other in taken.get(number, ()):
                        assert not self.laws or self.may_share(machine, other), self.broken(
                            f"{IPv4Address(number)} is owned by {other.name} and by {machine.name}"
                        )
                    taken.setdefault(number, []).append(machine)

    def disagreements(self) -> list[str]:
        """What is not as it should be once it is quiet; empty when all is well."""
        wrong = []
        up = [machine for machine in self.machines.values() if machine.node is not None]
        truth = {
            address: machine.address
            for machine in self.machines.values()
            if not machine.destroyed
            for address in machine.pods.values()
        }
        digests = set()
        for machine in up:
            node = machine.node
            assert node is not None
            digests.add(node.digest)
            view = {address: place.node or machine.address for address, place in node.located().items()}
            if view != truth:
                wrong.append(f"{machine.name} believes {differing(view, truth)}")
            wrong += [
                f"{machine.name} sees {peer}"
                for peer in node.peers.values()
                if peer.state is not PeerState.ESTABLISHED and self.is_up(peer.address)
            ]
            if node.council.status() != "ready":
                wrong.append(f"{machine.name}: {node.council.status()}")
        if len(digests) > 1:
            wrong.append(f"{len(digests)} different views")
        return wrong

    def is_up(self, address: IPv4Address) -> bool:
        """Whether an agent runs at an address."""
        machine = self.by_address.get(address)
        return machine is not None and machine.node is not None

    def note(self, text: str) -> None:
        self.log.append(f"{self.now_s:9.3f} {text}")
        del self.log[:-400]

    def broken(self, what: str) -> str:
        """The message of a failed check, with all that helps."""
        lines = [f"SIM_SEED={self.seed} replays it: {what}", *self.log[-80:]]
        for machine in self.machines.values():
            if machine.node is not None:
                council = machine.node.council
                lines.append(
                    f"{machine.name} {machine.uid[:4]} epoch {council.epoch} {council.status()} seats "
                    f"{[uid[:4] for uid in council.seats]} left {[uid[:4] for uid in council.left]} "
                    f"ring {[(str(s), s.owner[:4], s.version) for s in council.ring.segments][:12]} "
                    f"peers {[(str(p.address)[-2:], p.state.value) for p in machine.node.peers.values()]} "
                    f"wanting {[a[1] for a in machine.wanting]}"
                )
            else:
                lines.append(f"{machine.name} {machine.uid[:4]} down, pods {list(machine.pods.values())}")
        return "\n".join(lines)


def differing(view: dict[Any, Any], truth: dict[Any, Any]) -> str:
    missing = {key: truth[key] for key in truth.keys() - view.keys()}
    extra = {key: view[key] for key in view.keys() - truth.keys()}
    other = {key: (view[key], truth[key]) for key in view.keys() & truth.keys() if view[key] != truth[key]}
    return f"missing {missing}, extra {extra}, other {other}"


def mac(address: IPv4Address) -> str:
    return f"0a:58:{address.packed.hex(':')}"


__all__ = ["AddressTakenError", "Machine", "World", "mac"]
