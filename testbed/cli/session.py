"""One `weavelab run` from its options to its exit code: lab up, scenarios, lab down, reports. Read `run_session` first.

Whatever happens on the way, three things hold: a lab that was brought up for the run is taken down again (unless it is
to be kept), the reports are written, and the exit code says what was found.
"""

import platform
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plugin.core.errors import InputError, MissingError, WeaveError
from testbed.cli.lab import default_topology
from testbed.cli.publishing import Publication
from testbed.cli.reports import Reports, Written
from testbed.lab import progress, state
from testbed.lab.running import Lab
from testbed.life.down import tear_down
from testbed.life.up import bring_up
from testbed.machine import interrupts
from testbed.machine.tools import need_tools
from testbed.report.environment import environment
from testbed.report.json_report import json_report
from testbed.report.terminal import TerminalListener, make_console, print_summary
from testbed.report.view import view_of
from testbed.scenario.attempt import Run
from testbed.scenario.members import WEAVELAB
from testbed.scenario.results import LabView, Phase, Problem, RunResult, ScenarioResult, Status, count_steps, worst
from testbed.scenario.runner import choose_scenarios, now_utc, override_chaos, run_scenarios
from testbed.topology.load import load_topology
from testbed.topology.model import KubeletKind, Topology
from testbed.topology.steps import Scenario

TOOLS: Final = {"ping": ("ping",), "wire": ("ping",), "iperf": ("iperf3",), "chaos": ("ping", "nft")}
"""The programs that a kind of step calls; `exec` calls what the file says."""

_SIGNAL_EXIT: Final = 128
"""Plus the signal's number, as shells have it: 130 after Ctrl-C."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `weavelab run`; see `testbed.cli.run`."""

    scenarios: tuple[str, ...] = ()
    topology: Path | None = None
    name: str | None = None
    lab: str | None = None
    kubelet: KubeletKind | None = None
    keep: bool = False
    stop_on_failure: bool = False
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
    up: bool = False
    lab: Lab | None = None

    @property
    def kept(self) -> bool:
        """Whether the lab is still up when the run has ended."""
        return self.up and (self.options.keep or self.options.lab is not None)


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
    scenarios = choose_scenarios(session.topology, options.scenarios)
    scenarios = override_chaos(scenarios, seed=options.seed, seconds=options.seconds)
    need_tools(tool for scenario in scenarios for step in scenario.steps for tool in TOOLS.get(step.kind, ()))
    printed = options.json_output or options.reports.on_standard_output
    stream = sys.stderr if printed else sys.stdout
    listener = TerminalListener(make_console(stream))
    publication = Publication(options.reports, session.topology, session.topology_file, stream=stream)
    with interrupts.raised():
        try:
            _bring_up_and_run(session, scenarios, listener, publication)
        except KeyboardInterrupt as stop:
            session.signal_number = getattr(stop, "number", signal.SIGINT)
        except WeaveError as error:
            session.problem = error
        finally:
            # Whoever interrupted has been heard; what follows is short, and half of it would help nobody.
            with interrupts.held_off():
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


def _prepare(options: Options) -> _Session:
    for name in options.scenarios:
        if name.endswith((".yaml", ".yml")) or "/" in name:
            raise InputError(
                f"{name!r} is to be the name of a scenario, found a file",
                hint=f"a topology is given as --topology {name}",
            )
    if options.lab is not None:
        lab = Lab.load(options.lab)
        return _Session(options=options, topology=lab.topology, topology_file="", lab_name=lab.name)
    path = options.topology or default_topology()
    topology = load_topology(path, kubelet=options.kubelet)
    # Who gave no name does not mind it: a lab that somebody has left up must not stand in the way.
    name = options.name or state.free_lab_name(topology.name)
    return _Session(options=options, topology=topology, topology_file=str(path), lab_name=name)


def _bring_up_and_run(
    session: _Session, scenarios: tuple[Scenario, ...], listener: TerminalListener, publication: Publication
) -> None:
    if session.options.lab is None:
        began_s = time.monotonic()
        with progress.for_terminal() as terminal, publication.progress(terminal) as shown:
            if session.lab_name != (wanted := session.options.name or session.topology.name):
                shown.note(f"a lab named {wanted} is up already: the one of this run is called {session.lab_name}")
            lab = bring_up(
                session.topology,
                name=session.lab_name,
                topology_file=session.topology_file,
                progress=shown,
                owned=not session.options.keep,
                before_removal=publication.gather,
            )
        session.phases.append(Phase(name="bring up", seconds=round(time.monotonic() - began_s, 3)))
    else:
        lab = Lab.load(session.options.lab)
    session.up, session.lab = True, lab
    session.view = view_of(lab)
    run = Run(lab=lab, pcap_dir=session.options.reports.pcap_dir)
    run_scenarios(
        run,
        scenarios,
        listener=publication.listener(listener),
        stop_on_failure=session.options.stop_on_failure,
        results=session.found,
    )


def _take_down(session: _Session, listener: TerminalListener) -> None:
    if not session.up or session.kept:
        return
    began_s = time.monotonic()
    try:
        with ExitStack() as shown:
            with suppress(OSError, SystemExit):  # whoever read our output may be gone; the lab goes down all the same
                shown.enter_context(listener.phase(f"taking down the lab {session.lab_name}"))
            tear_down(session.lab_name)
    except WeaveError as error:
        session.problem = session.problem or error
    session.phases.append(Phase(name="take down", seconds=round(time.monotonic() - began_s, 3)))


def _result(session: _Session) -> RunResult:
    statuses = [scenario.status for scenario in session.found]
    if session.problem is not None:
        statuses.append(Status.ERROR)
    if session.signal_number:
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
        interrupted=bool(session.signal_number),
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
        return _SIGNAL_EXIT + session.signal_number
    if session.problem is not None:
        return session.problem.exit_code
    if result.status is not Status.PASS:
        return 1
    return MissingError.exit_code if written.incomplete else 0
