"""What the agents of the nodes concerned know: what is wrong there, what they mended meanwhile, whom they do not see.

An agent's word on its own node is known; that two agents do not see each other only fits a failure between their nodes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from testbed.lab import state as states
from testbed.lab.agent_api import AgentError, get
from testbed.lab.running import Lab
from testbed.machine import interrupts, processes
from testbed.machine.processes import ProcessId
from testbed.scenario.causes.values import Cause, Pair, Scene, Weight
from testbed.scenario.causes.way import Way

_ASK_S: Final = 0.7
_AT_ONCE_MAX: Final = 8
_PARTNERS_NAMED_MAX: Final = 3

_OF_OVERLAY: Final = frozenset({"link", "address", "entries", "uplink", "routes", "node", "mtu", "input", "output"})
_OF_ROUTED: Final = frozenset(
    {"link", "address", "uplink", "routes", "default", "nft", "sysctl", "forward", "iptables"}
)
_OF_SWITCH: Final = frozenset({"link", "address", "sysctl", "forward", "iptables"})
_GROUPS: Final = {"overlay": _OF_OVERLAY, "routed": _OF_ROUTED, "switch": _OF_SWITCH}
"""The kinds of objects (the first word of an object's name) without which packets of a way of this kind end."""

_SELF_TOLD: Final = frozenset({"input", "output", "forward", "uplink", "default", "routes", "node", "mtu"})
"""Objects whose cause names them: `the uplink eth0 is down`."""


_ALSO: Final = "also wrong there: "
"""How a sentence begins that is true, and perhaps has nothing to do with the failure."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent of one node said.

    Attributes:
        status: Its `/status`; empty when it said nothing.
        silent: Why it said nothing, as a clause.
    """

    status: Mapping[str, Any] = field(default_factory=dict[str, Any])
    silent: str = ""


def ask(lab: Lab, nodes: Iterable[str]) -> dict[str, Answer]:
    """Ask the agents of these nodes, at the same time."""
    names = list(nodes)
    if not names:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(names), _AT_ONCE_MAX), thread_name_prefix="ask") as pool:
        with interrupts.postponed():
            answers = pool.map(lambda name: _ask_one(lab, name), names)
        return dict(zip(names, answers, strict=True))


def _ask_one(lab: Lab, name: str) -> Answer:
    try:
        _code, said = get(lab.nodes[name].api_socket, "/status", timeout_s=_ASK_S)
    except AgentError as error:
        return Answer(silent=_silence(lab, name) or f"does not answer ({error})")
    return Answer(said) if isinstance(said, dict) else Answer(silent=f"answers {said!r:.60}")


def _silence(lab: Lab, name: str) -> str:
    """Why an agent does not answer, when its process tells."""
    now = states.read(lab.paths) or lab.state  # an agent may have been started anew since the run began
    record = next((one for one in now.processes if (one.role, one.member) == ("agent", name)), None)
    if record is None or not processes.is_alive(ProcessId(record.pid, record.start_ticks)):
        return "does not run: nobody answers, and the process that the lab started has ended"
    try:
        state = (
            Path(f"/proc/{record.pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return "does not run: it has ended just now"
    return f"is stopped (process {record.pid} is in state T; kill -CONT {record.pid})" if state[:1] == ["T"] else ""


def silent(scene: Scene, answers: Mapping[str, Answer]) -> Iterator[Cause]:
    """Agents that do not run or do not answer. What they wrote into the kernel stays, so packets may pass."""
    is_asked = scene.step.kind in {"healthy", "pod"}
    for name, answer in answers.items():
        if answer.silent:
            weight = Weight.KNOWN if is_asked else Weight.BESIDE
            text = f"{'' if is_asked else _ALSO}{name}'s agent {answer.silent}"
            yield Cause(text, weight, name, "agent", _of_node(scene, name), ("weave", "status"))
        elif not answer.status.get("ready"):
            text = f"{name}'s agent is not ready yet"
            yield Cause(text, Weight.LIKELY, name, "agent", _of_node(scene, name), ("weave", "status"))


def problems(scene: Scene, answers: Mapping[str, Answer], ways: Iterable[Way]) -> Iterator[Cause]:
    """What an agent says is wrong on its node."""
    known = list(ways)
    for name, answer in answers.items():
        for one in answer.status.get("problems", []):
            thing, cause = str(one["object"]), str(one["cause"])
            explained = frozenset(way.pair.names for way in known if _is_on(scene.lab, thing, name, way))
            if not explained and _is_of_other_pod(scene, thing):
                continue
            follows = "no carrier" in cause  # from what is at the other end of its cable
            asked = scene.step.kind in {"healthy", "chaos", "pod"} or not scene.is_examined
            weight = Weight.BESIDE if not (explained or asked) else Weight.LIKELY if follows else Weight.KNOWN
            yield _problem(scene, name, thing, cause, weight, explained)


def _problem(
    scene: Scene, node: str, thing: str, cause: str, weight: Weight, pairs: frozenset[tuple[str, str]]
) -> Cause:
    """An agent's word, as a cause; what it says of a pod is about the pod."""
    kind, _, name = thing.partition(" ")
    pod = scene.lab.pods.get(name.rpartition("/")[2]) if kind == "pod" else None
    if pod is not None:
        look = ("ip", "-d", "address")
        return Cause(f"{pod.name}: {cause}", weight, pod.name, pod.ifname, pairs, look, said=f"{node}'s agent: {cause}")
    text = f"{node}: {cause}" if kind in _SELF_TOLD else f"{node}: {thing}: {cause}"
    text = f"{_ALSO}{text}" if weight is Weight.BESIDE else text
    if kind == "uplink":
        thing = f"uplink {scene.lab.nodes[node].uplink_ifname}"
    return Cause(text, weight, node, thing, pairs, _look(kind, name), said=f"{node}'s agent: {cause}")


def _look(kind: str, name: str) -> tuple[str, ...]:
    """The command that shows an object."""
    if kind in {"input", "output", "forward", "nft", "iptables"}:
        return "nft", "list", "ruleset"
    looks = {
        "link": ("ip", "-d", "link", "show", name),
        "port": ("ip", "-d", "link", "show", name),
        "entries": ("bridge", "fdb", "show", "dev", name),
        "sysctl": ("sysctl", name),
        "address": ("ip", "address", "show", name),
        "limit": ("tc", "-s", "qdisc", "show", "dev", name),
        "uplink": ("ip", "address"),
        "node": ("ip", "address"),
        "routes": ("ip", "route"),
        "default": ("ip", "route"),
    }
    return looks.get(kind, ("weave", "status"))


def _is_on(lab: Lab, thing: str, node: str, way: Way) -> bool:
    """Whether packets of a way pass that object of that node."""
    ends = (way.pair.source, way.pair.target)
    if node not in {place.on for place in way.places}:
        return False
    kind, _, name = thing.partition(" ")
    mine = [end.name for end in ends if end.kind == "pod" and end.node == node]
    if kind in {"port", "limit"}:
        return name in {lab.pods[pod].host_ifname for pod in mine}
    if kind in {"pod", "guard"}:
        return name.rpartition("/")[2] in mine
    return kind in _GROUPS[way.kind]


def _is_of_other_pod(scene: Scene, thing: str) -> bool:
    kind, _, name = thing.partition(" ")
    ports = {scene.lab.pods[one.name].host_ifname for one in scene.members if one.kind == "pod"}
    names = {one.name for one in scene.members}
    if kind in {"port", "limit"}:
        return name not in ports
    return kind == "pod" and name.rpartition("/")[2] not in names


def repairs(scene: Scene, answers: Mapping[str, Answer]) -> Iterator[Cause]:
    """What somebody broke while the step ran, and an agent mended; not what a `chaos` step broke itself."""
    if scene.step.kind == "chaos":
        return
    for name, answer in answers.items():
        for one in answer.status.get("repairs", []):
            thing = str(one["object"])
            last = datetime.fromisoformat(one["last"])
            if last.timestamp() < int(scene.began_s) or _is_of_other_pod(scene, thing):
                continue
            text = (
                f"about the time of the step somebody broke {thing} of {name} ({one['was']}); "
                f"its agent mended it at {last:%H:%M:%S}, {one['count']}x so far"
            )
            weight = Weight.LIKELY if scene.pairs else Weight.BESIDE
            text = f"likely: {text}" if scene.pairs else text
            yield Cause(text, weight, name, thing, _of_node(scene, name), ("weave", "status"))


def pairs_in_trouble(scene: Scene, answers: Mapping[str, Answer]) -> Iterator[Cause]:
    """Agents that do not see each other: one cause for all that a node has to do with."""
    troubles: list[tuple[str, str, str, str]] = []
    for name, answer in answers.items():
        peers = {peer["name"]: peer for peer in answer.status.get("peers", [])}
        for other in answers:
            peer = peers.get(other)
            if other != name and (peer is None or peer["state"] != "established"):
                state, reason = ("not known", "") if peer is None else (peer["state"], peer["reason"])
                troubles.append((name, other, state, reason))
    while troubles:
        node = Counter(end for one in troubles for end in sorted(one[:2])).most_common(1)[0][0]
        mine = [one for one in troubles if node in one[:2]]
        troubles = [one for one in troubles if one not in mine]
        yield _trouble_of(scene, node, mine)


def _trouble_of(scene: Scene, node: str, troubles: list[tuple[str, str, str, str]]) -> Cause:
    seen_by = [one for one in troubles if one[1] == node]
    sees = [one for one in troubles if one[0] == node]
    parts = []
    if seen_by:
        names = _some([one[0] for one in seen_by])
        parts.append(f"{names} see{'s' if len(seen_by) == 1 else ''} {node} as {_state(seen_by)}")
    if sees:
        parts.append(f"{node} sees {_some([one[1] for one in sees])} as {_state(sees)}")
    others = {end for one in troubles for end in one[:2]} - {node}

    def is_between(pair: Pair) -> bool:
        return (pair.source.node == node and pair.target.node in others) or (
            pair.target.node == node and pair.source.node in others
        )

    text = f"the agents say: {'; '.join(parts)}"
    weight = Weight.KNOWN if scene.step.kind == "healthy" else Weight.LIKELY
    return Cause(text, weight, node, "peers", scene.which(is_between), ("weave", "status", "connections"))


def _state(troubles: list[tuple[str, str, str, str]]) -> str:
    reasons = Counter(reason for *_, reason in troubles if reason)
    reason = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
    return f"{troubles[0][2]}{reason}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _PARTNERS_NAMED_MAX} more" if len(names) > _PARTNERS_NAMED_MAX else ""
    return ", ".join(names[:_PARTNERS_NAMED_MAX]) + more


def _of_node(scene: Scene, node: str) -> frozenset[tuple[str, str]]:
    return scene.which(lambda pair: node in {pair.source.node, pair.target.node})
