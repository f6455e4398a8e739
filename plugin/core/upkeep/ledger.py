"""The book of a node's troubles: what was mended and how often, what is wrong and why, what is held broken on purpose.

Whoever finds something wrong says so with `trouble`, and with `well` when it is over; whoever mends asks `mend_at_s`
before and says `repaired` after. `weave status` reads it. Names are short, stable names of objects, whose first word is
their group: `link weave`, `sysctl net.ipv4.ip_forward`, `nft table weave`, `uplink`.

Something that is broken again as soon as it is mended is fought over by two programs. It is mended less and less often,
so that this node does not burn its processor on a fight, and shown as a problem, so that somebody ends it.
"""

from dataclasses import dataclass, field
from typing import Final

EVERYTHING: Final = "everything"
"""The name by which all objects are held at once."""

EAGER_MAX: Final = 5
"""So many times in a row something is mended at once; then it is fought over."""

_PAUSE_MIN_S: Final = 2.0
_PAUSE_MAX_S: Final = 64.0
CALM_S: Final = 60.0
"""Left alone for so long, an object is not fought over (any more)."""

_MENDED_MAX: Final = 256
"""So many names of mended objects are remembered: pods come and go for ever."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong on this node now.

    Attributes:
        name: The object.
        cause: What is wrong, in a sentence without a full stop.
        advice: What to do about it; empty when it mends itself.
        since_s: When it was first seen, seconds since the epoch.
    """

    name: str
    cause: str
    advice: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Repair:
    """Something of ours that was broken by somebody else and is whole again.

    Attributes:
        name: The object.
        count: How often, since the agent started.
        what: What was wrong the last time.
        last_s: When it was last mended, seconds since the epoch.
    """

    name: str
    count: int
    what: str
    last_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """What must not be mended until it is released.

    Attributes:
        name: An object, a group of objects (the first word of their names), or EVERYTHING.
        reason: Why, as the person who holds it has said.
        since_s: Seconds since the epoch.
    """

    name: str
    reason: str
    since_s: float


@dataclass(slots=True)
class _Fight:
    """How often something was mended in a row, and when it may be mended again."""

    count: int = 0
    last_s: float = float("-inf")
    next_s: float = float("-inf")


@dataclass(slots=True)
class Ledger:
    """What is written in the book. All times are seconds since the epoch, given by whoever calls."""

    _problems: dict[str, Problem] = field(default_factory=dict[str, Problem])
    _repairs: dict[str, Repair] = field(default_factory=dict[str, Repair])
    _holds: dict[str, Hold] = field(default_factory=dict[str, Hold])
    _fights: dict[str, _Fight] = field(default_factory=dict[str, _Fight])
    _kinds: dict[str, int] = field(default_factory=dict[str, int])

    def trouble(self, name: str, cause: str, advice: str, now_s: float) -> bool:
        """Something is wrong, or still is; its cause may have become another.

        Returns:
            Whether this is news: the time to log it.
        """
        known = self._problems.get(name)
        since_s = now_s if known is None else known.since_s
        self._problems[name] = Problem(name, cause, advice, since_s)
        return known is None or known.cause != cause

    def well(self, name: str) -> bool:
        """Nothing is wrong with it (any more); True when something was."""
        return self._problems.pop(name, None) is not None

    def repaired(self, name: str, now_s: float, what: str = "") -> None:
        """It was broken by somebody and is whole again."""
        known = self._repairs.pop(name, None)  # the latest last
        self._repairs[name] = Repair(name, 1 if known is None else known.count + 1, what, now_s)
        while len(self._repairs) > _MENDED_MAX:
            del self._repairs[next(iter(self._repairs))]
        kind = _kind(name)
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        fight = self._fight(name, now_s)
        fight.count += 1
        fight.last_s = now_s
        if fight.count >= EAGER_MAX:
            fight.next_s = now_s + min(_PAUSE_MIN_S * 2 ** (fight.count - EAGER_MAX), _PAUSE_MAX_S)

    def mend_at_s(self, name: str, now_s: float) -> float:
        """When something broken may be mended: now or later; infinity while it is held."""
        if self.held(name) is not None:
            return float("inf")
        return max(now_s, self._fight(name, now_s).next_s)

    def fought_over(self, now_s: float) -> tuple[str, ...]:
        """What was broken again and again lately."""
        for name in list(self._fights):
            self._fight(name, now_s)
        return tuple(name for name, fight in self._fights.items() if fight.count >= EAGER_MAX)

    def hold(self, name: str, reason: str, now_s: float) -> Hold:
        """Do not mend this object, group or EVERYTHING until it is released; twice gives the newer reason."""
        known = self._holds.get(name)
        made = Hold(name, reason, now_s if known is None else known.since_s)
        self._holds[name] = made
        return made

    def release(self, name: str) -> tuple[Hold, ...]:
        """Mend it again; EVERYTHING releases all that is held. What was released; it is no fight any more."""
        names = list(self._holds) if name == EVERYTHING else [name]
        released = tuple(hold for one in names if (hold := self._holds.pop(one, None)) is not None)
        if released:
            self._fights.clear()
        return released

    def held(self, name: str) -> Hold | None:
        """Why an object must not be mended, or None: it may be."""
        return self._holds.get(name) or self._holds.get(_kind(name)) or self._holds.get(EVERYTHING)

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong now, the oldest first."""
        return tuple(sorted(self._problems.values(), key=lambda one: (one.since_s, one.name)))

    def repairs(self) -> tuple[Repair, ...]:
        """What was mended, the latest first."""
        return tuple(reversed(self._repairs.values()))

    def repaired_by_kind(self) -> dict[str, int]:
        """How often objects of each group were mended since the agent started."""
        return dict(self._kinds)

    def holds(self) -> tuple[Hold, ...]:
        """What is held, the oldest first."""
        return tuple(sorted(self._holds.values(), key=lambda hold: hold.since_s))

    def _fight(self, name: str, now_s: float) -> _Fight:
        """The object's fight; one that ended is forgotten."""
        known = self._fights.get(name)
        if known is None or now_s - max(known.last_s, known.next_s) > CALM_S:
            known = self._fights[name] = _Fight()
        return known


def _kind(name: str) -> str:
    """The group of an object: the first word of its name."""
    return name.split(" ", 1)[0]
