"""What `weavelab status` shows to people of what `testbed.lab.status` has found: one block a lab.

Every column names the key of `--format json` that it shows; docs/reference/cli.md lists both, a test compares. A time
that stands here was seen: when the lab was made, when an agent first saw a problem, when it last mended something. When
a process has died nobody has seen, so nothing says so.
"""

from typing import Any, Final

from testbed.lab.listing import Column, Listing, Row, Screen, clock, some
from testbed.lab.status import healthy
from testbed.machine import screen as looks

_PAIRS_SHOWN: Final = 20
_REPAIRS_SHOWN: Final = 3
_LINES_SHOWN: Final = 20


def _agent_word(node: Row) -> str:
    if node["ready"]:
        return "ready"
    if not node["agent"]["alive"]:
        return "not running"
    return "starting" if node["agent"]["answers"] else "no answer"


def _agent_style(node: Row) -> str:
    return {"ready": looks.GOOD, "starting": looks.WAITING}.get(_agent_word(node), looks.BAD)


def _peers(node: Row) -> str:
    established = sum(peer["state"] == "established" for peer in node["peers"])
    return f"{established}/{node['others']}"


def _owns(node: Row) -> str:
    """The node's part of the pod range, as its own agent says."""
    mine = next((owner for owner in node["ipam"]["owners"] or [] if owner["self"]), None)
    if mine is None:
        return "nothing" if node["ready"] else "-"
    return f"{mine['percent']:g} %"


def _title(_row: Row) -> str:
    return looks.TITLE


def _bad(_row: Row) -> str:
    return looks.BAD


NODES: Final = Listing(
    "nodes",
    (
        Column("node", "name"),
        Column("uplink", "uplink_address"),
        Column("switch", "bridge_address"),
        Column("agent", "agent", _agent_word, _agent_style),
        Column("peers", "peers", _peers),
        Column("owns", "ipam", _owns),
        Column("pods", "pods"),
        Column("mtu", "mtu"),
        Column("pid", "agent.pid", wide=True),
        Column("endpoints", "endpoints", wide=True),
        Column("problems", "problems", lambda node: str(len(node["problems"])), wide=True),
        Column("repairs", "repairs", lambda node: str(sum(one["count"] for one in node["repairs"])), wide=True),
        Column("log", "log", wide=True),
    ),
)

_PORTS: Final = Column("ports", "ports")
PODS: Final = Listing(
    "pods",
    (
        Column("pod", "name"),
        Column("node", "node"),
        Column("address", "address"),
        Column("mac", "mac"),
        Column("host side", "host_interface"),
        _PORTS,
        Column("interface", "interface", wide=True),
        Column("container", "container_id", wide=True),
        Column("namespace", "netns", wide=True),
    ),
)

PROBLEMS: Final = Listing(
    "problems",
    (
        Column("node", "node"),
        Column("what", "object", style=_title),
        Column("because", "cause"),
        Column("seen since", "since", lambda one: clock(one["since"])),
        Column("what to do", "advice"),
    ),
)

PAIRS: Final = Listing(
    "peers in trouble",
    (Column("agent", "from"), Column("sees", "to"), Column("as", "state", style=_bad), Column("because", "reason")),
)


def print_tables(labs: list[dict[str, Any]], *, wide: bool = False, screen: Screen | None = None) -> None:
    """For people: one block a lab; `wide` with every column and every line."""
    screen = screen or Screen()
    if not labs:
        screen.line("no lab is up")
    for lab in labs:
        screen.line(f"{lab['name']}: {_headline(lab)}", style="" if healthy(lab) else looks.TITLE)
        problems = [{"node": node["name"], **one} for node in lab["nodes"] for one in node["problems"]]
        screen.table(PROBLEMS, problems, wide=wide)
        pairs = lab["pairs_in_trouble"]
        shown = _alike(pairs)[:_PAIRS_SHOWN] if not wide else pairs
        screen.table(PAIRS, shown, wide=wide)
        more = 0 if wide else len(pairs) - sum(row["pairs"] for row in shown)
        if more:
            screen.line(f"{more} more pairs are in trouble: `--format wide` shows all")
        screen.table(NODES, [node | {"others": len(lab["nodes"]) - 1} for node in lab["nodes"]], wide=wide)
        screen.table(pods_listing(lab["pods"]), lab["pods"], wide=wide)
        lines = _agreement(lab, wide=wide)
        for line in lines if wide else lines[:_LINES_SHOWN]:
            screen.line(line)
        if len(lines) > _LINES_SHOWN and not wide:
            screen.line(f"{len(lines) - _LINES_SHOWN} more lines: `--format wide` shows all")


def _alike(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all agents that say the same of another: one that is dead is in trouble with everybody."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        groups.setdefault((pair["to"], pair["state"], pair["reason"]), []).append(pair["from"])
    return [
        {"from": some(names), "to": to, "state": state, "reason": reason, "pairs": len(names)}
        for (to, state, reason), names in groups.items()
    ]


def pods_listing(pods: list[dict[str, Any]], title: str = PODS.title) -> Listing:
    """The table of these pods: ports only where one has some."""
    ported = any(pod["ports"] for pod in pods)
    return Listing(title, tuple(column for column in PODS.columns if ported or column is not _PORTS))


def _headline(lab: dict[str, Any]) -> str:
    """How it is, and what it is."""
    if lab["problem"]:
        return str(lab["problem"])
    word = "up" if healthy(lab) else lab["phase"] if lab["phase"] != "ready" else "not whole"
    step = f" ({lab['step']})" if lab["step"] else ""
    return (
        f"{word}{step}, created {clock(lab['created'])}, pod range {lab['range']}, "
        f"from {lab['topology_file'] or lab['topology']}"
    )


def _agreement(lab: dict[str, Any], *, wide: bool) -> list[str]:
    """What was mended or is held, what the agents do not agree about, and what the ring waits for."""
    lines = [
        f"pod {pod['name']} on {pod['node']}: the command that made or deleted it has not come to its end; "
        f"`weavelab pod delete {pod['name']}` removes what there is of it"
        for pod in lab["pods_unfinished"]
    ]
    lines += [
        f"repaired on {node['name']}: {one['object']} ({one['count']}x, last {clock(one['last'])}: {one['was']})"
        for node in lab["nodes"]
        for one in (node["repairs"] if wide else node["repairs"][:_REPAIRS_SHOWN])
    ]
    lines += [
        f"held on {node['name']}: {one['object']}" + (f" ({one['reason']})" if one["reason"] else "")
        for node in lab["nodes"]
        for one in node["held"]
    ]
    groups = lab["views"]
    if len(groups) > 1:
        told = " | ".join(some(group, all_of_them=wide) for group in (groups if wide else groups[:_LINES_SHOWN]))
        lines.append(f"{len(groups)} views of the cluster: {told}")
        lines.append("  (agents become equal within seconds when nothing changes)")
    waiting: dict[str, list[str]] = {}
    for node in lab["nodes"]:
        status = node["ipam"]["status"]
        if status not in {None, "ready"}:
            waiting.setdefault(status, []).append(node["name"])
    lines += [f"addresses of {some(names, all_of_them=wide)}: {status}" for status, names in waiting.items()]
    troubles = {
        (owner["name"], owner["addresses"], owner["trouble"])
        for node in lab["nodes"]
        for owner in node["ipam"]["owners"] or []
        if owner["trouble"]
    }
    return lines + [f"{count} addresses of {name}: {trouble}" for name, count, trouble in sorted(troubles)]
