"""The way out after too many seats were lost for good: each situation by itself.

Storms of them are in test_recovery_storms.py.
"""

from ipaddress import IPv4Address

from plugin.core.ipam.allocator import EXPOSE
from plugin.core.ipam.council import Council
from plugin.core.ipam.synod import Voted
from plugin.core.membership.members import PeerState
from plugin.core.node import Node
from tests.support.simulation import Machine, World
from tests.support.storms import apart


def node(machine: Machine) -> Node:
    assert machine.node is not None
    return machine.node


def council(machine: Machine) -> Council:
    return node(machine).council


def started(seed: int, count: int) -> tuple[World, list[Machine]]:
    world = World(seed, count)
    machines = list(world.machines.values())
    for machine in machines:
        world.start(machine)
    settled(world)
    return world, machines


def settled(world: World) -> None:
    world.run_until(lambda: not world.disagreements(), 60, "all agree")


def attached(world: World, machine: Machine, name: str) -> IPv4Address:
    pod = ("weave", name, "eth0")
    world.attach(machine, pod)
    world.run_until(lambda: pod in machine.pods, 10, f"{name} has an address")
    return machine.pods[pod]


def part(world: World, *sides: list[Machine]) -> None:
    """Nobody of one side hears anybody of another."""
    world.cuts = {
        (a.address, b.address) for one in sides for other in sides if one is not other for a in one for b in other
    }


def silent(world: World, machine: Machine, *others: Machine) -> None:
    names = {other.name for other in others}
    found = council(machine).decrees.recovery.silent_seats
    world.run_until(lambda: names <= {seat.name for seat in found()}, 30, "they are known to be silent")


def recovered(world: World, machine: Machine, *lost: Machine) -> None:
    silent(world, machine, *lost)
    before = len(council(machine).origins)
    assert world.recover(machine, *(other.name for other in lost)) == ""
    world.run_until(lambda: len(council(machine).origins) > before, 10, "it is recovered")


def joins(world: World, at: Machine) -> Machine:
    guest = world.add([at.address])
    world.start(guest)
    world.run_until(lambda: EXPOSE in guest.pods, 10, "the new machine has an address")
    return guest


def test_one_of_three_goes_on_and_a_new_machine_gets_a_seat_at_once() -> None:
    world, (one, two, three) = started(1, 3)
    kept = attached(world, one, "red")
    for lost in (two, three):
        world.destroy(lost)
    silent(world, one, two, three)
    before = council(one).ring_id
    guest = world.add([one.address])
    world.start(guest)
    world.run(20)
    assert EXPOSE not in guest.pods, "without a word nothing is given up"
    assert "awaiting a seat" in council(guest).status()
    assert "node0001, node0002" in council(one).trouble()[0]
    assert "weave recover" in council(one).trouble()[1]
    assert world.recover(one) == ""
    world.run_until(lambda: EXPOSE in guest.pods, 10, "the new machine has an address")
    settled(world)
    assert council(one).trouble() == ("", "")
    assert council(one).ring_id == council(guest).ring_id != before
    assert [seat.name for seat in council(one).origins[-1].lost] == ["node0001", "node0002"]
    assert one.pods["weave", "red", "eth0"] == kept
    assert sum(council(one).ring.owners().values()) == 128, "what the lost ones had is here"
    assert set(council(one).ring.owners()) <= {one.uid, guest.uid}


def test_it_refuses_while_it_is_not_needed_or_not_true() -> None:
    world, machines = started(2, 5)
    one, two, three, four, five = machines
    assert world.recover(one) == "every seat of the ring answers: nothing is lost"
    assert "node0001 answers" in council(one).decrees.recovery.prospect(frozenset({two.uid})).obstacle
    world.destroy(five)
    silent(world, one, five)
    assert "4 of 5 seats are left, which is enough" in world.recover(one)
    world.destroy(four)
    world.crash(three, disk=True, pods=True)
    silent(world, one, three, four)
    world.crash(two, disk=True, pods=True)
    silent(world, one, two)
    assert "node0001 has a seat, does not answer either" in world.recover(one, three.name, four.name, five.name)
    guest = world.add([one.address])
    world.start(guest)
    world.run(5)
    assert "has no seat" in council(guest).decrees.recovery.prospect(frozenset({four.uid})).obstacle
    assert council(one).origins == ()


def test_all_who_are_left_have_to_agree_and_what_they_were_given_stays_theirs() -> None:
    world, machines = started(3, 5)
    one, two, *lost = machines
    given = council(two).ring.owners()[two.uid]
    while council(two).ring.owners()[two.uid] == given:  # until somebody has given it something
        attached(world, two, f"pod{len(two.pods)}")
    part(world, [one], [two, *lost])  # and the other survivor does not hear of what comes now
    before = set(council(two).ring.owned_by(two.uid))
    for number in range(8):
        attached(world, two, f"more{number}")
    for machine in lost:
        world.destroy(machine)
    silent(world, one, two, *lost)
    assert "node0001 has a seat" in world.recover(one, *(machine.name for machine in lost))
    world.cuts.clear()
    world.run_until(lambda: council(one).answers(two.uid), 30, "the two hear each other")
    recovered(world, one, *lost)
    settled(world)
    for share in before:
        assert council(one).ring.owner_of(share.first) == two.uid
    assert len(set(one.pods.values()) & set(two.pods.values())) == 0
    joins(world, two)


def test_the_same_command_on_two_nodes_at_once_gives_one_ring() -> None:
    world, machines = started(4, 5)
    one, two, *lost = machines
    for machine in lost:
        world.destroy(machine)
    silent(world, one, *lost)
    silent(world, two, *lost)
    assert world.recover(one) == ""
    assert world.recover(two) == ""
    world.run_until(lambda: len(council(one).seats) == len(council(two).seats) == 2, 20, "both have it")
    settled(world)
    assert council(one).ring_id == council(two).ring_id
    assert len(council(one).origins) == 1
    assert world.recover(one) == "every seat of the ring answers: nothing is lost"


def test_it_is_finished_by_whoever_accepted_it_when_the_one_who_was_told_dies() -> None:
    world, machines = started(5, 5)
    one, two, *lost = machines
    for machine in lost:
        world.destroy(machine)
    silent(world, one, *lost)
    silent(world, two, *lost)
    assert world.recover(one) == ""
    world.run_until(lambda: council(two).recovery is not None, 5, "the other has accepted", step_s=0.001)
    assert not council(one).origins, "it is not decided yet, or nobody knows"
    world.crash(one, disk=True, pods=True)
    world.crash(two, disk=True, pods=True)
    world.start(two)
    world.run(10)
    assert "node0000" in council(two).waiting, "it takes both"
    world.start(one)
    world.run_until(lambda: len(council(two).seats) == 2, 20, "it is finished by itself")
    settled(world)
    joins(world, two)


def test_a_word_that_does_not_come_about_in_time_is_taken_back() -> None:
    world, machines = started(6, 5)
    one, two, *lost = machines
    for machine in lost:
        world.destroy(machine)
    silent(world, one, *lost)
    world.crash(two, disk=True, pods=True)  # and nobody has noticed yet
    assert world.recover(one, *(machine.name for machine in lost)) == ""
    world.run(20)
    assert not council(one).origins
    world.start(two)
    world.run(20)
    assert not council(one).origins, "nobody says so any more"
    recovered(world, two, *lost)
    settled(world)


def test_who_was_given_up_and_comes_back_is_refused_on_both_sides_until_it_is_reset() -> None:
    world, (one, two, three) = started(7, 3)
    old = attached(world, two, "blue")
    for lost in (two, three):
        world.crash(lost, disk=True, pods=True)
    recovered(world, one, two, three)
    world.may_share = apart
    before = council(one).state
    for back in (two, three):
        world.start(back)
    world.run(15)
    for back in (two, three):
        assert "removed from the cluster" in council(back).status(), council(back).status()
        assert node(back).peers[one.address].state is PeerState.REFUSED
        assert node(one).peers[back.address].state is PeerState.REFUSED
        assert "it was removed" in node(one).peers[back.address].reason
        assert not node(back).allocator.shares, "it gives nothing out"
        assert "weave reset" in council(back).trouble()[1]
    assert council(one).state == before, "nothing of theirs was merged"
    assert old not in node(one).located()
    for back in (two, three):
        world.crash(back, disk=False, pods=False)
        world.start(back)
    settled(world)
    assert len(council(one).seats) == 3


def test_one_that_is_given_up_while_it_lives_never_mixes_with_the_others_again() -> None:
    world, machines = started(8, 5)
    one, two, *rest = machines
    world.may_share = apart
    part(world, [one, two], rest)
    recovered(world, one, *rest)
    guest = world.add([rest[0].address])  # meanwhile the others go on, and seat somebody
    world.start(guest)
    world.cuts |= {(a.address, guest.address) for a in (one, two)} | {(guest.address, a.address) for a in (one, two)}
    world.run_until(lambda: EXPOSE in guest.pods, 15, "the others have a majority")
    recovery, went_on = council(one).ring_id, council(guest).ring_id
    world.cuts.clear()
    world.run(40)
    assert {council(machine).ring_id for machine in (one, two)} == {recovery}
    assert {council(machine).ring_id for machine in (*rest, guest)} == {went_on}
    assert node(one).peers[rest[0].address].state is PeerState.REFUSED
    # Those two find out when they compare everything with each other, which is by chance.
    world.run_until(
        lambda: "recovered" in node(guest).peers[one.address].reason + node(one).peers[guest.address].reason,
        300,
        "both sides of the two rings refuse each other",
    )
    assert {council(machine).ring_id for machine in (one, two)} == {recovery}
    for machine in (*rest, guest):
        world.crash(machine, disk=False, pods=False)
        world.start(machine)
    settled(world)
    assert len(council(one).seats) == 6


def test_two_that_give_each_other_up_stay_two_until_one_is_reset() -> None:
    world, machines = started(9, 5)
    one, two, *lost = machines
    world.may_share = apart
    for machine in lost:
        world.destroy(machine)
    part(world, [one], [two])
    recovered(world, one, two, *lost)
    recovered(world, two, one, *lost)
    assert council(one).ring_id != council(two).ring_id
    world.cuts.clear()
    world.run(20)
    assert council(one).ring_id != council(two).ring_id
    assert set(council(one).seats) == {one.uid}
    for here, there in ((one, two), (two, one)):
        node(here).connect([there.address])
        world.settle(here)
    world.run(10)
    for here, there in ((one, two), (two, one)):
        assert node(here).peers[there.address].state is PeerState.REFUSED
        assert council(here).status() == "ready", "each has given up the other and goes on"
    world.crash(two, disk=False, pods=False)
    world.start(two)
    settled(world)
    assert council(one).ring_id == council(two).ring_id


def test_a_survivor_that_was_cut_off_after_it_agreed_follows_when_it_is_back() -> None:
    world, machines = started(10, 5)
    one, two, *lost = machines
    for machine in lost:
        world.crash(machine, disk=True, pods=True)
    silent(world, one, *lost)
    silent(world, two, *lost)
    assert world.recover(one) == ""
    world.run_until(lambda: council(two).recovery is not None, 5, "it has agreed", step_s=0.0002)
    part(world, [one], [two])
    world.run_until(lambda: bool(council(one).origins), 5, "its answer is still on its way")
    world.may_share = apart
    for machine in lost:
        world.start(machine)  # and those who were given up come back to it first
    world.run(20)
    assert council(two).recovery is not None, "it has agreed, and nobody else tells it how it goes on"
    assert {seat.uid for seat in council(two).seats.values()} == {machine.uid for machine in machines}
    world.cuts.clear()
    world.run_until(lambda: council(two).ring_id == council(one).ring_id, 20, "it follows")


def test_who_rebuilt_both_lost_machines_under_their_old_names_is_let_in_again() -> None:
    world, (one, two, three) = started(11, 3)
    for lost in (two, three):
        world.destroy(lost)
    silent(world, one, two, three)
    for again in (two, three):
        again.destroyed = False
        world.start(again)
    world.run(20)
    assert EXPOSE not in two.pods
    assert world.recover(one) == ""
    settled(world)
    assert len(council(one).seats) == 3


def test_a_ring_can_be_recovered_again() -> None:
    world, (one, two, three) = started(12, 3)
    for lost in (two, three):
        world.destroy(lost)
    recovered(world, one, two, three)
    first, second = joins(world, one), joins(world, one)
    settled(world)
    for lost in (one, first):
        world.destroy(lost)
    recovered(world, second, one, first)
    assert len(council(second).origins) == 2
    joins(world, second)
    settled(world)
    assert sum(council(second).ring.owners().values()) == 128


def test_who_waits_or_is_refused_does_not_keep_the_others_busy() -> None:
    world, (one, two, three, four) = started(13, 4)
    for lost in (two, three, four):
        world.crash(lost, disk=True, pods=True)
    silent(world, one, two, three, four)
    turns = 0
    real = node(one).on_timer

    def counted(**times: float) -> None:
        nonlocal turns
        turns += 1
        real(**times)

    council(one).decrees.remove(four.name)  # which can never come about, and stays promised
    council(one).vote(Voted(council(one).epoch + 1, frozen=(four.uid,)))
    node(one).on_timer = counted  # type: ignore[method-assign]
    world.run(60)
    assert turns < 60 * 20, "not as often as the processor allows"
    node(one).on_timer = real  # type: ignore[method-assign]
    recovered(world, one, two, three, four)
    world.may_share = apart
    for back in (two, three, four):
        world.start(back)
    world.run(10)
    before = world.sent["calls"]
    world.run(30)
    assert world.sent["calls"] - before < 30 * 4, "who is refused asks again every few seconds, not at once"
