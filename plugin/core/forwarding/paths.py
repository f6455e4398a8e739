"""Whether packets of pods really get to the other nodes, and how large they may be.

Control messages that arrive say nothing of the overlay: UDP 6784 may be blocked while UDP 6783 is open, and a link in
between may swallow large packets. So every agent probes the way that pods' packets take: an ICMP echo from its own
bridge address to the peer's, through the kernel's forwarding entries and VXLAN, as large as a pod's largest packet and
not to be fragmented. The peer's kernel answers, even while its agent is down. A second, small echo, sent only while
large ones are missed, tells a way that is blocked from one with a hole for large packets.

Peers to which pods send, and peers on which a first probe was lost, are probed every PROBE_S: a path that falls silent
is noticed within three seconds. Of all others one a second is, however many there are.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Final, TypeAlias

PROBE_S: Final = 0.5
"""Between two probes of a peer that is sent to or undecided; an answer that takes longer is missed for now."""

IDLE_S: Final = 1.0
"""Between two probes of idle peers, one peer at a time."""

LATE_S: Final = 5.0
"""An answer counts for so long, also when it had been missed: a slow path is no broken one. Then it is forgotten."""

MISSED_MAX: Final = 3
_SMALL_MISSED_MAX: Final = 2
"""So many in a row, and the path is not UP. Small ones begin when the first large one is missed."""

SMALL_BYTES: Final = 100
_IDENTIFIERS: Final = 1 << 32
_EARLY_S: Final = 0.005
"""Timers fire a little early: what is due so soon is due."""


class PathState(Enum):
    """What the probes say."""

    UNKNOWN = "unknown"
    UP = "up"
    MTU = "mtu"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Path:
    """The overlay's way to one node.

    Attributes:
        node: The node's address.
        target: Its bridge's address, which the probes go to.
        state: UNKNOWN before the first verdict; UP; MTU small packets pass and the largest do not; DOWN.
        reason: What the matter is and what to look at; empty when all is well.
        rtt_s: The last round trip of a large packet.
        mtu_bytes: The largest packet that passed; 0 when none does.
        since_s: When the state began.
        answered_s: When the last answer came.
    """

    node: IPv4Address
    target: IPv4Address
    state: PathState = PathState.UNKNOWN
    reason: str = ""
    rtt_s: float | None = None
    mtu_bytes: int = 0
    since_s: float = 0.0
    answered_s: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Send an echo request: an IP packet of `size_bytes` that must not be fragmented."""

    to: IPv4Address
    identifier: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PathChanged:
    """A path's state, or what is said of it, is another than before."""

    path: Path


PathEffect: TypeAlias = Probe | PathChanged


@dataclass(slots=True)
class _Target:
    """How the probes of one path stand.

    `missed` and `small_missed` count in a row; the complaints are the kernel's, when it would not even send.
    """

    path: Path
    next_s: float
    missed: int = 0
    small_missed: int = 0
    small_passed: bool = False
    complaint: str = ""
    small_complaint: str = ""

    @property
    def undecided(self) -> bool:
        """Whether the last probe contradicts the state, or there is no state yet."""
        state = self.path.state
        return (
            state is PathState.UNKNOWN
            or (state is PathState.UP and self.missed > 0)
            or (state is PathState.MTU and self.small_missed > 0)
        )


@dataclass(frozen=True, slots=True)
class _Sent:
    target: _Target
    sent_s: float
    large: bool


class Paths:
    """All paths of one node.

    Args:
        mtu_bytes: The largest packet that a pod sends.
        vxlan_port: For the sentences.
    """

    def __init__(self, mtu_bytes: int, vxlan_port: int) -> None:
        self._mtu_bytes = mtu_bytes
        self._vxlan_port = vxlan_port
        self._targets: dict[IPv4Address, _Target] = {}
        self._busy: frozenset[IPv4Address] = frozenset()
        self._undecided: set[IPv4Address] = set()
        self._turn: list[IPv4Address] = []
        self._next_idle_s = 0.0
        self._next_fast_s = 0.0
        # Both in the order of sending, so that looking for what is due costs no more than what is found. They hold
        # what was sent within LATE_S: two probes of each peer every PROBE_S at the most.
        self._sent: dict[int, _Sent] = {}
        self._unjudged: deque[int] = deque()
        self._identifier = 0
        self._effects: list[PathEffect] = []
        self._own_cause: Callable[[IPv4Address], str] = lambda _node: ""

    @property
    def paths(self) -> Mapping[IPv4Address, Path]:
        """By node address."""
        return {node: target.path for node, target in self._targets.items()}

    def effects(self) -> list[PathEffect]:
        """What has to be done, in order; handed over once."""
        handed, self._effects = self._effects, []
        return handed

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when there is nobody to probe."""
        if not self._targets:
            return float("inf")
        # Asked after every answer: `_next_fast_s` may be too early for those that are left, and is never too late.
        times = [self._next_idle_s]
        if self._busy or self._undecided:
            times.append(self._next_fast_s)
        while self._unjudged and self._unjudged[0] not in self._sent:
            self._unjudged.popleft()  # answered
        if self._unjudged:
            times.append(self._sent[self._unjudged[0]].sent_s + PROBE_S)
        return min(times)

    # --- what happens here ----------------------------------------------------------------------------------------
    def set_targets(self, targets: Mapping[IPv4Address, IPv4Address], *, now_s: float) -> None:
        """The peers' bridge addresses, by node address; new ones are probed at once, vanished ones are forgotten."""
        for node in self._targets.keys() - targets.keys():
            del self._targets[node]
            self._undecided.discard(node)
        for node, address in targets.items():
            known = self._targets.get(node)
            if known is None or known.path.target != address:
                # What was found out about an address that the bridge had before says nothing of this one.
                self._targets[node] = _Target(Path(node, address, since_s=now_s), now_s)
                self._undecided.add(node)
                self._next_fast_s = min(self._next_fast_s, now_s)

    def use_mtu(self, mtu_bytes: int, *, now_s: float) -> None:
        """A pod's largest packet has another size now: every path is probed with it at once."""
        self._mtu_bytes = mtu_bytes
        self._sent.clear()
        self._unjudged.clear()
        for node, target in self._targets.items():
            target.next_s, target.complaint = now_s, ""
            if target.path.state is PathState.UP:
                target.missed = 1
            elif target.path.state is PathState.MTU:
                target.small_missed = 1
            if target.undecided:
                self._undecided.add(node)
        self._next_fast_s = min(self._next_fast_s, now_s)

    def explain(self, own_cause: Callable[[IPv4Address], str], *, now_s: float) -> None:
        """Why this node itself may not reach another; the empty text where nothing is known to be wrong here."""
        self._own_cause = own_cause
        for target in self._targets.values():
            if target.path.state is PathState.DOWN:
                self._set(target, PathState.DOWN, self._block(target), 0, now_s)

    def busy(self, nodes: Collection[IPv4Address]) -> None:
        """The nodes to which pods have sent lately; it replaces those of before."""
        self._busy = frozenset(nodes)
        self._find_next_fast()

    def on_timer(self, *, now_s: float) -> None:
        """Judge what is unanswered, and probe whoever is due."""
        self._judge_unanswered(now_s)
        if now_s + _EARLY_S >= self._next_fast_s:
            for target in list(self._fast()):
                if now_s + _EARLY_S >= target.next_s:
                    self._probe(target, now_s)
            self._find_next_fast()
        if now_s + _EARLY_S >= self._next_idle_s:
            self._next_idle_s = now_s + IDLE_S
            idle = self._next_idle()
            if idle is not None:
                self._probe(idle, now_s)

    def on_reply(self, identifier: int, *, now_s: float) -> None:
        """An echo reply came; one that nobody waits for changes nothing."""
        sent = self._sent.pop(identifier, None)
        if sent is None or not self._is_current(sent.target):
            return
        target = sent.target
        target.path = replace(target.path, answered_s=now_s)
        target.small_missed, target.small_complaint = 0, ""
        if sent.large:
            target.missed, target.complaint, target.small_passed = 0, "", False
            target.path = replace(target.path, rtt_s=now_s - sent.sent_s)
            self._set(target, PathState.UP, "", self._mtu_bytes, now_s)
        else:
            target.small_passed = True
            self._judge(target, now_s)
        self._note(target)

    def on_unsendable(self, identifier: int, reason: str, *, now_s: float) -> None:
        """The kernel would not even send it: it is missed, and `reason` is what people will read."""
        sent = self._sent.pop(identifier, None)
        if sent is None or not self._is_current(sent.target):
            return
        if sent.large:
            sent.target.complaint = reason
        else:
            sent.target.small_complaint = reason
        self._miss(sent, now_s)

    # --- who is due -----------------------------------------------------------------------------------------------
    def _fast(self) -> Iterator[_Target]:
        """Those that do not wait for their turn among the idle."""
        for node in sorted(self._busy | self._undecided):  # in an order that a run can repeat
            target = self._targets.get(node)
            if target is not None:
                yield target

    def _find_next_fast(self) -> None:
        self._next_fast_s = min((target.next_s for target in self._fast()), default=float("inf"))

    def _next_idle(self) -> _Target | None:
        for _ in range(2):
            while self._turn:
                node = self._turn.pop()
                if node in self._targets and node not in self._busy and node not in self._undecided:
                    return self._targets[node]
            self._turn = sorted(self._targets, reverse=True)
        return None

    def _probe(self, target: _Target, now_s: float) -> None:
        # Where nothing was ever heard the other end is perhaps just starting: many that start together need their time.
        wait = 1 + target.missed if target.path.state is PathState.UNKNOWN else 1
        target.next_s = now_s + PROBE_S * wait
        self._send(target, now_s, large=True)
        if target.missed:
            self._send(target, now_s, large=False)

    def _send(self, target: _Target, now_s: float, *, large: bool) -> None:
        self._identifier = (self._identifier + 1) % _IDENTIFIERS
        self._sent[self._identifier] = _Sent(target, now_s, large)
        self._unjudged.append(self._identifier)
        size_bytes = self._mtu_bytes if large else SMALL_BYTES
        self._effects.append(Probe(target.path.target, self._identifier, size_bytes))

    # --- what it means --------------------------------------------------------------------------------------------
    def _judge_unanswered(self, now_s: float) -> None:
        while self._unjudged:
            sent = self._sent.get(self._unjudged[0])
            if sent is not None and now_s + _EARLY_S < sent.sent_s + PROBE_S:
                break
            self._unjudged.popleft()
            if sent is not None and self._is_current(sent.target):
                self._miss(sent, now_s)
        while self._sent:
            identifier, oldest = next(iter(self._sent.items()))
            if now_s < oldest.sent_s + LATE_S:
                break
            del self._sent[identifier]

    def _miss(self, sent: _Sent, now_s: float) -> None:
        target = sent.target
        if sent.large:
            target.missed += 1
        else:
            target.small_missed += 1
            target.small_passed = False
        self._judge(target, now_s)
        self._note(target)

    def _judge(self, target: _Target, now_s: float) -> None:
        if target.missed < MISSED_MAX:
            return
        if target.small_passed:
            self._set(target, PathState.MTU, self._hole(target), SMALL_BYTES, now_s)
        elif target.small_missed >= _SMALL_MISSED_MAX:
            self._set(target, PathState.DOWN, self._block(target), 0, now_s)

    def _hole(self, target: _Target) -> str:
        what = f"packets of {self._mtu_bytes} bytes do not pass, of {SMALL_BYTES} bytes do: "
        return what + (target.complaint or "some link between the nodes has a smaller MTU than both ends")

    def _block(self, target: _Target) -> str:
        return (
            self._own_cause(target.path.node)
            or target.small_complaint
            or (f"VXLAN packets are not answered: is UDP {self._vxlan_port} open in both directions?")
        )

    def _set(self, target: _Target, state: PathState, reason: str, mtu_bytes: int, now_s: float) -> None:
        before = target.path
        since_s = before.since_s if before.state is state else now_s
        target.path = replace(before, state=state, reason=reason, mtu_bytes=mtu_bytes, since_s=since_s)
        if (before.state, before.reason) != (state, reason):
            self._effects.append(PathChanged(target.path))

    def _note(self, target: _Target) -> None:
        if target.undecided:
            self._undecided.add(target.path.node)
            self._next_fast_s = min(self._next_fast_s, target.next_s)
        else:
            self._undecided.discard(target.path.node)

    def _is_current(self, target: _Target) -> bool:
        return self._targets.get(target.path.node) is target
