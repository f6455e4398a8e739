"""`ping` steps: every pair at once (with a bound), only the pairs that failed again."""

from collections.abc import Sequence
from typing import Final

import msgspec

from testbed.probes import ping as probe
from testbed.probes.capture import capture
from testbed.scenario.attempt import Attempt, Run, in_parallel
from testbed.scenario.members import Member, concerned, exec_hint, ping_pairs, space_of
from testbed.scenario.results import Evidence, PingEvidence
from testbed.scenario.steps.source import Pair, judge_sources, marker_for, taps_at
from testbed.topology.steps import Ping, Step

_OUTPUTS_KEPT_MAX: Final = 12
"""Pairs that hold keep their output up to here: all pairs of 100 pods would make a report of megabytes."""

_PAIRS_NAMED_MAX: Final = 3


def expectation(run: Run, step: Step) -> str:
    """What the step expects, as a sentence."""
    ping = step.ping
    assert ping is not None
    pairs = ping_pairs(run.lab, ping)
    who = (
        f"{pairs[0][0].name} → {_target_words(ping, pairs[0][1])}" if len(pairs) == 1 else f"each of {len(pairs)} pairs"
    )
    size = f" of {ping.size} bytes" if ping.size != 56 or ping.df else ""
    text = f"{who}: {ping.count} ping{'s' if ping.count > 1 else ''}{size}{' unfragmented' if ping.df else ''}, "
    text += "all answered" if ping.loss == 0 else f"at most {ping.loss:g} % lost"
    if ping.max_rtt_ms is not None:
        text += f", at most {ping.max_rtt_ms:g} ms on average"
    if ping.expect_source:
        text += ", arriving from the sender's own address"
    return text


def attempt(run: Run, step: Step, deadline_s: float, previous: Attempt | None) -> Attempt:
    """Ping every pair (after a first attempt: those that failed) and judge."""
    ping = step.ping
    assert ping is not None
    pairs = ping_pairs(run.lab, ping)
    held: dict[tuple[str, str], PingEvidence] = {}
    if previous is not None:
        held = {
            (item.source, item.address): item
            for item in previous.evidence
            if isinstance(item, PingEvidence) and item.ok
        }
    todo = [pair for pair in pairs if (pair[0].name, pair[1].address) not in held]

    for item in (_ping_and_watch if ping.expect_source else _ping)(run, step, todo, deadline_s):
        held[item.source, item.address] = item
    evidence = [held[source.name, target.address] for source, target in pairs]
    failed = [pair for pair, item in zip(pairs, evidence, strict=True) if not item.ok]
    return Attempt(
        ok=not failed,
        seen=_seen(evidence),
        evidence=_bounded(evidence),
        concerned=concerned(*(end for pair in failed for end in pair)),
        next_command=exec_hint(run.lab, failed[0][0].name, "ping", "-c", "3", failed[0][1].address) if failed else "",
    )


def _ping(
    run: Run, step: Step, pairs: list[Pair], deadline_s: float, markers: Sequence[bytes] = ()
) -> list[PingEvidence]:
    def one(job: tuple[Pair, bytes]) -> PingEvidence:
        (source, target), marker = job
        return ping_pair(run, source, target, step, deadline_s, marker)

    return in_parallel(run, one, zip(pairs, markers or [b""] * len(pairs), strict=True))


def _ping_and_watch(run: Run, step: Step, pairs: list[Pair], deadline_s: float) -> list[PingEvidence]:
    markers = [marker_for(run, step, pair) for pair in pairs]
    with capture(taps_at(run, [target for _, target in pairs])) as session:
        pinged = _ping(run, step, pairs, deadline_s, markers)
        session.drain(within_s=0.2)
    return judge_sources(pinged, pairs, markers, session)


def ping_pair(
    run: Run, source: Member, target: Member, step: Step, deadline_s: float, pattern: bytes = b""
) -> PingEvidence:
    """One ping of one pair, judged."""
    ping = step.ping
    assert ping is not None
    argv = probe.ping_argv(
        target.address,
        count=ping.count,
        size=ping.size,
        df=ping.df,
        pattern=pattern,
        interval_s=probe.interval_within(ping.count, within_s=step.within_s),
    )
    completed = run.processes.run(space_of(run.lab, source), argv, timeout_s=deadline_s - run.clock())
    result = probe.parse_ping(completed.stdout, completed.stderr, requested=ping.count)
    problem = judge(result, ping)
    return PingEvidence(
        source=source.name,
        target=target.name,
        address=target.address,
        ok=not problem,
        problem=problem,
        result=result,
        command=" ".join(argv),
        output=completed.stdout + completed.stderr,
    )


def judge(result: probe.PingResult, ping: Ping) -> str:
    """What does not hold, as a clause; the empty string when all of it holds."""
    if result.loss_percent > ping.loss or result.sent == 0:
        return f"{result.loss_percent:g} % lost" + (f" ({'; '.join(result.errors)})" if result.errors else "")
    if result.sent < ping.count:
        return f"only {result.sent} of {ping.count} requests left before the deadline"
    if any(error.startswith("wrong data byte") for error in result.errors):
        return "answers came back with other bytes than were sent"
    if ping.max_rtt_ms is not None and result.rtt is not None and result.rtt.avg_ms > ping.max_rtt_ms:
        return f"slower than {ping.max_rtt_ms:g} ms"
    return ""


def _seen(evidence: list[PingEvidence]) -> str:
    if len(evidence) == 1:
        only = evidence[0]
        text = probe.describe_ping(only.result)
        if only.arrived_from and only.ok:
            return f"{text}, arriving from {only.arrived_from[0]}"
        return text if only.ok or only.result.received == 0 else f"{text}; {only.problem}"
    failed = [item for item in evidence if not item.ok]
    if not failed:
        slowest = max((item.result.rtt.avg_ms for item in evidence if item.result.rtt), default=None)
        return f"all {len(evidence)} pairs answer" + (
            "" if slowest is None else f", the slowest in {probe.format_ms(slowest)}"
        )
    named = "; ".join(f"{item.source} → {item.target}: {item.problem}" for item in failed[:_PAIRS_NAMED_MAX])
    more = f"; and {len(failed) - _PAIRS_NAMED_MAX} more" if len(failed) > _PAIRS_NAMED_MAX else ""
    return f"{len(failed)} of {len(evidence)} pairs fail: {named}{more}"


def _bounded(evidence: list[PingEvidence]) -> tuple[Evidence, ...]:
    kept = 0
    bounded: list[Evidence] = []
    for item in evidence:
        keep = not item.ok or kept < _OUTPUTS_KEPT_MAX
        kept += item.ok
        bounded.append(item if keep else msgspec.structs.replace(item, output=""))
    return tuple(bounded)


def _target_words(ping: Ping, target: Member) -> str:
    return f"{target.name}'s switch" if ping.to == "own-node" else target.name
