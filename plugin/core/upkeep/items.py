"""What has to be true of objects, what is, and how the two differ: plain values, compared.

A state says of each object, by its name, what must be so (its facts). Facts that are not wanted are not compared: what
somebody else has set is his. plugin/agent/dataplane/parts.py reads states off the kernel and mends what differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import TypeAlias

Facts: TypeAlias = Mapping[str, object]
State: TypeAlias = Mapping[str, Facts]


class Concern(Flag):
    """Kinds of kernel objects that a change may be about: which parts have to look."""

    NOTHING = 0
    LINKS = auto()
    ADDRESSES = auto()
    ENTRIES = auto()
    """Forwarding entries and neighbours."""
    RULES = auto()
    SYSCTLS = auto()
    LIMITS = auto()
    """Queueing disciplines: pods' bandwidths."""
    ROUTES = auto()
    REST = auto()
    """What is looked at only when everything is: it is much, and nobody tells of it."""


EVERYTHING = Concern(sum(one.value for one in Concern))


@dataclass(frozen=True, slots=True)
class Damage:
    """One object that is not as it has to be.

    Attributes:
        name: The object's.
        what: What is wrong with it: `gone`, or `mtu 1400 instead of 1450`.
    """

    name: str
    what: str


def damages(wanted: State, found: State) -> list[Damage]:
    """The objects that are missing or differ, in the order of `wanted`.

    Args:
        wanted: All objects that have to be there.
        found: Those that are, with at least those facts that the kernel can tell: a fact that it cannot is passed over.
    """
    differing = []
    for name, facts in wanted.items():
        there = found.get(name)
        if there is None:
            differing.append(Damage(name, "gone"))
            continue
        wrong = [_words(key, there[key], value) for key, value in facts.items() if key in there and there[key] != value]
        if wrong:
            differing.append(Damage(name, ", ".join(wrong)))
    return differing


def _words(key: str, found: object, wanted: object) -> str:
    if isinstance(wanted, bool):
        return key if found else f"not {key}"
    if isinstance(wanted, frozenset) and isinstance(found, frozenset):
        missing, foreign = sorted(map(str, wanted - found)), sorted(map(str, found - wanted))
        return ", ".join([*(f"{key} {one} missing" for one in missing), *(f"{key} {one} too many" for one in foreign)])
    if isinstance(wanted, bytes):  # a check sum of many things
        return f"{key} changed"
    return f"{key} {'none' if found in {None, ''} else found} instead of {'none' if wanted in {None, ''} else wanted}"
