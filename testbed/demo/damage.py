"""A step of the demo: the way between the nodes is broken on purpose, seen from both ends, and repaired by the agent.

Nothing here judges: what is wrong is what `weave status` says. The lab is whole again at the end of the step, or the
demo ends.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from plugin.core.packet import vxlan
from testbed.demo.show import Show, demand
from testbed.demo.stage import DemoError
from testbed.lab.agent_api import AgentError
from testbed.scenario.members import WEAVELAB

_NOTICED_S: Final = 20.0
_PAUSE_S: Final = 0.05
_STATUS_ROWS: Final = 4


def break_it(show: Show) -> None:
    """Take the VXLAN device down, look, let the agent mend it."""
    cast, stage = show.cast, show.stage
    device = f"vxlan-{vxlan.UDP_PORT}"
    part = f"link {device}"
    near, far = show.address(cast.new), show.address(cast.far)
    stage.say(
        "What an agent made, it keeps right: damage is mended within a second. So the agent of "
        f"{cast.node} is told to leave one part alone, and then that part is broken:"
    )
    show.exec(cast.node, "weave", "hold", part, "for the demo")
    show.exec(cast.node, "ip", "link", "set", device, "down")
    stage.say(f"From {cast.sender} to {cast.new}, on the same node, and to {cast.far} on {cast.far_node}:")
    show.exec(cast.sender, "ping", "-n", "-c", "1", "-W", "1", near, mark=("1 received",))
    show.exec(cast.sender, "ping", "-n", "-c", "1", "-W", "1", far, mark=("100% packet loss",), code=1)
    _await(show, "see the damage", lambda peers: peers == {"failed"})
    stage.say(
        f"Where to look, when pods of one node talk and those of two nodes do not. {cast.node} names the fault as its "
        f"own; {cast.far_node} can only say what it does not hear:"
    )
    seen = show.exec(cast.node, "weave", "status", mark=("PROBLEM",), code=1, rows_max=_STATUS_ROWS)
    demand(f"PROBLEM: {part}", seen, "the status")
    seen = show.exec(cast.node, "weave", "status", "connections", mark=("failed", "this node's own fault"))
    demand("this node's own fault", seen, "the connections")
    seen = show.exec(cast.far_node, "weave", "status", "connections", mark=("failed", "VXLAN packets are not answered"))
    demand("failed", seen, "the connections")
    stage.say("The repair: the agent may mend it again, and does so before the command returns.")
    show.exec(cast.node, "weave", "release", part)
    _await(show, "be whole again", lambda peers: peers == {"established"})
    show.exec(cast.sender, "ping", "-n", "-c", "1", "-W", "1", far, mark=("1 received",))
    stage.say("Now you, in a second terminal, while the demo waits here. Do pods notice? What does the status say?")
    lab = "" if show.alone else f" --lab {show.name}"
    stage.command(f"{WEAVELAB} agent kill {cast.node}{lab}")
    stage.command(f"{WEAVELAB} status {show.name}")
    stage.command(f"{WEAVELAB} exec{lab} {cast.sender} -- ping -c 2 {far}")
    stage.command(f"{WEAVELAB} agent start {cast.node}{lab}")


def _await(show: Show, what: str, reached: Callable[[set[str]], bool]) -> None:
    """Wait until the two agents say of each other what they should.

    Raises:
        DemoError: They do not in time.
    """
    deadline_s = time.monotonic() + _NOTICED_S
    while True:
        states = {_of(show, show.cast.node, show.cast.far_node), _of(show, show.cast.far_node, show.cast.node)}
        if reached(states):
            return
        if time.monotonic() > deadline_s:
            raise DemoError(
                f"wanted both agents to {what} within {_NOTICED_S:.0f} s, found: {', '.join(sorted(states))}",
                hint="`weavelab logs` and `weave status connections` say what the agents wait for",
            )
        time.sleep(_PAUSE_S)


def _of(show: Show, node: str, peer: str) -> str:
    """What the agent of a node says of another's."""
    try:
        said: Any = show.running.nodes[node].api_get("/status")
    except AgentError as error:
        return str(error)
    return next((each["state"] for each in said["peers"] if each["name"] == peer), "unknown")
