"""Waiting for addresses: who waits is woken, gives up in time, and is not waited for when it has gone."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from plugin.agent.space import Space
from plugin.core.ipam.council import Wish
from plugin.core.upkeep.ledger import Ledger, Problem

ANY, EXACT = Wish(), Wish(exact=IPv4Address("10.32.0.9"))
WITHIN = Wish(within=IPv4Network("10.32.4.0/24"))
FAR_S = 60.0


@dataclass
class Council:
    """Writes down what it is asked."""

    wanted: list[tuple[Wish, float]] = field(default_factory=list)
    satisfied_with: list[Wish] = field(default_factory=list)
    answers: dict[Wish, str] = field(default_factory=dict)
    wrong: tuple[str, str] = ("", "")

    @property
    def gifts(self) -> "Council":
        return self

    def want(self, wish: Wish, *, now_s: float, until_s: float) -> None:
        self.wanted.append((wish, until_s - now_s))

    def satisfied(self, wish: Wish) -> None:
        self.satisfied_with.append(wish)

    def why_not(self, wish: Wish) -> str:
        return self.answers.get(wish, "")

    def status(self) -> str:
        return "awaiting consensus"

    def trouble(self) -> tuple[str, str]:
        return self.wrong


class Room:
    """A Space with its council; `flushed` counts what was handed to the driver."""

    def __init__(self) -> None:
        self.council = Council()
        self.flushed = 0
        self.space = Space(self.council, self.flush)

    def flush(self) -> None:
        self.flushed += 1


def later_s(seconds: float = FAR_S) -> float:
    return asyncio.get_running_loop().time() + seconds


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main

    asyncio.run(bounded())


async def begun(*tasks: "asyncio.Task[bool]") -> None:
    """Every task has come to where it waits."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_a_change_wakes_everybody_who_waits() -> None:
    async def main() -> None:
        room = Room()
        tasks = [asyncio.create_task(room.space.change(until_s=later_s())) for _ in range(3)]
        await begun(*tasks)
        room.space.changed()
        assert await asyncio.gather(*tasks) == [True, True, True]

    run(main())


def test_a_change_before_the_waiting_does_not_count() -> None:
    async def main() -> None:
        room = Room()
        room.space.changed()
        assert await room.space.change(until_s=later_s(0.01)) is False

    run(main())


@pytest.mark.parametrize("seconds", [0.01, 0.0, -5.0])
def test_who_waits_gives_up_at_the_deadline(seconds: float) -> None:
    async def main() -> None:
        assert await Room().space.change(until_s=later_s(seconds)) is False

    run(main())


def test_a_latecomer_does_not_make_others_miss_a_change_of_the_same_turn() -> None:
    async def main() -> None:
        room = Room()
        early = asyncio.create_task(room.space.change(until_s=later_s()))
        await begun(early)
        room.space.changed()
        late = asyncio.create_task(room.space.change(until_s=later_s(0.01)))
        assert await early is True
        assert await late is False

    run(main())


def test_a_wish_is_told_at_once_and_withdrawn_when_nobody_wants_it_any_more() -> None:
    async def main() -> None:
        room = Room()
        with room.space.wanted(WITHIN, until_s=later_s(8)):
            assert [wish for wish, _ in room.council.wanted] == [WITHIN]
            assert room.council.wanted[0][1] == pytest.approx(8, abs=1)
            assert (room.flushed, room.space.pending) == (1, 1)
            assert room.council.satisfied_with == []
        assert room.council.satisfied_with == [WITHIN]
        assert room.space.pending == 0

    run(main())


def test_only_the_last_waiter_withdraws_a_wish_and_other_wishes_stay() -> None:
    async def main() -> None:
        room = Room()
        with room.space.wanted(EXACT, until_s=later_s()):
            with room.space.wanted(ANY, until_s=later_s()):
                with room.space.wanted(ANY, until_s=later_s()):
                    assert room.space.pending == 3
                assert room.council.satisfied_with == []
            assert room.council.satisfied_with == [ANY]
        assert room.council.satisfied_with == [ANY, EXACT]

    run(main())


def test_a_waiter_that_is_cancelled_withdraws_its_wish_too() -> None:
    async def main() -> None:
        room = Room()

        async def wait() -> bool:
            with room.space.wanted(ANY, until_s=later_s()):
                return await room.space.change(until_s=later_s())

        task = asyncio.create_task(wait())
        await begun(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (room.council.satisfied_with, room.space.pending) == ([ANY], 0)

    run(main())


def test_why_not_is_what_is_known_of_the_wish_or_else_of_the_ring() -> None:
    room = Room()
    room.council.answers[EXACT] = "10.32.0.9 belongs to node2, which does not answer"
    assert room.space.why_not(EXACT) == "10.32.0.9 belongs to node2, which does not answer"
    assert room.space.why_not(ANY) == room.space.status == "awaiting consensus"


def test_a_ring_in_trouble_is_a_problem_once_it_has_lasted_and_until_it_is_over() -> None:
    room, ledger = Room(), Ledger()
    room.space.tell(ledger, 10.0)
    room.council.wrong = ("most seats do not answer", "weave recover")
    for now_s in (12.0, 14.0):
        room.space.tell(ledger, now_s)
    assert ledger.problems() == (), "an agent that has just been started hears nobody yet"
    room.space.tell(ledger, 16.0)
    assert ledger.problems() == (Problem("ring", "most seats do not answer", "weave recover", 16.0),)
    room.council.wrong = ("", "")
    room.space.tell(ledger, 18.0)
    assert ledger.problems() == ()
