"""`weavelab agent`: end and start single agents, to see what the cluster makes of it."""

from typing import Final

import click

_EXAMPLES: Final = """
\b
Examples:
  weavelab agent kill node2                   a crash; pods of node2 keep their network
  weavelab agent start node2                  the agent comes back and takes all up again
  weavelab agent restart node2 --lose-disk    it has lost what it had written down
"""


@click.command(name="agent", epilog=_EXAMPLES, short_help="Kill, stop, start or restart the agent of a node.")
@click.argument("verb", type=click.Choice(["kill", "stop", "start", "restart"]))
@click.argument("node")
@click.option("--lab", metavar="LAB", help="Which lab, when several are up.")
@click.option("--lose-disk", is_flag=True, help="With start or restart: remove what the agent had written down first.")
def agent(verb: str, node: str, lab: str | None, lose_disk: bool) -> None:  # noqa: FBT001 - click passes by name
    """Kill (SIGKILL), stop (SIGTERM), start or restart the agent of one node of a running lab."""
    from testbed.lab.running import Lab  # noqa: PLC0415
    from testbed.life import agent_control  # noqa: PLC0415 - `--help` must not wait for the lab's imports
    from testbed.machine.privileges import CHANGE, check_machine  # noqa: PLC0415

    if lose_disk and verb not in {"start", "restart"}:
        raise click.UsageError("--lose-disk goes with start or restart")
    check_machine(CHANGE)
    running = Lab.load(lab)
    if verb != "start":
        agent_control.stop(running, node, kill=verb == "kill")
        click.echo(f"the agent of {node} has ended")
    if verb in {"start", "restart"}:
        agent_control.start(running, node, lose_disk=lose_disk)
        click.echo(f"the agent of {node} is ready")
