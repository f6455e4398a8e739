"""Nodes whose addresses change under running agents: same identity, same pods, and everybody follows within seconds."""

from ipaddress import IPv4Address

import pytest

from plugin.core.ipam.allocator import EXPOSE
from plugin.core.membership.members import PeerState
from plugin.core.messages.values import Member, MemberState
from plugin.core.node import Node
from tests.support.simulation import Machine, World

SOON_S = 2.0
FRESH = IPv4Address("192.168.0.200")
ELSEWHERE = IPv4Address("172.20.9.7")


def node(machine: Machine) -> Node:
    assert machine.node is not None
    return machine.node


def settled(world: World, within_s: float = 30) -> None:
    world.run_until(lambda: not world.disagreements(), within_s, "all agree")


def cluster(seed: int, count: int, *, pods: int = 1) -> tuple[World, list[Machine]]:
    """All agents agree, and each has some pods."""
    world = World(seed, count)
    machines = list(world.machines.values())
    for machine in machines:
        world.start(machine)
    world.run_until(lambda: all(EXPOSE in machine.pods for machine in machines), 30, "all have addresses")
    for machine in machines:
        for number in range(pods):
            world.attach(machine, ("weave", f"{machine.key}-{number}", "eth0"))
    settled(world)
    return world, machines


def identities(machines: list[Machine]) -> list[tuple[str, int, dict[object, IPv4Address]]]:
    return [(machine.uid, machine.life, dict(machine.pods)) for machine in machines]


def located(viewer: Machine, machine: Machine) -> set[IPv4Address | None]:
    """The nodes on which a machine's pods are, as another one believes."""
    view = node(viewer).located()
    return {view[address].node if address in view else None for address in machine.pods.values()}


@pytest.mark.parametrize("address", [FRESH, ELSEWHERE], ids=["same subnet", "another subnet"])
@pytest.mark.parametrize("count", [2, 3, 20])
def test_a_new_address_is_known_everywhere_within_seconds(address: IPv4Address, count: int) -> None:
    world, machines = cluster(1, count)
    before = identities(machines)
    for mover in machines[:2]:  # the first one is everybody's seed
        there = IPv4Address(int(address) + machines.index(mover))
        world.readdress({mover.key: there})
        others = [machine for machine in machines if machine is not mover]
        world.run_until(lambda there=there, mover=mover, others=others: all(located(one, mover) == {there} for one in others),
                        SOON_S, "everybody sends to the new address", step_s=0.05)  # fmt: skip
        world.run_until(
            lambda there=there, mover=mover, others=others: all(
                node(one).peers[there].state is PeerState.ESTABLISHED and node(one).peers[there].name == mover.name
                for one in others
            ), SOON_S, "all are in touch", step_s=0.05,
        )  # fmt: skip
    settled(world)
    assert identities(machines) == before


def test_pods_of_a_node_that_moves_are_never_without_a_place() -> None:
    world, (one, two, three) = cluster(2, 3)
    world.readdress({two.key: FRESH})
    ends_s = world.now_s + 10
    while world.now_s < ends_s:
        world.run(0.01)
        for viewer in (one, three):
            assert located(viewer, two) <= {IPv4Address("192.168.0.11"), FRESH}, "known, at the old or the new address"
            assert len(located(viewer, three if viewer is one else one) | {None}) == 2


def test_two_nodes_that_change_addresses_are_told_apart() -> None:
    world, machines = cluster(3, 4)
    one, two, *others = machines
    before = identities(machines)
    for _ in range(3):  # and back, and again
        world.readdress({one.key: two.address, two.key: one.address})
        world.run_until(
            lambda: all(located(viewer, one) == {one.address} for viewer in others), 5, "the first", step_s=0.1
        )
        world.run_until(
            lambda: all(located(viewer, two) == {two.address} for viewer in others), 5, "the second", step_s=0.1
        )
        settled(world)
    assert identities(machines) == before


def test_two_nodes_alone_that_change_addresses_find_each_other_at_their_former_ones() -> None:
    world, (one, two) = cluster(4, 2)
    world.readdress({one.key: two.address, two.key: one.address})
    settled(world)
    assert located(one, two) == {two.address}


@pytest.mark.parametrize("count", [3, 5])
def test_addresses_that_go_round_are_told_apart(count: int) -> None:
    world, machines = cluster(5, count)
    addresses = [machine.address for machine in machines]
    world.readdress({machine.key: addresses[(place + 1) % count] for place, machine in enumerate(machines)})
    settled(world)


def test_all_nodes_one_after_the_other_and_then_a_restart_finds_everybody() -> None:
    world, machines = cluster(6, 4)
    for number, machine in enumerate(machines):
        world.readdress({machine.key: ELSEWHERE + number})
        world.run(3)
    settled(world)
    assert {seed for machine in machines for seed in machine.seeds} <= {machine.address for machine in machines}
    for machine in machines:
        assert {seat.address for seat in node(machine).council.seats.values()} == {one.address for one in machines}
    for machine in machines:
        world.crash(machine, disk=True, pods=True)
    for machine in machines:
        world.start(machine)
    settled(world)


def test_an_address_that_comes_back_is_as_good_as_any() -> None:
    world, (one, two, three) = cluster(7, 3)
    home = two.address
    for _ in range(4):
        world.readdress({two.key: FRESH})
        world.run(0.2)  # before anybody is sure
        world.readdress({two.key: home})
        world.run(0.2)
    settled(world)
    assert located(one, two) == located(three, two) == {home}


def test_a_move_behind_a_cut_is_heard_of_when_the_cut_heals() -> None:
    world, (one, two, three) = cluster(8, 3)
    world.cuts |= {(a.address, b.address) for a in (two,) for b in (one, three)}
    world.cuts |= {(b, a) for a, b in set(world.cuts)}
    world.run(10)
    assert not node(one).members.others[two.name].answers
    world.readdress({two.key: FRESH})
    settled(world)


def test_an_agent_that_starts_at_another_address_is_itself() -> None:
    world, (one, two, three) = cluster(9, 3)
    pods = dict(two.pods)
    world.crash(two, disk=True, pods=True)
    world.readdress({two.key: FRESH})
    world.start(two)
    world.run_until(lambda: located(one, two) == located(three, two) == {FRESH}, 15, "it is found again")
    settled(world)
    assert two.pods == pods


def test_the_seats_of_the_ring_follow_also_for_one_that_loses_its_disk_afterwards() -> None:
    world, (one, two, three) = cluster(10, 3, pods=0)
    world.readdress({two.key: FRESH})
    former = two.uid
    world.run_until(lambda: node(one).council.seats[former].address == FRESH, 10, "its seat is there, too")
    world.crash(two, disk=False, pods=False)
    world.start(two)
    world.run_until(lambda: former not in node(three).council.ring.owners(), 30, "it inherits from its former self")
    settled(world)


def test_a_vote_of_another_agent_at_the_address_does_not_count() -> None:
    world, (one, two, three) = cluster(11, 3)
    newcomer = Machine("node0009", IPv4Address("192.168.0.99"), [one.address], 0, key="node0009")
    world.machines[newcomer.key] = newcomer
    world.readdress({two.key: three.address, three.key: two.address})
    world.start(newcomer)  # a decree is wanted while nobody is where it was
    world.run_until(lambda: EXPOSE in newcomer.pods, 30, "it has a seat and addresses")
    settled(world)


# --- two machines with one identity -----------------------------------------------------------------------------------
def clone_of(world: World, original: Machine, address: IPv4Address) -> Machine:
    """A second machine with everything that is on the first one's disk."""
    clone = Machine(original.name, address, [world.machines["node0000"].address], original.founders, key="clone")
    clone.uid, clone.life, clone.ring, clone.journal = (
        original.uid,
        original.life,
        original.ring,
        dict(original.journal),
    )
    world.machines["clone"] = clone
    world.by_address[address] = clone
    world.laws = False
    return clone


def test_a_copy_of_the_disk_beside_the_original_is_refused() -> None:
    world, (one, two, three) = cluster(12, 3)
    clone = clone_of(world, two, FRESH)
    world.start(clone)
    world.run(20)
    for viewer in (one, three):
        assert node(viewer).members.others[two.name].address == two.address
        assert located(viewer, two) == {two.address}
        assert node(viewer).peers[two.address].state is PeerState.ESTABLISHED
    assert "every node needs its own" in node(clone).peers[one.address].reason
    assert node(clone).council.conflict


def test_a_copy_of_the_running_machine_beside_the_original_is_refused() -> None:
    """It has the life of the original, too: what it says is what the original would say if it had moved."""
    world, (one, two, three) = cluster(13, 3)
    clone = clone_of(world, two, FRESH)
    memory = Node(me=node(two).me, keys=world.keys, seeds=[one.address], founders=3, chance=world.rng)
    memory.council.restore(clone.ring or b"")
    memory._census.learn(node(two).members.others.values(), now_s=world.local_s(clone))
    clone.node = memory
    world.readdress({"clone": FRESH})
    assert memory.me == Member(two.name, two.uid, FRESH, two.life, node(two).me.incarnation + 1)
    for _ in range(20):
        world.run(1)
        for viewer in (one, three):
            assert node(viewer).members.others[two.name].address == two.address, "believed at no moment"
    assert node(one).peers[FRESH].state is PeerState.REFUSED
    assert "another node" in node(one).peers[FRESH].reason
    assert node(one).peers[two.address].state is PeerState.ESTABLISHED


def test_what_a_member_says_before_its_move_is_known_changes_nothing() -> None:
    _, (one, two, _) = cluster(14, 3)
    moved = Member(two.name, two.uid, FRESH, two.life, node(two).me.incarnation + 1)
    assert node(one).members.has_moved(moved)
    assert not node(one).members.has_moved(Member(two.name, "f" * 16, FRESH, two.life, 9)), "another disk"
    assert not node(one).members.has_moved(Member(two.name, two.uid, FRESH, two.life + 1, 9)), "another process"
    assert not node(one).members.has_moved(Member(two.name, two.uid, FRESH, two.life, 9, MemberState.LEFT))
    assert node(one).members.learn(moved) is None
    assert node(one).members.others[two.name].address == two.address
