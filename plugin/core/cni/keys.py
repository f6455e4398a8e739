"""Typed access to JSON from outside: one way to complain about a value of the wrong type, for every key of CNI.

Every function here raises CniError (code 7, invalid network configuration) when a value is not what it must be.
"""

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, TypeVar

from plugin.core.cni.types import INVALID_CONFIG, CniError

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


def in_any_case(value: Any) -> Any:
    """The same JSON with the keys of capabilities as the specification writes them, at every depth.

    Go reads keys in any case, so the reference plugins never noticed that containerd 1.6 writes HostPort, IngressRate
    and Servers (its structures have no JSON names). A key that is written right as well wins.
    """
    if isinstance(value, list):
        return [in_any_case(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {_CAPABILITY_KEYS.get(key.lower(), key): in_any_case(item) for key, item in value.items()}
    return found | {key: in_any_case(item) for key, item in value.items() if key in _CAPABILITY_KEYS.values()}


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


_CAPABILITY_KEYS: Final = {
    key.lower(): key
    for key in (
        "portMappings", "hostPort", "containerPort", "protocol", "hostIP",
        "bandwidth", "ingressRate", "ingressBurst", "egressRate", "egressBurst",
        "dns", "servers", "searches", "options",
        "ips", "mac", "ipRanges", "subnet", "rangeStart", "rangeEnd", "gateway",
    )
}  # fmt: skip

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
