"""What members of a lab may be called, the words that stand for groups of them, and for a file."""

from typing import Final

NAME_LENGTH_MAX: Final = 15
NAME_PATTERN: Final = r"^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$"
"""Labs, nodes, pods, routers: they become host names and interface names, which Linux limits to 15 characters."""

OUTSIDE: Final = "outside"
ALL_PODS: Final = "all-pods"
ALL_NODES: Final = "all-nodes"
OWN_NODE: Final = "own-node"
RESERVED_NAMES: Final = frozenset({"underlay", OUTSIDE, "all", "host", ALL_PODS, ALL_NODES, OWN_NODE})
"""Names that nothing in a file may bear: commands and steps give them a meaning of their own."""

STANDARD_INPUT: Final = "-"
"""The name of a topology file that stands for standard input."""
