"""What the demo's steps share: the stage, the lab, who plays, and what has been seen so far."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from testbed.demo.cast import Cast
from testbed.demo.paper import Sheet
from testbed.demo.stage import DemoError, Stage
from testbed.lab import state
from testbed.lab.running import Lab
from testbed.lab.users import Use
from testbed.machine import screen
from testbed.probes.capture import CapturedFrame
from testbed.topology.model import Topology


@dataclass(slots=True)
class Show:
    """What the steps share: the stage, who plays, and what has been seen so far."""

    stage: Stage
    name: str
    topology: Topology
    topology_file: Path
    cast: Cast
    lab: Lab | None = None
    use: Use = field(default_factory=Use)
    echoes: dict[str, CapturedFrame] = field(default_factory=dict)
    routed: tuple[CapturedFrame, ...] = ()
    near_frames: int = 0
    failed: Sheet | None = None

    @property
    def running(self) -> Lab:
        """The lab, once it is up."""
        assert self.lab is not None, "the first step brings it up"
        return self.lab

    @property
    def names(self) -> dict[str, str]:
        """What the texts of `testbed.demo.texts` may name in curly braces."""
        cast, pods = self.cast, {} if self.lab is None else self.lab.pods
        return {
            "sender": cast.sender,
            "node": cast.node,
            "near": cast.new,
            "far": cast.far,
            "far_node": cast.far_node,
            "routers": " and ".join(cast.routers),
            "new_address": str(pods[cast.new].address) if cast.new in pods else "",
        }

    @property
    def alone(self) -> bool:
        """Whether this lab is the only one, so that commands need not name it."""
        return state.ready_labs() == [self.name]

    def exec(self, target: str, *argv: str, mark: tuple[str, ...] = (), code: int = 0, rows_max: int = 10_000) -> str:
        """Show and run a command inside a member of the lab.

        It is shown without --lab while this lab is the only one, and run with it: another may come up this moment.
        """
        full = ("exec", "--lab", self.name, target, "--", *argv)
        shown = ("exec", target, "--", *argv) if self.alone else full
        return self.stage.weavelab(*full, mark=mark, shown=shown, code=code, rows_max=rows_max)

    def address(self, pod: str) -> str:
        """A pod's address."""
        return str(self.running.pods[pod].address)


def demand(wanted: str, text: str, where: str) -> None:
    """See that a command printed what the step explains.

    Raises:
        DemoError: It did not.
    """
    if wanted not in text:
        raise DemoError(f"wanted {wanted!r} in {where}, which does not have it", hint="its output is above")


def make_table(*columns: str) -> Table:
    """A table without frame; numbers stand right."""
    table = Table(box=screen.table_box(), pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in {"bytes", "frames", "of this ping"} else "left")
    return table
