"""Who stops a packet: the rules of nftables, as `nft --json` lists them, gone through as the kernel would.

A chain or set is asked for when the packet comes to it: a table of ten thousand rules is never read whole. What this
file does not understand (most matches of xtables) counts as not matching: such rules make exceptions, and what matters
here is what happens to a packet that is none. So a chain is blamed wrongly only where an exception that was not
understood lets pods pass.

The form is that of libnftables-json(5).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from plugin.core.firewall.samples import Sample

_DEPTH_MAX: Final = 16  # the kernel's own bound (NFT_JUMP_STACK_SIZE)
_UNKNOWN: Final = object()
_TARGETS: Final[Mapping[str, Mapping[str, Any]]] = {"REJECT": {"reject": None}}
"""Targets of xtables that end a packet's way; DROP and ACCEPT are verdicts of nftables there, too."""

_REFUSALS: Final = frozenset({"drop", "reject"})


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that the kernel itself calls.

    Attributes:
        policy: `accept` or `drop`: what happens at its end.
    """

    family: str
    table: str
    name: str
    hook: str
    policy: str


@dataclass(slots=True)
class Known:
    """What has been read of one table so far: the statements of each rule of a chain, the elements of a set or map."""

    chains: dict[str, list[list[Mapping[str, Any]]]] = field(default_factory=dict[str, list[list[Mapping[str, Any]]]])
    sets: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])


@dataclass(frozen=True, slots=True)
class Missing:
    """What has to be read before a packet can be judged: a chain, or a set or map (`is_chain` False)."""

    name: str
    is_chain: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who stops a packet.

    Attributes:
        chain: The chain in which it ends.
        verb: `drops` or `rejects`.
        by_policy: It came to the end of the chain, and the policy did it.
    """

    chain: str
    verb: str
    by_policy: bool


class _MissingError(Exception):
    def __init__(self, missing: Missing) -> None:
        super().__init__(missing.name)
        self.missing = missing


def judge(base: BaseChain, known: Known, packet: Sample) -> Refusal | Missing | None:
    """What one table does to a packet; None: it lets it pass.

    Args:
        base: Where it comes in.
        known: What is known of the chain's table.
        packet: The packet.
    """
    try:
        verdict, chain = _walk(base.name, known, packet, 0)
    except _MissingError as error:
        return error.missing
    if verdict in _REFUSALS:
        return Refusal(chain, f"{verdict}s", by_policy=False)
    if verdict == "accept" or base.policy == "accept":
        return None
    return Refusal(base.name, "drops", by_policy=True)


def _walk(name: str, known: Known, packet: Sample, depth: int) -> tuple[str, str]:
    """The verdict, and the chain that gave it; `continue` when a chain has none."""
    if name not in known.chains:
        raise _MissingError(Missing(name, is_chain=True))
    if depth > _DEPTH_MAX:
        return "drop", name
    for statements in known.chains[name]:
        verdict = _rule(statements, known, packet)
        kind, target = next(iter(verdict.items()), ("continue", None))
        if kind in {"accept", "queue"}:  # a program that packets are queued for has its say elsewhere
            return "accept", name
        if kind in _REFUSALS:
            return kind, name
        if kind == "return":
            return "continue", name
        if kind in {"jump", "goto"} and isinstance(target, Mapping):
            found = _walk(str(target.get("target")), known, packet, depth + 1)
            if found[0] != "continue" or kind == "goto":
                return found
    return "continue", name


def _rule(statements: Sequence[Mapping[str, Any]], known: Known, packet: Sample) -> Mapping[str, Any]:
    """The verdict of one rule, as nft writes it; empty when it does not match or says nothing."""
    for statement in statements:
        kind, content = next(iter(statement.items()))
        if kind == "match":
            if not _matches(content, known, packet):
                return {}
        elif kind == "vmap":
            return _looked_up(content, known, packet)
        elif kind == "xt":
            if (content or {}).get("type") == "target":
                return _TARGETS.get(content["name"], {})
            if not _passes_xtables(content or {}, statements, packet):
                return {}
        elif kind in _REFUSALS or kind in {"accept", "queue", "return", "jump", "goto"}:
            return statement
    return {}


def _passes_xtables(content: Mapping[str, Any], statements: Sequence[Mapping[str, Any]], packet: Sample) -> bool:
    """Whether a match of xtables, of which nft tells the name at most, stands for this packet.

    A rule that accepts by what is tracked is about answers; older versions of nft tell no names, and then it may be.
    """
    if content.get("name") == "comment":
        return True
    is_accepting = any("accept" in statement for statement in statements)
    return is_accepting and ("name" not in content or (content["name"] == "conntrack" and packet.state != "new"))


def _looked_up(content: Mapping[str, Any], known: Known, packet: Sample) -> Mapping[str, Any]:
    value = _value(content.get("key"), packet)
    for element in _elements(content.get("data"), known):
        if isinstance(element, list) and len(element) == 2 and _is_in(value, element[0], known):
            found = element[1]
            return found if isinstance(found, Mapping) else {}
    return {}


def _matches(content: Mapping[str, Any], known: Known, packet: Sample) -> bool:
    value = _value(content.get("left"), packet)
    if value is _UNKNOWN:
        return False
    found = _is_in(value, content.get("right"), known)
    return not found if content.get("op") == "!=" else found


def _elements(right: Any, known: Known) -> list[Any]:
    """The elements of a set: one that stands in the rule, or a named one."""
    if isinstance(right, str) and right.startswith("@"):
        name = right[1:]
        if name not in known.sets:
            raise _MissingError(Missing(name, is_chain=False))
        return known.sets[name]
    if isinstance(right, Mapping):
        right = right.get("set", [])
    return right if isinstance(right, list) else [right]


def _is_in(value: Any, right: Any, known: Known) -> bool:
    """Whether a field's value is what the right side of a match says: a value, a prefix, a range, or a set of them."""
    if value is _UNKNOWN:
        return False
    if isinstance(right, Mapping) and ("elem" in right):
        return _is_in(value, right["elem"].get("val"), known)
    if isinstance(right, list) or (isinstance(right, Mapping) and "set" in right) or _is_name(right):
        return any(_is_in(value, _key(one), known) for one in _elements(right, known))
    return _in_bounds(value, right, known) if isinstance(right, Mapping) else _same(value, right)


def _in_bounds(value: Any, right: Mapping[str, Any], known: Known) -> bool:
    """Whether a value is in a prefix or a range, or several are what a concatenation says."""
    if "prefix" in right:
        network = _network(right["prefix"])
        return network is not None and isinstance(value, IPv4Address) and value in network
    if "range" in right:
        first, last = right["range"]
        return _number(first) <= _number(value) <= _number(last)
    parts = right.get("concat", [])
    return isinstance(value, tuple) and len(value) == len(parts) and all(
        _is_in(one, part, known) for one, part in zip(value, parts, strict=True)
    )  # fmt: skip


def _is_name(right: Any) -> bool:
    return isinstance(right, str) and right.startswith("@")


def _key(element: Any) -> Any:
    """What is compared: of a map's element its key."""
    return element[0] if isinstance(element, list) and len(element) == 2 else element


def _same(value: Any, right: Any) -> bool:
    if isinstance(right, str) and right.endswith("*") and isinstance(value, str):
        return value.startswith(right[:-1])
    if isinstance(value, IPv4Address):
        return bool(str(value) == right)
    return bool(value == right)


def _network(prefix: Mapping[str, Any]) -> IPv4Network | None:
    try:
        return IPv4Network((prefix["addr"], prefix["len"]))
    except (KeyError, ValueError):
        return None


def _number(value: Any) -> int:
    if isinstance(value, int):
        return value
    try:
        return int(IPv4Address(value))
    except ValueError:
        return -1


def _value(left: Any, packet: Sample) -> Any:
    """A field of the packet; _UNKNOWN when the packet has none of that name, or this file does not know it."""
    kind, content = next(iter(left.items()), ("", None)) if isinstance(left, Mapping) else ("", None)
    read = _READERS.get(kind)
    return _UNKNOWN if read is None else read(content, packet)


def _of_meta(content: Any, packet: Sample) -> Any:
    return _meta(packet).get(content.get("key"), _UNKNOWN)


def _of_payload(content: Any, packet: Sample) -> Any:
    return _field(packet).get((content.get("protocol"), content.get("field")), _UNKNOWN)


def _of_tracking(content: Any, packet: Sample) -> Any:
    known = {"state": packet.state, "mark": 0, "status": "seen-reply", "direction": _direction(packet)}
    return known.get(content.get("key"), _UNKNOWN)


def _of_routing(content: Any, packet: Sample) -> Any:
    if content.get("result") != "type":
        return _UNKNOWN
    local = packet.hook == "input" if content.get("flags") == ["daddr"] else packet.hook == "output"
    return "local" if local else "unicast"


def _of_several(content: Any, packet: Sample) -> Any:
    parts = tuple(_value(part, packet) for part in content)
    return _UNKNOWN if any(part is _UNKNOWN for part in parts) else parts


def _of_masked(content: Any, packet: Sample) -> Any:
    value, mask = _value(content[0], packet), content[1]
    return value & mask if isinstance(value, int) and isinstance(mask, int) else _UNKNOWN


_READERS: Final[Mapping[str, Callable[[Any, Sample], Any]]] = {
    "meta": _of_meta,
    "payload": _of_payload,
    "ct": _of_tracking,
    "fib": _of_routing,
    "concat": _of_several,
    "&": _of_masked,
}


def _direction(packet: Sample) -> str:
    return "original" if packet.state == "new" else "reply"


def _meta(packet: Sample) -> dict[str, Any]:
    names = {"iifname": packet.iif, "iif": packet.iif, "oifname": packet.oif, "oif": packet.oif}
    return {key: name for key, name in names.items() if name} | {
        "l4proto": packet.protocol, "nfproto": "ipv4", "protocol": "ip", "mark": 0, "pkttype": "unicast",
    }  # fmt: skip


def _field(packet: Sample) -> dict[tuple[str, str], Any]:
    fields: dict[tuple[str, str], Any] = {
        ("ip", "saddr"): packet.source, ("ip", "daddr"): packet.destination, ("ip", "protocol"): packet.protocol,
        ("ip", "version"): 4,
    }  # fmt: skip
    if packet.protocol == "icmp":
        return fields | {("icmp", "type"): "echo-request"}
    for name in (packet.protocol, "th"):
        fields |= {(name, "sport"): packet.source_port, (name, "dport"): packet.port}
    return fields
