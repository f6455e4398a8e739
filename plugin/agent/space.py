"""Waiting for addresses: who needs one that this agent does not own yet waits here, for a bounded time, with a reason.

An address that is free here never waits: nothing in this file is involved then.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from plugin.core.ipam.council import Council, Wish
from plugin.core.upkeep.ledger import Ledger

SPACE_WAIT_S: Final = 8.0
"""How long an ADD may wait for addresses: well below what the executable and runtimes allow an ADD (30 s and more)."""

_PATIENCE_S: Final = 3.0
"""An agent that has just been started hears nobody yet."""


class Space:
    """Lets coroutines wait until the ring has something for them.

    Args:
        council: Asks the other members.
        flush: Carries out what the council wants.
    """

    def __init__(self, council: Council, flush: Callable[[], object]) -> None:
        self._council = council
        self._flush = flush
        self._waiting: dict[Wish, int] = {}
        self._changed = asyncio.Event()
        self._trouble_since_s: float | None = None

    def changed(self) -> None:
        """There may be addresses where there were none: whoever waits looks again."""
        self._changed.set()

    @property
    def status(self) -> str:
        """What the ring is waiting for."""
        return self._council.status()

    @property
    def pending(self) -> int:
        """How many callers wait."""
        return sum(self._waiting.values())

    def tell(self, ledger: Ledger, now_s: float) -> None:
        """Write down what is wrong with the agreement about addresses and has not ended by itself; called regularly."""
        cause, advice = self._council.trouble()
        if not cause:
            self._trouble_since_s = None
            ledger.well("ring")
        elif self._trouble_since_s is None:
            self._trouble_since_s = now_s
        elif now_s - self._trouble_since_s >= _PATIENCE_S:
            ledger.trouble("ring", cause, advice, now_s)

    @contextmanager
    def wanted(self, wish: Wish, *, until_s: float) -> Iterator[None]:
        """While this lasts, the other members are asked for addresses."""
        self._waiting[wish] = self._waiting.get(wish, 0) + 1
        self._council.gifts.want(wish, now_s=self._now_s(), until_s=until_s)
        self._flush()
        try:
            yield
        finally:
            self._waiting[wish] -= 1
            if not self._waiting[wish]:
                del self._waiting[wish]
                self._council.gifts.satisfied(wish)

    async def change(self, *, until_s: float) -> bool:
        """Return when something has changed; False when `until_s` came first."""
        self._changed.clear()
        try:
            async with asyncio.timeout_at(until_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def why_not(self, wish: Wish) -> str:
        """What is known about a wish that was not fulfilled."""
        return self._council.gifts.why_not(wish) or self._council.status()

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
