"""What `weavelab status` shows: read from the state file, the agents and the kernel; one dictionary a lab.

Its keys are documented in docs/guide/lab.md and stay as they are; tables are for people and may change.
"""

import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from plugin.core.errors import CheckError, InputError
from testbed.lab import state
from testbed.lab.agent_api import AgentError, get
from testbed.lab.paths import LabPaths
from testbed.lab.running import Lab, LabNode
from testbed.machine import processes, screen
from testbed.machine.processes import ProcessId
from testbed.topology.cni_conf import port_mapping

_PAIRS_SHOWN: Final = 20
_REPAIRS_SHOWN: Final = 3


def observe(name: str | None) -> list[dict[str, Any]]:
    """One lab, or all of this machine when no name is given (an empty list when there is none).

    Raises:
        InputError: No such lab.
    """
    if name is not None and name not in state.labs():
        raise InputError(f"no lab named {name} is up", hint=f"up: {', '.join(state.labs()) or 'none'}")
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
    lab = Lab.of(found)
    observed = _observe_whole(lab, found)
    return observed | {"pairs_in_trouble": _troubled_pairs(observed), "views": views(observed)}


def _observe_whole(lab: Lab, found: state.LabState) -> dict[str, Any]:
    ports = {pod: [str(port_mapping(port)) for port in spec.ports] for pod, spec in found.topology.pods.items()}
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
        "pods": [
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
        ],
        "routers": list(lab.routers),
    }


def _without_state(name: str, problem: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"topology": "", "topology_file": "", "created": "", "range": ""}
    lists: dict[str, Any] = {"nodes": [], "pods": [], "routers": [], "pairs_in_trouble": [], "views": []}
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


def print_tables(labs: list[dict[str, Any]]) -> None:
    """For people: one block a lab."""
    from rich.table import Table  # noqa: PLC0415 - 60 ms that only this pays

    console = screen.make_console(sys.stdout)
    if not labs:
        console.print("no lab is up")
    for lab in labs:
        console.print(f"[{screen.TITLE}]{lab['name']}[/]: {_headline(lab)}", soft_wrap=True)
        for title, columns, rows in (_problem_rows(lab), _trouble_rows(lab), _node_rows(lab), _pod_rows(lab)):
            if rows:
                table = Table(*columns, box=screen.table_box(), title=title, title_justify="left", pad_edge=False)
                for row in rows:
                    table.add_row(*row)
                console.print(table)
        for line in _agreement(lab):
            console.print(line, soft_wrap=True)


def _headline(lab: dict[str, Any]) -> str:
    if lab["problem"]:
        return str(lab["problem"])
    word = "up" if healthy(lab) else lab["phase"] if lab["phase"] != "ready" else f"[{screen.BAD}]not whole[/]"
    step = f" ({lab['step']})" if lab["step"] else ""
    return (
        f"{word}{step} since {lab['created']}, pod range {lab['range']}, from {lab['topology_file'] or lab['topology']}"
    )


def _node_rows(lab: dict[str, Any]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = []
    for node in lab["nodes"]:
        established = sum(peer["state"] == "established" for peer in node["peers"])
        rows.append(
            (
                node["name"],
                node["uplink_address"],
                node["bridge_address"] or "-",
                _agent_word(node),
                f"{established}/{len(lab['nodes']) - 1}",
                _owns(node, lab),
                "-" if node["pods"] is None else str(node["pods"]),
                "-" if node["mtu"] is None else str(node["mtu"]),
            )
        )
    return "nodes", ("node", "uplink", "switch", "agent", "peers", "owns", "pods", "mtu"), rows


def _owns(node: dict[str, Any], lab: dict[str, Any]) -> str:
    """The node's part of the pod range, as its own agent says."""
    owners = node["ipam"]["owners"] or []
    mine = next((owner for owner in owners if owner["self"]), None)
    if mine is None:
        return "-" if not lab["range"] or not node["ready"] else "nothing"
    return f"{mine['percent']:g} %"


def _trouble_rows(lab: dict[str, Any]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = [
        (pair["from"], pair["to"], f"[{screen.BAD}]{pair['state']}[/]", pair["reason"])
        for pair in lab["pairs_in_trouble"][:_PAIRS_SHOWN]
    ]
    more = len(lab["pairs_in_trouble"]) - len(rows)
    title = "peers in trouble" + (f" ({more} more are not shown)" if more else "")
    return title, ("agent", "sees", "as", "because"), rows


def _problem_rows(lab: dict[str, Any]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    rows: list[tuple[str, ...]] = [
        (node["name"], f"[{screen.TITLE}]{one['object']}[/]", one["cause"], _clock(one["since"]), one["advice"])
        for node in lab["nodes"]
        for one in node["problems"]
    ]
    return "problems", ("node", "what", "because", "since", "what to do"), rows


def _clock(time: str) -> str:
    return datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S")


def _agreement(lab: dict[str, Any]) -> list[str]:
    """What was mended or is held, what the agents do not agree about, and what the ring waits for."""
    lines = [
        f"repaired on {node['name']}: {one['object']} ({one['count']}x, last {_clock(one['last'])}: {one['was']})"
        for node in lab["nodes"]
        for one in node["repairs"][:_REPAIRS_SHOWN]
    ]
    lines += [
        f"held on {node['name']}: {one['object']}" + (f" ({one['reason']})" if one["reason"] else "")
        for node in lab["nodes"]
        for one in node["held"]
    ]
    groups = lab["views"]
    if len(groups) > 1:
        lines.append(f"{len(groups)} views of the cluster: " + " | ".join(", ".join(group) for group in groups))
        lines.append("  (agents become equal within seconds when nothing changes)")
    waiting: dict[str, list[str]] = {}
    for node in lab["nodes"]:
        status = node["ipam"]["status"]
        if status not in {None, "ready"}:
            waiting.setdefault(status, []).append(node["name"])
    lines += [f"addresses of {', '.join(names)}: {status}" for status, names in waiting.items()]
    troubles = {
        (owner["name"], owner["addresses"], owner["trouble"])
        for node in lab["nodes"]
        for owner in node["ipam"]["owners"] or []
        if owner["trouble"]
    }
    return lines + [f"{count} addresses of {name}: {trouble}" for name, count, trouble in sorted(troubles)]


def _agent_word(node: dict[str, Any]) -> str:
    if node["ready"]:
        return f"[{screen.GOOD}]ready[/]"
    if not node["agent"]["alive"]:
        return f"[{screen.BAD}]not running[/]"
    return f"[{screen.WAITING}]starting[/]" if node["agent"]["answers"] else f"[{screen.BAD}]no answer[/]"


def _pod_rows(lab: dict[str, Any]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    ported = any(pod["ports"] for pod in lab["pods"])
    rows: list[tuple[str, ...]] = [
        (
            pod["name"],
            pod["node"],
            pod["address"],
            pod["mac"],
            pod["host_interface"],
            *([" ".join(pod["ports"])] if ported else []),
        )
        for pod in lab["pods"]
    ]
    return "pods", ("pod", "node", "address", "mac", "host side", *(["ports"] if ported else [])), rows
