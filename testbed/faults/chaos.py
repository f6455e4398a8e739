"""Carries a plan of faults out in a running lab, and repairs everything. Read `run_faults` and `repair`.

It judges nothing but what can be seen only at the moment it happens: an agent that ended by itself, an address given
twice, a DEL that failed (`problems`). What has to hold afterwards is `testbed.faults.judge`'s.
"""

import heapq
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from plugin.core.errors import InputError, WeaveError, said_by
from testbed.faults.cuts import Cut, drop_all
from testbed.faults.plan import Fault
from testbed.faults.pods import Pods
from testbed.lab import state
from testbed.lab.agent_api import AgentError, get
from testbed.lab.running import Lab
from testbed.life import agent_control
from testbed.life.agents import log_tail

_EVENTS_MAX: Final = 5000
"""So much is kept of what was done; of more, the latest."""

GRACE_S: Final = 5.0
"""A node counts as disturbed so long after a fault on it ended: an agent that starts is ready by then."""

_READY_S: Final = 2.0


class Chaos:
    """Faults in one lab.

    Args:
        lab: The lab.
        pods: How many pods come and go.
        living: The addresses of all who live already, by name.
        wait: Lets so many seconds pass, or fewer when the run is stopped.
        stopped: Whether the run is stopped.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        pods: int,
        living: Mapping[str, str],
        wait: Callable[[float], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.lab = lab
        self.problems: list[str] = []
        self.done: Counter[str] = Counter()
        self.dropped = 0
        self._events: deque[str] = deque(maxlen=_EVENTS_MAX)
        self._noting = threading.Lock()
        self._began_s = time.monotonic()
        self._wait, self._stopped = wait, stopped
        self._cuts: dict[tuple[str, str], Cut] = {}
        self._down: dict[str, str] = {}
        """Agents that we killed and have not started again: node to kind of fault."""
        self._recovering = ""
        """The node whose agent started without its disk and has not been seen ready since."""
        self._disturbed: dict[str, int] = dict.fromkeys(lab.nodes, 0)
        self._disturbed_until_s: dict[str, float] = dict.fromkeys(lab.nodes, -math.inf)
        self.pods = Pods(lab, pods, living=living, note=self.note, disturbed=self._was_disturbed)

    @property
    def events(self) -> tuple[str, ...]:
        """What was done, with times, oldest first."""
        with self._noting:
            return tuple(self._events)

    def note(self, text: str) -> None:
        """Remember what was done just now."""
        with self._noting:
            self.dropped += len(self._events) == _EVENTS_MAX
            self._events.append(f"{time.monotonic() - self._began_s:8.2f} s  {text}")

    # ---- faults

    def run_faults(self, faults: Iterable[Fault], *, seconds: float) -> None:
        """Carry the plan out; returns after `seconds`, or sooner when the run is stopped."""
        self._began_s = time.monotonic()
        agenda: list[tuple[float, int, bool, Fault]] = []
        for number, fault in enumerate(faults):
            heapq.heappush(agenda, (fault.at_s, number, True, fault))
            if fault.lasts_s:
                heapq.heappush(agenda, (fault.ends_s, number, False, fault))
        while agenda and agenda[0][0] < seconds:
            at_s, _, begins, fault = heapq.heappop(agenda)
            self._wait_until(at_s)
            if self._stopped():
                return
            try:
                self._begin(fault) if begins else self._end(fault)
            except (WeaveError, OSError) as error:
                self._problem(f"{fault.kind} on {fault.node} could not be carried out: {said_by(error)}")
        self._wait_until(seconds)

    def _wait_until(self, at_s: float) -> None:
        left_s = self._began_s + at_s - time.monotonic()
        if left_s > 0:
            self._wait(left_s)

    def _begin(self, fault: Fault) -> None:
        if fault.kind == "pod-churn":
            self.pods.turn(fault.pod, fault.node)
            return
        reason = self._obstacle(fault)
        if reason:
            self.note(f"{fault.node}: {fault.kind} left out, {reason}")
            return
        self._disturb(fault.node, +1)
        self.done[fault.kind] += 1
        if fault.kind in {"kill-agent", "lose-disk"}:
            self._down[fault.node] = fault.kind
            self._kill(fault)
        else:
            others = [node.uplink_address for name, node in self.lab.nodes.items() if name != fault.node]
            try:
                self._cuts[fault.kind, fault.node] = Cut(self.lab.nodes[fault.node].space, fault.kind, others)
            except (WeaveError, OSError):
                self._disturb(fault.node, -1)
                raise
            what = "cut off" if fault.kind == "cut-node" else "UDP 6784 blocked"
            self.note(f"{fault.node}: {what} for {fault.lasts_s:.1f} s")

    def _end(self, fault: Fault) -> None:
        if fault.kind in {"kill-agent", "lose-disk"}:
            if self._down.pop(fault.node, "") == fault.kind:
                self._start(fault.node, lose_disk=fault.kind == "lose-disk")
                self._disturb(fault.node, -1)
        elif (cut := self._cuts.pop((fault.kind, fault.node), None)) is not None:
            cut.drop()
            self.note(f"{fault.node}: {'reachable' if fault.kind == 'cut-node' else 'UDP 6784 open'} again")
            self._disturb(fault.node, -1)

    def _obstacle(self, fault: Fault) -> str:
        """Why a fault would be one too many now: agents may take longer to come back than was planned."""
        if self._recovering and not self.is_ready(self._recovering):
            return f"{self._recovering} has lost its disk and is not back yet"
        self._recovering = ""
        if fault.kind == "lose-disk":
            for name in self.lab.nodes:
                if name in self._down or not self.is_ready(name):
                    return f"the agent of {name} is not ready"
        return ""

    def _kill(self, fault: Fault) -> None:
        try:
            agent_control.stop(self._fresh(), fault.node, kill=True)
        except InputError:
            self._ended_by_itself(fault.node)
            return
        how = " and its disk lost" if fault.kind == "lose-disk" else ""
        self.note(f"{fault.node}: agent killed{how} for {fault.lasts_s:.1f} s")

    def _start(self, node: str, *, lose_disk: bool) -> None:
        agent_control.start(self._fresh(), node, wait=False, lose_disk=lose_disk)
        if lose_disk:
            self._recovering = node
        self.note(f"{node}: agent started{' with an empty disk' if lose_disk else ''}")

    def _ended_by_itself(self, node: str) -> None:
        tail = " / ".join(log_tail(self.lab.nodes[node], 3))
        self._problem(f"the agent of {node} ended by itself; the end of its log: {tail or 'empty'}")

    def is_ready(self, node: str) -> bool:
        """Whether a node's agent says that it is ready."""
        try:
            code, _said = get(self.lab.nodes[node].api_socket, "/status", timeout_s=_READY_S)
        except AgentError:
            return False
        return code == 200

    # ---- repair

    def repair(self) -> None:
        """Remove every cut, start every agent that does not run; never raises."""
        for (kind, node), cut in list(self._cuts.items()):
            cut.drop()
            self._disturb(node, -1)
            self.note(f"{node}: {kind} ended")
        self._cuts.clear()
        self.problems += drop_all(node.space for node in self.lab.nodes.values())
        for node in self.lab.nodes:
            kind = self._down.pop(node, "")
            if kind:
                self._disturb(node, -1)
            try:
                if agent_control.find(self._fresh(), node) is None:
                    if not kind:
                        self._ended_by_itself(node)
                    self._start(node, lose_disk=kind == "lose-disk")
            except (WeaveError, OSError) as error:
                self._problem(f"the agent of {node} could not be started: {said_by(error)}")
        self.note("everything is repaired")

    def _fresh(self) -> Lab:
        """The lab with the agents that run now: each start is written into its state."""
        found = state.read(self.lab.paths)
        return self.lab if found is None else Lab.of(found)

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        self.note(f"PROBLEM: {text}")

    # ---- who is disturbed, for the pods

    def _disturb(self, node: str, change: int) -> None:
        self._disturbed[node] += change
        self._disturbed_until_s[node] = math.inf if self._disturbed[node] else time.monotonic() + GRACE_S

    def _was_disturbed(self, node: str, since_s: float) -> bool:
        return self._disturbed_until_s[node] > since_s
