"""`iperf` steps: one transfer, and the same one over the underlay, measured in the same run."""

from typing import Final

from testbed.probes.iperf import (
    PORT_FIRST,
    IperfResult,
    Measured,
    Transfer,
    client_argv,
    describe_iperf,
    format_rate,
    measure,
)
from testbed.scenario.attempt import Attempt, Run
from testbed.scenario.members import Member, concerned, exec_hint, member, space_of
from testbed.scenario.results import IperfEvidence
from testbed.topology.steps import Iperf, Step

SLACK_S: Final = 8.0
"""What two transfers may take beside their seconds."""


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence."""
    iperf = _action(step)
    member(run.lab, iperf.from_)
    member(run.lab, iperf.to)
    text = f"{iperf.from_} → {iperf.to}: {iperf.protocol.upper()} for {iperf.seconds} s"
    if iperf.streams > 1:
        text += f" in {iperf.streams} streams"
    if iperf.rate_mbit is not None:
        text += f" at {format_rate(iperf.rate_mbit)}"
    limits = []
    if iperf.min_mbit is not None:
        limits.append(f"at least {format_rate(iperf.min_mbit)}")
    if iperf.max_mbit is not None:
        limits.append(f"at most {format_rate(iperf.max_mbit)}")
    if iperf.min_ratio is not None:
        limits.append(f"at least {iperf.min_ratio:g} of the underlay")
    if iperf.max_loss is not None:
        limits.append(f"at most {iperf.max_loss:g} % lost")
    return f"{text}, {', '.join(limits)}" if limits else f"{text}, something arrives"


def extra_seconds(step: Step) -> float:
    """What the step's deadline grows by: the seconds it measures, here and over the underlay."""
    return 2 * _action(step).seconds + SLACK_S


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:
    """Measure, compare, judge. A second attempt measures the underlay again: the machine may be busier now."""
    iperf = _action(step)
    source, target = member(run.lab, iperf.from_), member(run.lab, iperf.to)
    transfer = Transfer(
        protocol=iperf.protocol, seconds=iperf.seconds, streams=iperf.streams, rate_mbit=iperf.rate_mbit
    )
    base_ends = base_nodes(run, source, target)
    base = _base(run, base_ends, transfer, deadline_s, again=previous is not None)
    measured = measure(
        run.processes,
        space_of(run.lab, source),
        space_of(run.lab, target),
        target.address,
        transfer,
        timeout_s=deadline_s - run.clock(),
    )
    ratio = _ratio(measured.result, base)
    problem = judge(iperf, measured.result, ratio)
    evidence = IperfEvidence(
        source=source.name,
        target=target.name,
        transfer=transfer,
        result=measured.result,
        base=None if base is None else base.result,
        base_source=base_ends[0] if base_ends else "",
        base_target=base_ends[1] if base_ends else "",
        ratio=ratio,
        command=" ".join(measured.argv),
        output=measured.output,
    )
    return Attempt(
        ok=not problem,
        seen=_seen(evidence, problem),
        evidence=(evidence,),
        concerned=concerned(source, target),
        next_command=_next_command(run, source, target, transfer, measured),
        final=iperf.min_ratio is not None and base_ends is None,
    )


def _next_command(run: Run, source: Member, target: Member, transfer: Transfer, measured: Measured) -> str:
    """Nothing came through: a ping tells more. It came, but not as wanted: the same transfer by hand."""
    if measured.result.error:
        return exec_hint(run.lab, source.name, "ping", "-c", "3", target.address)
    serving = exec_hint(run.lab, target.name, "iperf3", "-s", "-1", "-D")
    asking = [word for word in client_argv(target.address, PORT_FIRST, transfer) if word != "-J"]
    return f"{serving}; {exec_hint(run.lab, source.name, *asking)}"


def base_nodes(run: Run, source: Member, target: Member) -> tuple[str, str] | None:
    """Between which nodes the underlay is measured for this pair; None when there is no such path.

    Different nodes: those two. The same node: it and the first other one, the way the packets would take if they left.
    The outside host: nothing to compare with, its traffic takes the underlay anyway.
    """
    if source.node is None or target.node is None:
        return None
    if source.node != target.node:
        return source.node, target.node
    others = [name for name in run.lab.nodes if name != source.node]
    return (source.node, others[0]) if others else None


def judge(iperf: Iperf, result: IperfResult, ratio: float | None) -> str:
    """What does not hold, as a clause; the empty string when all of it holds."""
    if result.error or result.mbit <= 0:
        return result.error or "nothing arrived"
    rate_problem = _rate_problem(iperf, result)
    if rate_problem:
        return rate_problem
    if iperf.max_loss is not None and (result.loss_percent or 0.0) > iperf.max_loss:
        return f"{result.loss_percent:.3g} % lost"
    if iperf.min_ratio is None:
        return ""
    if ratio is None:
        return "the ratio to the underlay could not be measured: no underlay path between two nodes answered"
    return f"below {iperf.min_ratio:g} of the underlay" if ratio < iperf.min_ratio else ""


def _rate_problem(iperf: Iperf, result: IperfResult) -> str:
    if iperf.min_mbit is not None and result.mbit < iperf.min_mbit:
        return f"below {format_rate(iperf.min_mbit)}"
    if iperf.max_mbit is not None and result.mbit > iperf.max_mbit:
        return f"above {format_rate(iperf.max_mbit)}"
    return ""


def _base(
    run: Run, ends: tuple[str, str] | None, transfer: Transfer, deadline_s: float, *, again: bool
) -> Measured | None:
    if ends is None:
        return None
    # Between two nodes both directions are the same path; what is sent matters.
    key = (frozenset(ends), transfer)
    if again or key not in run.bases:
        source, target = member(run.lab, ends[0]), member(run.lab, ends[1])
        run.bases[key] = measure(
            run.processes,
            space_of(run.lab, source),
            space_of(run.lab, target),
            target.address,
            transfer,
            timeout_s=deadline_s - run.clock(),
        )
    return run.bases[key]


def _ratio(result: IperfResult, base: Measured | None) -> float | None:
    if result.error or base is None or base.result.error or base.result.mbit <= 0:
        return None
    return round(result.mbit / base.result.mbit, 4)


def _seen(evidence: IperfEvidence, problem: str) -> str:
    text = describe_iperf(evidence.result)
    if evidence.ratio is not None:
        text += f", {evidence.ratio:.2f} of the underlay"
    elif evidence.base is not None and evidence.base.error:
        text += f" (underlay: {evidence.base.error})"
    return text if not problem or problem in text else f"{text}: {problem}"


def _action(step: Step) -> Iperf:
    assert step.iperf is not None
    return step.iperf
