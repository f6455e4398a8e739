"""Random events on a simulated cluster, and many runs of a simulation on all processors: for the tests in tests/sim."""

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

from plugin.core.ipam.ringbook import _unpacked
from plugin.core.ipam.succession import Meeting, meet
from plugin.core.messages.values import RingState
from tests.support.simulation import Machine, World

STORM_S, QUIET_S = 30.0, 90.0
PODS_MAX = 30


def seeds(runs: int) -> Iterable[int]:
    """SIM_SEED alone, or SIM_RUNS (else `runs`) of them from SIM_FIRST on."""
    if "SIM_SEED" in os.environ:
        return [int(os.environ["SIM_SEED"])]
    first = int(os.environ.get("SIM_FIRST", "0"))
    return range(first, first + int(os.environ.get("SIM_RUNS", str(runs))))


@contextmanager
def outcomes(run: Callable[[int], None], these: Iterable[int]) -> Iterator[dict[int, "Future[str]"]]:
    """All runs, on all processors; each test waits for its own."""
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        yield {seed: pool.submit(partial(_outcome, run), seed) for seed in these}
        pool.shutdown(wait=False, cancel_futures=True)  # of an interrupted run


def _outcome(run: Callable[[int], None], seed: int) -> str:
    """What went wrong in one run; empty when nothing did."""
    try:
        run(seed)
    except AssertionError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - it is the test's to say what it was
        return f"SIM_SEED={seed} replays it: {traceback.format_exc()}"
    return ""


def apart(one: Machine, other: Machine) -> bool:
    """Whether these two refuse each other because of a recovery: a person has said of one, wrongly, that it is gone."""
    (mine, i_refuse), (theirs, they_refuse) = _book(one), _book(other)
    if other.uid in i_refuse or one.uid in they_refuse:
        return True
    if "" in {mine.ring, theirs.ring} or mine.ring == theirs.ring or not (mine.origins or theirs.origins):
        return False
    return meet(mine, one.uid, theirs, other.uid) not in {Meeting.TAKE, Meeting.AHEAD}


def _book(machine: Machine) -> tuple[RingState, frozenset[str]]:
    """What it has agreed to, and whom it refuses; from its disk while it is down."""
    if machine.node is not None:
        return machine.node.council.state, machine.node.council.gone
    if machine.ring is None:
        return RingState("", 0, (), (), ()), frozenset()
    state, voted = _unpacked(machine.ring)
    lost = voted.value.origins[-1].lost if voted.value is not None and voted.value.origins else ()
    return state, frozenset(state.left) | {seat.uid for seat in lost}


class Storm:
    """Random events on one world."""

    def __init__(self, seed: int, count: int | None = None) -> None:
        self.world = World(seed, 2 + seed % 6 if count is None else count)
        self.rng = self.world.rng
        self.machines = list(self.world.machines.values())
        self.world.loss = self.rng.choice([0.0, 0.05, 0.3])
        self.world.delay_s = self.rng.choice([0.005, 0.05, 0.2])
        self.destroyed: list[Machine] = []
        self.may_lose_disks = False
        self.moved: set[str] = set()
        self.lost: set[str] = set()

    def one(self) -> Machine:
        return self.rng.choice(self.machines)

    def attach(self) -> None:
        machine = self.one()
        if len(machine.pods) < PODS_MAX:
            self.world.attach(machine, ("weave", f"pod{self.rng.randrange(1000)}", "eth0"))

    def detach(self) -> None:
        machine = self.one()
        pods = sorted(pod for pod in machine.pods if pod[1].startswith("pod"))
        if pods:
            self.world.detach(machine, self.rng.choice(pods))

    def crash(self) -> None:
        machine = self.one()
        if machine.node is not None:
            disk = machine.key in self.moved or not self.may_lose(machine) or self.rng.random() < 0.6
            if not disk:
                self.lost.add(machine.key)
            self.world.crash(machine, disk=disk, pods=self.rng.random() < 0.7)

    def may_lose(self, machine: Machine) -> bool:
        """Whether at least half of the seats would be left with what they know; otherwise nothing can be agreed."""
        if not self.may_lose_disks:
            return False
        councils = [one.node.council for one in self.machines if one.node is not None]
        # What somebody has voted for can become the next decree at any time.
        voted = [{seat.uid for seat in one.voted.value.seats} for one in councils if one.voted.value is not None]
        latest = max(councils, key=lambda council: council.epoch).seats
        living = {one.uid for one in self.machines if one is not machine and one.uid and not one.destroyed}
        return all(2 * len(living & seats) >= len(seats) for seats in (set(latest), *voted))

    def start(self) -> None:
        machine = self.one()
        if machine.node is None and not machine.destroyed:
            self.world.start(machine)

    def cut(self) -> None:
        a, b = self.rng.sample(self.machines, 2)
        self.world.cuts.add((a.address, b.address))
        if self.rng.random() < 0.7:
            self.world.cuts.add((b.address, a.address))

    def part(self) -> None:
        side = {machine.address for machine in self.machines if self.rng.random() < 0.5}
        others = {machine.address for machine in self.machines} - side
        self.world.cuts |= {(a, b) for a in side for b in others} | {(b, a) for a in side for b in others}

    def readdress(self) -> None:
        """Some machines change addresses among each other, whatever else is going on.

        Not one that loses its disk as well: it is known as its former self by its name and the address of its seat,
        which takes a while to follow (tests/sim/test_moves.py).
        """
        movable = [machine for machine in self.machines if machine.key not in self.lost]
        if len(movable) < 2:
            return
        for machine in self.machines:  # whose only seed is its own address by now would never find anybody
            machine.seeds = sorted(self.world.by_address)
            if machine.node is not None:
                machine.node.connect(machine.seeds)
        some = self.rng.sample(movable, self.rng.randint(2, len(movable)))
        addresses = [machine.address for machine in some]
        self.moved |= {machine.key for machine in some}
        self.world.readdress({one.key: addresses[place - 1] for place, one in enumerate(some)})

    def heal(self) -> None:
        self.world.cuts.clear()

    def fill_disk(self) -> None:
        machine = self.one()
        machine.disk_full = not machine.disk_full

    def destroy(self) -> None:
        """At most one, so that more than half can be left; a person says so afterwards."""
        machine = self.one()
        if machine.node is not None and not self.destroyed and self.may_lose(machine):
            self.world.destroy(machine)
            self.destroyed.append(machine)

    def events(self) -> list[tuple[Callable[[], None], float]]:
        """What happens, and how often."""
        return [
            (self.attach, 12), (self.detach, 4), (self.crash, 2), (self.start, 4), (self.cut, 1), (self.part, 1),
            (self.heal, 2), (self.fill_disk, 1), (self.destroy, 0.3), (self.readdress, 0.5),
        ]  # fmt: skip

    def blow(self, until_s: float = STORM_S) -> None:
        events = self.events()
        while self.world.now_s < until_s:
            self.world.run(self.rng.uniform(0.02, 1.0))
            # The first agreement relies on the founders' disks: a founder that lost its own could vote twice.
            self.may_lose_disks = self.may_lose_disks or all(
                machine.node is not None and machine.node.council.ring_id and machine.unwritten is None
                for machine in self.machines
            )
            self.rng.choices([event for event, _ in events], [weight for _, weight in events])[0]()

    def calm(self) -> None:
        world = self.world
        world.loss, world.delay_s = 0.0, 0.01
        world.cuts.clear()
        for machine in self.machines:
            machine.disk_full = False
            if machine.node is None and not machine.destroyed:
                world.start(machine)
        world.run(10.0)
        for machine in self.destroyed:
            self.remove(machine)

    def remove(self, machine: Machine) -> None:
        """A person types `weave rmpeer` somewhere."""
        somewhere = self.rng.choice([one for one in self.machines if one.node is not None])
        assert somewhere.node is not None
        somewhere.node.council.decrees.remove(machine.name)
        self.world.settle(somewhere)
