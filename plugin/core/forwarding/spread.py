"""How every agent comes to know every endpoint: each tells its own table to all others, and each of them confirms.

A change goes to everybody at once, as the step between two versions (STEP), and again to those that have not confirmed
it (SEEN), after a wait that doubles. Who is told a step from a version it does not have asks for the whole table (PULL,
TABLE); who was away notices by the version in the next ping. In a quiet cluster nothing of this costs anything.
"""

from collections import deque
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from plugin.core.forwarding.endpoints import Directory, Table
from plugin.core.messages import fields, kinds
from plugin.core.messages.values import ENDPOINTS_PER_PEER_MAX, Endpoint, Member
from plugin.core.outbox import EndpointsChanged, Outbox

_RESEND_S: Final = 0.3
_RESEND_MAX_S: Final = 5.0
_RESENDS_PER_TURN_MAX: Final = 64
_PULL_RETRY_S: Final = 0.5
_STEPS_KEPT: Final = 64
_TURN_S: Final = 0.1


@dataclass(slots=True)
class _Pushed:
    """What a peer was told and has not confirmed yet."""

    due_s: float
    wait_s: float


@dataclass(slots=True)
class _Assembly:
    """The parts of a table that have come in so far."""

    life: int
    version: int
    parts: int
    received: dict[int, tuple[Endpoint, ...]] = field(default_factory=dict)


class Spread:
    """Tells the others, and listens to what they tell.

    Args:
        directory: The tables.
        outbox: Where messages go.

    Attributes:
        patience: How many times as long as usual a confirmation may take (`swim.Detector.patience`).
        convergence_s: How long the last change of this agent's table took until every peer had confirmed it.
    """

    def __init__(self, directory: Directory, outbox: Outbox) -> None:
        self._directory = directory
        self._outbox = outbox
        self._steps: deque[kinds.Step] = deque(maxlen=_STEPS_KEPT)
        self._confirmed: dict[str, int] = {}
        self._pushed: dict[str, _Pushed] = {}
        self._pulled_s: dict[str, float] = {}
        self._assemblies: dict[str, _Assembly] = {}
        self._next_turn_s = 0.0
        self._due_s = float("inf")
        self.patience = 1
        self._changed_s: float | None = None
        self.convergence_s = 0.0

    @property
    def unconfirmed(self) -> int:
        """How many peers have not confirmed the newest version of this agent's table."""
        return len(self._pushed)

    def next_timer_s(self) -> float:
        """When `on_timer` wants to be called next; infinity when everybody has everything."""
        # Asked after every message: `_due_s` may be too early for what is left, which costs a turn, and never too late.
        return max(self._next_turn_s, self._due_s) if self._pushed else float("inf")

    def on_timer(self, *, now_s: float) -> None:
        """Tell again what was not confirmed."""
        if now_s < self._next_turn_s:
            return
        self._next_turn_s = now_s + _TURN_S
        if now_s < self._due_s:
            return
        due = [name for name, pushed in self._pushed.items() if pushed.due_s <= now_s]
        for name in due[:_RESENDS_PER_TURN_MAX]:
            member = self._outbox.members.others.get(name)
            if member is None or not member.answers:
                del self._pushed[name]  # told when it is there again
                continue
            wait_s = min(self._pushed[name].wait_s * 2, _RESEND_MAX_S)
            self._pushed[name] = _Pushed(now_s + wait_s, wait_s)
            self._tell(name)
        self._due_s = min((pushed.due_s for pushed in self._pushed.values()), default=float("inf"))

    # --- what happens here ----------------------------------------------------------------------------------------
    def changed(self, base: int, endpoints: tuple[Endpoint, ...], gone: tuple[IPv4Address, ...], now_s: float) -> None:
        """This agent's table went from version `base` to the present one."""
        step = kinds.Step(base, self._directory.own.version, endpoints, gone)
        self._steps.append(step)
        self._changed_s = now_s
        others = [name for name, member in self._outbox.members.others.items() if member.answers]
        for name in others:
            self._pushed.setdefault(name, _Pushed(now_s + _RESEND_S * self.patience, _RESEND_S * self.patience))
        self._due_s = min(self._due_s, now_s + _RESEND_S * self.patience)
        self._outbox.broadcast(others, step)
        self._outbox.add(EndpointsChanged())

    def met(self, name: str, *, anew: bool, now_s: float) -> None:
        """A member is there: `anew` for the first time or in a new life, else again after it had seemed to be gone.

        One that is there again has what it confirmed before; telling all of it once more would only keep those busy
        who were too busy to answer. If it has forgotten, it notices by the version in the next ping, and asks.
        """
        if anew:
            self._confirmed.pop(name, None)
            self._assemblies.pop(name, None)
        if self._directory.own.version > self._confirmed.get(name, 0):
            # A moment later: most have it by then from an exchange of everything.
            self._pushed[name] = _Pushed(now_s + _TURN_S, _RESEND_S)
            self._due_s = min(self._due_s, now_s + _TURN_S)

    def has_table(self, name: str, version: int, *, now_s: float) -> None:
        """A member says which version of this agent's table it has."""
        if version > self._confirmed.get(name, 0):
            self._confirmed[name] = version
        if version >= self._directory.own.version:
            self._pushed.pop(name, None)
            if not self._pushed and self._changed_s is not None:
                self.convergence_s, self._changed_s = now_s - self._changed_s, None

    def lost(self, member: Member) -> None:
        """A member is gone for good: so are its endpoints."""
        self._confirmed.pop(member.name, None)
        self._pushed.pop(member.name, None)
        self._assemblies.pop(member.name, None)
        self._pulled_s.pop(member.name, None)
        self._directory.forget(member.address)
        self._outbox.add(EndpointsChanged())

    def check(self, member: Member, version: int, *, now_s: float) -> None:
        """A member says at which version its own table is."""
        known = self._directory.remote.get(member.address)
        if known is None or (known.incarnation, known.version) < (member.life, version):
            if known is None and version == 0:
                self._directory.replace(member.address, Table(member.life, 0, frozenset()))
                return
            self._pull(member.name, now_s)

    # --- messages -------------------------------------------------------------------------------------------------
    def on_step(self, step: kinds.Step, sender: Member, *, now_s: float) -> None:
        """The change of a peer's table."""
        known = self._directory.remote.get(sender.address)
        if known is None and step.base == 0:
            self._directory.replace(sender.address, Table(sender.life, 0, frozenset()))
        table = Table(sender.life, step.version, frozenset(step.endpoints))
        if self._directory.step(sender.address, step.base, table, step.gone):
            self._outbox.add(EndpointsChanged())
            self._outbox.send(sender.name, kinds.Seen(step.version))
        elif known is not None and (known.incarnation, known.version) >= (sender.life, step.version):
            self._outbox.send(sender.name, kinds.Seen(known.version))
        else:
            self._pull(sender.name, now_s)

    def on_table_part(self, part: kinds.TablePart, sender: Member) -> None:
        """A part of a peer's whole table."""
        if part.part >= part.parts:
            return
        pending = self._assemblies.get(sender.name)
        if pending is None or (pending.life, pending.version, pending.parts) != (
            sender.life, part.version, part.parts,
        ):  # fmt: skip
            pending = self._assemblies[sender.name] = _Assembly(sender.life, part.version, part.parts)
        pending.received[part.part] = part.endpoints
        if len(pending.received) < pending.parts:
            return
        del self._assemblies[sender.name]
        endpoints = tuple(endpoint for listed in pending.received.values() for endpoint in listed)
        self.on_table(sender, part.version, endpoints)
        self._outbox.send(sender.name, kinds.Seen(part.version))

    def on_table(self, owner: Member, version: int, endpoints: tuple[Endpoint, ...]) -> None:
        """The whole table of `owner`, from itself or from somebody who has it."""
        known = self._directory.remote.get(owner.address)
        if len(endpoints) > ENDPOINTS_PER_PEER_MAX:
            self._outbox.counters.rejected["too large"] += 1
        elif known is None or (known.incarnation, known.version) < (owner.life, version):
            self._directory.replace(owner.address, Table(owner.life, version, frozenset(endpoints)))
            self._pulled_s.pop(owner.name, None)
            self._outbox.add(EndpointsChanged())

    def on_pull(self, sender: Member) -> None:
        """A peer wants the whole table."""
        self._send_table(sender.name)

    # --- sending --------------------------------------------------------------------------------------------------
    def _tell(self, name: str) -> None:
        """Bring a peer from what it confirmed to the present, by steps if few are missing."""
        base = self._confirmed.get(name, 0)
        missing = [step for step in self._steps if step.base >= base]
        if missing and missing[0].base == base and len(missing) <= 4:
            for step in missing:
                self._outbox.send(name, step)
        else:
            self._send_table(name)

    def _send_table(self, name: str) -> None:
        own = self._directory.own
        listed = sorted(own.endpoints)
        size = fields.ENDPOINTS_PER_DATAGRAM_MAX
        chunks = [tuple(listed[start : start + size]) for start in range(0, len(listed), size)] or [()]
        for part, chunk in enumerate(chunks):
            self._outbox.send(name, kinds.TablePart(own.version, part, len(chunks), chunk))

    def _pull(self, name: str, now_s: float) -> None:
        if now_s - self._pulled_s.get(name, -_PULL_RETRY_S) >= _PULL_RETRY_S:
            self._pulled_s[name] = now_s
            self._outbox.send(name, kinds.Pull())
