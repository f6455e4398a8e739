"""`chaos` steps: random faults for a while (`testbed.faults.chaos`), then the lab has to become whole (`faults.judge`).

All of it happens in a thread of its own: a Ctrl-C reaches the main thread only, which tells the run to stop and waits
until everything is repaired.
"""

import itertools
import os
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from plugin.core.errors import CheckError
from plugin.link.netlink import Netlink
from plugin.link.netns import open_netns
from testbed.faults import cuts
from testbed.faults.chaos import Chaos
from testbed.faults.judge import Facts, judge
from testbed.faults.plan import plan_faults
from testbed.lab import status
from testbed.lab.running import Lab
from testbed.life.agents import log_tail
from testbed.machine import interrupts
from testbed.machine.space import Space
from testbed.probes import ping as probe
from testbed.probes.command import StoppedError
from testbed.scenario.attempt import Attempt, Run, in_parallel
from testbed.scenario.members import WEAVELAB, exec_hint
from testbed.scenario.results import CommandEvidence, Evidence, PingEvidence
from testbed.topology import steps
from testbed.topology.steps import Step

_PAIRS_MAX: Final = 40
"""Pairs of pods that are pinged afterwards; more are sampled."""

PROBLEMS_SHOWN_MAX: Final = 4
_LOG_LINES: Final = 15
PING_S: Final = 3.0
_CLEANED_S: Final = 5.0
"""How long agents may take to forget the pods that went at the end."""

_PAUSE_S: Final = 0.1


def extra_seconds(step: Step) -> float:
    """The deadline begins when everything is repaired."""
    return float(_action(step).seconds)


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence."""
    chaos = _action(step)
    return (
        f"after {chaos.seconds} s of {', '.join(chaos.faults)} (seed {chaos.seed}), within {step.within_s:g} s: all "
        f"{len(run.lab.nodes)} agents are ready, see each other and agree, no address is held twice, every pod answers"
    )


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:  # noqa: ARG001 - one shape for all kinds
    """Do it and judge; no second attempt, for a lab that becomes whole later than it should does not hold."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="chaos") as pool:
        try:
            with interrupts.postponed():
                outcome = pool.submit(_attempt, run, step)
            return outcome.result()
        except KeyboardInterrupt:
            run.processes.stop()  # before the pool is left, which waits until everything is repaired
            raise


def _attempt(run: Run, step: Step) -> Attempt:
    action = _action(step)
    cuts.drop_all(node.space for node in run.lab.nodes.values())  # what a killed command may have left
    base = _baseline(run, step)
    chaos = Chaos(
        run.lab,
        pods=action.pods,
        living=base.addresses,
        wait=run.processes.wait,
        stopped=lambda: run.processes.stopped,
    )
    try:
        plan = plan_faults(
            action.seed, seconds=action.seconds, nodes=list(run.lab.nodes), kinds=action.faults, pods=action.pods
        )
        try:
            chaos.run_faults(plan, seconds=action.seconds)
        finally:
            chaos.repair()
        if run.processes.stopped:
            raise StoppedError("the run was stopped")
        chaos.pods.finish()
        return _judged(run, step, chaos, base)
    finally:
        chaos.pods.close()


@dataclass(frozen=True, slots=True)
class _Baseline:
    """The lab before: addresses by name, and how many addresses each agent holds beside those of our pods."""

    addresses: dict[str, str]
    held: dict[str, int]


def _baseline(run: Run, step: Step) -> _Baseline:
    """Wait until the lab is whole.

    Raises:
        CheckError: It is not: what chaos does to it would prove nothing.
    """
    until_s = run.clock() + step.within_s
    while True:
        facts = _observe(run.lab, (), {})
        problems = judge(facts)
        if not problems:
            return _Baseline(dict(facts.addresses), {node["name"]: node["ipam"]["held"] for node in facts.lab["nodes"]})
        if run.clock() > until_s:
            raise CheckError(f"the lab is not whole before any fault: {'; '.join(problems[:PROBLEMS_SHOWN_MAX])}")
        _pause(run)


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod that lives, whoever made it."""

    name: str
    node: str
    address: str


def _observe(lab: Lab, churned: Iterable[_Pod], held: dict[str, int]) -> Facts:
    pods = [*_own_pods(lab), *churned]
    addresses = {pod.name: _address_in(lab, pod) for pod in pods}
    for name, node in lab.nodes.items():
        address = node.bridge_address
        addresses[f"the switch of {name}"] = "" if address is None else str(address)
    (observed,) = status.observe(lab.name)
    return Facts(lab=observed, addresses=addresses, given={pod.name: pod.address for pod in pods}, held=held)


def _own_pods(lab: Lab) -> list[_Pod]:
    return [_Pod(pod.name, pod.node, str(pod.address)) for pod in lab.pods.values()]


def _address_in(lab: Lab, pod: _Pod) -> str:
    """The address that the kernel has in a pod, or nothing."""
    try:
        fd = open_netns(lab.paths.pod_space(pod.name, pod.node).net)
    except OSError:
        return ""
    try:
        kernel = Netlink(fd)
    finally:
        os.close(fd)
    with kernel:
        found = [address.ip for _, address in kernel.addresses() if not address.is_loopback]
    return str(found[0]) if found else ""


def _judged(run: Run, step: Step, chaos: Chaos, base: _Baseline) -> Attempt:
    repaired_s = run.clock()
    until_s = repaired_s + step.within_s
    problems = list(_await_whole(run, chaos, base, until_s))
    whole_s = run.clock() - repaired_s
    pings = _pings(run, chaos, _action(step).seed, until_s)
    failed = [item for item in pings if not item.ok]
    problems += [f"{item.source} → {item.target}: {item.problem}" for item in failed]
    chaos.pods.delete_all()
    if not problems:
        problems += [
            f"after the last DEL {problem}"
            for problem in _await_whole(run, chaos, base, max(until_s, run.clock() + _CLEANED_S))
        ]
    problems = [*chaos.problems, *chaos.pods.problems, *problems]
    return Attempt(
        ok=not problems,
        seen=_seen(step, chaos, problems, whole_s, len(pings)),
        evidence=(_record(run, step, chaos, problems, whole_s), *(failed or pings[:3])),
        concerned=tuple(run.lab.nodes),
        next_command=exec_hint(run.lab, next(iter(run.lab.nodes)), "weave", "status", "connections"),
        final=True,
    )


def _await_whole(run: Run, chaos: Chaos, base: _Baseline, until_s: float) -> Sequence[str]:
    """Wait until nothing is wrong; what still is when the time is over."""
    while True:
        churned = [_Pod(pod.name, pod.node, pod.address) for pod in chaos.pods.living]
        held = {name: count + sum(pod.node == name for pod in churned) for name, count in base.held.items()}
        problems = judge(_observe(run.lab, churned, held))
        if not problems or run.clock() > until_s:
            return problems
        _pause(run)


def _pings(run: Run, chaos: Chaos, seed: int, until_s: float) -> list[PingEvidence]:
    """A sample of all pairs of living pods; what fails is tried again until the time is over."""
    living = [*_own_pods(run.lab), *(_Pod(pod.name, pod.node, pod.address) for pod in chaos.pods.living)]
    pairs = list(itertools.permutations(living, 2))
    if len(pairs) > _PAIRS_MAX:
        pairs = random.Random(seed).sample(pairs, _PAIRS_MAX)  # noqa: S311 - to be repeatable, not secret
    found: dict[tuple[str, str], PingEvidence] = {}
    todo = pairs
    while todo:
        for item in in_parallel(run, lambda pair: _ping(run, *pair), todo):
            found[item.source, item.target] = item
        todo = [pair for pair in pairs if not found[pair[0].name, pair[1].name].ok]
        if not todo or run.clock() > until_s:
            break
        _pause(run)
    return list(found.values())


def _ping(run: Run, source: _Pod, target: _Pod) -> PingEvidence:
    argv = probe.ping_argv(target.address, count=1)
    space: Space = run.lab.paths.pod_space(source.name, source.node)
    completed = run.processes.run(space, argv, timeout_s=PING_S)
    result = probe.parse_ping(completed.stdout, completed.stderr, requested=1)
    return PingEvidence(
        source=source.name,
        target=target.name,
        address=target.address,
        ok=result.received > 0,
        problem="" if result.received else "no answer",
        result=result,
        command=" ".join(argv),
        output=completed.stdout + completed.stderr,
    )


def _pause(run: Run) -> None:
    run.processes.wait(_PAUSE_S)
    if run.processes.stopped:
        raise StoppedError("the run was stopped")


# ---------------------------------------------------------------------------------------------------------- what to say


def _seen(step: Step, chaos: Chaos, problems: Sequence[str], whole_s: float, pairs: int) -> str:
    pods = chaos.pods
    if problems:
        more = len(problems) - PROBLEMS_SHOWN_MAX
        told = "; ".join(problems[:PROBLEMS_SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")
        return f"seed {_action(step).seed}: {told}"
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(chaos.done.items())) or "no fault"
    return (
        f"seed {_action(step).seed}: {faults}; {pods.came} pods came, {pods.went} went, {pods.refused} were refused by "
        f"disturbed nodes; whole {whole_s:.1f} s after the repair, {pairs} pairs answer"
    )


def _record(run: Run, step: Step, chaos: Chaos, problems: Sequence[str], whole_s: float) -> Evidence:
    """What was done, with times; after a failure also what the agents wrote last."""
    action = _action(step)
    lines = [f"seed {action.seed}, {action.seconds} s, {', '.join(action.faults)}, {action.pods} pods"]
    if chaos.dropped:
        lines.append(f"({chaos.dropped} earlier events are not kept)")
    lines += chaos.events
    if problems:
        lines += ["", "what does not hold:", *(f"  {problem}" for problem in problems)]
        for name, node in run.lab.nodes.items():
            lines += ["", f"the end of the agent's log on {name}:", *(f"  {one}" for one in log_tail(node, _LOG_LINES))]
    return CommandEvidence(
        on=run.lab.name,
        command=f"{WEAVELAB} run --lab {run.lab.name} --seed {action.seed} --seconds {action.seconds}",
        ok=not problems,
        problem=f"{len(problems)} things do not hold" if problems else "",
        ended=f"{sum(chaos.done.values())} faults, judged after {whole_s:.1f} s",
        stdout="\n".join(lines) + "\n",
        stderr="",
        seconds=float(action.seconds),
    )


def _action(step: Step) -> steps.Chaos:
    assert step.chaos is not None
    return step.chaos
