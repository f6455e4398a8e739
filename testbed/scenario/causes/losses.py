"""A loss that was traced becomes a cause: who did it, where that is known, and what was seen on the way.

Who did it is known when a rule counted it, or when something on just that stretch is broken; else only the stretch is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final

from plugin.core.firewall.samples import Sample
from plugin.core.packet.vxlan import UDP_PORT
from testbed.lab.paths import UNDERLAY
from testbed.lab.running import SWITCH
from testbed.machine.space import Space
from testbed.scenario.attempt import Run
from testbed.scenario.causes import counters
from testbed.scenario.causes.filters import HOOKS, read_rules, rule_text, stopped_meanwhile, stopping, unjudged
from testbed.scenario.causes.rulesets import LEGACY, Ruleset
from testbed.scenario.causes.trace import COUNT, Loss, Trace
from testbed.scenario.causes.values import Cause, Weight
from testbed.scenario.causes.way import OVERLAY, Place

_NOUNS: Final = {"request": "requests", "reply": "replies", "question": "ARP questions", "answer": "ARP answers"}
_COUNTERS_NAMED_MAX: Final = 2
_INTERFACES: Final = frozenset({"link", "port", "uplink"})
_NEEDED: Final = {
    (True, False): ("input", "iptables", "uplink", "address"),
    (False, True): ("entries", "output", "iptables", "routes", "uplink", "node", "mtu"),
    (False, False): (
        "sysctl",
        "entries",
        "forward",
        "iptables",
        "nft",
        "default",
        "routes",
        "address",
        "guard",
        "uplink",
    ),
    (True, True): ("sysctl", "forward"),
}
"""The kinds of objects that a packet needs between two interfaces of one host, by whether it is in VXLAN at each."""


@dataclass(frozen=True, slots=True)
class Before:
    """What was read before the probes, by member."""

    rules: Mapping[str, Ruleset]
    counters: Mapping[str, Mapping[str, int]]


def explain(run: Run, found: Trace, before: Before, damage: Iterable[Cause]) -> tuple[Cause, Cause | None] | None:
    """Why the packets of one way end where they do.

    Args:
        run: The run.
        found: What was traced.
        before: Rules and counters, read before.
        damage: What is known to be wrong; one on the very stretch did it.

    Returns:
        The cause, and the damage that it speaks of, which then is no cause of its own; None when all got through.

    Raises:
        StoppedError: The run was stopped.
        OSError: A namespace went away.
    """
    loss = found.loss
    if loss is None:
        return None
    evidence = _evidence(found, loss)
    pairs = frozenset({found.way.pair.names})
    if (by_rule := _by_rule(run, found, loss, before)) is not None:
        text, look = by_rule
        return Cause(f"{text}; {evidence}", Weight.PROVED, loss.on, "rule", pairs, look), _twin(loss, damage)
    mine = [one for one in damage if found.way.pair.names in one.pairs and one.thing != "peers"]
    guilty = _at_interface(found, loss, mine)
    if guilty is None and (judged := _by_judge(run, found, loss, before)):
        text, look = f"{judged}; {evidence}", ("nft", "list", "ruleset")
        return Cause(text, Weight.PROVED, loss.on, "rule", pairs, look), _twin(loss, damage)
    guilty = guilty or _within(found, loss, mine)
    if guilty is not None:
        is_told = guilty.weight is Weight.PROVED  # by the probes of another way, which ended there, too
        text = guilty.text if is_told else f"{guilty.text}; {evidence}"
        return replace(guilty, text=text, weight=Weight.PROVED, pairs=pairs), guilty
    hints = "".join(f"; {one}" for one in (_by_counters(run, loss, before), _suspect(loss, before)) if one)
    text = f"{_stretch(found, loss)}: {evidence}{hints}"
    return Cause(text, Weight.PROVED, loss.on or _neighbour(loss), "stretch", pairs, _look(loss)), None


# --- sentences ----------------------------------------------------------------------------------------------------
def _evidence(found: Trace, loss: Loss) -> str:
    """`3 of 3 requests came to eth0 of node2 in VXLAN, none to vxlan-6784 of node2`."""
    pair, noun = found.way.pair, _NOUNS[loss.what]
    sender = pair.source.name if loss.what in {"request", "question"} else pair.target.name
    if loss.after is None:
        got = "requests" if loss.what == "reply" else "ARP questions"
        return f"{loss.of} of {loss.of} {got} came to {pair.target.name}, {loss.passed or 'no'} {noun} left it"
    if loss.before is None:
        said = f"; ping says: {'; '.join(found.said)}" if found.said else ""
        return f"{loss.passed or 'no'} probe of {sender} left it by {loss.after}{said}"
    of = COUNT if loss.what == "request" else loss.of
    left = "left" if loss.before == _first_of(found, loss) else "came to"
    wrapped = " in VXLAN" if loss.before.wrapped else ""
    return f"{loss.of} of {of} {noun} {left} {loss.before}{wrapped}, {loss.passed or 'none'} came to {loss.after}"


def _first_of(found: Trace, loss: Loss) -> Place:
    return found.places[0] if loss.what in {"request", "question"} else found.places[-1]


def _stretch(found: Trace, loss: Loss) -> str:
    """Where it ended, as the subject of a sentence that claims no more."""
    before, after, pair = loss.before, loss.after, found.way.pair
    if after is None:
        return f"{pair.target.name} does not answer"
    if before is None:
        sender = pair.source.name if loss.what in {"request", "question"} else pair.target.name
        return f"{sender} does not send what is for {_other(found, sender)} by {after.ifname}"
    if before.on == after.on == UNDERLAY:
        return f"the switch of the underlay does not pass on from its port {before.ifname} to {after.ifname}"
    if before.on != after.on:
        return f"nothing comes through the cable from {before} to {after}"
    return f"something on {before.on} between {before.ifname} and {after.ifname} drops {_victims(found, loss)}"


def _victims(found: Trace, loss: Loss) -> str:
    """What ended there: `what comes for UDP 6784 (the overlay)`."""
    before = loss.before is not None and loss.before.wrapped
    after = loss.after is not None and loss.after.wrapped
    if before and after:
        return f"UDP {UDP_PORT} (the overlay) between nodes"
    if before or after:
        return f"what {'comes for' if before else 'it sends to'} UDP {UDP_PORT} (the overlay)"
    pair = found.way.pair
    return f"what {pair.source.name} and {pair.target.name} send each other"


def _other(found: Trace, name: str) -> str:
    pair = found.way.pair
    return pair.target.name if name == pair.source.name else pair.source.name


def _neighbour(loss: Loss) -> str:
    place = loss.after or loss.before
    return "" if place is None else place.on


def _look(loss: Loss) -> tuple[str, ...]:
    """The command that shows most of the stretch."""
    if loss.on and loss.before is not None and loss.after is not None and loss.on != UNDERLAY:
        return "nft", "list", "ruleset"
    return ("ip", "-s", "link") if loss.before is not None else ("ip", "route")


# --- who did it ---------------------------------------------------------------------------------------------------
def _space(run: Run, name: str) -> Space:
    return Space(name, net=run.lab.space(name).net)


def _by_rule(run: Run, found: Trace, loss: Loss, before: Before) -> tuple[str, tuple[str, ...]] | None:
    """A rule within the member that counted as many as were lost meanwhile, and the command that lists it.

    Others may have counted other packets: where it is known which chain stops these, only its rules are meant.
    """
    if not loss.on or loss.on not in before.rules:
        return None
    rules = read_rules(run.processes, _space(run, loss.on))
    counted = {
        name: more for name, more in stopped_meanwhile(before.rules[loss.on], rules).items() if more >= loss.lost
    }
    packet, hooks = _sample(run, found, loss)
    judged = stopping(rules, packet, HOOKS[hooks])
    if judged is not None:
        base, refusal = judged
        place = (base.family, base.table, refusal.chain)
        counted = {name: more for name, more in counted.items() if (name.family, name.table, name.chain) == place}
    for name, more in counted.items():
        text = rule_text(run.processes, _space(run, loss.on), rules, name)
        if text:
            look = ("iptables-legacy-save", "-c") if name.family == LEGACY else ("nft", "list", "ruleset")
            what = _victims(found, loss)
            return (
                f"{loss.on} drops {what} by the rule `{text}` in {name.where}; the rule counted {more} meanwhile",
                look,
            )
    return None


def _at_interface(found: Trace, loss: Loss, mine: Iterable[Cause]) -> Cause | None:
    """The damage of one of the interfaces of the stretch, of the one behind, or of the switch between them."""
    at = [
        one
        for place in _around(found, loss)
        for one in mine
        if place.on == one.on and place.ifname in one.thing.split() and _is_interface(one.thing)
    ]
    return min(at, key=lambda one: one.weight, default=None)


def _is_interface(thing: str) -> bool:
    kind, _, name = thing.partition(" ")
    return not name or kind in _INTERFACES


def _within(found: Trace, loss: Loss, mine: Sequence[Cause]) -> Cause | None:
    """The damage in the member where packets end, of an object that packets need just there."""
    if loss.after is None:
        there = [one for one in mine if one.on == found.way.pair.target.name]
        # A frame for another MAC comes to the target, too, and is none of its business.
        return next(iter([*there, *(one for one in mine if one.thing == "neighbour")]), None)
    if loss.before is None:
        return next((one for one in mine if one.on == loss.after.on), None)
    if not loss.on:
        # Between two members: what is wrong in one of them may make the cable silent.
        return next((one for one in mine if one.on in {loss.after.on, loss.before.on}), None)
    kinds = _NEEDED[loss.before.wrapped, loss.after.wrapped]
    within = [one for one in mine if one.on == loss.on and one.thing.split(" ", 1)[0] in kinds]
    return min(within, key=lambda one: kinds.index(one.thing.split(" ", 1)[0]), default=None)


def _around(found: Trace, loss: Loss) -> list[Place]:
    """The interfaces at which damage ends packets just on this stretch.

    A switch gives nothing to a port whose cable leads to an interface that is down: so the one behind is asked first.
    """
    if loss.after is None:
        return []
    if loss.before is None:
        return [loss.after]
    places = list(found.way.places if loss.what in {"request", "question"} else found.way.places[::-1])
    at = places.index(loss.after)
    behind = [one for one in places[at + 1 : at + 2] if one.on != loss.after.on]
    switch = [Place(loss.on, SWITCH)] if loss.on and not (loss.before.wrapped or loss.after.wrapped) else []
    # The first interface of a node lets in only what the pod behind it may send: that one is asked last.
    sender = [places[0]] if at == 2 and places[0].on != loss.before.on else []
    return [*switch, *behind, loss.after, loss.before, *sender]


def _twin(loss: Loss, damage: Iterable[Cause]) -> Cause | None:
    """An agent's word on the firewall of the member whose rule was caught."""
    hooks = ("input", "output", "forward")
    return next((one for one in damage if one.on == loss.on and one.thing.split(" ", 1)[0] in hooks), None)


def _by_judge(run: Run, found: Trace, loss: Loss, before: Before) -> str:
    """A chain whose rules stop such a packet, where no rule counts."""
    rules = before.rules.get(loss.on)
    if rules is None:
        return ""
    packet, hooks = _sample(run, found, loss)
    stopped = stopping(rules, packet, HOOKS[hooks])
    if stopped is None:
        return ""
    base, refusal = stopped
    how = " by its policy" if refusal.by_policy else ""
    where = f"the chain {refusal.chain} of the nftables table {base.family} {base.table}"
    return f"{loss.on} {refusal.verb} {_victims(found, loss)} in {where}{how}"


def _suspect(loss: Loss, before: Before) -> str:
    """A chain that may do it: only that it is there is known."""
    base = unjudged(before.rules[loss.on]) if loss.on in before.rules else None
    if base is None:
        return ""
    return f"{loss.on} has rules that drop in the chain {base.name} of the nftables table {base.family} {base.table}"


def _sample(run: Run, found: Trace, loss: Loss) -> tuple[Sample, str]:
    """The packet that ended, as the rules of the member see it, and which hooks it passes there."""
    pair, lab = found.way.pair, run.lab
    source, target = (pair.source, pair.target) if loss.what in {"request", "question"} else (pair.target, pair.source)
    before, after = loss.before, loss.after
    iif, oif = "" if before is None else before.ifname, "" if after is None else after.ifname
    wrapped = (before is not None and before.wrapped) or (after is not None and after.wrapped)
    if wrapped and source.node is not None and target.node is not None:
        comes = before is not None and before.wrapped
        packet = Sample(
            what="", hook="", iif=iif if comes else "", oif="" if comes else oif, protocol="udp", port=UDP_PORT,
            source=lab.nodes[source.node].uplink_address, destination=lab.nodes[target.node].uplink_address,
        )  # fmt: skip
        through = before is not None and after is not None and before.wrapped and after.wrapped
        return packet, "through" if through else "in" if comes else "out"
    ends = {"source": IPv4Address(source.address), "destination": IPv4Address(target.address), "protocol": "icmp"}
    if after is None or before is None:
        return Sample(what="", hook="", iif=oif or iif, oif=oif or iif, **ends), "all"  # type: ignore[arg-type]
    is_bridged = SWITCH not in {iif, oif} and {iif, oif} & {OVERLAY}
    names = {"iif": SWITCH, "oif": SWITCH} if is_bridged else {"iif": iif, "oif": oif}
    return Sample(what="", hook="", **names, **ends), "all"  # type: ignore[arg-type]


def _by_counters(run: Run, loss: Loss, before: Before) -> str:
    """What the kernel itself counted as ended within the member meanwhile."""
    if loss.on not in before.counters:
        return ""
    known, now = before.counters[loss.on], counters.observe(_space(run, loss.on))
    names = {place.ifname for place in (loss.before, loss.after) if place is not None}
    grown = {
        name: more
        for name, count in now.items()
        if (more := count - known.get(name, 0)) > 0 and (" " not in name or name.split(" ", 1)[0] in names)
    }
    listed = sorted(grown.items(), key=lambda one: -one[1])[:_COUNTERS_NAMED_MAX]
    return ", ".join(f"its kernel counted {more} more {name}" for name, more in listed)
