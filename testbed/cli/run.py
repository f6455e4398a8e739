"""`weavelab run`: its options and their help. What it does is in `testbed.cli.session`."""

from pathlib import Path

import click

from testbed.cli.topology_file import one_file, split_words, topology_option
from testbed.scenario.choice import ROUNDS_MAX
from testbed.topology.model import KUBELET_KINDS, KubeletKind
from testbed.topology.steps import CHAOS_SECONDS_MAX, CHAOS_SEED_MAX

_EXAMPLES = """
\b
Examples:
  weavelab run                                            every scenario of topologies/two-nodes.yaml
  weavelab run topologies/racks.yaml cross-node           one of another topology
  weavelab run 'cross-*' outside                          by a pattern, by name
  weavelab run --list topologies/racks.yaml               what there is; needs no root
  weavelab run --tag smoke --fail-fast --timeout 120
  weavelab run --lab two-nodes same-node                  on a lab that is up already
  weavelab run --html report.html --junit junit.xml --json report.json
  weavelab run --artifacts build/artifacts                all reports, logs, captures, states
  weavelab run --keep --pcap captures                     leave the lab up; keep the packets
  weavelab run topologies/chaos.yaml --seed 7 --seconds 3600
  weavelab run --repeat 20 --fail-fast same-node          until it fails, at most 20 times

\b
Exit code: 0 all steps hold, 1 one does not or the time was over, 2 wrong usage, 3 the machine lacks something,
130 interrupted.
"""


@click.command("run", epilog=_EXAMPLES, short_help="Run scenarios: bring a lab up, check it, report, take it down.")
@click.argument("words", nargs=-1, metavar="[FILE|-] [SCENARIO|PATTERN]...")
@topology_option
@click.option("--name", metavar="LAB", help="Call the lab so, instead of by its topology's name.")
@click.option("--lab", metavar="LAB", help="Run on this lab, which is up already, and leave it up.")
@click.option("--kubelet", type=click.Choice(KUBELET_KINDS), help="Who makes pods, instead of whom the file names.")
@click.option("--keep", is_flag=True, help="Leave the lab up afterwards, to look inside.")
@click.option("--list", "list_", is_flag=True, help="Show the chosen scenarios with their tags, and run nothing.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only scenarios with this tag; may be repeated.")
@click.option(
    "--repeat",
    type=click.IntRange(1, ROUNDS_MAX),
    default=1,
    metavar="N",
    help="Run all chosen scenarios so many times, on the same lab.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End the run when it takes longer, the lab's coming up included.",
)
@click.option("--fail-fast", is_flag=True, help="Skip every step after the first that does not hold.")
@click.option("--stop-on-failure", is_flag=True, hidden=True, help="The former name of --fail-fast.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="What is printed: tables for people, or the JSON report (progress goes to standard error then).",
)
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write a JUnit report for CI; `-` prints it."
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write one self-contained HTML page; `-` prints it."
)
@click.option(
    "--json", "json_", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON report; `-` prints it."
)
@click.option(
    "--pcap", type=click.Path(path_type=Path), metavar="DIR", help="Write what `wire` steps capture, a file an uplink."
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write all of it into this folder, and logs, captures, states: for CI to keep, whatever happens.",
)
@click.option("--force", is_flag=True, help="Let reports replace files that are no earlier reports of weavelab.")
@click.option(
    "--seed",
    type=click.IntRange(0, CHAOS_SEED_MAX),
    metavar="N",
    help="Draw the faults of `chaos` steps from this seed, instead of the one in the file.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, CHAOS_SECONDS_MAX),
    metavar="N",
    help=f"Let `chaos` steps last so long, up to {CHAOS_SECONDS_MAX}.",
)
def run_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    words: tuple[str, ...],
    topology: Path | None,
    name: str | None,
    lab: str | None,
    kubelet: KubeletKind | None,
    keep: bool,  # noqa: FBT001 - click passes by name
    list_: bool,  # noqa: FBT001
    tags: tuple[str, ...],
    repeat: int,
    timeout_s: float | None,
    fail_fast: bool,  # noqa: FBT001
    stop_on_failure: bool,  # noqa: FBT001
    output: str,
    junit: Path | None,
    html: Path | None,
    json_: Path | None,
    pcap: Path | None,
    artifacts: Path | None,
    force: bool,  # noqa: FBT001
    seed: int | None,
    seconds: int | None,
) -> int:
    """Run the scenarios of a topology, all of them or the ones named, and report.

    A word with a slash, ending in .yaml or .yml, or `-` is the topology file; every other word is a scenario's name or
    a pattern of names. Without --lab a lab is brought up first and taken down at the end, also after a failure or
    Ctrl-C.
    """
    file, scenarios = split_words(words)
    topology = one_file(file, topology)
    if lab is not None and (topology is not None or name is not None or kubelet is not None):
        raise click.UsageError(
            "--lab runs on a lab that is up already: give either --lab or a topology file (and --name, --kubelet)"
        )
    from testbed.cli.publishing import refusals_told  # noqa: PLC0415
    from testbed.cli.reports import Reports  # noqa: PLC0415 - `--help` must not wait for the lab's imports
    from testbed.cli.session import Options, list_scenarios, run_session  # noqa: PLC0415
    from testbed.machine.privileges import CHANGE, check_machine  # noqa: PLC0415

    if not list_:
        check_machine(CHANGE)
    options = Options(
        scenarios=scenarios,
        tags=tags,
        repeat=repeat,
        timeout_s=timeout_s,
        topology=topology,
        name=name,
        lab=lab,
        kubelet=kubelet,
        keep=keep,
        fail_fast=fail_fast or stop_on_failure,
        json_output=output == "json",
        reports=Reports(junit=junit, html=html, json=json_, pcap=pcap, artifacts=artifacts, force=force),
        seed=seed,
        seconds=seconds,
    )
    with refusals_told(), options.reports.claimed():
        return list_scenarios(options) if list_ else run_session(options)
