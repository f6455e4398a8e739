"""Allocators that hear of each other's gifts late and in any order, each with a ring of its own.

test_ring_allocator.py has one ring for all; here every member believes something else, and still no address is ever
held twice: only who owns an address gives it away, and it stops owning it before anybody else can know.
"""

from ipaddress import IPv4Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from plugin.core.ipam.allocator import PoolExhaustedError, RingAllocator
from plugin.core.ipam.ring import Ring
from plugin.core.ipam.shares import Share, count_usable

NETWORK = IPv4Network("10.0.0.0/27")
USABLE = count_usable(NETWORK, Share(NETWORK[0], NETWORK[-1]))
MEMBERS = ["a" * 16, "b" * 16, "c" * 16]
MEMBER = st.sampled_from(MEMBERS)
WHO = st.integers(0, 40).map(lambda number: ("weave", str(number), "eth0"))


class LateNewsMachine(RuleBasedStateMachine):
    @initialize(founders=st.integers(1, 3))
    def found(self, founders) -> None:
        self.now_s = 0.0
        self.rings = {member: Ring(NETWORK) for member in MEMBERS}
        self.allocators = {member: RingAllocator(NETWORK) for member in MEMBERS}
        self.news = {member: [] for member in MEMBERS}
        first = self.rings[MEMBERS[0]].found(MEMBERS[:founders])
        for member in MEMBERS:
            self.hear(member, first)

    def hear(self, member, segments) -> None:
        assert self.rings[member].conflicts(segments) == ()
        self.rings[member].merge(segments)
        self.allocators[member].own(self.rings[member].owned_by(member))

    def give(self, donor, to, parts) -> None:
        """The donor's ring changes before anybody hears of it; who gets it hears of it with the others, some time."""
        for part in parts:
            assert not any(address in part for address in self.allocators[donor].held.values())
        segments = self.rings[donor].grant(donor, to, parts)
        self.hear(donor, segments)
        for member in MEMBERS:
            if member != donor and segments:
                self.news[member].append(segments)

    @rule(seconds=st.sampled_from([1.0, 20.0, 40.0]))
    def wait(self, seconds) -> None:
        self.now_s += seconds

    @rule(member=MEMBER, who=WHO)
    def allocate(self, member, who) -> None:
        allocator = self.allocators[member]
        free = allocator.free
        try:
            allocator.allocate(who, now_s=self.now_s)
        except PoolExhaustedError:
            assert free == 0

    @rule(member=MEMBER, who=WHO)
    def release(self, member, who) -> None:
        self.allocators[member].release(who, now_s=self.now_s)

    @rule(donor=MEMBER, to=MEMBER)
    def donate(self, donor, to) -> None:
        free = self.allocators[donor].free
        parts = self.allocators[donor].donate(now_s=self.now_s)
        assert bool(parts) == (free >= 2)
        self.give(donor, to, parts)
        assert self.allocators[donor].free >= min(1, free)

    @rule(donor=MEMBER, to=MEMBER, number=st.integers(0, 31))
    def donate_exactly(self, donor, to, number) -> None:
        address = NETWORK[number]
        self.give(donor, to, self.allocators[donor].donate(now_s=self.now_s, exact=address))

    @rule(member=MEMBER, place=st.integers(0, 50), twice=st.booleans())
    def deliver(self, member, place, twice) -> None:
        """Any piece of news, not the oldest first, and perhaps again later."""
        waiting = self.news[member]
        if waiting:
            index = place % len(waiting)
            self.hear(member, waiting[index])
            if not twice:
                del waiting[index]

    @rule(member=MEMBER)
    def compact(self, member) -> None:
        segments = self.rings[member].compact(member)
        self.hear(member, segments)
        for other in MEMBERS:
            if other != member and segments:
                self.news[other].append(segments)

    @invariant()
    def no_address_has_two_owners_or_two_holders(self) -> None:
        held = [address for allocator in self.allocators.values() for address in allocator.held.values()]
        assert len(set(held)) == len(held)
        for address in NETWORK:
            assert sum(allocator.owns(address) for allocator in self.allocators.values()) <= 1
        for allocator in self.allocators.values():
            assert allocator.strangers == {}
            assert allocator.capacity == allocator.free + len(allocator.held)

    def teardown(self) -> None:
        """Once everybody has heard everything the rings are equal, and all but one address an owner can be moved."""
        if not hasattr(self, "rings"):
            return
        self.hear_all()
        assert len({ring.fingerprint for ring in self.rings.values()}) == 1
        assert sum(allocator.capacity for allocator in self.allocators.values()) == USABLE
        taker, number = MEMBERS[0], 0
        while any(allocator.free > (member != taker) for member, allocator in self.allocators.items()):
            number += 1
            assert number <= 2 * USABLE, "every turn places a pod or moves an address"
            if self.allocators[taker].free:
                self.allocators[taker].allocate(("late", str(number), "eth0"), now_s=self.now_s)
                continue
            donor = max(MEMBERS, key=lambda member: self.allocators[member].free)
            self.give(donor, taker, self.allocators[donor].donate(now_s=self.now_s))
            self.hear_all()
        self.no_address_has_two_owners_or_two_holders()

    def hear_all(self) -> None:
        for member in MEMBERS:
            for segments in self.news[member]:
                self.hear(member, segments)
            self.news[member].clear()


TestAllocator = LateNewsMachine.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
