"""Values of a running lab in the text of a step: `{green.address}`, `{node1.switch}`, `{self.name}`. Pure.

Only two words with a dot between them, in braces, are a placeholder: `${VAR}`, awk's `{print $1}`, JSON and Go's
templates stay what they are. `{{green.address}}` is the text `{green.address}`. Which values there are is here, and so
what a file may ask for (`step_rules`); what they are in a lab, `testbed.scenario.members` knows.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from testbed.topology.model import Topology
from testbed.topology.names import OUTSIDE

SELF: Final = "self"
"""Whoever the command runs on."""

MemberKind = Literal["pod", "node", "outside", "router"]

VALUES: Final[Mapping[MemberKind, tuple[str, ...]]] = {
    "pod": ("name", "address", "mac", "interface", "node", "gateway"),
    "node": ("name", "address", "mac", "interface", "switch"),
    "router": ("name", "address", "mac", "interface"),
    "outside": ("name", "address", "mac", "interface"),
}
"""What can be asked of whom."""

_WORDS: Final = r"([A-Za-z][\w-]*)\.([A-Za-z_]\w*)"
_PATTERN: Final = re.compile(rf"\{{\{{{_WORDS}\}}\}}|(?<!\$)\{{{_WORDS}\}}")


class Placeholder(NamedTuple):
    """`{who.what}`."""

    who: str
    what: str

    def __str__(self) -> str:
        return f"{{{self.who}.{self.what}}}"


def placeholders(text: str) -> Iterator[Placeholder]:
    """Every placeholder of a text, in order."""
    for found in _PATTERN.finditer(text):
        if found[3] is not None:
            yield Placeholder(found[3], found[4])


def fill(text: str, value: Callable[[Placeholder], str]) -> str:
    """The text with every placeholder's value, and doubled braces around two such words made single."""

    def one(found: re.Match[str]) -> str:
        if found[3] is None:
            return f"{{{found[1]}.{found[2]}}}"
        return value(Placeholder(found[3], found[4]))

    return _PATTERN.sub(one, text)


def kind_of(topology: Topology, name: str) -> MemberKind | None:
    """What the member of that name is; None when the file has none."""
    if name in topology.pods:
        return "pod"
    if name in topology.nodes:
        return "node"
    if name in topology.underlay.routers:
        return "router"
    return OUTSIDE if name == OUTSIDE else None
