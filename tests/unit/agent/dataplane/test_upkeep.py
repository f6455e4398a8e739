"""When something is mended: at once, seldom when the kernel refuses, never while it is held."""

import logging
from collections.abc import Collection, Iterable
from typing import Any

import pytest

from plugin.agent.dataplane.upkeep import Upkeep
from plugin.core.errors import MissingError
from plugin.core.upkeep.items import Concern, Damage
from plugin.core.upkeep.ledger import Ledger


class Link:
    """A part with one object, which is broken until it is mended, if the kernel lets it be."""

    concerns = Concern.LINKS

    def __init__(self) -> None:
        self.broken, self.refused, self.tried = True, False, 0

    def names(self) -> Iterable[str]:
        return ("link weave",)

    def damage(self, _seen: object) -> list[Damage]:
        return [Damage("link weave", "gone")] if self.broken else []

    def mend(self, _seen: object, _names: Collection[str]) -> None:
        self.tried += 1
        if self.refused:
            raise OSError(1, "Operation not permitted")
        self.broken = False


class World:
    """One part, its upkeep, and a clock."""

    def __init__(self) -> None:
        self.now_s, self.link, self.ledger = 1000.0, Link(), Ledger()
        self.told: set[str] = set()
        notices: Any = None
        self.upkeep = Upkeep(
            parts=[self.link], untouchable=[], ledger=self.ledger, notices=notices, look=lambda: notices,
            log=logging.getLogger("test"), now_s=lambda: self.now_s,
        )  # fmt: skip

    def look_for(self, seconds: float) -> None:
        """A look every half second."""
        for _ in range(int(seconds * 2)):
            self.upkeep.look()
            self.told |= {one.cause for one in self.ledger.problems()}
            self.now_s += 0.5


def test_what_is_broken_is_mended_at_the_first_look_and_counted_once() -> None:
    world = World()
    assert world.upkeep.look(), "something was mended"
    world.look_for(10)
    assert world.link.tried == 1
    assert [(one.name, one.count, one.what) for one in world.ledger.repairs()] == [("link weave", 1, "gone")]
    assert world.ledger.problems() == ()


def test_what_the_kernel_refuses_is_told_and_tried_every_few_seconds_only() -> None:
    world = World()
    world.link.refused = True
    world.look_for(60)
    assert 10 <= world.link.tried <= 13, "every five seconds, not at every look"
    (problem,) = world.ledger.problems()
    assert world.told == {"gone; it cannot be mended: Operation not permitted"}, "one cause, so one line in the log"
    assert problem.since_s == 1000.0
    world.link.refused = False
    world.look_for(6)
    assert not world.link.broken
    assert world.ledger.problems() == ()


@pytest.mark.parametrize("error", [OSError(105, "No buffer space available"), MissingError("no nft"), KeyError("bug")])
def test_a_look_that_fails_is_told_and_not_the_last_one(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    whole = world.link.damage

    def fails(_seen: object) -> list[Damage]:
        raise error

    world.link.damage = fails  # type: ignore[method-assign]
    assert not world.upkeep.mend_now()
    assert [record.message for record in caplog.records] == ["node not looked at"]
    world.link.damage = whole  # type: ignore[method-assign]
    assert world.upkeep.mend_now()


def test_what_is_held_is_not_tried_until_it_is_released() -> None:
    world = World()
    world.ledger.hold("link", "exercise 3", world.now_s)
    world.look_for(60)
    assert world.link.tried == 0
    assert [one.cause for one in world.ledger.problems()] == ["gone; held: exercise 3"]
    world.ledger.release("link")
    world.look_for(1)
    assert (world.link.tried, world.ledger.problems()) == (1, ())
