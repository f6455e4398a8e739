"""What a cluster does in one named situation each: joining, refusing, relaying, lending, leaving."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from plugin.core.ipam.allocator import EXPOSE
from plugin.core.ipam.council import Council, Wish
from plugin.core.membership.members import Peer, PeerState
from plugin.core.messages.keys import Keys
from plugin.core.node import Node
from tests.support.simulation import Machine, World


def started(world: World, *names: str) -> list[Machine]:
    machines = [world.machines[name] for name in names or world.machines]
    for machine in machines:
        world.start(machine)
    return machines


def node(machine: Machine) -> Node:
    assert machine.node is not None
    return machine.node


def council(machine: Machine) -> Council:
    return node(machine).council


def seen(machine: Machine, other: Machine) -> Peer:
    return node(machine).peers[other.address]


def settled(world: World) -> None:
    world.run_until(lambda: not world.disagreements(), 30, "all agree")


def attached(world: World, machine: Machine, name: str) -> IPv4Address:
    pod = ("weave", name, "eth0")
    world.attach(machine, pod)
    world.run_until(lambda: pod in machine.pods, 10, f"{name} has an address")
    return machine.pods[pod]


def test_in_a_chain_of_seeds_everybody_finds_everybody() -> None:
    world = World(1, 8)
    machines = started(world)
    for number, machine in enumerate(machines[1:]):
        node(machine).forget(list(node(machine).seeds))
        node(machine).connect([machines[number].address])
    settled(world)
    assert all(len(node(machine).peers) == 7 for machine in machines)


def test_too_few_founders_wait_and_say_for_how_many() -> None:
    world = World(2, 3)
    one, two, three = started(world, *list(world.machines)[:1]) + [
        world.machines[name] for name in list(world.machines)[1:]
    ]
    world.run(5)
    assert council(one).status() == "awaiting consensus (quorum 2, known 1)"
    world.start(two)
    world.run_until(lambda: EXPOSE in one.pods and EXPOSE in two.pods, 5, "two of three agree")
    world.start(three)
    world.run_until(lambda: EXPOSE in three.pods, 10, "the third gets a seat and addresses")
    settled(world)
    shares = council(one).ring.owners()
    assert len(shares) == 3


def test_who_only_joins_never_founds_a_ring() -> None:
    world = World(3, 2, founders=1)
    first, second = world.machines.values()
    second.founders = 0
    world.start(second)
    world.run(20)
    assert council(second).status() == "awaiting a ring: no member of one has answered yet"
    world.start(first)
    world.run_until(lambda: EXPOSE in second.pods, 20, "the second has joined the ring of the first")


def test_a_clone_of_a_living_node_is_refused_and_gives_nothing_out() -> None:
    world = World(4, 3)
    one, two, clone = world.machines.values()
    clone.name, clone.founders, clone.seeds = two.name, 0, [one.address]
    world.start(one)
    world.start(two)
    world.run_until(lambda: EXPOSE in one.pods and EXPOSE in two.pods, 10, "two agree")
    world.start(clone)
    world.run(10)
    assert seen(one, two).state is PeerState.ESTABLISHED
    assert node(one).members.others[two.name].uid == two.uid, "never merged"
    assert "every node needs its own" in seen(clone, one).reason
    assert EXPOSE not in clone.pods


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        (Keys("other", IPv4Network("10.32.0.0/25"), "1/6784"), "cluster"),
        (Keys("sim", IPv4Network("10.40.0.0/25"), "1/6784"), "pod range"),
        (Keys("sim", IPv4Network("10.32.0.0/25"), "1/6784", "secret"), "password"),
    ],
)
def test_clusters_that_meet_by_mistake_refuse_each_other_and_say_why(keys: Keys, word: str) -> None:
    world = World(5, 2, founders=1)
    world.laws = False
    one, two = world.machines.values()
    world.start(one)
    world.run(2)
    world.keys = keys
    world.start(two)
    world.run(5)
    for here, there in ((one, two), (two, one)):
        peer = seen(here, there)
        assert peer.state is PeerState.REFUSED
        assert word in peer.reason
    assert node(one).members.others == {}


def test_what_cannot_be_said_directly_goes_by_way_of_another() -> None:
    world = World(6, 3)
    one, two, three = started(world)
    settled(world)
    world.cuts |= {(one.address, two.address), (two.address, one.address)}
    world.run(15)
    assert seen(one, two).state is PeerState.FAILED
    assert seen(one, two).via == three.name
    assert node(one).members.others[two.name].answers, "it is not dead: others hear it"
    address = attached(world, one, "pod")
    world.run(1.0)
    place = node(two).located().get(address)
    assert place is not None
    assert place.node == one.address
    world.cuts.clear()
    settled(world)


def test_a_change_reaches_everybody_at_once_and_a_dead_peer_goes() -> None:
    world = World(7, 5)
    machines = started(world)
    settled(world)
    address = attached(world, machines[0], "pod")
    world.run(0.1)
    assert all(address in node(machine).located() for machine in machines)
    world.destroy(machines[0])
    world.run_until(lambda: address not in node(machines[1]).located(), 60, "the dead peer's pods are forgotten")


def test_one_who_needs_addresses_gets_them_from_the_others_until_there_are_none() -> None:
    world = World(8, 3)
    machines = started(world)
    settled(world)
    greedy = machines[0]
    while len(greedy.pods) < 120:
        attached(world, greedy, f"pod{len(greedy.pods)}")
    wish = Wish()
    for number in range(10):
        world.attach(greedy, ("weave", f"last{number}", "eth0"))
    world.run(3)
    assert "no member of the ring that answers has an address to spare: node0000" in council(greedy).gifts.why_not(wish)
    freed = ("weave", "pod7", "eth0")
    world.detach(greedy, freed)
    world.run(1)
    in_use = sum(len(machine.pods) for machine in machines)
    assert in_use == 126 - 2, "all, but the last one of each of the others"


def test_an_address_of_another_node_can_be_asked_for_by_name() -> None:
    world = World(9, 2)
    one, two = started(world)
    settled(world)
    pod = attached(world, two, "pod")
    world.detach(two, ("weave", "pod", "eth0"))
    council(one).gifts.want(Wish(exact=pod), now_s=world.local_s(one), until_s=world.local_s(one) + 5)
    world.settle(one)
    world.run_until(lambda: node(one).allocator.owns(pod), 5, "the address has changed hands")
    node(one).allocator.claim(("weave", "moved", "eth0"), pod)
    settled(world)
    assert council(two).ring.owner_of(pod) == one.uid


def test_addresses_of_a_subnet_can_be_asked_for() -> None:
    world = World(10, 2)
    one, two = started(world)
    settled(world)
    subnet = IPv4Network("10.32.0.96/28")
    council(one).gifts.want(Wish(within=subnet), now_s=world.local_s(one), until_s=world.local_s(one) + 5)
    world.settle(one)
    world.run_until(
        lambda: any(share.first in subnet for share in node(one).allocator.shares), 5, "a part of the subnet is there"
    )
    address = node(one).allocator.allocate(("weave", "pod", "eth0"), now_s=world.local_s(one), within=subnet)
    assert address in subnet
    assert council(two).ring.owner_of(address) == one.uid


def test_who_leaves_hands_everything_over_and_is_no_longer_waited_for() -> None:
    world = World(11, 3)
    one, two, three = started(world)
    settled(world)
    node(three).leave()
    world.settle(three)
    world.run(0.5)
    world.destroy(three)
    world.run_until(lambda: three.uid not in council(one).seats, 20, "its seat is gone")
    settled(world)
    assert sum(council(one).ring.owners().values()) == 128
    assert set(council(two).ring.owners()) == {one.uid, two.uid}


def test_two_that_were_founded_apart_become_one_while_one_of_them_has_no_pod() -> None:
    world = World(12, 2, founders=1)
    world.laws = False
    one, two = world.machines.values()
    two.seeds = []
    started(world)
    attached(world, one, "pod")
    world.run(3)
    assert council(one).ring_id != council(two).ring_id
    node(two).connect([one.address])
    del two.pods[EXPOSE]
    two.journal.clear()
    node(two).allocator.release(EXPOSE, now_s=world.local_s(two))
    council(two).gifts.want(Wish(), now_s=world.local_s(two), until_s=float("inf"))
    world.settle(two)
    world.run_until(lambda: council(two).seated and council(two).ring_id == council(one).ring_id, 20, "one ring")


def test_two_that_were_founded_apart_and_both_have_pods_refuse_each_other() -> None:
    world = World(13, 2, founders=1)
    world.laws = False
    one, two = world.machines.values()
    two.seeds = []
    started(world)
    attached(world, one, "pod")
    node(two).allocator.allocate(("weave", "other", "eth0"), now_s=world.local_s(two))  # the same address, elsewhere
    node(two).connect([one.address])
    world.settle(two)
    world.run(5)
    assert "founded apart" in seen(one, two).reason
    assert seen(two, one).state is PeerState.REFUSED


def test_when_more_than_half_is_lost_nothing_is_given_away_and_status_says_so() -> None:
    world = World(14, 3)
    one, two, three = started(world)
    settled(world)
    for lost in (two, three):
        world.destroy(lost)
    world.run(15)
    for lost in (two, three):
        council(one).decrees.remove(lost.name)
    world.run(10)
    assert "fewer than half of the seats would be left" in council(one).status()
    assert sum(share.size for share in node(one).allocator.shares) < 64


def test_the_space_of_a_dead_member_waits_for_everybody_who_may_have_some_of_it() -> None:
    world = World(15, 4)
    one, _two, three, four = started(world)
    settled(world)
    dead = four.uid
    world.crash(three, disk=True, pods=True)
    world.destroy(four)
    world.run(15)
    council(one).decrees.remove(four.name)
    world.run(5)
    assert "removal of node0003 waits for node0002" in council(one).status()
    assert dead in council(one).ring.owners()
    world.start(three)
    world.run_until(lambda: dead not in council(one).ring.owners(), 20, "now it comes about")
    settled(world)


def test_work_for_a_quiet_cluster_does_not_grow_with_its_size() -> None:
    rates = {}
    for count in (5, 20):
        world = World(16, count)
        started(world)
        settled(world)
        world.run(10)
        before = dict(world.sent)
        world.run(20)
        rates[count] = (world.sent["bytes"] - before["bytes"]) / 20 / count
    assert rates[20] <= 2 * rates[5], rates


def test_one_mac_given_in_both_halves_of_a_cut_network_has_one_holder_when_it_is_whole_again() -> None:
    world = World(23, 6)
    machines = started(world)
    settled(world)
    addresses = [attached(world, machine, f"pod{number}") for number, machine in enumerate(machines)]
    halves = machines[:3], machines[3:]
    world.cuts = {(a.address, b.address) for a in machines for b in machines if (a in halves[0]) != (b in halves[0])}
    mac = "02:aa:00:00:00:05"
    for half in halves:
        for machine in half[:2]:  # and twice in each half, in the same moment
            address = addresses[machines.index(machine)]
            node(machine).attach(address, mac, "twin", now_s=world.local_s(machine))
        for machine in half[:2]:
            world.settle(machine)
    world.run(10)
    world.cuts = set()

    def holders() -> set[IPv4Address]:
        found = (node(machine).directory.holder(mac) for machine in machines)
        return {machine.address if one.node is None else one.node for machine, one in zip(machines, found, strict=True)}

    def losers() -> list[str]:
        return [machine.name for machine in machines if node(machine).directory.displaced()]

    world.run_until(lambda: len(holders()) == 1 and len(losers()) == 3, 60, "one has it, and three are told")
    (winner,) = holders()
    last = world.by_address[winner]
    assert last.name not in losers()
    for machine in machines:
        standing = [one.node or machine.address for one in node(machine).located().values() if one.endpoint.mac == mac]
        assert standing == [winner], f"{machine.name} agrees"
    world.detach(last, ("weave", f"pod{machines.index(last)}", "eth0"))
    world.run_until(lambda: winner not in holders() and len(losers()) == 2, 60, "the next one has it then")


@pytest.mark.parametrize("seed", range(40, 46))
def test_whatever_is_claimed_in_a_lossy_torn_network_all_agree_in_the_end(seed: int) -> None:
    world = World(seed, 5)
    machines = started(world)
    settled(world)
    world.loss = 0.1
    addresses = {machine.name: attached(world, machine, f"pod{number}") for number, machine in enumerate(machines)}
    macs = [f"02:aa:00:00:00:0{number}" for number in range(3)]
    for _ in range(30):
        machine, other = world.rng.sample(machines, 2)
        match world.rng.randrange(4):
            case 0:
                world.cuts |= {(machine.address, other.address), (other.address, machine.address)}
            case 1:
                world.cuts.clear()
            case _:
                at_s = world.local_s(machine)
                node(machine).attach(addresses[machine.name], world.rng.choice(macs), machine.name, now_s=at_s)
                world.settle(machine)
        world.run(world.rng.uniform(0, 2))
    world.cuts.clear()
    world.loss = 0.0

    def views() -> list[dict[IPv4Address, tuple[str, IPv4Address]]]:
        return [
            {
                address: (one.endpoint.mac, one.node or machine.address)
                for address, one in node(machine).located().items()
            }
            for machine in machines
        ]

    def told() -> bool:
        """Whether every pod that is not to be seen anywhere is told so on its node."""
        view = views()[0]
        return all(
            (addresses[machine.name] in node(machine).directory.displaced()) is (addresses[machine.name] not in view)
            for machine in machines
        )

    world.run_until(lambda: views() == [views()[0]] * 5 and told(), 60, "one view, and every loser knows")
    owners = {(mac, where) for mac, where in views()[0].values() if mac in macs}
    assert len({mac for mac, _ in owners}) == len(owners), "a MAC is on one node"
