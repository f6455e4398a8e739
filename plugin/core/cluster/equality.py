"""Whether this agent believes what the others believe: one number says so, and when it differs everything is compared.

Agents need not be equal while something changes; when both have been quiet for a while they must be. Comparing is an
exchange of everything (reunion.py); here it is decided with whom and when, so that there is never a storm of them.
"""

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from plugin.core.membership.members import Members
from plugin.core.membership.swim import Chance

_QUIET_MS: Final = 2000
"""Two agents compare everything when both have been quiet for so long and are still not equal."""

_SYNC_EVERY_S: Final = 1.0
_SYNC_EVERY_S_PER_MEMBER: Final = 0.05
"""How often an agent may compare everything: less often in a large cluster, where it is more to compare and more do."""

_SYNC_LOOK_S: Final = 0.1


class Equality:
    """Watches the digest of one agent, and compares with those that have another.

    Args:
        members: How many there are.
        chance: Randomness.
        digest: 64 bits of everything that must be equal everywhere when it is quiet.
        compare: Exchanges everything with the agent at an address.
    """

    def __init__(
        self,
        *,
        members: Members,
        chance: Chance,
        digest: Callable[[], int],
        compare: Callable[[IPv4Address], None],
    ) -> None:
        self._members = members
        self._chance = chance
        self._digest_now = digest
        self._compare = compare
        self._digest, self._since_s = digest(), 0.0
        self._unequal: tuple[IPv4Address, int] | None = None
        self._next_sync_s = 0.0

    def next_timer_s(self) -> float:
        """When `on_timer` has something to do; infinity when nobody was unequal."""
        return self._next_sync_s if self._unequal is not None else float("inf")

    def quiet_ms(self, *, now_s: float) -> int:
        """For how long the digest has been the same, as it was seen last."""
        return int(max(0.0, now_s - self._since_s) * 1000)

    def touched(self, *, now_s: float) -> None:
        """Something may have changed the digest."""
        digest = self._digest_now()
        if digest != self._digest:
            self._digest, self._since_s = digest, now_s

    def heard(self, address: IPv4Address, digest: int, quiet_ms: int, *, now_s: float) -> None:
        """The agent at `address` has this digest, and has had it for so long."""
        if digest != self._digest_now() and quiet_ms >= _QUIET_MS and self._unequal is None:
            # Not at once: an agent that had no processor for a while has news waiting behind this.
            self._unequal = address, digest
            self._next_sync_s = max(self._next_sync_s, now_s + _SYNC_LOOK_S)

    def on_timer(self, *, now_s: float) -> None:
        """Compare with the agent that was not equal, unless that has passed or is passing."""
        if self._unequal is None or now_s < self._next_sync_s:
            return
        (address, digest), self._unequal = self._unequal, None
        if digest != self._digest_now() and now_s - self._since_s >= _QUIET_MS / 1000:
            pause_s = max(_SYNC_EVERY_S, _SYNC_EVERY_S_PER_MEMBER * len(self._members.others))
            self._next_sync_s = now_s + pause_s * (0.5 + self._chance.random())
            self._compare(address)
