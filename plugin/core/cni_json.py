"""Typed access to JSON from outside: one way to complain about a value of the wrong type, for every key of CNI.

Every function here raises CniError (code 7, invalid network configuration) when a value is not what it must be.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final, TypeVar

from plugin.core.cni_types import INVALID_CONFIG, CniError

T = TypeVar("T")


def typed_value(raw: Mapping[str, object], key: str, kind: type[T], default: T) -> T:
    """`raw[key]` if it is a `kind`; `default` if it is absent or null. A bool is no int."""
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CniError(INVALID_CONFIG, f'"{key}" must be {_KINDS[kind]}, found {shown(value)}')
    return value


def typed_list(value: object, name: str, kind: type[T]) -> list[T]:
    """`value` if it is a list of `kind` and nothing else."""
    if not isinstance(value, list):
        raise CniError(INVALID_CONFIG, f'"{name}" must be a list, found {shown(value)}')
    for item in value:
        if not isinstance(item, kind):
            raise CniError(INVALID_CONFIG, f'each of "{name}" must be {_KINDS[kind]}, found {shown(item)}')
    return value


def text_list(raw: Mapping[str, object], key: str) -> tuple[str, ...]:
    """`raw[key]` as texts; none if it is absent or null."""
    value = raw.get(key)
    return () if value is None else tuple(typed_list(value, key, str))


def ipv4_address(text: str, name: str) -> IPv4Address:
    """An address, or a complaint about the key `name`."""
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise CniError(INVALID_CONFIG, f'"{name}" must be an IPv4 address, found {text!r}', str(error)) from error


def ipv4_network(text: str, name: str) -> IPv4Network:
    """A network, host bits allowed, or a complaint about the key `name`."""
    try:
        return IPv4Network(text, strict=False)
    except ValueError as error:
        raise CniError(
            INVALID_CONFIG, f'"{name}" must be an IPv4 network like 10.32.0.0/16, found {text!r}', str(error)
        ) from error


_KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
_SHOWN_CHARACTERS_MAX: Final = 80


def shown(value: object) -> str:
    """A JSON value for an error message, cut to a readable length."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."
