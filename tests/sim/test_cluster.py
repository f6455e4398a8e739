"""Clusters in storms: losses, cuts, crashes with and without disk, machines that burn down. The laws hold throughout.

A failure prints `SIM_SEED=n`; `SIM_SEED=n pytest tests/sim` replays exactly that run. `SIM_RUNS=10000` runs as many, from
`SIM_FIRST` on.
"""

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.support import storms
from tests.support.storms import QUIET_S, Storm

SEEDS = storms.seeds(300)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[int, "Future[str]"]]:
    with storms.outcomes(run, SEEDS) as running:
        yield running


@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_storm_the_laws_hold_and_afterwards_all_agree(seed: int, outcomes: dict[int, "Future[str]"]) -> None:
    broken = outcomes[seed].result()
    assert not broken, broken


def run(seed: int) -> None:
    """A storm, then calm, then one machine that wants everything."""
    storm = Storm(seed)
    world = storm.world
    for machine in storm.machines:
        if storm.rng.random() < 0.9:
            world.start(machine)
        world.run(storm.rng.uniform(0.0, 0.3))
    storm.blow()
    storm.calm()
    world.run_until(lambda: not world.disagreements(), QUIET_S, "quiet")
    # Nothing is lost: one machine can have every address that is left.
    up = [machine for machine in storm.machines if machine.node is not None]
    greedy = storm.rng.choice(up)
    for machine in up:
        for pod in sorted(pod for pod in machine.pods if pod[1].startswith("pod")):
            world.detach(machine, pod)
    wanted = 126 - len(up)
    number = 0
    while len(greedy.pods) < wanted:
        before = len(greedy.pods)
        for _ in range(20):
            number += 1
            world.attach(greedy, ("weave", f"fill{number}", "eth0"))
        world.run_until(
            lambda before=before: len(greedy.pods) > before,
            30.0,
            f"{before} of {wanted}: {greedy.node.council.holdings()}",
        )
        if wanted - len(greedy.pods) <= 2 * len(up):
            break  # every other agent keeps its last free address
    assert not world.disagreements() or world.run_until(lambda: not world.disagreements(), QUIET_S, "quiet again")
