"""Removals with a kernel that deletes when it is told to: what is deleted together, who waits, who hears of what."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Coroutine, Sequence

import pytest

from plugin.agent.attachments.removals import CALLS_MAX, Removals
from plugin.agent.store import Record
from plugin.link.netlink import NetlinkError

DEADLINE_S = 20


class Call:
    """One deletion that the kernel was asked for; it lasts until `end`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.refusals: dict[str, NetlinkError] = {}
        self._ended = threading.Event()

    def end(self, *refused: str) -> None:
        self.refusals = {name: NetlinkError(errno.EBUSY, "busy") for name in refused}
        self._ended.set()

    def wait(self) -> dict[str, NetlinkError]:
        assert self._ended.wait(DEADLINE_S)
        return self.refusals


class Kernel:
    """Collects the calls; says that links are gone when the test wants it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.gone: list[str] = []
        self.at_once = False

    def detach(self, _netlink: object, names: Sequence[str]) -> dict[str, NetlinkError]:
        call = Call(names)
        self.calls.append(call)
        if self.at_once:
            call.end()
        return call.wait()

    def receive(self) -> list[str]:
        gone, self.gone = self.gone, []
        return gone

    def fileno(self) -> int:
        raise AssertionError("the tests tell of departures themselves")


class Bench:
    """Removals with that kernel; `finished` and `refused` are the pods whose end was told, in order."""

    def __init__(self, calls_max: int = CALLS_MAX) -> None:
        self.kernel = Kernel()
        self.finished: list[list[str]] = []
        self.refused: list[str] = []
        self.strangers: set[str] = set()
        self.removals = Removals(
            netlinks=[object() for _ in range(calls_max)],  # type: ignore[misc]
            departures=self.kernel,
            finish=lambda records: self.finished.append([record.label for record in records]),
            refused=lambda record, _error: self.refused.append(record.label),
            strangers=self.strangers.update,
            detach=self.kernel.detach,  # type: ignore[arg-type]
        )

    def remove(self, *names: str) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(self.removals.remove(list(map(pod, names))))

    def depart(self, *names: str) -> None:
        self.kernel.gone += ["veth" + name for name in names]
        self.removals.on_departures()

    async def asked(self, count: int) -> list[list[str]]:
        """What the kernel was asked to delete, as soon as these are `count` calls."""
        await until(lambda: len(self.kernel.calls) >= count)
        return [call.names for call in self.kernel.calls]


def pod(name: str) -> Record:
    return Record(
        network="weave", container_id=name, ifname="eth0", address="10.32.0.9", mac="", host_ifname="veth" + name,
        label=name, state="added",
    )  # fmt: skip


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - it comes true in a thread
            await asyncio.sleep(0.001)


def play(scene: Callable[[Bench], Coroutine[None, None, None]], calls_max: int = CALLS_MAX) -> Bench:
    """Act the scene; whatever the kernel still does is ended behind it, so that a failure does not hang."""
    bench = Bench(calls_max)

    async def acted() -> None:
        try:
            await scene(bench)
        finally:
            bench.kernel.at_once = True
            for call in bench.kernel.calls:
                call.end()

    asyncio.run(acted())
    return bench


def test_a_single_removal_begins_at_once_and_ends_when_the_link_is_gone_not_when_the_call_returns() -> None:
    async def scene(bench: Bench) -> None:
        red = bench.remove("red")
        assert await bench.asked(1) == [["vethred"]]
        bench.depart("blue")
        assert bench.finished == []
        bench.depart("red")
        await red
        assert bench.finished == [["red"]]

    assert play(scene).finished == [["red"]], "the call's return tells nothing new"


def test_a_link_that_went_by_itself_is_told_whenever_it_is_heard_of() -> None:
    async def scene(bench: Bench) -> None:
        bench.depart("green")
        bench.kernel.gone = ["vethyellow"]  # unread when the next deletion begins
        red = bench.remove("red")
        await bench.asked(1)
        bench.depart("red", "blue")
        await red

    assert play(scene).strangers == {"vethgreen", "vethyellow", "vethblue"}


def test_what_comes_while_a_deletion_is_under_way_is_deleted_together() -> None:
    async def scene(bench: Bench) -> None:
        first = bench.remove("p0")
        await bench.asked(1)
        others = [bench.remove(f"p{number}") for number in range(1, 9)]
        await asyncio.sleep(0)
        bench.depart("p0")
        await first
        assert await bench.asked(2) == [["vethp0"], [f"vethp{number}" for number in range(1, 9)]]
        assert not any(task.done() for task in others)
        bench.kernel.calls[1].end()
        await asyncio.gather(*others)
        assert bench.finished == [["p0"], [f"p{number}" for number in range(1, 9)]], "forgotten in one go"

    play(scene)


def test_links_that_are_heard_of_one_by_one_end_one_by_one() -> None:
    async def scene(bench: Bench) -> None:
        both = asyncio.get_running_loop().create_task(bench.removals.remove([pod("red"), pod("blue")]))
        assert await bench.asked(1) == [["vethred", "vethblue"]]
        bench.depart("red")
        await asyncio.sleep(0)
        assert not both.done()
        bench.depart("blue")
        await both
        assert bench.finished == [["red"], ["blue"]]

    play(scene)


def test_who_asks_again_waits_for_the_same_end() -> None:
    async def scene(bench: Bench) -> None:
        first = bench.remove("red")
        await bench.asked(1)
        again = bench.remove("red")
        settled = asyncio.get_running_loop().create_task(bench.removals.settled(pod("red").attachment))
        await asyncio.sleep(0)
        assert not again.done()
        assert not settled.done()
        bench.depart("red")
        await asyncio.gather(first, again, settled)
        assert await bench.asked(1) == [["vethred"]], "deleted once"
        await bench.removals.settled(pod("red").attachment)

    assert play(scene).finished == [["red"]]


def test_a_caller_that_goes_away_stops_nothing() -> None:
    async def scene(bench: Bench) -> None:
        task = bench.remove("red")
        await bench.asked(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.depart("red")

    assert play(scene).finished == [["red"]]


def test_a_refusal_is_told_for_those_it_concerns() -> None:
    async def scene(bench: Bench) -> None:
        both = asyncio.get_running_loop().create_task(bench.removals.remove([pod("red"), pod("blue")]))
        await bench.asked(1)
        bench.kernel.calls[0].end("vethred")
        await both

    bench = play(scene)
    assert (bench.finished, bench.refused) == ([["blue"]], ["red"])


def test_a_call_that_fails_altogether_refuses_all_of_it() -> None:
    async def scene(bench: Bench) -> None:
        broken = Removals(
            netlinks=[object()],  # type: ignore[list-item]
            departures=bench.kernel,
            finish=lambda records: bench.finished.append([record.label for record in records]),
            refused=lambda record, error: bench.refused.append(f"{record.label}: {error}"),
            strangers=bench.strangers.update,
            detach=fails,
        )
        await broken.remove([pod("red"), pod("blue")])

    def fails(_netlink: object, _names: Sequence[str]) -> dict[str, NetlinkError]:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    bench = play(scene)
    assert bench.finished == []
    assert [text.split(":")[0] for text in bench.refused] == ["red", "blue"]
    assert "No buffer space" in bench.refused[0]


def test_a_link_that_went_earlier_under_the_same_name_counts_for_nothing() -> None:
    async def scene(bench: Bench) -> None:
        bench.kernel.gone = ["vethred"]  # nobody has read that yet
        red = bench.remove("red")
        await bench.asked(1)
        bench.removals.on_departures()
        assert not red.done()
        assert bench.finished == []
        bench.depart("red")
        await red

    play(scene)


def test_with_all_calls_taken_removals_wait_for_one_to_return() -> None:
    async def scene(bench: Bench) -> None:
        first = bench.remove("red")
        await bench.asked(1)
        bench.depart("red")
        await first
        more = [bench.remove("blue"), bench.remove("green")]
        await asyncio.sleep(0)
        assert await bench.asked(1) == [["vethred"]], "the kernel has not done with that"
        bench.kernel.calls[0].end()
        assert await bench.asked(2) == [["vethred"], ["vethblue", "vethgreen"]]
        bench.kernel.calls[1].end()
        await asyncio.gather(*more)

    play(scene, calls_max=1)


def test_two_records_of_one_name_both_end() -> None:
    async def scene(bench: Bench) -> None:
        twin = Record(**{name: getattr(pod("red"), name) for name in pod("red").__struct_fields__} | {"ifname": "net1"})
        both = asyncio.get_running_loop().create_task(bench.removals.remove([pod("red"), twin]))
        assert await bench.asked(1) == [["vethred"]]
        bench.depart("red")
        await both

    assert play(scene).finished == [["red", "red"]]


def test_stopping_waits_for_what_is_under_way_and_what_waits() -> None:
    async def scene(bench: Bench) -> None:
        read_end, write_end = os.pipe()
        bench.kernel.fileno = lambda: read_end  # type: ignore[method-assign]
        bench.removals.start()
        one, *others = [bench.remove(f"p{number}") for number in range(3)]
        await bench.asked(1)
        bench.kernel.at_once = True
        bench.kernel.calls[0].end()
        await bench.removals.stop()
        assert bench.removals._ends == {}
        await asyncio.gather(one, *others)
        os.close(read_end)
        os.close(write_end)

    assert sorted(label for labels in play(scene).finished for label in labels) == ["p0", "p1", "p2"]
