"""Tells the pods of this node which address has another MAC than before (core/forwarding/announcements.py decides)."""

import logging
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address

from plugin.core.forwarding.announcements import Announcements, frames
from plugin.link.frames import FrameSender
from plugin.link.pods import mac_for


class Announcer:
    """Speaks into this node's switch.

    Args:
        sender: Sends out of the switch.
        log: Where events go.
    """

    def __init__(self, sender: FrameSender, log: logging.Logger) -> None:
        self._sender = sender
        self._log = log
        self._announcements = Announcements(mac_for)

    def known(self, pairs: Mapping[IPv4Address, str]) -> None:
        """An earlier agent has told these."""
        self._announcements.known(pairs)

    def tell(self, pairs: Mapping[IPv4Address, str], *, anew: Collection[IPv4Address] = ()) -> None:
        """Tell pods what is news of these pairs, and those of `anew` in any case."""
        told = self._announcements.news(pairs) | {address: pairs[address] for address in anew if address in pairs}
        for address, mac in sorted(told.items()):
            self._sender.send(frames(address, mac))
            self._log.debug("pair announced", extra={"address": str(address), "mac": mac})
