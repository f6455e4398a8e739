"""What `weavelab status` shows: read from the state file, the agents and the kernel; one dictionary a lab.

Its keys are documented in docs/guide/lab.md and stay as they are; tables (`testbed.lab.tables`) are for people and may
change.
"""

import time
from collections.abc import Mapping
from typing import Any

from plugin.core.errors import CheckError
from testbed.lab import state
from testbed.lab.agent_api import AgentError, get
from testbed.lab.paths import LabPaths
from testbed.lab.running import Lab, LabNode
from testbed.machine import processes
from testbed.machine.processes import ProcessId
from testbed.topology.cni_conf import port_mapping


def observe(name: str | None) -> list[dict[str, Any]]:
    """One lab, or all of this machine when no name is given (an empty list when there is none).

    Raises:
        InputError: No such lab.
    """
    if name is not None and name not in state.labs():
        raise state.no_such_lab(name)
    return [_observe_lab(lab) for lab in ([name] if name is not None else state.labs())]


def healthy(lab: dict[str, Any]) -> bool:
    """Whether everything in it is as it should be."""
    whole = all(node["ready"] and not node["problems"] for node in lab["nodes"])
    return lab["phase"] == "ready" and whole and not _troubled_pairs(lab)


def _troubled_pairs(lab: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pair of agents of which one does not see the other as it should, and why."""
    return [
        {"from": node["name"], "to": peer["name"] or peer["address"], "state": peer["state"], "reason": peer["reason"]}
        for node in lab["nodes"]
        if node["ready"]
        for peer in node["peers"]
        if peer["state"] != "established"
    ]


def views(lab: Mapping[str, Any]) -> list[list[str]]:
    """The agents by what they believe of members, paths and addresses: one group when all agree."""
    groups: dict[str, list[str]] = {}
    for node in lab["nodes"]:
        if node["ready"]:
            groups.setdefault(node["digest"], []).append(node["name"])
    return sorted(groups.values(), key=lambda group: (-len(group), group))


def _observe_lab(name: str) -> dict[str, Any]:
    try:
        found = state.read(LabPaths(name))
    except CheckError as error:
        return _without_state(name, error.message)
    if found is None:
        return _without_state(name, "a killed command left it; `weavelab down` removes it")
    return _observe_state(found)


def _observe_state(found: state.LabState) -> dict[str, Any]:
    """The lab that a state describes, as its agents and the kernel show it now."""
    observed = _observe_whole(Lab.of(found), found)
    return observed | {"pairs_in_trouble": _troubled_pairs(observed), "views": views(observed)}


def _observe_whole(lab: Lab, found: state.LabState) -> dict[str, Any]:
    running = {record.member: ProcessId(record.pid, record.start_ticks) for record in found.processes}
    return {
        "name": lab.name,
        "phase": found.phase,
        "step": found.step,
        "problem": "",
        "topology": found.topology.name,
        "topology_file": found.topology_file,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.created_s)),
        "range": found.topology.network.range,
        "nodes": [_observe_node(node, running.get(node.name)) for node in lab.nodes.values()],
        "pods": observe_pods(lab),
        "pods_unfinished": [{"name": pod, "node": node} for pod, node in found.pods_unfinished.items()],
        "routers": list(lab.routers),
    }


def observe_pods(lab: Lab) -> list[dict[str, Any]]:
    """The pods that are attached, as the lab remembers them."""
    ports = {pod: [str(port_mapping(port)) for port in spec.ports] for pod, spec in lab.topology.pods.items()}
    return [
        {
            "name": pod.name,
            "node": pod.node,
            "address": str(pod.address),
            "mac": pod.mac,
            "interface": pod.ifname,
            "host_interface": pod.host_ifname,
            "container_id": pod.container_id,
            "netns": str(lab.paths.netns_name(pod.name)),
            "ports": ports.get(pod.name, []),
        }
        for pod in lab.pods.values()
    ]


def _without_state(name: str, problem: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"topology": "", "topology_file": "", "created": "", "range": ""}
    lists: dict[str, Any] = {"nodes": [], "pods": [], "pods_unfinished": [], "routers": []}
    lists |= {"pairs_in_trouble": [], "views": []}
    return {"name": name, "phase": "failed", "step": "", "problem": problem} | empty | lists


def _observe_node(node: LabNode, agent: ProcessId | None) -> dict[str, Any]:
    alive = agent is not None and processes.is_alive(agent)
    try:
        _code, answer = get(node.api_socket, "/status", timeout_s=2.0)
    except AgentError:
        answer = None
    said = answer if isinstance(answer, dict) else {}
    # An agent that was started by hand after a crash is as good as the one that `up` started.
    pid = said.get("pid", None if agent is None else agent.pid)
    alive = alive or answer is not None
    bridge = node.bridge_address
    return {
        "name": node.name,
        "uplink_address": said.get("node_address") or str(node.uplink_address),  # it may have another one by now
        "bridge_address": None if bridge is None else str(bridge),
        "ready": alive and bool(said.get("ready")),
        "agent": {"pid": pid, "alive": alive, "answers": answer is not None},
        "peers": said.get("peers", []),
        "digest": said.get("digest", ""),
        "ipam": {key: said.get("ipam", {}).get(key) for key in ("status", "epoch", "capacity", "held", "owners")},
        "pods": said.get("pods"),
        "endpoints": said.get("endpoints"),
        **{key: said.get(key, []) for key in ("problems", "repairs", "held")},
        "mtu": said.get("overlay", {}).get("mtu"),
        "log": str(node.log),
    }
