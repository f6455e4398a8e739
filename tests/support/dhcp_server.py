"""A DHCP server of one address, for the plugin `dhcp`: RFC 2131, no more than a client needs. Run it inside a pod.

python dhcp_server.py INTERFACE ITS-OWN-ADDRESS ADDRESS-TO-GIVE GATEWAY
"""

import socket
import struct
import sys
from ipaddress import IPv4Address

COOKIE = bytes.fromhex("63825363")
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5


def options(data: bytes) -> dict[int, bytes]:
    """The options behind the magic cookie."""
    found, offset = {}, 240
    while offset < len(data) and data[offset] != 255:
        if data[offset] == 0:
            offset += 1
            continue
        length = data[offset + 1]
        found[data[offset]] = data[offset + 2 : offset + 2 + length]
        offset += 2 + length
    return found


def reply(call: bytes, kind: int, own: bytes, given: bytes, gateway: bytes) -> bytes:
    head = struct.pack("!BBBB4sHH4s4s4s4s", 2, 1, 6, 0, call[4:8], 0, 0x8000, bytes(4), given, own, bytes(4))
    pairs = {
        53: bytes([kind]), 54: own, 51: struct.pack("!I", 3600), 1: IPv4Address("255.255.255.0").packed, 3: gateway,
    }  # fmt: skip
    tail = b"".join(bytes([code, len(value)]) + value for code, value in pairs.items())
    return head + call[28:44] + bytes(192) + COOKIE + tail + b"\xff"


def serve(interface: str, own: str, given: str, gateway: str) -> None:
    packed = [IPv4Address(text).packed for text in (own, given, gateway)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        server.bind(("", 67))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            call = server.recv(2048)
            kind = options(call).get(53, b"\0")[0]
            if kind in {DISCOVER, REQUEST}:
                answer = reply(call, OFFER if kind == DISCOVER else ACK, *packed)
                server.sendto(answer, ("255.255.255.255", 68))


if __name__ == "__main__":
    serve(*sys.argv[1:])
