"""Every message between agents (UDP 6783), its limits, encode and decode.

A datagram is a fixed header and a JSON body, so that `tcpdump -A -n udp port 6783` can be read by a person:

    0      2         3      4          12
    +------+---------+------+----------+------------------
    | "WV" | version | kind | seed (8) | JSON body (UTF-8)
    +------+---------+------+----------+------------------

`seed` condenses what both must agree on (plugin/core/shares.py). Bytes from a peer are checked here, once: `decode`
answers with a message whose every field is in bounds, or with WireError, whatever the bytes.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any, Final, TypeAlias

from plugin.core.endpoints import STAMP_MAX, Endpoint
from plugin.core.errors import CheckError

MAGIC: Final = b"WV"
VERSION: Final = 1
HEADER: Final = struct.Struct(">2sBB8s")
DATAGRAM_BYTES_MAX: Final = 1400
"""Fits an underlay of 1500 without fragments, with room for a tunnel below."""

ENDPOINTS_PER_DATAGRAM_MAX: Final = 12
"""Twelve entries with the longest labels, addresses and stamps stay below DATAGRAM_BYTES_MAX (tests/property)."""

PARTS_MAX: Final = 512
NAME_BYTES_MAX: Final = 63
LABEL_BYTES_MAX: Final = 40
_COUNTER_MAX: Final = (1 << 63) - 1


class WireError(CheckError):
    """Bytes that are no message of ours; the text says which rule they break."""


class Kind(IntEnum):
    """What a datagram is."""

    HELLO = 1
    PULL = 2
    TABLE = 3
    STEP = 4


@dataclass(frozen=True, slots=True)
class Hello:
    """I am here: my name, which life of mine this is, and which version of my endpoints is current.

    `heard` says whether the sender hears the receiver: a path counts as up when both directions work.
    """

    name: str
    incarnation: int
    version: int
    heard: bool


@dataclass(frozen=True, slots=True)
class Pull:
    """Send me your whole table; what I have is out of date."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class TablePart:
    """Part `part` of `parts` of my whole table at `version`; a receiver acts when it has all parts of one version."""

    incarnation: int
    version: int
    part: int
    parts: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The change of my table from version `base` to `version`."""

    incarnation: int
    base: int
    version: int
    endpoints: tuple[Endpoint, ...]
    gone: tuple[IPv4Address, ...]


Message: TypeAlias = Hello | Pull | TablePart | Step


def encode(message: Message, seed: str) -> bytes:
    """The datagram of `message`; `seed` is 16 hex digits.

    Labels longer than LABEL_BYTES_MAX are cut: they are for people, and a datagram must not grow with them.
    """
    kind, body = _body(message)
    data = HEADER.pack(MAGIC, VERSION, kind, bytes.fromhex(seed))
    data += json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode()
    assert len(data) <= DATAGRAM_BYTES_MAX, f"{kind.name} of {len(data)} bytes"
    return data


def peek_seed(data: bytes) -> str:
    """The seed of a datagram, to tell a stranger's cluster from garbage.

    Raises:
        WireError: Too short, another protocol, or a version we do not speak.
    """
    if len(data) < HEADER.size:
        raise WireError(f"a message has at least {HEADER.size} bytes, found {len(data)}")
    if len(data) > DATAGRAM_BYTES_MAX:
        raise WireError(f"a message has at most {DATAGRAM_BYTES_MAX} bytes, found {len(data)}")
    magic, version, _kind, seed = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise WireError(f"a message starts with {MAGIC!r}, found {magic!r}")
    if version != VERSION:
        raise WireError(f"this agent speaks protocol version {VERSION}, found {version}")
    return str(seed.hex())


def decode(data: bytes) -> Message:
    """The message in a datagram.

    Raises:
        WireError: Whatever is wrong with it; no other exception leaves this function.
    """
    peek_seed(data)
    kind = data[3]
    try:
        body = json.loads(data[HEADER.size :])
    except (ValueError, RecursionError):
        raise WireError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise WireError("the body must be a JSON object")
    fields = _Fields(body)
    match kind:
        case Kind.HELLO:
            return Hello(
                fields.text("name", NAME_BYTES_MAX),
                fields.counter("incarnation"),
                fields.counter("version"),
                fields.boolean("heard"),
            )
        case Kind.PULL:
            return Pull(fields.counter("incarnation"))
        case Kind.TABLE:
            parts = fields.counter("parts", lowest=1, highest=PARTS_MAX)
            part = fields.counter("part", highest=parts - 1)
            return TablePart(
                fields.counter("incarnation"), fields.counter("version"), part, parts, fields.endpoints("endpoints")
            )
        case Kind.STEP:
            return Step(
                fields.counter("incarnation"),
                fields.counter("base"),
                fields.counter("version"),
                fields.endpoints("endpoints"),
                fields.addresses("gone"),
            )
    raise WireError(f"kind {kind} is unknown")


def _body(message: Message) -> tuple[Kind, dict[str, object]]:
    match message:
        case Hello(name, incarnation, version, heard):
            return Kind.HELLO, {"name": name, "incarnation": incarnation, "version": version, "heard": heard}
        case Pull(incarnation):
            return Kind.PULL, {"incarnation": incarnation}
        case TablePart(incarnation, version, part, parts, endpoints):
            return Kind.TABLE, {
                "incarnation": incarnation,
                "version": version,
                "part": part,
                "parts": parts,
                "endpoints": [_listed(endpoint) for endpoint in endpoints],
            }
        case Step(incarnation, base, version, endpoints, gone):
            return Kind.STEP, {
                "incarnation": incarnation,
                "base": base,
                "version": version,
                "endpoints": [_listed(endpoint) for endpoint in endpoints],
                "gone": [str(address) for address in gone],
            }


def _listed(endpoint: Endpoint) -> list[object]:
    label = endpoint.label.encode("ascii", "replace")[:LABEL_BYTES_MAX].decode()
    label = "".join(character for character in label if character.isprintable() and character not in '"\\')
    return [str(endpoint.address), endpoint.mac, endpoint.stamp, label]


class _Fields:
    """The body of a message, read field by field, each with its bounds."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    def counter(self, name: str, *, lowest: int = 0, highest: int = _COUNTER_MAX) -> int:
        return _counter(self._body.get(name), name, lowest, highest)

    def boolean(self, name: str) -> bool:
        value = self._body.get(name)
        if not isinstance(value, bool):
            raise WireError(f"{name} must be true or false")
        return value

    def text(self, name: str, bytes_max: int) -> str:
        return _text(self._body.get(name), name, bytes_max)

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        return tuple(_endpoint(entry) for entry in self._list(name))

    def addresses(self, name: str) -> tuple[IPv4Address, ...]:
        return tuple(_address(entry) for entry in self._list(name))

    def _list(self, name: str) -> list[Any]:
        value = self._body.get(name)
        if not isinstance(value, list) or len(value) > ENDPOINTS_PER_DATAGRAM_MAX:
            raise WireError(f"{name} must be a list of at most {ENDPOINTS_PER_DATAGRAM_MAX} entries")
        return value


def _counter(value: object, name: str, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise WireError(f"{name} must be a whole number from {lowest} to {highest}")
    return value


def _text(value: object, name: str, bytes_max: int) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or len(value) > bytes_max:
        raise WireError(f"{name} must be printable text of at most {bytes_max} bytes")
    return value


def _address(value: object) -> IPv4Address:
    if not isinstance(value, str):
        raise WireError("an address must be text")
    try:
        return IPv4Address(value)
    except ValueError:
        raise WireError("an address must be IPv4") from None


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, list) or len(value) != 4:
        raise WireError("an endpoint must be [address, mac, stamp, label]")
    address, mac, stamp, label = value
    return Endpoint(
        _address(address),
        _mac(mac),
        _counter(stamp, "stamp", 0, STAMP_MAX),
        _text(label, "label", LABEL_BYTES_MAX),
    )


def _mac(value: object) -> str:
    digits = value.split(":") if isinstance(value, str) and len(value) == 17 else []
    if len(digits) != 6 or not all(len(pair) == 2 and set(pair) <= set("0123456789abcdef") for pair in digits):
        raise WireError("a MAC must be six pairs of lower-case hex digits")
    if int(digits[0], 16) & 1 or value == "00:00:00:00:00:00":
        raise WireError("a pod's MAC must be unicast and not zero")
    assert isinstance(value, str)
    return value
