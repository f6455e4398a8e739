"""Storms in which more than half of the seats are lost for good, and a person has those that are left go on.

Two kinds. In the first the person tells the truth: then no address is ever held or owned by two, anywhere. In the
second the person is mistaken, on several nodes at once if need be: then the law holds among those who take each other
for members, and who was given up never mixes with them again. `SIM_SEED=n pytest tests/sim` replays a run.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from plugin.core.ipam.allocator import EXPOSE
from plugin.core.ipam.council import Council
from tests.support import storms
from tests.support.simulation import Machine
from tests.support.storms import QUIET_S, Storm, apart

SEEDS = storms.seeds(40)
_LOSS_S, _MISTAKES_S = 12.0, 25.0


@pytest.fixture(scope="module")
def after_losses() -> Iterator[dict[int, "Future[str]"]]:
    with storms.outcomes(lose_most, SEEDS) as running:
        yield running


@pytest.fixture(scope="module")
def after_mistakes() -> Iterator[dict[int, "Future[str]"]]:
    with storms.outcomes(be_mistaken, SEEDS) as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
def test_after_most_seats_burned_those_left_go_on_and_no_address_is_held_twice(
    seed: int, after_losses: dict[int, "Future[str]"]
) -> None:
    broken = after_losses[seed].result()
    assert not broken, broken


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_is_given_up_by_mistake_never_mixes_with_those_who_went_on(
    seed: int, after_mistakes: dict[int, "Future[str]"]
) -> None:
    broken = after_mistakes[seed].result()
    assert not broken, broken


class _Loss(Storm):
    """A storm with a person in it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 3 + seed % 5)
        self.truthful = True

    def begin(self) -> None:
        """Everybody has a seat."""
        loss, self.world.loss = self.world.loss, 0.0
        for machine in self.machines:
            self.world.start(machine)
        self.world.run_until(lambda: all(council(one).seated for one in self.machines), QUIET_S, "all have a seat")
        self.world.loss = loss

    def events(self) -> list[tuple[Callable[[], None], float]]:
        return [
            (self.attach, 12), (self.detach, 4), (self.crash, 2), (self.start, 4), (self.cut, 1), (self.part, 2),
            (self.heal, 1), (self.fill_disk, 1), (self.person, 4),
        ]  # fmt: skip

    def may_lose(self, machine: Machine) -> bool:
        """Disks burn with their machines here, and only then."""
        return machine.destroyed

    def living(self) -> list[Machine]:
        return [machine for machine in self.machines if not machine.destroyed]

    def person(self) -> None:
        """Types the command somewhere; who tells the truth first looks whether all who live are seen there."""
        running = [machine for machine in self.living() if machine.node is not None]
        if not running:
            return
        machine = self.rng.choice(running)
        if self.truthful:
            others = [one for one in self.living() if one is not machine]
            seen = {seat.name for seat in council(machine).decrees.recovery.silent_seats()}
            if not all(council(machine).answers(one.uid) for one in others) or seen & {one.name for one in others}:
                return
        self.world.recover(machine)

    def calm(self) -> None:
        self.world.loss, self.world.delay_s = 0.0, 0.01
        self.world.cuts.clear()
        for machine in self.living():
            machine.disk_full = False
            if machine.node is None:
                self.world.start(machine)
        self.world.run(10.0)


def council(machine: Machine) -> Council:
    assert machine.node is not None
    return machine.node.council


def lose_most(seed: int) -> None:
    """All but a few burn down in the middle of a storm; then a new machine joins."""
    storm = _Loss(seed)
    world, rng = storm.world, storm.rng
    storm.begin()
    storm.blow(world.now_s + rng.uniform(2, 8))
    machines = storm.machines
    for victim in rng.sample(machines, len(machines) - rng.randint(1, (len(machines) - 1) // 2)):
        storm.blow(world.now_s + rng.uniform(0, 2))
        world.destroy(victim)
    storm.blow(world.now_s + _LOSS_S)
    storm.calm()
    gone = {machine.name for machine in machines if machine.destroyed}
    end_s = world.now_s + QUIET_S
    while any(seat.name in gone for one in storm.living() for seat in council(one).seats.values()):
        assert world.now_s < end_s, world.broken("it is not recovered")
        storm.person()
        world.run(3.0)
    world.run_until(lambda: not world.disagreements(), QUIET_S, "quiet")
    guest = world.add([rng.choice(storm.living()).address])
    world.start(guest)
    world.run_until(lambda: EXPOSE in guest.pods, 20, "the new machine has an address")
    world.run_until(lambda: not world.disagreements(), QUIET_S, "quiet again")
    owners = council(guest).ring.owners()
    assert sum(owners.values()) == 128
    assert owners.keys() <= {machine.uid for machine in world.machines.values() if not machine.destroyed}


def be_mistaken(seed: int) -> None:
    """Nobody burns, but a person gives up whoever is not heard; at last all who are not with one of them are reset."""
    storm = _Loss(seed)
    world = storm.world
    storm.truthful, world.may_share = False, apart
    storm.begin()
    storm.blow(world.now_s + _MISTAKES_S)
    storm.calm()
    world.run(40.0)
    groups: dict[str, list[Machine]] = {}
    for machine in storm.machines:
        groups.setdefault(council(machine).ring_id, []).append(machine)
    winner = max(groups.values(), key=lambda group: (len(council(group[0]).origins), len(group), group[0].name))
    gone = {uid for machine in winner for uid in council(machine).gone}
    staying = [machine for machine in winner if machine.uid not in gone]
    assert staying, world.broken("nobody is left")
    for machine in storm.machines:
        if machine not in staying:
            world.crash(machine, disk=False, pods=False)
            machine.founders, machine.seeds = 0, [staying[0].address]  # they join, and found nothing of their own
            world.start(machine)
    end_s = world.now_s + 2 * QUIET_S
    while world.disagreements():
        assert world.now_s < end_s, world.broken(f"not quiet: {world.disagreements()}")
        world.recover(storm.rng.choice(staying))  # of the seats that were reset there may be too many to remove them
        world.run(5.0)
    assert sum(council(staying[0]).ring.owners().values()) == 128
