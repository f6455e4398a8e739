"""The allocator's laws (its docstring) against a model, over random lives of attachments."""

from ipaddress import IPv4Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from plugin.core.allocator import REST_S, AddressTakenError, PoolExhaustedError, ShareAllocator
from plugin.core.shares import Share, usable

NETWORK = IPv4Network("10.0.0.0/28")
SHARE = Share(NETWORK[0], NETWORK[9])
WHO = st.integers(0, 11).map(lambda number: ("weave", str(number), "eth0"))


class AllocatorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.allocator = ShareAllocator(NETWORK, SHARE)
        self.held = {}
        self.freed_s = {}
        self.now_s = 0.0

    @rule(seconds=st.floats(0, REST_S * 1.5))
    def wait(self, seconds) -> None:
        self.now_s += seconds

    @rule(who=WHO)
    def allocate(self, who) -> None:
        free = set(usable(NETWORK, SHARE)) - set(self.held.values())
        rested = {address for address in free if self.now_s - self.freed_s.get(address, -REST_S) >= REST_S}
        try:
            address = self.allocator.allocate(who, now_s=self.now_s)
        except PoolExhaustedError:
            assert who not in self.held
            assert not free
            return
        if who in self.held:
            assert address == self.held[who]
            return
        assert address in (rested or free)
        self.held[who] = address

    @rule(who=WHO, number=st.integers(0, 15))
    def claim(self, who, number) -> None:
        address = NETWORK[number]
        allowed = self.held.get(who) == address or (
            who not in self.held and address in set(usable(NETWORK, SHARE)) - set(self.held.values())
        )
        try:
            self.allocator.claim(who, address)
        except AddressTakenError:
            assert not allowed
            return
        assert allowed
        self.held[who] = address

    @rule(who=WHO)
    def release(self, who) -> None:
        address = self.allocator.release(who, now_s=self.now_s)
        assert address == self.held.pop(who, None)
        if address is not None:
            self.freed_s[address] = self.now_s

    @invariant()
    def nobody_shares_an_address(self) -> None:
        assert dict(self.allocator.held) == self.held
        assert len(set(self.held.values())) == len(self.held) <= self.allocator.capacity


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
