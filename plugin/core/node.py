"""One agent without its sockets, clock and kernel: datagrams and time in, effects out.

The driver (plugin/agent/driver.py) calls `on_datagram`, `on_timer`, `attach` and `detach`, then carries out what
`effects` hands over. Thousands of these objects run in one seeded simulation (tests/sim).

The protocol: every agent greets every peer (HELLO) with the version of its endpoint table. Who sees a version it does
not have asks for the table (PULL, TABLE). A change is pushed at once as the step between two versions (STEP); a lost
step is noticed by the next greeting. Greetings are spread so that a node sends about ten a second however many peers
there are; a peer is called failed after five missed ones, and its forwarding entries stay: the data plane does not
depend on the agents being alive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from plugin.core import wire
from plugin.core.endpoints import ENDPOINTS_PER_PEER_MAX, Directory, Endpoint, Located, Table
from plugin.core.membership import Membership, Peer, PeerState

GREETINGS_PER_S: Final = 10
HELLO_PERIOD_MIN_S: Final = 1.0
MISSED_HELLOS_MAX: Final = 5
PULL_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to UDP 6783 of a node."""

    to: IPv4Address
    data: bytes


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """A peer's state is another than before."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class EndpointsChanged:
    """The view of who is where has changed: forwarding must be brought in line."""


Effect: TypeAlias = Send | PeerChanged | EndpointsChanged


@dataclass(slots=True)
class _Assembly:
    """The parts of a table that have come in so far."""

    incarnation: int
    version: int
    parts: int
    received: dict[int, tuple[Endpoint, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Counters:
    """What came in, for the metrics; `rejected` counts by reason and has a fixed set of keys."""

    received: int = 0
    sent: int = 0
    rejected: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("malformed", "other cluster", "not a member", "too large"), 0)
    )


class Node:
    """The decisions of one agent.

    Args:
        name: This node's name.
        incarnation: Larger than in any earlier life of this agent.
        seed: 16 hex digits that all members share (plugin/core/shares.py).
        membership: Who takes part.
    """

    def __init__(self, *, name: str, incarnation: int, seed: str, membership: Membership) -> None:
        self._name = name
        self._incarnation = incarnation
        self._seed = seed
        self._membership = membership
        self._directory = Directory(incarnation)
        self._effects: list[Effect] = []
        self._next_hello_s = 0.0
        self._pulled_s: dict[IPv4Address, float] = {}
        self._assemblies: dict[IPv4Address, _Assembly] = {}
        self.counters = Counters()

    # --- what the driver asks -------------------------------------------------------------------------------------
    @property
    def peers(self) -> Mapping[IPv4Address, Peer]:
        """All peers, by node address."""
        return self._membership.peers

    @property
    def directory(self) -> Directory:
        """The endpoint tables."""
        return self._directory

    @property
    def hello_period_s(self) -> float:
        """Time between two greetings to the same peer: constant work a node, whatever the number of peers."""
        return max(HELLO_PERIOD_MIN_S, len(self._membership.peers) / GREETINGS_PER_S)

    def located(self) -> dict[IPv4Address, Located]:
        """Who is where, as this agent believes."""
        return self._directory.located()

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next."""
        return self._next_hello_s

    def effects(self) -> list[Effect]:
        """What has to be done, in order; handed over once."""
        handed, self._effects = self._effects, []
        return handed

    # --- what happens ---------------------------------------------------------------------------------------------
    def on_timer(self, *, now_s: float) -> None:
        """Greet all peers when it is time, and notice who fell silent."""
        if now_s < self._next_hello_s:
            return
        for peer in self._membership.silent(now_s=now_s, timeout_s=MISSED_HELLOS_MAX * self.hello_period_s):
            self._effects.append(PeerChanged(peer))
        for peer in self._membership.peers.values():
            self._greet(peer)
        self._next_hello_s = now_s + self.hello_period_s

    def on_datagram(self, data: bytes, source: IPv4Address, *, now_s: float) -> None:
        """A datagram came from the node `source`; garbage and strangers are counted and change nothing."""
        self.counters.received += 1
        if source not in self._membership.peers:
            self.counters.rejected["not a member"] += 1
            return
        try:
            if (seed := wire.peek_seed(data)) != self._seed:
                self._refuse_seed(source, seed)
                return
            message = wire.decode(data)
        except wire.WireError:
            self.counters.rejected["malformed"] += 1
            return
        if self._membership.peers[source].state is PeerState.REFUSED and not isinstance(message, wire.Hello):
            return  # a refused peer can only greet again: what it says of its endpoints must not count
        match message:
            case wire.Hello():
                self._on_hello(message, source, now_s)
            case wire.Pull():
                self._send_table(source)
            case wire.TablePart():
                self._on_table_part(message, source)
            case wire.Step():
                self._on_step(message, source, now_s)

    def attach(self, address: IPv4Address, mac: str, label: str) -> None:
        """A pod (or the bridge itself) has come to this node: tell everybody at once."""
        base = self._directory.own.version
        added = self._directory.put(address, mac, label)
        self._push(base, (added,), ())
        self._effects.append(EndpointsChanged())

    def detach(self, address: IPv4Address) -> None:
        """A pod has left this node: tell everybody at once; unknown addresses are ignored."""
        base = self._directory.own.version
        if self._directory.drop(address):
            self._push(base, (), (address,))
            self._effects.append(EndpointsChanged())

    # --- messages -------------------------------------------------------------------------------------------------
    def _on_hello(self, hello: wire.Hello, source: IPv4Address, now_s: float) -> None:
        before = self._membership.peers[source]
        peer = self._membership.hear(source, hello.name, hello.incarnation, hears_us=hello.heard, now_s=now_s)
        after = self._membership.peers[source]
        if (after.state, after.reason) != (before.state, before.reason):
            self._effects.append(PeerChanged(after))
        if peer is None:
            return
        # Answer at once when this is news to the other side too: two agents mesh in one round trip, not in a period.
        # It ends there, because an answer says `heard`.
        if not hello.heard or before.incarnation != hello.incarnation:
            self._greet(after)
        known = self._directory.remote.get(source)
        if known is None or (known.incarnation, known.version) != (hello.incarnation, hello.version):
            self._pull(source, now_s)

    def _on_table_part(self, part: wire.TablePart, source: IPv4Address) -> None:
        if part.incarnation < self._membership.peers[source].incarnation:
            return
        pending = self._assemblies.get(source)
        if pending is None or (pending.incarnation, pending.version, pending.parts) != (
            part.incarnation, part.version, part.parts,
        ):  # fmt: skip
            pending = self._assemblies[source] = _Assembly(part.incarnation, part.version, part.parts)
        pending.received[part.part] = part.endpoints
        if len(pending.received) < pending.parts:
            return
        del self._assemblies[source]
        endpoints = frozenset(endpoint for listed in pending.received.values() for endpoint in listed)
        if len(endpoints) > ENDPOINTS_PER_PEER_MAX:
            self.counters.rejected["too large"] += 1
            return
        self._directory.replace(source, Table(part.incarnation, part.version, endpoints))
        self._pulled_s.pop(source, None)
        self._effects.append(EndpointsChanged())

    def _on_step(self, step: wire.Step, source: IPv4Address, now_s: float) -> None:
        table = Table(step.incarnation, step.version, frozenset(step.endpoints))
        if self._directory.step(source, step.base, table, step.gone):
            self._effects.append(EndpointsChanged())
            return
        known = self._directory.remote.get(source)
        stale = known is not None and (known.incarnation, known.version) >= (step.incarnation, step.version)
        if not stale:
            self._pull(source, now_s)

    def _refuse_seed(self, source: IPv4Address, seed: str) -> None:
        self.counters.rejected["other cluster"] += 1
        reason = (
            f"it was set up differently (seed {seed}, here {self._seed}): cluster name, pod range, VNI and list of "
            "nodes must be the same on all nodes"
        )
        before = self._membership.peers[source]
        self._membership.refuse(source, reason)
        if before.state is not PeerState.REFUSED:
            self._effects.append(PeerChanged(self._membership.peers[source]))

    # --- sending --------------------------------------------------------------------------------------------------
    def _greet(self, peer: Peer) -> None:
        heard = peer.state in {PeerState.ESTABLISHED, PeerState.PENDING}
        self._send(peer.address, wire.Hello(self._name, self._incarnation, self._directory.own.version, heard))

    def _pull(self, source: IPv4Address, now_s: float) -> None:
        if now_s - self._pulled_s.get(source, -PULL_RETRY_S) >= PULL_RETRY_S:
            self._pulled_s[source] = now_s
            self._send(source, wire.Pull(self._incarnation))

    def _send_table(self, to: IPv4Address) -> None:
        own = self._directory.own
        listed = sorted(own.endpoints)
        size = wire.ENDPOINTS_PER_DATAGRAM_MAX
        chunks = [tuple(listed[start : start + size]) for start in range(0, len(listed), size)] or [()]
        for part, chunk in enumerate(chunks):
            self._send(to, wire.TablePart(own.incarnation, own.version, part, len(chunks), chunk))

    def _push(self, base: int, endpoints: tuple[Endpoint, ...], gone: tuple[IPv4Address, ...]) -> None:
        step = wire.Step(self._incarnation, base, self._directory.own.version, endpoints, gone)
        data = wire.encode(step, self._seed)
        for peer in self._membership.peers.values():
            if peer.state in {PeerState.ESTABLISHED, PeerState.PENDING}:
                self._send_bytes(peer.address, data)

    def _send(self, to: IPv4Address, message: wire.Message) -> None:
        self._send_bytes(to, wire.encode(message, self._seed))

    def _send_bytes(self, to: IPv4Address, data: bytes) -> None:
        self.counters.sent += 1
        self._effects.append(Send(to, data))
