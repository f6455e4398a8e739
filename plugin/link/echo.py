"""Echo requests to other nodes' bridges, through the overlay (icmp(7), raw(7), RFC 792). It decides nothing.

To which nodes pods have sent lately is read by `plugin.link.overlay.nodes_sent_to`.
"""

import os
import socket
import struct
from ipaddress import IPv4Address
from typing import Final

from plugin.core.errors import InputError, said_by
from plugin.core.packet.sums import internet_checksum

_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0
_HEADER: Final = struct.Struct(">BBHHH")
_TOKEN: Final = struct.Struct(">8sI")
_IP_HEADER_BYTES: Final = 20
_IP_HEADER_BYTES_MAX: Final = 60
_HEAD_BYTES: Final = _IP_HEADER_BYTES_MAX + _HEADER.size + _TOKEN.size
"""All of a reply that is looked at; the kernel throws away the rest."""

_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_PROBE: Final = 3
"""Set DF and do not believe what an ICMP error once said of the path: that is what is being found out (ip(7))."""

_RECEIVED_MAX: Final = 256
"""The loop gets a turn after this many: every raw socket sees the replies to everybody's pings."""


class Echo:
    """One raw socket, bound to the bridge and its address. Nothing here blocks.

    Args:
        source: The bridge's address.
        device: The bridge. The address alone would do while it is up; when it is down, the packets would leave by the
            default route, unwrapped, for whoever is there to answer.
        icmp_id: Distinguishes our packets in a capture; replies are recognised by a token of 8 bytes.

    Raises:
        InputError: The address or device is not on this node, or raw sockets are not allowed.
    """

    def __init__(self, source: IPv4Address, device: str, *, icmp_id: int) -> None:
        self._token = os.urandom(8)
        self._icmp_id = icmp_id & 0xFFFF
        try:
            self._socket = socket.socket(
                socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP
            )
        except OSError as error:
            raise InputError(
                f"the overlay cannot be probed: {said_by(error, path=False)}", hint="CAP_NET_RAW is needed"
            ) from error
        try:
            # Every raw socket of the node gets every ICMP packet: let the kernel keep all but echo replies.
            self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("I", 0xFFFFFFFF ^ (1 << _ECHO_REPLY)))
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            self._socket.bind((str(source), 0))
        except OSError as error:
            self._socket.close()
            raise InputError(
                f"the overlay cannot be probed from {source} on {device}: {said_by(error, path=False)}",
                hint=f"does {device} have that address?  ip address show dev {device}",
            ) from error

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the socket; twice is harmless."""
        self._socket.close()

    def send(self, to: IPv4Address, identifier: int, size_bytes: int) -> None:
        """Send an echo request of `size_bytes`, IP header included.

        Raises:
            OSError: The kernel does not send it: EMSGSIZE, ENETUNREACH, ENETDOWN and others.
        """
        token = _TOKEN.pack(self._token, identifier)
        number = identifier & 0xFFFF
        # The zeros behind the token add nothing to the sum.
        checksum = internet_checksum(_HEADER.pack(_ECHO_REQUEST, 0, 0, self._icmp_id, number) + token)
        packet = _HEADER.pack(_ECHO_REQUEST, 0, checksum, self._icmp_id, number) + token
        self._socket.sendto(packet.ljust(size_bytes - _IP_HEADER_BYTES, b"\0"), (str(to), 0))

    def receive(self) -> list[int]:
        """The identifiers of our own requests that were answered; what others pinged does not count."""
        found = []
        for _ in range(_RECEIVED_MAX):
            try:
                packet = self._socket.recv(_HEAD_BYTES)
            except BlockingIOError:
                break
            except OSError:
                continue  # an error of an earlier request, or the bridge went down: told once, then forgotten
            start = (packet[0] & 0x0F) * 4 + _HEADER.size
            if len(packet) >= start + _TOKEN.size:
                token, identifier = _TOKEN.unpack_from(packet, start)
                if token == self._token:
                    found.append(identifier)
        return found
