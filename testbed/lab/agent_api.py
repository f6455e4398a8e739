"""Asks a node's agent over its unix socket: one request, one JSON answer. The lab's only way to an agent.

HTTP/1.0 on purpose: the answer ends with the connection, so thirty lines are a client, and asking a hundred agents
twenty times a second costs nothing worth a library.
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from plugin.core.errors import CheckError, said_by

TIMEOUT_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 64 << 20


class AgentError(CheckError):
    """The agent is not there, or did not answer as it should."""


def get(socket_path: Path, path: str, *, timeout_s: float = TIMEOUT_S) -> tuple[int, object]:
    """The status code and the JSON body of `GET path`; a body that is no JSON comes back as text.

    Raises:
        AgentError: Nobody listens, or the answer is no HTTP or too long.
    """
    return _ask(socket_path, f"GET {path} HTTP/1.0\r\nHost: weave\r\n\r\n", timeout_s)


def post(
    socket_path: Path, path: str, body: Mapping[str, object], *, timeout_s: float = TIMEOUT_S
) -> dict[str, object]:
    """Have the agent do something; what it answers.

    Raises:
        AgentError: Nobody listens, or the agent says no, in its own words.
    """
    text = json.dumps(body)
    request = f"POST {path} HTTP/1.0\r\nHost: weave\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    code, answer = _ask(socket_path, request, timeout_s)
    if not isinstance(answer, dict):
        raise AgentError(f"the agent's answer at {socket_path} is no JSON object: {answer!r:.80}")
    if code != 200:
        raise AgentError(str(answer.get("error", f"the agent answered {code}")), hint=str(answer.get("hint", "")))
    return answer


def _ask(socket_path: Path, request: str, timeout_s: float) -> tuple[int, object]:
    try:
        answer = _exchange(socket_path, request, timeout_s)
    except OSError as error:
        raise AgentError(f"the agent does not answer at {socket_path}: {said_by(error, path=False)}") from error
    head, separator, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise AgentError(f"the agent's answer at {socket_path} is no HTTP: {answer[:80]!r}")
    try:
        return int(words[1]), json.loads(body)
    except ValueError:
        return int(words[1]), body.decode(errors="replace")


def _exchange(socket_path: Path, request: str, timeout_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(socket_path))
        connection.sendall(request.encode())
        answer = bytearray()
        while len(answer) < _ANSWER_BYTES_MAX:
            part = connection.recv(1 << 16)
            if not part:
                return bytes(answer)
            answer += part
    raise OSError(f"an answer of more than {_ANSWER_BYTES_MAX >> 20} MiB")
