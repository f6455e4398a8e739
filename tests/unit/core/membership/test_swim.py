"""An agent that has too little processor itself gives others more time."""

import random
from ipaddress import IPv4Address

from plugin.core.membership.members import Members
from plugin.core.membership.swim import (
    ANSWER_S,
    PROBE_S,
    STRAIN_MAX,
    STRAIN_S,
    VERDICT_S,
    AskHelper,
    Detector,
    PingPeer,
    Unheard,
)
from plugin.core.messages.values import Member


def member(number: int) -> Member:
    return Member(f"node{number}", f"{number:016x}", IPv4Address(f"192.168.56.{number}"), 1)


def detector() -> Detector:
    members = Members(member(1))
    members.merge([member(number) for number in (2, 3)])
    return Detector(members, random.Random(1))


def kinds(one: Detector, until_s: float, *, late_s: float = 0.0) -> list[tuple[type, float]]:
    """What it concludes up to then, with the time, when every timer fires `late_s` late."""
    found = []
    while (now_s := one.next_timer_s() + late_s + 1e-6) <= until_s:  # a little late, as timers are
        found += [(type(verdict), now_s) for verdict in one.on_timer(now_s=now_s, late_s=late_s)]
    return found


def test_who_does_not_answer_in_time_is_asked_for_and_then_unheard() -> None:
    one = detector()
    found = kinds(one, 4.0)
    ping_s = next(at_s for kind, at_s in found if kind is PingPeer)
    asked_s = next(at_s for kind, at_s in found if kind is AskHelper)
    unheard_s = next(at_s for kind, at_s in found if kind is Unheard)
    assert (round(asked_s - ping_s, 3), round(unheard_s - ping_s, 3)) == (ANSWER_S, VERDICT_S)
    assert one.patience == 1


def test_an_agent_whose_timers_are_late_waits_longer_before_it_concludes_anything() -> None:
    strained, calm = detector(), detector()
    late = [kind for kind, _ in kinds(strained, 30.0, late_s=STRAIN_S)]
    in_time = [kind for kind, _ in kinds(calm, 30.0)]
    assert strained.patience == 1 + STRAIN_MAX
    assert late.count(Unheard) < in_time.count(Unheard) / 3


def test_patience_ends_a_while_after_the_strain() -> None:
    one = detector()
    kinds(one, 30.0, late_s=STRAIN_S)
    kinds(one, 31.0 + PROBE_S * (STRAIN_MAX + 2))
    assert one.patience == 1
