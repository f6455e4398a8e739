"""Keeps the state folder: looks at it every second, has it written anew, and says what is wrong with it.

How the folder is looked at and written is folder.py's. A folder that somebody damages again and again is mended less
and less often, and one that is held not at all (plugin/core/upkeep/ledger.py); meanwhile no address is given out that
would be forgotten: an ADD has the folder mended at once, or fails.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from plugin.agent.store import Store
from plugin.core.errors import MissingError
from plugin.core.upkeep.ledger import Ledger

_LOOK_S: Final = 1.0
"""A look costs some 30 microseconds, 0.003 % of a core."""

STATE: Final = "state folder"
_ADVICE: Final = (
    "make room, or make the file system writable again; until then pods are refused and ended pods are remembered here "
    "only: do not restart the agent"
)


class StateKeeper:
    """Looks after one store.

    Args:
        store: What is kept.
        ledger: Where troubles and repairs are written down.
        wall_s: The time, in seconds since the epoch.
        log: Where events go.
    """

    def __init__(self, store: Store, ledger: Ledger, wall_s: Callable[[], float], log: logging.Logger) -> None:
        self._store = store
        self._ledger = ledger
        self._wall_s = wall_s
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        store.may_renew = lambda: ledger.held(STATE) is None
        store.renewed = self._renewed

    def start(self) -> None:
        """Begin to look; call it inside the running loop."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._on_timer)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """One look, and what follows from it."""
        cause, now_s = self._store.look(), self._wall_s()
        if cause and self._ledger.mend_at_s(STATE, now_s) <= now_s:
            try:
                self._store.renew()
            except MissingError as error:
                self._trouble(cause if error.message in cause else f"{cause}; {error.message}")
                return
            self._renewed(cause)
            cause = ""
        if cause := cause or self._store.room():
            self._trouble(cause)
        elif self._ledger.well(STATE):
            self._log.info("state folder well")

    def _on_timer(self) -> None:
        self.start()
        self.look()

    def _renewed(self, cause: str) -> None:
        self._ledger.well(STATE)
        self._ledger.repaired(STATE, self._wall_s(), cause)
        self._log.warning("state folder written anew", extra={"reason": cause})

    def _trouble(self, cause: str) -> None:
        if self._ledger.trouble(STATE, cause, _ADVICE, self._wall_s()):
            self._log.error("state folder in trouble", extra={"reason": cause})
