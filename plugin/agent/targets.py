"""Where other agents are looked for: at the configuration's addresses, or what `connect` and `forget` made of them."""

from collections.abc import Iterable
from ipaddress import IPv4Address

import msgspec

from plugin.agent.store import Store
from plugin.core.errors import MissingError


class _Written(msgspec.Struct, frozen=True):
    """`configured` tells whether the configuration has been changed since: then it counts again."""

    configured: tuple[str, ...]
    targets: tuple[str, ...]


class Targets:
    """Remembers changes across restarts.

    Args:
        store: Where.
        configured: The configuration's addresses.
    """

    def __init__(self, store: Store, configured: Iterable[IPv4Address]) -> None:
        self._store = store
        self._configured = tuple(sorted(configured))
        self.addresses = self._configured
        data = store.read_targets()
        if data is not None:
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            written = msgspec.json.decode(data, type=_Written)
            if written.configured == tuple(str(address) for address in self._configured):
                self.addresses = tuple(IPv4Address(target) for target in written.targets)
        except ValueError:  # damaged: the configuration is as good
            return

    def follow(self, addresses: Iterable[IPv4Address]) -> bool:
        """Members' nodes have other addresses than were written down; whether that is remembered.

        What cannot be written is tried again with the next move: the addresses hold until the agent ends.
        """
        wanted = tuple(sorted(set(addresses)))
        if wanted == self.addresses:
            return True
        try:
            self.set(wanted)
        except MissingError:
            self.addresses = wanted
            return False
        return True

    def set(self, addresses: Iterable[IPv4Address]) -> None:
        """These from now on.

        Raises:
            MissingError: It cannot be written; nothing has changed.
        """
        wanted = tuple(sorted(set(addresses)))
        configured = tuple(str(address) for address in self._configured)
        self._store.write_targets(msgspec.json.encode(_Written(configured, tuple(str(one) for one in wanted))))
        self.addresses = wanted
