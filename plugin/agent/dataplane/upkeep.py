"""Keeps true what has to be true on this node: looks when something has changed, mends, and writes it into the book.

A notice of the kernel starts a look at the parts that it may concern; a slow look at everything finds what no notice
told. What a look finds damaged is mended at once, unless the ledger says that it is held, or fought over and not yet
due; then it is looked at again. Whether it is whole is read off the kernel, not assumed.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from plugin.agent.dataplane.parts import Part
from plugin.core.errors import WeaveError, said_by
from plugin.core.upkeep.items import EVERYTHING, Concern, Damage
from plugin.core.upkeep.ledger import Ledger
from plugin.link.notices import Notices
from plugin.link.snapshot import Snapshot

_FULL_LOOK_S: Final = 30.0
_POLL_S: Final = 0.5
"""How often is asked for what changes without a notice: most settings of the kernel (reading a dozen takes 0.1 ms)."""

_PAUSE_S: Final = 0.05
"""Between two looks at the least: what comes in a burst is looked at together."""

_PAUSE_MAX_S: Final = 0.5
_LOAD_MAX: Final = 0.05
"""Looks may take this part of the time while things change, as long as _PAUSE_MAX_S allows it."""

_AGAIN_S: Final = 5.0
"""What could not be mended is tried again so much later."""

_ROUNDS_MAX: Final = 4
"""A part may stand on another that was mended in the same look: then it is looked at again."""

_Wrong: TypeAlias = Mapping[str, tuple[str, str]]
"""Object to (cause, advice)."""

_AGAIN_ADVICE: Final = "it is tried again every few seconds"
_FIGHT_ADVICE: Final = "find the program that changes it (another network plugin? a firewall service?) and stop it"

_LOGGED_MAX: Final = 8
"""So many objects of one look are named in the log; of the rest the number is."""


class Troubles(Protocol):
    """What is wrong and cannot be mended from outside (plugin/agent/attachments/links.py, passage.py)."""

    def troubles(self, seen: Snapshot) -> Mapping[str, tuple[str, str]]:
        """Object to (cause, advice)."""


class Upkeep:
    """Looks and mends. Everything runs in the event loop, so no look sees half of an ADD.

    Args:
        parts: What is looked after, the ground first.
        untouchable: What is only told, each with whose changes may be about it.
        ledger: The book.
        notices: Tell of changes.
        look: Takes a new snapshot.
        log: Where events go.
        now_s: Seconds since the epoch.

    Attributes:
        listener: Told as well what the kernel says has changed.
    """

    def __init__(
        self,
        *,
        parts: Sequence[Part],
        untouchable: Sequence[tuple[Concern, Troubles]],
        ledger: Ledger,
        notices: Notices,
        look: Callable[[], Snapshot],
        log: logging.Logger,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._parts = parts
        self._untouchable = untouchable
        self._ledger = ledger
        self._notices = notices
        self._take_look = look
        self._log = log
        self._now_s = now_s
        self._pending = Concern.NOTHING
        self._timer: asyncio.TimerHandle | None = None
        self._earliest_s = 0.0
        self._full_s = 0.0
        self._told: dict[object, set[str]] = {}
        self._again_s: dict[str, float] = {}
        self._refusals: dict[str, str] = {}
        self.listener: Callable[[Concern], None] = lambda _concern: None

    def start(self) -> None:
        """Look at everything now, and from now on; call it inside the running loop."""
        loop = asyncio.get_running_loop()
        for fileno in self._notices.filenos():
            loop.add_reader(fileno, self._on_notice)
        self.look_soon(EVERYTHING)

    def stop(self) -> None:
        """Look no more."""
        loop = asyncio.get_running_loop()
        for fileno in self._notices.filenos():
            loop.remove_reader(fileno)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look_soon(self, concern: Concern = EVERYTHING) -> None:
        """Something may be wrong with these."""
        self._pending |= concern
        self._set_timer(self._earliest_s)

    def mend_now(self) -> bool:
        """Something has just failed on this node: look at everything, at once; whether something was mended."""
        return self._look_and_go_on(EVERYTHING)

    def _look_and_go_on(self, concern: Concern) -> bool:
        """`look`, whatever comes of it: a look that fails must not be the last one."""
        try:
            return self.look(concern)
        except (OSError, WeaveError) as error:  # the kernel was asked for something and did not answer: asked again
            self._log.warning("node not looked at", extra={"reason": said_by(error, path=False)})
        except Exception as error:  # noqa: BLE001 - whatever it is, what is broken tomorrow has to be mended, too
            self._log.exception("node not looked at", extra={"reason": f"a bug: {type(error).__name__}: {error}"})
        return False

    def objects(self) -> list[str]:
        """The names of all that is looked after now."""
        return [name for part in self._parts for name in part.names()]

    def hold(self, name: str, reason: str) -> None:
        """Mend this object, group of objects or everything no more."""
        self._ledger.hold(name, reason, self._now_s())
        self._log.warning("held", extra={"object": name, "reason": reason})
        self.look_soon()

    def release(self, name: str) -> bool:
        """Mend it again, at once; False when it was not held."""
        released = self._ledger.release(name)
        for one in released:
            self._log.warning("released", extra={"object": one.name})
        self._again_s.clear()
        self.look_soon()
        return bool(released)

    def held(self) -> list[str]:
        """What is held."""
        return [hold.name for hold in self._ledger.holds()]

    def _on_notice(self) -> None:
        if concern := self._notices.receive():
            self.look_soon(concern)
            self.listener(concern)

    def _set_timer(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        due_s = max(due_s, loop.time())
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if began_s >= self._full_s or any(due_s <= self._now_s() for due_s in self._again_s.values()):
            self._pending = EVERYTHING
            self._full_s = began_s + _FULL_LOOK_S
        concern, self._pending = self._pending | Concern.SYSCTLS, Concern.NOTHING
        self._look_and_go_on(concern)
        took_s = loop.time() - began_s
        self._earliest_s = loop.time() + min(max(_PAUSE_S, took_s / _LOAD_MAX), _PAUSE_MAX_S)
        self._set_timer(self._earliest_s if self._pending else loop.time() + _POLL_S)

    def look(self, concern: Concern = EVERYTHING) -> bool:
        """Compare what `concern` names with what has to be, mend what may be mended, and say what could not be.

        Returns:
            Whether something was mended.

        Raises:
            OSError: The kernel does not tell.
        """
        mended: dict[str, str] = {}
        wrong: dict[object, _Wrong] = {}
        for _ in range(_ROUNDS_MAX):
            seen = self._take_look()
            if not self._round(seen, concern, mended, wrong):
                break
            concern = EVERYTHING
        told = [one for concerns, one in self._untouchable if concerns & concern]
        wrong |= {("told", one): dict(one.troubles(seen)) for one in told}  # some of them are parts as well
        damaged = {name for one in wrong.values() for name in one}
        whole = {name: what for name, what in mended.items() if name not in damaged}
        for name, what in whole.items():
            self._ledger.repaired(name, self._now_s(), what)
            self._again_s.pop(name, None)
        self._log_mended(whole)
        self._tell(wrong | {"fights": self._fights(damaged)})
        return bool(whole)

    def _round(self, seen: Snapshot, concern: Concern, mended: dict[str, str], wrong: dict[object, _Wrong]) -> bool:
        """One look at some parts; True when something was mended, so that another look has to follow.

        What was mended in an earlier round and is damaged still stays damaged: it was tried.
        """
        touched = False
        for part in self._parts:
            if not part.concerns & concern:
                continue
            damage = part.damage(seen)
            due = {one.name: one.what for one in damage if self._may_mend(one.name, mended)}
            if due:
                touched = True
                mended |= due
                for name in due:
                    self._refusals.pop(name, None)
                try:
                    part.mend(seen, due)
                except (WeaveError, OSError) as error:
                    self._refusals |= dict.fromkeys(due, said_by(error, path=False))
            tried = due.keys() - self._refusals.keys()
            wrong[part] = {one.name: self._why(one) for one in damage if one.name not in tried}
        return touched

    def _may_mend(self, name: str, mended: Mapping[str, str]) -> bool:
        now_s = self._now_s()
        due_s = max(self._ledger.mend_at_s(name, now_s), self._again_s.get(name, 0.0))
        if due_s > now_s and due_s < float("inf"):
            self._again_s[name] = due_s
        if name in mended or due_s > now_s:
            return False
        self._again_s.pop(name, None)  # should it fail again, it waits again
        return True

    def _why(self, damage: Damage) -> tuple[str, str]:
        """Why something is not mended (now), and what to do."""
        now_s = self._now_s()
        if (hold := self._ledger.held(damage.name)) is not None:
            reason = f": {hold.reason}" if hold.reason else ""
            return f"{damage.what}; held{reason}", f"it stays so until: weave release {_quoted(hold.name)}"
        if damage.name in self._ledger.fought_over(now_s):
            return f"{damage.what}; {self._fight(damage.name)}", _FIGHT_ADVICE
        self._again_s.setdefault(damage.name, now_s + _AGAIN_S)
        if (refused := self._refusals.get(damage.name)) is not None:
            return f"{damage.what}; it cannot be mended: {refused}", _AGAIN_ADVICE
        return f"{damage.what}; it was mended and is broken still", _AGAIN_ADVICE

    def _fights(self, damaged: Collection[str]) -> _Wrong:
        """What was broken again and again lately, also while it is whole."""
        names = self._ledger.fought_over(self._now_s())
        return {name: (self._fight(name), _FIGHT_ADVICE) for name in names if name not in damaged}

    def _fight(self, name: str) -> str:
        count = next((repair.count for repair in self._ledger.repairs() if repair.name == name), 0)
        return f"somebody changes it again and again, it was mended {count} times"

    def _tell(self, wrong: Mapping[object, _Wrong]) -> None:
        """What is wrong goes into the book, and what is well again leaves it: of those who were asked in this look."""
        told_before = {name for names in self._told.values() for name in names}
        for who, what in wrong.items():
            self._told[who] = set(what)
            for name, (cause, advice) in what.items():
                if self._ledger.trouble(name, cause, advice, self._now_s()):
                    self._log.error("trouble", extra={"object": name, "reason": cause, "hint": advice})
        told = {name for names in self._told.values() for name in names}
        for name in told_before - told:
            self._again_s.pop(name, None)
            self._refusals.pop(name, None)
            if self._ledger.well(name):
                self._log.info("trouble is over", extra={"object": name})

    def _log_mended(self, mended: Mapping[str, str]) -> None:
        for name, what in list(mended.items())[:_LOGGED_MAX]:
            self._log.warning("repaired", extra={"object": name, "reason": what})
        if len(mended) > _LOGGED_MAX:
            kinds = Counter(name.split(" ", 1)[0] for name in list(mended)[_LOGGED_MAX:])
            text = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
            self._log.warning("repaired", extra={"object": "more", "reason": text})


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
