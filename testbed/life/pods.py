"""A pod more or a pod less in a running lab: `add`, `delete` and `recreate`, through the kubelet of its node.

Whoever changes the set of pods of a running lab does it here, under the lab's lock. The state file names a pod before
anything of it is made, and until nothing of it is left: `down` finds whatever a killed command leaves, and so does the
next command here, which clears it away first. The lab's topology changes along, so steps, groups of pods and the prompt
see the pods that there are.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from plugin.core.errors import CheckError, InputError, WeaveError
from testbed.kubelet.choice import kubelet_of
from testbed.kubelet.kubelet import PodWanted, wanted
from testbed.lab import state
from testbed.lab.agent_api import AgentError
from testbed.lab.cni_call import CniCall
from testbed.lab.paths import LabPaths
from testbed.lab.running import Lab, LabPod
from testbed.life import agent_control
from testbed.life.down import LOCK_WAIT_S
from testbed.machine import interrupts
from testbed.nearest import hint
from testbed.topology.model import PodSpec
from testbed.topology.names import NAME_PATTERN
from testbed.topology.network_rules import RULES

_TOLD_S: Final = 10.0
"""How long agents may take to hear of a pod: it is a message between them."""

_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change has led to.

    Attributes:
        lab: The lab as it is now.
        pod: The pod that was made or deleted; None when only remains of it were cleared away.
        calls: Every CNI plugin that we executed; empty when a real runtime did.
    """

    lab: Lab
    pod: LabPod | None
    calls: tuple[CniCall, ...]


def add(lab: Lab, pod: str, node: str) -> Changed:
    """Make a pod on a node and attach it.

    Raises:
        InputError: The name is none, is taken, or there is no such node.
        CheckError: The ADD failed (nothing of the pod is left), or another command is changing the lab.
        OSError: A namespace could not be made.
    """
    with _changing(lab) as before:
        topology = msgspec.structs.replace(before.topology, pods={**before.topology.pods, pod: PodSpec(node=node)})
        _check_new(before, pod, node)
        kubelet = kubelet_of(lab.paths, topology, node)
        record: state.PodRecord | None = None
        try:
            begun = _begin(before, {pod: node}, names=(lab.paths.netns_name(pod).name,))
            record = kubelet.run(wanted(topology, pod, attempt=time.time_ns()))
            pods = {**begun.pods, pod: record}
            after = _write(msgspec.structs.replace(begun, pods_unfinished={}, topology=topology, pods=pods))
        except BaseException as error:
            with interrupts.held_off():
                # A kubelet that failed has undone what it did; one that was interrupted may not have begun to know.
                if record is not None or not isinstance(error, WeaveError | OSError):
                    kubelet.drop(pod)
                _write(before)
            raise
    return Changed(after, after.pods[pod], after.pods[pod].cni_calls)


def delete(lab: Lab, pod: str) -> Changed:
    """Detach a pod and remove it; of one that a killed command left half made, whatever there is.

    Raises:
        InputError: There is no such pod.
        CheckError: The DEL failed (the pod stays), or another command is changing the lab.
        OSError: Its node cannot be entered.
    """
    with _changing(lab) as before:
        if pod not in before.pods:
            if pod in lab.state.pods_unfinished:
                return Changed(Lab.of(before), None, ())
            raise InputError(
                f"lab {lab.name} has no pod named {pod}", hint=hint(pod, before.pods, there_is="its pods:")
            )
        gone = Lab.of(before).pods[pod]
        begun = _begin(before, {pod: gone.node})
        try:
            calls = kubelet_of(lab.paths, before.topology, gone.node).remove(pod, gone.container_id)
        except WeaveError:
            _write(before)
            raise
        after = _write(_without(begun, pod))
    return Changed(after, gone, calls)


def recreate(lab: Lab, pod: str) -> Changed:
    """Delete a pod and make one of that name anew, as the topology has it.

    Raises:
        CheckError: There is no such pod any more, DEL or ADD failed, or another command is changing the lab.
        OSError: Its node cannot be entered, or a namespace could not be made.
    """
    with _changing(lab) as before:
        if pod not in before.pods:
            raise CheckError(f"lab {lab.name} has no pod {pod} any more")
        old = before.pods[pod]
        begun = _begin(before, {pod: old.node})
        kubelet = kubelet_of(lab.paths, before.topology, old.node)
        calls = kubelet.remove(pod, old.container_id)
        spec = before.topology.pods[pod]
        new = kubelet.run(PodWanted(pod, spec, attempt=time.time_ns()))
        pods = {name: new if name == pod else record for name, record in before.pods.items()}
        after = _write(msgspec.structs.replace(begun, pods_unfinished={}, pods=pods))
    return Changed(after, after.pods[pod], (*calls, *after.pods[pod].cni_calls))


def await_told(lab: Lab, pod: LabPod, *, there: bool, deadline_s: float = _TOLD_S) -> tuple[str, ...]:
    """Wait until every agent knows a pod's address and MAC, or (`there` false) knows them no more.

    Returns:
        The nodes on which no agent runs: theirs will hear of it when it is started.

    Raises:
        CheckError: After the deadline an agent that runs has not heard of it.
    """
    silent = []
    until_s = time.monotonic() + deadline_s
    for name, node in lab.nodes.items():
        while True:
            try:
                known = node.api_get("/endpoints")
            except AgentError:
                if agent_control.find(lab, name) is None:
                    silent.append(name)
                    break
                known = None
            if known is not None and _knows(known, pod) == there:
                break
            if time.monotonic() > until_s:
                raise CheckError(
                    f"after {deadline_s:.0f} s the agent of {name} "
                    + ("does not know" if there else "still knows")
                    + f" that {pod.name} has {pod.address}",
                    hint=f"weavelab status {lab.name} says which agents do not see each other, and why",
                )
            time.sleep(_PAUSE_S)
    return tuple(silent)


def _knows(endpoints: object, pod: LabPod) -> bool:
    return isinstance(endpoints, list) and any(
        isinstance(one, Mapping) and (one.get("address"), one.get("mac")) == (str(pod.address), pod.mac)
        for one in endpoints
    )


# ---- the state file


@contextmanager
def _changing(lab: Lab) -> Iterator[state.LabState]:
    """The lab's state, under its lock, once what killed commands left of pods is cleared away."""
    with state.locked(lab.paths, wait_s=LOCK_WAIT_S), interrupts.raised():
        found = state.read(lab.paths)
        if found is None or found.phase == "removing":
            raise CheckError(f"lab {lab.name} went away")
        yield _clear(lab.paths, found)


def _clear(paths: LabPaths, found: state.LabState) -> state.LabState:
    """Remove what is left of pods whose command did not come to its end: we hold the lock, so it ended."""
    for pod, node in found.pods_unfinished.items():
        kubelet = kubelet_of(paths, found.topology, node)
        if pod in found.pods:
            kubelet.remove(pod, found.pods[pod].container_id)
        kubelet.drop(pod)
        found = _without(found, pod)
        _write(found)
    return found


def _begin(before: state.LabState, pods: Mapping[str, str], *, names: tuple[str, ...] = ()) -> state.LabState:
    """Write down what is about to be made or removed."""
    begun = msgspec.structs.replace(
        before,
        command_pid=os.getpid(),
        pods_unfinished=dict(pods),
        netns_names=tuple(dict.fromkeys((*before.netns_names, *names))),
    )
    state.write(LabPaths(before.name), begun)
    return begun


def _without(found: state.LabState, pod: str) -> state.LabState:
    name = LabPaths(found.name).netns_name(pod).name
    return msgspec.structs.replace(
        found,
        pods_unfinished={other: node for other, node in found.pods_unfinished.items() if other != pod},
        pods={other: record for other, record in found.pods.items() if other != pod},
        topology=msgspec.structs.replace(
            found.topology, pods={other: spec for other, spec in found.topology.pods.items() if other != pod}
        ),
        netns_names=tuple(other for other in found.netns_names if other != name),
    )


def _write(found: state.LabState) -> Lab:
    """Write down which pods there are now: the one place where the set of pods of a running lab changes."""
    state.write(LabPaths(found.name), found)
    return Lab.of(found)


def _check_new(found: state.LabState, pod: str, node: str) -> None:
    """See that a pod of that name can be made on that node: what is refused in a topology file is refused here.

    Raises:
        InputError: It cannot.
    """
    if not re.fullmatch(NAME_PATTERN, pod):
        raise InputError(
            f"wanted a name for the pod, found {pod!r}", hint="1 to 15 of a-z, 0-9 and '-', starting with a letter"
        )
    if pod in found.topology.pods:
        raise InputError(
            f"lab {found.name} has a pod named {pod} already", hint=f"weavelab pod delete {pod}, or another name"
        )
    if node not in found.topology.nodes:
        raise InputError(
            f"lab {found.name} has no node named {node}",
            hint=hint(node, found.topology.nodes, there_is="its nodes:"),
        )
    topology = msgspec.structs.replace(found.topology, pods={**found.topology.pods, pod: PodSpec(node=node)})
    for rule in RULES:
        for finding in rule(topology):
            raise InputError(finding.message)
    paths = LabPaths(found.name)
    if os.path.lexists(paths.netns_name(pod)) or os.path.lexists(paths.pins / f"{pod}.net"):
        raise InputError(
            f"wanted the namespace name {paths.netns_name(pod).name}, found in use", hint="give the pod another name"
        )
