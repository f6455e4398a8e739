"""What `weave status` and its relatives print: text, made from the values of plugin/agent/api/status.py.

The layouts are those that users of Weave know (prog/weaver/http.go and its templates).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from plugin.core.messages.wire import VERSION as PROTOCOL

_REPAIRS_SHOWN: Final = 8


def overview(status: dict[str, Any]) -> str:
    """`weave status`: the services of this node."""
    peers, connections, ipam = status["peers"], status["connections"], status["ipam"]
    known = [peer for peer in peers if peer["name"]]
    links = len(known)
    router = [
        (
            "Protocol",
            f"weavelab {PROTOCOL}, UDP and TCP {status['control_port']}, VXLAN on UDP {status['overlay']['port']}",
        ),
        ("Name", f"{status['peer']}({status['name']})"),
        ("Encryption", "disabled"),
        ("Password", "set" if status["password"] else "none"),
        ("PeerDiscovery", "enabled"),
        ("Targets", str(len(status["targets"]))),
        ("Connections", _counted(len(peers), connections)),
        ("Peers", f"{len(known) + 1} (with {connections.get('established', 0)} of {links} established)"),
        ("TrustedSubnets", "none"),
    ]
    if status["rejected"]:
        router.append(("Refused", ", ".join(f"{count} {reason}" for reason, count in status["rejected"].items())))
    address = status["bridge"]["address"]
    shown = address if status["bridge"]["exposed"] else f"without its address {address} (hidden)"
    parts = [
        _troubles(status),
        f"        Version: {status['version']}\n",
        _service("router", router),
        _service("ipam", [("Status", ipam["status"]), ("Range", ipam["range"]), ("DefaultSubnet", ipam["range"])]),
        _service(
            "plugin",
            [
                ("DriverName", "weave-net"),
                ("Bridge", f"{status['bridge']['name']} {shown if address else 'without an address yet'}"),
                ("Pods", str(status["pods"])),
                ("Guard", _guarded(status["guard"])),
            ],
        ),
    ]
    return "".join(parts) + _repairs(status)


def _troubles(status: dict[str, Any]) -> str:
    """What is wrong on this node, each with its cause, since when, and what to do; empty when nothing is."""
    lines = []
    for one in status["problems"]:
        lines.append(f"        PROBLEM: {one['object']}: {one['cause']} (since {_clock(one['since'])})")
        if one["advice"]:
            lines.append(f"                 {one['advice']}")
    return "\n".join([*lines, "", ""]) if lines else ""


def _repairs(status: dict[str, Any]) -> str:
    """What is held, and what was mended: how often, and when the last time."""
    lines = []
    for one in status["held"]:
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(f"           Held: {one['object']} (since {_clock(one['since'])}){reason}")
    lines += [
        f"       Repaired: {one['object']} ({one['count']}x, last {_clock(one['last'])}: {one['was'] or 'changed'})"
        for one in status["repairs"][:_REPAIRS_SHOWN]
    ]
    more = len(status["repairs"]) - _REPAIRS_SHOWN
    if more > 0:
        lines.append(f"       Repaired: {more} more, see `weave report repairs`")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _clock(time: str) -> str:
    """The time of day of an RFC 3339 time; with its date when that is not today."""
    then = datetime.fromisoformat(time)
    today = datetime.now(then.tzinfo).date()
    return f"{then:%H:%M:%S}" if then.date() == today else f"{then:%Y-%m-%d %H:%M:%S}"


def connections(status: dict[str, Any]) -> str:
    """`weave status connections`: a line a peer, with what carries its packets or why nothing does."""
    rows = []
    for peer in status["peers"]:
        arrow = "->" if peer["outbound"] else "<-"
        who = f"{peer['peer']}({peer['name']})" if peer["name"] else ""
        path = peer["path"]
        if peer["state"] == "established":
            mtu = path["mtu"] if path is not None and path["mtu"] else status["overlay"]["mtu"]
            what = f"fastdp {who} mtu={mtu}" + (f", {path['reason']}" if path and path["reason"] else "")
        else:
            relay = peer["via"] and f"relayed by {peer['via']}"
            what = ", ".join(part for part in (who, peer["reason"], relay) if part)
        rows.append(f"{arrow} {peer['address']}:{status['control_port']:<5}  {peer['state']:<11} {what}".rstrip())
    return "\n".join(rows) + "\n" if rows else ""


def peers(report: dict[str, Any]) -> str:
    """`weave status peers`: every peer, and under it whom it reaches."""
    broken = {frozenset(ends) for ends in report["broken_links"]}
    members = sorted(report["members"], key=lambda member: member["name"])
    macs = {peer["name"]: peer["peer"] for peer in report["peers"]} | {report["name"]: report["peer"]}
    alive = {member["name"] for member in members if member["state"] in {"alive", "suspect"}}
    lines = []
    for member in members:
        lines.append(f"{macs.get(member['name'], '')}({member['name']})")
        if member["name"] not in alive:
            lines[-1] += f" - {member['state']}"
            continue
        for other in members:
            if other["name"] == member["name"]:
                continue
            gone = other["name"] not in alive or frozenset((member["name"], other["name"])) in broken
            state = "failed" if gone else "established"
            lines.append(
                f"   -> {other['address'] + ':' + str(report['control_port']):<21} "
                f"{macs.get(other['name'], '')}({other['name']})".ljust(62)
                + f" {state}"
            )
    return "\n".join(lines) + "\n"


def ipam(status: dict[str, Any]) -> str:
    """`weave status ipam`: who owns how much."""
    found = status["ipam"]
    if not found["owners"]:
        return f"{found['status']}\n"
    lines = []
    for owner in found["owners"]:
        who = f"{owner['peer']}({owner['name']})"
        line = f"{who:<37} {owner['addresses']:8d} IPs ({owner['percent']:04.1f}% of total)"
        if owner["self"]:
            line += f" ({found['held']} active)"
        if owner["trouble"]:
            line += f" - {owner['trouble']}"
        lines.append(line)
    if found["status"] != "ready":
        lines.append(found["status"])
    return "\n".join(lines) + "\n"


def endpoints(listed: list[dict[str, Any]]) -> str:
    """`weave status endpoints`: every pod and bridge of the cluster."""
    rows = [("ADDRESS", "MAC", "NODE", "NAME")]
    rows += [
        (one["address"], one["mac"], one["node"] + (" (here)" if one["local"] else ""), one["label"]) for one in listed
    ]
    return _table(rows)


def targets(status: dict[str, Any]) -> str:
    """`weave status targets`."""
    return "".join(f"{target}\n" for target in status["targets"])


def attachments(listed: list[dict[str, Any]]) -> str:
    """`weave ps`: id, MAC, addresses, the ports of the node that lead to the pod, and what the guard says of it."""
    return "".join(
        " ".join(
            [one["id"][:12], one["mac"], *one["addresses"], *one.get("ports", ())]
            + ([one["guard"]] if one.get("guard") else [])
            + [f"refused:{word}={count}" for word, count in one.get("refused", {}).items()]
        )
        + "\n"
        for one in listed
    )


def _guarded(guard: dict[str, Any]) -> str:
    """By what pods are kept from pretending, who is exempt, and what was refused."""
    refused = ", ".join(f"{count} {word}" for word, count in sorted(guard["refused"].items()))
    parts = [
        ", ".join(guard["by"]),
        f"{guard['exempt']} pods exempt" if guard["exempt"] else "",
        f"refused: {refused}" if refused else "",
    ]
    return "; ".join(part for part in parts if part)


def _service(name: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"{key:>15}: {value}" for key, value in [("Service", name), *rows]]
    return "\n" + "\n".join(lines) + "\n"


def _counted(total: int, states: dict[str, int]) -> str:
    parts = [f"{count} {state}" for state, count in sorted(states.items()) if count]
    return f"{total}" + (f" ({', '.join(parts)})" if parts else "")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
