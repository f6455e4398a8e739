"""The command `weave` of a node: what a person asks the agent, and has it do."""

from pathlib import Path

from plugin.executables import stamped


def executable_bytes(interpreter: str) -> bytes:
    """The text of `weave` for a node; see `plugin.executables.stamped`."""
    return stamped(Path(__file__).with_name("weave.py"), interpreter)
