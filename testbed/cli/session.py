"""One `weavelab run` from its options to its exit code: lab up, scenarios, lab down, reports. Read `run_session` first.

Whatever happens on the way, three things hold: a lab that was brought up for the run is taken down again (unless it is
to be kept), the reports are written, and the exit code says what was found.
"""

import platform
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from plugin.core.errors import CheckError, MissingError, WeaveError
from testbed.cli import scenario_list
from testbed.cli.lab import check_lab_name, default_topology
from testbed.cli.publishing import Publication
from testbed.cli.reports import Reports, Written
from testbed.lab import progress
from testbed.lab.running import Lab
from testbed.lab.users import Use
from testbed.life.down import tear_down
from testbed.life.up import bring_up
from testbed.machine import interrupts
from testbed.machine.alarm import Alarm
from testbed.machine.tools import need_tools
from testbed.report.environment import environment
from testbed.report.json_report import json_report
from testbed.report.terminal import TerminalListener, make_console, print_summary
from testbed.report.view import view_of
from testbed.scenario.attempt import Run
from testbed.scenario.choice import choose_scenarios, override_chaos, rounds, tools_of
from testbed.scenario.members import WEAVELAB
from testbed.scenario.results import LabView, Phase, Problem, RunResult, ScenarioResult, Status, count_steps, worst
from testbed.scenario.runner import now_utc, run_scenarios
from testbed.topology.load import load_topology
from testbed.topology.model import KubeletKind, Topology
from testbed.topology.steps import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `weavelab run`; see `testbed.cli.run`."""

    scenarios: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    repeat: int = 1
    timeout_s: float | None = None
    topology: Path | None = None
    name: str | None = None
    lab: str | None = None
    kubelet: KubeletKind | None = None
    keep: bool = False
    fail_fast: bool = False
    json_output: bool = False
    reports: Reports = field(default_factory=Reports)
    seed: int | None = None
    seconds: int | None = None


@dataclass(slots=True)
class _Session:
    """What is known so far; the reports are made from it at any moment."""

    options: Options
    topology: Topology
    topology_file: str
    lab_name: str
    started: str = field(default_factory=now_utc)
    started_s: float = field(default_factory=time.monotonic)
    phases: list[Phase] = field(default_factory=list)
    found: list[ScenarioResult] = field(default_factory=list)
    view: LabView | None = None
    problem: WeaveError | None = None
    signal_number: int = 0
    cut_short: bool = False
    taken: bool = False
    up: bool = False
    lab: Lab | None = None
    use: Use = field(default_factory=Use)

    @property
    def stays(self) -> bool:
        """Whether this run leaves the lab alone at its end."""
        return self.options.keep or self.options.lab is not None

    @property
    def kept(self) -> bool:
        """Whether the lab is still up when the run has ended."""
        return self.up and self.stays and not self.taken


def run_session(options: Options) -> int:
    """Do it all.

    Returns:
        The exit code.

    Raises:
        InputError: Wrong usage, found before anything was done.
        MissingError: The machine lacks something, found before anything was done.
    """
    session = _prepare(options)
    options.reports.check(topology_file=session.topology_file, json_output=options.json_output)
    scenarios = choose_scenarios(session.topology, options.scenarios, options.tags)
    scenarios = override_chaos(scenarios, seed=options.seed, seconds=options.seconds)
    need_tools(tools_of(scenarios))
    printed = options.json_output or options.reports.on_standard_output
    stream = sys.stderr if printed else sys.stdout
    listener = TerminalListener(make_console(stream))
    publication = Publication(options.reports, session.topology, session.topology_file, stream=stream)
    with interrupts.raised(), Alarm(options.timeout_s) as alarm:
        try:
            _bring_up_and_run(session, scenarios, listener, publication, alarm)
        except KeyboardInterrupt as stop:
            _note_the_end(session, alarm, stop)
        except WeaveError as error:
            session.problem = error
        finally:
            # Whoever interrupted has been heard; what follows is short, and half of it would help nobody.
            with interrupts.held_off():
                alarm.stop()
                _note_a_farewell(session)
                with suppress(OSError):  # the terminal may be gone: that must not keep the lab from going down
                    listener.close()
                if session.lab is not None:
                    publication.gather(session.lab)
                _take_down(session, listener)
                result = _result(session)
                written = publication.write(result)
    code = _exit_code(session, result, written)
    publication.end(result, code, kept=session.kept)
    with publication.verbatim():
        print_summary(listener.console, result, kept=session.kept)
    troubles = publication.conclude(result)
    for line in written.told + troubles + (_how_to_go_on(session) if session.kept else []):
        listener.console.print(line, markup=False, soft_wrap=True)
    if printed:
        sys.stdout.write(json_report(result) if options.json_output else publication.printed(result))
        sys.stdout.flush()
    return code


def list_scenarios(options: Options) -> int:
    """Show the scenarios that a run with these options would run; returns the exit code.

    Raises:
        InputError: As `run_session`.
    """
    session = _prepare(options)
    chosen = choose_scenarios(session.topology, options.scenarios, options.tags)
    if options.json_output:
        text = scenario_list.as_json(session.topology, session.topology_file, chosen)
    else:
        text = scenario_list.as_text(session.topology, chosen)
    sys.stdout.write(f"{text}\n")
    return 0


def _prepare(options: Options) -> _Session:
    if options.lab is not None:
        lab = Lab.load(options.lab)
        return _Session(options=options, topology=lab.topology, topology_file="", lab_name=lab.name)
    check_lab_name(options.name)
    path = options.topology or default_topology()
    topology = load_topology(path, kubelet=options.kubelet)
    name = options.name or topology.name
    return _Session(options=options, topology=topology, topology_file=str(path), lab_name=name)


def _bring_up_and_run(
    session: _Session,
    scenarios: tuple[Scenario, ...],
    listener: TerminalListener,
    publication: Publication,
    alarm: Alarm,
) -> None:
    session.lab = lab = _lab(session, publication)
    session.up = True
    session.view = view_of(lab)
    run = Run(lab=lab, pcap_dir=session.options.reports.pcap_dir)
    for chosen in rounds(scenarios, session.options.repeat):
        run_scenarios(
            run,
            chosen,
            listener=publication.listener(listener),
            fail_fast=session.options.fail_fast,
            results=session.found,
            why_interrupted=lambda: "the time of the run was over" if alarm.rang else "interrupted",
        )
        if session.options.fail_fast and worst(one.status for one in session.found) in {Status.FAIL, Status.ERROR}:
            return


def _lab(session: _Session, publication: Publication) -> Lab:
    """The lab to run on: brought up now, or up already."""
    if session.options.lab is not None:
        lab = Lab.load(session.options.lab)
        session.use.attach(lab.paths)
        return lab
    began_s = time.monotonic()
    with progress.for_terminal() as terminal, publication.progress(terminal) as shown:
        try:
            lab = bring_up(
                session.topology,
                name=session.lab_name,
                topology_file=session.topology_file,
                progress=shown,
                owned=not session.options.keep,
                before_removal=publication.gather,
                # Who gave no name does not mind it: a lab that somebody has left up must not stand in the way.
                any_name=session.options.name is None,
                use=session.use,
            )
        finally:
            session.lab_name = session.use.lab or session.lab_name
    session.phases.append(Phase(name="bring up", seconds=round(time.monotonic() - began_s, 3)))
    return lab


def _note_the_end(session: _Session, alarm: Alarm, stop: KeyboardInterrupt) -> None:
    """Why a run ends early: its time is over, or somebody wants it."""
    session.cut_short = True
    if alarm.rang:
        session.problem = CheckError(
            f"the run was to end within {alarm.after_s:g} s (--timeout) and did not; what was left was not run",
            hint="a longer --timeout, or fewer scenarios (`--list` shows them)",
        )
    else:
        session.signal_number = interrupts.number_of(stop)


def _note_a_farewell(session: _Session) -> None:
    """The lab was taken from under the run: whatever that has caused, this is the reason."""
    farewell = session.use.farewell()
    if farewell is not None:
        session.taken, session.signal_number, session.problem = True, 0, farewell


def _take_down(session: _Session, listener: TerminalListener) -> None:
    if not session.up or session.stays:
        session.use.end()
        return
    began_s = time.monotonic()
    try:
        with ExitStack() as shown:
            with suppress(OSError, SystemExit):  # whoever read our output may be gone; the lab goes down all the same
                shown.enter_context(listener.phase(f"taking down the lab {session.lab_name}"))
            tear_down(session.lab_name)
            session.use.end()
    except WeaveError as error:
        session.problem = session.problem or error
    session.phases.append(Phase(name="take down", seconds=round(time.monotonic() - began_s, 3)))


def _result(session: _Session) -> RunResult:
    statuses = [scenario.status for scenario in session.found]
    if session.problem is not None:
        statuses.append(Status.ERROR)
    if session.cut_short:
        statuses.append(Status.SKIP)
    return RunResult(
        status=worst(statuses),
        hostname=platform.node(),
        lab=session.lab_name,
        topology=session.topology.name,
        description=session.topology.description,
        topology_file=session.topology_file,
        started=session.started,
        seconds=round(time.monotonic() - session.started_s, 3),
        interrupted=session.cut_short,
        problem=None
        if session.problem is None
        else Problem(message=session.problem.message, hint=session.problem.hint),
        counts=count_steps(session.found),
        environment=environment(),
        phases=tuple(session.phases),
        view=session.view,
        scenarios=tuple(session.found),
    )


def _how_to_go_on(session: _Session) -> list[str]:
    member = next(iter(session.topology.pods), next(iter(session.topology.nodes)))
    name = session.lab_name
    return [
        f"the lab {name} is still up",
        f"  look inside:  {WEAVELAB} exec --lab {name} {member} -- ip address",
        f"  run again:    {WEAVELAB} run --lab {name}",
        f"  take it down: {WEAVELAB} down {name}",
    ]


def _exit_code(session: _Session, result: RunResult, written: Written) -> int:
    if session.signal_number:
        return interrupts.EXIT_BASE + session.signal_number
    if session.problem is not None:
        return session.problem.exit_code
    if result.status is not Status.PASS:
        return 1
    return MissingError.exit_code if written.incomplete else 0
