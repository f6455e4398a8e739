"""`weavelab run`: its options and their help. What it does is in `testbed.cli.session`."""

from pathlib import Path

import click

from testbed.topology.model import KUBELET_KINDS, KubeletKind
from testbed.topology.steps import CHAOS_SECONDS_MAX, CHAOS_SEED_MAX

_EXAMPLES = """
\b
Examples:
  weavelab run                                            every scenario of topologies/two-nodes.yaml
  weavelab run cross-node --topology topologies/racks.yaml
  weavelab run --lab two-nodes same-node                  on a lab that is up already
  weavelab run --html report.html --junit junit.xml --json report.json
  weavelab run --artifacts build/artifacts                all reports, logs, captures, states
  weavelab run --keep --pcap captures                     leave the lab up; keep the packets
  weavelab run --topology topologies/chaos.yaml --seed 7 --seconds 3600

\b
Exit code: 0 all steps hold, 1 one does not, 2 wrong usage, 3 the machine lacks something, 130 interrupted.
"""


@click.command("run", epilog=_EXAMPLES, short_help="Run scenarios: bring a lab up, check it, report, take it down.")
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...")
@click.option(
    "--topology",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Bring this topology up for the run.  [default: topologies/two-nodes.yaml]",
)
@click.option("--name", metavar="LAB", help="Call the lab so, instead of by its topology's name.")
@click.option("--lab", metavar="LAB", help="Run on this lab, which is up already, and leave it up.")
@click.option("--kubelet", type=click.Choice(KUBELET_KINDS), help="Who makes pods, instead of whom the file names.")
@click.option("--keep", is_flag=True, help="Leave the lab up afterwards, to look inside.")
@click.option("--stop-on-failure", is_flag=True, help="Skip every step after the first that does not hold.")
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
    scenarios: tuple[str, ...],
    topology: Path | None,
    name: str | None,
    lab: str | None,
    kubelet: KubeletKind | None,
    keep: bool,  # noqa: FBT001 - click passes by name
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

    Without --lab a lab is brought up first and taken down at the end, also after a failure or Ctrl-C.
    """
    if lab is not None and (topology is not None or name is not None or kubelet is not None):
        raise click.UsageError(
            "--lab runs on a lab that is up already: give either --lab or --topology (and --name, --kubelet)"
        )
    from testbed.cli.publishing import refusals_told  # noqa: PLC0415
    from testbed.cli.reports import Reports  # noqa: PLC0415 - `--help` must not wait for the lab's imports
    from testbed.cli.session import Options, run_session  # noqa: PLC0415

    options = Options(
        scenarios=scenarios,
        topology=topology,
        name=name,
        lab=lab,
        kubelet=kubelet,
        keep=keep,
        stop_on_failure=stop_on_failure,
        json_output=output == "json",
        reports=Reports(junit=junit, html=html, json=json_, pcap=pcap, artifacts=artifacts, force=force),
        seed=seed,
        seconds=seconds,
    )
    with refusals_told(), options.reports.claimed():
        return run_session(options)
