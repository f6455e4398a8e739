"""How one value of a message becomes JSON and back: the bounds of everything that peers may say, one object a kind.

Bytes from a peer are checked here and nowhere else: `load` returns a value that is in bounds or raises WireError,
whatever it is given. Text is printable ASCII, so that a log or a terminal shows what was meant.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any, Final, Generic, TypeVar

from plugin.core.errors import CheckError
from plugin.core.messages.values import NOBODY

_NAME_BYTES_MAX: Final = 63
LABEL_BYTES_MAX: Final = 40
COUNTER_MAX: Final = (1 << 63) - 1
UID_DIGITS: Final = 16
_ROWS_REMEMBERED: Final = 2048
_HEX: Final = frozenset("0123456789abcdef")
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*")

T = TypeVar("T")


class WireError(CheckError):
    """Bytes that are no message of ours; the text says which rule they break."""


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """One kind of value: `dump` to what json knows, `load` back with every bound checked."""

    dump: Callable[[T], Any]
    load: Callable[[Any], T]


def counter(*, lowest: int = 0, highest: int = COUNTER_MAX) -> Codec[int]:
    """A whole number within bounds."""

    def load(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise WireError(f"wanted a whole number from {lowest} to {highest}, found {_shown(value)}")
        return value

    return Codec(int, load)


def text(bytes_max: int, *, empty: bool = True) -> Codec[str]:
    """Printable ASCII; what is longer or prints badly is cut or left out by `dump` and refused by `load`."""

    def dump(value: str) -> str:
        return "".join(character for character in value if character.isascii() and character.isprintable())[:bytes_max]

    def load(value: Any) -> str:
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or len(value) > bytes_max:
            raise WireError(f"wanted printable text of at most {bytes_max} bytes, found {_shown(value)}")
        if not value and not empty:
            raise WireError("wanted text, found none")
        return value

    return Codec(dump, load)


def listing(item: Codec[T], count_max: int) -> Codec[tuple[T, ...]]:
    """A list of at most `count_max` items."""

    def load(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list) or len(value) > count_max:
            raise WireError(f"wanted a list of at most {count_max} entries, found {_shown(value)}")
        return tuple(item.load(entry) for entry in value)

    return Codec(lambda values: [item.dump(value) for value in values], load)


def row(
    make: Callable[..., T],
    fields: dict[str, Codec[Any]],
    *,
    recurs: bool = False,
    late: tuple[str, Codec[Any], Any] | None = None,
) -> Codec[T]:
    """A dataclass as a list of its values, in the order of `fields`: short on the wire, checked field by field.

    Args:
        make: The dataclass, frozen.
        fields: Its fields.
        recurs: The same values come again and again (the sender of every message does): those that were checked lately
            are not checked again, which is most of the work of a message.
        late: One more field behind the others, and its usual value, with which it is left out: agents and files from
            before it was added are understood, and understand.
    """
    names = (*fields, *(() if late is None else (late[0],)))
    codecs = (*fields.values(), *(() if late is None else (late[1],)))
    getters = tuple(zip(names, (codec.dump for codec in codecs), strict=True))
    counts = {len(fields), len(names)}

    def checked(*values: Any) -> T:
        return make(*(codec.load(value) for codec, value in zip(codecs, values, strict=False)))

    # `typed`, for True is not 1 here; what is refused raises, and is never remembered.
    remembered = lru_cache(maxsize=_ROWS_REMEMBERED, typed=True)(checked)

    def load(value: Any) -> T:
        if not isinstance(value, list) or len(value) not in counts:
            raise WireError(f"wanted [{', '.join(names)}], found {_shown(value)}")
        if recurs and not any(isinstance(entry, list | dict) for entry in value):
            return remembered(*value)
        return checked(*value)

    def dump(made: T) -> list[Any]:
        usual = late is not None and getattr(made, late[0]) == late[2]
        return [dump(getattr(made, name)) for name, dump in (getters[:-1] if usual else getters)]

    return Codec(dump, load)


def optional(item: Codec[T]) -> Codec[T | None]:
    """A value or null."""
    return Codec(
        lambda value: None if value is None else item.dump(value),
        lambda value: None if value is None else item.load(value),
    )


_parsed_address = lru_cache(maxsize=16384)(IPv4Address)
"""The same few thousand addresses come again and again, and parsing one costs as much as all the rest of a field."""


def _load_address(value: Any) -> IPv4Address:
    try:
        if isinstance(value, str) and len(value) <= 15:
            return _parsed_address(value)
    except ValueError:
        pass
    raise WireError(f"wanted an IPv4 address, found {_shown(value)}")


def _load_name(value: Any) -> str:
    """A node's name, as the agent's configuration has it: nothing that would grow when it is written as JSON."""
    if not isinstance(value, str) or len(value) > _NAME_BYTES_MAX or not _NAME.fullmatch(value):
        raise WireError(f"wanted a node's name, found {_shown(value)}")
    return value


def _load_uid(value: Any) -> str:
    if not isinstance(value, str) or len(value) != UID_DIGITS or not set(value) <= _HEX:
        raise WireError(f"wanted {UID_DIGITS} hex digits, found {_shown(value)}")
    return value


def _load_mac(value: Any) -> str:
    digits = value.split(":") if isinstance(value, str) and len(value) == 17 else []
    if len(digits) != 6 or not all(len(pair) == 2 and set(pair) <= _HEX for pair in digits):
        raise WireError("a MAC must be six pairs of lower-case hex digits")
    if int(digits[0], 16) & 1 or value == "00:00:00:00:00:00":
        raise WireError("a pod's MAC must be unicast and not zero")
    assert isinstance(value, str)
    return value


def _load_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WireError(f"wanted true or false, found {_shown(value)}")
    return value


def _dump_label(value: str) -> str:
    label = value.encode("ascii", "replace")[:LABEL_BYTES_MAX].decode()
    return "".join(character for character in label if character.isprintable() and character not in '"\\')


def _load_owner(value: Any) -> str:
    return NOBODY if value == NOBODY else _load_uid(value)


COUNTER: Final = counter()
FLAG: Final[Codec[bool]] = Codec(bool, _load_flag)
NAME: Final[Codec[str]] = Codec(str, _load_name)
SENTENCE: Final = text(400)
ADDRESS: Final[Codec[IPv4Address]] = Codec(str, _load_address)
UID: Final[Codec[str]] = Codec(str, _load_uid)
OWNER: Final[Codec[str]] = Codec(str, _load_owner)
MAC: Final[Codec[str]] = Codec(str, _load_mac)
LABEL: Final[Codec[str]] = Codec(_dump_label, text(LABEL_BYTES_MAX).load)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
