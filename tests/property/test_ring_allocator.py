"""Several allocators on one ring, which give addresses to each other: the laws of the allocator's docstring."""

from ipaddress import IPv4Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from plugin.core.ipam.allocator import REST_S, AddressTakenError, PoolExhaustedError, RingAllocator
from plugin.core.ipam.ring import Ring
from plugin.core.ipam.shares import Share, count_usable, usable

MEMBERS = ["a" * 16, "b" * 16, "c" * 16]
# The first has no .0 and .255 but at its edges, the second has them in the middle of shares.
NETWORKS = [IPv4Network("10.0.0.0/27"), IPv4Network("10.0.0.0/23")]
MEMBER = st.sampled_from(MEMBERS)
WHO = st.integers(0, 30).map(lambda number: ("weave", str(number), "eth0"))
NUMBER = st.integers(0, 31)


class RingMachine(RuleBasedStateMachine):
    @initialize(network=st.sampled_from(NETWORKS), founders=st.integers(1, 3))
    def found(self, network, founders) -> None:
        self.network = network
        # Addresses that the rules name: the first of the small range, those round the middle of the large one.
        self.start = 0 if network.num_addresses == 32 else 240
        self.ring = Ring(network)
        self.ring.merge(self.ring.found(MEMBERS[:founders]))
        self.allocators = {member: RingAllocator(network) for member in MEMBERS}
        self.held = {member: {} for member in MEMBERS}
        self.freed_s = {member: {} for member in MEMBERS}
        self.now_s = 0.0
        self.own()
        # All but a few of the large range are held, or no small state would ever be reached.
        if network.num_addresses > 32:
            for member, allocator in self.allocators.items():
                for address in usable_of(network, allocator.shares):
                    if not self.start <= int(address) - int(network[0]) < self.start + 32:
                        self.hold(member, ("filler", str(address), "eth0"), address)

    def own(self) -> None:
        for member, allocator in self.allocators.items():
            allocator.own(self.ring.owned_by(member))

    def hold(self, member, who, address) -> None:
        self.allocators[member].claim(who, address)
        self.held[member][who] = address

    def free(self, member):
        return set(usable_of(self.network, self.ring.owned_by(member))) - set(self.held[member].values())

    def young(self, member):
        return {address for address, since_s in self.freed_s[member].items() if self.now_s - since_s < REST_S}

    @rule(seconds=st.floats(0, REST_S * 1.5))
    def wait(self, seconds) -> None:
        self.now_s += seconds

    @rule(member=MEMBER, who=WHO, length=st.sampled_from([None, 29, 30]), number=NUMBER)
    def allocate(self, member, who, length, number) -> None:
        within = None if length is None else IPv4Network((self.network[self.start + number], length), strict=False)
        free = {one for one in self.free(member) if within is None or one in list(within.hosts())}
        known = self.held[member].get(who)
        try:
            address = self.allocators[member].allocate(who, now_s=self.now_s, within=within)
        except PoolExhaustedError:
            assert known is None
            assert not free
            return
        if known is not None:
            assert address == known
            return
        assert address in (free - self.young(member) or free)
        if free == free - self.freed_s[member].keys():
            assert address == min(free), "fresh ones are given lowest first"
        self.held[member][who] = address

    @rule(member=MEMBER, who=WHO, number=NUMBER)
    def claim(self, member, who, number) -> None:
        address = self.network[self.start + number]
        allowed = self.held[member].get(who) == address or (
            who not in self.held[member] and address in self.free(member)
        )
        try:
            self.allocators[member].claim(who, address)
        except AddressTakenError:
            assert not allowed
            return
        assert allowed
        self.held[member][who] = address

    @rule(member=MEMBER, who=WHO)
    def release(self, member, who) -> None:
        address = self.allocators[member].release(who, now_s=self.now_s)
        assert address == self.held[member].pop(who, None)
        if address is not None:
            self.freed_s[member][address] = self.now_s

    @rule(member=MEMBER, number=NUMBER)
    def rest(self, member, number) -> None:
        address = self.network[self.start + number]
        self.allocators[member].rest(address, now_s=self.now_s)
        if address not in self.held[member].values():
            self.freed_s[member][address] = self.now_s

    @rule(donor=MEMBER, to=MEMBER, length=st.sampled_from([None, None, 29, 30]), number=NUMBER)
    def donate(self, donor, to, length, number) -> None:
        within = None if length is None else IPv4Network((self.network[self.start + number], length), strict=False)
        free = self.free(donor)
        room = {one for one in free if within is None or one in list(within.hosts())}
        before = self.allocators[donor].shares
        parts = self.allocators[donor].donate(now_s=self.now_s, within=within)
        assert self.allocators[donor].shares == before
        assert bool(parts) == (len(free) >= 2 and bool(room))
        if parts:
            (block,) = parts
            given = set(usable_of(self.network, parts))
            assert given <= (room - self.young(donor) or room)
            assert 1 <= len(given) <= max(1, len(room) // 2)
            assert block.size & (block.size - 1) == 0
            assert int(block.first) % block.size == 0
            self.give(donor, to, parts)

    @rule(donor=MEMBER, to=MEMBER, number=NUMBER)
    def donate_exactly(self, donor, to, number) -> None:
        address = self.network[self.start + number]
        parts = self.allocators[donor].donate(now_s=self.now_s, exact=address)
        assert parts == ((Share(address, address),) if address in self.free(donor) else ())
        self.give(donor, to, parts)

    def give(self, donor, to, parts) -> None:
        assert not any(address in part for part in parts for address in self.held[donor].values())
        self.ring.grant(donor, to, parts)
        self.own()

    @rule(member=MEMBER)
    def compact(self, member) -> None:
        self.ring.compact(member)
        self.own()

    @rule(member=MEMBER)
    def restart(self, member) -> None:
        """A new life: first the pods that live are found, then the ring is read."""
        allocator = self.allocators[member] = RingAllocator(self.network)
        for who, address in self.held[member].items():
            allocator.claim(who, address, adopt=True)
        assert allocator.strangers == self.held[member]
        for address, since_s in sorted(self.freed_s[member].items(), key=lambda freed: freed[1]):
            allocator.rest(address, now_s=since_s)
        self.own()

    @invariant()
    def nobody_shares_an_address(self) -> None:
        held = [address for pods in self.held.values() for address in pods.values()]
        assert len(set(held)) == len(held)
        for member, allocator in self.allocators.items():
            assert dict(allocator.held) == self.held[member]
            assert allocator.strangers == {}
            assert allocator.free == len(self.free(member))
            assert allocator.capacity == allocator.free + len(allocator.held)

    def teardown(self) -> None:
        """Pods go on coming everywhere, and whoever has no address asks the others: in the end none is left over."""
        if not hasattr(self, "ring"):
            return
        wanting, number = set(MEMBERS), 0
        while wanting:
            member = min(wanting)
            number += 1
            assert number <= 10 * self.network.num_addresses, "addresses go round and nobody uses them"
            try:
                self.allocators[member].allocate(("late", str(number), "eth0"), now_s=self.now_s)
                continue
            except PoolExhaustedError:
                pass
            for donor in MEMBERS:
                parts = self.allocators[donor].donate(now_s=self.now_s)
                if parts:
                    self.give_late(donor, member, parts)
                    break
            else:
                wanting.remove(member)
        held = [address for allocator in self.allocators.values() for address in allocator.held.values()]
        whole = Share(self.network[0], self.network[-1])
        assert len(set(held)) == len(held) == count_usable(self.network, whole)

    def give_late(self, donor, to, parts) -> None:
        assert not any(address in part for part in parts for address in self.allocators[donor].held.values())
        self.ring.grant(donor, to, parts)
        self.own()


def usable_of(network, owned):
    return [address for share in owned for address in usable(network, share)]


TestRingAllocator = RingMachine.TestCase
TestRingAllocator.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
