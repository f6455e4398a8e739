#!/usr/bin/env python3
"""weave: ask this node's agent, and have it do something; the commands and tables are Weave's.

Stands alone on a node: nothing but the standard library, no import of the rest of the project.
"""

from __future__ import annotations

import json
import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # a third of the start-up, and nothing but the type checker needs it

_JSON = "application/json"
SOCKET = "/run/weave/weave.sock"
TIMEOUT_S = 15.0

USAGE = """\
usage: weave COMMAND [ARGUMENT]...        ask or command the agent of this node

  status                        what is wrong on this node (exit code 1), and its services in short
  status connections            every peer: how its packets travel, or why they do not
  status peers                  every peer and whom it reaches
  status ipam                   who owns how many addresses, and what waits for whom
  status endpoints              every pod and bridge of the cluster
  status targets                at which addresses other agents are looked for
  report [KEY[.KEY]...]         everything, or one part of it, as JSON
  ps                            the pods of this node: id, MAC, addresses
  connect [--replace] ADDRESS...   look for other agents there too (or only there)
  forget ADDRESS...             look for other agents there no more
  rmpeer [--force] PEER...      these peers (name, uid or MAC) are gone for good: take their addresses over
  recover [--without PEER...]   what it means to go on without these (or all that do not answer); nothing changes
  recover --force --without PEER...   too many are gone for good: go on without them (dangerous, no way back)
  reset [--force]               leave the cluster for good and remove what the agent has made on this node
  expose | hide                 give the switch its address, or take it away
  hold OBJECT [REASON...]       do not mend it: a word as `status` shows it, a group (link), or everything
  release OBJECT                mend it again
  version                       the agent's version

options:  --socket PATH  the agent's socket, else $WEAVE_SOCKET, else /run/weave/weave.sock
          -h, --help     this text

examples: weave status connections
          weave report ipam.status
          weave rmpeer node3
          weave recover --without node2 node3
          weave hold "link vxlan-6784" to see what happens
"""

STATUS = ("connections", "peers", "ipam", "endpoints", "targets")


class WeaveToolError(Exception):
    """What ends the command: a sentence, a hint, and the exit code."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code.

    0 done, 1 something is wrong on this node (`status`), the agent says no, or does not answer, 2 wrong usage.
    """
    try:
        path, words = options(argv)
        if words is None:
            sys.stdout.write(USAGE)
            return 0
        text = run(path, words)
        sys.stdout.write(text)
        sys.stdout.flush()
        if words == ["status"] and text.lstrip().startswith("PROBLEM:"):
            return 1
    except WeaveToolError as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.code
    except BrokenPipeError:  # `weave status peers | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except KeyboardInterrupt:
        return 130
    return 0


def options(argv: list[str]) -> tuple[str, list[str] | None]:
    """The agent's socket and the words of the command; None instead of words when help is wanted."""
    path = os.environ.get("WEAVE_SOCKET") or SOCKET
    words = list(argv)
    if "--socket" in words:
        at = words.index("--socket")
        if at + 1 >= len(words):
            raise usage("--socket wants a path")
        path = words[at + 1]
        del words[at : at + 2]
    if not words or words[0] in {"help", "-h", "--help"} or {"-h", "--help"} & set(words):
        return path, None
    return path, words


def run(path: str, words: list[str]) -> str:  # noqa: C901, PLR0911, PLR0912 - a line a command
    """Carry out a command; returns what is printed."""
    command, rest = words[0], words[1:]
    if command == "status" and len(rest) <= 1 and (not rest or rest[0] in STATUS):
        return ask(path, "GET", "/".join(["/status", *rest]), accept="text/plain")
    if command == "ps" and not rest:
        return ask(path, "GET", "/ps", accept="text/plain")
    if command == "report" and len(rest) <= 1:
        return json.dumps(part(json.loads(ask(path, "GET", "/report")), rest[0] if rest else ""), indent=2) + "\n"
    if command == "version" and not rest:
        return f"weavelab {json.loads(ask(path, 'GET', '/status'))['version']}\n"
    if command == "connect" and rest and rest != ["--replace"]:
        addresses = [word for word in rest if word != "--replace"]
        return targets(path, "/connect", {"addresses": addresses, "replace": "--replace" in rest})
    if command == "forget" and rest:
        return targets(path, "/forget", {"addresses": rest})
    if command == "rmpeer" and rest and rest != ["--force"]:
        force = "--force" in rest
        return "".join(removed(path, peer, force) for peer in rest if peer != "--force")
    if command == "recover" and (peers := named(rest)) is not None:
        return recovered(path, peers, "--force" in rest)
    if command == "reset" and rest in ([], ["--force"]):
        ask(path, "POST", "/reset", {"force": bool(rest)})
        return "this node has left the cluster; its agent has ended\n"
    if command in {"expose", "hide"} and not rest:
        address = json.loads(ask(path, "POST", f"/{command}", {}))["address"]
        return f"{address}\n" if address else ""
    if command == "hold" and rest:
        return held(json.loads(ask(path, "POST", "/hold", {"object": rest[0], "reason": " ".join(rest[1:])})))
    if command == "release" and len(rest) == 1:
        return held(json.loads(ask(path, "POST", "/release", {"object": rest[0]})))
    known = {line.split()[0] for line in USAGE.splitlines() if line.startswith("  ") and not line.startswith("   ")}
    if command not in known | {"hide"}:
        raise usage(f"unknown command: {command}")
    raise usage(f"wrong arguments for {command}: {' '.join(rest) or 'none'}")


def targets(path: str, where: str, body: dict[str, Any]) -> str:
    """Change the list of addresses and show it."""
    return "".join(f"{target}\n" for target in json.loads(ask(path, "POST", where, body))["targets"])


def held(answer: dict[str, Any]) -> str:
    """What is held now."""
    return "".join(f"{name}\n" for name in answer["held"]) or "nothing is held\n"


def removed(path: str, peer: str, force: bool) -> str:  # noqa: FBT001
    """Remove one peer."""
    answer = json.loads(ask(path, "POST", "/rmpeer", {"peer": peer, "force": force}))
    return f"{answer['addresses']} IPs taken over from {', '.join(answer['removed'])}\n"


def named(words: list[str]) -> list[str] | None:
    """The peers of `[--force] --without PEER...`; none when there are no words at all, None when they make no sense."""
    peers = [word for word in words if word not in {"--force", "--without"}]
    sound = "--without" in words[:2] and peers and not any(peer.startswith("-") for peer in peers)
    return peers if sound or words in ([], ["--force"]) else None


def recovered(path: str, peers: list[str], force: bool) -> str:  # noqa: FBT001
    """Go on without these peers, or show what that means."""
    told = json.loads(ask(path, "POST", "/recover", {"without": peers, "force": force}))
    names = ", ".join(one["name"] for one in told["without"])
    if told["recovered"]:
        lines = [f"recovered: ring {told['ring']}, epoch {told['epoch']}, goes on without what was given up"]
        if names:
            lines.append(f"{told['addresses']} IPs taken over from {names}")
        return "\n".join(lines) + "\n"
    lines = ["This would go on without these nodes, as if they were gone for good:"]
    for one in told["without"]:
        alive = ", AND ITS NODE ANSWERS THROUGH THE OVERLAY: its pods may be alive" if one["overlay_answers"] else ""
        lines.append(f"  {one['name']:<16} {one['address']:<16} {one['addresses']} IPs to {one['heir']}{alive}")
    lines.append("These keep their seats, their addresses and their pods, and all of them have to agree:")
    lines += [f"  {one['name']:<16} {one['address']}" for one in told["with"]]
    lines += [
        "New nodes get seats and addresses again.",
        "",
        "What it risks:",
        *(f"  - {risk}" for risk in told["risks"]),
    ]
    lines += ["", "Nothing has changed. If they are gone for good:", f"  {told['command']}"]
    return "\n".join(lines) + "\n"


def part(report: Any, keys: str) -> Any:
    """One part of a report: `ipam.status`, `peers.0.name`."""
    for key in keys.split(".") if keys else ():
        try:
            report = report[int(key)] if isinstance(report, list) else report[key]
        except (KeyError, ValueError, IndexError, TypeError):
            several = f"0 to {len(report) - 1}" if isinstance(report, list) else "nothing"
            known = ", ".join(report) if isinstance(report, dict) else several
            raise WeaveToolError(f"the report has no {keys}", f"instead of {key} there is: {known}", 2) from None
    return report


def usage(message: str) -> WeaveToolError:
    """Wrong words."""
    return WeaveToolError(message, "weave --help lists the commands", 2)


def ask(path: str, method: str, where: str, body: dict[str, Any] | None = None, accept: str = _JSON) -> str:
    """One exchange with the agent over HTTP/1.0, where an answer ends with its connection."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {where} HTTP/1.0\r\nHost: weave\r\nAccept: {accept}\r\nContent-Length: {len(data)}\r\n\r\n"
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(path)
            connection.sendall(head.encode() + data)
            while piece := connection.recv(1 << 16):
                answer += piece
    except PermissionError:
        raise WeaveToolError(f"{path} may not be opened", "the agent's socket is root's: sudo weave ...", 3) from None
    except OSError as error:
        raise WeaveToolError(
            f"no agent answers at {path}: {error.strerror or error}", "is the agent running on this node?"
        ) from None
    top, _, rest = bytes(answer).partition(b"\r\n\r\n")
    words = top.split()
    if len(words) < 2 or not words[1].isdigit():
        raise WeaveToolError(f"what answers at {path} is no agent")
    status = int(words[1])
    text = rest.decode("utf-8", "replace")
    if status in {200, 503}:  # 503: the agent is not ready yet, and says why
        return text
    try:
        told = json.loads(text)
        raise WeaveToolError(told["error"], told.get("hint", ""), int(told.get("exit_code", 1)))
    except (ValueError, KeyError, TypeError):
        raise WeaveToolError(f"the agent answered {status}: {text[:200]}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
